//! A machine for the integration tests: the e1000e driver on the model of the 82574L, and the
//! far end of its wire in the hands of the test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod frames;
pub mod packets;
pub mod peer;

use std::time::Duration;

use pagewire::e1000e::{Config, E1000e, E1000eRx, E1000eTx};
use pagewire::hal::{Granule, Nic, Phase, PoolLayout, PortPair, TxPort};
use pagewire_models::e1000e::{E1000e82574, ModelConfig};
use pagewire_models::wire::{PairEnd, pair};
use pagewire_models::{Host, HostConfig, HostMemory, ModelHandle, ModelPlatform, Wire};

pub type Tx = E1000eTx<ModelPlatform>;
pub type Port = TxPort<Tx, HostMemory>;

/// The driver on its model.
pub struct Lab {
    pub seed: u64,
    pub host: Host,
    pub model: ModelHandle<E1000e82574>,
    pub nic: E1000e<ModelPlatform>,
    pub rx: E1000eRx<ModelPlatform>,
    pub far: PairEnd,
}

pub fn granule(bytes: usize) -> Granule {
    Granule::from_bytes(bytes).unwrap()
}

pub fn layout() -> PoolLayout {
    PoolLayout {
        small_len: 192,
        small_count: 256,
        large_len: 9014,
        large_count: 256,
        page: granule(4096),
    }
}

impl Lab {
    /// Opens the driver on a model with every latitude, all from `seed`.
    pub fn new(seed: u64, granule: Granule, config: &Config) -> (Self, Tx) {
        let host = Host::new(HostConfig { seed, granule });
        let (near, far) = pair();
        let model = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        let attached = host.attach(E1000e82574::new(model, Box::new(near)));
        let mut nic = E1000e::open(attached.platform, config)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let (tx, rx) = nic.take_queues(0).unwrap();
        (
            Self {
                seed,
                host,
                model: attached.handle,
                nic,
                rx,
                far,
            },
            tx,
        )
    }

    /// The same with a port on the queue.
    pub fn with_port(seed: u64, granule: Granule, config: &Config) -> (Self, Port) {
        let (mut lab, tx) = Self::new(seed, granule, config);
        let port = TxPort::new(&mut lab.nic, tx, &layout()).unwrap();
        (lab, port)
    }

    /// Lets the device work for a while.
    pub fn run(&self, steps: u32) {
        for _ in 0..steps {
            self.model.step();
            self.host.advance(Duration::from_micros(10));
        }
    }

    /// The frames that have arrived at the far end.
    pub fn arrived(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut frame = Vec::new();
        while self.far.receive(&mut frame, self.host.now()) {
            frames.push(frame.clone());
        }
        frames
    }

    /// Puts a frame on the wire towards the NIC.
    pub fn deliver(&mut self, frame: &[u8]) {
        self.far.transmit(&mut frame.to_vec(), self.host.now());
    }

    /// Stops the device; false if it does not become quiet.
    pub fn quiesce(&mut self) -> bool {
        self.nic.begin_reset(self.host.now());
        for _ in 0..100_000 {
            match self.nic.poll(self.host.now()) {
                Ok(Phase::Quiet) => return true,
                Ok(Phase::Failed) | Err(_) => return false,
                Ok(_) => {}
            }
            self.run(1);
        }
        false
    }

    /// Resets the device with a port on its queue.
    pub fn reset(&mut self, port: &mut Port) {
        assert!(
            self.quiesce(),
            "seed {}: the device did not become quiet",
            self.seed
        );
        let pair = PortPair {
            tx: port,
            rx: &mut self.rx,
        };
        pagewire::hal::restart(&mut self.nic, &mut [pair]).unwrap();
    }

    /// Fails if the driver has done what the specification forbids.
    pub fn assert_clean(&self) {
        let violations = self.model.violations();
        assert!(violations.is_empty(), "seed {}: {violations:#?}", self.seed);
    }
}
