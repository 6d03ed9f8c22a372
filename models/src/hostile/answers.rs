//! What the lies make of a register and of configuration space, where that is the same for all.

use super::{Liar, Lie, Lies};
use crate::intel::pci::{Layout, TRANSACTIONS_PENDING};

/// The lies that configuration space can tell at `at`.
pub(crate) fn lies_of_config(layout: &Layout, at: u16) -> Lies {
    let lies = Lies::only(Lie::ConfigAllOnes);
    let at = at & !3;
    match at {
        0 => lies.with(Lie::IdChanged),
        0x34 => lies.with(Lie::CapabilityLoop),
        at if at == layout.pm || at == layout.pcie || at == layout.msix => {
            lies.with(Lie::CapabilityLoop).with(Lie::CapabilityNonsense)
        }
        at if at == layout.device_control() => lies
            .with(Lie::CapabilityNonsense)
            .with(Lie::TransactionsPending),
        0x40..=0xfc => lies.with(Lie::CapabilityNonsense),
        _ => lies,
    }
}

impl Liar {
    /// What a register reads that would honestly read `value`: by `lie`, with `nonsense` of its
    /// own form.
    pub(crate) fn distort(
        &mut self,
        lie: Option<Lie>,
        value: u32,
        nonsense: impl FnOnce(&mut Self) -> u32,
    ) -> u32 {
        match lie {
            Some(Lie::RegisterRandom) => self.source.word(),
            Some(Lie::RegisterBitFlip) => {
                let flips = 1 + self.source.choose(3);
                (0..flips).fold(value, |value, _| value ^ 1 << self.source.choose(32))
            }
            Some(Lie::RegisterNonsense) => nonsense(self),
            Some(Lie::RingIndex) => match self.source.choose(4) {
                0 => u32::MAX,
                1 => value.wrapping_add(1),
                2 => u32::from(self.source.half()),
                _ => self.source.word(),
            },
            _ => value,
        }
    }

    /// What configuration space reads at `at`, where an honest device would say `value`.
    pub(crate) fn config(&mut self, layout: &Layout, lie: Option<Lie>, at: u16, value: u32) -> u32 {
        if self.is_gone() || self.lasts(Lie::ConfigAllOnes) {
            return u32::MAX;
        }
        let is_status = at & !3 == layout.device_control();
        let value = if is_status && self.lasts(Lie::NeverQuiet) {
            value | TRANSACTIONS_PENDING
        } else {
            value
        };
        match lie {
            Some(Lie::CapabilityLoop) => self.looped(layout, at, value),
            Some(Lie::IdChanged | Lie::CapabilityNonsense) => self.source.word(),
            Some(Lie::TransactionsPending) => value ^ TRANSACTIONS_PENDING,
            _ => value,
        }
    }

    /// The word at `at` with the pointer in it changed: to itself, to another capability, to
    /// anything.
    fn looped(&mut self, layout: &Layout, at: u16, value: u32) -> u32 {
        let target = match self.source.choose(4) {
            0 => u32::from(at & 0xfc),
            1 => u32::from(layout.pm),
            2 => u32::from(layout.pcie),
            _ => u32::from(self.source.byte()),
        };
        if at & !3 == 0x34 {
            value & !0xff | target
        } else {
            value & !0xff00 | target << 8
        }
    }
}
