//! What std would have given: an allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

const HEAP: usize = 8 << 20;

/// Hands out memory from the front and never takes it back: enough for one run.
#[repr(align(4096))]
struct Bump {
    heap: UnsafeCell<[u8; HEAP]>,
    used: AtomicUsize,
}

// SAFETY: the counter is atomic, and each byte is handed out once.
unsafe impl Sync for Bump {}

#[global_allocator]
static ALLOCATOR: Bump = Bump {
    heap: UnsafeCell::new([0; HEAP]),
    used: AtomicUsize::new(0),
};

// SAFETY: every allocation is a range of the heap of its own, aligned as asked, or null.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.heap.get().cast::<u8>();
        let mut start = 0;
        let claimed = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let address = base
                    .addr()
                    .checked_add(used)?
                    .checked_next_multiple_of(layout.align())?;
                start = address - base.addr();
                start.checked_add(layout.size()).filter(|end| *end <= HEAP)
            });
        if claimed.is_ok() {
            base.wrapping_add(start)
        } else {
            null_mut()
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}
