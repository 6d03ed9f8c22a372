//! Lies in what registers read.

use super::liar::{Liar, Moment, Request};
use super::lies::{Lie, Lies};
use crate::virtio::bits::NO_VECTOR;
use crate::virtio::common::{Field, field};
use crate::virtio::pci::{BAR4_LEN, DEVICE, MULTIPLIER, NOTIFY};

/// The lies that the register at `at` of BAR `bar` can tell beside those that all can.
pub(super) fn lies_of(bar: u8, at: u32) -> Lies {
    if bar != 4 {
        return Lies::none();
    }
    let lie = match at.checked_sub(DEVICE) {
        Some(0..6) => Some(Lie::MacNonsense),
        Some(8) => Some(Lie::PairsNonsense),
        Some(10) => Some(Lie::MtuNonsense),
        Some(_) => None,
        None => field(at).and_then(|(field, _)| lie_of(field)),
    };
    lie.map_or(Lies::none(), Lies::only)
}

fn lie_of(field: Field) -> Option<Lie> {
    Some(match field {
        Field::DeviceFeature => Lie::FeaturesChanged,
        Field::Status => Lie::StatusForgotten,
        Field::Generation => Lie::GenerationUnsettled,
        Field::QueueCount => Lie::QueueCount,
        Field::QueueSize => Lie::QueueSize,
        Field::NotifyOffset => Lie::NotifyOffset,
        Field::ConfigVector | Field::QueueVector => Lie::VectorRefused,
        Field::QueueEnable => Lie::EnableWrong,
        _ => return None,
    })
}

impl Liar {
    /// What the register of `width` bytes at `at` of BAR `bar` reads, where an honest device
    /// would say `value`.
    pub(in super::super) fn register(&mut self, bar: u8, at: u32, width: u32, value: u32) -> u32 {
        let mask = u32::MAX >> (32 - 8 * width.clamp(1, 4));
        let lie = self.turn(Moment::RegisterRead(bar, at));
        if self.is_gone() || self.lasts(Lie::RegisterAllOnes) {
            return mask;
        }
        let value = if bar == 4 {
            self.lasting(at, value)
        } else {
            value
        };
        let shown = match lie {
            Some(Lie::RegisterRandom) => self.source.word(),
            Some(Lie::RegisterBitFlip) => {
                let flips = 1 + self.source.choose(3);
                (0..flips).fold(value, |value, _| {
                    value ^ 1 << self.source.choose(8 * width as usize)
                })
            }
            Some(lie) => self.nonsense(lie, value),
            None => value,
        };
        shown & mask
    }

    /// What the lies that last make of `value`.
    fn lasting(&mut self, at: u32, value: u32) -> u32 {
        if let Some(index @ 0..6) = at.checked_sub(DEVICE)
            && self.lasts(Lie::MacNonsense)
        {
            return self.mac.get(index as usize).copied().unwrap_or(0).into();
        }
        match field(at) {
            Some((Field::Status, _)) => {
                let mut status = if self.feigns_reset { 0 } else { value };
                if self.lasts(Lie::ResetNeverEnds) {
                    status |= 1;
                }
                if self.lasts(Lie::StatusForgotten) {
                    status &= !u32::from(self.forgotten);
                }
                status
            }
            Some((Field::Generation, _)) if self.lasts(Lie::GenerationUnsettled) => {
                value.wrapping_add(1 + u32::from(self.source.byte() & 0x7f))
            }
            Some((Field::QueueReset, _)) if self.lasts(Lie::QueueResetNeverEnds) => 1,
            _ => value,
        }
    }

    /// A value with the form of the register that `lie` is about.
    fn nonsense(&mut self, lie: Lie, value: u32) -> u32 {
        let random = u32::from(self.source.half());
        let source = &mut self.source;
        match lie {
            // Bit 0 of the upper half is VERSION_1, all else is an offer.
            Lie::FeaturesChanged => source.pick(&[0, u32::MAX, value & !1, !value, random]),
            Lie::QueueCount => source.pick(&[0, 1, 2, u32::from(u16::MAX)]),
            Lie::QueueSize => source.pick(&[
                0,
                3,
                0x8000,
                0xffff,
                value.wrapping_mul(2),
                value / 2,
                random,
            ]),
            Lie::NotifyOffset => {
                let beyond = (BAR4_LEN - NOTIFY) / MULTIPLIER;
                source.pick(&[0xffff, beyond, value.wrapping_add(1), value ^ 1, random])
            }
            Lie::VectorRefused => NO_VECTOR.into(),
            Lie::EnableWrong => value ^ 1,
            Lie::PairsNonsense => {
                source.pick(&[0, 0x8001, 0xffff, 0x8000, value.wrapping_add(1), random])
            }
            Lie::MtuNonsense => source.pick(&[0, 67, 68, 0xffff, random]),
            // Those that last have had their say.
            _ => value,
        }
    }

    /// Whether a register write is lost on its way.
    pub(in super::super) fn loses_write(&mut self, request: Request) -> bool {
        match self.turn(Moment::RegisterWrite(request)) {
            Some(Lie::WriteLost) => true,
            Some(Lie::ResetClearsNothing) => {
                self.feigns_reset = true;
                true
            }
            _ => false,
        }
    }

    /// Whether the device must be reset after all, as the status is written again.
    pub(in super::super) fn stops_feigning(&mut self) -> bool {
        std::mem::take(&mut self.feigns_reset)
    }
}
