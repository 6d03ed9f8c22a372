//! Layouts in memory: descriptors and the header before each frame.
//!
//! Sources: virtio 1.3, sections 2.7.5 (descriptor of a split ring), 2.8 (of a packed ring)
//! and 5.1.6 (header).

use core::mem::{align_of, offset_of, size_of};

use pagewire_hal::{ChecksumOffload, DeviceAddress, FrameError, Offload};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Another descriptor follows.
pub(crate) const NEXT: u16 = 1;
/// The device writes the buffer.
pub(crate) const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = 4;

/// A descriptor of a split ring.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Descriptor {
    address: u64,
    /// Length in bits 31:0, flags in bits 47:32, the next descriptor in bits 63:48: one word, as it is
    /// written.
    rest: u64,
}

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(align_of::<Descriptor>() <= 16);
const _: () = assert!(offset_of!(Descriptor, rest) == 8);

impl Descriptor {
    #[inline(always)]
    pub(crate) const fn new(address: DeviceAddress, len: u32, flags: u16, next: u16) -> Self {
        Self {
            address: address.0.to_le(),
            rest: (len as u64 | (flags as u64) << 32 | (next as u64) << 48).to_le(),
        }
    }
}

/// Of a packed ring: equal to the driver's wrap counter in what is available.
pub(crate) const PACKED_AVAILABLE: u16 = 1 << 7;
/// Of a packed ring: unequal to [`PACKED_AVAILABLE`] in what is available, equal to it in what is
/// used.
pub(crate) const PACKED_USED: u16 = 1 << 15;

/// A descriptor in an indirect table of a packed ring. Those of the ring itself are written word
/// by word.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct PackedDescriptor {
    address: u64,
    /// Length in bits 31:0, buffer id in bits 47:32, flags in bits 63:48.
    rest: u64,
}

const _: () = assert!(size_of::<PackedDescriptor>() == 16);
const _: () = assert!(offset_of!(PackedDescriptor, rest) == 8);

impl PackedDescriptor {
    /// Of a table, where the id is reserved.
    #[inline(always)]
    pub(crate) const fn in_table(address: DeviceAddress, len: u32, flags: u16) -> Self {
        Self {
            address: address.0.to_le(),
            rest: (len as u64 | (flags as u64) << 48).to_le(),
        }
    }
}

/// Bytes of the header before each frame, with VERSION_1.
pub(crate) const HEADER_LEN: u32 = 12;

/// The checksum from `checksum_start` on is to be completed.
const NEEDS_CHECKSUM: u8 = 1;
/// Received: the transport checksum was found to be correct.
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The header before each frame.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct NetHeader {
    flags: u8,
    segmentation: u8,
    header_len: [u8; 2],
    segment_len: [u8; 2],
    checksum_start: [u8; 2],
    checksum_offset: [u8; 2],
    /// Buffers that a received frame lies in, with MRG_RXBUF. Of a transmitted frame: 0.
    buffers: [u8; 2],
}

const _: () = assert!(size_of::<NetHeader>() == HEADER_LEN as usize);
const _: () = assert!(offset_of!(NetHeader, checksum_start) == 6);

impl NetHeader {
    /// Where the sum of a received frame begins, and where its complement belongs from there on,
    /// if that is to be completed.
    #[inline]
    pub(crate) fn incomplete_checksum(&self) -> Option<(u16, u16)> {
        let place = u16::from_le_bytes;
        (self.flags & NEEDS_CHECKSUM != 0)
            .then(|| (place(self.checksum_start), place(self.checksum_offset)))
    }

    /// Whether a received frame was joined from segments, or never segmented.
    #[inline]
    pub(crate) const fn is_joined(&self) -> bool {
        self.segmentation != 0
    }

    /// Whether these were TCP over IPv4. GSO_ECN, the highest bit, is not negotiated.
    #[inline]
    pub(crate) const fn is_joined_ipv4(&self) -> bool {
        self.segmentation == GSO_TCPV4
    }

    /// Whether these were TCP over IPv6.
    #[inline]
    pub(crate) const fn is_joined_ipv6(&self) -> bool {
        self.segmentation == GSO_TCPV6
    }

    /// How many buffers a received frame lies in.
    #[inline]
    pub(crate) const fn buffers(&self) -> u16 {
        u16::from_le_bytes(self.buffers)
    }

    /// Whether the device has verified the transport checksum of a received frame.
    #[inline]
    pub(crate) const fn is_verified(&self) -> bool {
        self.flags & DATA_VALID != 0
    }

    /// The header of a frame of `len` bytes with `offload`, both checked against the
    /// capabilities.
    ///
    /// # Errors
    /// A place that the 16-bit fields do not hold, or a packet longer than 65535 bytes, whose
    /// length the IP header does not hold.
    #[inline]
    pub(crate) fn of(offload: &Offload, len: u32) -> Result<Self, FrameError> {
        let mut header = Self::default();
        if !offload.checksum.intersects(ChecksumOffload::TRANSPORT) {
            return Ok(header);
        }
        let place = |value: u32| u16::try_from(value).map_err(|_| FrameError::OffloadLayout);
        let l2_len = u32::from(offload.l2_len);
        let start = l2_len + u32::from(offload.l3_len);
        header.flags = NEEDS_CHECKSUM;
        header.checksum_start = place(start)?.to_le_bytes();
        header.checksum_offset = offload.transport_checksum_offset().to_le_bytes();
        let payload = len.saturating_sub(start + u32::from(offload.l4_len));
        // One segment is asked for as a checksum. Linux counts TCP's options as payload when it
        // looks whether there is something to segment, and loses the frame when there is not
        // (`__virtio_net_hdr_to_skb`, `tcp_gso_segment`; seen with QEMU on a TAP).
        if payload > u32::from(offload.segment_len) && offload.segment_len != 0 {
            if len.saturating_sub(l2_len) > u32::from(u16::MAX) {
                return Err(FrameError::FrameTooLong { len });
            }
            let ipv4 = offload.checksum.contains(ChecksumOffload::TCP_IPV4);
            header.segmentation = if ipv4 { GSO_TCPV4 } else { GSO_TCPV6 };
            header.segment_len = offload.segment_len.to_le_bytes();
            header.header_len = place(start + u32::from(offload.l4_len))?.to_le_bytes();
        }
        Ok(header)
    }
}
