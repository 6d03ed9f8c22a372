//! The conformance suite on the virtio-net driver over QEMU's own virtio-net, without a guest, in
//! many combinations of features.
//!
//! On datagram sockets QEMU's device offers neither checksums nor segmentation. Where these are
//! asked for the wire is `tap (QEMU) - bridge - tap (here)` in a network namespace: Linux makes
//! what the device leaves to it. That needs root.
//!
//! Eight combinations have each pair of choices in one of them; `PAGEWIRE_FULL=yes` runs more.
//! `PAGEWIRE_SEED=n` takes that seed instead of 0, and `PAGEWIRE_CHECK=name` runs only the checks
//! whose name contains that. Needs QEMU, see `qtest_e1000e.rs`.
#![cfg(target_os = "linux")]
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used)]

#[path = "qtest/bridge.rs"]
mod bridge;
#[path = "qtest/namespace.rs"]
mod namespace;
mod qtest;
#[path = "qtest/suite.rs"]
mod suite;

use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{Instant, Region};
use pagewire::virtio::{Config, Features, VirtioNet};
use pagewire_conformance::{Bench, FarEnd};
use pagewire_models::Wire;
use pagewire_models::qtest::{
    Netdev, Qtest, QtestMemory, QtestOptions, QtestPlatform, VirtioOptions,
};

use suite::{Choice, Quirk};

/// Nothing is done otherwise than the suite expects: the driver knows what QEMU (11.1.3) and Linux
/// do on their own. Without a link QEMU leaves what is posted in order where it is: the driver
/// says `Hung`, and a reset frees it. In a packed ring in order a frame that fills the ring is
/// never used: there is none. Of a request of one segment with TCP options Linux makes nothing: it
/// is not asked. The link of a packed ring is left alone (see `set_link`).
const QUIRKS: [Quirk; 0] = [];

/// The far end of the device's wire.
struct Far(Box<dyn Wire>);

impl FarEnd for Far {
    fn send(&mut self, frame: &[u8]) {
        self.0.transmit(&mut frame.to_vec(), Instant::ZERO);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        self.0.receive(&mut frame, Instant::ZERO).then_some(frame)
    }
}

/// What the device is plugged into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    /// Datagram sockets.
    Dgram,
    /// A TAP behind which Linux makes checksums and segments.
    Bridge,
}

/// A combination: the device, the driver, the wire.
struct Combination {
    device: VirtioOptions,
    config: Config,
    line: Line,
    /// The checks that are run: those whose name contains one of these.
    only: &'static [&'static str],
}

/// One QEMU at a time, or a second one beside it.
struct QtestBench {
    options: QtestOptions,
    combination: Combination,
    machine: Option<(Qtest, Far)>,
    second: Option<Qtest>,
}

impl QtestBench {
    /// Starts a QEMU with the device on `line`.
    fn start(&self, line: Line) -> Result<(Qtest, Far, QtestPlatform), String> {
        let mut options = self.options.clone();
        let device = &self.combination.device;
        options.device = device.to_string();
        let mut far: Option<Box<dyn Wire>> = None;
        if line == Line::Bridge {
            let made = bridge::bridge(device.queue_pairs);
            let (queues, tap) = made.map_err(|error| error.to_string())?;
            options.netdev = Netdev::Tap(queues.into());
            far = Some(Box::new(tap));
        }
        let mut qtest = Qtest::start(&options).map_err(|error| error.to_string())?;
        let far = match far {
            Some(far) => far,
            None => Box::new(qtest.take_wire().ok_or("no wire")?),
        };
        let platform = qtest.take_platform().ok_or("no platform")?;
        Ok((qtest, Far(far), platform))
    }

    fn running(&self) -> Result<&(Qtest, Far), String> {
        self.machine.as_ref().ok_or_else(|| "no QEMU".to_owned())
    }

    fn driver(&self, platform: QtestPlatform) -> Result<VirtioNet<QtestPlatform>, String> {
        VirtioNet::open(platform, &self.combination.config).map_err(|error| error.to_string())
    }
}

impl Bench for QtestBench {
    type Nic = VirtioNet<QtestPlatform>;
    type Memory = QtestMemory;

    fn open(&mut self, _seed: u64) -> Result<Self::Nic, String> {
        (self.machine, self.second) = (None, None);
        let (qtest, far, platform) = self.start(self.combination.line)?;
        self.machine = Some((qtest, far));
        self.driver(platform)
    }

    fn open_second(&mut self, _seed: u64) -> Option<Result<Self::Nic, String>> {
        // It needs no far end.
        let opened = self.start(Line::Dgram).and_then(|(qtest, _, platform)| {
            self.second = Some(qtest);
            self.driver(platform)
        });
        Some(opened)
    }

    fn far_end(&mut self) -> &mut dyn FarEnd {
        &mut self.machine.as_mut().unwrap().1
    }

    fn advance(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn now(&self) -> Instant {
        self.machine.as_ref().unwrap().0.now()
    }

    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String> {
        let region = self.running()?.0.register(bytes);
        Ok(region.map_err(|error| error.to_string())?)
    }

    fn keeps_groups(&self) -> Option<bool> {
        Some(self.combination.config.all_multicast)
    }

    fn is_promiscuous(&self) -> bool {
        self.combination.config.promiscuous
    }

    fn longest_frame(&self) -> Option<u32> {
        Some(u32::from(self.combination.config.mtu) + 14)
    }

    fn set_link(&mut self, up: bool) -> bool {
        // With a packed ring QEMU drops one frame of those that are posted without a link, and
        // leaves notifications off (`virtqueue_packed_drop_all`, QEMU `hw/virtio/virtio.c`): what
        // is posted later waits without a doorbell until the driver is polled and says `Hung`.
        // Seen now and then as "4 frames have not been on the wire" after "link down and up".
        if self.combination.device.packed {
            return false;
        }
        let machine = self.machine.as_mut();
        machine.is_some_and(|(qtest, _)| qtest.set_link(up).is_ok())
    }

    fn remove(&mut self) -> bool {
        self.running().map(|(qtest, _)| qtest.kill()).is_ok()
    }
}

/// Runs the suite; all must pass but the [`QUIRKS`].
fn run(combination: Combination) {
    let Some(options) = qtest::options() else {
        return;
    };
    if combination.line == Line::Bridge && !bridge::can_bridge() {
        return;
    }
    let Combination { device, config, .. } = &combination;
    let (tx, rx, mtu) = (config.tx_descriptors, config.rx_descriptors, config.mtu);
    let title = format!("{device}, rings of {tx} and {rx}, MTU {mtu}");
    let choice = Choice {
        only: combination.only,
        patience: qtest::SOON,
    };
    let mut bench = QtestBench {
        options,
        combination,
        machine: None,
        second: None,
    };
    suite::run_suite(&title, &mut bench, &choice, &QUIRKS);
}

/// The device as QEMU has it, with what `device` says otherwise, a driver that takes all that it
/// can, and rings of `tx` and `rx` descriptors.
fn combination(device: &str, line: Line, tx: u16, rx: u16, mtu: u16) -> Combination {
    let mut device: VirtioOptions = device.parse().unwrap();
    device.mac = Some(qtest::MAC);
    device.rx_queue_size = rx.max(256);
    let mut config = Config::default();
    // Joined segments: the far end here sends none (`qtest_virtio.rs` has some).
    config.features = Features::all() - Features::GUEST_TSO4 - Features::GUEST_TSO6;
    (config.tx_descriptors, config.rx_descriptors) = (tx, rx);
    config.mtu = mtu;
    // By the device, or by the user alone.
    device.host_mtu = (mtu > 1500).then_some(mtu);
    // Frames for groups come, or do not.
    config.all_multicast = mtu > 1500;
    Combination {
        device,
        config,
        line,
        only: &[""],
    }
}

// Of ring format, indirect descriptors, event index, mergeable buffers, offloads (none, checksum,
// segmentation), order, length of the rings, MTU and ACCESS_PLATFORM these eight have each pair of
// choices.

#[test]
fn split_as_qemu_has_it() {
    run(combination("", Line::Dgram, 256, 256, 1500));
}

#[test]
fn packed_with_segmentation() {
    run(combination("packed=on", Line::Bridge, 256, 1024, 1500));
}

#[test]
fn split_and_plain_with_segmentation() {
    let device = "indirect_desc=off,event_idx=off,mrg_rxbuf=off,in_order=on,iommu_platform=on";
    run(combination(device, Line::Bridge, 64, 256, 9000));
}

#[test]
fn packed_in_order_with_checksums() {
    let device = "packed=on,indirect_desc=off,event_idx=off,in_order=on,\
                  host_tso4=off,host_tso6=off";
    run(combination(device, Line::Bridge, 256, 1024, 9000));
}

#[test]
fn split_in_order_with_checksums() {
    let device = "mrg_rxbuf=off,in_order=on,iommu_platform=on,host_tso4=off,host_tso6=off";
    run(combination(device, Line::Bridge, 64, 1024, 1500));
}

#[test]
fn packed_and_plain() {
    let device = "packed=on,indirect_desc=off,event_idx=off,mrg_rxbuf=off";
    run(combination(device, Line::Dgram, 64, 256, 1500));
}

#[test]
fn split_in_order() {
    let device = "event_idx=off,mrg_rxbuf=off,in_order=on,iommu_platform=on";
    run(combination(device, Line::Dgram, 256, 1024, 9000));
}

#[test]
fn packed_by_index_with_checksums() {
    let device = "packed=on,indirect_desc=off,iommu_platform=on,host_tso4=off,host_tso6=off";
    run(combination(device, Line::Bridge, 64, 256, 9000));
}

/// Two pairs of queues. Linux spreads what the device is to receive over both, of which most
/// checks look at one: these are the checks that need none of it. `qtest_virtio.rs` receives.
#[test]
fn several_pairs() {
    for device in [
        "queue_pairs=2",
        "queue_pairs=2,packed=on",
        "queue_pairs=2,packed=on,in_order=on",
    ] {
        let mut pairs = combination(device, Line::Bridge, 64, 256, 1500);
        pairs.config.queue_pairs = 2;
        pairs.only = &["fragment", "segmentation", "queue", "reset", "interrupts"];
        run(pairs);
    }
}

#[test]
fn more_combinations() {
    if std::env::var("PAGEWIRE_FULL").as_deref() != Ok("yes") {
        println!("not run: only with PAGEWIRE_FULL=yes");
        return;
    }
    for ring in ["packed=off", "packed=on"] {
        for (rest, line, tx, rx, mtu) in [
            // Rings so short that every frame wraps, and pairs of queues of which one is used.
            ("", Line::Dgram, 16, 16, 1500),
            ("indirect_desc=off", Line::Dgram, 16, 16, 9000),
            ("queue_pairs=2", Line::Bridge, 16, 64, 9000),
            // Segmentation of one version of IP alone.
            ("host_tso4=off", Line::Bridge, 128, 512, 1500),
            ("host_tso6=off,event_idx=off", Line::Bridge, 128, 512, 9000),
            // The offers of the TAP refused one by one.
            ("csum=off,guest_csum=off", Line::Bridge, 256, 256, 1500),
            ("status=off,ctrl_vq=off", Line::Bridge, 256, 256, 1500),
            ("in_order=on,event_idx=off", Line::Bridge, 64, 128, 1500),
        ] {
            run(combination(&format!("{ring},{rest}"), line, tx, rx, mtu));
        }
    }
}
