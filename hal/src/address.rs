//! Addresses as a device sees them, and the identity of a device's address space.

use core::fmt;
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicUsize, Ordering};

/// An address as the device puts it on the bus (an IOVA behind an IOMMU, else a physical
/// address). Never a pointer: it is meaningless to the CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct DeviceAddress(pub u64);

impl DeviceAddress {
    /// The address `bytes` further on; wraps at 2^64 (no mapping reaches there).
    #[inline]
    #[must_use]
    pub const fn offset(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl fmt::Debug for DeviceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number that no other call of [`unique`] in this program has returned or will return.
///
/// # Panics
/// When there is none left: after 2^32 calls on a 32-bit machine, never on a 64-bit one. Two
/// ledgers with the same number would take each other's loans, and free under the device.
pub(crate) fn unique() -> NonZeroUsize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    take(&NEXT)
}

fn take(next: &AtomicUsize) -> NonZeroUsize {
    let taken = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1));
    match taken.ok().and_then(NonZeroUsize::new) {
        Some(taken) => taken,
        None => panic!("no number is left that names one thing only"),
    }
}

/// Which address space a device address belongs to: one per IOMMU domain.
///
/// A region mapped for one device is at another place, or nowhere, for the next. Everything
/// that yields device addresses carries its domain, and the safe layer refuses to mix them.
/// Devices may share a domain if each finds the same bytes at the same addresses, and reaches
/// all of them: a mapping lies below the least
/// [`dma_address_bits`](crate::Capabilities::dma_address_bits).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DomainId(NonZeroUsize);

impl DomainId {
    /// The memory of the machine as it is: the addresses of all devices that no IOMMU stands
    /// before. Never returned by [`new_unique`](Self::new_unique).
    pub const PHYSICAL: Self = Self(NonZeroUsize::MAX);

    /// A domain that is equal to no other. A platform makes one per IOMMU domain and hands it
    /// to all it maps there; without an IOMMU it is [`PHYSICAL`](Self::PHYSICAL).
    ///
    /// # Panics
    /// On a 32-bit machine after 2^32 domains, ledgers and ports.
    #[must_use]
    pub fn new_unique() -> Self {
        Self(unique())
    }
}

/// Names an open device in the queues that it made, so that a reset knows its own
/// ([`Nic::restart`](crate::Nic::restart)). Not an address: memory can be used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct QueueOwner(NonZeroUsize);

impl QueueOwner {
    /// An owner that is equal to no other; a driver makes one each time it opens a device.
    ///
    /// # Panics
    /// As [`DomainId::new_unique`].
    #[must_use]
    pub fn new_unique() -> Self {
        Self(unique())
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
