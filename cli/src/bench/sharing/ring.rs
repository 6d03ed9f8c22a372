//! Buffers of a driver that frames are copied to: the least that copying can cost.

use std::hint::black_box;

use pagewire::tcp::checksum::Sum;

use super::lender::Frames;

/// Ethernet, IPv4 and TCP with timestamps: bytes in front of the payload.
const HEADER: usize = 66;
/// All of it: few enough for the second-level cache, so that it is hot.
const RING: usize = 256 * 1024;

/// Frames one behind the other, and again from the start.
pub(super) struct Ring {
    bytes: Vec<u8>,
    at: usize,
}

impl Ring {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![1; RING],
            at: 0,
        }
    }

    /// Room for so many bytes behind a header.
    #[inline]
    fn room(&mut self, unit: usize, len: usize) -> &mut [u8] {
        let slot = (HEADER + unit).next_power_of_two();
        let start = self.at.next_multiple_of(slot) % RING;
        self.at = start + slot;
        let room = self.bytes.get_mut(start + HEADER..start + HEADER + len);
        room.unwrap_or_default()
    }

    /// Copies bytes, a frame at a time, and sums each in the same pass if it is to be summed.
    #[inline]
    pub(super) fn copy(&mut self, bytes: &[u8], frames: Frames) {
        for piece in bytes.chunks(frames.unit) {
            let room = self.room(frames.unit, piece.len());
            if frames.sums {
                let mut sum = Sum::default();
                sum.copy(piece, room);
                black_box(sum.finish());
            } else {
                room.copy_from_slice(piece);
            }
            black_box(room);
        }
    }

    /// Makes it hot.
    pub(super) fn warm(&mut self) {
        for byte in self.bytes.iter_mut().step_by(64) {
            *byte = byte.wrapping_add(1);
        }
        black_box(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_gets_there() {
        let mut ring = Ring::new();
        let frames = |unit, sums| Frames { unit, sums };
        let bytes: Vec<u8> = (0..5000).map(|index| (index % 251) as u8).collect();
        ring.copy(&bytes, frames(1448, false));
        assert_eq!(ring.bytes[HEADER..HEADER + 1448], bytes[..1448]);
        assert_eq!(
            ring.bytes[3 * 2048 + HEADER..][..5000 - 3 * 1448],
            bytes[3 * 1448..]
        );
        // Round and round, without an end.
        for unit in [65536, 1448, 4096, 65536] {
            ring.copy(&vec![7; RING + 1], frames(unit, true));
        }
        assert!(ring.at <= RING);
    }
}
