//! Pagewire's three platform traits on a PC without an operating system and without an IOMMU:
//! everything that a kernel has to write to use the drivers. Physical memory is mapped where it
//! is, so what the heap gives is also what a device sees. One CPU, interrupts off.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::boxed::Box;
use alloc::vec;
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::time::Duration;

use pagewire_hal::{
    DeviceAddress, DmaMemory, DomainId, Instant, MappedRegisters, Platform, PlatformError,
};

use crate::clock::Clock;
use crate::pci::Function;

/// `boot.s` maps this uncached; below is RAM, and above nothing is mapped.
const DEVICES: Range<u64> = 0x8000_0000..1 << 32;

/// Memory from the heap, given back when it is dropped.
pub(crate) struct Memory {
    bytes: NonNull<u8>,
    layout: Layout,
    domain: DomainId,
}

// SAFETY: the value is the only owner of its block of the heap.
unsafe impl Send for Memory {}

// SAFETY: the block was allocated zeroed with this layout, stays where it is, and is freed when
// the value is dropped. RAM is mapped where it is, and there is no IOMMU: the address of the first
// byte is its physical address, which is below 2 GiB. PCs are coherent.
unsafe impl DmaMemory for Memory {
    fn pointer(&self) -> NonNull<u8> {
        self.bytes
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.bytes.addr().get() as u64)
    }

    fn len(&self) -> usize {
        self.layout.size()
    }

    fn domain(&self) -> DomainId {
        self.domain
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `allocate`, and freed once.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) };
    }
}

/// A PCI function and the machine around it.
pub(crate) struct Pc {
    function: Function,
    domain: DomainId,
    clock: Clock,
}

impl Pc {
    /// The machine as the driver of `function` sees it; `domain` names physical memory.
    pub(crate) const fn new(function: Function, domain: DomainId, clock: Clock) -> Self {
        Self {
            function,
            domain,
            clock,
        }
    }
}

// SAFETY: there is one `Function` for each function of the machine. `allocate` gives memory
// of the one domain, and a boxed slice is always the same words.
unsafe impl Platform for Pc {
    /// The mapping is that of `boot.s` and is never undone, so nothing has to keep it.
    type Registers = MappedRegisters<()>;
    type Memory = Memory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        self.function.read(offset)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        // SAFETY: the driver promises the same.
        unsafe { self.function.write(offset, value) };
    }

    fn map_bar(&mut self, index: u8) -> Result<Self::Registers, PlatformError> {
        let none = PlatformError::NoBar(index);
        let (base, len) = self.function.bar(index).ok_or(none)?;
        let end = base.saturating_add(u64::from(len));
        if base < DEVICES.start || end > DEVICES.end {
            return Err(none);
        }
        let base = ptr::with_exposed_provenance_mut(base as usize);
        let base = NonNull::new(base).ok_or(none)?;
        // SAFETY: the firmware gave the function these `len` bytes, `boot.s` mapped them uncached
        // for good, and the driver, which gets this value, is the only user of the function.
        Ok(unsafe { MappedRegisters::new(base, len, ()) })
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<Memory, PlatformError> {
        let none = PlatformError::OutOfMemory;
        let layout = Layout::from_size_align(len.max(1), align).map_err(|_| none)?;
        // SAFETY: the layout has at least one byte.
        let bytes = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(none)?;
        Ok(Memory {
            bytes,
            layout,
            domain: self.domain,
        })
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        Ok(vec![0; count].into())
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        match vectors {
            0 => Ok(0),
            _ => Err(PlatformError::NoInterrupts),
        }
    }

    fn take_interrupt(&mut self, _: u16) -> bool {
        false
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wait(&self, duration: Duration) {
        self.clock.wait(duration);
    }
}
