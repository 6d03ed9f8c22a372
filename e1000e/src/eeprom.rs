//! The EEPROM: its checksum and the station address.

use core::time::Duration;

use pagewire_hal::driver::intel;
use pagewire_hal::{MacAddress, NicError, Platform};

use crate::regs::{Bar, EERD, RAH0, RAL0};

/// Checks the EEPROM's checksum: with a wrong one the device's configuration cannot be trusted.
pub(crate) fn verify<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
) -> Result<(), NicError> {
    let mut reader = intel::EepromReader::new(platform, registers, EERD, Duration::MAX);
    intel::check_sum(reader.sum(intel::CHECKED_WORDS)?)
}

/// The station address: receive address 0, which the device has loaded from its EEPROM or which
/// somebody set; the EEPROM's words 0 to 2 where that is not valid.
pub(crate) fn station_address<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
) -> Result<MacAddress, NicError> {
    let (loaded, is_valid) = intel::receive_address(registers.read(RAL0), registers.read(RAH0));
    if is_valid {
        return Ok(loaded);
    }
    let mut reader = intel::EepromReader::new(platform, registers, EERD, Duration::MAX);
    let [a, b] = reader.read(0)?.to_le_bytes();
    let [c, d] = reader.read(1)?.to_le_bytes();
    let [e, f] = reader.read(2)?.to_le_bytes();
    let stored = MacAddress([a, b, c, d, e, f]);
    if stored.is_station() {
        Ok(stored)
    } else {
        Err(NicError::BadMacAddress(stored))
    }
}
