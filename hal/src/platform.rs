//! What a driver asks of the machine: registers, DMA memory, configuration space, interrupts
//! and time. Three small traits; a kernel author implements them in an afternoon.

use core::fmt;
use core::ops::Add;
use core::ptr::NonNull;
use core::time::Duration;

use crate::{DeviceAddress, DomainId};

/// A point in time: nanoseconds since a start that the platform chooses and that never moves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The platform's start of time.
    pub const ZERO: Self = Self(0);

    /// `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time (584 years).
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// The registers of a device: one memory BAR, accessed in aligned words of 32 bits, and of 8 and
/// 16 for devices that have such registers (virtio 1.3, section 4.1.3.1, demands the width of
/// the field; a 64-bit field there is two accesses of 32). Intel's have none: a backend for such
/// devices alone may answer narrow accesses as those outside the BAR.
///
/// Values are numbers: the backend does the byte order (PCI is little-endian). Accesses reach
/// the device in the order in which one thread makes them, each exactly once and undivided.
///
/// A clone reaches the same registers; the queues of a NIC each hold one, maybe on several
/// threads. What is behind it (a mapping, a socket) lives until the last clone is gone. A read
/// outside the BAR or not aligned to its width, or of a device that has gone, returns all ones;
/// such a write does nothing.
pub trait Registers: Clone + Send {
    /// Reads the register at `offset` bytes, a multiple of 4.
    fn read(&self, offset: u32) -> u32;

    /// Writes the register at `offset` bytes, a multiple of 4.
    ///
    /// # Safety
    /// A register can make a device read or write memory. The caller is the device's driver and
    /// points it only at memory that stays mapped, and that nobody else uses, until the device
    /// has been stopped.
    unsafe fn write(&self, offset: u32, value: u32);

    /// Reads the 16-bit register at `offset` bytes, a multiple of 2.
    fn read16(&self, offset: u32) -> u16;

    /// Writes the 16-bit register at `offset` bytes, a multiple of 2.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    unsafe fn write16(&self, offset: u32, value: u16);

    /// Reads the 8-bit register at `offset` bytes.
    fn read8(&self, offset: u32) -> u8;

    /// Writes the 8-bit register at `offset` bytes.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    unsafe fn write8(&self, offset: u32, value: u8);
}

/// Memory that CPU and device both reach, contiguous for the device, coherent, owned by
/// whoever holds the value. For rings, receive buffers and headers.
///
/// # Safety
/// [`pointer`](Self::pointer) is valid for reads and writes of [`len`](Self::len) bytes (at
/// most `isize::MAX`) until the value is dropped, also when that has been moved: so the bytes
/// are behind a raw pointer, not in a `Box`. They are initialised, belong to nobody else, and are
/// what every device of [`domain`](Self::domain) finds at [`address`](Self::address), which it
/// can reach. Its methods always return the same. Dropping the value may free the memory,
/// on any thread; never dropping it (`mem::forget`) keeps it mapped for ever, for both, even
/// when platform and device are gone.
pub unsafe trait DmaMemory: Send + 'static {
    /// First byte, for the CPU.
    fn pointer(&self) -> NonNull<u8>;
    /// First byte, for the device.
    fn address(&self) -> DeviceAddress;
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whose addresses these are.
    fn domain(&self) -> DomainId;
    /// Whether no fragment should reach across the end of a page, although the pages are contiguous
    /// for the device: one is known that loses the frame (QEMU's models of Intel's NICs, behind an
    /// IOMMU).
    fn pages_apart(&self) -> bool {
        false
    }
}

/// One PCI function and the machine around it, owned by its driver. A device on another bus can
/// be presented as one: `read_config` of ids and zeros, `map_bar` for its registers.
///
/// # Safety
/// The value is the only access to this function, [`allocate`](Self::allocate) keeps the
/// promise of [`DmaMemory`], and all it allocates has the domain of [`domain`](Self::domain),
/// which is always the same. [`Slots`](Self::Slots) are the same words each time, and their
/// number does not change.
pub unsafe trait Platform {
    /// Access to a BAR.
    type Registers: Registers;
    /// Memory for the device.
    type Memory: DmaMemory;
    /// Ordinary memory that the device can *not* reach, for what a driver must remember of each
    /// descriptor (a `Box<[u64]>`, a static slice): so drivers need no allocator.
    type Slots: AsRef<[u64]> + AsMut<[u64]> + Send;

    /// Reads 32 bits of configuration space at `offset` bytes, a multiple of 4; all ones where
    /// there is nothing.
    fn read_config(&self, offset: u16) -> u32;

    /// Writes 32 bits of configuration space at `offset` bytes, a multiple of 4.
    ///
    /// # Safety
    /// As for [`Registers::write`]; and BARs stay where they are.
    unsafe fn write_config(&mut self, offset: u16, value: u32);

    /// Maps memory BAR `index` (0 to 5).
    ///
    /// The driver has switched memory decoding on by then. Whoever finds out the length of a BAR
    /// by writing ones to it switches decoding off in between, and puts the address back before
    /// it is on again (PCI Local Bus 3.0, section 6.2.5.1).
    ///
    /// # Errors
    /// [`PlatformError::NoBar`] if there is none, or what the system said.
    fn map_bar(&mut self, index: u8) -> Result<Self::Registers, PlatformError>;

    /// `len` zeroed bytes, at least 1, aligned to `align` (a power of two) for the device and
    /// for the CPU, at addresses that it can emit (below 4 GiB where that is not known).
    ///
    /// # Errors
    /// [`PlatformError::OutOfMemory`].
    fn allocate(&mut self, len: usize, align: usize) -> Result<Self::Memory, PlatformError>;

    /// `count` zeroed words of ordinary memory.
    ///
    /// # Errors
    /// [`PlatformError::OutOfMemory`].
    fn slots(&mut self, count: usize) -> Result<Self::Slots, PlatformError>;

    /// The device's address space.
    fn domain(&self) -> DomainId;

    /// Sets up `vectors` MSI-X vectors, masked by nothing afterwards, and returns how many there
    /// are (fewer, if the device or the system has fewer). 0 turns interrupts off.
    ///
    /// # Errors
    /// [`PlatformError::NoInterrupts`] or what the system said.
    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError>;

    /// Whether `vector` has fired since this was last asked. How a program sleeps until then (an
    /// eventfd, a handler) is the platform's own affair.
    fn take_interrupt(&mut self, vector: u16) -> bool;

    /// The time.
    fn now(&self) -> Instant;

    /// Returns after `duration` or a little later; advances a device that is a model. Only
    /// initialisation waits.
    fn wait(&self, duration: Duration);
}

/// What a platform could not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PlatformError {
    /// No memory that the device can reach.
    OutOfMemory,
    /// The function has no memory BAR of this number.
    NoBar(u8),
    /// No interrupts here.
    NoInterrupts,
    /// The operating system refused, with its error number.
    System(i32),
}

impl fmt::Display for PlatformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => write!(f, "no memory left that the device can reach"),
            Self::NoBar(n) => write!(f, "the PCI function has no memory BAR {n}"),
            Self::NoInterrupts => write!(f, "the platform has no MSI-X interrupts for the device"),
            Self::System(errno) => write!(f, "the operating system refused (error {errno})"),
        }
    }
}

impl core::error::Error for PlatformError {}

#[cfg(all(test, feature = "alloc"))]
#[path = "platform_tests.rs"]
mod tests;
