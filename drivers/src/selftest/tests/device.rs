//! What is tested before the driver opens the device: registers and EEPROM.

use alloc::format;
use core::fmt;

use pagewire_e1000e::E1000e;
use pagewire_hal::NicError;
use pagewire_hal::driver::RegisterError;
use pagewire_ixgbe::Ixgbe;
use pagewire_virtio::VirtioNet;

use super::driver_of;
use crate::Driver;
use crate::selftest::outcome::{Checked, Stop, fault, not_run};
use crate::selftest::station::Station;

/// Registers hold what is written to them; those of virtio behave as the specification has it.
pub(super) fn registers<S: Station>(station: &mut S) -> Checked {
    let config = station.config();
    let mut platform = station.open().map_err(Stop::Closed)?;
    let driver = driver_of(&platform)?;
    let result = match driver {
        Driver::E1000e => E1000e::check_registers(&mut platform, &config.for_e1000e()),
        Driver::Ixgbe => Ixgbe::check_registers(&mut platform, &config.for_ixgbe()),
        Driver::Virtio => VirtioNet::check_registers(&mut platform),
    };
    match result {
        Ok(count) if driver == Driver::Virtio => Ok(format!(
            "{count} fields of the common configuration read as the specification has it"
        )),
        Ok(count) => Ok(format!("{count} registers hold what is written to them")),
        Err(RegisterError::Wrong(wrong)) => fault(
            format!("{wrong}"),
            format!("register {}", wrong.name),
            "the device is damaged, or not the one that its PCI ids say: report it",
        ),
        Err(error) => closed(&error),
    }
}

/// The EEPROM's words sum up to what they must.
pub(super) fn eeprom<S: Station>(station: &mut S) -> Checked {
    let config = station.config();
    let mut platform = station.open().map_err(Stop::Closed)?;
    let result = match driver_of(&platform)? {
        Driver::E1000e => E1000e::check_eeprom(&mut platform, &config.for_e1000e()),
        Driver::Ixgbe => Ixgbe::check_eeprom(&mut platform, &config.for_ixgbe()),
        Driver::Virtio => return not_run("a virtio device has no EEPROM"),
    };
    match result {
        Ok(()) => Ok("all words that count sum to 0xbaba".into()),
        Err(error @ NicError::EepromChecksum { .. }) => fault(
            format!("{error}"),
            "EEPROM, words 0x00 to 0x3f and what they point at",
            "read it with `ethtool -e` and compare with one of the same model; the maker's tool \
             writes it anew",
        ),
        Err(error) => closed(&error),
    }
}

fn closed<T>(error: &impl fmt::Display) -> Result<T, Stop> {
    Err(Stop::Closed(format!("the driver says: {error}")))
}
