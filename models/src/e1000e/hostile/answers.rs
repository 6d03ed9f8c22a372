//! Lies in what registers and configuration space read.

use super::super::bits::{cause, ctrl, eecd, eerd, mdic, offset, status};
use super::super::control::{CFG_DONE, MDIO_SW_OWNERSHIP, SWESMBI};
use super::super::registers::{Register, RingRegister};
use super::{Liar, Lie, Lies};

/// The lies that the register of BAR 0 at `at` can tell beside those that all can.
pub(super) fn lies_of(at: u32) -> Lies {
    const NONSENSE: Lies = Lies::only(Lie::RegisterNonsense);
    const NEVER: Lies = Lies::only(Lie::ReadyNever);
    match Register::at(at) {
        Some(Register::Status | Register::Icr | Register::Statistic) => NONSENSE,
        Some(Register::Eerd | Register::Mdic) => NONSENSE.or(NEVER).with(Lie::ReadyAtOnce),
        Some(Register::Eecd | Register::Swsm | Register::ExtcnfCtrl) => NEVER,
        Some(Register::Storage) if at == offset::EEMNGCTL => NEVER,
        Some(Register::Ring(_, RingRegister::Head | RingRegister::Tail)) => {
            Lies::only(Lie::RingIndex)
        }
        _ => Lies::none(),
    }
}

impl Liar {
    /// What the register at `at` of BAR `bar` reads, where an honest device would say `value`.
    pub(super) fn register(&mut self, lie: Option<Lie>, bar: u8, at: u32, value: u32) -> u32 {
        if self.lasts(Lie::RegisterAllOnes) {
            return u32::MAX;
        }
        let value = if bar == 0 {
            self.lasting_register(at, value)
        } else {
            value
        };
        self.distort(lie, value, |liar| liar.nonsense(at, value))
    }

    /// What the lies that last make of `value`.
    fn lasting_register(&self, at: u32, value: u32) -> u32 {
        let bits = |at| match at {
            offset::EERD => eerd::DONE,
            offset::MDIC => mdic::READY,
            offset::EECD => eecd::AUTO_RD,
            offset::EEMNGCTL => CFG_DONE,
            offset::SWSM => SWESMBI,
            offset::EXTCNF_CTRL => MDIO_SW_OWNERSHIP,
            _ => 0,
        };
        let mut value = value;
        if self.lasts(Lie::ReadyNever) {
            value &= !bits(at);
        } else if self.lasts(Lie::ReadyAtOnce) && matches!(at, offset::EERD | offset::MDIC) {
            value |= bits(at);
        }
        match at {
            offset::CTRL | offset::CTRL_DUP if self.lasts(Lie::ResetNeverClears) => {
                value | ctrl::RST
            }
            offset::STATUS if self.lasts(Lie::NeverQuiet) => value | status::GIO_MASTER_ENABLE,
            _ => value,
        }
    }

    /// A value with the form of the register at `at`.
    fn nonsense(&mut self, at: u32, value: u32) -> u32 {
        let data = u32::from(self.source.half());
        match at {
            // All the bits of its fields, not the device's own pattern of reserved ones.
            offset::STATUS => value ^ data & 0x07ff ^ (data & 0x0800) << 8,
            offset::ICR => cause::ALL | cause::INT_ASSERTED,
            offset::EERD => value & 0xffff | eerd::DONE | data << eerd::DATA_SHIFT,
            offset::MDIC if data & 1 != 0 => value | mdic::READY | mdic::ERROR,
            offset::MDIC => value & !mdic::DATA | data | mdic::READY,
            _ => u32::MAX - (data & 0xf),
        }
    }
}
