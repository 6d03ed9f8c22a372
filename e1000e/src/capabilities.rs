//! What the device can do.

use pagewire_hal::{Capabilities, ChecksumOffload, NicError};

use crate::config::Config;
use crate::desc::TX_DTALEN_MAX;
use crate::init::TX_FIFO_RESERVE;
use crate::tx::{CONTEXTS, GAP};

/// QEMU's model drops a frame of more fragments and still marks it done (`E1000E_MAX_TX_FRAGS`,
/// QEMU `e1000e_core.c`). The 82574 itself has no limit that is documented.
const QEMU_MAX_FRAGMENTS: u32 = 64;
/// Shortest frame that the device pads. Linux e1000e: "the minimum packet size with TCTL.PSP set
/// is 17 bytes", and it pads to that itself.
const MIN_FRAME_LEN: u32 = 17;
/// Linux e1000e: a descriptor holds at most the transmit FIFO less 96 bytes, and 24 KiB.
const FRAGMENT_FIFO_RESERVE: u32 = 96;
/// See [`FRAGMENT_FIFO_RESERVE`].
const MAX_FRAGMENT_LEN: u32 = 24 * 1024;
const _: () = assert!(MAX_FRAGMENT_LEN <= TX_DTALEN_MAX);

/// What the device can do with a transmit FIFO of `fifo` bytes.
pub(crate) fn capabilities(config: &Config, fifo: u32) -> Result<Capabilities, NicError> {
    let max_frame_len = config.max_frame_len();
    let max_fragment_len = fifo
        .saturating_sub(FRAGMENT_FIFO_RESERVE)
        .min(MAX_FRAGMENT_LEN);
    if fifo.saturating_sub(TX_FIFO_RESERVE) < max_frame_len || max_fragment_len == 0 {
        return Err(NicError::Config {
            what: "the transmit FIFO does not hold a frame of this mtu",
        });
    }
    let ring = u32::from(config.tx_descriptors) - GAP - CONTEXTS;
    let bound = config.max_fragments.map_or(u32::MAX, u32::from);
    let max_fragments = QEMU_MAX_FRAGMENTS.min(ring).min(bound);
    let checksum = ChecksumOffload::OF_IPV4 | ChecksumOffload::OF_IPV6;
    let mut capabilities = Capabilities::minimal();
    capabilities.max_fragments = max_fragments as u16;
    capabilities.max_fragment_len = max_fragment_len;
    capabilities.min_frame_len = MIN_FRAME_LEN;
    capabilities.max_frame_len = max_frame_len;
    capabilities.tx_checksum = checksum;
    if !config.checksum_offload {
        capabilities.tx_checksum = ChecksumOffload::empty();
    }
    if config.generic_checksum {
        capabilities.tx_checksum |= ChecksumOffload::GENERIC;
    }
    capabilities.rx_checksum = checksum;
    capabilities.statistics = true;
    capabilities.dma_address_bits = 64;
    Ok(capabilities)
}
