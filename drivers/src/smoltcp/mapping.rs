//! What smoltcp is told of a device, and what the adapter then has to do.

use core::num::NonZeroUsize;

use ::smoltcp::phy::{Checksum, DeviceCapabilities, Medium};
use pagewire_hal::{Capabilities, ChecksumOffload, MAX_GATHER};

use super::config::Config;
use super::packet::{ETHERNET_HEADER, IPV4_HEADER};

/// Longest IPv4 packet, in bytes: what its length field holds.
const LONGEST_PACKET: usize = u16::MAX as usize;
/// Bytes of a TCP header without options, and with most options.
const TCP_HEADER: usize = 20;
const LONGEST_TCP_HEADER: usize = 60;

/// The checksums that smoltcp leaves to the adapter, in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Checksums {
    pub(super) ipv4_header: bool,
    pub(super) tcp: bool,
    pub(super) udp: bool,
}

/// What was settled between the device and smoltcp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    pub(super) transmit: Checksums,
    pub(super) receive: Checksums,
    /// What the device inserts.
    pub(super) offered: ChecksumOffload,
    /// Longest frame that is not segmented, Ethernet header included.
    pub(super) frame_len: usize,
    /// Shortest frame that the device takes.
    pub(super) min_frame_len: usize,
    /// Longest frame that the device receives, without a VLAN tag.
    pub(super) receive_len: usize,
    /// Entries of the gather list that the longest frame may come to.
    pub(super) gather: usize,
    /// Whether IP fragments pass.
    pub(super) fragments: bool,
    pub(super) segmentation: Option<Segmentation>,
    pub(super) max_burst: Option<usize>,
}

/// How frames are handed to a device that segments them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segmentation {
    /// Longest frame, Ethernet header included.
    pub(super) frame_len: NonZeroUsize,
    /// Whether the seed counts the transport length.
    pub(super) seed_has_length: bool,
}

impl Mapping {
    pub(super) fn new(device: &Capabilities, config: &Config) -> Self {
        use ChecksumOffload as C;
        let inserts = |kinds: C| device.tx_checksum.intersects(kinds);
        let verifies = |kinds: C| device.rx_checksum.intersects(kinds);
        let max_fragments = usize::from(device.max_fragments).clamp(1, MAX_GATHER);
        let max_fragment_len = (device.max_fragment_len as usize).max(1);
        let gathered = max_fragments.saturating_mul(max_fragment_len);
        let segmentation = segmentation(device, config, gathered);
        let frame_len = (device.max_frame_len as usize).min(gathered);
        let longest = segmentation.map_or(frame_len, |s| s.frame_len.get().max(frame_len));
        Self {
            transmit: Checksums {
                ipv4_header: inserts(C::IPV4_HEADER),
                tcp: inserts(C::TCP_IPV4 | C::TCP_IPV6 | C::GENERIC),
                // A generic sum may come out as zero, which for UDP says that there is none.
                udp: !config.fragments && inserts(C::UDP_IPV4 | C::UDP_IPV6),
            },
            receive: Checksums {
                ipv4_header: verifies(C::IPV4_HEADER),
                tcp: !config.fragments && verifies(C::TCP_IPV4 | C::TCP_IPV6),
                udp: !config.fragments && verifies(C::UDP_IPV4 | C::UDP_IPV6),
            },
            offered: device.tx_checksum,
            frame_len,
            min_frame_len: device.min_frame_len as usize,
            receive_len: device.max_frame_len as usize,
            gather: longest.div_ceil(max_fragment_len).min(max_fragments),
            fragments: config.fragments,
            segmentation,
            max_burst: config.max_burst,
        }
    }

    /// What smoltcp is told.
    pub(super) fn device_capabilities(&self) -> DeviceCapabilities {
        let left = |transmit: bool, receive: bool| match (transmit, receive) {
            (true, true) => Checksum::None,
            (true, false) => Checksum::Rx,
            (false, true) => Checksum::Tx,
            (false, false) => Checksum::Both,
        };
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.frame_len;
        capabilities.max_burst_size = self.max_burst;
        let (transmit, receive) = (self.transmit, self.receive);
        capabilities.checksum.ipv4 = left(transmit.ipv4_header, receive.ipv4_header);
        capabilities.checksum.tcp = left(transmit.tcp, receive.tcp);
        capabilities.checksum.udp = left(transmit.udp, receive.udp);
        capabilities.segmentation.tcpv4 = self.segmentation.map(|s| s.frame_len);
        // smoltcp 0.14.0 drops what is longer than the MTU over IPv6 whether or not it asked
        // for segmentation, and does not pass the request on (`InterfaceInner::dispatch_ip`).
        capabilities.segmentation.tcpv6 = None;
        capabilities
    }
}

/// The longest frame to be segmented: by the device, by the buffers, by the length field.
fn segmentation(device: &Capabilities, config: &Config, gathered: usize) -> Option<Segmentation> {
    let limits = device.segmentation?;
    let checksums = ChecksumOffload::IPV4_HEADER | ChecksumOffload::TCP_IPV4;
    let shortest_header = ETHERNET_HEADER + IPV4_HEADER + TCP_HEADER;
    let longest_header = ETHERNET_HEADER + IPV4_HEADER + LONGEST_TCP_HEADER;
    let is_usable = limits.ipv4
        && device.tx_checksum.contains(checksums)
        && usize::from(limits.max_header_len) >= longest_header
        && config.segmentation_buffers > 0;
    if !is_usable {
        return None;
    }
    // smoltcp takes the headers that it writes from this length, and no less than these: so
    // the payload never exceeds the device's limit.
    let frame_len = shortest_header
        .saturating_add(limits.max_payload_len as usize)
        .min(ETHERNET_HEADER + LONGEST_PACKET)
        .min(gathered);
    // Shorter than a frame of its own it would slow smoltcp down.
    if frame_len <= device.max_frame_len as usize {
        return None;
    }
    Some(Segmentation {
        frame_len: NonZeroUsize::new(frame_len)?,
        seed_has_length: limits.seed_has_length,
    })
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
