//! The EEPROM's checksum.

/// Words that the checksum covers at least, the last of them the checksum itself.
pub(crate) const WORDS: usize = 0x40;
/// What all of them add up to (Linux e1000e and ixgbe, QEMU).
const SUM: u16 = 0xbaba;

/// An EEPROM with these words and a valid checksum. Unused words read all ones, as an erased EEPROM
/// does.
pub(crate) fn sealed(initial: &[(usize, u16)]) -> [u16; WORDS] {
    let mut words = [0xffff; WORDS];
    for (at, word) in initial {
        words[*at] = *word;
    }
    words[WORDS - 1] = 0;
    let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
    words[WORDS - 1] = SUM.wrapping_sub(sum);
    words
}

/// The word at `at`; all ones beyond the last one.
pub(crate) fn read(words: &[u16], at: u32) -> u16 {
    words.get(at as usize).copied().unwrap_or(0xffff)
}
