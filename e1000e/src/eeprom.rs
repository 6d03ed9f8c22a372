//! The EEPROM: its checksum and the station address.

use core::time::Duration;

use pagewire_hal::{MacAddress, NicError, Platform};

use crate::init::wait_until;
use crate::regs::{
    Bar, EERD, EERD_ADDRESS_SHIFT, EERD_DATA_SHIFT, EERD_DONE, EERD_START, RAH_AV, RAH0, RAL0,
};

/// Words that the checksum covers, the checksum itself included: 0 to 3Fh.
const CHECKED_WORDS: u32 = 0x40;
/// What they sum to (Linux e1000e `NVM_SUM`).
const CHECKSUM: u16 = 0xBABA;
/// Linux e1000e gives a word half a second.
const READ_LIMIT: Duration = Duration::from_millis(500);

fn read_word<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    address: u32,
) -> Result<u16, NicError> {
    registers.write(EERD, address << EERD_ADDRESS_SHIFT | EERD_START);
    let mut value = 0;
    wait_until(
        platform,
        "reading a word of the EEPROM",
        READ_LIMIT,
        Duration::from_micros(50),
        || {
            value = registers.read(EERD);
            value & EERD_DONE != 0
        },
    )?;
    Ok((value >> EERD_DATA_SHIFT) as u16)
}

/// Checks the EEPROM's checksum: with a wrong one the device's configuration cannot be trusted.
pub(crate) fn verify<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
) -> Result<(), NicError> {
    let mut found = 0u16;
    for address in 0..CHECKED_WORDS {
        found = found.wrapping_add(read_word(platform, registers, address)?);
    }
    if found != CHECKSUM {
        return Err(NicError::EepromChecksum {
            found,
            expected: CHECKSUM,
        });
    }
    Ok(())
}

/// The station address: receive address 0, which the device has loaded from its EEPROM or which
/// somebody set; the EEPROM's words 0 to 2 where that is not valid.
pub(crate) fn station_address<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
) -> Result<MacAddress, NicError> {
    let (low, high) = (registers.read(RAL0), registers.read(RAH0));
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let loaded = MacAddress([a, b, c, d, e, f]);
    if high & RAH_AV != 0 && is_station(loaded) {
        return Ok(loaded);
    }
    let [a, b] = read_word(platform, registers, 0)?.to_le_bytes();
    let [c, d] = read_word(platform, registers, 1)?.to_le_bytes();
    let [e, f] = read_word(platform, registers, 2)?.to_le_bytes();
    let stored = MacAddress([a, b, c, d, e, f]);
    if is_station(stored) {
        Ok(stored)
    } else {
        Err(NicError::BadMacAddress(stored))
    }
}

/// Whether the address can be that of a station: unicast and not zero.
fn is_station(mac: MacAddress) -> bool {
    let MacAddress(bytes) = mac;
    bytes[0] & 1 == 0 && bytes != [0; 6]
}
