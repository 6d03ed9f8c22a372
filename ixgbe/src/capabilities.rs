//! What the device can do.

use pagewire_hal::{Capabilities, ChecksumOffload, Segmentation};

use crate::config::Config;
use crate::desc::{TX_DTALEN_MAX, TX_PAYLEN_MAX};
use crate::ids::Family;
use crate::tx::{CONTEXTS, GAP, WTHRESH};

/// Descriptors that the device holds of a frame at most, less the write-back threshold and two
/// (X550 datasheet 7.2.1.1 by `nics.md`: "up to 40 − WTHRESH − 2 buffers"; DPDK enforces 40 −
/// WTHRESH, FreeBSD ships 32).
const HELD_DESCRIPTORS: u32 = 40;
/// Shortest frame that the device pads (X550 datasheet 7.2.3.2.4 by `nics.md`; Linux pads to 17).
const MIN_FRAME_LEN: u32 = 17;
/// Longest header of a frame to be segmented (X550 datasheet by `nics.md`).
const MAX_HEADER_LEN: u16 = 240;

/// What the device can do.
///
/// Of the descriptors of one frame the context is counted as one: the text says "buffers", which a
/// context is not, but the strict reading costs one fragment and cannot be wrong.
pub(crate) fn capabilities(config: &Config, family: Family) -> Capabilities {
    let device = HELD_DESCRIPTORS - WTHRESH - 2 - CONTEXTS;
    let ring = u32::from(config.tx_descriptors) - GAP - CONTEXTS;
    let bound = config.max_fragments.map_or(u32::MAX, u32::from);
    let checksum = ChecksumOffload::OF_IPV4 | ChecksumOffload::OF_IPV6;
    let mut capabilities = Capabilities::minimal();
    capabilities.max_fragments = device.min(ring).min(bound) as u16;
    capabilities.max_fragment_len = TX_DTALEN_MAX;
    capabilities.min_frame_len = MIN_FRAME_LEN;
    capabilities.max_frame_len = config.max_frame_len();
    if config.checksum_offload {
        capabilities.tx_checksum = checksum;
    }
    if config.checksum_offload && config.segmentation {
        let mut segmentation = Segmentation::new(TX_PAYLEN_MAX, MAX_HEADER_LEN);
        segmentation.ipv4 = true;
        segmentation.ipv6 = true;
        capabilities.segmentation = Some(segmentation);
    }
    capabilities.rx_checksum = match family {
        // See `RxDescriptor::checksum`, also for IPv4 headers: where the device has not looked at
        // the transport checksum as well, a wrong header is not told from one not looked at.
        Family::I82599 => checksum.difference(ChecksumOffload::UDP_IPV4),
        Family::X540 => checksum,
    };
    capabilities.rx_hash = true;
    capabilities.queue_pairs = config.queue_pairs;
    capabilities.statistics = true;
    capabilities.dma_address_bits = 64;
    capabilities
}
