//! The receive queue: legacy descriptors, each with a buffer of its own for ever.
//!
//! A buffer holds the largest frame, so a frame is one descriptor; what is longer is dropped. A
//! descriptor goes back to the device as soon as its frame has been looked at, all of a call
//! with one write of the tail. One descriptor always stays with us, as the device takes equal
//! head and tail for an empty ring (82574 datasheet 7.1.8).

use core::cell::Cell;
use core::marker::PhantomData;

use pagewire_hal::driver::QueueId;
use pagewire_hal::{
    Custody, DescriptorRing, DmaMemory, NicError, Platform, QueueError, RxCounters, RxFrame,
    RxQueue, barrier,
};

use crate::config::ETHERNET_HEADER;
use crate::desc::RxDescriptor;
use crate::regs::{Bar, RDBAH, RDBAL, RDH, RDLEN, RDT};

/// The receive half of the 82574's queue pair.
///
/// It may move to another thread, and is used from one at a time. Dropped without
/// [`release`](pagewire_hal::Nic::release), its ring and its buffers are leaked, as the device
/// may still write to them.
pub struct E1000eRx<P: Platform> {
    id: QueueId,
    registers: Bar<P::Registers>,
    ring: DescriptorRing<P::Memory, RxDescriptor>,
    buffers: Custody<P::Memory>,
    /// Base-2 logarithm of the bytes in a buffer.
    buffer_shift: u32,
    /// Index of the next descriptor that the device fills.
    next: u32,
    /// Descriptors looked at and not yet given back.
    taken: u32,
    /// The middle of a frame that is longer than a buffer has been seen.
    in_long_frame: bool,
    counters: RxCounters,
    down: bool,
    /// `Cell` is not `Sync`: a queue has one user at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl<P: Platform> core::fmt::Debug for E1000eRx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("E1000eRx")
            .field("next", &self.next)
            .field("counters", &self.counters)
            .field("down", &self.down)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> E1000eRx<P> {
    /// A queue of `count` descriptors with buffers of `buffer_len` bytes, a power of two, that
    /// the device has not been told of.
    pub(crate) fn new(
        platform: &mut P,
        id: QueueId,
        registers: Bar<P::Registers>,
        (count, buffer_len): (u16, u32),
    ) -> Result<Self, NicError> {
        const UNFIT: NicError = NicError::Config {
            what: "the platform's memory for the receive ring does not fit it",
        };
        let count = u32::from(count);
        let buffer_shift = buffer_len.trailing_zeros();
        let memory = platform.allocate(count as usize * size_of::<RxDescriptor>(), 128)?;
        let mut ring = DescriptorRing::new(memory, count).ok_or(UNFIT)?;
        // SAFETY: the device has not been told of this memory.
        unsafe { ring.set_quiet(true) };
        let bytes = (count as usize) << buffer_shift;
        let mut buffers = Custody::new(platform.allocate(bytes, 4096)?);
        // SAFETY: as above.
        unsafe { buffers.set_quiet(true) };
        if buffers.memory().len() < bytes {
            return Err(UNFIT);
        }
        Ok(Self {
            id,
            registers,
            ring,
            buffers,
            buffer_shift,
            next: 0,
            taken: 0,
            in_long_frame: false,
            counters: RxCounters::default(),
            down: true,
            not_sync: PhantomData,
        })
    }

    /// Which queue it is.
    pub(crate) fn id(&self) -> QueueId {
        self.id
    }

    /// Tells the device, which is reset and stopped, of the ring. It gets no buffer before
    /// [`offer_all`](Self::offer_all).
    pub(crate) fn program(&mut self) {
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.ring.set_quiet(false) };
        // SAFETY: as above.
        unsafe { self.buffers.set_quiet(false) };
        self.next = 0;
        self.taken = 0;
        self.in_long_frame = false;
        for index in 0..self.ring.len() {
            let empty = self.empty_descriptor(index);
            self.ring.write(index, empty);
        }
        barrier::publish();
        let address = self.ring.address().0;
        for (register, value) in [
            (RDBAL, address as u32),
            (RDBAH, (address >> 32) as u32),
            (RDLEN, self.ring.bytes()),
            (RDH, 0),
            (RDT, 0),
        ] {
            // SAFETY: the ring is ours and in custody as not quiet, and so are the buffers that
            // its descriptors name.
            unsafe { self.registers.write_ring(register, value) };
        }
        self.down = false;
    }

    /// Gives the device all buffers but one; to be called when the receiver is on.
    pub(crate) fn offer_all(&mut self) {
        // SAFETY: the ring is ours, and it and the buffers are in custody as not quiet.
        unsafe { self.registers.write_ring(RDT, self.ring.len() - 1) };
    }

    /// Stops the queue until it is programmed again.
    pub(crate) fn stop(&mut self) {
        self.down = true;
    }

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// The device is quiet (bus mastering is off and nothing is pending) and is not started
    /// again before [`program`](Self::program) was called.
    pub(crate) unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
        // SAFETY: the caller's promise.
        unsafe { self.buffers.set_quiet(true) };
    }

    #[inline(always)]
    fn offset(&self, index: u32) -> usize {
        ((index & (self.ring.len() - 1)) as usize) << self.buffer_shift
    }

    #[inline(always)]
    fn empty_descriptor(&self, index: u32) -> RxDescriptor {
        let address = self.buffers.memory().address();
        RxDescriptor::empty(address.offset(self.offset(index) as u64))
    }

    /// The next descriptor if the device has filled it, and its index. It is empty again after
    /// this, but the device does not get it before [`give_back`](Self::give_back).
    #[inline(always)]
    fn take(&mut self) -> Option<(u32, RxDescriptor)> {
        // Of `len` descriptors the device has `len - 1`. A device that fills those that it
        // does not have could keep the caller here for ever.
        if self.taken >= self.ring.len() - 1 || !self.ring.read(self.next).is_done() {
            return None;
        }
        barrier::observe();
        let index = self.next;
        let descriptor = self.ring.read(index);
        let empty = self.empty_descriptor(index);
        self.ring.write(index, empty);
        self.next = index.wrapping_add(1) & (self.ring.len() - 1);
        self.taken += 1;
        Some((index, descriptor))
    }

    /// The length of the frame if it is to be delivered. Counts it either way.
    #[inline]
    fn judge(&mut self, descriptor: RxDescriptor) -> Option<usize> {
        if !descriptor.is_end() {
            if !self.in_long_frame {
                self.counters.too_long += 1;
            }
            self.in_long_frame = true;
            return None;
        }
        if core::mem::take(&mut self.in_long_frame) {
            return None;
        }
        if descriptor.is_damaged() {
            self.counters.damaged += 1;
            return None;
        }
        let len = u32::from(descriptor.len());
        if len < ETHERNET_HEADER || len > 1 << self.buffer_shift {
            self.counters.nonsense += 1;
            return None;
        }
        self.counters.delivered += 1;
        Some(len as usize)
    }

    /// Gives what was taken back to the device.
    #[inline]
    fn give_back(&mut self) {
        if self.taken == 0 {
            return;
        }
        barrier::publish();
        let tail = self.next.wrapping_sub(1) & (self.ring.len() - 1);
        // SAFETY: the ring is ours, and it and the buffers are in custody as not quiet: only
        // `set_quiet` changes that, after `stop`, and then this is not reached.
        unsafe { self.registers.write_ring(RDT, tail) };
        self.taken = 0;
    }
}

impl<P: Platform> RxQueue for E1000eRx<P> {
    #[inline]
    fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        if self.down {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        while count < budget {
            let Some((index, descriptor)) = self.take() else {
                break;
            };
            let Some(len) = self.judge(descriptor) else {
                continue;
            };
            let offset = self.offset(index);
            // SAFETY: `new` checked that the memory holds as many buffers as the ring has
            // descriptors, and `offset` masks the index.
            let pointer = unsafe { self.buffers.memory().pointer().add(offset) };
            // SAFETY: `judge` checked that `len` bytes are in the buffer, which `self.buffers`
            // keeps while `self` is borrowed.
            frame(unsafe { RxFrame::new(pointer, len, descriptor.checksum()) });
            count += 1;
        }
        self.give_back();
        Ok(count)
    }

    fn counters(&self) -> RxCounters {
        self.counters
    }
}

#[cfg(test)]
impl<P: Platform> E1000eRx<P> {
    /// Where the device finds buffer `index`.
    pub(crate) fn buffer_address(&self, index: u32) -> pagewire_hal::DeviceAddress {
        let address = self.buffers.memory().address();
        address.offset(self.offset(index) as u64)
    }
}
