//! Completes the checksum of a received frame that the host did not sum.
//!
//! With GUEST_CSUM the host may hand over a frame whose checksum field holds the sum of the
//! pseudo-header alone: the frame never was on a wire, and the host vouches for it. The driver
//! completes the field, so that whoever looks at the bytes, a capture or a stack that sums
//! itself, finds what a wire would have brought. The price is one pass over the frame.

use core::ptr::NonNull;

use pagewire_hal::{RxChecksum, RxFrame};

/// Bytes that are copied and summed at once. Even, so that only the last of a piece can be odd.
const CHUNK: usize = 256;
/// Where a UDP header has its checksum.
const UDP_CHECKSUM_OFFSET: u16 = 6;

/// A checksum that is being completed, piece by piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    /// First byte of the frame that is summed.
    start: usize,
    /// Where the result belongs.
    place: usize,
    /// Whether that is where UDP has it: there 0 says "none" (RFC 768).
    is_udp: bool,
    /// Bytes of the frame that were seen.
    seen: usize,
    sum: u64,
    /// The two bytes at `place`, when they were seen.
    field: [Option<NonNull<u8>>; 2],
}

impl Completion {
    /// Of the bytes from `start` to the end of the frame, to be stored at `start + offset`.
    pub(crate) fn new((start, offset): (u16, u16)) -> Self {
        let start = usize::from(start);
        Self {
            start,
            place: start + usize::from(offset),
            is_udp: offset == UDP_CHECKSUM_OFFSET,
            seen: 0,
            sum: 0,
            field: [None; 2],
        }
    }

    /// Sums the next `len` bytes of the frame, at `piece`.
    ///
    /// # Safety
    /// Until [`finish`](Self::finish) the bytes are readable, writable, initialised and nobody
    /// else's but for the device, which should not write them any more.
    pub(crate) unsafe fn add(&mut self, piece: NonNull<u8>, len: usize) {
        for (at, byte) in (self.place..).zip(&mut self.field) {
            if let Some(at) = at.checked_sub(self.seen)
                && at < len
            {
                // SAFETY: `at` is inside the piece.
                *byte = Some(unsafe { piece.add(at) });
            }
        }
        let mut at = self.start.saturating_sub(self.seen);
        while at < len {
            let count = CHUNK.min(len - at);
            // SAFETY: `at` is inside the piece.
            let chunk = unsafe { piece.add(at) };
            // SAFETY: `count` bytes from there are, too.
            let chunk = unsafe { RxFrame::new(chunk, count, RxChecksum::default()) };
            let mut copy = [0; CHUNK];
            chunk.copy_to(&mut copy);
            // An odd byte at the end is summed with the zero behind it. What begins at an odd
            // place is summed with its bytes swapped (RFC 1071, section 2).
            let is_odd = (self.seen + at - self.start) % 2 == 1;
            self.sum += words(&copy) << if is_odd { 8 } else { 0 };
            at += count;
        }
        self.seen += len;
    }

    /// Stores the checksum, when all of the frame was added. False if its place is not inside the
    /// frame: nothing is written then.
    ///
    /// # Safety
    /// As [`add`](Self::add).
    pub(crate) unsafe fn finish(self) -> bool {
        let [Some(high), Some(low)] = self.field else {
            return false;
        };
        // 0xffff is the same sum. TCP's field takes 0 as it comes, and senders put that there.
        let checksum = match fold(self.sum) {
            0 if self.is_udp => 0xFFFF,
            checksum => checksum,
        };
        let [first, second] = checksum.to_be_bytes();
        for (place, byte) in [(high, first), (low, second)] {
            // SAFETY: the caller promised writable bytes. Volatile, as the device shares them.
            unsafe { place.write_volatile(byte) };
        }
        true
    }
}

/// The sum of the 16-bit words, which are big-endian.
fn words(bytes: &[u8; CHUNK]) -> u64 {
    let (pairs, _) = bytes.as_chunks::<2>();
    let sum: u32 = pairs
        .iter()
        .map(|pair| u32::from(u16::from_be_bytes(*pair)))
        .sum();
    u64::from(sum)
}

/// The complement of the ones' complement sum (RFC 1071).
fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn complete(frame: &mut [u8], cuts: &[usize], (start, offset): (u16, u16)) -> bool {
        let mut completion = Completion::new((start, offset));
        let base = NonNull::from(&mut *frame).cast::<u8>();
        let (mut from, end) = (0, frame.len());
        for to in cuts.iter().copied().chain([end]) {
            // SAFETY: `from` is in `frame`, or at its end.
            let piece = unsafe { base.add(from) };
            // SAFETY: the piece is in `frame`, which nobody else uses.
            unsafe { completion.add(piece, to - from) };
            from = to;
        }
        // SAFETY: as above.
        unsafe { completion.finish() }
    }

    #[test]
    fn a_frame_in_pieces_has_the_same_checksum_wherever_it_is_cut() {
        let bytes: Vec<u8> = (0..1001u32).map(|at| ((at * 97) >> 3) as u8).collect();
        for place in [(34u16, 16u16), (35, 16), (34, 6), (0, 0), (14, 985)] {
            let mut whole = bytes.clone();
            assert!(complete(&mut whole, &[], place), "{place:?}");
            assert_ne!(whole, bytes, "{place:?}");
            let at = usize::from(place.0 + place.1);
            for cut in [1, 33, 34, 35, 36, at, at + 1, at + 2, 300, 301, 999, 1000] {
                let mut twice = bytes.clone();
                let second = (cut + 257).clamp(cut, 1001);
                assert!(complete(&mut twice, &[cut, second], place));
                assert_eq!(twice, whole, "{place:?} cut at {cut} and {second}");
            }
        }
        let mut same = bytes.clone();
        assert!(
            !complete(&mut same, &[500], (500, 500)),
            "its second byte is outside"
        );
        assert!(!complete(&mut same, &[], (u16::MAX, u16::MAX)));
        assert_eq!(same, bytes);
    }

    #[test]
    fn a_checksum_of_zero_is_zero_but_for_udp() {
        for (offset, expected) in [(16, [0, 0]), (6, [0xFF, 0xFF])] {
            let mut frame = [0; 40];
            // The sum of all words, the field's own seed among them.
            frame[usize::from(offset)] = 0xF0;
            frame[20..22].copy_from_slice(&[0x0F, 0xFF]);
            assert!(complete(&mut frame, &[], (0, offset)));
            let at = usize::from(offset);
            assert_eq!(frame[at..at + 2], expected, "offset {offset}");
        }
    }
}
