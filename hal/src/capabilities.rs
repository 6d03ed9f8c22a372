//! What a device can do, known after initialisation.

use bitflags::bitflags;

bitflags! {
    /// Checksums that a device inserts on transmit or verifies on receive.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
    pub struct ChecksumOffload: u8 {
        /// The IPv4 header checksum (RFC 791).
        const IPV4_HEADER = 1 << 0;
        /// TCP over IPv4.
        const TCP_IPV4 = 1 << 1;
        /// UDP over IPv4.
        const UDP_IPV4 = 1 << 2;
        /// TCP over IPv6.
        const TCP_IPV6 = 1 << 3;
        /// UDP over IPv6.
        const UDP_IPV6 = 1 << 4;
        /// Any 16-bit ones' complement sum, from a start to the end of the frame, stored at an
        /// offset from that start. A checksum of zero may be stored as either zero, 0 or 0xffff:
        /// the device does not know the protocol. UDP, where 0 means "none", has bits of its own.
        const GENERIC = 1 << 5;
    }
}

impl ChecksumOffload {
    /// Every request that stores a checksum in a transport header.
    pub const TRANSPORT: Self = Self::TCP_IPV4
        .union(Self::UDP_IPV4)
        .union(Self::TCP_IPV6)
        .union(Self::UDP_IPV6)
        .union(Self::GENERIC);

    /// Every request that stores a TCP checksum, of a frame that says it is TCP.
    pub const TCP: Self = Self::TCP_IPV4.union(Self::TCP_IPV6);

    /// Requests that only an IPv4 frame can make.
    pub const OF_IPV4: Self = Self::IPV4_HEADER
        .union(Self::TCP_IPV4)
        .union(Self::UDP_IPV4);

    /// Requests that only an IPv6 frame can make.
    pub const OF_IPV6: Self = Self::TCP_IPV6.union(Self::UDP_IPV6);
}

/// Limits of TCP segmentation by the device (TSO).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Segmentation {
    /// Most payload bytes of one request: what follows the transport header, in bytes.
    pub max_payload_len: u32,
    /// Longest header that is repeated for each segment: link, network and transport, in bytes.
    pub max_header_len: u16,
    /// Segments IPv4.
    pub ipv4: bool,
    /// Segments IPv6.
    pub ipv6: bool,
    /// Whether the seed of the checksum, in a frame to be segmented, counts the length of the
    /// request (transport header and payload) as that of one packet does. Devices differ: Intel's
    /// want it without (Linux e1000e and ixgbe sum with a length of 0), virtio's with it (Linux
    /// corrects the sum by the difference when it segments, `tcp_gso_segment`). So do the length
    /// fields of the IP headers: Linux' drivers for Intel's clear them, a virtio device gets a
    /// packet as long as it says.
    pub seed_has_length: bool,
}

impl Segmentation {
    /// Limits with both address families off, and a seed without the length.
    #[must_use]
    pub const fn new(max_payload_len: u32, max_header_len: u16) -> Self {
        Self {
            max_payload_len,
            max_header_len,
            ipv4: false,
            ipv6: false,
            seed_has_length: false,
        }
    }
}

/// What a device can do, as computed after its initialisation. Nothing is in here that the
/// driver does not do (rule 8).
///
/// Lengths of frames count from the first byte of the Ethernet destination address to the last
/// byte before the frame check sequence; unlike Linux' MTU they *include* the 14 bytes of the
/// Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Pieces that one frame may gather, the header piece included, at least 1: that means that
    /// the device does not gather. The least of the device's limit, what the ring can ever hold in one
    /// frame (its descriptors less context descriptors less the gap) and a bound set by the
    /// model, the hypervisor or the user.
    pub max_fragments: u16,
    /// Longest fragment in bytes, at least 1; [`max_fragments`](Self::max_fragments) of this
    /// length hold a frame of [`max_frame_len`](Self::max_frame_len) at least. Where the device
    /// has no limit of its own: the longest frame, or segmentation request, that it takes.
    pub max_fragment_len: u32,
    /// Shortest frame in bytes that may be posted, from 14 (a bare Ethernet header) to 60; what
    /// is shorter than the wire's 60 bytes is padded with zeros by the device.
    pub min_frame_len: u32,
    /// Longest frame in bytes, sent or received, Ethernet header included, frame check sequence
    /// excluded, at least 590 (576 bytes of IP, RFC 791, behind the header); not for frames that
    /// the device segments, see [`Segmentation::max_payload_len`].
    pub max_frame_len: u32,
    /// Longest frame in bytes that the receive queue makes of several TCP segments that it has
    /// received, Ethernet header included; 0 where the device joins none. See
    /// [`max_receive_len`](Self::max_receive_len).
    pub max_joined_len: u32,
    /// Bytes of CPU-writable memory that the driver needs directly before the first fragment
    /// (a virtio-net header, say), mapped for the device and contiguous with it. 0 for most.
    pub head_room: u16,
    /// Checksums inserted on transmit, on request per frame.
    pub tx_checksum: ChecksumOffload,
    /// Checksums verified on receive and reported per frame.
    pub rx_checksum: ChecksumOffload,
    /// Whether the device hashes what it receives by Toeplitz' function and
    /// [`RxFrame::hash`](crate::RxFrame::hash) says the hash: of TCP over IPv4 and IPv6 without
    /// extension headers the one over addresses and ports, of other IP packets one over the
    /// addresses, or none.
    pub rx_hash: bool,
    /// TCP segmentation, if the device does it.
    pub segmentation: Option<Segmentation>,
    /// Pairs of a transmit and a receive queue, at least 1.
    pub queue_pairs: u16,
    /// Whether [`Nic::statistics`](crate::Nic::statistics) tells what has passed. Where the device
    /// does not count (virtio's does not), that is all zeros, and what the queues have counted is
    /// all there is.
    pub statistics: bool,
    /// Width of the addresses that the device can emit, in bits (32 or 64 as a rule).
    pub dma_address_bits: u8,
}

impl Capabilities {
    /// The least that every device does: one fragment per frame of 14 to 1514 bytes, no
    /// offload, one pair of queues, 32-bit addresses. Drivers start here and raise what they do.
    #[must_use]
    pub const fn minimal() -> Self {
        Self {
            max_fragments: 1,
            max_fragment_len: 1514,
            min_frame_len: 14,
            max_frame_len: 1514,
            max_joined_len: 0,
            head_room: 0,
            tx_checksum: ChecksumOffload::empty(),
            rx_checksum: ChecksumOffload::empty(),
            rx_hash: false,
            segmentation: None,
            queue_pairs: 1,
            statistics: false,
            dma_address_bits: 32,
        }
    }

    /// Longest frame in bytes that the receive queue hands over: what memory to copy it to needs.
    #[must_use]
    pub const fn max_receive_len(&self) -> u32 {
        if self.max_joined_len > self.max_frame_len {
            self.max_joined_len
        } else {
            self.max_frame_len
        }
    }

    /// Whether the device takes a frame in more than one piece, so that a header of one's own can
    /// go before bytes that stay where they are.
    #[must_use]
    pub const fn gathers(&self) -> bool {
        self.max_fragments >= 2
    }
}
