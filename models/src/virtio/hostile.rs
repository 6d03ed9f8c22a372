//! A device that lies.
//!
//! A [`VirtioNet`] is honest until [`be_hostile`](VirtioNet::be_hostile). From then on it goes on
//! with its work and lies besides: in registers, in what it marks as used, in the headers of
//! received frames, in the answers to commands, and by writing rubbish over the parts of the rings
//! that it may write. All writes go through the bus, and stay in memory that the driver named.
//!
//! *Opportunities* are register reads, and (counted apart) batches of used buffers, frames and
//! answers. A number of them pass, then one lie is told, and so on. A script is read in the same
//! order: a byte for how many opportunities pass, then what the lie needs. When it ends the device
//! is honest. What the driver does meanwhile is not reported, and not until the next reset.

use super::VirtioNet;
use super::ring::Used;

/// Opportunities that pass between two lies, on average, unless it is told otherwise.
const USUAL_GAP: u32 = 24;
/// Register reads for each of the other opportunities.
const REGISTERS: u32 = 4;

/// Where the decisions come from.
#[derive(Clone, Debug)]
enum Source {
    Seed(fastrand::Rng),
    Script { bytes: Vec<u8>, at: usize },
}

impl Source {
    fn byte(&mut self) -> u8 {
        match self {
            Self::Seed(random) => random.u8(..),
            Self::Script { bytes, at } => {
                let byte = bytes.get(*at).copied().unwrap_or(0);
                *at = at.saturating_add(1);
                byte
            }
        }
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([(); 4].map(|()| self.byte()))
    }

    fn has_more(&self) -> bool {
        match self {
            Self::Seed(_) => true,
            Self::Script { bytes, at } => *at < bytes.len(),
        }
    }
}

/// How a device lies.
#[derive(Clone, Debug)]
pub struct Hostile {
    source: Source,
    gap: u32,
}

impl Hostile {
    /// Lies without end, drawn from `seed`, one in about 25 opportunities (100 among register
    /// reads).
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self {
            source: Source::Seed(fastrand::Rng::with_seed(seed)),
            gap: USUAL_GAP,
        }
    }

    /// Lies as `script` says, and none when it has run out. Any bytes are a script, and the empty
    /// one is honest.
    #[must_use]
    pub fn from_bytes(script: impl Into<Vec<u8>>) -> Self {
        let bytes = script.into();
        Self {
            source: Source::Script { bytes, at: 0 },
            gap: USUAL_GAP,
        }
    }

    /// The same with `gap` opportunities between two lies on average. A script has its own.
    #[must_use]
    pub fn with_gap(mut self, gap: u32) -> Self {
        self.gap = gap;
        self
    }
}

/// How often each kind of lie was told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LiesTold {
    /// Registers that read something else.
    pub registers: u64,
    /// Used buffers with another id.
    pub ids: u64,
    /// Used buffers with another length.
    pub lengths: u64,
    /// Used buffers that were reported twice, or more that never were.
    pub repeats: u64,
    /// Used buffers that were not reported.
    pub omissions: u64,
    /// Rubbish written over a ring.
    pub scribbles: u64,
    /// Headers of received frames.
    pub headers: u64,
    /// Answers to commands.
    pub answers: u64,
}

/// The part of the device that lies.
#[derive(Clone, Debug)]
pub(super) struct Liar {
    hostile: Hostile,
    /// Opportunities that still pass: register reads, all else.
    passes: [u32; 2],
    told: LiesTold,
}

impl Liar {
    fn new(hostile: Hostile) -> Self {
        let mut liar = Self {
            hostile,
            passes: [0; 2],
            told: LiesTold::default(),
        };
        liar.passes = [liar.gap(REGISTERS), liar.gap(1)];
        liar
    }

    fn gap(&mut self, times: u32) -> u32 {
        let bound = match &self.hostile.source {
            Source::Seed(_) => self.hostile.gap.saturating_mul(2 * times).saturating_add(1),
            Source::Script { .. } => 256,
        };
        match &mut self.hostile.source {
            Source::Seed(random) => random.u32(..bound),
            source => u32::from(source.byte()),
        }
    }

    /// Whether to lie now.
    fn is_due(&mut self, register: bool) -> bool {
        let kind = usize::from(!register);
        let Some(left) = self.passes.get_mut(kind) else {
            return false;
        };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        if !self.hostile.source.has_more() {
            return false;
        }
        let next = self.gap(if register { REGISTERS } else { 1 });
        if let Some(left) = self.passes.get_mut(kind) {
            *left = next;
        }
        true
    }

    /// What a register reads that holds `value`.
    fn register(&mut self, value: u32) -> u32 {
        if !self.is_due(true) {
            return value;
        }
        self.told.registers += 1;
        match self.hostile.source.byte() % 4 {
            0 => u32::MAX,
            1 => 0,
            2 => value ^ 1 << (self.hostile.source.byte() % 32),
            _ => self.hostile.source.word(),
        }
    }

    /// What the driver is told of `used`; and rubbish with its place in the ring, if there is some.
    pub(super) fn used(&mut self, used: &[Used]) -> (Vec<Used>, Option<(u32, [u8; 8])>) {
        let mut shown = used.to_vec();
        if !self.is_due(false) || shown.is_empty() {
            return (shown, None);
        }
        let source = &mut self.hostile.source;
        let place = usize::from(source.byte()) % shown.len();
        let choice = source.byte() % 5;
        let number = source.word();
        let Some(entry) = shown.get_mut(place) else {
            return (shown, None);
        };
        match choice {
            0 => {
                entry.id = if number & 1 == 0 {
                    number as u16
                } else {
                    (number >> 8) as u16 & 0xf
                };
                self.told.ids += 1;
            }
            1 => {
                entry.len = number;
                self.told.lengths += 1;
            }
            2 => {
                let again = *entry;
                shown.extend(std::iter::repeat_n(again, 1 + (number % 300) as usize));
                self.told.repeats += 1;
            }
            3 => {
                shown.remove(place);
                self.told.omissions += 1;
            }
            _ => {
                let mut rubbish = [0; 8];
                rubbish.fill_with(|| self.hostile.source.byte());
                self.told.scribbles += 1;
                return (shown, Some((number, rubbish)));
            }
        }
        (shown, None)
    }

    /// Spoils the header of a received frame.
    pub(super) fn header(&mut self, header: &mut [u8]) {
        if !self.is_due(false) {
            return;
        }
        self.told.headers += 1;
        let mut left = 1 + usize::from(self.hostile.source.byte() % 4);
        while left > 0 && !header.is_empty() {
            let place = usize::from(self.hostile.source.byte()) % header.len();
            let value = self.hostile.source.byte();
            if let Some(byte) = header.get_mut(place) {
                *byte = value;
            }
            left -= 1;
        }
    }

    /// What a command is answered.
    pub(super) fn answer(&mut self, answer: u8) -> u8 {
        if !self.is_due(false) {
            return answer;
        }
        self.told.answers += 1;
        self.hostile.source.byte()
    }
}

impl VirtioNet {
    /// Makes the device hostile, or honest again with `None`, now. What a lie has done to memory
    /// and to the driver's mind stays done. Lies are counted anew.
    pub fn be_hostile(&mut self, hostile: Option<Hostile>) {
        self.violations.silence(hostile.is_some());
        self.liar = hostile.map(Liar::new);
    }

    /// Whether the device is not hostile, or its script is over.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        let lies = |liar: &Liar| liar.hostile.source.has_more();
        !self.liar.as_ref().is_some_and(lies)
    }

    /// How often each lie was told since the device became hostile; none if it is not.
    #[must_use]
    pub fn lies_told(&self) -> LiesTold {
        let told = self.liar.as_ref().map(|liar| liar.told.clone());
        told.unwrap_or_default()
    }

    /// What the driver reads where `value` is.
    pub(super) fn shown(&mut self, value: u32) -> u32 {
        match &mut self.liar {
            Some(liar) => liar.register(value),
            None => value,
        }
    }
}
