//! Copies between a device and memory that the CPU may touch at the same moment.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Longest access that is made word by word: a descriptor or two.
const LONGEST_IN_WORDS: usize = 64;

/// Fills `target` from `source`.
///
/// # Safety
/// `target.len()` bytes at `source` can be read.
#[inline]
pub(super) unsafe fn copy(source: NonNull<u8>, target: &mut [u8]) {
    // SAFETY: the caller's promise; `target` is exclusively borrowed, so it is elsewhere.
    unsafe {
        std::ptr::copy_nonoverlapping(source.as_ptr(), target.as_mut_ptr(), target.len());
    }
}

/// Appends `len` bytes from `source` to `frame`.
///
/// # Safety
/// `len` bytes at `source` can be read.
#[inline]
pub(super) unsafe fn append(source: NonNull<u8>, len: usize, frame: &mut Vec<u8>) {
    frame.reserve(len);
    let room = frame.spare_capacity_mut().as_mut_ptr().cast::<u8>();
    // SAFETY: the caller's promise; `reserve` made room for `len` bytes, which are the frame's
    // own and so not among those at `source`.
    unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), room, len) };
    // SAFETY: these bytes have just been written.
    unsafe { frame.set_len(frame.len() + len) };
}

/// Fills `target` from memory that the driver may be writing at the same moment: an aligned
/// word, or a few of them, is read as such.
///
/// # Safety
/// `target.len()` bytes at `source` can be read and written.
pub(super) unsafe fn load(source: NonNull<u8>, target: &mut [u8]) {
    let len = target.len();
    if len <= LONGEST_IN_WORDS && len.is_multiple_of(8) && source.cast::<u64>().is_aligned() {
        for (index, part) in target.chunks_exact_mut(8).enumerate() {
            // SAFETY: word `index` lies in the caller's bytes.
            let place = unsafe { source.cast::<u64>().add(index) };
            // SAFETY: the word is aligned, as checked above, and can be read and written.
            let word = unsafe { AtomicU64::from_ptr(place.as_ptr()) };
            part.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        return;
    }
    match len {
        1 => {
            // SAFETY: the caller's byte.
            let word = unsafe { AtomicU8::from_ptr(source.as_ptr()) };
            target.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        2 if source.cast::<u16>().is_aligned() => {
            // SAFETY: the caller's two bytes, aligned.
            let word = unsafe { AtomicU16::from_ptr(source.cast().as_ptr()) };
            target.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        4 if source.cast::<u32>().is_aligned() => {
            // SAFETY: the caller's four bytes, aligned.
            let word = unsafe { AtomicU32::from_ptr(source.cast().as_ptr()) };
            target.copy_from_slice(&word.load(Ordering::Acquire).to_ne_bytes());
        }
        _ => {
            // SAFETY: the caller's promise. A driver that writes here meanwhile lets a device
            // read any mixture of old and new, and so it does here.
            unsafe { copy(source, target) };
            fence(Ordering::Acquire);
        }
    }
}

/// Writes `source` to memory that the driver may be reading at the same moment: an aligned word,
/// or a few of them in ascending order, is written as such, and after everything that was
/// written before (as the done bit of a descriptor, in its last word, must be).
///
/// # Safety
/// `source.len()` bytes at `target` can be read and written.
pub(super) unsafe fn store(target: NonNull<u8>, source: &[u8]) {
    let len = source.len();
    if len <= LONGEST_IN_WORDS && len.is_multiple_of(8) && target.cast::<u64>().is_aligned() {
        for (index, part) in source.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: word `index` lies in the caller's bytes.
            let place = unsafe { target.cast::<u64>().add(index) };
            // SAFETY: the word is aligned, as checked above, and can be read and written.
            let word = unsafe { AtomicU64::from_ptr(place.as_ptr()) };
            word.store(u64::from_ne_bytes(*part), Ordering::Release);
        }
        return;
    }
    match *source {
        [byte] => {
            // SAFETY: the caller's byte.
            let word = unsafe { AtomicU8::from_ptr(target.as_ptr()) };
            word.store(byte, Ordering::Release);
        }
        [a, b] if target.cast::<u16>().is_aligned() => {
            // SAFETY: the caller's two bytes, aligned.
            let word = unsafe { AtomicU16::from_ptr(target.cast().as_ptr()) };
            word.store(u16::from_ne_bytes([a, b]), Ordering::Release);
        }
        [a, b, c, d] if target.cast::<u32>().is_aligned() => {
            // SAFETY: the caller's four bytes, aligned.
            let word = unsafe { AtomicU32::from_ptr(target.cast().as_ptr()) };
            word.store(u32::from_ne_bytes([a, b, c, d]), Ordering::Release);
        }
        _ => {
            fence(Ordering::Release);
            // SAFETY: the caller's promise; the two may overlap, as `copy` allows.
            unsafe { std::ptr::copy(source.as_ptr(), target.as_ptr(), len) };
        }
    }
}
