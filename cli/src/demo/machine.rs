//! What a device sits in: memory that it reaches, time, and the wire. One for each backend.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{Instant, Platform, Region};
use pagewire_models::Wire;
use pagewire_vfio::SealedFile;
use pagewire_vfio::protect::Arena;

use super::args::Args;
use super::report::Vfio;
use crate::error::Failure;

/// What the NIC's wire ends in.
pub(crate) enum FarEnd {
    /// Frames come and go here; this program carries them.
    Wire(Box<dyn Wire>),
    /// A TAP interface with a virtio-net header, which the device reads and writes by itself: the
    /// kernel behind it then gets checksums and segments to make as the device got them.
    Tap(OwnedFd),
    /// Another interface of this machine: a real cable carries the frames.
    Cable,
}

/// A device's surroundings.
pub(crate) trait Machine: Sized {
    /// Which device it is.
    type Device;
    /// What the driver is given.
    type Platform: Platform;
    /// The input, where the device reaches it.
    type Region: Region + 'static;

    /// Whether the device can have a TAP interface by itself.
    const TAKES_TAP: bool = false;

    /// Whether the device has a wire of its own: a real cable.
    const HAS_CABLE: bool = false;

    /// What speaks against `device` or an input of `input_len` bytes, before any work is done.
    fn check(args: &Args, device: &Self::Device, input_len: u64) -> Result<(), Failure> {
        let _ = (args, device, input_len);
        Ok(())
    }

    /// Builds the machine with `device`, whose wire ends in `far`, and with room for `input_len`
    /// bytes.
    fn build(
        args: &Args,
        device: &Self::Device,
        input_len: u64,
        far: FarEnd,
    ) -> Result<(Self, Self::Platform), Failure>;

    /// For the report; `driver` is the driver's name.
    fn about(&self, args: &Args, device: &Self::Device, driver: &str) -> About;

    /// Called once when everything is built: from here on time counts.
    fn start_clock(&mut self) {}

    /// Makes the input reachable for the device.
    fn register(&self, sealed: SealedFile) -> Result<Arc<Self::Region>, Failure>;

    /// Makes memory reachable for the device that the program goes on writing to. Options that ask
    /// for it elsewhere are refused before.
    fn register_arena(&self, arena: Arena) -> Result<Arc<dyn Region>, Failure> {
        drop(arena);
        Err(Failure::usage(
            "--scribble: the device reads a copy of the input",
        ))
    }

    /// The bytes of the input.
    fn bytes(region: &Self::Region) -> &[u8];

    /// Now, for everybody.
    fn now(&self) -> Instant;

    /// If time is virtual: moves it, and returns `true`.
    fn advance(&self, by: Duration) -> bool;

    /// What becomes readable when a frame arrives, if time is real.
    fn readable(&self) -> Option<BorrowedFd<'_>>;

    /// The longest sleep that misses nothing, if time is real.
    fn longest_sleep(&self) -> Duration {
        Duration::from_millis(10)
    }

    /// Lets the device and its wire work; whether anything was done.
    fn step(&mut self) -> bool;

    /// What is known of the device's doings.
    fn seen(&self) -> Seen;

    /// How VFIO has the device, if it has.
    fn vfio(&self) -> Option<Vfio> {
        None
    }
}

/// A device for people.
pub(crate) struct About {
    /// What it is.
    pub(crate) device: String,
    /// How memory of the program becomes reachable for it.
    pub(crate) mapping: &'static str,
    /// What the CPU time of a step is spent on.
    pub(crate) cpu: &'static str,
}

/// What a device has been seen to do; `None` where nobody can tell.
pub(crate) struct Seen {
    /// Bytes fetched from the program's own pages.
    pub(crate) region_bytes: Option<u64>,
    /// The most fragments in one frame.
    pub(crate) most_fragments: Option<u32>,
    /// What the driver did and must not.
    pub(crate) violations: Vec<String>,
}

pub(crate) fn cannot_register(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("cannot register the input: {error}"))
}
