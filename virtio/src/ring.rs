//! A virtqueue in either format, and what the two have in common.
//!
//! # Direct or indirect
//! A buffer of one piece is a descriptor of the ring. With INDIRECT_DESC, one of 2 to
//! [`TABLE_LEN`] pieces is a table of its own, which lies ready for each descriptor of the ring.
//! Measured with DPDK's driver for split rings (header and one piece of payload): 18.4 ns as a
//! chain in the ring, 12.7 ns as a table; one piece: 8.2 ns against 8.7 ns. A table takes one
//! place in the ring besides, where the chain takes as many as it has pieces. Longer buffers are
//! chains again: a frame of 64 KiB from pages of 4 KiB has 18 pieces, so few are longer, and
//! tables for the longest chain would take much memory.

use core::ptr::NonNull;

use pagewire_hal::{DescriptorRing, DeviceAddress, DmaMemory, NicError, Platform, QueueError};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::Features;
use crate::desc::WRITE;
use crate::packed::PackedRing;
use crate::split::SplitRing;

/// Descriptors in an indirect table: a power of two, so that one ring of descriptors can hold
/// all tables.
pub(crate) const TABLE_LEN: u32 = 32;

/// Addresses of the parts of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    /// Descriptors.
    pub(crate) descriptors: DeviceAddress,
    /// What the driver writes.
    pub(crate) driver: DeviceAddress,
    /// What the device writes.
    pub(crate) device: DeviceAddress,
}

/// What the device does with the buffers of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// It reads them.
    Read,
    /// It writes them. They are of one piece.
    Write,
    /// It reads all pieces but the last one, where it writes its answer.
    Command,
}

impl Direction {
    /// Flags of all pieces but the last, and of the last.
    pub(crate) const fn flags(self) -> (u16, u16) {
        match self {
            Self::Read => (0, 0),
            Self::Write => (WRITE, WRITE),
            Self::Command => (0, WRITE),
        }
    }
}

/// A buffer that the device is done with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    /// As it was given to [`Ring::add`].
    pub(crate) token: u32,
    /// Bytes that the device says to have written; `None` where it completed several buffers at
    /// once (IN_ORDER) and said so of the last one only.
    pub(crate) len: Option<u32>,
}

/// Memory for `count` words, rounded up to a power of two, that the device has not been told of.
pub(crate) fn memory<P: Platform, D>(
    platform: &mut P,
    count: u32,
) -> Result<DescriptorRing<P::Memory, D>, NicError>
where
    D: FromBytes + IntoBytes + Immutable + Copy,
{
    Ok(memory_at(platform, count)?.0)
}

/// Memory for words, and the first of them.
type MemoryAt<M, D> = (DescriptorRing<M, D>, NonNull<D>);

/// The same, and where the CPU finds the first word: there as long as the memory is, wherever that
/// is moved.
pub(crate) fn memory_at<P: Platform, D>(
    platform: &mut P,
    count: u32,
) -> Result<MemoryAt<P::Memory, D>, NicError>
where
    D: FromBytes + IntoBytes + Immutable + Copy,
{
    let count = count.next_power_of_two();
    let memory = platform.allocate(count as usize * size_of::<D>(), 16)?;
    let first = memory.pointer().cast::<D>();
    let mut ring = DescriptorRing::new(memory, count).ok_or(NicError::Config {
        what: "the platform's memory for a ring does not fit it",
    })?;
    // SAFETY: the device has not been told of this memory.
    unsafe { ring.set_quiet(true) };
    Ok((ring, first))
}

/// Whether a ring of `size` descriptors has indirect tables. Buffers that the device writes are of
/// one piece here, and commands are rare.
pub(crate) fn has_tables(features: Features, size: u16, direction: Direction) -> bool {
    direction == Direction::Read && size > 1 && features.contains(Features::INDIRECT_DESC)
}

/// Whether a list of so many pieces goes into a table, where there are tables.
#[inline(always)]
pub(crate) fn fits_table(pieces: usize) -> bool {
    (2..=TABLE_LEN as usize).contains(&pieces)
}

/// A ring of buffers.
pub(crate) enum Ring<P: Platform> {
    /// Descriptor table, available ring, used ring.
    Split(SplitRing<P>),
    /// One ring that both sides write.
    Packed(PackedRing<P>),
}

/// Calls the same method of either format.
macro_rules! either {
    ($self:expr, $ring:ident => $call:expr) => {
        match $self {
            Ring::Split($ring) => $call,
            Ring::Packed($ring) => $call,
        }
    };
}

impl<P: Platform> Ring<P> {
    /// A ring of `size` descriptors, a power of two up to 32768, that the device has not been
    /// told of.
    pub(crate) fn new(
        platform: &mut P,
        size: u16,
        features: Features,
        direction: Direction,
    ) -> Result<Self, NicError> {
        if features.contains(Features::RING_PACKED) {
            PackedRing::new(platform, size, features, direction).map(Self::Packed)
        } else {
            SplitRing::new(platform, size, features, direction).map(Self::Split)
        }
    }

    /// Descriptors.
    #[inline(always)]
    pub(crate) fn size(&self) -> u32 {
        either!(self, ring => ring.size())
    }

    /// Takes it that the device reaches the memory from now on, and empties the ring. The device
    /// is reset. Returns what it has to be told.
    pub(crate) fn prepare(&mut self) -> Parts {
        either!(self, ring => ring.prepare())
    }

    /// Hands back the tokens of all buffers, each once.
    ///
    /// # Safety
    /// The device is quiet.
    pub(crate) unsafe fn drain(&mut self, released: &mut dyn FnMut(u32)) {
        // SAFETY: the caller's promise.
        either!(self, ring => unsafe { ring.drain(released) });
    }

    /// Says whether the memory may be freed on drop.
    ///
    /// # Safety
    /// `true` only if the device is quiet and is not told of the ring again before
    /// [`prepare`](Self::prepare).
    pub(crate) unsafe fn set_quiet(&mut self, quiet: bool) {
        // SAFETY: the caller's promise.
        either!(self, ring => unsafe { ring.set_quiet(quiet) });
    }

    /// The word of the device's that holds the index of what it has used; a packed ring has none.
    /// The device and [`prepare`](Self::prepare) write it, and it is there as long as the ring.
    pub(crate) fn used_word(&self) -> Option<NonNull<u32>> {
        match self {
            Self::Split(ring) => Some(ring.used_word()),
            Self::Packed(_) => None,
        }
    }

    /// Buffers that the device was told of, and those of them that came back: modulo 2^16 in a
    /// split ring, 2^32 in a packed one.
    #[inline(always)]
    pub(crate) fn progress(&self) -> (u32, u32) {
        either!(self, ring => ring.progress())
    }

    /// Buffers that are out.
    #[inline(always)]
    pub(crate) fn outstanding(&self) -> usize {
        either!(self, ring => ring.outstanding())
    }

    /// Whether a buffer of so many pieces can be added now.
    #[inline(always)]
    pub(crate) fn has_room(&self, pieces: usize) -> bool {
        either!(self, ring => ring.has_room(pieces))
    }

    /// Adds a buffer of `pieces`, at least one, for which there is room. The device does not see
    /// it before [`publish`](Self::publish).
    #[inline(always)]
    pub(crate) fn add(
        &mut self,
        pieces: impl ExactSizeIterator<Item = (DeviceAddress, u32)>,
        token: u32,
    ) {
        debug_assert!(pieces.len() > 0 && self.has_room(pieces.len()));
        either!(self, ring => ring.add(pieces, token));
    }

    /// Whether there are buffers that the device was not told of.
    #[inline(always)]
    pub(crate) fn has_unpublished(&self) -> bool {
        either!(self, ring => ring.has_unpublished())
    }

    /// Shows the device what was added, and returns whether it wants to be notified.
    #[inline(always)]
    pub(crate) fn publish(&mut self) -> bool {
        self.has_unpublished() && either!(self, ring => ring.publish())
    }

    /// The next buffer that the device is done with. It is out of the ring before this returns.
    ///
    /// # Errors
    /// [`QueueError::BadIndex`] if the device names what it does not have (rule 7).
    #[inline(always)]
    pub(crate) fn take_used(&mut self) -> Result<Option<Used>, QueueError> {
        either!(self, ring => ring.take_used())
    }

    /// The same, and if there is none it asks for an interrupt when the next buffer is done, and
    /// looks again, as none may come for what was done meanwhile. It looks once more only: a device
    /// that shows a buffer and takes it back would hold the processor otherwise (rule 7).
    ///
    /// # Errors
    /// As [`take_used`](Self::take_used).
    #[inline(always)]
    pub(crate) fn take_used_or_arm(&mut self) -> Result<Option<Used>, QueueError> {
        let used = self.take_used()?;
        let is_there_one_now = used.is_none() && either!(self, ring => ring.arm());
        if is_there_one_now {
            return self.take_used();
        }
        Ok(used)
    }
}
