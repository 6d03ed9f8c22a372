//! The conformance suite on the e1000e driver over QEMU's own e1000e, without a guest.
//!
//! `PAGEWIRE_SEED=n` takes that seed instead of 0, and `PAGEWIRE_CHECK=name` runs only the checks
//! whose name contains that. Needs QEMU, see `qtest_e1000e.rs`.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used)]

mod qtest;
#[path = "qtest/suite.rs"]
mod suite;

use std::sync::Arc;
use std::time::Duration;

use pagewire::e1000e::{Config, E1000e};
use pagewire::hal::{Instant, Region};
use pagewire_conformance::{Bench, FarEnd};
use pagewire_models::Wire;
use pagewire_models::qtest::{Qtest, QtestMemory, QtestOptions, QtestPlatform, QtestWire};

use suite::{Choice, Quirk};

/// What QEMU's device does otherwise than the suite expects of a device.
const QUIRKS: [Quirk; 2] = [
    // QEMU's e1000e pads nothing on transmit, whatever TCTL.PSP says. That the driver asks for it
    // shows on the model.
    ("padding", "was not padded"),
    // QEMU takes no frame off the wire while there is no buffer for it: the wire loses it, and the
    // device, which never saw it, counts nothing. `qtest_e1000e.rs` has a burst.
    ("lost frames are counted", "were lost, 0 counted"),
];

/// The far end of QEMU's wire.
struct Far(QtestWire);

impl FarEnd for Far {
    fn send(&mut self, frame: &[u8]) {
        self.0.transmit(&mut frame.to_vec(), Instant::ZERO);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        self.0.receive(&mut frame, Instant::ZERO).then_some(frame)
    }
}

/// One QEMU at a time, or a second one beside it.
struct QtestBench {
    options: QtestOptions,
    config: Config,
    machine: (Qtest, Far),
    second: Option<(Qtest, Far)>,
}

fn machine(options: &QtestOptions) -> Result<(Qtest, Far, QtestPlatform), String> {
    let mut qtest = Qtest::start(options).map_err(|error| error.to_string())?;
    let wire = qtest.take_wire().ok_or("no wire")?;
    let platform = qtest.take_platform().ok_or("no platform")?;
    Ok((qtest, Far(wire), platform))
}

impl QtestBench {
    fn new(options: QtestOptions, config: Config) -> Self {
        let (qtest, far, _) = machine(&options).unwrap();
        Self {
            options,
            config,
            machine: (qtest, far),
            second: None,
        }
    }
}

impl Bench for QtestBench {
    type Nic = E1000e<QtestPlatform>;
    type Memory = QtestMemory;

    fn open(&mut self, _seed: u64) -> Result<Self::Nic, String> {
        let (qtest, far, platform) = machine(&self.options)?;
        self.machine = (qtest, far);
        self.second = None;
        E1000e::open(platform, &self.config).map_err(|error| error.to_string())
    }

    fn open_second(&mut self, _seed: u64) -> Option<Result<Self::Nic, String>> {
        let opened = machine(&self.options).and_then(|(qtest, far, platform)| {
            self.second = Some((qtest, far));
            E1000e::open(platform, &self.config).map_err(|error| error.to_string())
        });
        Some(opened)
    }

    fn keeps_groups(&self) -> Option<bool> {
        Some(self.config.all_multicast)
    }

    fn longest_frame(&self) -> Option<u32> {
        Some(u32::from(self.config.mtu) + 14)
    }

    fn link_speed(&self) -> Option<u32> {
        Some(1000)
    }

    fn far_end(&mut self) -> &mut dyn FarEnd {
        &mut self.machine.1
    }

    fn advance(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn now(&self) -> Instant {
        self.machine.0.now()
    }

    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String> {
        let region = self
            .machine
            .0
            .register(bytes)
            .map_err(|error| error.to_string())?;
        Ok(region)
    }

    fn set_link(&mut self, up: bool) -> bool {
        self.machine.0.set_link(up).is_ok()
    }
}

/// Runs the suite with `config`; all must pass but the [`QUIRKS`].
fn run_suite(config: Config) {
    let Some(qemu) = qtest::options() else { return };
    let title = format!("MTU {}", config.mtu);
    let choice = Choice {
        only: &[""],
        patience: qtest::SOON,
    };
    suite::run_suite(&title, &mut QtestBench::new(qemu, config), &choice, &QUIRKS);
}

#[test]
fn the_suite_passes_with_frames_of_usual_length() {
    // Frames for groups do not come: a broadcast is none.
    let mut config = Config::default();
    config.all_multicast = false;
    run_suite(config);
}

#[test]
fn the_suite_passes_with_jumbo_frames() {
    let mut config = Config::default();
    config.mtu = 9000;
    // On QEMU a ring of any length is gone through at once: a short and a long one.
    (config.tx_descriptors, config.rx_descriptors) = (512, 32);
    run_suite(config);
}
