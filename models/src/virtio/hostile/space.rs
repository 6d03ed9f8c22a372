//! Lies in what configuration space reads.

use super::liar::{Liar, Moment};
use super::lies::{Lie, Lies};
use crate::virtio::pci::{BAR4_LEN, Part};

/// The lies that a part of configuration space can tell.
pub(super) fn lies_of(part: Part) -> Lies {
    let lies = Lies::only(Lie::ConfigAllOnes);
    match part {
        Part::Id => lies.with(Lie::IdChanged),
        Part::Pointer => lies.with(Lie::CapabilityLoop),
        Part::Head => lies
            .with(Lie::CapabilityLoop)
            .with(Lie::CapabilityMissing)
            .with(Lie::CapabilityShort)
            .with(Lie::CapabilityNonsense),
        Part::Bar => lies.with(Lie::CapabilityBar).with(Lie::CapabilityNonsense),
        Part::Offset => lies
            .with(Lie::CapabilityOffset)
            .with(Lie::CapabilityNonsense),
        Part::Length => lies
            .with(Lie::CapabilityLength)
            .with(Lie::CapabilityNonsense),
        Part::Multiplier => lies
            .with(Lie::NotifyMultiplier)
            .with(Lie::CapabilityNonsense),
        Part::Other => lies,
    }
}

impl Liar {
    /// What `part` of configuration space, at `at`, reads, where an honest device would say
    /// `value`.
    pub(in super::super) fn config(&mut self, part: Part, at: u16, value: u32) -> u32 {
        let lie = self.turn(Moment::ConfigRead(part));
        if self.is_gone() || self.lasts(Lie::ConfigAllOnes) {
            return u32::MAX;
        }
        let random = self.source.has_more() && lie.is_some();
        let random = if random { self.source.word() } else { 0 };
        let source = &mut self.source;
        match lie {
            // 0x1000 is the transitional device, which may have no modern interface.
            Some(Lie::IdChanged) => source.pick(&[0x1000_1af4, 0x1042_1af4, 0, random]),
            Some(Lie::CapabilityLoop) => looped(part, value, at, random),
            Some(Lie::CapabilityMissing) => match source.choose(3) {
                0 => value & !0xff | 0x01,
                1 => value & 0x00ff_ffff,
                _ => value & 0x00ff_ffff | random & 0xff00_0000,
            },
            Some(Lie::CapabilityShort) => {
                value & !0x00ff_0000 | source.pick(&[0, 1, 4, 15, 16, 255]) << 16
            }
            Some(Lie::CapabilityBar) => value & !0xff | source.pick(&[0, 1, 2, 5, 6, 7, 0xff]),
            Some(Lie::CapabilityOffset) => source.pick(&[
                BAR4_LEN,
                BAR4_LEN - 1,
                value.wrapping_add(1),
                value.wrapping_add(2),
                u32::MAX,
                u32::MAX - 63,
                random,
            ]),
            Some(Lie::CapabilityLength) => {
                source.pick(&[0, 1, value.wrapping_sub(1), BAR4_LEN + 1, u32::MAX, random])
            }
            Some(Lie::NotifyMultiplier) => source.pick(&[0, 1, 2, 3, 1 << 31, u32::MAX, random]),
            Some(Lie::CapabilityNonsense) => random,
            _ => value,
        }
    }
}

/// The word with the pointer in it changed: to itself, to anything, to a word that is no
/// capability.
fn looped(part: Part, value: u32, at: u16, random: u32) -> u32 {
    let target = match random & 3 {
        0 => u32::from(at & 0xfc),
        1 => 0x40,
        2 => 0,
        _ => random >> 24,
    };
    if part == Part::Pointer {
        value & !0xff | target
    } else {
        value & !0xff00 | target << 8
    }
}
