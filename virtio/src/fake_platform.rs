//! What the [fake](crate::fake) is as a platform: registers, memory, interrupts, time.

use core::ptr::NonNull;
use core::time::Duration;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::boxed::Box;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec;

use pagewire_hal::{
    DeviceAddress, DmaMemory, DomainId, Instant, Platform, PlatformError, Registers,
};

use crate::fake::{COMMON_BAR, Device, Fake, Fault, NOTIFY_BAR, PCIE, Piece};
use crate::fake_ring::Flicker;

#[derive(Clone)]
pub(crate) struct FakeRegisters {
    device: Arc<Mutex<Device>>,
    bar: u8,
}

impl FakeRegisters {
    fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock().expect("not poisoned")
    }
}

impl Registers for FakeRegisters {
    fn read(&self, offset: u32) -> u32 {
        self.lock().read(self.bar, offset, 4)
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        self.lock().write(self.bar, offset, 4, value);
    }

    fn read16(&self, offset: u32) -> u16 {
        self.lock().read(self.bar, offset, 2) as u16
    }

    unsafe fn write16(&self, offset: u32, value: u16) {
        self.lock().write(self.bar, offset, 2, u32::from(value));
    }

    fn read8(&self, offset: u32) -> u8 {
        self.lock().read(self.bar, offset, 1) as u8
    }

    unsafe fn write8(&self, offset: u32, value: u8) {
        self.lock().write(self.bar, offset, 1, u32::from(value));
    }
}

pub(crate) struct FakeMemory {
    pointer: NonNull<u8>,
    layout: Layout,
    address: u64,
    len: usize,
    domain: DomainId,
    device: Arc<Mutex<Device>>,
    flicker: Arc<Flicker>,
}

// SAFETY: the value is the only owner of its heap memory; tests reach it from one thread.
unsafe impl Send for FakeMemory {}

// SAFETY: the heap memory stays where it is until the drop; the fake device finds it at
// `address` by its table.
unsafe impl DmaMemory for FakeMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.flicker.look(self.address, self.pointer);
        self.pointer
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.address)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.domain
    }
}

impl Drop for FakeMemory {
    fn drop(&mut self) {
        let device = self.device.lock();
        let mut device = device.unwrap_or_else(|broken| broken.into_inner());
        device.memory.retain(|piece| piece.address != self.address);
        // SAFETY: allocated with this layout in `allocate`, and nobody has it any more.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

// SAFETY: a `Fake` is used by one driver at a time; the test's clone only plays the device. Its
// memory has its domain.
unsafe impl Platform for Fake {
    type Registers = FakeRegisters;
    type Memory = FakeMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        let device = self.device();
        if device.has(Fault::Removed) {
            return u32::MAX;
        }
        let word = device.config[usize::from(offset) / 4 % 64];
        let pending = usize::from(offset) == PCIE + 8 && device.has(Fault::StuckPending);
        word | u32::from(pending) << 21
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        let mut device = self.device();
        let old = device.config[usize::from(offset) / 4 % 64];
        let is_stuck = offset == 4 && device.has(Fault::EndlessBusMastering);
        let value = value | (u32::from(is_stuck) * (old & 4));
        device.config[usize::from(offset) / 4 % 64] = old & 0xFFFF_0000 | value & 0xFFFF;
    }

    fn map_bar(&mut self, bar: u8) -> Result<FakeRegisters, PlatformError> {
        match bar {
            COMMON_BAR | NOTIFY_BAR => Ok(FakeRegisters {
                device: self.device.clone(),
                bar,
            }),
            _ => Err(PlatformError::NoBar(bar)),
        }
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<FakeMemory, PlatformError> {
        let mut device = self.device();
        let layout =
            Layout::from_size_align(len.max(1), align).map_err(|_| PlatformError::OutOfMemory)?;
        // SAFETY: the layout has at least one byte.
        let pointer = unsafe { alloc_zeroed(layout) };
        let pointer = NonNull::new(pointer).ok_or(PlatformError::OutOfMemory)?;
        let address = device.next_address.next_multiple_of(align as u64);
        device.next_address = address + len as u64 + 0x1000;
        device.memory.push(Piece {
            address,
            pointer: pointer.as_ptr() as usize,
            len,
        });
        Ok(FakeMemory {
            pointer,
            layout,
            address,
            len,
            domain: self.domain,
            device: self.device.clone(),
            flicker: self.flicker.clone(),
        })
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        Ok(vec![0; count].into_boxed_slice())
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        let mut device = self.device();
        device.enabled_vectors = vectors.min(device.vectors);
        // As a real one may: what fired before is forgotten.
        device.fired = 0;
        Ok(device.enabled_vectors)
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        let mut device = self.device();
        let bit = 1u64 << vector;
        let fired = device.fired & bit != 0;
        device.fired &= !bit;
        fired
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.device().nanos)
    }

    fn wait(&self, duration: Duration) {
        self.advance(duration);
    }
}
