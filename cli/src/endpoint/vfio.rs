//! A NIC of this machine that is bound to vfio-pci.

use std::os::fd::OwnedFd;
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire::outbox::MapFile;
use pagewire_vfio::{Options, VfioHandle, VfioPlatform};

use super::Link;
use super::home::Home;
use crate::device::DeviceName;
use crate::error::Failure;

/// Memory for rings and buffers. It is mapped when the device is opened, so that a limit on locked
/// memory speaks up there.
const ARENA: usize = 8 << 20;
/// How long nobody looks at the receive ring when there is nothing to do: the driver is polled.
const LOOK: Duration = Duration::from_micros(50);

/// What is left when the platform has gone into the driver.
pub(crate) struct VfioHome {
    handle: VfioHandle,
}

impl Home for VfioHome {
    type Platform = VfioPlatform;

    fn build(link: &Link) -> Result<(Self, VfioPlatform), Failure> {
        let DeviceName::Pci(address) = &link.device else {
            let why = format!("{} is no NIC of this machine", link.device);
            return Err(Failure::usage(why));
        };
        if let Some(wire) = &link.wire {
            return Err(Failure::usage(format!(
                "--wire {wire}: {address} has a cable; it is for NICs in software"
            )));
        }
        let mut options = Options::default();
        // All drivers here give whole addresses to their devices.
        options.address_bits = 64;
        options.arena = ARENA;
        let platform = VfioPlatform::open(*address, &options)
            .map_err(|error| Failure::usage(format!("cannot open the NIC: {error}")))?;
        let handle = platform.handle();
        Ok((Self { handle }, platform))
    }

    fn mapper(&self) -> impl MapFile + Send + 'static {
        self.handle.clone()
    }

    fn now(&self) -> Instant {
        self.handle.now()
    }

    fn step(&mut self) -> bool {
        false
    }

    fn readable(&self) -> &[OwnedFd] {
        &[]
    }

    fn longest_sleep(&self) -> Duration {
        LOOK
    }

    fn about(&self, link: &Link, driver: &str) -> String {
        let api = self.handle.api();
        format!("driver {driver} on {}, by VFIO's {api}", link.device)
    }
}
