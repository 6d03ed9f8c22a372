//! What libc and libunwind would have given: the memory routines, and the symbols that a prebuilt
//! `alloc` asks for because it was built to unwind. The bare-metal example uses this file as well.

use core::arch::asm;

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
    crate::unwound()
}

/// Never called: nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
