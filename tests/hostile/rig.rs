//! A machine with the model in it, the far end of its wire, and what every run is checked for.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{Debug, Display};
use std::time::Duration;

use pagewire::hal::{Nic, NicError, Phase, TxPort};
use pagewire_models::wire::{PairEnd, pair_with_capacity};
use pagewire_models::{Host, HostConfig, ModelHandle, Wire};

use super::platform::{Watch, WatchedMemory, WatchedPlatform};
use super::script::Plan;
use super::subject::Subject;

/// The driver's receive queue.
pub(crate) type Rx<S> = <<S as Subject>::Nic as Nic>::Rx;
/// A port on the driver's transmit queue.
pub(crate) type Port<S> = TxPort<<<S as Subject>::Nic as Nic>::Tx, WatchedMemory>;

/// Frames that the wire holds.
const WIRE: usize = 256;
/// Bytes of the Ethernet, IPv4 and TCP headers of what asks for an offload.
pub(crate) const SEGMENT_HEADER: usize = 54;
/// Memory that a port has besides the driver's: small and large buffers.
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

/// A frame, or a request for segmentation, that was posted.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) bytes: Vec<u8>,
    /// Bytes of payload in each segment, and how many of all have been seen.
    pub(crate) segments: Option<(usize, usize)>,
}

/// A host, the model, and what has been seen.
pub(crate) struct Machine<S: Subject> {
    pub(crate) watch: Watch,
    pub(crate) model: ModelHandle<S::Model>,
    pub(crate) far: PairEnd,
    pub(crate) plan: Plan<S>,
    /// What errors have said.
    pub(crate) errors: BTreeSet<String>,
    /// What was posted, by serial number, if it is all to be found on the wire.
    pub(crate) posted: HashMap<u32, Posted>,
    /// Frames seen on the wire.
    pub(crate) sent: u64,
    /// Memory that the driver has while it is open: rings and receive buffers.
    pub(crate) drivers_memory: usize,
}

impl<S: Subject> Machine<S> {
    /// A machine with an honest device in it, and the platform for the driver.
    pub(crate) fn new(plan: &Plan<S>) -> (Self, WatchedPlatform) {
        let host = Host::new(HostConfig {
            seed: plan.seed,
            granule: plan.granule,
        });
        let (near, far) = pair_with_capacity(WIRE);
        let attached = host.attach(S::model(&plan.setup, plan.seed, Box::new(near)));
        attached.handle.be_eager(S::is_eager(&plan.setup));
        let watch = Watch::new(&host, attached.handle.erase());
        let platform = WatchedPlatform::new(attached.platform, watch.clone());
        let machine = Self {
            watch,
            model: attached.handle,
            far,
            plan: plan.clone(),
            errors: BTreeSet::new(),
            posted: HashMap::new(),
            sent: 0,
            drivers_memory: 0,
        };
        (machine, platform)
    }

    /// Makes the device lie as the plan says, or not at all.
    pub(crate) fn set_hostile(&self, on: bool) {
        let hostile = on.then(|| self.plan.hostile.clone());
        self.model
            .with_device(|device| S::be_hostile(device, hostile));
    }

    /// How often the device has told this lie.
    pub(crate) fn told(&self, lie: S::Lie) -> u64 {
        self.model.with_device(|device| S::told(device, lie))
    }

    /// Holds completions back, or no more.
    pub(crate) fn hold_completions(&self, hold: bool) {
        self.model
            .with_device(|device| S::hold_completions(device, hold));
    }

    /// Opens the driver. An error leaves nothing behind.
    pub(crate) fn open(&mut self, platform: WatchedPlatform) -> Result<S::Nic, NicError> {
        let begin = self.watch.host.now();
        let opened = S::open(platform, &self.plan.setup);
        let took = self.watch.host.now().saturating_since(begin);
        assert!(took <= S::LONGEST_OPEN, "open took {took:?}");
        if let Err(error) = &opened {
            self.note(error);
            let kept = self.watch.live();
            assert!(
                kept == 0 || S::may_open_leak(&self.plan.setup, error),
                "a refused open keeps {kept} pieces of memory: {error}"
            );
        }
        if let Ok(nic) = &opened {
            let mac = nic.mac_address();
            let is_station = !mac.is_multicast() && mac.0 != [0; 6];
            assert!(is_station, "{mac} is no station address");
        }
        self.drivers_memory = self.watch.live();
        opened
    }

    /// Takes note of an error.
    pub(crate) fn note(&mut self, error: &(impl Display + Debug)) {
        self.errors.insert(said(error));
    }

    /// Stops the device, in bounded time.
    pub(crate) fn stop(&mut self, nic: &mut S::Nic) -> Stopped {
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
            assert!(took <= S::LONGEST_STOP, "stopping for {took:?}");
            self.watch.run(2, Duration::from_micros(500));
        }
    }

    /// What the bus has seen and must not, whatever the device did: accesses to registers that
    /// are not there (unless it lied about where they are), doorbells too early. And, if the device only told lies that excuse nothing,
    /// reads of memory that was given back. What the model itself has to say of the driver is left
    /// to the tests on an honest one.
    pub(crate) fn check_bus(&self) {
        for violation in self.model.violations() {
            let early = violation.starts_with("DMA read") && self.plan.truthful;
            let access = violation.starts_with("configuration space")
                || violation.contains("-bit register") && !self.plan.registers_move
                || violation.starts_with("doorbell")
                    && !(self.plan.registers_move && violation.contains("for queue"));
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
        let Some(mut expected) = self.posted.remove(&serial) else {
            panic!("frame {serial} was not posted, or was sent before: {frame:02x?}");
        };
        if let Some((len, seen)) = expected.segments {
            let (header, payload) = expected.bytes.split_at(SEGMENT_HEADER);
            let left = payload.get(seen..).unwrap_or_default();
            let part = left.get(..len.min(left.len())).unwrap_or_default();
            assert_eq!(frame.get(..14), header.get(..14), "header of {serial}");
            let got = frame.get(SEGMENT_HEADER..).unwrap_or_default();
            let (got, padding) = got.split_at(part.len().min(got.len()));
            assert_eq!(got, part, "segment of {serial} at {seen}");
            assert!(padding.iter().all(|byte| *byte == 0), "padding of {serial}");
            if seen + part.len() < payload.len() {
                expected.segments = Some((len, seen + part.len()));
                self.posted.insert(serial, expected);
            }
            return;
        }
        let expected = expected.bytes;
        let (start, padding) = frame.split_at(expected.len().min(frame.len()));
        // The checksums of the header are the device's to fill in.
        for (at, (is, was)) in start.iter().zip(&expected).enumerate() {
            let filled = expected[12] == 8 && (24..SEGMENT_HEADER).contains(&at);
            assert!(is == was || filled, "byte {at} of frame {serial}");
        }
        assert!(start.len() == expected.len(), "frame {serial} was cut");
        assert!(padding.iter().all(|byte| *byte == 0), "padding of {serial}");
    }
}
