//! Completes the checksum of a received frame that the host did not sum.
//!
//! With GUEST_CSUM the host may hand over a frame whose checksum field holds the sum of the
//! pseudo-header alone: the frame never was on a wire, and the host vouches for it. The driver
//! completes the field, so that whoever looks at the bytes, a capture or a stack that sums
//! itself, finds what a wire would have brought. The price is one pass over the frame.

use core::ptr::NonNull;

use pagewire_hal::{RxChecksum, RxFrame};

/// Bytes that are copied and summed at once. Even, so that only the last piece can be odd.
const PIECE: usize = 256;

/// Stores the checksum of the bytes from `start` to the end of the frame at `start + offset`.
/// False if it would not be inside the frame: nothing is written then.
///
/// # Safety
/// The `len` bytes at `frame` are readable, writable, initialised and nobody else's but for the
/// device, which should not write them any more.
pub(crate) unsafe fn complete(frame: NonNull<u8>, len: usize, start: usize, offset: usize) -> bool {
    // Both come from 16-bit fields: no overflow.
    let place = start + offset;
    if place + 2 > len {
        return false;
    }
    let mut sum = 0u64;
    let mut at = start;
    while at < len {
        let count = PIECE.min(len - at);
        // SAFETY: `at` is inside the frame.
        let piece = unsafe { frame.add(at) };
        // SAFETY: `count` bytes from there are, too.
        let piece = unsafe { RxFrame::new(piece, count, RxChecksum::default()) };
        let mut copy = [0; PIECE];
        piece.copy_to(&mut copy);
        // An odd byte at the end is summed with the zero behind it.
        sum += words(&copy);
        at += count;
    }
    let [high, low] = fold(sum).to_be_bytes();
    for (at, byte) in [(place, high), (place + 1, low)] {
        // SAFETY: both are inside the frame, as checked above.
        let byte_there = unsafe { frame.add(at) };
        // SAFETY: the caller promised writable bytes. Volatile, as the device shares them.
        unsafe { byte_there.write_volatile(byte) };
    }
    true
}

/// The sum of the 16-bit words, which are big-endian.
fn words(bytes: &[u8; PIECE]) -> u64 {
    let (pairs, _) = bytes.as_chunks::<2>();
    let sum: u32 = pairs
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    u64::from(sum)
}

/// The complement of the ones' complement sum (RFC 1071); 0 becomes 0xffff, which is the same sum
/// and does not say "none" in UDP (RFC 768).
fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    match !(sum as u16) {
        0 => 0xFFFF,
        checksum => checksum,
    }
}
