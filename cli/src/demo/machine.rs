//! What a device sits in: memory that it reaches, time, and the wire. One for each backend.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{Instant, Platform, Region};
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::qtest::{
    Qtest, QtestOptions, QtestPlatform, QtestRegion, QtestWire, find_qemu,
};
use pagewire_models::{Host, HostConfig, HostRegion, ModelHandle, ModelPlatform, Wire};

use super::args::{Args, PeerKind};
use super::input::Sealed;
use crate::error::Failure;

/// A device's surroundings.
pub(crate) trait Machine: Sized {
    /// What the driver is given.
    type Platform: Platform;
    /// The input, where the device reaches it.
    type Region: Region + 'static;

    /// What speaks against an input of `input_len` bytes, before any work is done.
    fn check(args: &Args, input_len: u64) -> Result<(), Failure> {
        let _ = (args, input_len);
        Ok(())
    }

    /// Builds the machine with the device, whose wire ends in `near`, and with room for
    /// `input_len` bytes.
    fn build(
        args: &Args,
        input_len: u64,
        near: Box<dyn Wire>,
    ) -> Result<(Self, Self::Platform), Failure>;

    /// Called once when everything is built: from here on time counts.
    fn start_clock(&mut self) {}

    /// Makes the input reachable for the device.
    fn register(&self, sealed: Sealed) -> Result<Arc<Self::Region>, Failure>;

    /// The bytes of the input.
    fn bytes(region: &Self::Region) -> &[u8];

    /// Now, for everybody.
    fn now(&self) -> Instant;

    /// If time is virtual: moves it, and returns `true`.
    fn advance(&self, by: Duration) -> bool;

    /// What becomes readable when a frame arrives, if time is real.
    fn readable(&self) -> Option<BorrowedFd<'_>>;

    /// Lets the device and its wire work; whether anything was done.
    fn step(&mut self) -> bool;

    /// What is known of the device's doings.
    fn seen(&self) -> Seen;
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

fn cannot_register(error: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("cannot register the input: {error}"))
}

/// A software model in this process. Time is virtual, unless the peer lives in real time.
pub(crate) struct ModelMachine {
    host: Host,
    model: ModelHandle<E1000e82574>,
    /// If time is real: the host's time at the start (the driver's waits have moved it by
    /// then), and the start.
    real: Option<(Instant, std::time::Instant)>,
}

impl Machine for ModelMachine {
    type Platform = ModelPlatform;
    type Region = HostRegion<Sealed>;

    fn build(args: &Args, _: u64, near: Box<dyn Wire>) -> Result<(Self, Self::Platform), Failure> {
        let host = Host::new(HostConfig {
            seed: args.seed,
            granule: args.dma_page.granule(),
        });
        let config = ModelConfig {
            seed: args.seed,
            ..ModelConfig::default()
        };
        let attached = host.attach(E1000e82574::new(config, near));
        let is_real = args.peer == PeerKind::Linux;
        let machine = Self {
            host,
            model: attached.handle,
            real: is_real.then(|| (Instant::ZERO, std::time::Instant::now())),
        };
        Ok((machine, attached.platform))
    }

    fn start_clock(&mut self) {
        if let Some(real) = &mut self.real {
            *real = (self.host.now(), std::time::Instant::now());
        }
    }

    fn register(&self, sealed: Sealed) -> Result<Arc<Self::Region>, Failure> {
        self.host.register(sealed).map_err(cannot_register)
    }

    fn bytes(region: &Self::Region) -> &[u8] {
        region.bytes()
    }

    fn now(&self) -> Instant {
        if let Some((base, start)) = &self.real {
            self.host.set_now(*base + start.elapsed());
        }
        self.host.now()
    }

    fn advance(&self, by: Duration) -> bool {
        let is_virtual = self.real.is_none();
        if is_virtual {
            self.host.advance(by);
        }
        is_virtual
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn step(&mut self) -> bool {
        self.model.step()
    }

    fn seen(&self) -> Seen {
        let most = |model: &mut E1000e82574| model.counters().most_fragments;
        Seen {
            region_bytes: Some(self.model.counters().region_bytes),
            most_fragments: Some(self.model.with_device(most)),
            violations: self.model.violations(),
        }
    }
}

/// Memory of QEMU's machine beside the input: rings, buffers, what is lost to alignment.
const ROOM: u64 = 96 << 20;
/// A q35 has 2 GiB of memory below its hole for PCI.
const MOST_INPUT: u64 = (2 << 30) - ROOM;
/// Frames carried in one step, each way: as often the driver gives buffers back in between.
const BURST: usize = 64;

/// QEMU's own device, without a guest: another process, real time, memory that both share.
pub(crate) struct QtestMachine {
    qtest: Qtest,
    /// The far end of the device's wire, and the cable that it is plugged into.
    wire: QtestWire,
    near: Box<dyn Wire>,
    frame: Vec<u8>,
}

impl Machine for QtestMachine {
    type Platform = QtestPlatform;
    type Region = QtestRegion<Sealed>;

    fn check(args: &Args, input_len: u64) -> Result<(), Failure> {
        let refused = |why: String| Failure::usage(format!("{}: {why}", args.device()));
        if input_len > MOST_INPUT {
            let most = MOST_INPUT >> 20;
            let why = format!("its memory takes an input of {most}M at most");
            return Err(refused(why));
        }
        find_qemu().map_err(|missing| refused(missing.to_string()))?;
        Ok(())
    }

    fn build(
        args: &Args,
        input_len: u64,
        near: Box<dyn Wire>,
    ) -> Result<(Self, Self::Platform), Failure> {
        Self::check(args, input_len)?;
        let device = args.device();
        let failed = |what: &dyn std::fmt::Display| Failure::failed(format!("{device}: {what}"));
        let qemu = find_qemu().map_err(|missing| failed(&missing))?;
        let mut options = QtestOptions::new(qemu);
        options.ram = (input_len.next_multiple_of(1 << 20) + ROOM) as usize;
        options.granule = args.dma_page.granule();
        let mut qtest = Qtest::start(&options).map_err(|error| failed(&error))?;
        let (Some(platform), Some(wire)) = (qtest.take_platform(), qtest.take_wire()) else {
            return Err(failed(&"QEMU has no device"));
        };
        let machine = Self {
            qtest,
            wire,
            near,
            frame: Vec::new(),
        };
        Ok((machine, platform))
    }

    fn register(&self, sealed: Sealed) -> Result<Arc<Self::Region>, Failure> {
        self.qtest.register(sealed).map_err(cannot_register)
    }

    fn bytes(region: &Self::Region) -> &[u8] {
        region.bytes()
    }

    fn now(&self) -> Instant {
        self.qtest.now()
    }

    fn advance(&self, _: Duration) -> bool {
        false
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wire.as_fd())
    }

    fn step(&mut self) -> bool {
        let now = self.qtest.now();
        let Self {
            wire, near, frame, ..
        } = self;
        let out = carry(wire, near.as_mut(), frame, now);
        let back = carry(near.as_mut(), wire, frame, now);
        out + back > 0
    }

    fn seen(&self) -> Seen {
        Seen {
            region_bytes: None,
            most_fragments: None,
            violations: Vec::new(),
        }
    }
}

/// Carries what has arrived at `from` to `to`; the number of frames.
fn carry(from: &mut dyn Wire, to: &mut dyn Wire, frame: &mut Vec<u8>, now: Instant) -> usize {
    let mut carried = 0;
    while carried < BURST && from.receive(frame, now) {
        to.transmit(frame, now);
        carried += 1;
    }
    carried
}
