//! Wires to plug a device model into.

mod impaired;
mod pair;
mod recorder;

pub use impaired::{Impaired, Impairment, ImpairmentCounters};
pub use pair::{DEFAULT_CAPACITY, PairEnd, Plug, pair, pair_with_capacity};
pub use recorder::{Recorder, Recording};

pub use crate::device::Wire;
