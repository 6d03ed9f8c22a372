//! A driver in the hands of a device that lies, and of a program that calls whatever it pleases.
//!
//! [`exercise`] takes bytes, any bytes, and plays them: a configuration, a script of calls through
//! the safe API, and a script of lies. The integration tests and the fuzz target share it.

mod books;
mod exercise;
mod platform;
mod raw;
mod rig;
mod script;
mod stack;

#[allow(unused_imports)] // Each user of this module needs a part of it.
pub(crate) use exercise::{Outcome, exercise, play};
#[allow(unused_imports)]
pub(crate) use raw::{Offloaded, Raw};
#[allow(unused_imports)]
pub(crate) use rig::{Machine, Nic82574, Stopped, said};
#[allow(unused_imports)]
pub(crate) use script::{End, Plan, Script, TRUTHFUL};
