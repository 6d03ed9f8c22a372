//! The conformance suite on the e1000e driver over QEMU's own e1000e, without a guest.
//!
//! `PAGEWIRE_SEED=n` takes that seed instead of 0, and `PAGEWIRE_CHECK=name` runs only the checks
//! whose name contains that. Needs QEMU, see `qtest_e1000e.rs`.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used)]

mod qtest;

use std::sync::Arc;
use std::time::Duration;

use pagewire::e1000e::{Config, E1000e};
use pagewire::hal::{Instant, Region};
use pagewire_conformance::{Bench, FarEnd, Options, run};
use pagewire_models::Wire;
use pagewire_models::qtest::{Qtest, QtestMemory, QtestOptions, QtestPlatform, QtestWire};

/// Shortest frame on a wire, in bytes, without the frame check sequence.
const SHORTEST: usize = 60;

/// The far end of QEMU's wire.
struct Far(QtestWire);

impl FarEnd for Far {
    fn send(&mut self, frame: &[u8]) {
        self.0.transmit(&mut frame.to_vec(), Instant::ZERO);
    }

    /// QEMU's e1000e pads nothing on transmit, whatever TCTL.PSP says; a wire cannot carry what
    /// it sends then. So it is padded here: the checks of padding say nothing over qtest.
    fn take(&mut self) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        self.0.receive(&mut frame, Instant::ZERO).then(|| {
            frame.resize(frame.len().max(SHORTEST), 0);
            frame
        })
    }
}

/// One QEMU at a time.
struct QtestBench {
    options: QtestOptions,
    config: Config,
    machine: (Qtest, Far),
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
        }
    }
}

impl Bench for QtestBench {
    type Nic = E1000e<QtestPlatform>;
    type Memory = QtestMemory;

    fn open(&mut self, _seed: u64) -> Result<Self::Nic, String> {
        let (qtest, far, platform) = machine(&self.options)?;
        self.machine = (qtest, far);
        E1000e::open(platform, &self.config).map_err(|error| error.to_string())
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

#[test]
fn the_suite_passes_on_qemus_device() {
    let Some(qemu) = qtest::options() else { return };
    let mut failures = Vec::new();
    for mtu in [1500, 9000] {
        let mut config = Config::default();
        config.mtu = mtu;
        let mut options = Options::default();
        options.seed = std::env::var("PAGEWIRE_SEED").map_or(0, |seed| seed.parse().unwrap());
        options.only = std::env::var("PAGEWIRE_CHECK").ok();
        options.patience = qtest::SOON;
        // QEMU is another process, with its own turn on the processor.
        options.settle = Duration::from_millis(20);
        let report = run(&mut QtestBench::new(qemu.clone(), config), &options);
        println!("MTU {mtu}\n{report}");
        if !report.passed() {
            failures.push(format!("MTU {mtu}\n{report}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
