//! The SFP+ module in the cage: what it is, read over two wires that are driven bit by bit.
//!
//! Sources: Linux and DPDK ixgbe (`ixgbe_phy.c`, `ixgbe_phy.h`) for the register and the times;
//! SFF-8472 by the same for the bytes, names in brackets without their `IXGBE_`. A module that
//! holds the clock down is waited for, up to 500 µs as in both. One that holds it longer is misread,
//! and asked again only if it did not acknowledge. Nobody has tried this on hardware.

use core::time::Duration;

use pagewire_hal::{NicError, Platform, Registers};

use crate::bits::{Esdp, I2c, Status};
use crate::ids::Family;
use crate::regs::{Bar, ESDP, I2CCTL, STATUS};
use crate::semaphore::{self, Resource};

/// Address of the module's identification, with the bit for a read clear (`I2C_EEPROM_DEV_ADDR`).
const MODULE: u8 = 0xA0;
/// Byte 0: what kind of module it is (`SFF_IDENTIFIER`).
const IDENTIFIER: u8 = 0x00;
/// An SFP or SFP+ module (`SFF_IDENTIFIER_SFP`).
const IDENTIFIER_SFP: u8 = 0x03;
/// Byte 3: what it does at 10 Gbit/s (`SFF_10GBE_COMP_CODES`).
const COMPLIANCE_10G: u8 = 0x03;
/// 10GBASE-SR or 10GBASE-LR (`SFF_10GBASESR_CAPABLE`, `SFF_10GBASELR_CAPABLE`).
const SHORT_OR_LONG_REACH: u8 = 0x30;
/// Byte 8: whether it is a cable with both ends (`SFF_CABLE_TECHNOLOGY`).
const CABLE: u8 = 0x08;
/// A passive or an active cable (`SFF_DA_PASSIVE_CABLE`, `SFF_DA_ACTIVE_CABLE`).
const PASSIVE_OR_ACTIVE: u8 = 0x0C;
/// Half a period of the clock. The standard mode of I2C has 4.7 µs at least for the low half and 4
/// for the high one (`I2C_T_LOW`, `I2C_T_HIGH`).
const HALF_PERIOD: Duration = Duration::from_micros(5);
/// How often it is looked whether the module has let the clock go, a microsecond apart (Linux:
/// `IXGBE_I2C_CLOCK_STRETCHING_TIMEOUT`).
const STRETCH_LOOKS: u32 = 500;
/// How often a module that does not answer is asked (Linux: three times).
const TRIES: u32 = 3;

/// Identifies the module.
///
/// # Errors
/// [`NicError::NotOffered`]: there is no module, or none for 10 Gbit/s.
pub(crate) fn check<P: Platform>(
    platform: &P,
    registers: &Bar<P::Registers>,
) -> Result<(), NicError> {
    let port_1 = registers.read(STATUS) & Status::LAN_1.bits() != 0;
    let wires = if port_1 {
        Resource::Phy1
    } else {
        Resource::Phy0
    };
    semaphore::take(platform, registers, Family::I82599, wires)?;
    let found = identify(platform, registers);
    semaphore::put(registers, Family::I82599, wires);
    found
}

/// Switches the module's laser on: at each start, as the pins may be as the EEPROM has them after a
/// reset (Linux does so as well).
pub(crate) fn switch_on<R: Registers>(registers: &Bar<R>) {
    registers.change(ESDP, Esdp::LASER_OFF.bits(), 0);
}

fn identify<P: Platform>(platform: &P, registers: &Bar<P::Registers>) -> Result<(), NicError> {
    const NO_MODULE: NicError = NicError::NotOffered {
        what: "SFP+ module in its cage",
    };
    let bus = Bus {
        platform,
        registers,
    };
    if bus.read(IDENTIFIER).ok_or(NO_MODULE)? != IDENTIFIER_SFP {
        return Err(NO_MODULE);
    }
    let optical = bus.read(COMPLIANCE_10G).ok_or(NO_MODULE)? & SHORT_OR_LONG_REACH != 0;
    let cable = bus.read(CABLE).ok_or(NO_MODULE)? & PASSIVE_OR_ACTIVE != 0;
    if optical || cable {
        Ok(())
    } else {
        Err(NicError::NotOffered {
            what: "SFP+ module for 10 Gbit/s in its cage",
        })
    }
}

/// The two wires.
struct Bus<'a, P: Platform> {
    platform: &'a P,
    registers: &'a Bar<P::Registers>,
}

impl<P: Platform> Bus<'_, P> {
    /// Byte `offset` of the module; `None` if it does not answer.
    fn read(&self, offset: u8) -> Option<u8> {
        (0..TRIES).find_map(|_| {
            let byte = self.try_read(offset);
            self.stop();
            byte
        })
    }

    fn try_read(&self, offset: u8) -> Option<u8> {
        self.start();
        let named = self.send(MODULE) && self.send(offset);
        // Started again, now to read.
        self.start();
        let answers = named && self.send(MODULE | 1);
        answers.then(|| self.receive())
    }

    /// Sets both wires: a wire that is let go is high, unless the module holds it down, as it may
    /// the clock while it is not ready. Each takes half a period.
    fn drive(&self, clock: bool, data: bool) {
        let mut set = I2c::empty();
        set.set(I2c::CLOCK_OUT, clock);
        set.set(I2c::DATA_OUT, data);
        let both = I2c::CLOCK_OUT | I2c::DATA_OUT;
        self.registers.change(I2CCTL, both.bits(), set.bits());
        // Posted writes arrive before a read returns: without it the time between two of them may
        // be less than was waited (specification update of the 82599, software clarification 3).
        self.registers.read(STATUS);
        if clock {
            self.await_clock();
        }
        self.platform.wait(HALF_PERIOD);
    }

    /// A module that holds the clock down for longer is not waited for: what is read then is wrong,
    /// or not acknowledged.
    fn await_clock(&self) {
        for _ in 0..STRETCH_LOOKS {
            if self.registers.read(I2CCTL) & I2c::CLOCK_IN.bits() != 0 {
                return;
            }
            self.platform.wait(Duration::from_micros(1));
        }
    }

    /// Data falls while the clock is high.
    fn start(&self) {
        self.drive(false, true);
        self.drive(true, true);
        self.drive(true, false);
        self.drive(false, false);
    }

    /// Data rises while the clock is high.
    fn stop(&self) {
        self.drive(false, false);
        self.drive(true, false);
        self.drive(true, true);
    }

    /// One bit out and what was on the wire meanwhile; letting go is a read.
    fn bit(&self, data: bool) -> bool {
        self.drive(false, data);
        self.drive(true, data);
        let seen = self.registers.read(I2CCTL) & I2c::DATA_IN.bits() != 0;
        self.drive(false, data);
        seen
    }

    /// One byte out; whether the module has acknowledged it by pulling data down.
    fn send(&self, byte: u8) -> bool {
        for n in (0..8).rev() {
            self.bit(byte >> n & 1 != 0);
        }
        !self.bit(true)
    }

    /// One byte in, the last one: not acknowledged.
    fn receive(&self) -> u8 {
        let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.bit(true)));
        self.bit(true);
        byte
    }
}
