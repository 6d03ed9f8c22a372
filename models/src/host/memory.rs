//! Memory that a driver allocates: rings, receive buffers, headers.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{DeviceAddress, DmaMemory, DomainId, PlatformError};

use super::iommu::Kind;
use super::{Host, Machine};

/// Memory of the host that the device reads and writes; contiguous for the device, at an
/// address that is aligned as asked for and no better. Unmapped and freed when dropped.
pub struct HostMemory {
    machine: Arc<Machine>,
    pointer: NonNull<u8>,
    layout: Layout,
    len: usize,
    address: DeviceAddress,
}

impl HostMemory {
    /// `len` zeroed bytes, aligned to `align` for the CPU and for the device.
    pub(super) fn new(host: &Host, len: usize, align: usize) -> Result<Self, PlatformError> {
        let layout =
            Layout::from_size_align(len.max(1), align).map_err(|_| PlatformError::OutOfMemory)?;
        // SAFETY: the layout has at least one byte.
        let allocated = unsafe { alloc_zeroed(layout) };
        let pointer = NonNull::new(allocated).ok_or(PlatformError::OutOfMemory)?;
        let align = align as u64;
        // An odd multiple of the alignment: who needs more than it asked for finds out.
        // SAFETY: the memory was just allocated and stays so until `drop`, which unmaps it
        // first. Nothing but raw pointers ever refers to it.
        let mapped = unsafe {
            host.machine.iommu_mut().map_run(
                pointer,
                len,
                Kind::Memory,
                align.saturating_mul(2),
                align,
            )
        };
        match mapped {
            Ok(address) => Ok(Self {
                machine: Arc::clone(&host.machine),
                pointer,
                layout,
                len,
                address,
            }),
            Err(_) => {
                // SAFETY: allocated above with this layout, and mapped nowhere.
                unsafe { dealloc(pointer.as_ptr(), layout) };
                Err(PlatformError::OutOfMemory)
            }
        }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.machine.iommu_mut().unmap_run(self.address);
        // SAFETY: allocated in `new` with this layout; no device reaches it any more, as every
        // access of a device holds the lock that unmapping took.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostMemory({} bytes at {:?})", self.len, self.address)
    }
}

// SAFETY: the value owns its memory; the pointer is as good on another thread.
unsafe impl Send for HostMemory {}

// SAFETY: `pointer` is the allocation, which has `len` bytes, belongs to this value alone, does
// not move with it, lives until it is dropped and is mapped at `address` in the domain of the
// host.
unsafe impl DmaMemory for HostMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    fn address(&self) -> DeviceAddress {
        self.address
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.machine.domain
    }
}
