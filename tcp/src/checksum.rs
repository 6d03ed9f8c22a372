//! The Internet checksum (RFC 1071): summing, and copying and summing in one pass.

use core::net::Ipv4Addr;

use pagewire_hal::sum;

/// A ones' complement sum of 16-bit words in network byte order.
///
/// Pieces may be added in any lengths: after an odd number of bytes the next piece is summed as
/// the second half of a word, so the sum is that of all bytes in a row.
///
/// The sum is kept in the byte order of the machine and swapped once at the end (RFC 1071
/// section 2 (B)): ones' complement addition does not care which byte of a word comes first, as
/// long as it is the same one everywhere. That is also how a piece at an odd offset is added,
/// its own sum swapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The bytes so far, in native byte order, folded.
    native: u16,
    /// Whether an odd number of bytes has been summed.
    odd: bool,
}

impl Sum {
    /// Adds `data`.
    #[inline]
    pub fn add(&mut self, data: &[u8]) {
        self.join(sum::sum(data), data.len());
    }

    /// Adds the word `value`, given in host byte order, as its two bytes in network byte order.
    /// It continues the bytes before it like any others: for a word of a header that is only
    /// meaningful at even parity, after an even number of bytes.
    #[inline]
    pub fn add_u16(&mut self, value: u16) {
        self.join(value.to_be(), 2);
    }

    /// Copies bytes from `source` to `target` and adds them, in one pass. Returns how many: the
    /// length of the shorter of the two.
    #[inline]
    pub fn copy(&mut self, source: &[u8], target: &mut [u8]) -> usize {
        let len = source.len().min(target.len());
        self.join(sum::copy(source, target), len);
        len
    }

    /// The sum, not complemented, in host byte order. It is 0 only if every byte was 0;
    /// the other zero of ones' complement is 0xffff.
    #[must_use]
    #[inline]
    pub const fn fold(&self) -> u16 {
        u16::from_be(self.native)
    }

    /// The checksum: the complement of the sum, in host byte order.
    #[must_use]
    #[inline]
    pub const fn finish(&self) -> u16 {
        !self.fold()
    }

    /// Adds a piece of `len` bytes whose native sum is `native`.
    #[inline]
    fn join(&mut self, native: u16, len: usize) {
        let native = if self.odd {
            native.swap_bytes()
        } else {
            native
        };
        self.native = sum::fold(u64::from(self.native) + u64::from(native));
        self.odd ^= len % 2 == 1;
    }
}

/// The sum of the TCP or UDP pseudo-header (RFC 9293 section 3.1): addresses, protocol and `len`,
/// the bytes of transport header and payload.
#[must_use]
#[inline]
pub fn pseudo_header(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    let mut sum = Sum::default();
    sum.add(&source.octets());
    sum.add(&destination.octets());
    sum.add_u16(u16::from(protocol));
    sum.add_u16(len);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{config, seed};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// RFC 1071 section 1, byte by byte.
    fn plain(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for (index, &byte) in data.iter().enumerate() {
            sum += u32::from(byte) << if index % 2 == 0 { 8 } else { 0 };
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn sum_of(data: &[u8]) -> u16 {
        let mut sum = Sum::default();
        sum.add(data);
        sum.fold()
    }

    #[test]
    fn example_of_rfc_1071() {
        // Section 3: the bytes, their sum, and that of the swapped words.
        assert_eq!(
            sum_of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
    }

    #[test]
    fn zero_is_0_only_for_zero_bytes() {
        assert_eq!(Sum::default().fold(), 0);
        assert_eq!(sum_of(&[0; 100]), 0);
        assert_eq!(sum_of(&[0xff; 100]), 0xffff);
        assert_eq!(sum_of(&[0xff, 0xfe, 0, 1]), 0xffff);
    }

    #[test]
    fn every_alignment_and_length() {
        let bytes: Vec<u8> = (0u32..400).map(|i| (i * 167 + 91) as u8).collect();
        for start in 0..40 {
            for len in 0..=300 {
                let data = &bytes[start..start + len];
                assert_eq!(sum_of(data), plain(data), "start {start} length {len}");
            }
        }
    }

    #[test]
    fn no_carry_is_lost_in_a_long_run_of_ones() {
        for len in [63, 64, 65, 1 << 20, (1 << 20) + 7] {
            let data = vec![0xff; len];
            assert_eq!(sum_of(&data), plain(&data), "length {len}");
        }
    }

    #[test]
    fn the_carry_out_of_64_bits_comes_around() {
        // The words add up to 2^65 − 1, whose halves overflow when they are added.
        let mut data = [0xff; 24];
        data[16..].copy_from_slice(&1u64.to_ne_bytes());
        assert_eq!(sum_of(&data), plain(&data));
    }

    #[test]
    fn copy_stops_at_the_shorter_end() {
        let mut sum = Sum::default();
        let mut target = [9; 5];
        assert_eq!(sum.copy(&[1, 2, 3], &mut target), 3);
        assert_eq!(target, [1, 2, 3, 9, 9]);
        assert_eq!(sum.copy(&[4, 5, 6], &mut target[3..]), 2);
        assert_eq!(target, [1, 2, 3, 4, 5]);
        assert_eq!(sum.fold(), plain(&target));
        assert_eq!(sum.copy(&[7], &mut []), 0);
        assert_eq!(sum.fold(), plain(&target));
    }

    #[test]
    fn long_copies_keep_the_sum() {
        for len in [16383, 16384, 16385, 80_003] {
            let source: Vec<u8> = (0..len).map(|i| (i * 31 + i / 255) as u8).collect();
            let mut target = vec![0; len];
            let mut sum = Sum::default();
            sum.add(&[0xab]); // odd parity before
            assert_eq!(sum.copy(&source, &mut target), len);
            assert_eq!(target, source, "length {len}");
            let mut all = vec![0xab];
            all.extend_from_slice(&source);
            assert_eq!(sum.fold(), plain(&all), "length {len}");
        }
    }

    #[test]
    fn pseudo_header_is_twelve_bytes() {
        let source = Ipv4Addr::new(192, 168, 1, 200);
        let destination = Ipv4Addr::new(10, 0, 255, 3);
        let sum = pseudo_header(source, destination, 6, 0x1234);
        let bytes = [192, 168, 1, 200, 10, 0, 255, 3, 0, 6, 0x12, 0x34];
        assert_eq!(sum.fold(), plain(&bytes));
        assert_eq!(sum.finish(), !plain(&bytes));
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn pieces_add_up_to_the_whole(
            pieces in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..80), 0u8..3), 0..12),
        ) {
            let mut all = Vec::new();
            let mut sum = Sum::default();
            for (piece, how) in &pieces {
                match how {
                    0 => sum.add(piece),
                    1 => {
                        let mut target = vec![0; piece.len()];
                        prop_assert_eq!(sum.copy(piece, &mut target), piece.len(), "seed {}", seed());
                        prop_assert_eq!(&target, piece, "seed {}", seed());
                    }
                    _ => {
                        let word = piece.len() as u16 * 0x0333;
                        sum.add_u16(word);
                        all.extend_from_slice(&word.to_be_bytes());
                        continue;
                    }
                }
                all.extend_from_slice(piece);
            }
            prop_assert_eq!(sum.fold(), plain(&all), "seed {}", seed());
        }
    }
}
