//! The Internet checksum (RFC 1071) and the frame check sequence, as a device computes them.

/// Ones' complement sum of `bytes` as big-endian 16-bit words, an odd last byte filled up with
/// zero. Not complemented.
///
/// Sums 64-bit words: the sum does not depend on how many words of 16 bits are added at once,
/// and swapping the bytes of every word swaps those of the sum (RFC 1071, section 2).
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    // Two independent sums, so that the additions need not wait for each other.
    let (mut even, mut odd) = (0u64, 0u64);
    let (pairs, rest) = bytes.as_chunks::<16>();
    for pair in pairs {
        let word = u128::from_le_bytes(*pair);
        even = add(even, word as u64);
        odd = add(odd, (word >> 64) as u64);
    }
    let mut last = [0; 16];
    if let Some(target) = last.get_mut(..rest.len()) {
        target.copy_from_slice(rest);
    }
    let word = u128::from_le_bytes(last);
    even = add(even, word as u64);
    odd = add(odd, (word >> 64) as u64);
    fold(add(even, odd)).swap_bytes()
}

/// Ones' complement addition.
#[inline]
fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(u64::from(carry))
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// Ones' complement sum of two sums.
#[inline]
pub(crate) fn combine(a: u16, b: u16) -> u16 {
    fold(u64::from(a) + u64::from(b))
}

/// The frame check sequence of an Ethernet frame (IEEE 802.3: CRC-32, reflected), as it follows
/// the frame: least significant byte first.
pub(crate) fn frame_check_sequence(frame: &[u8]) -> [u8; 4] {
    const TABLE: [u32; 16] = table();
    let mut crc = u32::MAX;
    for &byte in frame {
        crc ^= u32::from(byte);
        for _ in 0..2 {
            let index = (crc & 0xf) as usize;
            crc = (crc >> 4) ^ TABLE.get(index).copied().unwrap_or(0);
        }
    }
    (!crc).to_le_bytes()
}

/// The remainders of all values of four bits.
const fn table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut index = 0;
    while index < 16 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0xedb8_8320
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for word in bytes.chunks(2) {
            let high = u32::from(word[0]) << 8;
            total += high | u32::from(word.get(1).copied().unwrap_or(0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    #[test]
    fn the_fast_sum_is_the_plain_sum() {
        for seed in 0..400 {
            let mut random = fastrand::Rng::with_seed(seed);
            let len = random.usize(..700);
            let mut bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            if random.u8(..4) == 0 {
                // Every addition carries.
                bytes.fill(0xff);
            }
            for start in 0..bytes.len().min(17) {
                let part = &bytes[start..];
                assert_eq!(sum(part), plain(part), "seed {seed}, from byte {start}");
            }
        }
        assert_eq!(sum(&[]), 0);
    }

    #[test]
    fn combining_two_sums_is_the_sum_of_the_whole() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let bytes: Vec<u8> = (0..200).map(|_| random.u8(..)).collect();
            let (a, b) = bytes.split_at(random.usize(..100) * 2);
            assert_eq!(combine(sum(a), sum(b)), sum(&bytes), "seed 7");
        }
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_what_it_says() {
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
    }

    #[test]
    fn an_odd_last_byte_is_the_upper_half_of_a_word() {
        assert_eq!(sum(&[0x12, 0x34, 0x56]), 0x1234 + 0x5600);
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0xff; 70_000]), 0xffff);
    }

    #[test]
    fn the_check_sequence_of_the_usual_test_vector() {
        // CRC-32 of "123456789" is 0xcbf43926 in every description of it.
        assert_eq!(
            frame_check_sequence(b"123456789"),
            0xcbf4_3926u32.to_le_bytes()
        );
    }
}
