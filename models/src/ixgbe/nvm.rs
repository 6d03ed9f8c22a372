//! The EEPROM.

use crate::intel::nvm;

/// The words that point at sections: word 0 of each says how many words follow, and these count in
/// the checksum (Linux ixgbe, `ixgbe_calc_eeprom_checksum_generic`: from `IXGBE_PCIE_ANALOG_PTR` to
/// the word before `IXGBE_FW_PTR`).
const SECTION_POINTERS: std::ops::Range<usize> = 0x03..0x0f;
/// Of these an X540 leaves out two (`ixgbe_calc_eeprom_checksum_X540`: PHY and option ROM).
const NOT_ON_X540: std::ops::Range<usize> = 0x04..0x06;
/// The device id of the X540.
const X540: u16 = 0x1528;

pub(super) struct Nvm {
    words: Vec<u16>,
    mac: [u8; 6],
}

impl Nvm {
    /// An EEPROM for the station address `mac` with a valid checksum. Unused words read all ones,
    /// as an erased EEPROM does: a pointer to a section is then "none". With `sections` there are
    /// some, of 1 to 5 words, which count in the checksum. (The station address is in such a
    /// section; its place is not modelled, the address is only loaded into RAL and RAH.)
    pub(super) fn new(mac: [u8; 6], device: u16, sections: bool) -> Self {
        let initial = [
            // EEPROM control word 1: the signature in bits 15 and 14 is 01.
            (0x00, 0x4000),
            (0x01, 0x0000),
            (0x02, 0x0000),
            // Subsystem, device and vendor, as configuration space has them.
            (0x0f, device),
            (0x18, 0x8086),
            // Capabilities of the device: any module may be used.
            (0x2c, 0x0001),
            // Version of the image.
            (0x29, 0x0001),
        ];
        let mut words = nvm::sealed(&initial).to_vec();
        let checksum = words.len() - 1;
        for pointer in SECTION_POINTERS.filter(|pointer| sections && pointer % 2 == 0) {
            let section = words.len() as u16;
            let len = pointer % 5 + 1;
            let content = (0..len).map(|at| (pointer * 0x1234 + at * 0x0777) as u16);
            let content: Vec<_> = content.collect();
            // What counts from now on: the pointer, and the words of the section.
            let mut more = section.wrapping_sub(words[pointer]);
            if device != X540 || !NOT_ON_X540.contains(&pointer) {
                more = content
                    .iter()
                    .fold(more, |sum, word| sum.wrapping_add(*word));
            }
            words[checksum] = words[checksum].wrapping_sub(more);
            words[pointer] = section;
            words.push(len as u16);
            words.extend(content);
        }
        Self { words, mac }
    }

    /// The word at `at`; all ones beyond the last one.
    pub(super) fn read(&self, at: u32) -> u16 {
        nvm::read(&self.words, at)
    }

    /// Spoils a word, and with it the checksum.
    pub(super) fn corrupt(&mut self) {
        self.words[0x20] ^= 0x0100;
    }

    /// RAL and RAH of the first receive address, valid.
    pub(super) fn station_address(&self) -> (u32, u32) {
        let [a, b, c, d, e, f] = self.mac;
        let high = u32::from(u16::from_le_bytes([e, f]));
        (u32::from_le_bytes([a, b, c, d]), high | 1 << 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification says it, word by word.
    fn sum(nvm: &Nvm, device: u16) -> u16 {
        let add = |sum: u16, at: u32| sum.wrapping_add(nvm.read(at));
        let mut total = (0..=0x3f).fold(0, add);
        for pointer in 3..0x0f {
            let section = u32::from(nvm.read(pointer));
            let left_out = device == X540 && [4, 5].contains(&pointer);
            if section != 0xffff && section != 0 && !left_out {
                let len = u32::from(nvm.read(section));
                assert!((1..=5).contains(&len), "pointer {pointer:#x}");
                total = (section + 1..=section + len).fold(total, add);
            }
        }
        total
    }

    #[test]
    fn all_words_that_count_add_up_to_baba() {
        for device in [0x10f7, X540] {
            for sections in [false, true] {
                let mut nvm = Nvm::new([2, 0, 0, 0, 0, 1], device, sections);
                assert_eq!(sum(&nvm, device), 0xbaba);
                assert_eq!(nvm.read(6) == 0xffff, !sections);
                // A word of a section counts like any other.
                let last = nvm.words.len() - 1;
                nvm.words[last] ^= 1;
                assert_ne!(sum(&nvm, device), 0xbaba);
            }
        }
    }
}
