//! A device that lies.
//!
//! An [`E1000e82574`] is honest until it is told to be hostile:
//! [`be_hostile`](E1000e82574::be_hostile), at any time, also after a driver has brought it up. From
//! then on it tells [`Lie`]s. It goes on to do its work besides: otherwise a driver would soon have
//! nothing to believe.
//!
//! *Opportunities* are register accesses, reads of configuration space, steps, write-backs and
//! interrupts, each if some lie that is switched on can be told there. A number of them pass, then
//! one lie is told, and so on; accesses of the driver are counted apart from all else. A
//! [script](Hostile::from_bytes) is read in the same order: a byte for how many opportunities
//! pass, a byte for which of the lies possible there, and what that lie needs to know. When the
//! script ends the device is honest; lies that last for a while, and write-backs that were held
//! back, end when their time is over. [`E1000e82574::is_honest`] says when that is.
//!
//! A hostile device reaches no more than its bus lets it: all writes go through [`Bus`], and
//! a fault is nothing to it. (A [`Host`](crate::Host) reports these faults as violations: in hostile
//! mode they are the device's own, not the driver's.) It may use the bus whatever bus mastering,
//! GIO master disable and CTRL.RST say. The addresses that it knows are those that the driver gave
//! it since the lies began, or that were in the queues by then: ring bases, and the buffers that
//! descriptors named; it remembers them over a reset.
//!
//! Reports about the driver ([`take_violations`](crate::Device::take_violations)) measure it
//! against an honest device, so there are none while the device is hostile, and none afterwards
//! until a reset: by then the driver may have been led anywhere.

mod answers;
mod dma;
mod known;
mod liar;
mod lies;
mod source;

use pagewire_hal::Instant;

pub use lies::{Lie, LieCounters, Lies};

pub(super) use liar::Liar;

use dma::LyingBus;
use liar::Moment;
use source::Source;

use super::bits::{cause, ctrl, offset, rctl, rfctl, tctl};
use super::pace::Random;
use super::registers::{RegisterFile, Ring};
use super::{E1000e82574, Engine};
use crate::Bus;

/// Opportunities that pass between two lies, on average, unless it is told otherwise.
const USUAL_GAP: u32 = 24;

/// How a device lies: which lies, how often, and where it takes its decisions from.
#[derive(Clone, Debug)]
pub struct Hostile {
    source: Source,
    lies: Lies,
    gap: u32,
}

impl Hostile {
    /// Lies without end, drawn from `seed`: all of them, one in about 25 opportunities
    /// (100 among accesses of the driver).
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        Self::new(Source::Seed(Random::new(seed)))
    }

    /// Lies as `script` says, all of them allowed, and none when it has run out. Any bytes are a
    /// script, and the empty one is honest.
    #[must_use]
    pub fn from_bytes(script: impl Into<Vec<u8>>) -> Self {
        let bytes = script.into().into();
        Self::new(Source::Script { bytes, at: 0 })
    }

    fn new(source: Source) -> Self {
        Self {
            source,
            lies: Lies::all(),
            gap: USUAL_GAP,
        }
    }

    /// Tells no lie but these.
    #[must_use]
    pub fn with_lies(mut self, lies: Lies) -> Self {
        self.lies = lies;
        self
    }

    /// With a seed, lets `gap` opportunities pass between two lies on average, and four times as
    /// many among accesses of the driver; with 0 it lies whenever it can. A script says it for
    /// each lie by itself.
    #[must_use]
    pub fn with_gap(mut self, gap: u32) -> Self {
        self.gap = gap;
        self
    }
}

impl E1000e82574 {
    /// Makes the device hostile, or honest again with `None`, now. What a lie has done to memory
    /// and to the driver's mind stays done; lies that last end. See the
    /// [module](crate::e1000e::hostile).
    pub fn be_hostile(&mut self, hostile: Option<Hostile>) {
        if let Some(liar) = self.liar.take() {
            self.lies_told = liar.told;
        }
        self.violations.unmute();
        let Some(hostile) = hostile else { return };
        self.violations.mute();
        let mut liar = Liar::new(hostile, self.lies_told.clone());
        for buffer in self.receive.buffers() {
            liar.known.add_buffer(buffer);
        }
        self.liar = Some(Box::new(liar));
    }

    /// Whether the device is not hostile, or its script and the lies that lasted are over.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        self.liar.as_ref().is_none_or(|liar| liar.is_honest())
    }

    /// How often each lie was told since the device was made.
    #[must_use]
    pub fn lies_told(&self) -> &LieCounters {
        self.liar
            .as_ref()
            .map_or(&self.lies_told, |liar| &liar.told)
    }

    /// `Device::read` of a hostile device. The register is read all the same, with what that
    /// does to it.
    pub(super) fn lying_read(&mut self, bar: u8, at: u32, now: Instant) -> u32 {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_read(bar, at, now);
        };
        let lie = liar.turn(Moment::RegisterRead(bar, at));
        let value = if liar.is_gone() {
            u32::MAX
        } else {
            let honest = self.honest_read(bar, at, now);
            liar.register(lie, bar, at, honest)
        };
        self.liar = Some(liar);
        value
    }

    /// `Device::write` of a hostile device.
    pub(super) fn lying_write(&mut self, bar: u8, at: u32, value: u32, now: Instant) {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_write(bar, at, value, now);
        };
        let reset =
            bar == 0 && (at == offset::CTRL || at == offset::CTRL_DUP) && value & ctrl::RST != 0;
        let lie = liar.turn(Moment::RegisterWrite { reset });
        let lost = matches!(lie, Some(Lie::WriteLost | Lie::ResetClearsNothing));
        if !lost && !liar.is_gone() {
            self.honest_write(bar, at, value, now);
        }
        self.liar = Some(liar);
    }

    /// `Device::config_read` of a hostile device.
    pub(super) fn lying_config_read(&mut self, at: u16) -> u32 {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_config_read(at);
        };
        let lie = liar.turn(Moment::ConfigRead(at));
        let honest = self.honest_config_read(at);
        let value = liar.config(lie, at, honest);
        self.liar = Some(liar);
        value
    }

    /// `Device::step` of a hostile device: its work over a bus that lies, and then some.
    pub(super) fn lying_step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        let Some(mut liar) = self.liar.take() else {
            return self.honest_step(bus, now);
        };
        let quiet = self.seems_quiet();
        liar.learn_rings(&self.registers);
        let lie = liar.turn(Moment::Step { quiet });
        let mut busy = false;
        if !liar.is_gone() {
            let extended = self.registers.get(offset::RFCTL) & rfctl::EXSTEN != 0;
            let mut lying = LyingBus::new(bus, &mut liar, extended);
            busy = self.honest_step(&mut lying, now);
            busy |= lying.finish(lie);
            if liar.flaps() {
                self.link = !self.link;
                self.interrupts.raise(cause::LSC);
            }
        }
        self.liar = Some(liar);
        busy
    }

    /// Whether the driver has reason to believe that the device does nothing.
    fn seems_quiet(&self) -> bool {
        let receives = self.registers.get(offset::RCTL) & rctl::EN != 0;
        let transmits = self.registers.get(offset::TCTL) & tctl::EN != 0;
        self.reset.is_some()
            || matches!(self.engine, Engine::Quiet)
            || !self.pci.is_bus_master()
            || !receives && !transmits
    }
}

impl Liar {
    /// Takes note of where the rings are.
    fn learn_rings(&mut self, registers: &RegisterFile) {
        for (which, receive) in [
            (Ring::Transmit(0), false),
            (Ring::Transmit(1), false),
            (Ring::Receive(0), true),
        ] {
            let (base, entries) = registers.ring(which);
            self.known.add_ring(base, entries, receive);
        }
    }
}
