//! A NIC of this machine that is bound to vfio-pci, on a cable to another interface of this machine.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::{Instant, Region};
use pagewire_vfio::protect::Arena;
use pagewire_vfio::{
    Api, Options, PciAddress, SealedFile, VfioError, VfioHandle, VfioPlatform, VfioRegion,
};

use super::args::Args;
use super::machine::{About, FarEnd, Machine, Seen};
use super::report::Vfio;
use crate::error::Failure;

/// Memory for rings and buffers of a pair of queues. It is mapped when the device is opened, so
/// that a limit on locked memory speaks up there.
const ARENA: usize = 6 << 20;
/// How long nobody looks at the receive ring when there is nothing to do: the driver is polled.
const LOOK: Duration = Duration::from_micros(50);

/// What is left when the platform has gone into the driver.
pub(crate) struct VfioMachine {
    handle: VfioHandle,
}

impl Machine for VfioMachine {
    type Device = PciAddress;
    type Platform = VfioPlatform;
    type Region = VfioRegion<SealedFile>;

    const HAS_CABLE: bool = true;

    fn check(args: &Args, address: &PciAddress, _: u64) -> Result<(), Failure> {
        args.check_cable()
            .map_err(|why| Failure::usage(format!("--device {address}: {why}")))
    }

    fn build(
        args: &Args,
        address: &PciAddress,
        _: u64,
        _: FarEnd,
    ) -> Result<(Self, Self::Platform), Failure> {
        let mut options = Options::default();
        // All drivers here give whole addresses to their devices.
        options.address_bits = 64;
        options.arena = ARENA * usize::from(args.queues);
        let platform = VfioPlatform::open(*address, &options)
            .map_err(|error| Failure::usage(format!("cannot open the NIC: {error}")))?;
        let handle = platform.handle();
        Ok((Self { handle }, platform))
    }

    fn about(&self, _: &Args, address: &PciAddress, driver: &str) -> About {
        About {
            device: format!(
                "driver {driver} on {address}, by VFIO's {}",
                self.handle.api()
            ),
            mapping: "mapping its pages in the IOMMU, once",
            cpu: "  nothing else: the NIC works by itself",
        }
    }

    fn register(&self, sealed: SealedFile) -> Result<Arc<Self::Region>, Failure> {
        let region = self.handle.register(sealed);
        region.map(Arc::new).map_err(unreachable)
    }

    fn register_arena(&self, arena: Arena) -> Result<Arc<dyn Region>, Failure> {
        let region = self.handle.register(arena).map_err(unreachable)?;
        Ok(Arc::new(region))
    }

    fn bytes(region: &Self::Region) -> &[u8] {
        region.bytes()
    }

    fn now(&self) -> Instant {
        self.handle.now()
    }

    fn advance(&self, _: Duration) -> bool {
        false
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn longest_sleep(&self) -> Duration {
        LOOK
    }

    fn step(&mut self) -> bool {
        false
    }

    fn seen(&self) -> Seen {
        Seen {
            region_bytes: None,
            most_fragments: None,
            violations: Vec::new(),
        }
    }

    fn vfio(&self) -> Option<Vfio> {
        Some(Vfio {
            api: match self.handle.api() {
                Api::Cdev => "cdev",
                Api::Group => "group",
            },
            locked_bytes: self.handle.locked_bytes(),
        })
    }
}

fn unreachable(error: VfioError) -> Failure {
    Failure::usage(format!(
        "cannot make the input reachable for the NIC: {error}"
    ))
}
