//! What libc, libunwind and std would have given: the memory routines, an allocator, and the
//! symbols that a prebuilt `alloc` asks for because it was built to unwind.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Copies forward.
///
/// # Safety
/// As C's `memcpy`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for `len` bytes on both sides. A loop in Rust could be compiled
    // to a call of this very function, so it is the string instruction.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rdi") target => _,
            inout("rsi") source => _, options(nostack, preserves_flags));
    }
    target
}

/// Copies in the direction that an overlap demands.
///
/// # Safety
/// As C's `memmove`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, len: usize) -> *mut u8 {
    if target.addr().wrapping_sub(source.addr()) >= len {
        // SAFETY: the target does not begin inside the source, so copying forward is right.
        return unsafe { memcpy(target, source, len) };
    }
    let last = len.wrapping_sub(1);
    // SAFETY: as for `memcpy`, from the last byte down; the direction flag is put back.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") len => _,
            inout("rdi") target.wrapping_add(last) => _,
            inout("rsi") source.wrapping_add(last) => _, options(nostack));
    }
    target
}

/// Fills.
///
/// # Safety
/// As C's `memset`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: the caller vouches for `len` writable bytes.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") target => _, in("al") byte as u8,
            options(nostack, preserves_flags));
    }
    target
}

/// Compares.
///
/// # Safety
/// As C's `memcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    for index in 0..len {
        // SAFETY: the caller vouches for `len` bytes on both sides. Volatile, so that this loop
        // is not recognised as a `memcmp`.
        let a = unsafe { left.add(index).read_volatile() };
        // SAFETY: as above.
        let b = unsafe { right.add(index).read_volatile() };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// Compares for equality.
///
/// # Safety
/// As C's `bcmp`.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, len) }
}

/// Never called: panics abort here.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crate::exit(101)
}

/// Never called: nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

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
