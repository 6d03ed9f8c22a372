//! The EEPROM: its checksum, and the registers by which it is reached.

/// EEPROM control (EECD, EEC): the request for access to the pins, and that it is granted.
const REQUEST: u32 = 1 << 6;
const GRANTED: u32 = 1 << 7;

/// EEPROM read (EERD).
pub(crate) mod eerd {
    pub(crate) const START: u32 = 1 << 0;
    pub(crate) const DONE: u32 = 1 << 1;
    pub(crate) const ADDRESS_SHIFT: u32 = 2;
    pub(crate) const ADDRESS_MASK: u32 = 0x3fff;
    pub(crate) const DATA_SHIFT: u32 = 16;
}

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

/// What EEC holds after a write of `value`, where it held `before` and software may write the bits
/// `writable`: a request is granted at once.
pub(crate) fn write_eec(before: u32, value: u32, writable: u32) -> u32 {
    let kept = before & !(writable | GRANTED) | value & writable;
    if value & REQUEST != 0 {
        kept | GRANTED
    } else {
        kept
    }
}

/// What EERD holds after a write of `value`, and if that asks for a word, what it will hold when
/// the word is there. `word` reads it.
pub(crate) fn write_eerd(value: u32, word: impl FnOnce(u32) -> u16) -> (u32, Option<u32>) {
    let address = value >> eerd::ADDRESS_SHIFT & eerd::ADDRESS_MASK;
    let place = address << eerd::ADDRESS_SHIFT;
    if value & eerd::START == 0 {
        return (place, None);
    }
    let data = u32::from(word(address)) << eerd::DATA_SHIFT;
    (place | eerd::START, Some(data | place | eerd::DONE))
}
