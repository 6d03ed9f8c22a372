//! What a device sits in: memory that it reaches, time, and the wire. One for each backend.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{Instant, Platform, Region};
use pagewire_vfio::LiveFile;

use super::Link;
use crate::error::Failure;

/// A device's surroundings, in real time.
pub(crate) trait Home: Sized {
    /// What the driver is given.
    type Platform: Platform;

    /// Finds or makes the device that `link` names.
    fn build(link: &Link) -> Result<(Self, Self::Platform), Failure>;

    /// Makes a range of a file reachable for the device, where it is.
    fn map(&self, file: LiveFile) -> Result<Arc<dyn Region>, Refusal>;

    /// Called once when everything is built: from here on time counts.
    fn start_clock(&mut self) {}

    /// Now.
    fn now(&self) -> Instant;

    /// Lets a device in this process and its wire work; whether anything was done.
    fn step(&mut self) -> bool;

    /// What becomes readable when a frame arrives.
    fn readable(&self) -> &[OwnedFd];

    /// The longest sleep that misses nothing.
    fn longest_sleep(&self) -> Duration;

    /// What it is, for people; `driver` is the driver's name.
    fn about(&self, link: &Link, driver: &str) -> String;
}

/// Why a range of a file is not reachable for a device.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// As much is mapped as may be.
    Full(String),
    /// Anything else.
    Failed(String),
}
