//! Our drivers on devices in another thread or process, over vfio-user.
//!
//! `PAGEWIRE_SEED=n` takes that seed, and `PAGEWIRE_CHECK=name` runs only the checks of the
//! conformance suite whose name contains that.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod bench;
mod conformance;
mod platform;
mod removal;
