//! A received frame, as a receive queue hands it over.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, compiler_fence};

/// One buffer, or a part of one, that a received frame lies in.
#[derive(Clone, Copy, Debug)]
pub struct RxPiece {
    pointer: NonNull<u8>,
    len: usize,
}

impl RxPiece {
    /// `len` bytes at `pointer`.
    ///
    /// # Safety
    /// `pointer` is valid for reads of `len` bytes, initialised, as long as the piece or a frame
    /// made from it is used, and no `&mut` to them exists. `len` is at most the length of the
    /// buffer, whatever the device wrote.
    #[must_use]
    #[inline]
    pub const unsafe fn new(pointer: NonNull<u8>, len: usize) -> Self {
        Self { pointer, len }
    }

    /// Bytes.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies to the beginning of `target` as much as fits; the number of bytes.
    #[inline]
    fn copy_to(&self, target: &mut [u8]) -> usize {
        let len = self.len.min(target.len());
        // SAFETY: `new` promised `self.len` readable bytes, `target` has at least `len`, and
        // the two do not overlap, as `target` is exclusively borrowed ordinary memory.
        unsafe {
            core::ptr::copy_nonoverlapping(self.pointer.as_ptr(), target.as_mut_ptr(), len);
        }
        len
    }
}

/// A received frame, in memory that the device could still write if it misbehaved: so it is
/// only copied out, never viewed.
#[derive(Debug)]
pub struct RxFrame<'a> {
    first: RxPiece,
    rest: &'a [RxPiece],
    len: usize,
    checksum: RxChecksum,
    hash: Option<RxHash>,
    _buffer: PhantomData<&'a ()>,
}

impl<'a> RxFrame<'a> {
    /// A frame of `len` bytes at `pointer`, without its frame check sequence.
    ///
    /// # Safety
    /// `pointer` is valid for reads of `len` bytes, initialised, for the lifetime of the value,
    /// and no `&mut` to them exists. `len` is at most the length of the buffer, whatever the
    /// device wrote.
    #[must_use]
    #[inline]
    pub const unsafe fn new(pointer: NonNull<u8>, len: usize, checksum: RxChecksum) -> Self {
        // SAFETY: the caller's promise is the piece's.
        let first = unsafe { RxPiece::new(pointer, len) };
        Self {
            first,
            rest: &[],
            len,
            checksum,
            hash: None,
            _buffer: PhantomData,
        }
    }

    /// A frame that lies in several buffers: `first`, then `rest`, in the order of the wire. The
    /// pieces' promises ([`RxPiece::new`]) hold for the lifetime of the value.
    #[must_use]
    #[inline]
    pub fn scattered(first: RxPiece, rest: &'a [RxPiece], checksum: RxChecksum) -> Self {
        let add = |len: usize, piece: &RxPiece| len.saturating_add(piece.len);
        Self {
            first,
            rest,
            len: rest.iter().fold(first.len, add),
            checksum,
            hash: None,
            _buffer: PhantomData,
        }
    }

    /// The frame with the hash of its flow, where the device gives one.
    #[must_use]
    #[inline]
    pub const fn with_hash(mut self, hash: Option<RxHash>) -> Self {
        self.hash = hash;
        self
    }

    /// Bytes, Ethernet header included, frame check sequence excluded. Of a device that keeps its
    /// word at most [`max_receive_len`](crate::Capabilities::max_receive_len), and 4 more with a
    /// VLAN tag; of any device at most the length of a receive buffer.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the device says of the checksums.
    #[must_use]
    #[inline]
    pub const fn checksum(&self) -> RxChecksum {
        self.checksum
    }

    /// The hash of the flow that the frame belongs to, for tables of connections and for whoever
    /// spreads work; `None` where the device gives none: always without
    /// [`rx_hash`](crate::Capabilities::rx_hash), and of what is not IP. A sender can choose its
    /// hash, and, knowing the key, its bucket.
    #[must_use]
    #[inline]
    pub const fn hash(&self) -> Option<RxHash> {
        self.hash
    }

    /// Copies the frame into `target` and returns the part of it that was filled: the whole
    /// frame, or as much of its beginning as `target` holds.
    #[inline]
    pub fn copy_to<'t>(&self, target: &'t mut [u8]) -> &'t [u8] {
        let mut len = self.first.copy_to(target);
        for piece in self.rest {
            len += piece.copy_to(target.get_mut(len..).unwrap_or_default());
        }
        // What is read from `target` from here on comes from `target`: the compiler must not
        // look into the buffer again, where a device that misbehaves may have changed it.
        compiler_fence(Ordering::SeqCst);
        target.get(..len).unwrap_or_default()
    }
}

/// What a device found out about a checksum of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Verdict {
    /// The device did not look, or does not know the protocol.
    #[default]
    Unknown,
    /// Correct.
    Good,
    /// Wrong.
    Bad,
}

impl Verdict {
    /// That of a device which says whether it has looked, and if so whether the checksum is wrong.
    #[must_use]
    #[inline(always)]
    pub const fn of(looked: bool, wrong: bool) -> Self {
        match (looked, wrong) {
            (false, _) => Self::Unknown,
            (true, false) => Self::Good,
            (true, true) => Self::Bad,
        }
    }
}

/// What a device found out about the checksums of a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxChecksum {
    /// The IPv4 header checksum.
    pub ipv4_header: Verdict,
    /// The TCP or UDP checksum.
    pub transport: Verdict,
}

/// Which fields of a received packet its hash is over, in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HashInput {
    /// Source and destination address of IPv4 or IPv6.
    Addresses,
    /// These, and source and destination port of TCP or UDP.
    AddressesAndPorts,
}

/// The hash of the flow that a received packet belongs to: by Toeplitz' function over the fields
/// that `input` names (Microsoft's specification of receive side scaling), with the key for which
/// the device was opened. Frames of one flow and one `input` have the same; it chooses the receive
/// queue where there are several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RxHash {
    /// All 32 bits.
    pub value: u32,
    /// What it is over.
    pub input: HashInput,
}

#[cfg(all(test, feature = "alloc"))]
#[path = "received_tests.rs"]
mod tests;
