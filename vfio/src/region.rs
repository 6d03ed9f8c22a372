//! Bytes of the program for the device to read: mapped once, where they are.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{DeviceAddress, DomainId, FixedBytes, Region, Translation};

use crate::VfioError;
use crate::iommu::Access;
use crate::space::{Mapping, Space};

/// Bytes of the program as a [`Region`]: the device reads them where they lie. Nothing is copied.
///
/// Mapped for the device, read-only, when it is registered, and unmapped when dropped; until then
/// the pages are locked in memory. Pages are mapped whole: what lies beside the bytes in the first
/// and the last of them could be read by the device too, so begin and end buffers with a page if
/// the neighbours are secret.
///
/// If the system refuses to unmap (it should not), the bytes are never freed.
pub struct VfioRegion<B: FixedBytes> {
    mapping: Mapping,
    base: NonNull<u8>,
    len: usize,
    address: [DeviceAddress; 1],
    // On the heap, so that the bytes' owner is not moved any more once there are pointers to
    // the bytes. Dropped by `drop`, if the device cannot reach them any more.
    bytes: ManuallyDrop<Box<B>>,
}

// SAFETY: the pointer is only handed out; the bytes are `Send` and `Sync` as all `FixedBytes`.
unsafe impl<B: FixedBytes> Send for VfioRegion<B> {}
// SAFETY: as above.
unsafe impl<B: FixedBytes> Sync for VfioRegion<B> {}

impl<B: FixedBytes> VfioRegion<B> {
    pub(crate) fn new(space: &Arc<Space>, bytes: B, limit: u64) -> Result<Self, VfioError> {
        let bytes = Box::new(bytes);
        let slice = bytes.bytes();
        let (base, len) = (NonNull::from(slice).cast::<u8>(), slice.len());
        if len == 0 {
            return Err(VfioError::Empty);
        }
        let page = space.page() as usize;
        let lead = base.addr().get() & (page - 1);
        // The last page ends inside the address space: Rust's objects have at most `isize::MAX`
        // bytes, and none lies at its very end.
        let size = (lead + len).next_multiple_of(page) as u64;
        let first = NonNull::new(base.as_ptr().wrapping_byte_sub(lead)).ok_or(VfioError::Empty)?;
        // SAFETY: `FixedBytes` promises that the bytes stay while their owner lives, which is
        // dropped in `drop` only, after the mapping. So the pages stay in which they lie. The
        // device reads only.
        let mapping = unsafe { space.map(first, size, Access::Read, limit) }?;
        let address = [mapping.address().offset(lead as u64)];
        Ok(Self {
            mapping,
            base,
            len,
            address,
            bytes: ManuallyDrop::new(bytes),
        })
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }
}

impl<B: FixedBytes> Drop for VfioRegion<B> {
    fn drop(&mut self) {
        if self.mapping.unmap() {
            // SAFETY: the value is never used again, nor taken anywhere else.
            unsafe { ManuallyDrop::drop(&mut self.bytes) };
        }
    }
}

impl<B: FixedBytes> fmt::Debug for VfioRegion<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [address] = self.address;
        write!(f, "VfioRegion({} bytes at {address:?})", self.len)
    }
}

// SAFETY: the base and the bytes stay as `FixedBytes` promises, for nobody gets `&mut` to their
// owner while the region lives. The mapping covers all of them, in a row, in the address space of
// the domain, and lives as long; the device reads the same pages, which are locked.
unsafe impl<B: FixedBytes> Region for VfioRegion<B> {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.mapping.space().domain()
    }

    fn translation(&self) -> Translation<'_> {
        Translation::contiguous(self.len, &self.address)
    }
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
