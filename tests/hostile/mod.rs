//! A driver in the hands of a device that lies, and of a program that calls whatever it pleases.
//!
//! [`exercise`] takes bytes, any bytes, and plays them: a configuration, a script of calls through
//! the safe API, and a script of lies. The integration tests and the fuzz target share it.

mod books;
#[allow(dead_code)] // Each test tries one driver.
mod e1000e;
mod exercise;
#[allow(dead_code)] // As above.
mod intel;
#[allow(dead_code)] // As above.
mod ixgbe;
mod pairs;
mod platform;
mod raw;
mod rig;
mod script;
mod stack;
mod subject;
#[allow(dead_code)] // As above.
mod virtio;

#[allow(unused_imports)] // Each user of this module needs a part of it.
pub(crate) use e1000e::E1000e;
#[allow(unused_imports)]
pub(crate) use exercise::{Outcome, exercise, play};
#[allow(unused_imports)]
pub(crate) use ixgbe::Ixgbe;
#[allow(unused_imports)]
pub(crate) use raw::{Offloaded, Raw};
#[allow(unused_imports)]
pub(crate) use rig::{Machine, Stopped, said};
#[allow(unused_imports)]
pub(crate) use script::{Decisions, End, Plan, Script};
#[allow(unused_imports)]
pub(crate) use subject::Subject;
#[allow(unused_imports)]
pub(crate) use virtio::Virtio;
