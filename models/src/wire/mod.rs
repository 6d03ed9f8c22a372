//! Wires to plug a device model into.

mod pair;

pub use pair::{DEFAULT_CAPACITY, PairEnd, Plug, pair, pair_with_capacity};

pub use crate::device::Wire;
