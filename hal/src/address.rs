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
/// On exhaustion (2^64 calls, or 2^32 on a 32-bit machine) every later caller gets the same
/// last number, whose holders then refuse nothing of each other's; a program that opens a
/// device four thousand million times is outside what this crate promises.
pub(crate) fn unique() -> NonZeroUsize {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let taken = NEXT
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
            Some(n.saturating_add(1))
        })
        .unwrap_or(usize::MAX);
    NonZeroUsize::new(taken).unwrap_or(NonZeroUsize::MAX)
}

/// Which address space a device address belongs to: one per IOMMU domain.
///
/// A region mapped for one device is at another place, or nowhere, for the next. Everything
/// that yields device addresses carries its domain, and the safe layer refuses to mix them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DomainId(NonZeroUsize);

impl DomainId {
    /// A domain that is equal to no other. A platform makes one per IOMMU domain and hands it
    /// to all it maps there.
    #[must_use]
    pub fn new_unique() -> Self {
        Self(unique())
    }
}
