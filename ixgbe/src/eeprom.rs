//! The EEPROM: its checksum and the station address.
//!
//! Sources: Linux and DPDK ixgbe, `ixgbe_calc_eeprom_checksum_generic` and `_X540`. Both families
//! read through EERD: what the X540 has is flash memory with the same face (its
//! `ixgbe_read_eerd_X540` takes the semaphore and does nothing else of its own).

use core::time::Duration;

use pagewire_hal::driver::intel;
use pagewire_hal::{MacAddress, NicError, Platform, Registers};

use crate::bits::Eec;
use crate::ids::Family;
use crate::regs::{Bar, EEC, EERD, RAH0, RAL0};
use crate::semaphore::{self, Resource};

/// Words that point at sections which the checksum covers as well (Linux and DPDK ixgbe: from the
/// PCIe analog section to the one before the firmware's, `IXGBE_PCIE_ANALOG_PTR` and
/// `IXGBE_FW_PTR`).
const SECTION_POINTERS: core::ops::Range<u32> = 0x03..0x0F;
/// Of these the PHY's section and the option ROM are left out on the X540 (`IXGBE_PHY_PTR`,
/// `IXGBE_OPTION_ROM_PTR`).
const NOT_ON_X540: core::ops::Range<u32> = 0x04..0x06;
/// Largest address that a read takes: 14 bits (DPDK `IXGBE_EERD_MAX_ADDR`).
const MAX_ADDRESS: u32 = 0x3FFF;
/// What all words together get: a device that answers at the last moment, and says that its sections
/// have all words that can be named, must not hold an opening for a day. (No driver that was read
/// has such a limit. At the 50 µs that a word is looked for in, all 16384 words take one second.)
const ALL_LIMIT: Duration = Duration::from_secs(10);

/// Checks the EEPROM's checksum: with a wrong one the device's configuration cannot be trusted.
pub(crate) fn verify<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    family: Family,
) -> Result<(), NicError> {
    semaphore::take(platform, registers, family, Resource::Eeprom)?;
    let found = sum(platform, registers, family);
    semaphore::put(registers, family, Resource::Eeprom);
    intel::check_sum(found?)
}

/// The sum of all words that count.
fn sum<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
    family: Family,
) -> Result<u16, NicError> {
    let mut reader = intel::EepromReader::new(platform, registers, EERD, ALL_LIMIT);
    let control = registers.read(EEC);
    let words = 1 << (((control & Eec::SIZE.bits()) >> 11) + 6);
    // DPDK leaves a section out that ends behind the EEPROM, but for the X540 only.
    let end = match family {
        Family::I82599 => MAX_ADDRESS + 1,
        Family::X540 => (MAX_ADDRESS + 1).min(words),
    };
    let mut found = reader.sum(intel::CHECKED_WORDS)?;
    for pointer in SECTION_POINTERS {
        if family == Family::X540 && NOT_ON_X540.contains(&pointer) {
            continue;
        }
        let section = u32::from(reader.read(pointer)?);
        if section == 0 || section == 0xFFFF || section >= end {
            continue;
        }
        let len = u32::from(reader.read(section)?);
        if len == 0 || len == 0xFFFF || section + len >= end {
            continue;
        }
        found = found.wrapping_add(reader.sum(section + 1..section + len + 1)?);
    }
    Ok(found)
}

/// The station address: receive address 0, which the device has loaded from its EEPROM (82599
/// datasheet 8.2.3.7.9, as TinyNF quotes it).
pub(crate) fn station_address<R: Registers>(registers: &Bar<R>) -> Result<MacAddress, NicError> {
    let (loaded, is_valid) = intel::receive_address(registers.read(RAL0), registers.read(RAH0));
    if is_valid {
        Ok(loaded)
    } else {
        Err(NicError::BadMacAddress(loaded))
    }
}
