//! Memory for bytes that are copied instead of lent: short ones, those that nobody can keep as they
//! are, and those that somebody wants to write over.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{
    DeviceAddress, DmaMemory, DomainId, Granule, Ledger, LendError, Refused, Region, RegionId,
    Sharing, Translation, Watch,
};

/// Slots of equal size in one piece of DMA memory, registered with a [`Ledger`] like any region. A
/// slot is written while nobody has it, and is free again when the last loan of it is gone.
///
/// Slots are taken in turn, so that long copies are contiguous for the device and bytes that are
/// sent in order are freed in order.
pub struct CopyPool<M: DmaMemory> {
    region: Arc<Slots<M>>,
    id: RegionId,
    next: usize,
    /// Slots that are used.
    used: usize,
}

impl<M: DmaMemory> CopyPool<M> {
    /// A pool in `memory`, for loans of `ledger`. A slot has the size of `slot`, at least the
    /// ledger's page; bytes behind the last whole slot are not used. Nor is every second slot, if
    /// pages are to be kept apart ([`DmaMemory::pages_apart`]): what lies in two slots is never
    /// contiguous then. (What lies in one is, also across a page's end: there slots are to be pages.)
    ///
    /// # Errors
    /// [`LendError::OutOfRange`] if the memory does not begin at a multiple of the slot's size or
    /// has no room for one; or what [`Ledger::register`] says.
    pub fn new(memory: M, slot: Granule, ledger: &mut Ledger) -> Result<Self, LendError> {
        let count = memory.len() >> slot.log2();
        let aligned = memory.pointer().addr().get() & (slot.bytes() - 1) == 0;
        if count == 0 || !aligned || slot.log2() < ledger.page().log2() {
            return Err(LendError::OutOfRange);
        }
        let step = if memory.pages_apart() { 2 } else { 1 };
        let state = |index: usize| {
            // What is being written for ever is never had.
            let used = index.is_multiple_of(step);
            AtomicU32::new(if used { FREE } else { WRITTEN })
        };
        let region = Arc::new(Slots {
            base: memory.pointer(),
            domain: memory.domain(),
            address: [memory.address()],
            slot,
            states: (0..count).map(state).collect(),
            _memory: memory,
        });
        let id = ledger.register(Arc::clone(&region) as Arc<dyn Region>)?;
        Ok(Self {
            region,
            id,
            next: 0,
            used: count.div_ceil(step),
        })
    }

    /// Its region, of which [`put`](Self::put) yields ranges.
    #[must_use]
    pub const fn region(&self) -> RegionId {
        self.id
    }

    /// The size of a slot.
    #[must_use]
    pub fn slot(&self) -> Granule {
        self.region.slot
    }

    /// Bytes of all slots that are used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used << self.region.slot.log2()
    }

    /// Whether there is no slot: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.states.is_empty()
    }

    /// Bytes of slots that nobody has.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        let free = |state: &&AtomicU32| state.load(Ordering::Relaxed) == FREE;
        self.region.states.iter().filter(free).count() << self.region.slot.log2()
    }

    /// Has `fill` write up to `len` bytes, at least 1, as many as there are free slots in a row, and
    /// says where they are, to be lent at once: what is not lent is written over. `None` if there is
    /// no room, or `len` is 0; then `fill` is not called.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn put<E>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Range<usize>>, E> {
        let Some(slots) = self.take(len) else {
            return Ok(None);
        };
        let bytes = self.region.slot.bytes();
        let start = slots.start * bytes;
        let len = len.min(slots.len() * bytes);
        // SAFETY: the slots lie in the memory.
        let first = unsafe { self.region.base.add(start) };
        // SAFETY: as above. `take` has put them into the state in which nobody lends them, and so
        // nobody reads them; only this value writes them, and it is borrowed.
        let result = fill(unsafe { core::slice::from_raw_parts_mut(first.as_ptr(), len) });
        self.next = slots.end % self.region.states.len().max(1);
        for state in self.region.states.get(slots).unwrap_or_default() {
            state.store(FREE, Ordering::Release);
        }
        result.map(|()| Some(start..start + len))
    }

    /// Takes free slots in a row for up to `len` bytes, from the next on.
    fn take(&self, len: usize) -> Option<Range<usize>> {
        let states = &self.region.states;
        let wanted = len.div_ceil(self.region.slot.bytes());
        let taken = |index: usize| {
            let state = states.get(index);
            state.is_some_and(|state| {
                state
                    .compare_exchange(FREE, WRITTEN, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            })
        };
        if wanted == 0 {
            return None;
        }
        let start = (self.next..states.len())
            .chain(0..self.next)
            .find(|index| taken(*index))?;
        let most = states.len().min(start.saturating_add(wanted));
        let end = (start + 1..most)
            .find(|index| !taken(*index))
            .unwrap_or(most);
        Some(start..end)
    }
}

impl<M: DmaMemory> fmt::Debug for CopyPool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyPool")
            .field("len", &self.len())
            .field("free", &self.free_bytes())
            .finish()
    }
}

/// Nobody has it.
const FREE: u32 = 0;
/// Being written. What is less is the number of ledgers that have it lent.
const WRITTEN: u32 = u32::MAX;

struct Slots<M: DmaMemory> {
    base: NonNull<u8>,
    domain: DomainId,
    address: [DeviceAddress; 1],
    slot: Granule,
    states: Box<[AtomicU32]>,
    /// Keeps the bytes; never looked at, as `M` need not be `Sync`.
    _memory: M,
}

// SAFETY: the bytes belong to the value, and the memory that keeps them is `Send`.
unsafe impl<M: DmaMemory> Send for Slots<M> {}
// SAFETY: the memory is not looked at; what changes is atomic, and bytes are written in slots that
// nobody can lend meanwhile.
unsafe impl<M: DmaMemory> Sync for Slots<M> {}

impl<M: DmaMemory> Slots<M> {
    fn states(&self, range: &Range<usize>) -> &[AtomicU32] {
        let first = range.start >> self.slot.log2();
        let end = range.end.div_ceil(self.slot.bytes());
        self.states.get(first..end).unwrap_or_default()
    }
}

// SAFETY: slots are written only in the state `WRITTEN`, in which they cannot be lent, and which
// they get from `FREE` only, in which they are not lent.
unsafe impl<M: DmaMemory> Watch for Slots<M> {
    fn page(&self) -> Granule {
        self.slot
    }

    fn lend(&self, range: Range<usize>) -> Result<(), Refused> {
        if range.end > self.len() {
            return Err(Refused::OutOfRange);
        }
        let states = self.states(&range);
        let more = |count: u32| (count < WRITTEN - 1).then(|| count + 1);
        for (index, state) in states.iter().enumerate() {
            let lent = state.fetch_update(Ordering::Acquire, Ordering::Relaxed, more);
            if lent.is_err() {
                for lent in states.iter().take(index) {
                    lent.fetch_sub(1, Ordering::Release);
                }
                return Err(Refused::Busy);
            }
        }
        Ok(())
    }

    unsafe fn release(&self, range: Range<usize>) {
        let less = |count: u32| (count != FREE && count != WRITTEN).then(|| count - 1);
        for state in self.states(&range) {
            // Fails only for whoever releases what was not lent.
            let _ = state.fetch_update(Ordering::Release, Ordering::Relaxed, less);
        }
    }

    fn copy_to(&self, start: usize, into: &mut [u8]) -> Result<(), Refused> {
        // Only what is lent has a meaning here.
        let range = start..start.checked_add(into.len()).ok_or(Refused::OutOfRange)?;
        if range.end > self.len() {
            return Err(Refused::OutOfRange);
        }
        if range.is_empty() {
            return Ok(());
        }
        self.lend(range.clone())?;
        // SAFETY: the range lies in the memory.
        let first = unsafe { self.base.add(start) };
        // SAFETY: as above; lent, it is not written.
        into.copy_from_slice(unsafe { core::slice::from_raw_parts(first.as_ptr(), into.len()) });
        // SAFETY: lent above.
        unsafe { self.release(range) };
        Ok(())
    }
}

// SAFETY: `DmaMemory` promises a stable address, initialised bytes and a mapping that lives as long
// as the value, contiguous for the device; `Watch` keeps what is lent.
unsafe impl<M: DmaMemory> Region for Slots<M> {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.states.len() << self.slot.log2()
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn translation(&self) -> Translation<'_> {
        Translation::contiguous(self.len(), &self.address)
    }

    fn sharing(&self) -> Sharing<'_> {
        Sharing::Watched(self)
    }
}

#[cfg(test)]
#[path = "copy_pool_tests.rs"]
mod tests;
