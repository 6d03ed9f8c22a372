//! The EEPROM.

/// Words that the checksum covers, the last of them the checksum itself.
pub(super) const WORDS: usize = 0x40;
/// What all of them add up to (Linux e1000e, QEMU).
const SUM: u16 = 0xbaba;

pub(super) struct Nvm {
    words: [u16; WORDS],
}

impl Nvm {
    /// An EEPROM with the station address `mac`, ids, and a valid checksum. Unused words read
    /// all ones, as an erased EEPROM does.
    pub(super) fn new(mac: [u8; 6]) -> Self {
        let mut words = [0xffff; WORDS];
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
        for (at, word) in initial {
            words[at] = word;
        }
        words[WORDS - 1] = 0;
        let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
        words[WORDS - 1] = SUM.wrapping_sub(sum);
        Self { words }
    }

    /// The word at `at`; all ones beyond the last one.
    pub(super) fn read(&self, at: u32) -> u16 {
        self.words.get(at as usize).copied().unwrap_or(0xffff)
    }

    /// RAL and RAH of the first receive address, valid.
    pub(super) fn station_address(&self) -> (u32, u32) {
        let word = |at| u32::from(self.read(at));
        (word(0) | word(1) << 16, word(2) | 1 << 31)
    }
}
