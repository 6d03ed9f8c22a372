//! The heap: all RAM behind the image. It is mapped where it is, so a pointer into it is a
//! physical address, and what is allocated is contiguous for a device.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr::{self, null_mut};

/// Blocks have a power of two of bytes, and begin at a multiple of it.
const CLASSES: usize = 40;
const SMALLEST: usize = 32;

/// Free memory.
struct State {
    /// Never given out yet.
    fresh: Range<usize>,
    /// The first free block of 2^n bytes, for each n; a free block begins with the address of the
    /// next.
    free: [*mut u8; CLASSES],
    in_use: usize,
}

/// The allocator.
struct Heap(UnsafeCell<State>);

// SAFETY: there is one CPU, interrupts are off, and no function of the allocator calls anything
// that allocates: two accesses never overlap.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State {
    fresh: 0..0,
    free: [null_mut(); CLASSES],
    in_use: 0,
}));

/// Gives the heap its memory.
///
/// # Safety
/// Called once, before anything is allocated. `memory` are physical addresses of RAM that is
/// mapped where it is, for reading and writing, and that nobody else uses.
pub(crate) unsafe fn start(memory: Range<u64>) {
    // SAFETY: see `Heap`.
    let state = unsafe { &mut *HEAP.0.get() };
    state.fresh = memory.start as usize..memory.end as usize;
}

/// Bytes in blocks that are allocated now.
pub(crate) fn in_use() -> usize {
    // SAFETY: see `Heap`.
    unsafe { (*HEAP.0.get()).in_use }
}

/// The class of a layout: the base-2 logarithm of its block.
fn class(layout: Layout) -> Option<usize> {
    let len = layout.size().max(layout.align()).max(SMALLEST);
    let class = len.checked_next_power_of_two()?.trailing_zeros() as usize;
    (class < CLASSES).then_some(class)
}

impl State {
    fn allocate(&mut self, class: usize) -> Option<*mut u8> {
        let free = self.free.get_mut(class)?;
        let block = *free;
        if !block.is_null() {
            // SAFETY: a free block is ours, aligned to 32 at least, and begins with the next.
            *free = unsafe { block.cast::<*mut u8>().read() };
            return Some(block);
        }
        let start = self.fresh.start.checked_next_multiple_of(1 << class)?;
        let end = start.checked_add(1 << class)?;
        if end > self.fresh.end {
            return None;
        }
        self.fresh.start = end;
        Some(ptr::with_exposed_provenance_mut(start))
    }
}

// SAFETY: a block is out once at a time, is as long and as aligned as its class, which covers the
// layout, and is RAM by the word of the caller of `start`.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: see `Heap`.
        let state = unsafe { &mut *self.0.get() };
        let Some(class) = class(layout) else {
            return null_mut();
        };
        let Some(block) = state.allocate(class) else {
            return null_mut();
        };
        state.in_use += 1 << class;
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: see `Heap`.
        let state = unsafe { &mut *self.0.get() };
        let Some(class) = class(layout) else { return };
        if let Some(free) = state.free.get_mut(class) {
            // SAFETY: the caller gives the block back; it has at least 32 bytes, so aligned.
            unsafe { block.cast::<*mut u8>().write(*free) };
            *free = block;
            state.in_use -= 1 << class;
        }
    }
}
