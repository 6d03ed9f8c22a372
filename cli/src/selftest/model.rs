//! A software model in this process: time is virtual, the peer is the far end of its wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pagewire::drivers::Config;
use pagewire::drivers::selftest::{Peer, Station, Stray};
use pagewire::hal::{DeviceAddress, Instant};
use pagewire_models::e1000e::E1000e82574;
use pagewire_models::ixgbe::{self, Ixgbe82599};
use pagewire_models::virtio::{self, VirtioNet};
use pagewire_models::wire::{PairEnd, pair};
use pagewire_models::{Device, Host, HostConfig, HostMemory, ModelHandle, ModelPlatform, Wire};

use super::peer::FarEnd;
use super::summary::Surroundings;
use super::{Args, Bench};
use crate::software::{NicKind, SoftwareNic};

/// Where the device is told that there is memory: a host maps none below 8 GiB.
const STRAY: u64 = 1 << 32;
/// The longest step of the clock.
const STEP: Duration = Duration::from_micros(10);

/// A model, new at each opening: the machine around it as well.
pub(super) struct Modelled {
    nic: SoftwareNic,
    has_peer: bool,
    stop: Arc<AtomicBool>,
    /// The time in nanoseconds, which goes on from machine to machine.
    now: Arc<AtomicU64>,
    opened: u64,
    host: Host,
    model: Option<ModelHandle<dyn Device>>,
    peer: FarEnd<PairEnd>,
    violations: Vec<String>,
    /// The test makes the device fault on purpose.
    has_strayed: bool,
}

impl Modelled {
    pub(super) fn new(args: &Args, nic: &SoftwareNic, stop: &Arc<AtomicBool>) -> Self {
        let now = Arc::default();
        Self {
            nic: nic.clone(),
            has_peer: !args.wants_no_peer(),
            stop: Arc::clone(stop),
            opened: 0,
            host: Host::new(HostConfig::default()),
            model: None,
            // Nobody is at the other end before the first opening.
            peer: FarEnd::of_pair(pair().0, Arc::clone(&now)),
            now,
            violations: Vec::new(),
            has_strayed: false,
        }
    }

    fn attach(&mut self, wire: Box<dyn Wire>) -> ModelPlatform {
        let seed = self.opened;
        match self.nic.nic {
            NicKind::E1000e => {
                let config = pagewire_models::e1000e::ModelConfig {
                    seed,
                    ..Default::default()
                };
                self.plug_in(E1000e82574::new(config, wire))
            }
            NicKind::Ixgbe => {
                let config = ixgbe::ModelConfig {
                    seed,
                    device: self.nic.ixgbe(),
                    ..Default::default()
                };
                self.plug_in(Ixgbe82599::new(config, wire))
            }
            NicKind::Virtio => {
                let (options, usual) = (self.nic.virtio(), virtio::ModelConfig::default());
                let config = virtio::ModelConfig {
                    seed,
                    offers: self.nic.offers(),
                    mac: options.mac.map_or(usual.mac, |mac| mac.0),
                    mtu: options.host_mtu.unwrap_or(usual.mtu),
                    pairs: options.queue_pairs,
                    queue_size: options.tx_queue_size,
                    ..usual
                };
                self.plug_in(VirtioNet::new(config, wire))
            }
        }
    }

    fn plug_in<D: Device + 'static>(&mut self, device: D) -> ModelPlatform {
        let attached = self.host.attach(device);
        self.model = Some(attached.handle.erase());
        attached.platform
    }

    /// What the driver did on the machine that was.
    fn collect(&mut self) {
        if let Some(model) = self.model.take()
            && !std::mem::take(&mut self.has_strayed)
        {
            self.violations.extend(model.violations());
        }
    }
}

impl Bench for Modelled {
    fn surroundings(&self) -> Surroundings {
        let peer = match self.has_peer {
            true => "the far end of a wire in this process",
            false => "none",
        };
        Surroundings {
            backend: self.nic.description(),
            peer: peer.into(),
            iommu: "of the machine around the model".into(),
            virtual_time: true,
        }
    }

    fn violations(&mut self) -> Vec<String> {
        self.collect();
        std::mem::take(&mut self.violations)
    }
}

impl Station for Modelled {
    type Platform = ModelPlatform;
    type Memory = HostMemory;

    fn open(&mut self) -> Result<ModelPlatform, String> {
        self.collect();
        self.opened += 1;
        self.host = Host::new(HostConfig {
            seed: self.opened,
            ..HostConfig::default()
        });
        let now = self.now.load(Ordering::Relaxed);
        self.host.set_now(Instant::from_nanos(now));
        let (near, far) = pair();
        self.peer = FarEnd::of_pair(far, Arc::clone(&self.now));
        Ok(self.attach(Box::new(near)))
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        self.nic.configure(&mut config);
        config
    }

    fn now(&self) -> Instant {
        let now = self.host.now().as_nanos();
        let last = self.now.fetch_max(now, Ordering::Relaxed);
        Instant::from_nanos(now.max(last))
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.host.now() + duration;
        loop {
            if let Some(model) = &self.model {
                model.step();
            }
            let left = end.saturating_since(self.host.now());
            if left.is_zero() {
                break;
            }
            self.host.advance(STEP.min(left));
        }
        self.now();
    }

    fn peer(&mut self) -> Option<&mut dyn Peer> {
        self.has_peer.then_some(&mut self.peer as &mut dyn Peer)
    }

    fn peer_advice(&self) -> String {
        "leave `--peer none` out".into()
    }

    fn stray(&mut self, len: usize, content: &[u8]) -> Result<Box<dyn Stray>, String> {
        self.has_strayed = true;
        let bytes = content.iter().copied().cycle().take(len).collect();
        Ok(Box::new(OutOfReach(bytes)))
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Memory at an address that no host maps: a model has no other way to memory.
struct OutOfReach(Vec<u8>);

// SAFETY: a host maps memory from 2^33 on and nothing below.
unsafe impl Stray for OutOfReach {
    fn address(&self) -> DeviceAddress {
        DeviceAddress(STRAY)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}
