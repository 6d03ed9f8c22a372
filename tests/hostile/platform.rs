//! A platform that is watched: accesses are counted, the device can be torn out at any of them,
//! and memory that the driver leaks is known, and freed when the run is over.

use std::collections::HashMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagewire::hal::{
    DeviceAddress, DmaMemory, DomainId, Instant, Platform, PlatformError, Registers,
};
use pagewire_models::host::ModelRegisters;
use pagewire_models::{Device, Host, HostMemory, ModelHandle, ModelPlatform};

/// Steps of the model in one wait of the driver: fewer than a machine would see, for speed.
const STEPS_PER_WAIT: u32 = 4;
/// Steps that no run needs: 64 words of EEPROM, each given up after 10,000 waits, and as much
/// again.
const MOST_STEPS: u64 = 6_000_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory that the driver has, by number.
#[derive(Debug, Default)]
struct Registry {
    next: AtomicU64,
    memory: Mutex<HashMap<u64, HostMemory>>,
}

/// What is watched of one device. A clone watches the same.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) host: Host,
    model: ModelHandle<dyn Device>,
    registry: Arc<Registry>,
    counts: Arc<Counts>,
}

#[derive(Debug)]
struct Counts {
    accesses: AtomicU64,
    steps: AtomicU64,
    gone: Mutex<Range<u64>>,
    is_deaf: AtomicBool,
}

impl Watch {
    pub(crate) fn new(host: &Host, model: ModelHandle<dyn Device>) -> Self {
        Self {
            host: host.clone(),
            model,
            registry: Arc::default(),
            counts: Arc::new(Counts {
                accesses: AtomicU64::new(0),
                steps: AtomicU64::new(0),
                gone: Mutex::new(u64::MAX..u64::MAX),
                is_deaf: AtomicBool::new(false),
            }),
        }
    }

    /// Accesses to registers and configuration space so far.
    pub(crate) fn accesses(&self) -> u64 {
        self.counts.accesses.load(Ordering::Relaxed)
    }

    /// The device is gone for these accesses: all ones, writes lost, no steps.
    pub(crate) fn tear_out(&self, accesses: Range<u64>) {
        *lock(&self.counts.gone) = accesses;
    }

    /// Writes to configuration space are lost from now on.
    pub(crate) fn deafen(&self) {
        self.counts.is_deaf.store(true, Ordering::Relaxed);
    }

    fn is_deaf(&self) -> bool {
        self.counts.is_deaf.load(Ordering::Relaxed)
    }

    fn is_gone(&self) -> bool {
        lock(&self.counts.gone).contains(&self.accesses())
    }

    /// Counts an access; whether the device is there.
    fn touch(&self) -> bool {
        let gone = self.is_gone();
        self.counts.accesses.fetch_add(1, Ordering::Relaxed);
        !gone
    }

    /// One step of the device, if it is there.
    pub(crate) fn step(&self) {
        let steps = self.counts.steps.fetch_add(1, Ordering::Relaxed);
        assert!(steps < MOST_STEPS, "the driver waits without end");
        if !self.is_gone() {
            self.model.step();
        }
    }

    /// Lets the device work for `steps` steps of `time` each.
    pub(crate) fn run(&self, steps: u32, time: Duration) {
        for _ in 0..steps {
            self.step();
            self.host.advance(time);
        }
    }

    /// Pieces of memory that have been allocated and not freed.
    pub(crate) fn live(&self) -> usize {
        lock(&self.registry.memory).len()
    }

    /// Frees what was leaked. To be called when device and driver are gone, at the end of a run.
    pub(crate) fn free_all(&self) {
        lock(&self.registry.memory).clear();
    }
}

/// The platform for the driver.
pub(crate) struct WatchedPlatform {
    inner: ModelPlatform,
    watch: Watch,
}

impl WatchedPlatform {
    pub(crate) fn new(inner: ModelPlatform, watch: Watch) -> Self {
        Self { inner, watch }
    }
}

// SAFETY: all but memory is `ModelPlatform`'s, which keeps the promise; for memory see
// `WatchedMemory`.
unsafe impl Platform for WatchedPlatform {
    type Registers = WatchedRegisters;
    type Memory = WatchedMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        if self.watch.touch() {
            self.inner.read_config(offset)
        } else {
            u32::MAX
        }
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        if self.watch.touch() && !self.watch.is_deaf() {
            // SAFETY: the caller's promise.
            unsafe { self.inner.write_config(offset, value) };
        }
    }

    fn map_bar(&mut self, index: u8) -> Result<WatchedRegisters, PlatformError> {
        Ok(WatchedRegisters {
            inner: self.inner.map_bar(index)?,
            watch: self.watch.clone(),
        })
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<WatchedMemory, PlatformError> {
        let memory = self.inner.allocate(len, align)?;
        let registry = Arc::clone(&self.watch.registry);
        let key = registry.next.fetch_add(1, Ordering::Relaxed);
        let watched = WatchedMemory {
            pointer: memory.pointer(),
            address: memory.address(),
            len: memory.len(),
            domain: memory.domain(),
            key,
            registry,
        };
        lock(&watched.registry.memory).insert(key, memory);
        Ok(watched)
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
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
        let end = self.watch.host.now() + duration;
        self.watch.run(STEPS_PER_WAIT, duration / STEPS_PER_WAIT);
        self.watch.host.set_now(end);
    }
}

/// The registers for the driver.
#[derive(Clone)]
pub(crate) struct WatchedRegisters {
    inner: ModelRegisters,
    watch: Watch,
}

impl Registers for WatchedRegisters {
    fn read(&self, offset: u32) -> u32 {
        if self.watch.touch() {
            self.inner.read(offset)
        } else {
            u32::MAX
        }
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        if self.watch.touch() {
            // SAFETY: the caller's promise.
            unsafe { self.inner.write(offset, value) };
        }
    }

    fn read16(&self, offset: u32) -> u16 {
        if self.watch.touch() {
            self.inner.read16(offset)
        } else {
            u16::MAX
        }
    }

    unsafe fn write16(&self, offset: u32, value: u16) {
        if self.watch.touch() {
            // SAFETY: the caller's promise.
            unsafe { self.inner.write16(offset, value) };
        }
    }

    fn read8(&self, offset: u32) -> u8 {
        if self.watch.touch() {
            self.inner.read8(offset)
        } else {
            u8::MAX
        }
    }

    unsafe fn write8(&self, offset: u32, value: u8) {
        if self.watch.touch() {
            // SAFETY: the caller's promise.
            unsafe { self.inner.write8(offset, value) };
        }
    }
}

/// Memory for the driver. Leaked, it stays in the registry until the run is over: a run of
/// a million does not fill the machine.
#[derive(Debug)]
pub(crate) struct WatchedMemory {
    pointer: NonNull<u8>,
    address: DeviceAddress,
    len: usize,
    domain: DomainId,
    key: u64,
    registry: Arc<Registry>,
}

// SAFETY: a number, and a pointer to memory that is as good on another thread, as `HostMemory` is.
unsafe impl Send for WatchedMemory {}

// SAFETY: everything is what the `HostMemory` of this key said, which nobody else has, and which
// is freed when this is dropped; or, when this has been leaked, by `Watch::free_all`, after the
// last use of driver and device.
unsafe impl DmaMemory for WatchedMemory {
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
        self.domain
    }
}

impl Drop for WatchedMemory {
    fn drop(&mut self) {
        let memory = lock(&self.registry.memory).remove(&self.key);
        assert!(memory.is_some(), "memory was freed twice");
    }
}
