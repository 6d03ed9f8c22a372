//! Lies in what registers and configuration space read.

use super::super::bits::{
    PATH_READY, cause, ctrl, dctl, eec, eerd, links, offset, rdrxctl, status, swsm,
};
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
    liar.distort(lie, value, |liar| nonsense(liar, at.unwrap_or(0), value))
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
