//! A driver and the model of its device, on both ends of a socket.

use std::sync::Arc;
use std::time::Duration;

use pagewire_conformance::{Bench, FarEnd};
use pagewire_hal::{Instant, Nic, Region};
use pagewire_models::vfio_user::{Running, Server};
use pagewire_models::wire::{PairEnd, Plug, pair};
use pagewire_models::{Device, Wire};
use pagewire_vfio::Memory;
use pagewire_vfio::user::{Options, VfioUserHandle, VfioUserPlatform};

/// The far end of a wire, and the plug in between.
pub(crate) struct Far {
    pub(crate) end: PairEnd,
    plug: Plug,
}

impl FarEnd for Far {
    fn send(&mut self, frame: &[u8]) {
        self.end.transmit(&mut frame.to_vec(), Instant::ZERO);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let mut frame = Vec::new();
        self.end.receive(&mut frame, Instant::ZERO).then_some(frame)
    }
}

/// A model and its driver.
pub(crate) trait Subject {
    type Model: Device + 'static;
    type Nic: Nic<Memory = Memory>;
    /// Mbit/s, where the driver is told.
    const SPEED: Option<u32>;
    fn model(seed: u64, wire: Box<dyn Wire>) -> Self::Model;
    fn open(platform: VfioUserPlatform) -> Result<Self::Nic, String>;
    fn hold(model: &mut Self::Model, hold: bool);
    fn never_quiet(model: &mut Self::Model);
    fn remove(model: &mut Self::Model);
    fn need_reset(model: &mut Self::Model) -> bool;
    fn hash_key() -> Option<Vec<u8>>;
}

/// A model behind a socket.
pub(crate) struct Served<S: Subject> {
    // Dropped first: the socket is removed before its folder.
    pub(crate) server: Running<S::Model>,
    pub(crate) far: Far,
    pub(crate) folder: tempfile::TempDir,
}

impl<S: Subject> Served<S> {
    pub(crate) fn new(seed: u64) -> Self {
        let (near, end) = pair();
        let plug = end.plug();
        let folder = tempfile::tempdir().unwrap();
        let model = S::model(seed, Box::new(near));
        let server = Server::bind(&folder.path().join("nic"), model, Vec::new()).unwrap();
        Self {
            server: server.spawn().unwrap(),
            far: Far { end, plug },
            folder,
        }
    }

    pub(crate) fn connect(&self) -> VfioUserPlatform {
        let path = self.folder.path().join("nic");
        VfioUserPlatform::connect(&path, &Options::default()).unwrap()
    }
}

/// One device at a time, or a second one beside it.
pub(crate) struct UserBench<S: Subject> {
    served: Served<S>,
    handle: VfioUserHandle,
    second: Option<Served<S>>,
}

impl<S: Subject> UserBench<S> {
    pub(crate) fn new() -> Self {
        let served = Served::new(0);
        let handle = served.connect().handle();
        Self {
            served,
            handle,
            second: None,
        }
    }
}

impl<S: Subject> Bench for UserBench<S> {
    type Nic = S::Nic;
    type Memory = Memory;

    fn open(&mut self, seed: u64) -> Result<S::Nic, String> {
        self.second = None;
        self.served = Served::new(seed);
        let platform = self.served.connect();
        self.handle = platform.handle();
        S::open(platform)
    }

    fn open_second(&mut self, seed: u64) -> Option<Result<S::Nic, String>> {
        let second = self.second.insert(Served::new(seed));
        Some(S::open(second.connect()))
    }

    fn far_end(&mut self) -> &mut dyn FarEnd {
        &mut self.served.far
    }

    fn advance(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn now(&self) -> Instant {
        self.handle.now()
    }

    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String> {
        let region = self.handle.register(bytes);
        Ok(Arc::new(region.map_err(|error| error.to_string())?))
    }

    fn longest_frame(&self) -> Option<u32> {
        Some(1514)
    }

    fn link_speed(&self) -> Option<u32> {
        S::SPEED
    }

    fn hash_key(&self) -> Option<Vec<u8>> {
        S::hash_key()
    }

    fn sees_frames_at_once(&self) -> bool {
        true
    }

    fn set_link(&mut self, up: bool) -> bool {
        self.served.far.plug.set(up);
        true
    }

    fn hold_completions(&mut self, hold: bool) -> bool {
        self.served.server.with_device(|model| S::hold(model, hold));
        true
    }

    fn never_quiet(&mut self) -> bool {
        self.served.server.with_device(S::never_quiet);
        true
    }

    fn needs_reset(&mut self) -> bool {
        self.served.server.with_device(S::need_reset)
    }

    fn remove(&mut self) -> bool {
        self.served.server.with_device(S::remove);
        true
    }

    fn complaints(&mut self) -> Vec<String> {
        self.served.server.violations()
    }
}
