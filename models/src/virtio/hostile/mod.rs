//! A device that lies.
//!
//! A [`VirtioNet`] is honest until it is told to be hostile: [`be_hostile`](VirtioNet::be_hostile),
//! at any time, also after a driver has brought it up. From then on it tells [`Lie`]s: in
//! capabilities and registers, in what it marks as used, in the headers of received frames, in
//! answers to commands, in interrupts, and by writing where it must not. It goes on to do its work
//! besides: otherwise a driver would soon have nothing to believe.
//!
//! Which lies: [`Hostile::with_lies`], all of them if it is not called. How often:
//! [`Hostile::with_gap`]. Whence the decisions: [`Hostile::from_seed`] or [`Hostile::from_bytes`].
//! How often each was told: [`VirtioNet::lies_told`].
//!
//! *Opportunities* are register accesses, reads of configuration space, steps, batches of used
//! buffers, received frames, commands and interrupts, each if some lie that is switched on can be
//! told there. A number of them pass, then one lie is told, and so on; accesses of the driver are
//! counted apart from all else. A [script](Hostile::from_bytes) is read in the same order: a byte
//! for how many opportunities pass, a byte for which of the lies possible there, and what that lie
//! needs to know. When the script ends the device is honest; lies that last for a while end when
//! their time is over. [`VirtioNet::is_honest`] says when that is.
//!
//! A hostile device reaches no more than its bus lets it: all writes go through
//! [`Bus`], and a fault is nothing to it. (A [`Host`](crate::Host) reports these faults
//! as violations: in hostile mode they are the device's own, not the driver's.) It may use the bus
//! whatever bus mastering and the status say. The addresses that it knows are those that the
//! driver gave it since the lies began, or that were in the queues by then; it remembers them over
//! a reset.
//!
//! Reports about the driver ([`take_violations`](crate::Device::take_violations)) measure it
//! against an honest device, so there are none while the device is hostile, and none afterwards
//! until a reset: by then the driver may have been led anywhere.

mod answers;
mod known;
mod liar;
mod lies;
mod memory;
mod source;
mod space;
mod used;

pub use lies::{Lie, LieCounters, Lies};

pub(super) use liar::{Liar, Request};
pub(super) use used::{Answer, UsedContext};

use liar::Moment;
use source::Source;

use super::VirtioNet;
use super::bits::{feature, status};
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
        Self::new(Source::Seed(fastrand::Rng::with_seed(seed)))
    }

    /// Lies as `script` says, all of them allowed, and none when it has run out. Any bytes are a
    /// script, and the empty one is honest.
    #[must_use]
    pub fn from_bytes(script: impl Into<Vec<u8>>) -> Self {
        let bytes = script.into();
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

impl VirtioNet {
    /// Makes the device hostile, or honest again with `None`, now. What a lie has done to memory
    /// and to the driver's mind stays done; lies that last end. See the
    /// [module](crate::virtio::hostile).
    pub fn be_hostile(&mut self, hostile: Option<Hostile>) {
        if let Some(liar) = self.liar.take() {
            self.lies_told = liar.told;
        }
        self.violations.unmute();
        self.advice.unmute();
        let Some(hostile) = hostile else { return };
        self.violations.mute();
        self.advice.mute();
        let mut liar = Liar::new(hostile, self.lies_told.clone());
        for chain in self.queues.iter().flat_map(|queue| &queue.stock) {
            for element in chain.readable.iter().chain(&chain.writable) {
                liar.known.add_buffer(element.address);
            }
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

    /// `Device::config_read` of a hostile device, where `value` is.
    pub(super) fn lying_config(&mut self, at: u16, value: u32) -> u32 {
        let part = self.pci.part(at);
        match &mut self.liar {
            Some(liar) => liar.config(part, at, value),
            None => value,
        }
    }

    /// Whether the lies of a hostile device hinder a write to a register.
    pub(super) fn lies_about_write(&mut self, request: Request) -> bool {
        let Some(liar) = &mut self.liar else {
            return false;
        };
        if request == Request::Status && liar.stops_feigning() {
            self.finish_reset();
        }
        let Some(liar) = &mut self.liar else {
            return false;
        };
        liar.loses_write(request) || liar.is_gone()
    }

    /// `Device::step` of a hostile device: its work, and then some.
    pub(super) fn lying_step(&mut self, bus: &mut dyn Bus) -> bool {
        let packed = self.common.driver_features & feature::RING_PACKED != 0;
        let quiet = self.reset.is_some()
            || self.common.status & status::DRIVER_OK == 0
            || !self.pci.is_bus_master()
            || self.liar.as_ref().is_some_and(|liar| liar.feigns_reset);
        let Some(liar) = &mut self.liar else {
            return self.honest_step(bus);
        };
        for queue in &self.queues {
            liar.known.add_ring(queue, packed);
        }
        let lie = liar.turn(Moment::Step { quiet });
        if liar.is_gone() || liar.lasts(Lie::Stall) {
            return false;
        }
        let flaps = liar.lasts(Lie::LinkFlap);
        let busy = self.honest_step(bus);
        if let (Some(liar), Some(lie)) = (&mut self.liar, lie) {
            liar.act(lie, bus);
        }
        if lie == Some(Lie::NeedsReset) {
            self.need_reset();
        }
        if flaps {
            self.link = !self.link;
            self.common.changed = true;
            self.interrupt_configuration();
        }
        busy
    }
}
