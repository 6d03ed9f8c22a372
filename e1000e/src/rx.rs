//! The receive queue: legacy descriptors, each with a buffer of its own for ever.
//!
//! What a ring of such buffers does is [`RxRing`]'s. Here is how the 82574 is told of it. One
//! descriptor always stays with us, as the device takes equal head and tail for an empty ring
//! (82574 datasheet 7.1.8).

use pagewire_hal::driver::{QueueId, ReceiveHalf, RxRing};
use pagewire_hal::{NicError, Platform, QueueError, RxCounters, RxFrame, RxQueue};

use crate::desc::{RING_ALIGN, RxDescriptor};
use crate::regs::{Bar, RDBAH, RDBAL, RDH, RDLEN, RDT};

/// The receive half of the 82574's queue pair.
///
/// It may move to another thread, and is used from one at a time. Dropped without
/// [`release`](pagewire_hal::Nic::release), its ring and its buffers are leaked, as the device
/// may still write to them.
pub struct E1000eRx<P: Platform> {
    id: QueueId,
    registers: Bar<P::Registers>,
    ring: RxRing<P::Memory, RxDescriptor>,
}

impl<P: Platform> core::fmt::Debug for E1000eRx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("E1000eRx")
            .field("next", &self.ring.next())
            .field("counters", &self.ring.counters())
            .field("down", &self.ring.is_down())
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
        Ok(Self {
            id,
            registers,
            ring: RxRing::new(platform, count, RING_ALIGN, buffer_len)?,
        })
    }

    /// Tells the device, which is reset and stopped, of the ring. It gets no buffer before
    /// [`offer_all`](Self::offer_all).
    pub(crate) fn program(&mut self) {
        self.ring.prepare();
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
    }

    /// Gives the device all buffers but one; to be called when the receiver is on.
    pub(crate) fn offer_all(&mut self) {
        // SAFETY: the ring is ours, and it and the buffers are in custody as not quiet.
        unsafe { self.registers.write_ring(RDT, self.ring.last()) };
    }
}

impl<P: Platform> ReceiveHalf for E1000eRx<P> {
    fn id(&self) -> QueueId {
        self.id
    }

    fn stop(&mut self) {
        self.ring.stop();
    }

    unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet() };
    }
}

impl<P: Platform> RxQueue for E1000eRx<P> {
    #[inline]
    fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        let give_back = |tail| {
            // SAFETY: the ring is ours, and it and the buffers are in custody as not quiet: only
            // `set_quiet` changes that, after `stop`, and then this is not reached.
            unsafe { self.registers.write_ring(RDT, tail) };
        };
        self.ring
            .receive(budget, frame, RxDescriptor::checksum, give_back)
    }

    fn counters(&self) -> RxCounters {
        self.ring.counters()
    }
}

#[cfg(test)]
impl<P: Platform> E1000eRx<P> {
    /// Where the device finds buffer `index`.
    pub(crate) fn buffer_address(&self, index: u32) -> pagewire_hal::DeviceAddress {
        self.ring.buffer(index).0
    }
}
