//! A software model in this process, one type for each NIC. Time is virtual, unless the peer
//! lives in real time.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{Instant, Region};
use pagewire_models::e1000e::{self, E1000e82574};
use pagewire_models::ixgbe::{self, Ixgbe82599};
use pagewire_models::virtio::{self, VirtioNet};
use pagewire_models::{Device, Host, HostConfig, HostRegion, ModelHandle, ModelPlatform, Wire};
use pagewire_vfio::SealedFile;
use pagewire_vfio::protect::Arena;

use super::args::{Args, PeerKind};
use super::machine::{About, FarEnd, Machine, Seen, cannot_register};
use crate::error::Failure;
use crate::software::SoftwareNic;

/// A model that the demo can build.
pub(crate) trait Model: Device + Sized + 'static {
    /// As `device` and the options say, plugged into `near`.
    fn build(args: &Args, device: &SoftwareNic, near: Box<dyn Wire>) -> Self;

    /// The most fragments that it has seen in one frame.
    fn most_fragments(&mut self) -> u32;
}

impl Model for E1000e82574 {
    fn build(args: &Args, _: &SoftwareNic, near: Box<dyn Wire>) -> Self {
        let config = e1000e::ModelConfig {
            seed: args.seed,
            ..Default::default()
        };
        Self::new(config, near)
    }

    fn most_fragments(&mut self) -> u32 {
        self.counters().most_fragments
    }
}

impl Model for Ixgbe82599 {
    fn build(args: &Args, device: &SoftwareNic, near: Box<dyn Wire>) -> Self {
        let config = ixgbe::ModelConfig {
            seed: args.seed,
            device: device.ixgbe(),
            ..Default::default()
        };
        Self::new(config, near)
    }

    fn most_fragments(&mut self) -> u32 {
        self.counters().most_fragments
    }
}

impl Model for VirtioNet {
    fn build(args: &Args, device: &SoftwareNic, near: Box<dyn Wire>) -> Self {
        let options = device.virtio();
        let usual = virtio::ModelConfig::default();
        let config = virtio::ModelConfig {
            seed: args.seed,
            offers: device.offers(),
            mac: options.mac.map_or(usual.mac, |mac| mac.0),
            mtu: options.host_mtu.unwrap_or(args.mtu),
            pairs: options.queue_pairs,
            queue_size: options.tx_queue_size,
            ..usual
        };
        Self::new(config, near)
    }

    fn most_fragments(&mut self) -> u32 {
        self.counters().most_fragments
    }
}

/// The machine around a model.
pub(crate) struct ModelMachine<D: Model> {
    host: Host,
    model: ModelHandle<D>,
    /// If time is real: the host's time at the start (the driver's waits have moved it by
    /// then), and the start.
    real: Option<(Instant, std::time::Instant)>,
}

impl<D: Model> Machine for ModelMachine<D> {
    type Device = SoftwareNic;
    type Platform = ModelPlatform;
    type Region = HostRegion<SealedFile>;

    fn build(
        args: &Args,
        device: &SoftwareNic,
        _: u64,
        far: FarEnd,
    ) -> Result<(Self, Self::Platform), Failure> {
        let FarEnd::Wire(near) = far else {
            return Err(Failure::failed("a model reads no TAP by itself"));
        };
        let host = Host::new(HostConfig {
            seed: args.seed,
            granule: args.dma_page().granule(),
        });
        let attached = host.attach(D::build(args, device, near));
        let is_real = args.peer() == PeerKind::Linux;
        let machine = Self {
            host,
            model: attached.handle,
            real: is_real.then(|| (Instant::ZERO, std::time::Instant::now())),
        };
        Ok((machine, attached.platform))
    }

    fn about(&self, args: &Args, device: &SoftwareNic, _: &str) -> About {
        About {
            device: device.description(),
            mapping: "mapping its pages, once",
            cpu: match args.peer() {
                PeerKind::Smoltcp => "  model and wire",
                PeerKind::Linux => "  model, wire, kernel behind it",
            },
        }
    }

    fn start_clock(&mut self) {
        if let Some(real) = &mut self.real {
            *real = (self.host.now(), std::time::Instant::now());
        }
    }

    fn register(&self, sealed: SealedFile) -> Result<Arc<Self::Region>, Failure> {
        self.host.register(sealed).map_err(cannot_register)
    }

    fn register_arena(&self, arena: Arena) -> Result<Arc<dyn Region>, Failure> {
        Ok(self.host.register(arena).map_err(cannot_register)?)
    }

    fn bytes(region: &Self::Region) -> &[u8] {
        region.bytes()
    }

    fn now(&self) -> Instant {
        if let Some((base, start)) = &self.real {
            self.host.set_now(*base + start.elapsed());
        }
        self.host.now()
    }

    fn advance(&self, by: Duration) -> bool {
        let is_virtual = self.real.is_none();
        if is_virtual {
            self.host.advance(by);
        }
        is_virtual
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn step(&mut self) -> bool {
        self.model.step()
    }

    fn seen(&self) -> Seen {
        Seen {
            region_bytes: Some(self.model.counters().region_bytes),
            most_fragments: Some(self.model.with_device(D::most_fragments)),
            violations: self.model.violations(),
        }
    }
}
