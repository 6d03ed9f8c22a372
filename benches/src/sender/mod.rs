//! The whole sender, from `send` to the completion, on a real driver: instructions and nanoseconds
//! of each segment and of each acknowledgment.
//!
//! The peer's window is what limits each connection, so that all of them have the same number of
//! segments in flight all the time: a round hands in acknowledgments, which let as many segments
//! go, and then the device is done with them (outside of the measured part). What a receiver, its
//! program and the network cost is not in it, nor is the driver's receive path, which
//! [`frames`](crate::frames) has.

pub mod case;
pub mod peer;
pub mod run;
pub mod stage;
pub mod table;
