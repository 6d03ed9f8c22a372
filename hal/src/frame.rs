//! A frame to transmit: its gather list and what the device is asked to fill in.

use core::fmt;
use core::ptr::NonNull;

use crate::{Capabilities, ChecksumOffload, DeviceAddress};

/// Bytes that are contiguous for the device: one entry of a gather list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// Where the device finds the first byte.
    pub address: DeviceAddress,
    /// Bytes; a posted fragment has at least 1 (rule 4: Intel devices wedge on zero).
    pub len: u32,
}

impl Fragment {
    pub(crate) const EMPTY: Self = Self {
        address: DeviceAddress(0),
        len: 0,
    };
}

/// Names a posted frame from [`post`](crate::TxQueue::post) to
/// [`reclaim`](crate::TxQueue::reclaim). The queue hands back what it was given and reads
/// nothing into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(transparent)]
pub struct Token(pub u32);

/// What the device is to fill into one frame.
///
/// For a transport checksum the 16-bit field in the frame must hold, in network byte order, the
/// folded but *not complemented* sum of the pseudo-header (addresses, protocol, transport
/// length). The device sums from `l2_len + l3_len` to the end of the frame and stores the
/// complement. For [`IPV4_HEADER`](ChecksumOffload::IPV4_HEADER) the field must hold zero.
///
/// To be segmented, a frame asks for `TCP_IPV4` or `TCP_IPV6` as well, and `IPV4_HEADER` where
/// it is offered (each segment gets a header of its own with the right sum in any case). Whether
/// the sum of its pseudo-header counts the transport length then, that of the whole request,
/// differs by device: [`seed_has_length`](crate::Segmentation::seed_has_length). The IP header's
/// own length field goes with it: that of the request, or zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Offload {
    /// `IPV4_HEADER`, at most one of [`ChecksumOffload::TRANSPORT`], both, or nothing.
    pub checksum: ChecksumOffload,
    /// Length of the link header in bytes: 14, or 18 with a VLAN tag.
    pub l2_len: u8,
    /// Length of the network header in bytes, options or extension headers included.
    pub l3_len: u16,
    /// Length of the transport header in bytes, options included; only for segmentation.
    pub l4_len: u8,
    /// Where the checksum is stored, in bytes from the start of the transport header. Only read
    /// for [`GENERIC`](ChecksumOffload::GENERIC); it follows from the protocol elsewhere
    /// (TCP 16, UDP 6).
    pub checksum_offset: u8,
    /// Payload bytes per segment if the device is to segment (TSO); 0 if not.
    pub segment_len: u16,
}

impl Offload {
    /// All of it in one number, to be compared at once: as it lies in memory, where the lower bytes
    /// come first.
    #[inline(always)]
    const fn word(&self) -> u64 {
        self.checksum.bits() as u64
            | (self.l2_len as u64) << 8
            | (self.l3_len as u64) << 16
            | (self.l4_len as u64) << 32
            | (self.checksum_offset as u64) << 40
            | (self.segment_len as u64) << 48
    }

    /// Nothing is asked for.
    pub const NONE: Self = Self {
        checksum: ChecksumOffload::empty(),
        l2_len: 0,
        l3_len: 0,
        l4_len: 0,
        checksum_offset: 0,
        segment_len: 0,
    };

    /// Offset of the transport checksum from the start of the transport header, in bytes.
    #[must_use]
    #[inline]
    pub const fn transport_checksum_offset(&self) -> u16 {
        if self
            .checksum
            .intersects(ChecksumOffload::TCP_IPV4.union(ChecksumOffload::TCP_IPV6))
        {
            16
        } else if self
            .checksum
            .intersects(ChecksumOffload::UDP_IPV4.union(ChecksumOffload::UDP_IPV6))
        {
            6
        } else {
            self.checksum_offset as u16
        }
    }

    fn check(&self, frame_len: u32, capabilities: &Capabilities) -> Result<(), FrameError> {
        let (shortest, longest) = self.lengths(capabilities)?;
        if frame_len < shortest {
            return Err(FrameError::OffloadLayout);
        }
        if frame_len > longest {
            return Err(FrameError::FrameTooLong { len: frame_len });
        }
        Ok(())
    }

    /// Bytes of the shortest and of the longest frame that may ask for this, which is not nothing.
    fn lengths(&self, capabilities: &Capabilities) -> Result<(u32, u32), FrameError> {
        if !capabilities.tx_checksum.contains(self.checksum) {
            return Err(FrameError::OffloadNotOffered);
        }
        let transport = self.checksum & ChecksumOffload::TRANSPORT;
        let network_end = u32::from(self.l2_len) + u32::from(self.l3_len);
        let needed = if transport.is_empty() {
            network_end
        } else {
            network_end + u32::from(self.transport_checksum_offset()) + 2
        };
        let ipv4 = self.checksum.intersects(ChecksumOffload::OF_IPV4);
        let ipv6 = self.checksum.intersects(ChecksumOffload::OF_IPV6);
        let shortest_l3 = match (ipv4, ipv6) {
            (true, true) => return Err(FrameError::OffloadLayout),
            (true, false) => 20,
            (false, true) => 40,
            (false, false) => 0,
        };
        if transport.bits().count_ones() > 1 || self.l2_len < 14 || self.l3_len < shortest_l3 {
            return Err(FrameError::OffloadLayout);
        }
        if self.segment_len == 0 {
            return Ok((needed, u32::MAX));
        }
        let (shortest, longest) = self.request_lengths(capabilities)?;
        Ok((needed.max(shortest), longest))
    }

    /// The same of what is to be segmented.
    fn request_lengths(&self, capabilities: &Capabilities) -> Result<(u32, u32), FrameError> {
        let limits = capabilities
            .segmentation
            .ok_or(FrameError::OffloadNotOffered)?;
        let ipv4 = self.checksum.contains(ChecksumOffload::TCP_IPV4);
        let ipv6 = self.checksum.contains(ChecksumOffload::TCP_IPV6);
        if (ipv4 && !limits.ipv4) || (ipv6 && !limits.ipv6) {
            return Err(FrameError::OffloadNotOffered);
        }
        let header_len = u32::from(self.l2_len) + u32::from(self.l3_len) + u32::from(self.l4_len);
        if !(ipv4 || ipv6) || self.l4_len < 20 || header_len > u32::from(limits.max_header_len) {
            return Err(FrameError::OffloadLayout);
        }
        let longest = header_len.saturating_add(limits.max_payload_len);
        Ok((header_len + 1, longest))
    }
}

/// What the checks of an offload come to: frames that ask for the same as one before are checked
/// against this.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    offload: u64,
    /// Bytes of the shortest frame that may ask for it.
    shortest: u64,
    /// How much longer the longest is.
    more: u64,
}

impl Lengths {
    /// No frame is like this.
    pub const NONE: Self = Self {
        offload: Offload::NONE.word(),
        shortest: u64::MAX,
        more: 0,
    };

    /// Frames that ask for `offload`.
    ///
    /// # Errors
    /// None may: what is wrong with the request.
    pub fn of(offload: Offload, capabilities: &Capabilities) -> Result<Self, FrameError> {
        let (mut shortest, mut longest) = match offload {
            Offload::NONE => (0, u32::MAX),
            _ => offload.lengths(capabilities)?,
        };
        shortest = shortest.max(capabilities.min_frame_len);
        if offload.segment_len == 0 {
            longest = longest.min(capabilities.max_frame_len);
        }
        // None is long enough and short enough.
        let more = longest.checked_sub(shortest);
        Ok(Self {
            offload: offload.word(),
            shortest: shortest.into(),
            more: more.ok_or(FrameError::OffloadLayout)?.into(),
        })
    }
}

/// A frame as it is posted: fragments in the order of the wire, and the offload request. The
/// frame check sequence is not in it: the device appends that.
#[derive(Clone, Copy, Debug)]
pub struct TxFrame<'a> {
    /// The gather list; the first fragment begins with the Ethernet header.
    pub fragments: &'a [Fragment],
    /// What the device fills in.
    pub offload: Offload,
    /// CPU address of the first byte of the first fragment. The
    /// [`head_room`](Capabilities::head_room) bytes before it are the driver's to write until
    /// the frame has completed, and the device finds them just below the first fragment's
    /// address. May be `None` where the head room is 0.
    pub first: Option<NonNull<u8>>,
}

impl TxFrame<'_> {
    /// Checks the frame against the limits of the device, in one pass, and returns its length
    /// in bytes. Every driver calls this, or [`check_again`](Self::check_again) for a frame like the one
    /// before, before it writes a descriptor. Addresses are not
    /// checked: they come from a translation of the device's own domain.
    ///
    /// # Errors
    /// What is wrong, see [`FrameError`].
    #[inline]
    pub fn check(&self, capabilities: &Capabilities) -> Result<u32, FrameError> {
        let count = self.fragments.len();
        if count == 0 {
            return Err(FrameError::NoFragment);
        }
        if count > usize::from(capabilities.max_fragments) {
            return Err(FrameError::TooManyFragments {
                count,
                max: capabilities.max_fragments,
            });
        }
        let mut total = 0u32;
        for (index, fragment) in self.fragments.iter().enumerate() {
            if fragment.len == 0 {
                return Err(FrameError::EmptyFragment { index });
            }
            if fragment.len > capabilities.max_fragment_len {
                return Err(FrameError::FragmentTooLong {
                    index,
                    len: fragment.len,
                });
            }
            total = total
                .checked_add(fragment.len)
                .ok_or(FrameError::FrameTooLong { len: u32::MAX })?;
        }
        if total < capabilities.min_frame_len {
            return Err(FrameError::FrameTooShort { len: total });
        }
        // A frame to be segmented has a limit of its own, on its payload.
        if self.offload.segment_len == 0 && total > capabilities.max_frame_len {
            return Err(FrameError::FrameTooLong { len: total });
        }
        if self.offload != Offload::NONE {
            self.offload.check(total, capabilities)?;
        }
        if capabilities.head_room > 0 && self.first.is_none() {
            return Err(FrameError::NoHeadRoom);
        }
        Ok(total)
    }
}

impl TxFrame<'_> {
    /// The length of the frame in bytes if it passes [`check`](Self::check), but for its head room,
    /// and asks for what `lengths` are of. `None` where that is not so: `check` says what is.
    #[inline(always)]
    #[must_use]
    pub fn check_again(&self, lengths: &Lengths, capabilities: &Capabilities) -> Option<u32> {
        let count = self.fragments.len().wrapping_sub(1);
        if count >= usize::from(capabilities.max_fragments)
            || self.offload.word() != lengths.offload
        {
            return None;
        }
        // So many 32-bit lengths are no more than 48 bits.
        let mut total = 0u64;
        for fragment in self.fragments {
            if fragment.len.wrapping_sub(1) >= capabilities.max_fragment_len {
                return None;
            }
            total += u64::from(fragment.len);
        }
        let more = total.wrapping_sub(lengths.shortest);
        (more <= lengths.more).then_some(total as u32)
    }
}

/// Why a frame was refused. Nothing has been written to the ring (rule 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FrameError {
    /// The gather list is empty.
    NoFragment,
    /// More fragments than [`max_fragments`](Capabilities::max_fragments).
    TooManyFragments {
        /// Fragments in the frame.
        count: usize,
        /// Fragments that the device takes.
        max: u16,
    },
    /// A fragment of no byte.
    EmptyFragment {
        /// Its place in the gather list, from 0.
        index: usize,
    },
    /// A fragment longer than [`max_fragment_len`](Capabilities::max_fragment_len).
    FragmentTooLong {
        /// Its place in the gather list, from 0.
        index: usize,
        /// Its length in bytes.
        len: u32,
    },
    /// Shorter than [`min_frame_len`](Capabilities::min_frame_len).
    FrameTooShort {
        /// Length of the frame in bytes.
        len: u32,
    },
    /// Longer than [`max_frame_len`](Capabilities::max_frame_len), or, if it is to be segmented,
    /// than [`max_payload_len`](crate::Segmentation::max_payload_len) behind its header.
    FrameTooLong {
        /// Length of the frame in bytes; `u32::MAX` if it is longer than that.
        len: u32,
    },
    /// An offload that the capabilities do not offer.
    OffloadNotOffered,
    /// Header lengths that do not fit the frame, the protocol or the device, checksums that
    /// contradict each other, or segmentation of what is not TCP.
    OffloadLayout,
    /// The device needs head room and the frame has none.
    NoHeadRoom,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoFragment => write!(f, "the frame has no fragment"),
            Self::TooManyFragments { count, max } => {
                write!(f, "{count} fragments in one frame, the device takes {max}")
            }
            Self::EmptyFragment { index } => write!(f, "fragment {index} has no byte"),
            Self::FragmentTooLong { index, len } => {
                write!(
                    f,
                    "fragment {index} of {len} bytes is longer than the device takes"
                )
            }
            Self::FrameTooShort { len } => write!(f, "a frame of {len} bytes is too short"),
            Self::FrameTooLong { len } => write!(f, "a frame of {len} bytes is too long"),
            Self::OffloadNotOffered => write!(f, "the device does not offer the offload asked for"),
            Self::OffloadLayout => write!(f, "the header lengths of the offload do not fit"),
            Self::NoHeadRoom => write!(f, "the device needs head room before the first fragment"),
        }
    }
}

impl core::error::Error for FrameError {}

#[cfg(all(test, feature = "alloc"))]
#[path = "frame_tests.rs"]
mod tests;
