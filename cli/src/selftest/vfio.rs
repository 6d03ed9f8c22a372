//! A NIC of this machine that is bound to vfio-pci; its peer is another interface of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memmap2::MmapMut;
use pagewire::drivers::Config;
use pagewire::drivers::selftest::{Peer, Station, Stray};
use pagewire::hal::{DeviceAddress, FixedBytes, Instant};
use pagewire_vfio::bind::{Environment, Machine};
use pagewire_vfio::{Api, Memory, Options, PciAddress, VfioHandle, VfioPlatform, Withdrawn};

use super::packet_socket::PacketSocket;
use super::summary::Surroundings;
use super::{Args, Bench};
use crate::error::Failure;

/// Memory for rings and buffers, mapped when the device is opened: so a limit on locked memory
/// speaks up there.
const ARENA: usize = 6 << 20;

/// A NIC that VFIO has.
pub(super) struct Bound {
    address: PciAddress,
    options: Options,
    peer: Option<PacketSocket>,
    stop: Arc<AtomicBool>,
    start: std::time::Instant,
    /// Of the device as it was opened last.
    handle: Option<VfioHandle>,
    api: Option<Api>,
}

impl Bound {
    pub(super) fn new(
        args: &Args,
        address: PciAddress,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self, Failure> {
        let peer = args.interface().map(PacketSocket::open).transpose()?;
        let mut options = Options::default();
        options.api = args.api;
        options.arena = ARENA;
        Ok(Self {
            address,
            options,
            peer,
            stop: Arc::clone(stop),
            start: std::time::Instant::now(),
            handle: None,
            api: None,
        })
    }
}

impl Bench for Bound {
    fn surroundings(&self) -> Surroundings {
        let api = self
            .api
            .map_or("VFIO".into(), |api| format!("VFIO, by the {api}"));
        let peer = match &self.peer {
            Some(peer) => format!("the interface {} of this machine", peer.name()),
            None => "none".into(),
        };
        let iommu = match Environment::read(&Machine::new()).iommu {
            true => "on",
            false => "the system shows none",
        };
        Surroundings {
            backend: api,
            peer,
            iommu: iommu.into(),
            virtual_time: false,
        }
    }
}

impl Station for Bound {
    type Platform = VfioPlatform;
    type Memory = Memory;

    fn open(&mut self) -> Result<VfioPlatform, String> {
        self.handle = None;
        let platform = VfioPlatform::open(self.address, &self.options);
        let platform = platform.map_err(|error| error.to_string())?;
        let handle = platform.handle();
        self.api = Some(handle.api());
        self.handle = Some(handle);
        Ok(platform)
    }

    fn config(&self) -> Config {
        // A NIC that nobody has tried is what a self-test is for.
        let mut config = Config::default();
        config.e1000e.allow_untested = true;
        config.ixgbe.allow_untested = true;
        config
    }

    fn now(&self) -> Instant {
        let nanos = self.start.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn wait(&mut self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn peer(&mut self) -> Option<&mut dyn Peer> {
        self.peer.as_mut().map(|peer| peer as &mut dyn Peer)
    }

    fn peer_advice(&self) -> String {
        "`--peer INTERFACE`, an interface of this machine at the other end of the cable".into()
    }

    fn stray(&mut self, len: usize, content: &[u8]) -> Result<Box<dyn Stray>, String> {
        let handle = self.handle.as_ref().ok_or("the device is not open")?;
        let mut pages = MmapMut::map_anon(len).map_err(|error| error.to_string())?;
        let bytes = pages.iter_mut().zip(content.iter().cycle());
        bytes.for_each(|(to, from)| *to = *from);
        let region = handle.register(Pages(pages));
        let region = region.map_err(|error| error.to_string())?;
        let withdrawn = region
            .withdraw()
            .ok_or("the system does not unmap memory")?;
        Ok(Box::new(Taken(withdrawn)))
    }

    fn is_cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Pages of this process.
struct Pages(MmapMut);

// SAFETY: an anonymous mapping stays where it is until it is dropped; it is private, and changes
// only through `&mut`.
unsafe impl FixedBytes for Pages {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Pages that were mapped for the device.
struct Taken(Withdrawn<Pages>);

// SAFETY: `Withdrawn` keeps the addresses from being mapped again, and its bytes are nobody else's.
unsafe impl Stray for Taken {
    fn address(&self) -> DeviceAddress {
        self.0.address()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.copy()
    }
}
