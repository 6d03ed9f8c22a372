//! Models of Intel NICs that lie.
//!
//! A model is honest until it is told to be hostile
//! ([`E1000e82574::be_hostile`](crate::e1000e::E1000e82574::be_hostile),
//! [`Ixgbe82599::be_hostile`](crate::ixgbe::Ixgbe82599::be_hostile)), at any time, also after a
//! driver has brought it up. From then on it tells [`Lie`]s. It goes on to do its work besides: otherwise a driver would soon have
//! nothing to believe.
//!
//! *Opportunities* are register accesses, reads of configuration space, steps, write-backs and
//! interrupts, each if some lie that is switched on can be told there. A number of them pass, then
//! one lie is told, and so on; accesses of the driver are counted apart from all else. A
//! [script](Hostile::from_bytes) is read in the same order: a byte for how many opportunities
//! pass, a byte for which of the lies possible there, and what that lie needs to know. When the
//! script ends the device is honest; lies that last for a while, and write-backs that were held
//! back, end when their time is over. `is_honest` says when that is.
//!
//! A hostile device reaches no more than its bus lets it: all writes go through [`Bus`](crate::Bus), and
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

pub use lies::{Lie, LieCounters, Lies};

pub(crate) use answers::lies_of_config;
pub(crate) use dma::LyingBus;
pub(crate) use liar::{Liar, Moment};

use crate::pace::Random;
use source::Source;

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
    /// Lies without end, drawn from `seed`: all of them, one in about 25 opportunities, and rarer
    /// among accesses of the driver, see [`with_gap`](Self::with_gap).
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

    /// With a seed, lets `gap` opportunities pass between two lies on average, and more among
    /// accesses of the driver: four times as many for the 82574, forty times for the 82599, whose
    /// driver makes so many more. With 0 it lies whenever it can. A script says it for each lie by
    /// itself.
    #[must_use]
    pub fn with_gap(mut self, gap: u32) -> Self {
        self.gap = gap;
        self
    }
}
