//! The machine around a model: memory, an IOMMU, a clock, and a platform for the driver.

mod access;
mod attach;
mod bus;
mod iommu;
mod memory;
mod region;
mod special;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use pagewire_hal::{DomainId, Granule, Instant, Lendable, PlatformError};

pub use attach::{Attached, ModelHandle, ModelPlatform, ModelRegisters};
pub use bus::Counters;
pub(crate) use bus::{BusState, HostBus};
pub use memory::HostMemory;
pub use region::{HostRegion, RegisterError};

use iommu::Iommu;

use crate::Device;

/// How a host is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// From which all device addresses are drawn: the same seed and the same calls give the same
    /// addresses, except for their lowest bits, which are those of the CPU addresses.
    pub seed: u64,
    /// The unit by which the IOMMU maps regions: 4 KiB, 16 KiB, 64 KiB or 2 MiB as on real
    /// machines, or any other up to 1 GiB. With [`Granule::CONTIGUOUS`] (and any granule above
    /// 1 GiB) a region is one run.
    pub granule: Granule,
}

impl Default for HostConfig {
    /// Seed 0, granule 4 KiB.
    fn default() -> Self {
        Self {
            seed: 0,
            granule: Granule::from_bytes(4096).unwrap_or(Granule::CONTIGUOUS),
        }
    }
}

/// A machine: memory behind an IOMMU, and a clock that stands still until it is moved. A clone
/// is the same machine. Several devices may be attached to it; they share one domain.
///
/// Device addresses are drawn at random, all above 4 GiB and none equal to the address for the
/// CPU; granules are never neighbours, and what lies between two mappings is not mapped.
#[derive(Clone)]
pub struct Host {
    machine: Arc<Machine>,
}

/// What all clones of a host, and all it has handed out, share.
pub(crate) struct Machine {
    domain: DomainId,
    granule: Granule,
    clock: AtomicU64,
    iommu: RwLock<Iommu>,
}

impl Machine {
    /// For an access of a device; nothing is unmapped before the guard is dropped.
    #[inline]
    fn iommu(&self) -> RwLockReadGuard<'_, Iommu> {
        self.iommu.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn iommu_mut(&self) -> RwLockWriteGuard<'_, Iommu> {
        self.iommu.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks, also what a panicking holder has left (whose test has failed already).
#[inline]
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// A machine with nothing mapped, at [`Instant::ZERO`].
    #[must_use]
    pub fn new(config: HostConfig) -> Self {
        Self {
            machine: Arc::new(Machine {
                domain: DomainId::new_unique(),
                granule: config.granule,
                clock: AtomicU64::new(0),
                iommu: RwLock::new(Iommu::new(config.seed, config.granule)),
            }),
        }
    }

    /// The address space of all devices of this machine.
    #[must_use]
    pub fn domain(&self) -> DomainId {
        self.machine.domain
    }

    /// The unit of translation.
    #[must_use]
    pub fn granule(&self) -> Granule {
        self.machine.granule
    }

    /// Maps `bytes`, read-only for the devices.
    ///
    /// # Errors
    /// [`RegisterError::Empty`] if there is no byte, [`RegisterError::AddressSpaceFull`]. The
    /// owner of the bytes is dropped then.
    pub fn register<B: Lendable>(&self, bytes: B) -> Result<Arc<HostRegion<B>>, RegisterError> {
        HostRegion::new(self, bytes).map(Arc::new)
    }

    /// `len` zeroed bytes, aligned to `align` (a power of two), read and written by the devices.
    ///
    /// # Errors
    /// [`PlatformError::OutOfMemory`], also if `align` is no power of two.
    pub fn allocate(&self, len: usize, align: usize) -> Result<HostMemory, PlatformError> {
        HostMemory::new(self, len, align)
    }

    /// Plugs a device in.
    ///
    /// A model is trusted as a real device is: it writes to any memory that the driver
    /// allocated, whatever references the driver has to it.
    #[must_use]
    pub fn attach<D: Device + 'static>(&self, device: D) -> Attached<D> {
        Attached::new(self, device)
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.machine.clock.load(Ordering::Acquire))
    }

    /// Moves the clock on by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.set_now(self.now() + duration);
    }

    /// Moves the clock on to `now`; does nothing if it is later already.
    pub fn set_now(&self, now: Instant) {
        self.machine
            .clock
            .fetch_max(now.as_nanos(), Ordering::AcqRel);
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("domain", &self.machine.domain)
            .field("granule", &self.machine.granule)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
