//! What the registers of two of Intel's families have in common, and those of no other device
//! here: access to the EEPROM, station addresses, wide counters.
//!
//! Source: Linux e1000e and Linux ixgbe, which agree, also in names, but for their prefixes `E1000_`
//! and `IXGBE_`. Offsets are the driver's.

use core::ops::Range;
use core::time::Duration;

use super::{Bar, Register, wait_until};
use crate::{MacAddress, NicError, Platform, Registers};

/// EEPROM read: start of a read (`EEPROM_RW_REG_START`).
pub const EERD_START: u32 = 1 << 0;
/// EEPROM read: the read is done. Bit 1 from the 82571 on (Linux e1000e), bit 4 before (`EEPROM_RW_REG_DONE`).
pub const EERD_DONE: u32 = 1 << 1;
/// EEPROM read: shift of the word's address (`EEPROM_RW_ADDR_SHIFT`).
pub const EERD_ADDRESS_SHIFT: u32 = 2;
/// EEPROM read: shift of the word's value (`EEPROM_RW_REG_DATA`).
pub const EERD_DATA_SHIFT: u32 = 16;
/// How long a word is waited for: half a second in Linux e1000e, 100,000 times 5 µs in Linux
/// ixgbe (`IXGBE_EERD_EEWR_ATTEMPTS`).
const READ_LIMIT: Duration = Duration::from_millis(500);

/// Words at the beginning that the checksum covers, the checksum itself included
/// (`IXGBE_EEPROM_CHECKSUM`).
pub const CHECKED_WORDS: Range<u32> = 0..0x40;
/// What all words that the checksum covers sum to (Linux e1000e `NVM_SUM`, Linux ixgbe
/// `IXGBE_EEPROM_SUM`).
const CHECKSUM: u16 = 0xBABA;

/// High word of a receive address: the address is valid (`RAH_AV`).
pub const RAH_AV: u32 = 1 << 31;

/// Reads words of the EEPROM, and is patient with each of them for half a second, and with all of
/// them together for so long only as it was told.
#[derive(Debug)]
pub struct EepromReader<'a, P: Platform, const ALIVE: u32> {
    platform: &'a P,
    registers: &'a Bar<P::Registers, ALIVE>,
    read: Register,
    left: Duration,
}

impl<'a, P: Platform, const ALIVE: u32> EepromReader<'a, P, ALIVE> {
    /// Reads through the register `read` (EERD), and waits for all words together for `left`.
    pub const fn new(
        platform: &'a P,
        registers: &'a Bar<P::Registers, ALIVE>,
        read: Register,
        left: Duration,
    ) -> Self {
        Self {
            platform,
            registers,
            read,
            left,
        }
    }

    /// Reads a word.
    ///
    /// # Errors
    /// [`NicError::Timeout`].
    pub fn read(&mut self, address: u32) -> Result<u16, NicError> {
        const WHAT: &str = "reading a word of the EEPROM";
        let Self {
            platform,
            registers,
            read,
            left,
        } = self;
        let step = Duration::from_micros(50);
        registers.write(*read, address << EERD_ADDRESS_SHIFT | EERD_START);
        let mut value = registers.read(*read);
        if value & EERD_DONE == 0 {
            let limit = READ_LIMIT.min(*left);
            wait_until(*platform, WHAT, limit, step, || {
                *left = left.saturating_sub(step);
                value = registers.read(*read);
                value & EERD_DONE != 0
            })?;
        }
        Ok((value >> EERD_DATA_SHIFT) as u16)
    }

    /// The sum of the words at `addresses`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn sum(&mut self, addresses: Range<u32>) -> Result<u16, NicError> {
        let mut sum = 0u16;
        for address in addresses {
            sum = sum.wrapping_add(self.read(address)?);
        }
        Ok(sum)
    }
}

/// Checks the sum of all words that count: with a wrong one the device's configuration cannot be
/// trusted.
///
/// # Errors
/// [`NicError::EepromChecksum`].
pub fn check_sum(found: u16) -> Result<(), NicError> {
    if found == CHECKSUM {
        return Ok(());
    }
    Err(NicError::EepromChecksum {
        found,
        expected: CHECKSUM,
    })
}

/// The address in a pair of receive address registers (RAL, RAH), and whether it is valid and that
/// of a station.
#[must_use]
pub fn receive_address(low: u32, high: u32) -> (MacAddress, bool) {
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let address = MacAddress([a, b, c, d, e, f]);
    (address, high & RAH_AV != 0 && address.is_station())
}

/// What a pair of receive address registers holds for a valid address: low word, high word.
#[must_use]
pub const fn receive_address_words(address: MacAddress) -> [u32; 2] {
    let MacAddress([a, b, c, d, e, f]) = address;
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, 0, 0]) | RAH_AV,
    ]
}

/// A counter of more than 32 bits: the low word first, as reading the high one clears both (8254x
/// manual 13.7.32; Linux and DPDK ixgbe read them in this order). Of the high word `high_bits` count.
pub fn read_wide<R: Registers, const ALIVE: u32>(
    registers: &Bar<R, ALIVE>,
    low: Register,
    high_bits: u32,
) -> u64 {
    let low_word = registers.read(low);
    let high_word = registers.read(low.at(1));
    u64::from(high_word & high_bits) << 32 | u64::from(low_word)
}
