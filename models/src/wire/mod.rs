//! Wires to plug a device model into.

mod impaired;
mod pair;
mod recorder;
#[cfg(target_os = "linux")]
mod shared;
mod silent;
mod tally;
#[cfg(target_os = "linux")]
mod tap;

pub use impaired::{Impaired, Impairment, ImpairmentCounters};
pub use pair::{DEFAULT_CAPACITY, PairEnd, Plug, pair, pair_with_capacity};
pub use recorder::{Recorder, Recording};
#[cfg(target_os = "linux")]
pub use shared::SharedWire;
pub use silent::Silent;
pub use tally::{Passed, Tally, TallyHandle};
#[cfg(target_os = "linux")]
pub use tap::{Tap, TapCounters, open_vnet_tap, open_vnet_tap_queues};

pub use crate::device::Wire;
