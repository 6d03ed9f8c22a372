//! A NIC behind VFIO on the bench of the conformance suite.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use pagewire::hal::{Instant, Nic, Region};
use pagewire_conformance::{Bench, FarEnd};
use pagewire_vfio::{Memory, Options, PciAddress, VfioHandle, VfioPlatform};

use crate::packet_socket::PacketSocket;

/// How the device is opened.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) address: PciAddress,
    pub(crate) options: Options,
    /// Longest packet in bytes, as the driver is told.
    pub(crate) mtu: u16,
}

/// One device; `open` makes its driver.
pub(crate) struct VfioBench<F> {
    settings: Settings,
    far: PacketSocket,
    open: F,
    handle: Option<VfioHandle>,
    start: Clock,
}

impl<F> VfioBench<F> {
    pub(crate) fn new(settings: Settings, far: PacketSocket, open: F) -> Self {
        Self {
            settings,
            far,
            open,
            handle: None,
            start: Clock::now(),
        }
    }
}

impl<F> fmt::Debug for VfioBench<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.settings)
    }
}

impl<N, F> Bench for VfioBench<F>
where
    N: Nic<Memory = Memory>,
    F: Fn(VfioPlatform) -> Result<N, String>,
{
    type Nic = N;
    type Memory = Memory;

    fn open(&mut self, _seed: u64) -> Result<N, String> {
        self.handle = None;
        // What was on its way to the last one is not for this one.
        while self.far.take().is_some() {}
        let opened = VfioPlatform::open(self.settings.address, &self.settings.options);
        let platform = opened.map_err(|error| error.to_string())?;
        self.handle = Some(platform.handle());
        self.start = Clock::now();
        (self.open)(platform)
    }

    fn far_end(&mut self) -> &mut dyn FarEnd {
        &mut self.far
    }

    fn advance(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn now(&self) -> Instant {
        let since = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(since).unwrap_or(u64::MAX))
    }

    fn region(&mut self, bytes: Vec<u8>) -> Result<Arc<dyn Region>, String> {
        let handle = self.handle.as_ref().ok_or("no device is open")?;
        let region = handle.register(bytes).map_err(|error| error.to_string())?;
        Ok(Arc::new(region))
    }

    fn keeps_groups(&self) -> Option<bool> {
        // The default of both drivers.
        Some(true)
    }

    fn longest_frame(&self) -> Option<u32> {
        Some(u32::from(self.settings.mtu) + 14)
    }
}
