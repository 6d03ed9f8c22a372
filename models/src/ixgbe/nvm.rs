//! The EEPROM.

use crate::intel::nvm::{self, WORDS};

pub(super) struct Nvm {
    words: [u16; WORDS],
    mac: [u8; 6],
}

impl Nvm {
    /// An EEPROM for the station address `mac` with a valid checksum. Unused words read all ones,
    /// as an erased EEPROM does: all pointers to sections are then "none", and no section counts
    /// in the checksum. (The station address is in such a section; its place is not modelled, the
    /// address is only loaded into RAL and RAH.)
    pub(super) fn new(mac: [u8; 6], device: u16) -> Self {
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
        Self {
            words: nvm::sealed(&initial),
            mac,
        }
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
