//! Lies in what registers and configuration space read.

use super::super::bits::{
    PATH_READY, cause, ctrl, dctl, eec, eerd, links, offset, rdrxctl, status, swsm,
};
use super::super::pci::{self, TRANSACTIONS_PENDING};
use super::super::registers::{Register, RingRegister};
use super::{Liar, Lie, Lies};

/// The lies that the register of BAR 0 at `at` can tell beside those that all can.
pub(super) fn lies_of(at: u32) -> Lies {
    const NONSENSE: Lies = Lies::only(Lie::RegisterNonsense);
    const NEVER: Lies = Lies::only(Lie::ReadyNever);
    match Register::at(at) {
        Some(
            Register::Status
            | Register::Links
            | Register::Eicr
            | Register::Statistic
            | Register::StatisticLow
            | Register::StatisticHigh,
        ) => NONSENSE,
        Some(Register::Eerd) => NONSENSE.with(Lie::ReadyNever).with(Lie::ReadyAtOnce),
        Some(Register::Ring(_, RingRegister::Control)) => NEVER.with(Lie::ReadyAtOnce),
        Some(Register::Ring(_, RingRegister::Head | RingRegister::Tail)) => {
            Lies::only(Lie::RingIndex)
        }
        Some(_) if ready_bits(at) != 0 => NEVER,
        _ => Lies::none(),
    }
}

/// The bits of a register that say "ready" or "yours".
fn ready_bits(at: u32) -> u32 {
    match Register::at(at) {
        Some(Register::Eerd) => eerd::DONE,
        Some(Register::Eec) => eec::AUTO_RD,
        Some(Register::Rdrxctl) => rdrxctl::DMAIDONE,
        Some(Register::SecrxStatus | Register::SectxStatus) => PATH_READY,
        Some(Register::Swsm) => swsm::SWESMBI,
        Some(Register::Ring(_, RingRegister::Control)) => dctl::ENABLE,
        _ => 0,
    }
}

/// What the register at `at` of BAR 0 (or one of another BAR) reads, where an honest device would
/// say `value`.
pub(super) fn register(liar: &mut Liar, lie: Option<Lie>, at: Option<u32>, value: u32) -> u32 {
    if liar.lasts(Lie::RegisterAllOnes) {
        return u32::MAX;
    }
    let value = at.map_or(value, |at| lasting(liar, at, value));
    match lie {
        Some(Lie::RegisterRandom) => liar.source.word(),
        Some(Lie::RegisterBitFlip) => {
            let flips = 1 + liar.source.choose(3);
            (0..flips).fold(value, |value, _| value ^ 1 << liar.source.choose(32))
        }
        Some(Lie::RegisterNonsense) => nonsense(liar, at.unwrap_or(0), value),
        Some(Lie::RingIndex) => match liar.source.choose(4) {
            0 => u32::MAX,
            1 => value.wrapping_add(1),
            2 => u32::from(liar.source.half()),
            _ => liar.source.word(),
        },
        _ => value,
    }
}

/// What the lies that last make of `value`.
fn lasting(liar: &Liar, at: u32, value: u32) -> u32 {
    let mut value = value;
    let hurries = matches!(
        Register::at(at),
        Some(Register::Eerd | Register::Ring(_, RingRegister::Control))
    );
    if liar.lasts(Lie::ReadyNever) {
        value &= !ready_bits(at);
    } else if liar.lasts(Lie::ReadyAtOnce) && hurries {
        value |= ready_bits(at);
    }
    match at {
        offset::CTRL if liar.lasts(Lie::ResetNeverClears) => value | ctrl::RST,
        offset::STATUS if liar.lasts(Lie::NeverQuiet) => value | status::MASTER_ENABLE,
        _ => value,
    }
}

/// A value with the form of the register at `at`.
fn nonsense(liar: &mut Liar, at: u32, value: u32) -> u32 {
    let data = u32::from(liar.source.half());
    match at {
        offset::STATUS => value ^ data & 0x00ff ^ (data & 0x0100) << 11,
        offset::LINKS => data << 16 & (links::UP | links::SPEED_10G) | data,
        offset::EICR => cause::QUEUES | cause::OTHERS,
        offset::EERD => value & 0xffff | eerd::DONE | data << eerd::DATA_SHIFT,
        _ => u32::MAX - (data & 0xf),
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

/// What configuration space reads at `at`, where an honest device would say `value`.
pub(super) fn config(liar: &mut Liar, lie: Option<Lie>, at: u16, value: u32) -> u32 {
    if liar.is_gone() || liar.lasts(Lie::ConfigAllOnes) {
        return u32::MAX;
    }
    let is_status = at & !3 == pci::DEVICE_CONTROL;
    let value = if is_status && liar.lasts(Lie::NeverQuiet) {
        value | TRANSACTIONS_PENDING
    } else {
        value
    };
    match lie {
        Some(Lie::CapabilityLoop) => looped(liar, at, value),
        Some(Lie::IdChanged | Lie::CapabilityNonsense) => liar.source.word(),
        Some(Lie::TransactionsPending) => value ^ TRANSACTIONS_PENDING,
        _ => value,
    }
}

/// The word at `at` with the pointer in it changed: to itself, to another capability, to anything.
fn looped(liar: &mut Liar, at: u16, value: u32) -> u32 {
    let target = match liar.source.choose(4) {
        0 => u32::from(at & 0xfc),
        1 => u32::from(pci::PM),
        2 => u32::from(pci::PCIE),
        _ => u32::from(liar.source.byte()),
    };
    if at & !3 == 0x34 {
        value & !0xff | target
    } else {
        value & !0xff00 | target << 8
    }
}
