//! A device of plain memory: what virtio-drivers wants of a platform and of a transport.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr, Result};

/// Descriptors in a ring, as in the benches of Pagewire.
pub const RING: usize = 1024;

/// The program's addresses are the device's.
pub struct Identity;

fn layout(pages: usize) -> Layout {
    match Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE) {
        Ok(layout) => layout,
        Err(error) => panic!("{pages} pages: {error}"),
    }
}

// SAFETY: memory is allocated zeroed, aligned to pages and used by nobody else.
unsafe impl Hal for Identity {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: a queue has at least one page.
        let pointer = unsafe { alloc_zeroed(layout(pages)) };
        match NonNull::new(pointer) {
            Some(pointer) => (pointer.as_ptr() as PhysAddr, pointer),
            None => handle_alloc_error(layout(pages)),
        }
    }

    unsafe fn dma_dealloc(_address: PhysAddr, pointer: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller promises that it is from `dma_alloc`, with so many pages.
        unsafe { dealloc(pointer.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("the transport has no registers that are mapped")
    }

    #[inline]
    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }

    #[inline]
    unsafe fn unshare(_address: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}

/// The device's half of a split ring, and its doorbell.
pub struct Device {
    available: *const u16,
    used: *mut u16,
    next: u16,
    doorbell: Box<u16>,
}

impl Device {
    /// Without a ring.
    pub fn new() -> Self {
        Self {
            available: std::ptr::null(),
            used: std::ptr::null_mut(),
            next: 0,
            doorbell: Box::new(0),
        }
    }

    /// Uses all that is available, in order (virtio 1.2, 2.7: flags, index, then the entries).
    pub fn complete(&mut self) {
        // SAFETY: the rings are where the driver's queue has said, for as long as the queue lives, in which this
        // is called; one thread uses both. An available ring has RING entries of one word behind two
        // words, a used ring RING of four.
        unsafe {
            let end = self.available.add(1).read_volatile();
            while self.next != end {
                let slot = usize::from(self.next) % RING;
                let head = self.available.add(2 + slot).read_volatile();
                let entry = self.used.add(2 + 4 * slot).cast::<u32>();
                entry.write_volatile(u32::from(head));
                entry.add(1).write_volatile(0);
                self.next = self.next.wrapping_add(1);
            }
            self.used.add(1).write_volatile(end);
        }
    }
}

impl Transport for Device {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        0
    }

    fn write_driver_features(&mut self, _features: u64) {}

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        RING as u32
    }

    #[inline]
    fn notify(&mut self, queue: u16) {
        // SAFETY: a box of our own; volatile, as a register is written.
        unsafe { std::ptr::from_mut(&mut *self.doorbell).write_volatile(queue) };
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::DRIVER_OK
    }

    fn set_status(&mut self, _status: DeviceStatus) {}

    fn set_guest_page_size(&mut self, _size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        _queue: u16,
        _size: u32,
        _descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        self.available = driver_area as *const u16;
        self.used = device_area as *mut u16;
        self.next = 0;
    }

    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, _queue: u16) -> bool {
        false
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &self,
        _offset: usize,
    ) -> Result<T> {
        Err(virtio_drivers::Error::Unsupported)
    }

    fn write_config_space<T: zerocopy::IntoBytes + zerocopy::Immutable>(
        &mut self,
        _offset: usize,
        _value: T,
    ) -> Result<()> {
        Err(virtio_drivers::Error::Unsupported)
    }
}
