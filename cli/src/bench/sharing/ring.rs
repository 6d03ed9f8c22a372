//! Memory that bytes are copied to: what a driver has mapped for its device.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use pagewire::tcp::checksum::Sum;

use super::case::REQUEST;

/// Ethernet, IPv4 and TCP with timestamps: bytes in front of the payload.
const HEADER: usize = 66;
/// All of it: little enough for the second-level cache, so that it is hot.
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
        self.bytes
            .get_mut(start + HEADER..start + HEADER + len)
            .unwrap_or_default()
    }

    /// Copies bytes, so many at a time, and sums each if `sums`.
    #[inline]
    pub(super) fn copy(&mut self, bytes: &[u8], unit: usize, sums: bool) {
        for piece in bytes.chunks(unit) {
            let room = self.room(unit, piece.len());
            if sums {
                let mut sum = Sum::default();
                sum.copy(piece, room);
                black_box(sum.finish());
            } else {
                room.copy_from_slice(piece);
            }
            black_box(room);
        }
    }

    /// Reads bytes of a file, 64 KiB at a time.
    pub(super) fn read(&mut self, file: &File, start: usize, len: usize) -> std::io::Result<()> {
        let mut at = start;
        while at < start + len {
            let piece = REQUEST.min(start + len - at);
            file.read_exact_at(self.room(REQUEST, piece), at as u64)?;
            at += piece;
        }
        Ok(())
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
        let bytes: Vec<u8> = (0..5000).map(|index| (index % 251) as u8).collect();
        ring.copy(&bytes, 1448, false);
        assert_eq!(ring.bytes[HEADER..HEADER + 1448], bytes[..1448]);
        assert_eq!(
            ring.bytes[3 * 2048 + HEADER..][..5000 - 3 * 1448],
            bytes[3 * 1448..]
        );
        // Round and round, without an end.
        for unit in [REQUEST, 1448, 4096, REQUEST] {
            ring.copy(&vec![7; RING + 1], unit, true);
        }
        assert!(ring.at <= RING);
    }
}
