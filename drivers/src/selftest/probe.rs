//! The platform that a self-test gives to the driver: that of the device, watched. It notes which
//! interrupt vectors fire, and can lie to the driver about where memory is.

use alloc::rc::Rc;
use core::cell::Cell;
use core::ptr::NonNull;
use core::time::Duration;

use pagewire_hal::{DeviceAddress, DmaMemory, DomainId, Instant, Platform, PlatformError};

/// What is known of a device, and asked of its platform, while the driver has that.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    shared: Rc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// A bit for each of the first 64 vectors that has fired.
    fired: Cell<u64>,
    divert: Cell<Option<Divert>>,
    diverted: Cell<usize>,
}

/// Which memory is said to be elsewhere.
#[derive(Clone, Copy, Debug)]
struct Divert {
    to: DeviceAddress,
    least: usize,
    most: usize,
}

impl Watch {
    /// The vectors that have fired since this was last asked, a bit each.
    pub(super) fn take_fired(&self) -> u64 {
        self.shared.fired.take()
    }

    /// Memory of `least` to `most` bytes that is allocated from now on is said to be at `to`.
    ///
    /// # Safety
    /// Until the device is quiet nothing is mapped for it in the `most` bytes from `to` on, and if
    /// it reaches memory there all the same, that memory is used by nobody.
    pub(super) unsafe fn divert(&self, to: DeviceAddress, least: usize, most: usize) {
        self.shared.divert.set(Some(Divert { to, least, most }));
    }

    /// Tells the truth again, and how many pieces of memory were said to be elsewhere.
    pub(super) fn end_divert(&self) -> usize {
        self.shared.divert.set(None);
        self.shared.diverted.take()
    }
}

/// A platform that is watched.
#[derive(Debug)]
pub(super) struct Probe<P> {
    inner: P,
    watch: Watch,
}

impl<P: Platform> Probe<P> {
    pub(super) fn new(inner: P) -> Self {
        Self {
            inner,
            watch: Watch::default(),
        }
    }

    pub(super) fn watch(&self) -> Watch {
        self.watch.clone()
    }
}

// SAFETY: all that `inner` promises stays as it is, with one exception: memory that is diverted is
// not at its address. `Watch::divert` demanded that nothing is mapped there, so the device faults,
// or reaches memory that nobody uses.
unsafe impl<P: Platform> Platform for Probe<P> {
    type Registers = P::Registers;
    type Memory = ProbeMemory<P::Memory>;
    type Slots = P::Slots;

    fn read_config(&self, offset: u16) -> u32 {
        self.inner.read_config(offset)
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.inner.write_config(offset, value) };
    }

    fn map_bar(&mut self, index: u8) -> Result<Self::Registers, PlatformError> {
        self.inner.map_bar(index)
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<Self::Memory, PlatformError> {
        let inner = self.inner.allocate(len, align)?;
        let shared = &self.watch.shared;
        let divert = shared.divert.get().filter(|divert| {
            (divert.least..=divert.most).contains(&len)
                && divert.to.0.is_multiple_of(align.max(1) as u64)
        });
        if divert.is_some() {
            shared.diverted.set(shared.diverted.get() + 1);
        }
        let address = divert.map_or(inner.address(), |divert| divert.to);
        Ok(ProbeMemory { inner, address })
    }

    fn slots(&mut self, count: usize) -> Result<Self::Slots, PlatformError> {
        self.inner.slots(count)
    }

    fn domain(&self) -> DomainId {
        self.inner.domain()
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        self.inner.enable_interrupts(vectors)
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        let fired = self.inner.take_interrupt(vector);
        if fired && vector < 64 {
            let all = &self.watch.shared.fired;
            all.set(all.get() | 1 << vector);
        }
        fired
    }

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn wait(&self, duration: Duration) {
        self.inner.wait(duration);
    }
}

/// Memory, and where the driver is told that it is.
#[derive(Debug)]
pub(super) struct ProbeMemory<M> {
    inner: M,
    address: DeviceAddress,
}

// SAFETY: what `inner` promises; of the address see `Probe`.
unsafe impl<M: DmaMemory> DmaMemory for ProbeMemory<M> {
    fn pointer(&self) -> NonNull<u8> {
        self.inner.pointer()
    }

    fn address(&self) -> DeviceAddress {
        self.address
    }

    fn len(&self) -> usize {
        self.inner.len()
    }

    fn domain(&self) -> DomainId {
        self.inner.domain()
    }
}
