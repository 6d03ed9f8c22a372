//! What the device computes over bytes.

pub(super) use crate::checksum::{combine, sum};

/// The frame check sequence of an Ethernet frame (IEEE 802.3: CRC-32, reflected), as it follows
/// the frame: least significant byte first.
pub(super) fn frame_check_sequence(frame: &[u8]) -> [u8; 4] {
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

    #[test]
    fn the_check_sequence_of_the_usual_test_vector() {
        // CRC-32 of "123456789" is 0xcbf43926 in every description of it.
        assert_eq!(
            frame_check_sequence(b"123456789"),
            0xcbf4_3926u32.to_le_bytes()
        );
    }
}
