//! Copies from and to memory that another process may be writing at the same moment.
//!
//! Word by word, each as large as it is aligned and an access of its own: never a reference to
//! the memory, and never a word in two parts.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of the largest word that the rest of a copy can begin with.
fn word_at(address: usize, left: usize) -> usize {
    let aligned = 1 << address.trailing_zeros().min(3);
    // At least 1, as there is something left.
    let fits = 1 << left.ilog2().min(3);
    usize::min(aligned, fits)
}

/// Fills `target` from `source`.
///
/// # Safety
/// `target.len()` bytes at `source` are mapped for reading, and this process writes them by the
/// functions of this module alone.
pub(super) unsafe fn load(source: NonNull<u8>, mut target: &mut [u8]) {
    let mut place = source;
    while !target.is_empty() {
        let len = word_at(place.addr().get(), target.len());
        let (word, rest) = target.split_at_mut(len);
        match len {
            // SAFETY: the caller's bytes, of which 8 are left, and aligned to 8.
            8 => word.copy_from_slice(&unsafe { load_u64(place) }.to_ne_bytes()),
            4 => {
                // SAFETY: the caller's bytes, of which 4 are left, and aligned to 4.
                let from = unsafe { AtomicU32::from_ptr(place.cast().as_ptr()) };
                word.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
            }
            2 => {
                // SAFETY: the caller's bytes, of which 2 are left, and aligned to 2.
                let from = unsafe { AtomicU16::from_ptr(place.cast().as_ptr()) };
                word.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
            }
            _ => {
                // SAFETY: the caller's bytes, of which one is left.
                let from = unsafe { AtomicU8::from_ptr(place.as_ptr()) };
                word.copy_from_slice(&[from.load(Ordering::Relaxed)]);
            }
        }
        target = rest;
        // SAFETY: `len` bytes of the caller's have just been read from here.
        place = unsafe { place.add(len) };
    }
    // What the driver has published before these bytes is seen by what is read after them.
    fence(Ordering::Acquire);
}

/// Reads a word.
///
/// # Safety
/// 8 bytes at `place`, aligned to 8, as for [`load`].
#[inline]
unsafe fn load_u64(place: NonNull<u8>) -> u64 {
    // SAFETY: the caller's promise.
    let from = unsafe { AtomicU64::from_ptr(place.cast().as_ptr()) };
    from.load(Ordering::Relaxed)
}

/// Writes `source` to `target`, in ascending order, and after everything that was written before
/// (as the done bit of a descriptor, in its last word, must be).
///
/// # Safety
/// `source.len()` bytes at `target` are mapped for writing, and this process reads and writes them
/// by the functions of this module alone.
pub(super) unsafe fn store(target: NonNull<u8>, mut source: &[u8]) {
    let mut place = target;
    while !source.is_empty() {
        let len = word_at(place.addr().get(), source.len());
        let (word, rest) = source.split_at(len);
        match *word {
            [a, b, c, d, e, f, g, h] => {
                // SAFETY: the caller's bytes, of which 8 are left, and aligned to 8.
                let to = unsafe { AtomicU64::from_ptr(place.cast().as_ptr()) };
                to.store(
                    u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
                    Ordering::Release,
                );
            }
            [a, b, c, d] => {
                // SAFETY: the caller's bytes, of which 4 are left, and aligned to 4.
                let to = unsafe { AtomicU32::from_ptr(place.cast().as_ptr()) };
                to.store(u32::from_ne_bytes([a, b, c, d]), Ordering::Release);
            }
            [a, b] => {
                // SAFETY: the caller's bytes, of which 2 are left, and aligned to 2.
                let to = unsafe { AtomicU16::from_ptr(place.cast().as_ptr()) };
                to.store(u16::from_ne_bytes([a, b]), Ordering::Release);
            }
            _ => {
                // SAFETY: the caller's bytes, of which one is left.
                let to = unsafe { AtomicU8::from_ptr(place.as_ptr()) };
                to.store(word.first().copied().unwrap_or(0), Ordering::Release);
            }
        }
        source = rest;
        // SAFETY: `len` bytes of the caller's have just been written here.
        place = unsafe { place.add(len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_at_every_alignment_is_copied_and_nothing_beside_it() {
        for start in 0..9 {
            for len in 0..40 {
                let mut memory = [0xee_u64; 8];
                let base = NonNull::from(&mut memory).cast::<u8>();
                let bytes: Vec<u8> = (1..=len as u8).collect();
                // SAFETY: 9 + 40 bytes fit the 64 of the array.
                let place = unsafe { base.add(start) };
                // SAFETY: as above.
                unsafe { store(place, &bytes) };
                let mut back = vec![0; len];
                // SAFETY: as above.
                unsafe { load(place, &mut back) };
                assert_eq!(back, bytes);
                let mut all = vec![0; 64];
                // SAFETY: all of the array.
                unsafe { load(base, &mut all) };
                let fresh = 0xee_u64.to_ne_bytes().repeat(8);
                assert_eq!(all[..start], fresh[..start]);
                assert_eq!(all[start + len..], fresh[start + len..]);
            }
        }
    }
}
