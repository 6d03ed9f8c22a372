//! A platform for the unit tests of drivers: a device in a few lines of the test's own, memory from
//! the heap at device addresses that are unlike the CPU's, a clock that only waiting moves. It
//! moves no frames by itself; tests play the device's part.
//!
//! It panics where a real platform would do harm: a device that reaches memory which is not mapped.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is for tests, which end with the first surprise"
)]

pub mod lifecycle;

use core::fmt::Debug;
use core::ops::DerefMut;
use core::ptr::NonNull;
use core::time::Duration;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::boxed::Box;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec;
use std::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{DeviceAddress, DmaMemory, DomainId, Instant, Platform, PlatformError, Registers};

/// Called before the driver looks at memory, with its address for the device and for the CPU.
pub type Look = Arc<dyn Fn(u64, NonNull<u8>) + Send + Sync>;

/// What every device has around it. `F` are the ways in which it may misbehave.
#[non_exhaustive]
pub struct Machine<F> {
    /// Configuration space, 256 bytes.
    pub config: [u32; 64],
    /// How the device misbehaves.
    pub faults: Vec<F>,
    /// A bit for each vector that has fired.
    pub fired: u64,
    /// Vectors that the platform grants.
    pub vectors: u16,
    /// Vectors that are on.
    pub enabled_vectors: u16,
    /// How often memory can be allocated before it runs out.
    pub allocations_left: usize,
    /// Pieces of memory that were freed.
    pub freed: usize,
    /// Nanoseconds that have passed.
    pub nanos: u64,
    /// What is called when the driver looks at memory that is allocated from now on.
    pub look: Option<Look>,
    memory: Vec<Piece>,
    next_address: u64,
}

#[derive(Clone, Copy)]
struct Piece {
    address: u64,
    pointer: usize,
    len: usize,
}

impl<F: Copy + PartialEq> Machine<F> {
    /// A machine whose function has this configuration space.
    #[must_use]
    pub fn new(config: [u32; 64], vectors: u16) -> Self {
        Self {
            config,
            faults: Vec::new(),
            fired: 0,
            vectors,
            enabled_vectors: 0,
            allocations_left: usize::MAX,
            freed: 0,
            nanos: 0,
            look: None,
            memory: Vec::new(),
            next_address: 0x1_0000_0000,
        }
    }

    /// Whether the device misbehaves in this way.
    #[must_use]
    pub fn has(&self, fault: F) -> bool {
        self.faults.contains(&fault)
    }

    /// Where the CPU finds `len` bytes at the device's `address`.
    fn locate(&self, address: u64, len: usize) -> *mut u8 {
        let piece = self
            .memory
            .iter()
            .find(|p| p.address <= address && address + len as u64 <= p.address + p.len as u64)
            .expect("the device reaches memory that is not mapped");
        (piece.pointer + (address - piece.address) as usize) as *mut u8
    }

    /// Reads memory as the device does.
    #[must_use]
    pub fn load<T: FromBytes + Copy>(&self, address: u64) -> T {
        let pointer = self.locate(address, size_of::<T>()).cast::<T>();
        assert!(pointer.is_aligned());
        // SAFETY: `locate` found as many mapped bytes; any bytes are a `T`; volatile as the driver's
        // side is.
        unsafe { pointer.read_volatile() }
    }

    /// Writes memory as the device does.
    pub fn store<T: IntoBytes + Immutable + Copy>(&self, address: u64, value: T) {
        let pointer = self.locate(address, size_of::<T>()).cast::<T>();
        assert!(pointer.is_aligned());
        // SAFETY: as above.
        unsafe { pointer.write_volatile(value) };
    }

    /// Writes bytes to memory as the device does, in no particular order.
    pub fn store_bytes(&self, address: u64, bytes: &[u8]) {
        for (at, byte) in (address..).zip(bytes) {
            self.store(at, *byte);
        }
    }
}

/// A device for a [`Fake`]: registers, and the [`Machine`] around it.
pub trait FakeDevice: DerefMut<Target = Machine<Self::Fault>> + Default + Send + 'static {
    /// Ways in which it may misbehave.
    type Fault: Copy + PartialEq + Debug + Send + 'static;
    /// It is gone: configuration space reads all ones.
    const REMOVED: Self::Fault;
    /// PCIe transactions stay pending.
    const STUCK_PENDING: Self::Fault;
    /// Where its PCI Express capability is.
    const PCIE: u16;

    /// Whether there is a BAR of this number.
    fn has_bar(&self, bar: u8) -> bool {
        bar == 0
    }

    /// Reads a register of `width` bytes.
    fn read(&mut self, bar: u8, offset: u32, width: u32) -> u32;

    /// Writes a register of `width` bytes.
    fn write(&mut self, bar: u8, offset: u32, width: u32, value: u32);

    /// What a write of `value` to the lower half of the word at `offset` of configuration space
    /// leaves there.
    fn take_config(&self, _offset: u16, value: u32) -> u32 {
        value
    }
}

/// A platform with one device. A clone is the same.
pub struct Fake<D> {
    device: Arc<Mutex<D>>,
    domain: DomainId,
}

impl<D> Clone for Fake<D> {
    fn clone(&self) -> Self {
        Self {
            device: self.device.clone(),
            domain: self.domain,
        }
    }
}

impl<D: FakeDevice> Fake<D> {
    /// A device that nobody has touched.
    #[must_use]
    pub fn new() -> Self {
        Self::of(D::default())
    }

    /// This device.
    #[must_use]
    pub fn of(device: D) -> Self {
        Self {
            device: Arc::new(Mutex::new(device)),
            domain: DomainId::new_unique(),
        }
    }

    /// Another device in the same domain, whose memory begins at the same address: as if that of
    /// the first had been freed and taken again.
    #[must_use]
    pub fn successor_of(other: &Self) -> Self {
        Self {
            domain: other.domain,
            ..Self::new()
        }
    }

    /// A device that misbehaves.
    #[must_use]
    pub fn with_fault(fault: D::Fault) -> Self {
        let fake = Self::new();
        fake.break_with(fault);
        fake
    }

    /// The device, to look at or to play its part. Nobody else can while this is held.
    pub fn device(&self) -> MutexGuard<'_, D> {
        self.device
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
    }

    /// From now on it misbehaves in this way, too.
    pub fn break_with(&self, fault: D::Fault) {
        self.device().faults.push(fault);
    }

    /// It behaves again.
    pub fn repair(&self) {
        self.device().faults.clear();
    }

    /// Lets time pass.
    pub fn advance(&self, duration: Duration) {
        self.device().nanos += duration.as_nanos() as u64;
    }

    /// Pieces of memory that are mapped.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.device().memory.len()
    }
}

impl<D: FakeDevice> Default for Fake<D> {
    fn default() -> Self {
        Self::new()
    }
}

/// A BAR of a [`Fake`].
pub struct FakeRegisters<D> {
    fake: Fake<D>,
    bar: u8,
}

impl<D> Clone for FakeRegisters<D> {
    fn clone(&self) -> Self {
        Self {
            fake: self.fake.clone(),
            bar: self.bar,
        }
    }
}

impl<D: FakeDevice> Registers for FakeRegisters<D> {
    fn read(&self, offset: u32) -> u32 {
        self.fake.device().read(self.bar, offset, 4)
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        self.fake.device().write(self.bar, offset, 4, value);
    }

    fn read16(&self, offset: u32) -> u16 {
        self.fake.device().read(self.bar, offset, 2) as u16
    }

    unsafe fn write16(&self, offset: u32, value: u16) {
        let value = u32::from(value);
        self.fake.device().write(self.bar, offset, 2, value);
    }

    fn read8(&self, offset: u32) -> u8 {
        self.fake.device().read(self.bar, offset, 1) as u8
    }

    unsafe fn write8(&self, offset: u32, value: u8) {
        let value = u32::from(value);
        self.fake.device().write(self.bar, offset, 1, value);
    }
}

/// Memory of a [`Fake`].
pub struct FakeMemory<D: FakeDevice> {
    pointer: NonNull<u8>,
    layout: Layout,
    address: u64,
    len: usize,
    fake: Fake<D>,
    look: Option<Look>,
}

// SAFETY: the value is the only owner of its heap memory; tests reach it from one thread.
unsafe impl<D: FakeDevice> Send for FakeMemory<D> {}

// SAFETY: the heap memory stays where it is until the drop; the fake device finds it at
// `address` by its table.
unsafe impl<D: FakeDevice> DmaMemory for FakeMemory<D> {
    fn pointer(&self) -> NonNull<u8> {
        if let Some(look) = &self.look {
            look(self.address, self.pointer);
        }
        self.pointer
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.address)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.fake.domain
    }
}

impl<D: FakeDevice> Drop for FakeMemory<D> {
    fn drop(&mut self) {
        let mut device = self.fake.device();
        device.memory.retain(|piece| piece.address != self.address);
        device.freed += 1;
        // SAFETY: allocated with this layout in `allocate`, and nobody has it any more.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

// SAFETY: a `Fake` is used by one driver at a time; the test's clone only plays the device. Its
// memory has its domain.
unsafe impl<D: FakeDevice> Platform for Fake<D> {
    type Registers = FakeRegisters<D>;
    type Memory = FakeMemory<D>;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        let device = self.device();
        if device.has(D::REMOVED) {
            return u32::MAX;
        }
        let word = device.config[usize::from(offset) / 4 % 64];
        let pending = offset == D::PCIE + 8 && device.has(D::STUCK_PENDING);
        word | u32::from(pending) << 21
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        let mut device = self.device();
        let value = device.take_config(offset, value);
        let word = &mut device.config[usize::from(offset) / 4 % 64];
        *word = *word & 0xFFFF_0000 | value & 0xFFFF;
    }

    fn map_bar(&mut self, bar: u8) -> Result<Self::Registers, PlatformError> {
        if !self.device().has_bar(bar) {
            return Err(PlatformError::NoBar(bar));
        }
        let fake = self.clone();
        Ok(FakeRegisters { fake, bar })
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<Self::Memory, PlatformError> {
        let mut device = self.device();
        if device.allocations_left == 0 {
            return Err(PlatformError::OutOfMemory);
        }
        device.allocations_left -= 1;
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
            fake: self.clone(),
            look: device.look.clone(),
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
