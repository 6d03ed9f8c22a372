//! QEMU's own device, without a guest: another process, real time, a socket as its wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pagewire::drivers::Config;
use pagewire::drivers::selftest::{Peer, Station, Stray};
use pagewire::hal::Instant;
use pagewire_models::qtest::{
    Qtest, QtestMemory, QtestOptions, QtestPlatform, QtestWire, find_qemu,
};

use super::peer::FarEnd;
use super::summary::Surroundings;
use super::{Args, Bench};
use crate::error::Failure;
use crate::software::SoftwareNic;

/// Frames that can wait: QEMU holds back what does not fit the socket.
const WAITING: u32 = 64;
/// Memory of QEMU's machine.
const RAM: usize = 64 << 20;

/// QEMU's device, a new QEMU at each opening.
pub(super) struct Emulated {
    nic: SoftwareNic,
    options: QtestOptions,
    has_peer: bool,
    stop: Arc<AtomicBool>,
    start: std::time::Instant,
    running: Option<Running>,
}

struct Running {
    /// Ends QEMU when it is dropped.
    qtest: Qtest,
    far: FarEnd<QtestWire>,
}

impl Emulated {
    pub(super) fn new(
        args: &Args,
        nic: &SoftwareNic,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let qemu = find_qemu().map_err(|missing| Failure::usage(format!("{nic}: {missing}")))?;
        let mut options = QtestOptions::new(qemu);
        options.device = nic.qemu_device();
        options.ram = RAM;
        Ok(Self {
            nic: nic.clone(),
            options,
            has_peer: !args.wants_no_peer(),
            stop: Arc::clone(stop),
            start: std::time::Instant::now(),
            running: None,
        })
    }
}

impl Bench for Emulated {
    fn surroundings(&self) -> Surroundings {
        let peer = match self.has_peer {
            true => "this process, by QEMU's datagram socket",
            false => "none",
        };
        Surroundings {
            backend: self.nic.description(),
            peer: peer.into(),
            iommu: "none: QEMU's machine is without".into(),
            virtual_time: false,
        }
    }
}

impl Station for Emulated {
    type Platform = QtestPlatform;
    type Memory = QtestMemory;

    fn open(&mut self) -> Result<QtestPlatform, String> {
        self.running = None;
        let failed = |error: std::io::Error| format!("QEMU does not start: {error}");
        let mut qtest = Qtest::start(&self.options).map_err(failed)?;
        let platform = qtest.take_platform().ok_or("QEMU has no device")?;
        let wire = qtest.take_wire().ok_or("QEMU's device has no wire")?;
        let far = FarEnd::of(wire, WAITING);
        self.running = Some(Running { qtest, far });
        Ok(platform)
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        self.nic.configure(&mut config);
        config
    }

    fn now(&self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn wait(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn peer(&mut self) -> Option<&mut dyn Peer> {
        if !self.has_peer {
            return None;
        }
        if self.running.is_none() {
            self.open().ok()?;
        }
        self.running
            .as_mut()
            .map(|running| running as &mut dyn Peer)
    }

    fn peer_advice(&self) -> String {
        "leave `--peer none` out".into()
    }

    fn stray(&mut self, _: usize, _: &[u8]) -> Result<Box<dyn Stray>, String> {
        Err("there is no IOMMU: QEMU's device reaches all memory of its machine".into())
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Peer for Running {
    fn mac_address(&self) -> pagewire::hal::MacAddress {
        self.far.mac_address()
    }

    fn room(&self) -> u32 {
        self.far.room()
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.far.send(frame)
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, String> {
        self.far.receive(frame)
    }

    /// QEMU cuts the wire at its end.
    fn set_carrier(&mut self, on: bool) -> bool {
        self.qtest.set_link(on).is_ok()
    }
}
