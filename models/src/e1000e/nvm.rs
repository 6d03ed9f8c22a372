//! The EEPROM.

use crate::intel::nvm::{self, WORDS};

pub(super) struct Nvm {
    words: [u16; WORDS],
}

impl Nvm {
    /// An EEPROM with the station address `mac`, ids, and a valid checksum. Unused words read
    /// all ones, as an erased EEPROM does.
    pub(super) fn new(mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        let initial = [
            (0x00, u16::from_le_bytes([a, b])),
            (0x01, u16::from_le_bytes([c, d])),
            (0x02, u16::from_le_bytes([e, f])),
            // Subsystem and subsystem vendor, device and vendor.
            (0x0b, 0xa01f),
            (0x0c, 0x8086),
            (0x0d, 0x10d3),
            (0x0e, 0x8086),
            // Initialisation control 1 to 3: no management, no wake-up.
            (0x0a, 0x0000),
            (0x0f, 0x0000),
            (0x24, 0x0000),
        ];
        Self {
            words: nvm::sealed(&initial),
        }
    }

    /// The word at `at`; all ones beyond the last one.
    pub(super) fn read(&self, at: u32) -> u16 {
        nvm::read(&self.words, at)
    }

    /// RAL and RAH of the first receive address, valid.
    pub(super) fn station_address(&self) -> (u32, u32) {
        let word = |at| u32::from(self.read(at));
        (word(0) | word(1) << 16, word(2) | 1 << 31)
    }
}
