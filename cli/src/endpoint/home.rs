//! What a device sits in: memory that it reaches, time, and the wire. One for each backend.

use std::os::fd::OwnedFd;
use std::time::Duration;

use pagewire::hal::{Instant, Platform};
use pagewire::outbox::MapFile;

use super::Link;
use crate::error::Failure;

/// A device's surroundings, in real time.
pub(crate) trait Home: Sized {
    /// What the driver is given.
    type Platform: Platform;

    /// Finds or makes the device that `link` names.
    fn build(link: &Link) -> Result<(Self, Self::Platform), Failure>;

    /// What makes ranges of files reachable for the device, where they are.
    fn mapper(&self) -> impl MapFile + Send + 'static;

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
