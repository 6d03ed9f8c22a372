//! Which driver a PCI device needs, and one type for all of them.
//!
//! # Which to use
//! - **A driver's own crate** (`pagewire-e1000e`, `pagewire-ixgbe`, `pagewire-virtio`), if the program knows its
//!   device when it is compiled: the others are then not in the program, and all that the driver
//!   offers beside [`Nic`](pagewire_hal::Nic) is at hand. Code that is generic over `Nic` stays
//!   the same.
//! - **[`AnyNic`]**, if PCI shows at run time what is there: [`AnyNic::open`] reads the ids,
//!   opens the driver that [`find`] names, and is a `Nic` like any other. All drivers are in the
//!   program.
//!
//! What [`AnyNic`] costs is a comparison or two per call of a queue (which driver is it?). No call
//! goes through a table of functions, and nothing is allocated. To post and reclaim a frame of
//! three fragments takes 253 instructions instead of 245 on an 82574L, 273 instead of 263 on an
//! 82599, and 550 instead of 539 on virtio-net (split ring); the example `any_cost` counts them,
//! without the doorbell.
//!
//! # What is known
//! [`DRIVERS`] says which devices each driver takes, and on what it was tried: a device that no
//! one has tried is opened on request only.
//!
//! # What stands on any NIC
//! With the feature `smoltcp`, the module of that name puts that stack on any `Nic`. With the feature
//! `selftest`, the module of that name tests a device for what this project promises of it.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(feature = "smoltcp", feature = "selftest"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod any;
mod config;
mod description;
mod pairs;
mod queues;
mod table;

#[cfg(feature = "selftest")]
pub mod selftest;
#[cfg(feature = "smoltcp")]
#[forbid(unsafe_code)]
pub mod smoltcp;

#[cfg(test)]
mod tests;

pub use any::AnyNic;
pub use config::Config;
pub use description::Description;
pub use pairs::MAX_QUEUE_PAIRS;
pub use queues::{AnyRx, AnyTx};
pub use table::{DRIVERS, Driver, DriverInfo, KnownDevice, KnownIds, find, known, supported};
