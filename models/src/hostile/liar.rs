//! Which lie is told when, and which ones last.

use std::collections::VecDeque;

use super::Hostile;
use super::known::Known;
use super::lies::{COUNT, Lie, LieCounters, Lies};
use super::source::Source;

/// A lie that lasts does so for up to two to the power of this, in accesses, steps and what else
/// [`Liar::turn`] counts.
const LONGEST: u32 = 15;

/// An opportunity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// With the lies that this register can tell beside those that all can.
    RegisterRead(Lies),
    /// Whether CTRL.RST is set.
    RegisterWrite {
        reset: bool,
    },
    /// With the lies that configuration space can tell here.
    ConfigRead(Lies),
    Step {
        quiet: bool,
    },
    WriteBack {
        receive: bool,
    },
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
    Lie::InterruptAtRandom,
    Lie::NeverQuiet,
    Lie::LinkFlap,
]);
/// Lies that a step tells in memory.
pub(crate) const IN_MEMORY: Lies = Lies::of(&[
    Lie::DoneAtRandom,
    Lie::DoneTakenAway,
    Lie::RandomDescriptor,
    Lie::ScribbleRing,
    Lie::ScribbleBuffer,
    Lie::WildWrite,
]);
const ANY_WRITE_BACK: Lies = Lies::of(&[
    Lie::RandomDescriptor,
    Lie::WriteBackTwice,
    Lie::WriteBackOutOfOrder,
    Lie::WriteBackLost,
    Lie::OtherRing,
]);
/// Lies that last.
const LASTING: Lies = Lies::of(&[
    Lie::RegisterAllOnes,
    Lie::Removal,
    Lie::ReadyNever,
    Lie::ReadyAtOnce,
    Lie::ConfigAllOnes,
    Lie::InterruptLost,
    Lie::NeverQuiet,
    Lie::ResetNeverClears,
    Lie::LinkFlap,
]);

impl Moment {
    /// Whether it is the driver's doing.
    fn is_access(self) -> bool {
        matches!(
            self,
            Self::RegisterRead(..) | Self::RegisterWrite { .. } | Self::ConfigRead(_)
        )
    }

    /// The lies that can be told now.
    fn lies(self) -> Lies {
        match self {
            Self::RegisterRead(lies) => ANY_REGISTER.or(lies),
            Self::RegisterWrite { reset: false } => Lies::only(Lie::WriteLost),
            Self::RegisterWrite { reset: true } => Lies::of(&[
                Lie::WriteLost,
                Lie::ResetNeverClears,
                Lie::ResetClearsNothing,
            ]),
            Self::ConfigRead(lies) => lies,
            Self::Step { quiet: false } => ANY_STEP.or(IN_MEMORY),
            Self::Step { quiet: true } => ANY_STEP.with(Lie::WriteWhileQuiet),
            Self::WriteBack { receive: false } => ANY_WRITE_BACK,
            Self::WriteBack { receive: true } => {
                ANY_WRITE_BACK.with(Lie::WrongLength).with(Lie::ErrorBits)
            }
            Self::Interrupt => Lies::only(Lie::InterruptLost),
        }
    }
}

/// A write-back that comes later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) due: u64,
    pub(crate) address: u64,
    pub(crate) bytes: [u8; 16],
    pub(crate) len: usize,
}

/// The mind of a hostile device.
#[derive(Debug)]
pub(crate) struct Liar {
    pub(crate) source: Source,
    lies: Lies,
    mean: u32,
    /// With a seed, lies in accesses are rarer by this.
    rarer: u32,
    /// Opportunities to let pass before the next lie, if that has been decided: among accesses of
    /// the driver, and among all else. (A driver that polls would leave little for the rest.)
    gaps: [Option<u32>; 2],
    /// Opportunities so far, whether some lie could be told or not.
    pub(crate) clock: u64,
    /// Until when a lie lasts, by [`Lie::index`].
    until: [u64; COUNT],
    pub(crate) told: LieCounters,
    pub(crate) known: Known,
    pub(crate) held: VecDeque<Held>,
    /// Addresses of status bytes that were written back.
    pub(crate) done: VecDeque<u64>,
}

impl Liar {
    /// With a seed, lies in accesses are `rarer` by this: a driver makes hundreds or thousands of
    /// them before anything happens in its rings.
    pub(crate) fn new(hostile: Hostile, told: LieCounters, rarer: u32) -> Self {
        Self {
            source: hostile.source,
            lies: hostile.lies,
            mean: hostile.gap,
            rarer,
            gaps: [None; 2],
            clock: 0,
            until: [0; COUNT],
            told,
            known: Known::default(),
            held: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// An opportunity has come. A lie that is returned lasts from now on if it is one that does,
    /// and has been counted, unless it is one in memory: those are counted when they are written.
    pub(crate) fn turn(&mut self, moment: Moment) -> Option<Lie> {
        self.clock += 1;
        let possible = moment.lies().and(self.lies);
        if possible.is_empty() || self.lasts(Lie::Removal) || !self.source.has_more() {
            return None;
        }
        let (side, mean) = if moment.is_access() {
            (0, self.mean.saturating_mul(self.rarer))
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
        if !IN_MEMORY.contains(lie) && lie != Lie::WriteWhileQuiet {
            self.told.count(lie);
        }
        if LASTING.contains(lie) {
            self.start(lie);
        }
        Some(lie)
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
    }

    /// Whether `lie`, one that lasts, is being told.
    pub(crate) fn lasts(&self, lie: Lie) -> bool {
        self.until
            .get(lie.index())
            .is_some_and(|until| self.clock < *until)
    }

    /// Everything about it is all ones or nothing.
    pub(crate) fn is_gone(&self) -> bool {
        self.lasts(Lie::Removal)
    }

    /// The link comes and goes.
    pub(crate) fn flaps(&self) -> bool {
        self.lasts(Lie::LinkFlap)
    }

    /// Whether `lie` is switched on.
    pub(crate) fn allows(&self, lie: Lie) -> bool {
        self.lies.contains(lie)
    }

    /// Nothing more to come.
    pub(crate) fn is_honest(&self) -> bool {
        !self.source.has_more()
            && self.held.is_empty()
            && !Lie::ALL.into_iter().any(|lie| self.lasts(lie))
    }
}
