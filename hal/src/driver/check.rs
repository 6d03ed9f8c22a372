//! Whether registers hold what is written to them: for self-tests of a device that is stopped.

use core::fmt;

use crate::{NicError, Registers};

/// Registers that hold, in the bits of `mask`, what is written to them, and do nothing else with it
/// as long as the device is stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoringRegisters {
    /// What the datasheet calls them.
    pub name: &'static str,
    /// Offset of the first one in bytes, a multiple of 4.
    pub offset: u32,
    /// How many there are, at least 1.
    pub count: u32,
    /// From one to the next in bytes, a multiple of 4.
    pub stride: u32,
    /// The bits that hold what is written. No other is written.
    pub mask: u32,
}

impl StoringRegisters {
    /// A single one.
    #[must_use]
    pub const fn one(name: &'static str, offset: u32, mask: u32) -> Self {
        Self::array(name, offset, 1, 4, mask)
    }

    /// `count` of them, `stride` bytes apart.
    #[must_use]
    pub const fn array(
        name: &'static str,
        offset: u32,
        count: u32,
        stride: u32,
        mask: u32,
    ) -> Self {
        Self {
            name,
            offset,
            count,
            stride,
            mask,
        }
    }
}

/// A register that does not read as it must.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongRegister {
    /// What the specification calls it.
    pub name: &'static str,
    /// Its offset in bytes: in its BAR, or in the structure that it is a field of.
    pub offset: u32,
    /// What was written before; `None` if nothing was.
    pub written: Option<u32>,
    /// What was read.
    pub found: u32,
    /// What should have been read.
    pub expected: u32,
}

impl fmt::Display for WrongRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            offset,
            written,
            found,
            expected,
        } = self;
        write!(
            f,
            "{name} (offset {offset:#06x}) reads {found:#010x} instead of {expected:#010x}"
        )?;
        match written {
            Some(written) => write!(f, " after {written:#010x} was written"),
            None => Ok(()),
        }
    }
}

/// Why the check of a device's registers did not end well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegisterError {
    /// A register does not read as it must.
    Wrong(WrongRegister),
    /// The registers could not be reached.
    Unreachable(NicError),
}

impl From<NicError> for RegisterError {
    fn from(error: NicError) -> Self {
        Self::Unreachable(error)
    }
}

impl From<WrongRegister> for RegisterError {
    fn from(wrong: WrongRegister) -> Self {
        Self::Wrong(wrong)
    }
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(wrong) => wrong.fmt(f),
            Self::Unreachable(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RegisterError {}

/// What is written: each bit as 0 and as 1, with equal and with other neighbours (Linux e1000e and
/// ixgbe, `reg_pattern_test`, have the same four).
const PATTERNS: [u32; 4] = [0x5A5A_5A5A, 0xA5A5_A5A5, 0, u32::MAX];

/// Writes patterns to all of `registers` and reads them back; the number of registers. First each
/// by itself, then all of them with values of their own: so a register that is another one in truth
/// is found as well. Zeros are left behind.
///
/// # Errors
/// The first that does not hold what was written.
///
/// # Safety
/// The device reads and writes no memory (bus mastering is off), and is reset before it may again.
pub unsafe fn check_storing<R: Registers>(
    bar: &R,
    registers: &[StoringRegisters],
) -> Result<u32, WrongRegister> {
    let all = || {
        registers.iter().flat_map(|group| {
            (0..group.count).map(move |n| (group, group.offset + n * group.stride))
        })
    };
    let expect = |group: &StoringRegisters, offset: u32, written: u32| {
        let (found, expected) = (bar.read(offset) & group.mask, written & group.mask);
        if found == expected {
            return Ok(());
        }
        Err(WrongRegister {
            name: group.name,
            offset,
            written: Some(written & group.mask),
            found,
            expected,
        })
    };
    let mut count = 0;
    for (group, offset) in all() {
        let mut result = Ok(());
        for pattern in PATTERNS {
            // SAFETY: the caller's promise.
            unsafe { bar.write(offset, pattern & group.mask) };
            result = result.and(expect(group, offset, pattern));
        }
        // SAFETY: as above.
        unsafe { bar.write(offset, 0) };
        result?;
        count += 1;
    }
    // Multiplied by an odd number, offsets are as different as before.
    let own = |offset: u32| (offset | 1).wrapping_mul(0x9E37_79B1);
    for (group, offset) in all() {
        // SAFETY: as above.
        unsafe { bar.write(offset, own(offset) & group.mask) };
    }
    let mut result = Ok(());
    for (group, offset) in all() {
        result = result.and(expect(group, offset, own(offset)));
    }
    for (_, offset) in all() {
        // SAFETY: as above.
        unsafe { bar.write(offset, 0) };
    }
    result?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::string::ToString;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// Four words; bit 3 of word 2 may be stuck, and word 3 may be word 1.
    #[derive(Clone)]
    struct Words {
        words: Rc<RefCell<Vec<u32>>>,
        stuck: bool,
        alias: bool,
    }

    // SAFETY: not needed: the test has one thread, and the trait is safe. `Send` is asked for.
    unsafe impl Send for Words {}

    impl Words {
        fn place(&self, offset: u32) -> usize {
            let index = offset as usize / 4;
            if self.alias && index == 3 { 1 } else { index }
        }
    }

    impl Registers for Words {
        fn read(&self, offset: u32) -> u32 {
            let value = self.words.borrow()[self.place(offset)];
            if self.stuck && offset == 8 {
                value | 8
            } else {
                value
            }
        }
        unsafe fn write(&self, offset: u32, value: u32) {
            self.words.borrow_mut()[self.place(offset)] = value;
        }
        fn read16(&self, _: u32) -> u16 {
            u16::MAX
        }
        unsafe fn write16(&self, _: u32, _: u16) {}
        fn read8(&self, _: u32) -> u8 {
            u8::MAX
        }
        unsafe fn write8(&self, _: u32, _: u8) {}
    }

    fn words(stuck: bool, alias: bool) -> Words {
        Words {
            words: Rc::new(RefCell::new(vec![0; 4])),
            stuck,
            alias,
        }
    }

    const ALL: [StoringRegisters; 2] = [
        StoringRegisters::one("FIRST", 0, 0xFFFF),
        StoringRegisters::array("TABLE", 4, 3, 4, u32::MAX),
    ];

    fn check(words: &Words) -> Result<u32, WrongRegister> {
        // SAFETY: these words are no device.
        unsafe { check_storing(words, &ALL) }
    }

    #[test]
    fn good_registers_pass_and_bad_ones_are_named() {
        assert_eq!(check(&words(false, false)), Ok(4));
        let wrong = check(&words(true, false)).unwrap_err();
        assert_eq!((wrong.name, wrong.offset), ("TABLE", 8));
        let text = wrong.to_string();
        assert!(text.contains("TABLE (offset 0x0008) reads"), "{text}");
        let wrong = check(&words(false, true)).unwrap_err();
        assert_eq!(wrong.offset, 4, "what was written to word 3 is in word 1");
    }
}
