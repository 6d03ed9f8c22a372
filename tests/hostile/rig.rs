//! A machine with the model in it, the far end of its wire, and what every run is checked for.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{Debug, Display};
use std::time::Duration;

use pagewire::e1000e::{E1000e, E1000eRx, E1000eTx};
use pagewire::hal::{Nic, NicError, Phase, TxPort};
use pagewire_models::e1000e::{E1000e82574, LieCounters, ModelConfig};
use pagewire_models::wire::{PairEnd, pair_with_capacity};
use pagewire_models::{Host, HostConfig, Wire};

use super::platform::{Watch, WatchedMemory, WatchedPlatform};
use super::script::Plan;

pub(crate) type Nic82574 = E1000e<WatchedPlatform>;
pub(crate) type Rx = E1000eRx<WatchedPlatform>;
pub(crate) type Port = TxPort<E1000eTx<WatchedPlatform>, WatchedMemory>;

/// The longest that `open` may take, on the machine's clock: 67 words of the EEPROM at half a
/// second each, and all other limits together.
const LONGEST_OPEN: Duration = Duration::from_secs(40);
/// The longest that a reset may take from `begin_reset` to its end: 500 ms for the device, 500 ms
/// for the bus, 100 ms for the reset, and what lies between two polls.
const LONGEST_STOP: Duration = Duration::from_millis(1200);
/// Frames that the wire holds.
const WIRE: usize = 256;
/// Memory that the driver has while it is open: two rings and the receive buffers.
pub(crate) const DRIVERS_MEMORY: usize = 3;
/// Memory that a port has besides: small and large buffers.
pub(crate) const PORTS_MEMORY: usize = 2;

/// The text of an error, which is not empty and not what `Debug` says; the last of several.
pub(crate) fn said(error: &(impl Display + Debug)) -> String {
    let text = error.to_string();
    assert!(text.len() > 10, "{error:?} says nothing: {text:?}");
    assert_ne!(text, format!("{error:?}"), "an error for programmers");
    text
}

/// How an attempt to stop the device ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stopped {
    Quiet,
    Failed(Option<NicError>),
}

/// A host, the model, and what has been seen.
pub(crate) struct Machine {
    pub(crate) watch: Watch,
    pub(crate) far: PairEnd,
    pub(crate) plan: Plan,
    /// What errors have said.
    pub(crate) errors: BTreeSet<String>,
    /// Frames that were posted, by serial number, if they are all to be found on the wire.
    pub(crate) posted: HashMap<u32, Vec<u8>>,
    /// Frames seen on the wire.
    pub(crate) sent: u64,
}

impl Machine {
    /// A machine with an honest device in it, and the platform for the driver.
    pub(crate) fn new(plan: &Plan) -> (Self, WatchedPlatform) {
        let host = Host::new(HostConfig {
            seed: plan.seed,
            granule: plan.granule,
        });
        let (near, far) = pair_with_capacity(WIRE);
        let model = ModelConfig {
            seed: plan.seed,
            ..ModelConfig::default()
        };
        let attached = host.attach(E1000e82574::new(model, Box::new(near)));
        let watch = Watch::new(&host, attached.handle);
        let platform = WatchedPlatform::new(attached.platform, watch.clone());
        let machine = Self {
            watch,
            far,
            plan: plan.clone(),
            errors: BTreeSet::new(),
            posted: HashMap::new(),
            sent: 0,
        };
        (machine, platform)
    }

    /// Makes the device lie as the plan says, or not at all.
    pub(crate) fn set_hostile(&self, on: bool) {
        let hostile = on.then(|| self.plan.hostile.clone());
        let model = &self.watch.model;
        model.with_device(|device| device.be_hostile(hostile));
    }

    pub(crate) fn told(&self) -> LieCounters {
        let model = &self.watch.model;
        model.with_device(|device| device.lies_told().clone())
    }

    /// Opens the driver. An error leaves nothing behind.
    pub(crate) fn open(&mut self, platform: WatchedPlatform) -> Result<Nic82574, NicError> {
        let begin = self.watch.host.now();
        let opened = E1000e::open(platform, &self.plan.config);
        let took = self.watch.host.now().saturating_since(begin);
        assert!(took <= LONGEST_OPEN, "open took {took:?}");
        if let Err(error) = opened {
            self.note(&error);
            assert_eq!(self.watch.live(), 0, "a refused open keeps memory: {error}");
        }
        opened
    }

    /// Takes note of an error.
    pub(crate) fn note(&mut self, error: &(impl Display + Debug)) {
        self.errors.insert(said(error));
    }

    /// Stops the device, in bounded time.
    pub(crate) fn stop(&mut self, nic: &mut Nic82574) -> Stopped {
        let begin = self.watch.host.now();
        nic.begin_reset(begin);
        loop {
            match nic.poll(self.watch.host.now()) {
                Ok(Phase::Quiet) => return Stopped::Quiet,
                Ok(Phase::Failed) => return Stopped::Failed(None),
                Ok(Phase::Stopping) => {}
                Ok(other) => panic!("{other:?} after begin_reset"),
                Err(error) => {
                    self.note(&error);
                    let named = matches!(error, NicError::NotQuiet | NicError::Removed);
                    assert!(named, "poll said {error:?}");
                    return Stopped::Failed(Some(error));
                }
            }
            let took = self.watch.host.now().saturating_since(begin);
            assert!(took <= LONGEST_STOP, "stopping for {took:?}");
            self.watch.run(2, Duration::from_micros(500));
        }
    }

    /// What the bus has seen and must not, whatever the device did: accesses to registers that
    /// are not there, doorbells too early. And, if the device only told lies that excuse nothing,
    /// reads of memory that was given back. What the model itself has to say of the driver is left
    /// to the tests on an honest one.
    pub(crate) fn check_bus(&self) {
        for violation in self.watch.model.violations() {
            let early = violation.starts_with("DMA read") && self.plan.truthful;
            let access = violation.starts_with("configuration space")
                || violation.contains("-bit register")
                || violation.starts_with("doorbell");
            assert!(!early && !access, "{violation}");
        }
    }

    /// Takes what is on the wire and compares it with what was posted, where that can be said.
    pub(crate) fn check_wire(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut frame = Vec::new();
        while self.far.receive(&mut frame, self.watch.host.now()) {
            self.sent += 1;
            if self.plan.truthful && !self.plan.tcp {
                self.check_frame(&frame);
            }
            all.push(frame.clone());
        }
        all
    }

    fn check_frame(&mut self, frame: &[u8]) {
        let serial = frame.get(2..6).and_then(|word| word.try_into().ok());
        let serial = u32::from_be_bytes(serial.unwrap_or_default());
        let Some(expected) = self.posted.remove(&serial) else {
            panic!("frame {serial} was not posted, or was sent before: {frame:02x?}");
        };
        let (start, padding) = frame.split_at(expected.len().min(frame.len()));
        // The checksums of the header are the device's to fill in.
        for (at, (is, was)) in start.iter().zip(&expected).enumerate() {
            let filled = expected[12] == 8 && (24..54).contains(&at);
            assert!(is == was || filled, "byte {at} of frame {serial}");
        }
        assert!(start.len() == expected.len(), "frame {serial} was cut");
        assert!(padding.iter().all(|byte| *byte == 0), "padding of {serial}");
    }
}
