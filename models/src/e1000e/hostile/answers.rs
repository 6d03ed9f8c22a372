//! Lies in what registers and configuration space read.

use super::super::bits::{cause, ctrl, eecd, eerd, mdic, offset, status};
use super::super::control::{CFG_DONE, MDIO_SW_OWNERSHIP, SWESMBI};
use super::super::pci::{self, TRANSACTIONS_PENDING};
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

/// The lies that configuration space can tell at `at`.
pub(super) fn lies_of_config(at: u16) -> Lies {
    let lies = Lies::only(Lie::ConfigAllOnes);
    match at & !3 {
        0 => lies.with(Lie::IdChanged),
        0x34 => lies.with(Lie::CapabilityLoop),
        pci::PM | pci::PCIE | pci::MSIX => {
            lies.with(Lie::CapabilityLoop).with(Lie::CapabilityNonsense)
        }
        pci::DEVICE_CONTROL => lies
            .with(Lie::CapabilityNonsense)
            .with(Lie::TransactionsPending),
        0x40..=0xfc => lies.with(Lie::CapabilityNonsense),
        _ => lies,
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
        match lie {
            Some(Lie::RegisterRandom) => self.source.word(),
            Some(Lie::RegisterBitFlip) => {
                let flips = 1 + self.source.choose(3);
                (0..flips).fold(value, |value, _| value ^ 1 << self.source.choose(32))
            }
            Some(Lie::RegisterNonsense) => self.nonsense(at, value),
            Some(Lie::RingIndex) => match self.source.choose(4) {
                0 => u32::MAX,
                1 => value.wrapping_add(1),
                2 => u32::from(self.source.half()),
                _ => self.source.word(),
            },
            _ => value,
        }
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

    /// What configuration space reads at `at`, where an honest device would say `value`.
    pub(super) fn config(&mut self, lie: Option<Lie>, at: u16, value: u32) -> u32 {
        if self.is_gone() || self.lasts(Lie::ConfigAllOnes) {
            return u32::MAX;
        }
        let is_status = at & !3 == pci::DEVICE_CONTROL;
        let value = if is_status && self.lasts(Lie::NeverQuiet) {
            value | TRANSACTIONS_PENDING
        } else {
            value
        };
        match lie {
            Some(Lie::IdChanged) => self.source.word(),
            Some(Lie::CapabilityLoop) => self.looped(at, value),
            Some(Lie::CapabilityNonsense) => self.source.word(),
            Some(Lie::TransactionsPending) => value ^ TRANSACTIONS_PENDING,
            _ => value,
        }
    }

    /// The word at `at` with the pointer in it changed: to itself, to another capability, to
    /// anything.
    fn looped(&mut self, at: u16, value: u32) -> u32 {
        let own = u32::from(at & 0xfc);
        let target = match self.source.choose(4) {
            0 => own,
            1 => u32::from(pci::PM),
            2 => u32::from(pci::PCIE),
            _ => u32::from(self.source.byte()),
        };
        if at & !3 == 0x34 {
            value & !0xff | target
        } else {
            value & !0xff00 | target << 8
        }
    }
}
