//! What the device can do, from what was negotiated.

use pagewire_hal::driver::ETHERNET_HEADER;
use pagewire_hal::{Capabilities, ChecksumOffload, MacAddress, NicError, Registers, Segmentation};

use crate::config::Config;
use crate::regs::Structures;
use crate::{Features, desc, link};

/// QEMU's elements have at most 1024 pieces (`VIRTQUEUE_MAX_SIZE`), as has Linux' writev, and the
/// header may become a piece of its own there.
const MAX_CHAIN: u16 = 1023;
/// No virtual device pads, and what is behind it may be a wire: so the shortest frame is that of
/// Ethernet, without its frame check sequence.
const MIN_FRAME_LEN: u32 = 60;
/// Payload of a request for segmentation: with the longest IPv4 and TCP headers (60 bytes each)
/// the packet's length fits its 16-bit field.
const MAX_SEGMENTATION_PAYLOAD: u32 = 65_535 - 120;
/// The specification sets no limit; this is more than Ethernet, VLAN, IPv6 with the longest TCP
/// header have, with room for extension headers.
const MAX_SEGMENTATION_HEADER: u16 = 255;

/// A received frame that is joined from segments: the longest packet that the IP headers can tell
/// the length of (IPv6's does not count its own 40 bytes; no device is known to go beyond 65535
/// with them).
const MAX_JOINED_LEN: u32 = 65_535 + ETHERNET_HEADER;

/// The station address: the device's, or that of the configuration.
pub(crate) fn station_address<R: Registers>(
    device: &Structures<R>,
    features: Features,
    config: &Config,
) -> Result<MacAddress, NicError> {
    if !features.contains(Features::MAC) {
        return config.mac_address.ok_or(NicError::Config {
            what: "the device has no station address: mac_address is needed",
        });
    }
    let mac = link::mac_address(device).ok_or(NicError::NotOffered {
        what: "station address that can be read: it changes all the time",
    })?;
    if mac.is_multicast() || mac.0 == [0; 6] {
        return Err(NicError::BadMacAddress(mac));
    }
    Ok(mac)
}

/// What the device can do with `features`, an MTU of `mtu` bytes and transmit rings of `size`
/// descriptors.
pub(crate) fn capabilities(
    config: &Config,
    features: Features,
    mtu: u16,
    size: u16,
    pairs: u16,
) -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    // A chain is never longer than the queue, in an indirect table either (virtio 1.3, section
    // 2.7.5.3.1).
    let bound = config.max_fragments.unwrap_or(u16::MAX);
    // In a packed ring that is used in order QEMU 11.1 does not find the end of a chain as long as
    // the ring (`virtqueue_ordered_fill` takes its length modulo the ring's): one piece less.
    let gap = u16::from(features.contains(Features::RING_PACKED | Features::IN_ORDER));
    let longest = size.saturating_sub(gap).max(1);
    capabilities.max_fragments = longest.min(MAX_CHAIN).min(bound);
    capabilities.max_frame_len = u32::from(mtu) + ETHERNET_HEADER;
    capabilities.max_fragment_len = capabilities.max_frame_len;
    capabilities.min_frame_len = MIN_FRAME_LEN;
    capabilities.head_room = desc::HEADER_LEN as u16;
    capabilities.dma_address_bits = 64;
    capabilities.queue_pairs = pairs;
    if features.intersects(Features::GUEST_TSO4 | Features::GUEST_TSO6) {
        capabilities.max_joined_len = MAX_JOINED_LEN;
    }
    if features.contains(Features::CSUM) {
        capabilities.tx_checksum = ChecksumOffload::TRANSPORT;
    }
    let mut limits = Segmentation::new(MAX_SEGMENTATION_PAYLOAD, MAX_SEGMENTATION_HEADER);
    limits.ipv4 = features.contains(Features::HOST_TSO4);
    limits.ipv6 = features.contains(Features::HOST_TSO6);
    limits.seed_has_length = true;
    if limits.ipv4 || limits.ipv6 {
        capabilities.segmentation = Some(limits);
        capabilities.max_fragment_len =
            MAX_SEGMENTATION_PAYLOAD + u32::from(MAX_SEGMENTATION_HEADER);
    }
    capabilities
}
