//! What a self-test asks of the device beyond sending and receiving: registers and EEPROM before it
//! is opened, loopback and interrupts without a cause afterwards.

use pagewire_hal::driver::{RegisterError, StoringRegisters, check_storing};
use pagewire_hal::{NicError, Platform, pci};

use crate::bits::{Autoc, Hlreg0, MACC_FORCE_LINK};
use crate::config::Config;
use crate::ids::{self, Family};
use crate::regs::{self, AUTOC, HLREG0, MACC, TABLE_WORDS};
use crate::reset::{self, State};
use crate::{Ixgbe, eeprom, interrupts, link, port};

/// Registers that hold what is written to them while the device is stopped. Which, and which of
/// their bits: Linux ixgbe `reg_test_82599`, of which those are left out that switch something on;
/// of thresholds and receive addresses only bits that the machine-readable map has, too.
const STORING: [StoringRegisters; 11] = [
    StoringRegisters::array("FCRTL", 0x3220, 8, 4, 0x8007_FFE0),
    StoringRegisters::array("FCRTH", 0x3260, 8, 4, 0x8007_FFE0),
    StoringRegisters::array("RDBAL", 0x1000, 4, 0x40, 0xFFFF_FF80),
    StoringRegisters::array("RDBAH", 0x1004, 4, 0x40, u32::MAX),
    StoringRegisters::array("RDLEN", 0x1008, 4, 0x40, 0x000F_FF80),
    StoringRegisters::array("TDBAL", 0x6000, 4, 0x40, 0xFFFF_FF80),
    StoringRegisters::array("TDBAH", 0x6004, 4, 0x40, u32::MAX),
    StoringRegisters::array("TDLEN", 0x6008, 4, 0x40, 0x000F_FF80),
    StoringRegisters::array("MTA", 0x5200, TABLE_WORDS, 4, u32::MAX),
    // Not the first one, which is the station address.
    StoringRegisters::array("RAL", 0x5408, 15, 8, u32::MAX),
    StoringRegisters::array("RAH", 0x540C, 15, 8, 0x8000_FFFF),
];

impl<P: Platform> Ixgbe<P> {
    /// Before the device is opened: resets it and checks that its registers hold what is written
    /// to them; the number of registers. It is left as after a reset, but for these, in which there
    /// are zeros: [`open`](Self::open) resets it again.
    ///
    /// # Errors
    /// The first register that is wrong, or what the reset said.
    pub fn check_registers(platform: &mut P, config: &Config) -> Result<u32, RegisterError> {
        let (raw, _) = stop(platform, config)?;
        if !pci::is_bus_mastering_off(platform) {
            return Err(NicError::NotQuiet.into());
        }
        // SAFETY: bus mastering is off, and `open`, the only one to switch it on, resets the device
        // before it does.
        Ok(unsafe { check_storing(&raw, &STORING) }?)
    }

    /// Before the device is opened: resets it and checks the checksum of its EEPROM, as
    /// [`open`](Self::open) does as well.
    ///
    /// # Errors
    /// [`NicError::EepromChecksum`], or what the reset and the reading said.
    pub fn check_eeprom(platform: &mut P, config: &Config) -> Result<(), NicError> {
        let family = ids::identify(platform, config.allow_untested)?.family;
        let (_, registers) = stop(platform, config)?;
        eeprom::verify(platform, &registers, family)
    }

    /// Lets what is transmitted come back from the MAC, while nothing leaves and the link is forced;
    /// or ends that. A reset ends it as well.
    ///
    /// Source: Linux `ixgbe_setup_loopback_test`.
    pub fn set_loopback(&mut self, on: bool) {
        if self.state != State::Running {
            return;
        }
        let registers = &self.registers;
        let bits = |bits: u32| if on { (0, bits) } else { (bits, 0) };
        let (clear, set) = bits(Hlreg0::LPBK.bits());
        registers.change(HLREG0, clear, set);
        match self.info.family {
            Family::I82599 => {
                let (clear, set) = bits(Autoc::FORCE_LINK.bits());
                registers.change(AUTOC, clear, set);
            }
            Family::X540 => {
                let (clear, set) = bits(MACC_FORCE_LINK);
                registers.change(MACC, clear, set);
            }
        }
        if !on {
            link::start(registers, self.info);
        }
    }

    /// Makes MSI-X vector `vector` fire as if its cause had come up (EICS). Nothing, if there is no
    /// such vector or interrupts are off.
    pub fn fire_vector(&mut self, vector: u16) {
        if self.vectors.is_some_and(|all| vector < all.count()) && self.state == State::Running {
            interrupts::fire(&self.registers, vector);
        }
    }
}

/// Stops and resets the device; its registers, raw and by name.
fn stop<P: Platform>(
    platform: &mut P,
    config: &Config,
) -> Result<(P::Registers, regs::Bar<P::Registers>), NicError> {
    let info = ids::identify(platform, config.allow_untested)?;
    pci::enable_memory(platform);
    let raw = platform.map_bar(0)?;
    let registers = regs::bar(raw.clone());
    let result = if registers.is_gone() {
        Err(NicError::Removed)
    } else {
        let (port, pcie) = (port(&registers), pci::find_pcie(platform));
        reset::run(platform, &registers, info.family, port, pcie)
    };
    match result {
        Err(_) if registers.is_gone() => Err(NicError::Removed),
        Err(error) => Err(error),
        Ok(()) => Ok((raw, registers)),
    }
}
