//! Memory of the program, registered for the devices of a host.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{
    DeviceAddress, DomainId, FixedBytes, Granule, Lendable, PlatformError, Region, Sharing,
    Translation,
};

use super::iommu::Kind;
use super::{Host, Machine};

/// Bytes of the program, mapped read-only for the devices of a [`Host`]: a [`Region`].
///
/// Unmapped when dropped; an access of a device to its addresses is a fault from then on.
pub struct HostRegion<B: Lendable> {
    // Before `bytes`, so that they are unmapped before they are dropped.
    mapping: Mapping,
    // On the heap, so that the bytes' owner is not moved any more once there are pointers to
    // the bytes: moving a `Box<[u8]>` would make them invalid.
    bytes: Arc<B>,
}

impl<B: Lendable> HostRegion<B> {
    pub(super) fn new(host: &Host, bytes: B) -> Result<Self, RegisterError> {
        let bytes = Arc::new(bytes);
        let (pointer, len) = (bytes.base(), bytes.len());
        if len == 0 {
            return Err(RegisterError::Empty);
        }
        let special = match bytes.sharing() {
            Sharing::Owned => None,
            Sharing::Watched(_) | Sharing::Live(_) => Some(Arc::clone(&bytes) as Arc<dyn Lendable>),
        };
        // SAFETY: `Lendable` promises that these bytes stay as long as their owner, whom the
        // region keeps, never gives `&mut` to, and drops after the mapping. Those that cannot be
        // read by pointer are read through their owner.
        let mapping = unsafe { Mapping::new(&host.machine, pointer, len, special) }?;
        Ok(Self { mapping, bytes })
    }

    /// Unmaps the bytes and gives their owner back. (`None` would mean that a device reads them at
    /// this moment, and none does what is not mapped.)
    #[must_use]
    pub fn into_inner(self) -> Option<B> {
        let Self { mapping, bytes } = self;
        drop(mapping);
        Arc::into_inner(bytes)
    }
}

impl<B: FixedBytes> HostRegion<B> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }
}

impl<B: Lendable> fmt::Debug for HostRegion<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostRegion({} bytes)", self.mapping.len)
    }
}

// SAFETY: the base and the bytes stay as `Lendable` promises, for nobody gets `&mut` to the
// owner before the region is taken apart, and are kept as `sharing` says; the mapping covers all
// bytes and lives as long.
unsafe impl<B: Lendable> Region for HostRegion<B> {
    fn base(&self) -> NonNull<u8> {
        self.mapping.pointer
    }

    fn len(&self) -> usize {
        self.mapping.len
    }

    fn domain(&self) -> DomainId {
        self.mapping.machine.domain
    }

    fn translation(&self) -> Translation<'_> {
        self.mapping.translation()
    }

    fn sharing(&self) -> Sharing<'_> {
        self.bytes.sharing()
    }
}

/// Why bytes could not be registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum RegisterError {
    /// There is no byte.
    Empty,
    /// The device's address space has no room.
    AddressSpaceFull,
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a region needs at least one byte"),
            Self::AddressSpaceFull => write!(f, "the device's address space has no room"),
        }
    }
}

impl std::error::Error for RegisterError {}

impl From<RegisterError> for PlatformError {
    fn from(_: RegisterError) -> Self {
        Self::OutOfMemory
    }
}

/// Bytes in the IOMMU; taken out when dropped.
struct Mapping {
    machine: Arc<Machine>,
    pointer: NonNull<u8>,
    len: usize,
    contiguous: bool,
    granule: Granule,
    addresses: Box<[DeviceAddress]>,
    /// Through whom the bytes are read, if they are not simply there.
    special: Option<Arc<dyn Lendable>>,
}

// SAFETY: the pointer is only handed out and compared here; who reads through it relies on the
// promises of `Region`, whose bytes are `Send` and `Sync`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// # Safety
    /// `len` bytes at `pointer` can be read from any thread while the value lives, or are read
    /// through `special`, their owner.
    unsafe fn new(
        machine: &Arc<Machine>,
        pointer: NonNull<u8>,
        len: usize,
        special: Option<Arc<dyn Lendable>>,
    ) -> Result<Self, RegisterError> {
        let mut iommu = machine.iommu_mut();
        let contiguous = iommu.is_contiguous();
        let addresses = if contiguous {
            // As on a machine with pages, the low bits of both addresses agree.
            let remainder = pointer.addr().get() as u64;
            // SAFETY: the caller's promise; `drop` unmaps.
            let run = unsafe { iommu.map_run(pointer, len, Kind::Region, 4096, remainder) };
            Box::new([run.map_err(|_| RegisterError::AddressSpaceFull)?])
        } else {
            // SAFETY: the caller's promise; `drop` unmaps.
            unsafe { iommu.map_slots(pointer, len) }
        };
        if let Some(owner) = &special {
            iommu.add_special(Arc::clone(owner));
        }
        drop(iommu);
        Ok(Self {
            machine: Arc::clone(machine),
            pointer,
            len,
            contiguous,
            granule: machine.granule,
            addresses,
            special,
        })
    }

    fn translation(&self) -> Translation<'_> {
        if self.contiguous {
            return Translation::contiguous(self.len, &self.addresses);
        }
        let lead = self.pointer.addr().get() & (self.granule.bytes() - 1);
        // `None` cannot happen, as `map_slots` returns one address for each granule touched; no
        // byte is translated then.
        Translation::new(self.granule, lead, self.len, &self.addresses)
            .unwrap_or(Translation::contiguous(0, &[]))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let mut iommu = self.machine.iommu_mut();
        if self.contiguous {
            self.addresses.iter().for_each(|run| iommu.unmap_run(*run));
        } else {
            iommu.unmap_slots(&self.addresses);
        }
        if let Some(owner) = &self.special {
            iommu.remove_special(owner);
        }
    }
}
