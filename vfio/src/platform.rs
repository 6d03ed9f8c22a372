//! The platform of a device behind VFIO, for its driver.

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use pagewire_hal::{DomainId, Instant, Lendable, Platform, PlatformError};

use crate::arena::{Arena, Memory};
use crate::bar::VfioRegisters;
use crate::device::{BARS, Device, ResetKind};
use crate::interrupts::{Eventfds, Vector};
use crate::iommu::{Api, Iommu};
use crate::region::{Pages, VfioRegion};
use crate::space::Space;
use crate::sysfs::Machine;
use crate::{PciAddress, VfioError, cdev, group};

/// Intel's PCI vendor id.
const INTEL: u16 = 0x8086;

/// How a device is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The API; `None` for the newest that there is.
    pub api: Option<Api>,
    /// Bits of an address that the device can emit, 12 to 64, for memory that is handed to
    /// [`VfioHandle::register`]. 32 is safe with any device, and enough for 4 GiB;
    /// [`dma_address_bits`](pagewire_hal::Capabilities::dma_address_bits) of the open NIC says
    /// what it can do, and regions beyond that are refused when they are to be lent to its queues.
    /// Rings and buffers are always below 4 GiB.
    pub address_bits: u8,
    /// Bytes of memory for rings and buffers that are mapped, and so locked, at once: then it is
    /// known when the device is opened whether the limit on locked memory allows them. Whole pieces
    /// of 2 MiB are mapped, and more of them when they are needed.
    pub arena: usize,
    /// Whether huge pages that were set aside (`vm.nr_hugepages`) may be used for that memory.
    pub huge_pages: bool,
    /// Whether pages of a region are kept apart, so that no fragment of it reaches across the end
    /// of a page; `None` to do so where it is needed.
    ///
    /// QEMU's models of Intel's NICs need it: behind an IOMMU they lose a frame with such a
    /// fragment, unless the two pages happen to be neighbours in the guest's memory, and mark it
    /// done all the same (`net_tx_pkt_add_raw_fragment_pci`). No other device is known to. Regions
    /// are then mapped twice, which locks twice the memory, and a frame takes more fragments. For
    /// rings and buffers huge pages help there: nothing of up to 2 MiB reaches from one into the next, and
    /// of a pool of copies ([`CopyPool`](pagewire_hal::CopyPool)) only every second slot is used.
    pub pages_apart: Option<bool>,
}

impl Default for Options {
    /// The newest API, 32 bits, 1 byte (and so one piece of 2 MiB), huge pages; pages are kept
    /// apart where that is needed.
    fn default() -> Self {
        Self {
            api: None,
            address_bits: 32,
            arena: 1,
            huge_pages: true,
            pages_apart: None,
        }
    }
}

/// A PCI function that is bound to vfio-pci, as the platform of its driver: configuration space
/// and registers by its file, DMA memory behind the IOMMU, MSI-X by eventfds, and real time.
///
/// The device is this program's alone. When the platform and all its [`VfioRegisters`] are gone,
/// and also when the process dies, Linux turns bus mastering off, resets the function and unlocks
/// the memory; regions and memory that live on keep their addresses, but no device reads there.
///
/// A child process (`fork`) shares the files of the device, so it keeps the device from others as
/// long as it lives or until it calls `exec`; DMA memory it does not get.
#[derive(Debug)]
pub struct VfioPlatform {
    device: Arc<Device>,
    arena: Arc<Arena>,
    eventfds: Eventfds,
    /// Whether MSI-X is on.
    connected: bool,
    api: Api,
    limit: u64,
    pages: Pages,
    start: Clock,
}

/// What is left to the program when the platform has gone into a driver: registers memory, and
/// knows the interrupts. A clone is for the same device.
#[derive(Clone, Debug)]
pub struct VfioHandle {
    space: Arc<Space>,
    eventfds: Eventfds,
    api: Api,
    limit: u64,
    pages: Pages,
    start: Clock,
}

impl VfioPlatform {
    /// Opens the function at `address`, which is bound to vfio-pci.
    ///
    /// Of an IOMMU group one function can be open at a time, by this process or another: each is
    /// put into an address space of its own, and Linux gives a group to one only. The second is
    /// refused with [`VfioError::Busy`].
    ///
    /// # Errors
    /// [`VfioError`], whose text says what is missing and how to mend it.
    pub fn open(address: PciAddress, options: &Options) -> Result<Self, VfioError> {
        let machine = Machine::default();
        let group = machine.group(address)?;
        let (device, iommu) = open_by(&machine, address, group, options.api)?;
        let space = Space::new(iommu)?;
        let limit = u64::MAX >> (64 - u32::from(options.address_bits.clamp(12, 64)));
        // Rings are made before anybody has asked the driver how many bits there may be.
        let below = limit.min(u64::from(u32::MAX));
        let needed = || machine.is_qemu() && device.read_config(0) as u16 == INTEL;
        let pages = if options.pages_apart.unwrap_or_else(needed) {
            log::debug!("{address}: pages are kept apart");
            Pages::Apart
        } else {
            Pages::Joined
        };
        let kinds = (options.huge_pages, pages == Pages::Apart);
        let arena = Arena::new(&space, options.arena, below, kinds)?;
        let api = space.iommu().api().unwrap_or(Api::Group);
        log::debug!("{address}: open by the {api}");
        Ok(Self {
            device,
            arena,
            eventfds: Eventfds::default(),
            connected: false,
            api,
            limit,
            pages,
            start: Clock::now(),
        })
    }

    /// The function.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.device.address()
    }

    /// What is left to the program when the platform has gone into a driver.
    #[must_use]
    pub fn handle(&self) -> VfioHandle {
        VfioHandle {
            space: Arc::clone(self.arena.space()),
            eventfds: self.eventfds.clone(),
            api: self.api,
            limit: self.limit,
            pages: self.pages,
            start: self.start,
        }
    }

    /// MSI-X vectors that the function has.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.device.vectors()).unwrap_or(u16::MAX)
    }

    /// Bytes of BAR `index`, 0 to 5; `None` if there is none, or none of memory.
    #[must_use]
    pub fn bar_len(&self, index: u8) -> Option<u64> {
        if index >= BARS || !self.is_memory_bar(index) {
            return None;
        }
        let region = self.device.region(u32::from(index)).ok()?;
        Some(region.len).filter(|len| *len > 0)
    }

    /// Resets the function, to the state in which its driver wants to find it; if it has no reset
    /// of its own, then all of its bus, provided that nobody else uses a function there.
    ///
    /// Configuration space and interrupts stay as they are. Not all of a device's own state need
    /// go: the 82574 keeps the interrupt causes that are pending, and sends no message for a cause
    /// that it has not been seen to be rid of (seen with QEMU's; the driver clears them).
    ///
    /// # Errors
    /// [`VfioError::NoReset`], [`VfioError::ResetHitsOthers`], or what the system said.
    pub fn reset(&mut self) -> Result<ResetKind, VfioError> {
        self.device.reset(self.arena.space().iommu())
    }

    /// Resets all functions of the bus or slot, provided that nobody else uses one of them.
    ///
    /// # Errors
    /// As for [`reset`](Self::reset).
    pub fn hot_reset(&mut self) -> Result<ResetKind, VfioError> {
        self.device.hot_reset(self.arena.space().iommu())
    }

    /// Lets Linux signal the eventfd of `vector` as if the device had sent its message: for a test
    /// of all but the device.
    ///
    /// # Errors
    /// What the system said: no vector of this number is on.
    pub fn trigger_interrupt(&mut self, vector: u16) -> Result<(), VfioError> {
        let triggered = self.device.trigger(vector);
        triggered.map_err(|errno| VfioError::system("cannot trigger the interrupt", errno))
    }

    /// As [`Platform::allocate`], with the reason if there is no memory.
    ///
    /// # Errors
    /// [`VfioError::MemlockTooSmall`], [`VfioError::NoAddresses`], [`VfioError::Alignment`], or
    /// what the system said.
    pub fn allocate_memory(&mut self, len: usize, align: usize) -> Result<Memory, VfioError> {
        self.arena.take(len, align)
    }

    /// Whether the function has a memory BAR of this number, as far as configuration space says.
    fn is_memory_bar(&self, index: u8) -> bool {
        const BAR0: u16 = 0x10;
        const BAR_IO: u32 = 1;
        self.device.read_config(BAR0 + 4 * u16::from(index)) & BAR_IO == 0
    }

    fn map(&self, index: u8) -> Result<VfioRegisters, VfioError> {
        let region = self.device.region(u32::from(index))?;
        VfioRegisters::map(&self.device, &region)
    }

    /// Connects as many of the first vectors as there are.
    fn connect(&mut self, wanted: u16) -> Result<u16, VfioError> {
        let said = |errno| VfioError::system("cannot turn the interrupts on or off", errno);
        // Linux changes the number of vectors only from and to none.
        if self.connected {
            self.device.disconnect().map_err(said)?;
            self.connected = false;
        }
        let mut count = usize::from(wanted);
        while count > 0 {
            let eventfds = self.eventfds.first(count).map_err(said)?;
            let borrowed: Vec<_> = eventfds.iter().map(|eventfd| eventfd.as_fd()).collect();
            let possible = self.device.connect(&borrowed).map_err(said)? as usize;
            if possible >= count {
                self.connected = true;
                break;
            }
            count = possible;
        }
        Ok(u16::try_from(count).unwrap_or(wanted))
    }
}

/// The device, and the address space that it has been put into.
type Opened = (Arc<Device>, Box<dyn Iommu>);

/// Opens the function by the API that is wanted, or by the newest that there is.
fn open_by(
    machine: &Machine,
    address: PciAddress,
    group: u32,
    api: Option<Api>,
) -> Result<Opened, VfioError> {
    let by_file = || -> Result<Opened, VfioError> {
        let (file, ioas) = cdev::open(machine, address, group)?;
        Ok((Arc::new(Device::new(file, address)?), Box::new(ioas)))
    };
    let by_group = || -> Result<Opened, VfioError> {
        let (file, container) = group::open(machine, address, group)?;
        Ok((Arc::new(Device::new(file, address)?), Box::new(container)))
    };
    match api {
        Some(Api::Cdev) => by_file(),
        Some(Api::Group) => by_group(),
        None => newest(by_file, by_group),
    }
}

/// The newer way, or the older one if the newer is not there or not for this user.
fn newest<T>(
    newer: impl FnOnce() -> Result<T, VfioError>,
    older: impl FnOnce() -> Result<T, VfioError>,
) -> Result<T, VfioError> {
    let first = match newer() {
        Err(error @ (VfioError::ApiMissing { .. } | VfioError::NoAccess { .. })) => error,
        tried => return tried,
    };
    log::debug!("{first}");
    match older() {
        // Neither is there: the two lists in one.
        Err(VfioError::ApiMissing { missing, .. }) => {
            let VfioError::ApiMissing { missing: more, .. } = first else {
                // The newer is there, but not for this user: that can be mended.
                return Err(first);
            };
            Err(VfioError::ApiMissing {
                api: None,
                missing: more.into_iter().chain(missing).collect(),
            })
        }
        tried => tried,
    }
}

/// The platform's time.
fn since(start: Clock) -> Instant {
    let nanos = start.elapsed().as_nanos();
    Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Into the log, and what is left of it for the driver.
fn report(error: VfioError) -> PlatformError {
    log::error!("{error}");
    error.into()
}

// SAFETY: Linux lets one program open the device, and `open` makes one platform for it; memory
// comes from `Arena`, which keeps the promises of `DmaMemory`, in the one domain of its space;
// slots are on the heap.
unsafe impl Platform for VfioPlatform {
    type Registers = VfioRegisters;
    type Memory = Memory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        self.device.read_config(offset)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        self.device.write_config(offset, value);
    }

    fn map_bar(&mut self, index: u8) -> Result<VfioRegisters, PlatformError> {
        if self.bar_len(index).is_none() {
            return Err(PlatformError::NoBar(index));
        }
        self.map(index).map_err(report)
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<Memory, PlatformError> {
        self.allocate_memory(len, align).map_err(report)
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        let mut slots = Vec::new();
        slots
            .try_reserve_exact(count)
            .map_err(|_| PlatformError::OutOfMemory)?;
        slots.resize(count, 0);
        Ok(slots.into_boxed_slice())
    }

    fn domain(&self) -> DomainId {
        self.arena.space().domain()
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        let there = self.vectors();
        if there == 0 {
            return if vectors == 0 {
                Ok(0)
            } else {
                Err(PlatformError::NoInterrupts)
            };
        }
        let wanted = vectors.min(there);
        let granted = self.connect(wanted).map_err(report)?;
        if granted == 0 && vectors > 0 {
            return Err(PlatformError::NoInterrupts);
        }
        Ok(granted)
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        self.eventfds.take(vector)
    }

    fn now(&self) -> Instant {
        since(self.start)
    }

    fn wait(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

impl VfioHandle {
    /// Maps `bytes` for the device, where they are: registered once, lent many times. The pages
    /// stay locked in memory until the region is dropped. One region of many bytes is better than
    /// many of few: a device can have some 65,000.
    ///
    /// # Errors
    /// [`VfioError::Empty`], [`VfioError::MemlockTooSmall`], [`VfioError::NoAddresses`], or what
    /// the system said. The bytes are dropped.
    pub fn register<B: Lendable>(&self, bytes: B) -> Result<VfioRegion<B>, VfioError> {
        VfioRegion::new(&self.space, bytes, self.limit, self.pages, |_| None)
    }

    /// The eventfd of a vector, for a poll loop; `None` for one that was never on.
    #[must_use]
    pub fn vector(&self, vector: u16) -> Option<Vector> {
        self.eventfds.vector(vector)
    }

    /// Waits until a vector has fired, at most `timeout`; says whether one has. Which one the
    /// driver finds out, as with any other interrupt.
    #[must_use]
    pub fn wait_for_interrupt(&self, timeout: Duration) -> bool {
        self.eventfds.wait(timeout)
    }

    /// Now, on the clock of the platform: what the driver's `poll` is given.
    #[must_use]
    pub fn now(&self) -> Instant {
        since(self.start)
    }

    /// The API by which the device was opened.
    #[must_use]
    pub fn api(&self) -> Api {
        self.api
    }

    /// The device's address space.
    #[must_use]
    pub fn domain(&self) -> DomainId {
        self.space.domain()
    }

    /// The addresses that are free: what the IOMMU can map, less what is mapped. The window of
    /// interrupt messages (0xfee00000 to 0xfeefffff on a PC) is never among them.
    #[must_use]
    pub fn free_addresses(&self) -> Vec<RangeInclusive<u64>> {
        self.space.free()
    }

    /// Bytes that are mapped for the device, and so locked in memory.
    #[must_use]
    pub fn locked_bytes(&self) -> u64 {
        self.space.mapped()
    }

    /// Of these, bytes that Linux refused to unmap. They are never used or freed again; always 0
    /// unless there is a fault in the kernel.
    #[must_use]
    pub fn stranded_bytes(&self) -> u64 {
        self.space.stranded()
    }
}

#[cfg(test)]
#[path = "platform_tests.rs"]
mod tests;
