//! A device that another process plays, over a vfio-user socket: no kernel driver, no IOMMU and no
//! root.
//!
//! ```no_run
//! use pagewire_vfio::user::{Options, VfioUserPlatform};
//!
//! let platform = VfioUserPlatform::connect("/run/nic.sock".as_ref(), &Options::default())?;
//! let handle = platform.handle();
//! // … a driver takes the platform …
//! let region = handle.register(vec![0x5a; 1 << 20])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A server is `pagewire model`, for one. What it can reach is what it got a file for, so rings and
//! buffers are in a memfd, and so must be what a region lends: a [`SealedFile`] is lent as it is,
//! other bytes are copied once into one ([`VfioUserRegion::was_copied`]).
//!
//! The server is not believed: what it answers may be wrong, but it leads to errors only. It can
//! write to rings and buffers at any time, as a device can. When it has gone, reads are all ones,
//! which drivers take for a device that was pulled out; memory stays valid.
//!
//! When the platform and its registers are gone the server is hung up on, and resets the device.

mod connection;

use std::any::Any;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use pagewire_hal::{DomainId, FixedBytes, Instant, Platform, PlatformError, Region, Translation};
use pagewire_vfio_user::{Client, MSIX};

pub use connection::VfioUserRegisters;
pub use pagewire_vfio_user::ClientError;

use connection::{Device, RemoteMemory};

use crate::arena::{Arena, Memory};
use crate::interrupts::{Eventfds, Vector};
use crate::region::{Pages, VfioRegion};
use crate::space::Space;
use crate::{SealedFile, VfioError};

/// BARs of a PCI function.
const BARS: u8 = 6;

/// How a device is connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long the server may take for an answer; after that it counts as gone.
    pub patience: Duration,
    /// Bits of an address that the device can emit, 12 to 64, for memory that is handed to
    /// [`VfioUserHandle::register`]; 32 is safe with any device. Rings and buffers are always below
    /// 4 GiB.
    pub address_bits: u8,
    /// Bytes of memory for rings and buffers that are mapped at once, in whole pieces of 2 MiB.
    pub arena: usize,
}

impl Default for Options {
    /// 10 seconds, 32 bits, 1 byte (and so one piece of 2 MiB).
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            address_bits: 32,
            arena: 1,
        }
    }
}

/// A PCI device behind a vfio-user socket, as the platform of its driver: registers and
/// configuration space by messages, DMA memory in files that the server maps, MSI-X by eventfds,
/// and real time.
///
/// A server has one client, so the device is this program's alone.
#[derive(Debug)]
pub struct VfioUserPlatform {
    device: Arc<Device>,
    arena: Arc<Arena>,
    eventfds: Eventfds,
    bars: [u64; BARS as usize],
    vectors: u16,
    limit: u64,
    start: Clock,
}

/// What is left to the program when the platform has gone into a driver: registers memory, and
/// knows the interrupts. A clone is for the same device.
#[derive(Clone, Debug)]
pub struct VfioUserHandle {
    space: Arc<Space>,
    connection: Arc<connection::Connection>,
    eventfds: Eventfds,
    limit: u64,
    start: Clock,
}

impl VfioUserPlatform {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    /// [`VfioError::User`]: nobody listens there, it has a client already, or it says what it must
    /// not. Others if there is no memory.
    pub fn connect(path: &Path, options: &Options) -> Result<Self, VfioError> {
        let device = Device::connect(path, options.patience).map_err(VfioError::User)?;
        let connection = device.connection();
        let ask = |client: &mut Client| {
            let mut bars = [0; BARS as usize];
            for (index, len) in (0..).zip(&mut bars) {
                *len = client.region(index)?.len;
            }
            Ok((bars, client.irqs(MSIX)?.count))
        };
        let (bars, vectors) = connection.with(ask).map_err(VfioError::User)?;
        let space = Space::new(Box::new(RemoteMemory::new(connection)))?;
        let limit = u64::MAX >> (64 - u32::from(options.address_bits.clamp(12, 64)));
        // Rings are made before anybody has asked the driver how many bits there may be.
        let below = limit.min(u64::from(u32::MAX));
        let arena = Arena::new(&space, options.arena, below, (false, false))?;
        Ok(Self {
            device: Arc::new(device),
            arena,
            eventfds: Eventfds::default(),
            bars,
            // MSI-X has 2048 at most (PCI Local Bus 3.0, section 6.8.2).
            vectors: vectors.min(2048) as u16,
            limit,
            start: Clock::now(),
        })
    }

    /// What is left to the program when the platform has gone into a driver.
    #[must_use]
    pub fn handle(&self) -> VfioUserHandle {
        VfioUserHandle {
            space: Arc::clone(self.arena.space()),
            connection: Arc::clone(self.device.connection()),
            eventfds: self.eventfds.clone(),
            limit: self.limit,
            start: self.start,
        }
    }

    /// MSI-X vectors that the device has.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Bytes of BAR `index`, 0 to 5; `None` if there is none, or none of memory.
    #[must_use]
    pub fn bar_len(&self, index: u8) -> Option<u64> {
        const BAR0: u16 = 0x10;
        const BAR_IO: u32 = 1;
        let len = *self.bars.get(usize::from(index))?;
        let is_memory = self.device.read_config(BAR0 + 4 * u16::from(index)) & BAR_IO == 0;
        (len > 0 && is_memory).then_some(len)
    }

    /// Resets the device, to the state in which its driver wants to find it.
    ///
    /// # Errors
    /// [`VfioError::User`].
    pub fn reset(&mut self) -> Result<(), VfioError> {
        let reset = self.device.connection().with(Client::reset);
        reset.map_err(VfioError::User)
    }

    /// Lets the server signal the eventfd of `vector` as if the device had sent its message: for a
    /// test of all but the device.
    ///
    /// # Errors
    /// [`VfioError::User`].
    pub fn trigger_interrupt(&mut self, vector: u16) -> Result<(), VfioError> {
        let connection = self.device.connection();
        let triggered = connection.with(|client| client.trigger(MSIX, vector.into()));
        triggered.map_err(VfioError::User)
    }

    /// As [`Platform::allocate`], with the reason if there is no memory.
    ///
    /// # Errors
    /// [`VfioError::NoAddresses`], [`VfioError::Alignment`], [`VfioError::User`], or what the
    /// system said.
    pub fn allocate_memory(&mut self, len: usize, align: usize) -> Result<Memory, VfioError> {
        self.arena.take(len, align)
    }

    /// Connects the first `count` vectors, and no others.
    fn connect_vectors(&mut self, count: u16) -> Result<(), VfioError> {
        let eventfds = self
            .eventfds
            .first(count.into())
            .map_err(|errno| VfioError::system("cannot make eventfds", errno))?;
        let borrowed: Vec<_> = eventfds.iter().map(|eventfd| eventfd.as_fd()).collect();
        let connection = self.device.connection();
        let connected = connection.with(|client| client.connect_irqs(MSIX, &borrowed));
        connected.map_err(VfioError::User)
    }
}

/// Into the log, and what is left of it for the driver.
fn report(error: VfioError) -> PlatformError {
    log::error!("{error}");
    error.into()
}

// SAFETY: a server has one client, and `connect` makes one platform of a connection; memory comes
// from `Arena`, which keeps the promises of `DmaMemory`, in the one domain of its space; slots are
// on the heap.
unsafe impl Platform for VfioUserPlatform {
    type Registers = VfioUserRegisters;
    type Memory = Memory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        self.device.read_config(offset)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        self.device.write_config(offset, value);
    }

    fn map_bar(&mut self, index: u8) -> Result<VfioUserRegisters, PlatformError> {
        let len = self.bar_len(index).ok_or(PlatformError::NoBar(index))?;
        Ok(VfioUserRegisters::new(&self.device, index, len))
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
        if self.vectors == 0 {
            return if vectors == 0 {
                Ok(0)
            } else {
                Err(PlatformError::NoInterrupts)
            };
        }
        let count = vectors.min(self.vectors);
        self.connect_vectors(count).map_err(report)?;
        Ok(count)
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

fn since(start: Clock) -> Instant {
    Instant::from_nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

impl VfioUserHandle {
    /// Makes `bytes` readable for the device: registered once, lent many times. A [`SealedFile`] is
    /// mapped as it is; other bytes are copied into one first, once, as the server can only reach
    /// what is in a file.
    ///
    /// # Errors
    /// [`VfioError::Empty`], [`VfioError::NoAddresses`], [`VfioError::User`], or what the system
    /// said. The bytes are dropped.
    pub fn register<B: FixedBytes>(&self, bytes: B) -> Result<VfioUserRegion, VfioError> {
        let any: Box<dyn Any> = Box::new(bytes);
        let (sealed, copied) = match any.downcast::<SealedFile>() {
            Ok(sealed) => (*sealed, false),
            Err(other) => {
                let bytes = other.downcast_ref::<B>().map(FixedBytes::bytes);
                (SealedFile::copy_of(bytes.unwrap_or_default())?, true)
            }
        };
        let region = VfioRegion::new(&self.space, sealed, self.limit, Pages::Joined, |sealed| {
            Some(sealed.as_fd())
        })?;
        Ok(VfioUserRegion { region, copied })
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

    /// The device's address space.
    #[must_use]
    pub fn domain(&self) -> DomainId {
        self.space.domain()
    }

    /// The time, as the platform has it.
    #[must_use]
    pub fn now(&self) -> Instant {
        since(self.start)
    }

    /// Whether the server has gone, or was hung up on.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.connection.is_over()
    }

    /// The addresses that are free.
    #[must_use]
    pub fn free_addresses(&self) -> Vec<RangeInclusive<u64>> {
        self.space.free()
    }

    /// Bytes that are mapped for the device.
    #[must_use]
    pub fn mapped_bytes(&self) -> u64 {
        self.space.mapped()
    }

    /// Of these, bytes that the server refused to unmap; they are never freed.
    #[must_use]
    pub fn stranded_bytes(&self) -> u64 {
        self.space.stranded()
    }
}

/// Bytes for the device to read, in a sealed file that the server has mapped. Unmapped when
/// dropped.
#[derive(Debug)]
pub struct VfioUserRegion {
    region: VfioRegion<SealedFile>,
    copied: bool,
}

impl VfioUserRegion {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.region.bytes()
    }

    /// Whether the bytes were copied when they were registered.
    #[must_use]
    pub fn was_copied(&self) -> bool {
        self.copied
    }
}

// SAFETY: it is the region inside, which keeps the promises.
unsafe impl Region for VfioUserRegion {
    fn base(&self) -> NonNull<u8> {
        self.region.base()
    }

    fn len(&self) -> usize {
        self.region.len()
    }

    fn domain(&self) -> DomainId {
        self.region.domain()
    }

    fn translation(&self) -> Translation<'_> {
        self.region.translation()
    }
}
