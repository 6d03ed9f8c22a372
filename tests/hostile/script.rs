//! What the bytes mean.

use pagewire::e1000e::Config;
use pagewire::hal::Granule;
use pagewire_models::e1000e::{Hostile, Lie, Lies};

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

/// Lies that leave the device's word of what it has finished, and what registers and capabilities
/// the driver writes by, as they are: with these alone, memory that the device still reads must
/// stay, and what goes out must be what was posted.
pub(crate) const TRUTHFUL: [Lie; 13] = [
    Lie::RegisterNonsense,
    Lie::ReadyNever,
    Lie::ReadyAtOnce,
    Lie::RingIndex,
    Lie::DoneTakenAway,
    Lie::WrongLength,
    Lie::ErrorBits,
    Lie::WriteBackLost,
    Lie::InterruptAtRandom,
    Lie::InterruptLost,
    Lie::NeverQuiet,
    Lie::ResetNeverClears,
    Lie::LinkFlap,
];

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
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) hostile_at_open: bool,
    pub(crate) tcp: bool,
    pub(crate) take_queues: bool,
    pub(crate) granule: Granule,
    pub(crate) config: Config,
    /// No lie but those of [`TRUTHFUL`].
    pub(crate) truthful: bool,
    /// For what is drawn in host and model.
    pub(crate) seed: u64,
    pub(crate) end: End,
    pub(crate) hostile: Hostile,
}

/// All of [`TRUTHFUL`].
fn truthful() -> Lies {
    TRUTHFUL.into_iter().fold(Lies::none(), Lies::with)
}

impl Plan {
    /// A run without lies, all settings usual.
    pub(crate) fn honest() -> Self {
        Self::parse(&[0, 0x24, 2, 0x80, 1]).0
    }

    /// Reads a plan; what is left is the program's script.
    ///
    /// Nine bytes of settings, the length of the program's script in two of them, that script,
    /// and the rest is the device's.
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
        let program = script.split(usize::from(len));
        let chosen = match lies {
            0..0x80 => Lies::all(),
            0x80..0xc0 => truthful(),
            _ => Lies::only(Lie::ALL[usize::from(lies - 0xc0) % Lie::ALL.len()]),
        };
        let hostile = if flags & 0x08 == 0 {
            Hostile::from_bytes(script.rest)
        } else {
            let word = u64::from(script.half()) << 16 | u64::from(script.half());
            Hostile::from_seed(word).with_gap(u32::from(gap))
        };
        let plan = Self {
            hostile_at_open: flags & 0x01 != 0,
            tcp: flags & 0x02 != 0,
            take_queues: flags & 0x30 != 0x30,
            granule: granule(flags >> 6),
            config: config(rings, mtu, flags & 0x04 == 0),
            truthful: chosen.iter().all(|lie| truthful().contains(lie)),
            seed,
            end: End {
                recover: end & 0x20 != 0,
                release: end & 0x40 == 0,
                order: end & 0x07,
            },
            hostile: hostile.with_lies(chosen),
        };
        (plan, program)
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

fn config(rings: u8, mtu: u8, checksum: bool) -> Config {
    let mut config = Config::default();
    config.tx_descriptors = 8 << (rings & 7).min(5);
    config.rx_descriptors = 8 << (rings >> 4 & 3);
    config.mtu = match mtu {
        0 => 68,
        1 => 576,
        2..0x60 => 1500,
        0x60..0x80 => 2034,
        0x80..0xa0 => 4000,
        0xa0..0xc0 => 9000,
        other => 68 + u16::from(other - 0xc0) * 144,
    };
    config.max_fragments = (rings & 8 != 0).then_some(1 + u16::from(mtu & 3));
    config.checksum_offload = checksum;
    config.generic_checksum = rings & 0x40 != 0;
    config.promiscuous = rings & 0x80 != 0;
    config
}
