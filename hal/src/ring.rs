//! Descriptor rings: memory that CPU and device both write, and the arithmetic of who owns
//! which part.

use core::marker::PhantomData;
use core::mem::{ManuallyDrop, size_of};

use volatile::VolatilePtr;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{DeviceAddress, DmaMemory, NicError, Platform};

/// Memory that a running device may reach: dropping it leaks it, with a warning, unless
/// [`set_quiet`](Self::set_quiet) has said that the device reaches it no more (rule 6).
#[derive(Debug)]
pub struct Custody<M: DmaMemory> {
    memory: ManuallyDrop<M>,
    quiet: bool,
}

impl<M: DmaMemory> Custody<M> {
    /// Takes memory that the device is about to be told of. It counts as reached from now on:
    /// who gives up before telling the device says [`set_quiet`](Self::set_quiet)`(true)`.
    pub const fn new(memory: M) -> Self {
        Self {
            memory: ManuallyDrop::new(memory),
            quiet: false,
        }
    }

    /// The memory.
    #[inline]
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Says whether the device does not reach this memory (and will not, before this is called
    /// again). At first it is taken to reach it.
    ///
    /// # Safety
    /// `true` only when bus mastering is off and nothing is pending, a reset of the function has
    /// finished, or the device has never been told of the memory or is done with all it was told.
    pub unsafe fn set_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }
}

impl<M: DmaMemory> Drop for Custody<M> {
    fn drop(&mut self) {
        if self.quiet {
            // SAFETY: the value is being dropped, so nobody uses the field after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) };
        } else {
            log::warn!(
                "{} bytes of DMA memory at {:?} are leaked: the device was not stopped first",
                self.memory.len(),
                self.memory.address()
            );
        }
    }
}

/// A ring of descriptors `D`, a power of two of them. Every access is volatile and masked, so
/// that no index can leave the ring. The memory is in [`Custody`], see
/// [`set_quiet`](Self::set_quiet).
///
/// `D` is plain bytes, by zerocopy's traits: an array like `[u64; 2]`, or a struct that derives
/// them. Byte order is the driver's affair (zerocopy's `U32<LE>` and its like, or `to_le`).
#[derive(Debug)]
pub struct DescriptorRing<M: DmaMemory, D> {
    memory: Custody<M>,
    mask: u32,
    _descriptors: PhantomData<D>,
}

// SAFETY: the ring owns its memory, which is `Send`; a `D` is plain bytes.
unsafe impl<M: DmaMemory, D> Send for DescriptorRing<M, D> {}

impl<M: DmaMemory, D: FromBytes + IntoBytes + Immutable + Copy> DescriptorRing<M, D> {
    /// A ring of `count` descriptors in `memory`. `None` if `count` is no power of two, the
    /// memory is too small or not aligned for a `D`, or the ring has 2^32 bytes or more. The
    /// memory is then dropped, as no device has been told of it.
    #[must_use]
    pub fn new(memory: M, count: u32) -> Option<Self> {
        let bytes = (count as usize).checked_mul(size_of::<D>())?;
        let fits = count.is_power_of_two()
            && memory.len() >= bytes
            && u32::try_from(bytes).is_ok()
            && memory.pointer().cast::<D>().is_aligned();
        fits.then(|| Self {
            memory: Custody::new(memory),
            mask: count - 1,
            _descriptors: PhantomData,
        })
    }

    /// A ring of `count` descriptors in new memory of `platform`, aligned to `align` bytes (a power
    /// of two), that the device has not been told of: it is taken to be quiet.
    ///
    /// # Errors
    /// What the platform said; [`NicError::Config`] if `count` is no power of two or the memory
    /// does not fit.
    pub fn allocate<P: Platform<Memory = M>>(
        platform: &mut P,
        count: u32,
        align: usize,
    ) -> Result<Self, NicError> {
        const UNFIT: NicError = NicError::Config {
            what: "the platform's memory for a ring does not fit it",
        };
        let bytes = (count as usize).checked_mul(size_of::<D>());
        let memory = platform.allocate(bytes.ok_or(UNFIT)?, align)?;
        let mut ring = Self::new(memory, count).ok_or(UNFIT)?;
        // SAFETY: the device has not been told of this memory.
        unsafe { ring.set_quiet(true) };
        Ok(ring)
    }

    #[inline(always)]
    fn descriptor(&self, index: u32) -> VolatilePtr<'_, D> {
        let base = self.memory.memory().pointer().cast::<D>();
        // SAFETY: the masked index is below `count`, and `new` checked that the memory holds
        // `count` descriptors.
        let pointer = unsafe { base.add((index & self.mask) as usize) };
        // SAFETY: `DmaMemory` promises reads and writes while `self.memory` is alive, `new`
        // checked the alignment, and any bytes are a valid `D` (`FromBytes`).
        unsafe { VolatilePtr::new(pointer) }
    }

    /// Writes descriptor `index`, taken modulo the length of the ring. The device may see any
    /// part of it first: where a flag in the descriptor hands it over, that flag is not yet set,
    /// and is written after [`publish`](crate::barrier::publish).
    #[inline(always)]
    pub fn write(&mut self, index: u32, descriptor: D) {
        self.descriptor(index).write(descriptor);
        crate::barrier::audit::stored();
    }

    /// Writes descriptors from `index` on, one behind the other around the end of the ring, as
    /// [`write`](Self::write) does, and returns the index behind the last, not yet taken modulo the
    /// length.
    #[inline(always)]
    pub fn write_all(&mut self, index: u32, descriptors: impl Iterator<Item = D>) -> u32 {
        let (base, mask) = (self.memory.memory().pointer().cast::<D>(), self.mask);
        let mut next = index;
        for descriptor in descriptors {
            // SAFETY: as in `descriptor`.
            let pointer = unsafe { base.add((next & mask) as usize) };
            // SAFETY: as there.
            unsafe { VolatilePtr::new(pointer) }.write(descriptor);
            crate::barrier::audit::stored();
            next = next.wrapping_add(1);
        }
        next
    }

    /// Reads descriptor `index`, taken modulo the length of the ring. Its parts are read in no
    /// particular order: what a done bit covers is valid in a copy that was read after
    /// [`observe`](crate::barrier::observe), which follows the one that had the bit.
    #[inline(always)]
    #[must_use]
    pub fn read(&self, index: u32) -> D {
        self.descriptor(index).read()
    }

    /// Zeroes all descriptors.
    pub fn clear(&mut self) {
        for index in 0..self.len() {
            self.write(index, D::new_zeroed());
        }
    }

    /// Descriptors in the ring.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> u32 {
        self.mask + 1
    }

    /// Never: a ring has at least one descriptor.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Bytes of the ring, for the length register.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.len() * size_of::<D>() as u32
    }

    /// Where the device finds the ring.
    #[must_use]
    pub fn address(&self) -> DeviceAddress {
        self.memory.memory().address()
    }

    /// See [`Custody::set_quiet`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn set_quiet(&mut self, quiet: bool) {
        // SAFETY: the caller makes the same promise.
        unsafe { self.memory.set_quiet(quiet) };
    }
}

/// Producer and consumer of a ring: free-running counters, reduced to an index only where the
/// ring is touched, so that full and empty cannot be confused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingCounters {
    produced: u32,
    consumed: u32,
    usable: u32,
    mask: u32,
}

impl RingCounters {
    /// An empty ring of `len` descriptors, of which `gap` always stay free (1 where the device
    /// takes equal head and tail for an empty ring, as Intel's do). `None` if `len` is
    /// no power of two or not larger than `gap`.
    #[must_use]
    pub const fn new(len: u32, gap: u32) -> Option<Self> {
        if !len.is_power_of_two() || gap >= len {
            return None;
        }
        Some(Self {
            produced: 0,
            consumed: 0,
            usable: len - gap,
            mask: len - 1,
        })
    }

    /// Descriptors that may be produced now.
    #[must_use]
    #[inline(always)]
    pub const fn free(&self) -> u32 {
        self.usable - self.used()
    }

    /// Descriptors produced and not consumed.
    #[must_use]
    #[inline(always)]
    pub const fn used(&self) -> u32 {
        self.produced.wrapping_sub(self.consumed)
    }

    /// Descriptors that can ever be in use at once.
    #[must_use]
    #[inline(always)]
    pub const fn usable(&self) -> u32 {
        self.usable
    }

    /// Index of the next descriptor to produce: the tail register.
    #[must_use]
    #[inline(always)]
    pub const fn tail(&self) -> u32 {
        self.produced & self.mask
    }

    /// Index of the oldest descriptor in use, or the tail if there is none.
    #[must_use]
    #[inline(always)]
    pub const fn head(&self) -> u32 {
        self.consumed & self.mask
    }

    /// The producer's counter, free-running.
    #[must_use]
    #[inline(always)]
    pub const fn produced(&self) -> u32 {
        self.produced
    }

    /// Descriptors from the oldest in use to where the producer's counter was `produced`.
    #[must_use]
    #[inline(always)]
    pub const fn since_consumed(&self, produced: u32) -> u32 {
        produced.wrapping_sub(self.consumed)
    }

    /// Takes note of `count` descriptors produced; at most [`free`](Self::free) are.
    #[inline(always)]
    pub const fn produce(&mut self, count: u32) {
        let free = self.free();
        self.produced = self
            .produced
            .wrapping_add(if count < free { count } else { free });
    }

    /// Takes note of `count` descriptors consumed; at most [`used`](Self::used) are.
    #[inline(always)]
    pub const fn consume(&mut self, count: u32) {
        let used = self.used();
        self.consumed = self
            .consumed
            .wrapping_add(if count < used { count } else { used });
    }

    /// The index after `index`, around the end.
    #[must_use]
    #[inline(always)]
    pub const fn next(&self, index: u32) -> u32 {
        index.wrapping_add(1) & self.mask
    }

    /// How many steps lead from index `from` forward to index `to`.
    #[must_use]
    #[inline(always)]
    pub const fn distance(&self, from: u32, to: u32) -> u32 {
        to.wrapping_sub(from) & self.mask
    }

    /// Empties the ring: both ends at index 0.
    pub const fn reset(&mut self) {
        self.produced = 0;
        self.consumed = 0;
    }
}

#[cfg(all(test, feature = "alloc"))]
#[path = "ring_tests.rs"]
mod tests;
