//! What a self-test asks of the device beyond sending and receiving: registers and EEPROM before it
//! is opened, loopback and interrupts without a cause afterwards.

use pagewire_hal::driver::{RegisterError, StoringRegisters, check_storing};
use pagewire_hal::{NicError, Platform, pci};

use crate::config::Config;
use crate::regs::{self, CTRL, Ctrl, MTA_WORDS, RCTL, RECEIVE_ADDRESSES, Rctl};
use crate::reset::State;
use crate::{E1000e, eeprom, ids, init, interrupts, link};

/// Registers that hold what is written to them while the device is stopped. Which, and which of
/// their bits: Linux e1000e `e1000_reg_test`, of which those are left out that switch something on.
const STORING: [StoringRegisters; 15] = [
    StoringRegisters::one("FCAL", 0x0028, u32::MAX),
    StoringRegisters::one("FCAH", 0x002C, 0xFFFF),
    StoringRegisters::one("FCT", 0x0030, 0xFFFF),
    StoringRegisters::one("FCTTV", 0x0170, 0xFFFF),
    StoringRegisters::one("TIPG", 0x0410, 0x3FFF_FFFF),
    StoringRegisters::one("FCRTH", 0x2168, 0xFFF8),
    StoringRegisters::one("RDBAL", 0x2800, 0xFFFF_FFF0),
    StoringRegisters::one("RDBAH", 0x2804, u32::MAX),
    StoringRegisters::one("RDLEN", 0x2808, 0x000F_FF80),
    StoringRegisters::one("TDBAL", 0x3800, 0xFFFF_FFF0),
    StoringRegisters::one("TDBAH", 0x3804, u32::MAX),
    StoringRegisters::one("TDLEN", 0x3808, 0x000F_FF80),
    StoringRegisters::array("MTA", 0x5200, MTA_WORDS, 4, u32::MAX),
    // Not the first one, which is the station address.
    StoringRegisters::array("RAL", 0x5408, RECEIVE_ADDRESSES - 1, 8, u32::MAX),
    StoringRegisters::array("RAH", 0x540C, RECEIVE_ADDRESSES - 1, 8, 0x8003_FFFF),
];

impl<P: Platform> E1000e<P> {
    /// Before the device is opened: resets it and checks that its registers hold what is written
    /// to them; the number of registers. It is left as after a reset, but for these, in which there
    /// are zeros: [`open`](Self::open) resets it again.
    ///
    /// # Errors
    /// The first register that is wrong, or what the reset said.
    pub fn check_registers(platform: &mut P, config: &Config) -> Result<u32, RegisterError> {
        let (registers, _) = stop(platform, config)?;
        if !pci::is_bus_mastering_off(platform) {
            return Err(NicError::NotQuiet.into());
        }
        // SAFETY: bus mastering is off, and `open`, the only one to switch it on, resets the device
        // before it does.
        Ok(unsafe { check_storing(&registers, &STORING) }?)
    }

    /// Before the device is opened: resets it and checks the checksum of its EEPROM, as
    /// [`open`](Self::open) does as well.
    ///
    /// # Errors
    /// [`NicError::EepromChecksum`], or what the reset and the reading said.
    pub fn check_eeprom(platform: &mut P, config: &Config) -> Result<(), NicError> {
        let (_, bar) = stop(platform, config)?;
        eeprom::verify(platform, &bar)
    }

    /// Lets what is transmitted come back from the MAC, while nothing leaves and the link is forced;
    /// or ends that. A reset ends it as well.
    ///
    /// Source: 8254x manual 13.4.22 for the bits, QEMU's device follows them. Linux e1000e sends the
    /// frames through the PHY instead (`e1000_integrated_phy_loopback`); what the 82574 itself does
    /// here nobody of this project has seen.
    pub fn set_loopback(&mut self, on: bool) {
        if self.state != State::Running {
            return;
        }
        let looped = if on { Rctl::LBM_MAC } else { Rctl::empty() };
        self.registers.change(RCTL, Rctl::LBM.bits(), looped.bits());
        if on {
            let forced = Ctrl::SLU | Ctrl::FRCSPD | Ctrl::FRCDPX | Ctrl::SPEED_1000 | Ctrl::FD;
            self.registers
                .change(CTRL, Ctrl::SPEED.bits(), forced.bits());
        } else {
            link::set_up(&self.registers);
        }
    }

    /// Makes MSI-X vector `vector` fire as if its causes had come up (ICS). Nothing, if there is no
    /// such vector or interrupts are off.
    pub fn fire_vector(&mut self, vector: u16) {
        if let Some(vectors) = self.vectors
            && self.state == State::Running
            && vector < vectors.count()
        {
            interrupts::fire(&self.registers, vectors, vector);
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
        init::reset(platform, &registers, info.family, config)
    };
    match result {
        Err(_) if registers.is_gone() => Err(NicError::Removed),
        Err(error) => Err(error),
        Ok(()) => Ok((raw, registers)),
    }
}
