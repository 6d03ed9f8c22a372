//! Which lie is told when, and which ones last.

use super::known::Known;
use super::lies::{COUNT, Lie, LieCounters, Lies};
use super::source::Source;
use super::{Hostile, answers, space};
use crate::virtio::pci::Part;

/// A lie that lasts does so for up to two to the power of this, in accesses, steps and what else
/// [`Liar::turn`] counts.
const LONGEST: u32 = 15;

/// With a seed, lies in accesses are rarer by this: a driver makes some hundred of them before
/// anything happens in its rings.
const RARER_IN_ACCESSES: u32 = 4;

/// What a write to a register asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Request {
    /// Reset of the device.
    Reset,
    /// Another value of the status.
    Status,
    /// Reset of a queue.
    QueueReset,
    Other,
}

/// What is known of buffers that are to be marked as used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UsedKind {
    pub(super) packed: bool,
    pub(super) in_order: bool,
    /// The device wrote into them.
    pub(super) written: bool,
}

/// An opportunity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    /// BAR and offset.
    RegisterRead(u8, u32),
    RegisterWrite(Request),
    ConfigRead(Part),
    Step {
        quiet: bool,
    },
    Used(UsedKind),
    Header,
    Command,
    Interrupt,
}

const ANY_REGISTER: Lies = Lies::of(&[
    Lie::RegisterAllOnes,
    Lie::Removal,
    Lie::RegisterRandom,
    Lie::RegisterBitFlip,
]);
const ANY_STEP: Lies = Lies::of(&[
    Lie::Removal,
    Lie::NeedsReset,
    Lie::Stall,
    Lie::InterruptAtRandom,
    Lie::LinkFlap,
]);
/// Lies that a step tells in memory.
pub(super) const IN_MEMORY: Lies = Lies::of(&[
    Lie::UsedAtRandom,
    Lie::EventNonsense,
    Lie::ScribbleRing,
    Lie::ScribbleBuffer,
    Lie::WildWrite,
]);
const ANY_USED: Lies = Lies::of(&[
    Lie::IndexAhead,
    Lie::IndexBack,
    Lie::IdOutOfRange,
    Lie::IdNotOutstanding,
    Lie::UsedTwice,
    Lie::UsedLost,
    Lie::LengthTooLong,
]);
const ANY_HEADER: Lies = Lies::of(&[
    Lie::BuffersZero,
    Lie::BuffersMany,
    Lie::GsoTypeUnknown,
    Lie::GsoSizeNonsense,
    Lie::ChecksumPlace,
    Lie::HeaderLength,
    Lie::HeaderFlags,
    Lie::HeaderRandom,
]);
/// Lies that last.
const LASTING: Lies = Lies::of(&[
    Lie::ConfigAllOnes,
    Lie::RegisterAllOnes,
    Lie::Removal,
    Lie::StatusForgotten,
    Lie::ResetNeverEnds,
    Lie::QueueResetNeverEnds,
    Lie::GenerationUnsettled,
    Lie::MacNonsense,
    Lie::LinkFlap,
    Lie::Stall,
    Lie::InterruptLost,
]);
/// Lies that need what may not be there, and are counted when they are told.
const COUNTED_LATER: Lies = IN_MEMORY
    .or(ANY_USED)
    .with(Lie::LengthTooShort)
    .with(Lie::OrderBroken)
    .with(Lie::FlagsFlipped)
    .with(Lie::WriteWhileQuiet);

impl Moment {
    /// Whether it is the driver's doing.
    fn is_access(self) -> bool {
        matches!(
            self,
            Self::RegisterRead(..) | Self::RegisterWrite(_) | Self::ConfigRead(_)
        )
    }

    /// The lies that can be told now.
    fn lies(self) -> Lies {
        let lost = Lies::only(Lie::WriteLost);
        match self {
            Self::RegisterRead(bar, at) => ANY_REGISTER.or(answers::lies_of(bar, at)),
            Self::RegisterWrite(Request::Reset) => {
                lost.with(Lie::ResetNeverEnds).with(Lie::ResetClearsNothing)
            }
            Self::RegisterWrite(Request::QueueReset) => lost.with(Lie::QueueResetNeverEnds),
            Self::RegisterWrite(Request::Status | Request::Other) => lost,
            Self::ConfigRead(part) => space::lies_of(part),
            Self::Step { quiet: false } => ANY_STEP.or(IN_MEMORY),
            Self::Step { quiet: true } => ANY_STEP.with(Lie::WriteWhileQuiet),
            Self::Used(kind) => used_lies(kind),
            Self::Header => ANY_HEADER,
            Self::Command => Lies::of(&[Lie::AnswerMissing, Lie::AnswerGarbage, Lie::CommandLost]),
            Self::Interrupt => Lies::only(Lie::InterruptLost),
        }
    }
}

fn used_lies(kind: UsedKind) -> Lies {
    let mut lies = ANY_USED;
    if kind.written {
        lies = lies.with(Lie::LengthTooShort);
    }
    if kind.packed {
        lies = lies.with(Lie::FlagsFlipped);
    }
    if kind.in_order {
        lies = lies.with(Lie::OrderBroken);
    }
    lies
}

/// The mind of a hostile device.
#[derive(Debug)]
pub(in super::super) struct Liar {
    pub(super) source: Source,
    lies: Lies,
    mean: u32,
    /// Opportunities to let pass before the next lie, if that has been decided: among accesses of
    /// the driver, and among all else. (A driver that polls would leave little for the rest.)
    gaps: [Option<u32>; 2],
    /// Opportunities so far, whether some lie could be told or not.
    clock: u64,
    /// Until when a lie lasts, by [`Lie::index`].
    until: [u64; COUNT],
    pub(super) told: LieCounters,
    pub(in super::super) known: Known,
    /// The address while [`Lie::MacNonsense`] lasts.
    pub(super) mac: [u8; 6],
    /// Bits of the status that read 0 while [`Lie::StatusForgotten`] lasts.
    pub(super) forgotten: u8,
    /// The status reads 0, and there was no reset.
    pub(super) feigns_reset: bool,
}

impl Liar {
    pub(super) fn new(hostile: Hostile, told: LieCounters) -> Self {
        Self {
            source: hostile.source,
            lies: hostile.lies,
            mean: hostile.gap,
            gaps: [None; 2],
            clock: 0,
            until: [0; COUNT],
            told,
            known: Known::default(),
            mac: [0; 6],
            forgotten: 0,
            feigns_reset: false,
        }
    }

    /// An opportunity has come. A lie that is returned lasts from now on if it is one that does,
    /// and has been counted, unless it is one of those that are counted when they are told.
    pub(super) fn turn(&mut self, moment: Moment) -> Option<Lie> {
        self.clock += 1;
        let possible = moment.lies().and(self.lies);
        if possible.is_empty() || self.is_gone() || !self.source.has_more() {
            return None;
        }
        let (side, mean) = if moment.is_access() {
            (0, self.mean.saturating_mul(RARER_IN_ACCESSES))
        } else {
            (1, self.mean)
        };
        let gap = match self.gaps.get(side).copied().flatten() {
            Some(gap) => gap,
            None => self.source.gap(mean),
        };
        let next = gap.checked_sub(1);
        if let Some(kept) = self.gaps.get_mut(side) {
            *kept = next;
        }
        if next.is_some() || !self.source.has_more() {
            return None;
        }
        let choice = self.source.choose(possible.len() as usize);
        let lie = possible.iter().nth(choice)?;
        if !COUNTED_LATER.contains(lie) {
            self.told.count(lie);
        }
        if LASTING.contains(lie) {
            self.start(lie);
        }
        Some(lie)
    }

    /// Time goes by for a device that is gone.
    pub(in super::super) fn tick(&mut self) {
        self.clock += 1;
    }

    /// The lie lasts from now on: for as long as a byte says, with a seed perhaps for ever.
    fn start(&mut self, lie: Lie) {
        let byte = self.source.byte();
        let end = if byte >= 0xfc && !self.source.is_script() {
            u64::MAX
        } else {
            self.clock
                .saturating_add(1 << (u32::from(byte) % (LONGEST + 1)))
        };
        if let Some(until) = self.until.get_mut(lie.index()) {
            *until = end;
        }
        match lie {
            Lie::MacNonsense => {
                self.mac = match self.source.choose(4) {
                    0 => [0; 6],
                    1 => [0xff; 6],
                    2 => [0x01, 0x00, 0x5e, 0x00, 0x00, 0x01],
                    _ => [(); 6].map(|()| self.source.byte() | 1),
                }
            }
            Lie::StatusForgotten => {
                let bits = [8, 8 | 4, 4, 0xff];
                let choice = self.source.choose(bits.len());
                self.forgotten = bits.get(choice).copied().unwrap_or(8);
            }
            _ => {}
        }
    }

    /// Whether `lie`, one that lasts, is being told.
    pub(in super::super) fn lasts(&self, lie: Lie) -> bool {
        self.until
            .get(lie.index())
            .is_some_and(|until| self.clock < *until)
    }

    /// Everything about it is all ones or nothing.
    pub(in super::super) fn is_gone(&self) -> bool {
        self.lasts(Lie::Removal)
    }

    /// Whether an interrupt is swallowed.
    pub(in super::super) fn swallows_interrupt(&mut self) -> bool {
        self.turn(Moment::Interrupt).is_some() || self.lasts(Lie::InterruptLost)
    }

    /// Nothing more to come.
    pub(super) fn is_honest(&self) -> bool {
        !self.source.has_more()
            && !self.feigns_reset
            && !Lie::ALL.into_iter().any(|lie| self.lasts(lie))
    }
}
