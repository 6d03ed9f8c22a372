//! A device plugged into a host: the platform for its driver, the handle for the simulation.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagewire_hal::{DomainId, Instant, Platform, PlatformError, Registers, barrier};

use super::{BusState, Counters, Host, HostBus, HostMemory, lock};
use crate::Device;

/// Command and status (its upper half), and the pointer to the first capability (these and the
/// bits below as in Linux, `pci_regs.h`).
const COMMAND_STATUS: u16 = 0x04;
const CAPABILITIES_POINTER: u16 = 0x34;
const STATUS_CAPABILITIES: u32 = 1 << 20;
const CAPABILITY_MSIX: u32 = 0x11;
/// In the first word of the MSI-X capability.
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;
/// Most capabilities that fit configuration space; ends a list that is a circle.
const MOST_CAPABILITIES: usize = 48;

/// Steps of the clock in [`Platform::wait`].
const SHORTEST_STEP: Duration = Duration::from_micros(1);
const LONGEST_STEP: Duration = Duration::from_micros(100);

/// A device and what has become of its accesses; the device last, so that it may be `dyn`.
struct Function<D: ?Sized> {
    present: bool,
    /// Steps after each write to a register.
    eager: bool,
    bus: BusState,
    device: D,
}

impl<D: Device + ?Sized> Function<D> {
    fn step(&mut self, host: &Host) -> bool {
        if !self.present {
            return false;
        }
        let mut bus = HostBus {
            machine: host.machine(),
            state: &mut self.bus,
        };
        self.device.step(&mut bus, host.now())
    }

    fn config_read(&mut self, offset: u16) -> u32 {
        if self.present {
            self.device.config_read(offset)
        } else {
            u32::MAX
        }
    }

    /// Turns MSI-X on or off in configuration space, as the system does for a driver.
    fn set_msix(&mut self, on: bool) {
        if self.device.config_read(COMMAND_STATUS) & STATUS_CAPABILITIES == 0 {
            return;
        }
        let mut at = self.device.config_read(CAPABILITIES_POINTER) & 0xfc;
        for _ in 0..MOST_CAPABILITIES {
            if at < 0x40 {
                return;
            }
            let word = self.device.config_read(at as u16);
            if word & 0xff == CAPABILITY_MSIX {
                let off = word & !(MSIX_ENABLE | MSIX_FUNCTION_MASK);
                let value = if on { off | MSIX_ENABLE } else { off };
                self.device.config_write(at as u16, value);
                return;
            }
            at = (word >> 8) & 0xfc;
        }
    }
}

/// A device that has just been plugged in.
#[derive(Debug)]
pub struct Attached<D: Device + 'static> {
    /// For the driver, which owns it.
    pub platform: ModelPlatform,
    /// For whoever runs the simulation.
    pub handle: ModelHandle<D>,
}

impl<D: Device + 'static> Attached<D> {
    pub(super) fn new(host: &Host, device: D) -> Self {
        let function = Arc::new(Mutex::new(Function {
            present: true,
            eager: false,
            bus: BusState::default(),
            device,
        }));
        Self {
            platform: ModelPlatform {
                host: host.clone(),
                function: Arc::clone(&function) as Arc<Mutex<Function<dyn Device>>>,
            },
            handle: ModelHandle {
                host: host.clone(),
                function,
            },
        }
    }
}

/// Runs a device and looks into it. A clone is for the same device.
pub struct ModelHandle<D: Device + ?Sized + 'static> {
    host: Host,
    function: Arc<Mutex<Function<D>>>,
}

impl<D: Device + 'static> ModelHandle<D> {
    /// The same handle, without the type of the device.
    #[must_use]
    pub fn erase(&self) -> ModelHandle<dyn Device> {
        ModelHandle {
            host: self.host.clone(),
            function: Arc::clone(&self.function) as Arc<Mutex<Function<dyn Device>>>,
        }
    }
}

impl<D: Device + ?Sized + 'static> ModelHandle<D> {
    /// Lets the device do what is due now, once; returns whether it did anything.
    #[inline]
    pub fn step(&self) -> bool {
        lock(&self.function).step(&self.host)
    }

    /// Makes the device eager: it does what is due inside each write to a register, before the
    /// driver's next instruction. Hardware may, and QEMU's devices do. Steps go on beside that.
    pub fn be_eager(&self, on: bool) {
        lock(&self.function).eager = on;
    }

    /// Takes the device out without a warning: from now on its registers and configuration space
    /// read all ones, writes do nothing, and it does not step.
    pub fn remove(&self) {
        lock(&self.function).present = false;
    }

    /// What the driver did that it must not, since this was last asked: found by the device, and
    /// by the bus (accesses to memory that is not mapped). Empty for a good driver.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut function = lock(&self.function);
        let mut all = function.device.take_violations();
        all.append(&mut function.bus.take_violations());
        all
    }

    /// What the device has read and written since it was plugged in.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.function).bus.counters
    }

    /// Calls `f` with the device. `f` must not step it or use its registers: it would wait for
    /// itself.
    pub fn with_device<R>(&self, f: impl FnOnce(&mut D) -> R) -> R {
        f(&mut lock(&self.function).device)
    }

    /// The machine.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }
}

impl<D: Device + ?Sized + 'static> Clone for ModelHandle<D> {
    fn clone(&self) -> Self {
        Self {
            host: self.host.clone(),
            function: Arc::clone(&self.function),
        }
    }
}

impl<D: Device + ?Sized + 'static> fmt::Debug for ModelHandle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelHandle").finish_non_exhaustive()
    }
}

/// The platform of one modelled device, for its driver.
pub struct ModelPlatform {
    host: Host,
    function: Arc<Mutex<Function<dyn Device>>>,
}

impl fmt::Debug for ModelPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelPlatform").finish_non_exhaustive()
    }
}

// SAFETY: `attach` makes one platform for a device; memory comes from `HostMemory`, which keeps
// the promises of `DmaMemory`, in the domain of the host.
unsafe impl Platform for ModelPlatform {
    type Registers = ModelRegisters;
    type Memory = HostMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        let mut function = lock(&self.function);
        if !offset.is_multiple_of(4) {
            function
                .bus
                .violation(format!("configuration space read at {offset:#x}"));
            return u32::MAX;
        }
        function.config_read(offset)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        let mut function = lock(&self.function);
        if !offset.is_multiple_of(4) {
            function
                .bus
                .violation(format!("configuration space written at {offset:#x}"));
        } else if function.present {
            function.device.config_write(offset, value);
        }
    }

    fn map_bar(&mut self, index: u8) -> Result<ModelRegisters, PlatformError> {
        let len = lock(&self.function)
            .device
            .bar_len(index)
            .ok_or(PlatformError::NoBar(index))?;
        Ok(ModelRegisters {
            host: self.host.clone(),
            function: Arc::clone(&self.function),
            bar: index,
            len,
        })
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<HostMemory, PlatformError> {
        self.host.allocate(len, align)
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        let mut slots = Vec::new();
        slots
            .try_reserve_exact(count)
            .map_err(|_| PlatformError::OutOfMemory)?;
        slots.resize(count, 0);
        Ok(slots.into_boxed_slice())
    }

    fn domain(&self) -> DomainId {
        self.host.domain()
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        let mut function = lock(&self.function);
        let offered = function.device.vectors();
        if vectors > 0 && offered == 0 {
            return Err(PlatformError::NoInterrupts);
        }
        let granted = vectors.min(offered);
        function.bus.set_vectors(granted);
        if function.present {
            function.set_msix(granted > 0);
        }
        Ok(granted)
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        lock(&self.function).bus.take_interrupt(vector)
    }

    fn now(&self) -> Instant {
        self.host.now()
    }

    /// Moves the clock of the host on, and steps this device (no other) on the way.
    fn wait(&self, duration: Duration) {
        let end = self.host.now() + duration;
        let step = (duration / 64).clamp(SHORTEST_STEP, LONGEST_STEP);
        loop {
            lock(&self.function).step(&self.host);
            let left = end.saturating_since(self.host.now());
            if left.is_zero() {
                return;
            }
            self.host.advance(step.min(left));
        }
    }
}

/// One memory BAR of a modelled device. An access outside of it, or of a register that does not
/// begin at a multiple of 4, is a violation.
#[derive(Clone)]
pub struct ModelRegisters {
    host: Host,
    function: Arc<Mutex<Function<dyn Device>>>,
    bar: u8,
    len: u32,
}

/// What happens to a register, in a violation.
const WRITTEN: &str = "written";

impl ModelRegisters {
    /// Calls `with` if the device is there; a violation and `None` if the register is outside the
    /// BAR, not aligned, or of a width that the device does not have.
    fn access<T>(
        &self,
        what: &str,
        offset: u32,
        width: u32,
        with: impl FnOnce(&mut dyn Device, Instant) -> Option<T>,
    ) -> Option<T> {
        let mut function = lock(&self.function);
        let inside = offset.checked_add(width).is_some_and(|end| end <= self.len);
        let value = if !inside || !offset.is_multiple_of(width) {
            None
        } else if !function.present {
            return None;
        } else {
            with(&mut function.device, self.host.now())
        };
        if what == WRITTEN && barrier::has_unpublished_stores() {
            let is_doorbell = function.device.is_doorbell(self.bar, offset);
            if is_doorbell {
                let text = format!("doorbell at {offset:#x} before `barrier::publish`");
                function.bus.violation(text);
            }
        }
        if what == WRITTEN && function.eager {
            function.step(&self.host);
        }
        if value.is_none() {
            let (bar, bits) = (self.bar, 8 * width);
            let text = format!("{bits}-bit register {what} at {offset:#x} of BAR {bar}");
            function.bus.violation(text);
        }
        value
    }

    fn read_narrow(&self, offset: u32, width: u32) -> u16 {
        let read = self.access("read", offset, width, |device, now| {
            device.read_narrow(self.bar, offset, width, now)
        });
        read.unwrap_or(u16::MAX)
    }

    fn write_narrow(&self, offset: u32, width: u32, value: u16) {
        self.access(WRITTEN, offset, width, |device, now| {
            device
                .write_narrow(self.bar, offset, width, value, now)
                .then_some(())
        });
    }
}

impl fmt::Debug for ModelRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelRegisters(BAR {}, {} bytes)", self.bar, self.len)
    }
}

impl Registers for ModelRegisters {
    fn read(&self, offset: u32) -> u32 {
        let read = self.access("read", offset, 4, |device, now| {
            Some(device.read(self.bar, offset, now))
        });
        read.unwrap_or(u32::MAX)
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        self.access(WRITTEN, offset, 4, |device, now| {
            device.write(self.bar, offset, value, now);
            Some(())
        });
    }

    fn read16(&self, offset: u32) -> u16 {
        self.read_narrow(offset, 2)
    }

    unsafe fn write16(&self, offset: u32, value: u16) {
        self.write_narrow(offset, 2, value);
    }

    fn read8(&self, offset: u32) -> u8 {
        self.read_narrow(offset, 1) as u8
    }

    unsafe fn write8(&self, offset: u32, value: u8) {
        self.write_narrow(offset, 1, u16::from(value));
    }
}
