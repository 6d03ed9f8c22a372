//! A model with everything around it that the self-test can use.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagewire_drivers::Config;
use pagewire_drivers::selftest::{Peer, Station, Stray};
use pagewire_hal::{DeviceAddress, Instant, MacAddress};
use pagewire_models::wire::{PairEnd, Plug, pair};
use pagewire_models::{
    Device, Host, HostConfig, HostMemory, ModelHandle, ModelPlatform, Wire, e1000e, ixgbe, virtio,
};
use pagewire_virtio::Features;

use crate::faults::Fault;
use crate::faulty::{Faulty, FaultyWire, Shared};

/// Members of the family of the 82599 that are tested.
pub const IXGBE: [ixgbe::DeviceId; 3] = [
    ixgbe::DeviceId::Kx4,
    ixgbe::DeviceId::X540T,
    ixgbe::DeviceId::Sfp,
];

/// Which chip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chip {
    E1000e,
    Ixgbe(ixgbe::DeviceId),
    Virtio { packed: bool, pairs: u16 },
}

impl Chip {
    pub const KX4: Self = Self::Ixgbe(ixgbe::DeviceId::Kx4);
    pub const SPLIT: Self = Self::Virtio {
        packed: false,
        pairs: 1,
    };
    pub const PACKED: Self = Self::Virtio {
        packed: true,
        pairs: 1,
    };

    pub fn driver(self) -> &'static str {
        match self {
            Self::E1000e => "e1000e",
            Self::Ixgbe(_) => "ixgbe",
            Self::Virtio { .. } => "virtio",
        }
    }

    /// With `lies` a device that lies, drawn from the seed.
    fn device(self, seed: u64, lies: bool, wire: Box<dyn Wire>) -> Box<dyn Device> {
        match self {
            Self::E1000e => {
                let config = e1000e::ModelConfig {
                    seed,
                    ..Default::default()
                };
                let mut model = e1000e::E1000e82574::new(config, wire);
                model.be_hostile(lies.then(|| e1000e::Hostile::from_seed(seed)));
                Box::new(model)
            }
            Self::Ixgbe(device) => {
                let config = ixgbe::ModelConfig {
                    seed,
                    device,
                    ..Default::default()
                };
                let mut model = ixgbe::Ixgbe82599::new(config, wire);
                model.be_hostile(lies.then(|| ixgbe::Hostile::from_seed(seed)));
                Box::new(model)
            }
            Self::Virtio { packed, pairs } => {
                let mut offers = virtio::Offers::all();
                offers.packed = packed;
                offers.multiqueue = pairs > 1;
                let config = virtio::ModelConfig {
                    seed,
                    offers,
                    pairs,
                    ..Default::default()
                };
                let mut model = virtio::VirtioNet::new(config, wire);
                model.be_hostile(lies.then(|| virtio::Hostile::from_seed(seed)));
                Box::new(model)
            }
        }
    }
}

/// Where the device is told that there is memory: below all that a host maps.
const STRAY: u64 = 1 << 32;

/// The machine with the device that was opened last.
struct Machine {
    host: Host,
    model: ModelHandle<Faulty>,
    peer: Far,
}

/// The far end of the wire.
struct Far {
    end: PairEnd,
    plug: Plug,
    now: Rc<RefCell<Instant>>,
    /// If others are on the wire: how many frames were heard.
    noise: Option<u32>,
}

pub struct Lab {
    chip: Chip,
    seed: u64,
    pub fault: Option<Fault>,
    pub has_peer: bool,
    pub cancelled: bool,
    /// The device lies.
    pub lies: bool,
    /// Others are on the wire as well.
    pub noise: bool,
    now: Rc<RefCell<Instant>>,
    machine: Option<Machine>,
    /// Of machines that are gone.
    violations: Vec<String>,
    tried_stray: bool,
    shared: Arc<Shared>,
}

impl Lab {
    pub fn new(chip: Chip, seed: u64) -> Self {
        Self {
            chip,
            seed,
            fault: None,
            has_peer: true,
            cancelled: false,
            lies: false,
            noise: false,
            now: Rc::default(),
            machine: None,
            violations: Vec::new(),
            tried_stray: false,
            shared: Arc::default(),
        }
    }

    /// What drivers did that they must not, but for what a test does on purpose.
    pub fn violations(&mut self) -> Vec<String> {
        self.collect();
        std::mem::take(&mut self.violations)
    }

    fn collect(&mut self) {
        let Some(machine) = &self.machine else { return };
        let found = machine.model.violations();
        if !self.tried_stray {
            self.violations.extend(found);
        }
        self.tried_stray = false;
    }
}

impl Station for Lab {
    type Platform = ModelPlatform;
    type Memory = HostMemory;

    fn open(&mut self) -> Result<ModelPlatform, String> {
        self.collect();
        self.seed += 1;
        let host = Host::new(HostConfig {
            seed: self.seed,
            ..HostConfig::default()
        });
        host.set_now(*self.now.borrow());
        self.shared = Arc::new(Shared::new(self.fault));
        let (near, end) = pair();
        let plug = end.plug();
        let wire = FaultyWire::new(near, Arc::clone(&self.shared));
        let inner = self.chip.device(self.seed, self.lies, Box::new(wire));
        let attached = host.attach(Faulty::new(inner, Arc::clone(&self.shared)));
        self.machine = Some(Machine {
            host,
            model: attached.handle,
            peer: Far {
                end,
                plug,
                now: Rc::clone(&self.now),
                noise: self.noise.then_some(0),
            },
        });
        Ok(attached.platform)
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        if let Chip::Virtio { packed, .. } = self.chip {
            config.virtio.features.set(Features::RING_PACKED, packed);
        }
        config
    }

    fn now(&self) -> Instant {
        let now = self.machine.as_ref().map(|machine| machine.host.now());
        let mut last = self.now.borrow_mut();
        *last = now.unwrap_or(*last);
        *last
    }

    fn wait(&mut self, duration: Duration) {
        let Some(machine) = &self.machine else { return };
        let end = machine.host.now() + duration;
        let step = (duration / 64).max(Duration::from_micros(10));
        loop {
            machine.model.step();
            let left = end.saturating_since(machine.host.now());
            if left.is_zero() {
                break;
            }
            machine.host.advance(step.min(left));
        }
        self.now();
    }

    fn peer(&mut self) -> Option<&mut dyn Peer> {
        if !self.has_peer {
            return None;
        }
        // Before the first opening as well.
        if self.machine.is_none() {
            self.open().ok()?;
        }
        Some(&mut self.machine.as_mut()?.peer)
    }

    fn stray(&mut self, len: usize, content: &[u8]) -> Result<Box<dyn Stray>, String> {
        self.tried_stray = true;
        let bytes: Vec<u8> = content.iter().copied().cycle().take(len).collect();
        let bytes = Arc::new(Mutex::new(bytes));
        *self.shared.stray.lock().unwrap() = Some((STRAY, Arc::clone(&bytes)));
        Ok(Box::new(Canary { bytes }))
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled
    }
}

impl Peer for Far {
    fn mac_address(&self) -> MacAddress {
        MacAddress([2, 0, 0, 0, 0, 0x99])
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), String> {
        self.end.transmit(&mut frame.to_vec(), *self.now.borrow());
        Ok(())
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Result<bool, String> {
        if let Some(count) = &mut self.noise {
            *count += 1;
            if !count.is_multiple_of(3) {
                // Somebody's request for an address.
                *frame = [[0xff; 6].as_slice(), &[6; 6], &[8, 6], &[0; 46]].concat();
                return Ok(true);
            }
        }
        Ok(self.end.receive(frame, *self.now.borrow()))
    }

    fn set_carrier(&mut self, on: bool) -> bool {
        self.plug.set(on);
        true
    }
}

/// Memory that no device of a host reaches, unless its IOMMU lets everything through.
struct Canary {
    bytes: Arc<Mutex<Vec<u8>>>,
}

// SAFETY: a host maps memory from 2^33 on and nothing below; the bytes are of this value and of the
// fault that lets a device reach them.
unsafe impl Stray for Canary {
    fn address(&self) -> DeviceAddress {
        DeviceAddress(STRAY)
    }

    fn len(&self) -> usize {
        self.bytes.lock().unwrap().len()
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}
