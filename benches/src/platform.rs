//! A platform that is a model while a driver is opened, and plain memory afterwards.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagewire_hal::{
    DeviceAddress, DmaMemory, DomainId, Instant, MappedRegisters, Platform, PlatformError,
    Registers,
};
use pagewire_models::ModelPlatform;
use pagewire_models::host::ModelRegisters;

/// Bytes of plain memory in the place of a BAR: more than any of the devices has.
const BAR_LEN: u32 = 0x2_0000;

/// A write to a register while the driver was opened.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Offset in its BAR, in bytes.
    pub offset: u32,
    /// What was written.
    pub value: u32,
}

/// What a driver has told its device, and what memory it has for it.
#[derive(Debug, Default)]
struct Noted {
    writes: Vec<Written>,
    memories: Vec<(DeviceAddress, View)>,
    bar: Option<View>,
}

#[derive(Debug, Default)]
struct Shared {
    frozen: AtomicBool,
    noted: Mutex<Noted>,
}

impl Shared {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that is never freed, as the bench sees it, in the place of the device.
#[derive(Clone, Copy, Debug)]
pub struct View {
    pointer: NonNull<u8>,
    len: usize,
}

// SAFETY: it is an address and a length; who reads and writes through it is one thread, that of the
// bench, which is also the only one that uses the driver.
unsafe impl Send for View {}

impl View {
    fn place<T>(self, offset: usize) -> NonNull<T> {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.len) && offset.is_multiple_of(align_of::<T>()),
            "offset {offset} of {} bytes",
            self.len
        );
        // SAFETY: the place ends inside the memory, as was just checked.
        unsafe { self.pointer.byte_add(offset) }.cast()
    }

    /// The number at `offset` bytes.
    ///
    /// # Panics
    /// If it is not there, or not aligned.
    #[must_use]
    pub fn read<T: Number>(self, offset: usize) -> T {
        // SAFETY: `place` has checked the place. The memory is initialised and never freed.
        unsafe { self.place::<T>(offset).read_volatile() }
    }

    /// Writes a number at `offset` bytes.
    ///
    /// # Panics
    /// If there is no such place, or it is not aligned.
    pub fn write<T: Number>(self, offset: usize, value: T) {
        // SAFETY: as above.
        unsafe { self.place::<T>(offset).write_volatile(value) };
    }

    /// Where the CPU finds the byte at `offset`.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn pointer(self, offset: usize) -> NonNull<u8> {
        self.place(offset)
    }

    /// The part from `offset` on.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn from(self, offset: usize) -> Self {
        let len = self.len.checked_sub(offset);
        let Some(len) = len else {
            panic!("offset {offset} of {} bytes", self.len)
        };
        Self {
            // SAFETY: the offset lies inside the memory, or just behind it.
            pointer: unsafe { self.pointer.byte_add(offset) },
            len,
        }
    }
}

/// Numbers of which any bytes are one.
pub trait Number: Copy {}

impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

std::thread_local! {
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { device: 0, slots: 0 }) };
}

/// What has been allocated by platforms on this thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allocated {
    /// Bytes that the device reaches: rings, buffers.
    pub device: usize,
    /// Bytes for what a driver remembers of descriptors.
    pub slots: usize,
}

impl Allocated {
    /// Until now.
    #[must_use]
    pub fn now() -> Self {
        ALLOCATED.get()
    }

    /// From then until now.
    #[must_use]
    pub fn since(self) -> Self {
        let now = Self::now();
        Self {
            device: now.device - self.device,
            slots: now.slots - self.slots,
        }
    }

    fn add(device: usize, slots: usize) {
        let now = Self::now();
        ALLOCATED.set(Self {
            device: now.device + device,
            slots: now.slots + slots,
        });
    }
}

/// Takes the model away, and shows what the driver has told it.
#[derive(Clone, Debug)]
pub struct Freezer(Arc<Shared>);

impl Freezer {
    /// From now on registers are plain memory: what is written is remembered, and nobody acts.
    pub fn freeze(&self) {
        self.0.frozen.store(true, Ordering::Relaxed);
    }

    /// What was written to registers, in order.
    #[must_use]
    pub fn writes(&self) -> Vec<Written> {
        self.0.noted().writes.clone()
    }

    /// What was last written to the register at `offset`, or 0.
    #[must_use]
    pub fn last(&self, offset: u32) -> u32 {
        let noted = self.0.noted();
        let mut writes = noted.writes.iter().rev();
        writes
            .find(|write| write.offset == offset)
            .map_or(0, |write| write.value)
    }

    /// The memory that the device finds at `address`.
    ///
    /// # Panics
    /// If the driver has none there.
    #[must_use]
    pub fn memory(&self, address: u64) -> View {
        let noted = self.0.noted();
        let found = noted.memories.iter().find_map(|(first, view)| {
            let offset = usize::try_from(address.checked_sub(first.0)?).ok()?;
            (offset < view.len).then(|| view.from(offset))
        });
        let Some(view) = found else {
            panic!("the driver has no memory at {address:#x}")
        };
        view
    }

    /// The plain memory in the place of the registers.
    ///
    /// # Panics
    /// If the driver has mapped no BAR.
    #[must_use]
    pub fn registers(&self) -> View {
        let Some(bar) = self.0.noted().bar else {
            panic!("no BAR was mapped")
        };
        bar
    }
}

/// A model's platform that can be frozen.
#[derive(Debug)]
pub struct FrozenPlatform {
    inner: ModelPlatform,
    shared: Arc<Shared>,
}

impl FrozenPlatform {
    /// Around that of a model, and what freezes it.
    #[must_use]
    pub fn new(inner: ModelPlatform) -> (Self, Freezer) {
        let shared = Arc::new(Shared::default());
        let freezer = Freezer(Arc::clone(&shared));
        (Self { inner, shared }, freezer)
    }
}

// SAFETY: what it does is done by the model's platform, which keeps the promises.
unsafe impl Platform for FrozenPlatform {
    type Registers = FrozenRegisters;
    type Memory = NotedMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        self.inner.read_config(offset)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.inner.write_config(offset, value) };
    }

    fn map_bar(&mut self, index: u8) -> Result<FrozenRegisters, PlatformError> {
        let inner = self.inner.map_bar(index)?;
        let words: &'static mut [u32] = Box::leak(vec![0; BAR_LEN as usize / 4].into());
        let pointer = NonNull::from(words).cast::<u8>();
        self.shared.noted().bar = Some(View {
            pointer,
            len: BAR_LEN as usize,
        });
        // SAFETY: so many bytes, aligned to 4, that are never freed; they stand for a BAR.
        let plain = unsafe { MappedRegisters::new(pointer, BAR_LEN, ()) };
        Ok(FrozenRegisters {
            inner,
            plain,
            shared: Arc::clone(&self.shared),
        })
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<NotedMemory, PlatformError> {
        let inner = self.inner.allocate(len, align)?;
        let (pointer, address, len) = (inner.pointer(), inner.address(), inner.len());
        let view = View { pointer, len };
        self.shared.noted().memories.push((address, view));
        Allocated::add(len, 0);
        let domain = inner.domain();
        // So the bench may look at it at any time.
        std::mem::forget(inner);
        Ok(NotedMemory {
            view,
            address,
            domain,
        })
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        Allocated::add(0, count * size_of::<u64>());
        self.inner.slots(count)
    }

    fn domain(&self) -> DomainId {
        self.inner.domain()
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        self.inner.enable_interrupts(vectors)
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        self.inner.take_interrupt(vector)
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn wait(&self, duration: Duration) {
        self.inner.wait(duration);
    }
}

/// Registers of the model, or after freezing plain memory.
#[derive(Clone, Debug)]
pub struct FrozenRegisters {
    inner: ModelRegisters,
    plain: MappedRegisters<()>,
    shared: Arc<Shared>,
}

impl FrozenRegisters {
    #[inline(always)]
    fn is_frozen(&self) -> bool {
        self.shared.frozen.load(Ordering::Relaxed)
    }

    #[cold]
    fn note(&self, offset: u32, value: u32) {
        self.shared.noted().writes.push(Written { offset, value });
    }
}

macro_rules! access {
    ($read:ident, $write:ident, $number:ty) => {
        #[inline(always)]
        fn $read(&self, offset: u32) -> $number {
            if self.is_frozen() {
                return self.plain.$read(offset);
            }
            self.inner.$read(offset)
        }

        #[inline(always)]
        unsafe fn $write(&self, offset: u32, value: $number) {
            if self.is_frozen() {
                // SAFETY: plain memory does nothing.
                unsafe { self.plain.$write(offset, value) };
                return;
            }
            self.note(offset, value.into());
            // SAFETY: the caller's promise.
            unsafe { self.inner.$write(offset, value) };
        }
    };
}

impl Registers for FrozenRegisters {
    access!(read, write, u32);
    access!(read16, write16, u16);
    access!(read8, write8, u8);
}

/// Memory of the model's machine, never freed, that the bench can find.
#[derive(Debug)]
pub struct NotedMemory {
    view: View,
    address: DeviceAddress,
    domain: DomainId,
}

// SAFETY: it is the model's memory, which keeps the promises and is never freed.
unsafe impl DmaMemory for NotedMemory {
    #[inline]
    fn pointer(&self) -> NonNull<u8> {
        self.view.pointer
    }

    #[inline]
    fn address(&self) -> DeviceAddress {
        self.address
    }

    #[inline]
    fn len(&self) -> usize {
        self.view.len
    }

    #[inline]
    fn domain(&self) -> DomainId {
        self.domain
    }
}
