//! The platform of QEMU's device, for its driver.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pagewire_hal::{DmaMemory, DomainId, Instant, Platform, PlatformError, Registers};

use super::clock::Clock;
use super::connection::Connection;
use super::memory::{PAGE, QtestMemory, Ram};
use super::pci::{self, Bar, Msix};

/// What the system says when a device has gone.
const ENODEV: i32 = 19;
/// Words for the messages of MSI-X vectors in the one page that is there for them.
const MOST_VECTORS: u16 = (PAGE / size_of::<u32>()) as u16;

/// The platform of QEMU's device: configuration space and registers by the socket, DMA memory
/// that is shared with QEMU, MSI-X messages that QEMU writes to that memory, and real time.
///
/// When QEMU has gone, registers and configuration space read all ones.
pub struct QtestPlatform {
    connection: Connection,
    ram: Arc<Ram>,
    clock: Clock,
    bars: [Option<Bar>; 6],
    msix: Option<Msix>,
    /// A word for each vector, which its message makes other than 0.
    messages: QtestMemory,
}

impl QtestPlatform {
    pub(super) fn new(connection: Connection, ram: Arc<Ram>, clock: Clock) -> io::Result<Self> {
        let bars = pci::place_bars(&connection)?;
        let msix = Msix::find(&connection, &bars);
        let messages = ram.take(PAGE, PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            connection,
            ram,
            clock,
            bars,
            msix,
            messages,
        })
    }

    /// The word for the message of `vector`.
    fn message(&self, vector: u16) -> Option<&AtomicU32> {
        if vector >= MOST_VECTORS {
            return None;
        }
        // SAFETY: the page has `MOST_VECTORS` words.
        let word = unsafe {
            self.messages
                .pointer()
                .cast::<u32>()
                .add(usize::from(vector))
        };
        // SAFETY: the word is aligned, as its page is, lives as long as `self`, and is accessed
        // as an atomic only, also by QEMU, which writes all of an aligned word at once.
        Some(unsafe { AtomicU32::from_ptr(word.as_ptr()) })
    }
}

// SAFETY: `Qtest::start` makes one platform for the one device of its QEMU, and gives nothing
// else that reaches it; memory comes from `Ram`, which keeps the promises of `DmaMemory`, in its
// one domain; slots are on the heap.
unsafe impl Platform for QtestPlatform {
    type Registers = QtestRegisters;
    type Memory = QtestMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        if !pci::is_config_word(offset) {
            return u32::MAX;
        }
        let word = self
            .connection
            .together(|session| session.read_config(offset));
        word.unwrap_or(u32::MAX)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        if pci::is_config_word(offset) {
            self.connection
                .together(|session| session.write_config(offset, value));
        }
    }

    fn map_bar(&mut self, index: u8) -> Result<QtestRegisters, PlatformError> {
        let bar = self.bars.get(usize::from(index)).copied().flatten();
        Ok(QtestRegisters {
            connection: self.connection.clone(),
            bar: bar.ok_or(PlatformError::NoBar(index))?,
        })
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<QtestMemory, PlatformError> {
        self.ram.take(len, align).ok_or(PlatformError::OutOfMemory)
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
        self.ram.domain()
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        let Some(msix) = self.msix else {
            return if vectors == 0 {
                Ok(0)
            } else {
                Err(PlatformError::NoInterrupts)
            };
        };
        let granted = vectors.min(msix.vectors).min(MOST_VECTORS);
        for vector in 0..granted {
            self.take_interrupt(vector);
        }
        let base = self.messages.address();
        // Any data but 0 will do.
        let message = |vector: u16| (base.offset(4 * u64::from(vector)).0, u32::from(vector) + 1);
        msix.enable(&self.connection, granted, message)
            .ok_or(PlatformError::System(ENODEV))?;
        Ok(granted)
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        self.message(vector)
            .is_some_and(|word| word.swap(0, Ordering::AcqRel) != 0)
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wait(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

impl fmt::Debug for QtestPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QtestPlatform")
            .field("bars", &self.bars)
            .field("msix", &self.msix)
            .finish_non_exhaustive()
    }
}

/// One memory BAR of QEMU's device; each access is a question over the socket, and its answer.
#[derive(Clone)]
pub struct QtestRegisters {
    connection: Connection,
    bar: Bar,
}

impl QtestRegisters {
    fn address(&self, offset: u32, width: u32) -> Option<u32> {
        self.bar
            .address(offset, width)
            .filter(|_| offset.is_multiple_of(width))
    }

    /// Asks for a register; `command` is qtest's word for a read of this width.
    fn ask(&self, command: &str, offset: u32, width: u32) -> Option<u64> {
        let address = self.address(offset, width)?;
        self.connection
            .command(format_args!("{command} {address:#x}"))
    }

    /// Sets a register; `command` is qtest's word for a write of this width.
    fn tell(&self, command: &str, offset: u32, width: u32, value: u32) {
        if let Some(address) = self.address(offset, width) {
            self.connection
                .command(format_args!("{command} {address:#x} {value:#x}"));
        }
    }
}

impl Registers for QtestRegisters {
    fn read(&self, offset: u32) -> u32 {
        self.ask("readl", offset, 4)
            .map_or(u32::MAX, |word| word as u32)
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        self.tell("writel", offset, 4, value);
    }

    fn read16(&self, offset: u32) -> u16 {
        self.ask("readw", offset, 2)
            .map_or(u16::MAX, |word| word as u16)
    }

    unsafe fn write16(&self, offset: u32, value: u16) {
        self.tell("writew", offset, 2, u32::from(value));
    }

    fn read8(&self, offset: u32) -> u8 {
        self.ask("readb", offset, 1)
            .map_or(u8::MAX, |word| word as u8)
    }

    unsafe fn write8(&self, offset: u32, value: u8) {
        self.tell("writeb", offset, 1, u32::from(value));
    }
}

impl fmt::Debug for QtestRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QtestRegisters")
            .field("bar", &self.bar)
            .finish_non_exhaustive()
    }
}
