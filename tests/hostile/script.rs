//! What the bytes mean.

use std::fmt::{Debug, Formatter, Result};

use pagewire::hal::Granule;

use super::subject::Subject;

/// Bytes that decide; zeros when they have run out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((first, rest)) => {
                self.rest = rest;
                *first
            }
            None => 0,
        }
    }

    pub(crate) fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A byte's choice among `count`, which is not 0.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The first `len` bytes of what is left, or all of it.
    pub(crate) fn split(&mut self, len: usize) -> Script<'a> {
        let (first, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        Script::new(first)
    }
}

/// Whence a device takes its decisions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decisions<'a> {
    /// As many as there are bytes.
    Script(&'a [u8]),
    /// Without end, with so many opportunities between two lies on average.
    Seed { seed: u64, gap: u32 },
}

/// How a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    /// The device becomes honest, is reset and has to work.
    pub(crate) recover: bool,
    /// The device is stopped and released before all is dropped.
    pub(crate) release: bool,
    /// Which of the six orders of dropping control part, port and receive queue.
    pub(crate) order: u8,
}

/// What a run is like, but for the program's calls.
pub(crate) struct Plan<S: Subject> {
    pub(crate) hostile_at_open: bool,
    pub(crate) tcp: bool,
    /// The link is up before the lies begin, unless they do at once.
    pub(crate) settles: bool,
    pub(crate) take_queues: bool,
    /// Of several pairs of queues, only the first is taken.
    pub(crate) takes_one: bool,
    pub(crate) granule: Granule,
    pub(crate) setup: S::Setup,
    /// No lie but those of [`Subject::is_truthful`].
    pub(crate) truthful: bool,
    /// Registers may seem to be where none are.
    pub(crate) registers_move: bool,
    /// For what is drawn in host and model.
    pub(crate) seed: u64,
    pub(crate) end: End,
    pub(crate) hostile: S::Hostile,
}

impl<S: Subject> Clone for Plan<S> {
    fn clone(&self) -> Self {
        Self {
            setup: self.setup.clone(),
            hostile: self.hostile.clone(),
            ..*self
        }
    }
}

impl<S: Subject> Debug for Plan<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Plan")
            .field("setup", &self.setup)
            .field("seed", &self.seed)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl<S: Subject> Plan<S> {
    /// A run without lies, all settings usual.
    pub(crate) fn honest() -> Self {
        let mut plan = Self::parse(S::HONEST).0;
        plan.set_lies(Decisions::Script(&[]), &[]);
        plan
    }

    /// Reads a plan; what is left is the program's script.
    ///
    /// Nine bytes of settings, the length of the program's script in two of them, what else the
    /// setup needs, that script, and the rest is the device's.
    pub(crate) fn parse(input: &[u8]) -> (Self, Script<'_>) {
        let mut script = Script::new(input);
        let flags = script.byte();
        let rings = script.byte();
        let mtu = script.byte();
        let lies = script.byte();
        let seed = u64::from(script.byte());
        let gap = script.byte();
        let end = script.byte();
        let len = script.half();
        let setup = S::setup([flags, rings, mtu], &mut script);
        let program = script.split(usize::from(len));
        let all = S::LIES.iter().copied();
        let chosen: Vec<S::Lie> = match lies {
            0..0x80 => all.collect(),
            0x80..0xc0 => all.filter(|lie| S::is_truthful(*lie)).collect(),
            _ => {
                let count = S::LIES.len();
                all.skip(usize::from(lies - 0xc0) % count).take(1).collect()
            }
        };
        let decisions = if flags & 0x08 == 0 {
            Decisions::Script(script.rest)
        } else {
            let seed = u64::from(script.half()) << 16 | u64::from(script.half());
            let gap = u32::from(gap);
            Decisions::Seed { seed, gap }
        };
        let mut plan = Self {
            hostile_at_open: flags & 0x01 != 0,
            tcp: flags & 0x02 != 0,
            settles: end & 0x10 != 0,
            take_queues: flags & 0x30 != 0x30,
            takes_one: flags & 0x30 == 0x20,
            granule: granule(flags >> 6),
            setup,
            truthful: false,
            registers_move: false,
            seed,
            end: End {
                recover: end & 0x20 != 0,
                release: end & 0x40 == 0,
                order: end & 0x07,
            },
            hostile: S::hostile(decisions, &chosen),
        };
        plan.set_lies(decisions, &chosen);
        (plan, program)
    }

    /// The device tells these lies and no others.
    pub(crate) fn set_lies(&mut self, decisions: Decisions<'_>, lies: &[S::Lie]) {
        self.hostile = S::hostile(decisions, lies);
        self.truthful = lies.iter().all(|lie| S::is_truthful(*lie));
        self.registers_move = lies.iter().any(|lie| S::moves_registers(*lie));
    }
}

fn granule(choice: u8) -> Granule {
    let bytes = match choice {
        0 => 4096,
        1 => 16_384,
        2 => 65_536,
        _ => return Granule::CONTIGUOUS,
    };
    Granule::from_bytes(bytes).unwrap_or(Granule::CONTIGUOUS)
}
