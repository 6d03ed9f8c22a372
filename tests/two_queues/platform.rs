//! A machine in which a queue's doorbell is a store to plain memory, as on hardware: once a driver
//! is open on the model, its register writes reach no model (and no lock of one) any more, and the
//! test plays the device.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagewire::hal::{DmaMemory, DomainId, Instant, Platform, PlatformError, Registers};
use pagewire_models::host::ModelRegisters;
use pagewire_models::{HostMemory, ModelPlatform};

/// Words of the BAR.
const BAR_WORDS: usize = 128 << 10 >> 2;

/// Which memory was allocated: first byte, bytes.
pub(crate) type Allocations = Arc<Mutex<Vec<(usize, usize)>>>;

/// See the [module](self).
pub(crate) struct PlainPlatform {
    model: ModelPlatform,
    plain: Arc<Plain>,
    allocations: Allocations,
}

/// What stands for the BAR once the driver is open.
pub(crate) struct Plain {
    in_use: AtomicBool,
    words: Box<[AtomicU32]>,
}

impl Plain {
    /// From now on writes go to plain memory.
    pub(crate) fn take_over(&self) {
        self.in_use.store(true, Ordering::SeqCst);
    }

    /// Where it lies. A real BAR is not cached: no line of it is shared.
    pub(crate) fn range(&self) -> (usize, usize) {
        (self.words.as_ptr().addr(), size_of_val(&*self.words))
    }
}

impl PlainPlatform {
    pub(crate) fn new(model: ModelPlatform) -> (Self, Arc<Plain>, Allocations) {
        let plain = Arc::new(Plain {
            in_use: AtomicBool::new(false),
            words: (0..BAR_WORDS).map(|_| AtomicU32::new(0)).collect(),
        });
        let allocations = Allocations::default();
        let platform = Self {
            model,
            plain: Arc::clone(&plain),
            allocations: Arc::clone(&allocations),
        };
        (platform, plain, allocations)
    }
}

// SAFETY: everything is the model's platform's, whose only user this is.
unsafe impl Platform for PlainPlatform {
    type Registers = PlainRegisters;
    type Memory = HostMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        self.model.read_config(offset)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.model.write_config(offset, value) };
    }

    fn map_bar(&mut self, index: u8) -> Result<PlainRegisters, PlatformError> {
        Ok(PlainRegisters {
            model: self.model.map_bar(index)?,
            plain: Arc::clone(&self.plain),
        })
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<HostMemory, PlatformError> {
        let memory = self.model.allocate(len, align)?;
        let place = (memory.pointer().addr().get(), len);
        self.allocations.lock().unwrap().push(place);
        Ok(memory)
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        self.model.slots(count)
    }

    fn domain(&self) -> DomainId {
        self.model.domain()
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        self.model.enable_interrupts(vectors)
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        self.model.take_interrupt(vector)
    }

    fn now(&self) -> Instant {
        self.model.now()
    }

    fn wait(&self, duration: Duration) {
        self.model.wait(duration);
    }
}

/// The registers of the model, or plain memory.
#[derive(Clone)]
pub(crate) struct PlainRegisters {
    model: ModelRegisters,
    plain: Arc<Plain>,
}

impl Registers for PlainRegisters {
    fn read(&self, offset: u32) -> u32 {
        self.model.read(offset)
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        if self.plain.in_use.load(Ordering::Relaxed) {
            if let Some(word) = self.plain.words.get(offset as usize >> 2) {
                word.store(value, Ordering::Relaxed);
            }
            return;
        }
        // SAFETY: the caller's promise.
        unsafe { self.model.write(offset, value) };
    }

    fn read16(&self, offset: u32) -> u16 {
        self.model.read16(offset)
    }

    unsafe fn write16(&self, offset: u32, value: u16) {
        // SAFETY: the caller's promise.
        unsafe { self.model.write16(offset, value) };
    }

    fn read8(&self, offset: u32) -> u8 {
        self.model.read8(offset)
    }

    unsafe fn write8(&self, offset: u32, value: u8) {
        // SAFETY: the caller's promise.
        unsafe { self.model.write8(offset, value) };
    }
}
