//! A NIC that another process plays, at its vfio-user socket: no root, and no hardware.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire_vfio::SealedFile;
use pagewire_vfio::user::{Options, VfioUserHandle, VfioUserPlatform, VfioUserRegion};

use super::args::Args;
use super::machine::{About, FarEnd, Machine, Seen, cannot_register};
use crate::error::{Failure, shown};

/// How long nobody looks at the receive ring when there is nothing to do: the driver is polled.
const LOOK: Duration = Duration::from_micros(50);

/// What is left when the platform has gone into the driver.
pub(crate) struct UserMachine {
    handle: VfioUserHandle,
}

impl Machine for UserMachine {
    type Device = PathBuf;
    type Platform = VfioUserPlatform;
    type Region = VfioUserRegion;

    const HAS_CABLE: bool = true;

    fn check(args: &Args, socket: &PathBuf, _: u64) -> Result<(), Failure> {
        args.check_served_wire()
            .map_err(|why| Failure::usage(format!("--device vfio-user:{}: {why}", shown(socket))))
    }

    fn build(
        _: &Args,
        socket: &PathBuf,
        _: u64,
        _: FarEnd,
    ) -> Result<(Self, Self::Platform), Failure> {
        let mut options = Options::default();
        // All drivers here give whole addresses to their devices.
        options.address_bits = 64;
        let platform = VfioUserPlatform::connect(socket, &options).map_err(|error| {
            let socket = shown(socket);
            Failure::usage(format!("cannot open the NIC at {socket}: {error}"))
        })?;
        let handle = platform.handle();
        Ok((Self { handle }, platform))
    }

    fn about(&self, _: &Args, socket: &PathBuf, driver: &str) -> About {
        About {
            device: format!(
                "driver {driver} on the device at {}, by vfio-user",
                shown(socket)
            ),
            mapping: "a sealed file, which the device's process has mapped",
            cpu: "  wire (the device's process is not counted)",
        }
    }

    fn register(&self, sealed: SealedFile) -> Result<Arc<Self::Region>, Failure> {
        self.handle
            .register(sealed)
            .map(Arc::new)
            .map_err(cannot_register)
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
}
