//! The receive queue: advanced descriptors, each with a buffer of its own for ever.
//!
//! What a ring of such buffers does is [`RxRing`]'s. Here is how the device is told of it. One
//! descriptor always stays with us, as the device takes equal head and tail for an empty ring
//! (DPDK ixgbe gives it the length less 1, too).

use pagewire_hal::driver::{QueueId, ReceiveHalf, RxRing};
use pagewire_hal::{NicError, Platform, QueueError, RxCounters, RxFrame, RxQueue, barrier};

use crate::bits::{DcaRxctrl, Rxdctl, Srrctl};
use crate::desc::{RING_ALIGN, RxDescriptor};
use crate::ids::Family;
use crate::regs::{
    Bar, DCA_RXCTRL, PSRTYPE, PerQueue, RDBAH, RDBAL, RDH, RDLEN, RDT, RXDCTL, SRRCTL,
};

/// The receive half of one of the device's queue pairs.
///
/// It may move to another thread, and is used from one at a time. Dropped without
/// [`release`](pagewire_hal::Nic::release), its ring and its buffers are leaked, as the device
/// may still write to them.
#[repr(align(128))]
pub struct IxgbeRx<P: Platform> {
    id: QueueId,
    family: Family,
    registers: Bar<P::Registers>,
    ring: RxRing<P::Memory, RxDescriptor>,
    /// Frames without a buffer here are dropped and hold up no other queue.
    drops: bool,
    /// The device has said that the queue is on, and was given its buffers.
    offered: bool,
}

impl<P: Platform> core::fmt::Debug for IxgbeRx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IxgbeRx")
            .field("pair", &self.id.pair())
            .field("next", &self.ring.next())
            .field("counters", &self.ring.counters())
            .field("down", &self.ring.is_down())
            .finish_non_exhaustive()
    }
}

impl<P: Platform> IxgbeRx<P> {
    /// A queue of `count` descriptors with buffers of `buffer_len` bytes, a power of two from
    /// 1 KiB to 16 KiB, that the device has not been told of. With other queues beside it, it
    /// `drops` what it has no buffer for.
    pub(crate) fn new(
        platform: &mut P,
        id: QueueId,
        family: Family,
        registers: Bar<P::Registers>,
        (count, buffer_len): (u16, u32),
        drops: bool,
    ) -> Result<Self, NicError> {
        Ok(Self {
            id,
            family,
            registers,
            ring: RxRing::new(platform, count, RING_ALIGN, buffer_len)?,
            drops,
            offered: false,
        })
    }

    /// Tells the device, which is reset and stopped, of the ring (82599 datasheet 4.6.7, as TinyNF
    /// quotes it). Head and tail are written as equal, for [`receive`](RxQueue::receive) on another
    /// thread may have moved the tail since the reset: so it gets no buffer before
    /// [`offer_all`](Self::offer_all). RSCCTL stays as the reset leaves it: no segments are joined
    /// (machine-readable map).
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
            unsafe {
                self.registers
                    .write_ring(register.of(self.id.pair()), value)
            };
        }
        let pair = self.id.pair();
        let mut format = Srrctl::ADVANCED_ONE_BUFFER | Srrctl::HEADER_256;
        format.set(Srrctl::DROP_ENABLE, self.drops);
        let kilobytes = self.ring.buffer(0).1 >> 10;
        let registers = &self.registers;
        registers.write(SRRCTL.at(pair.into()), format.bits() | kilobytes);
        let off = DcaRxctrl::RESERVED_12
            | DcaRxctrl::DATA_WRITE_RELAXED
            | DcaRxctrl::HEADER_WRITE_RELAXED;
        registers.change(DCA_RXCTRL.at(pair.into()), off.bits(), 0);
        // Nothing is split.
        registers.write(PSRTYPE.at(pair.into()), 0);
        self.offered = false;
    }

    /// Switches the queue on.
    pub(crate) fn enable(&mut self) {
        let register = RXDCTL.of(self.id.pair());
        let off = Rxdctl::VME | Rxdctl::SWFLSH;
        self.registers
            .change(register, off.bits(), Rxdctl::ENABLE.bits());
    }

    /// Gives the device all buffers but one if it has switched the queue on, and says whether it
    /// has: "the tail should not be bumped before", and then goes to "the ring length minus one"
    /// (82599 datasheet 4.6.7, as TinyNF quotes it).
    #[cold]
    pub(crate) fn offer_all(&mut self) -> bool {
        let state = Rxdctl::from_bits_retain(self.registers.read(RXDCTL.of(self.id.pair())));
        if state.contains(Rxdctl::ENABLE) && !self.offered && !self.ring.is_down() {
            let all = self.ring.last();
            barrier::publish();
            // SAFETY: the ring is ours, and it and the buffers are in custody as not quiet.
            unsafe { self.registers.write_ring(RDT.of(self.id.pair()), all) };
            self.offered = true;
        }
        self.offered
    }
}

impl<P: Platform> ReceiveHalf for IxgbeRx<P> {
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

impl<P: Platform> RxQueue for IxgbeRx<P> {
    #[inline]
    fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
    ) -> Result<usize, QueueError> {
        if !(self.offered || self.ring.is_down() || self.offer_all()) {
            return Ok(0);
        }
        let family = self.family;
        let give_back = |tail| {
            // SAFETY: the ring is ours, and it and the buffers are in custody as not quiet: only
            // `set_quiet` changes that, after `stop`, and then this is not reached.
            unsafe { self.registers.write_ring(RDT.of(self.id.pair()), tail) };
        };
        self.ring
            .receive(budget, frame, |done| done.checksum(family), give_back)
    }

    fn counters(&self) -> RxCounters {
        self.ring.counters()
    }
}

#[cfg(test)]
impl<P: Platform> IxgbeRx<P> {
    /// Where the device finds buffer `index`.
    pub(crate) fn buffer_address(&self, index: u32) -> pagewire_hal::DeviceAddress {
        self.ring.buffer(index).0
    }
}
