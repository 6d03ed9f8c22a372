//! A software model in this process, on a wire that ends outside of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{Granule, Instant, MacAddress, Region};
use pagewire::outbox::{MapFile, NotMapped};
use pagewire_models::{Device, Host, HostConfig, ModelHandle, ModelPlatform};
use pagewire_vfio::LiveFile;

use super::home::Home;
use super::{Link, PAGE};
use crate::device::DeviceName;
use crate::error::Failure;
use crate::play::{self, Manner};
use crate::software::Backend;
use crate::wire::{self, WireName};

/// The machine around a model.
pub(crate) struct ModelHome {
    host: Host,
    model: ModelHandle<Box<dyn Device>>,
    wake: Vec<OwnedFd>,
    /// The host's time when everything was built, which the driver's waits have moved, and when that
    /// was.
    start: (Instant, std::time::Instant),
}

impl Home for ModelHome {
    type Platform = ModelPlatform;

    fn build(link: &Link) -> Result<(Self, ModelPlatform), Failure> {
        let DeviceName::Software(nic) = &link.device else {
            return Err(Failure::usage(format!("{} is no model", link.device)));
        };
        if nic.backend != Backend::Model {
            return Err(elsewhere(&link.device));
        }
        let Some(name) = &link.wire else {
            return Err(Failure::usage(format!(
                "{}: a NIC in software needs a wire: --wire tap:pagewire0, an interface of this \
                 machine, or --wire pair:DIR, another program's NIC",
                link.device
            )));
        };
        if matches!(name, WireName::None | WireName::Pcap(_)) {
            let why = format!("--wire {name}: nobody is at its other end");
            return Err(Failure::usage(why));
        }
        let plugged = wire::plug(name, None)?;
        let [a, b, c, d] = link.address.octets();
        let manner = Manner {
            seed: None,
            // Of the kind that anybody may give, another one for each IP address.
            mac: nic
                .virtio()
                .mac
                .unwrap_or(MacAddress([2, 0x70, a, b, c, d])),
            permit: &[],
        };
        let host = Host::new(HostConfig {
            granule: Granule::from_bytes(PAGE).unwrap_or(Granule::CONTIGUOUS),
            ..HostConfig::default()
        });
        let attached = host.attach(play::build(nic, manner, plugged.wire));
        let home = Self {
            host,
            model: attached.handle,
            wake: plugged.wake,
            start: (Instant::ZERO, std::time::Instant::now()),
        };
        Ok((home, attached.platform))
    }

    fn mapper(&self) -> impl MapFile + Send + 'static {
        OnHost(self.host.clone())
    }

    fn start_clock(&mut self) {
        self.start = (self.host.now(), std::time::Instant::now());
    }

    fn now(&self) -> Instant {
        let (base, start) = self.start;
        self.host.set_now(base + start.elapsed());
        self.host.now()
    }

    fn step(&mut self) -> bool {
        self.model.step()
    }

    fn readable(&self) -> &[OwnedFd] {
        &self.wake
    }

    fn longest_sleep(&self) -> Duration {
        Duration::MAX
    }

    fn about(&self, link: &Link, _: &str) -> String {
        match (&link.device, &link.wire) {
            (DeviceName::Software(nic), Some(wire)) => {
                format!("{}, wire {wire}", nic.description())
            }
            (device, _) => device.to_string(),
        }
    }
}

struct OnHost(Host);

impl MapFile for OnHost {
    fn map(&self, file: LiveFile) -> Result<Arc<dyn Region>, NotMapped> {
        let region = self.0.register(file);
        let region = region.map_err(|error| NotMapped::Failed(error.to_string()))?;
        Ok(region)
    }
}

/// A device of another process.
pub(crate) fn elsewhere(device: &DeviceName) -> Failure {
    Failure::usage(format!(
        "{device}: that device is in another process, and files cannot be lent where they are to \
         it; model:ixgbe, model:e1000e, model:virtio or a NIC of this machine (0000:03:00.0)"
    ))
}
