//! The transmit queue.
//!
//! Each frame takes one data descriptor per fragment, and before them a context descriptor if it
//! asks for an offload that neither of the two contexts has, which the device remembers for the
//! queue. The one that was not used last is replaced.
//!
//! With a write-back threshold of 0 "software must set RS on the last descriptor of every packet"
//! (X550 datasheet by `nics.md`; Intel's specification update for the 82599 has a specification
//! change 11, "WTHRESH=0 Mode", of which only the title was at hand). So it is done: each frame
//! reports. (DPDK asks for a report every 32 descriptors only, and Linux for all with a threshold
//! above 0, against the X550 datasheet's "no RS".) Descriptors are reclaimed by DD in the last
//! descriptor of a frame, never by TDH, which may run ahead (X550 datasheet by `nics.md`).
//!
//! The ring and what must be remembered of each frame are [`TxRing`]'s; the contexts are kept here.

use pagewire_hal::driver::{QueueId, TransmitHalf, TxRing};
use pagewire_hal::{
    Capabilities, DomainId, Fragment, FrameError, NicError, Offload, Platform, PostError,
    QueueError, Token, TxFrame, TxQueue,
};

use crate::bits::{DcaTxctrl, Txdctl};
use crate::desc::{
    Context, RING_ALIGN, TX_EOP, TX_RS, TxDescriptor, first_command, header_len, with_payload,
};
use crate::regs::{Bar, DCA_TXCTRL, PerQueue, TDBAH, TDBAL, TDH, TDLEN, TDT, TDWBAL, TXDCTL};

/// Descriptors that always stay free, as in the driver of the 82574: head and tail must not meet
/// in a full ring, and one more for good measure.
pub(crate) const GAP: u32 = 2;
/// Context descriptors that a frame may need.
pub(crate) const CONTEXTS: u32 = 1;
/// Write-back threshold of the queues, in descriptors.
pub(crate) const WTHRESH: u32 = 0;
/// The header of a frame to be segmented lies in at most so many descriptors (X550 datasheet by
/// `nics.md`).
const HEADER_DESCRIPTORS: usize = 4;

/// Words before and behind the slots that nobody uses: 128 bytes, see [`TxRing`].
const SLOT_MARGIN: usize = 16;

/// The contexts that the device remembers for a queue.
#[derive(Debug, Default)]
struct Contexts {
    slots: [Context; 2],
    /// Which was used last, 0 or 1.
    last: u8,
}

impl Contexts {
    /// Where `wanted` is, if it is there.
    #[inline(always)]
    fn find(&self, wanted: Context) -> Option<u8> {
        let [zero, one] = self.slots;
        if zero == wanted {
            Some(0)
        } else if one == wanted {
            Some(1)
        } else {
            None
        }
    }

    /// Remembers that slot `index` holds `context` and was used.
    #[inline(always)]
    fn put(&mut self, index: u8, context: Context) {
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            *slot = context;
        }
        self.last = index;
    }
}

/// The transmit half of one of the device's queue pairs.
///
/// It may move to another thread, and is used from one at a time; it shares no lock and no cache
/// line with other queues. While the device is being reset the queue does not know of it: it takes
/// frames until it is full, and they come back with all others from
/// [`restart`](pagewire_hal::Nic::restart) or [`release`](pagewire_hal::Nic::release).
///
/// Dropped without `release`, its ring is leaked, as the device may still read it.
#[repr(align(128))]
pub struct IxgbeTx<P: Platform> {
    id: QueueId,
    registers: Bar<P::Registers>,
    ring: TxRing<P::Memory, P::Slots, TxDescriptor, SLOT_MARGIN>,
    contexts: Contexts,
    /// Command and options of a frame that asks for what the [ring](TxRing::remember) remembers, but
    /// for its length: its context is there.
    command: u64,
    /// The device has said that the queue is on: the tail may be written.
    enabled: bool,
}

impl<P: Platform> core::fmt::Debug for IxgbeTx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("IxgbeTx")
            .field("pair", &self.id.pair())
            .field("outstanding", &self.ring.outstanding())
            .field("down", &self.ring.is_down())
            .finish_non_exhaustive()
    }
}

impl<P: Platform> IxgbeTx<P> {
    /// A queue of `count` descriptors that the device has not been told of.
    pub(crate) fn new(
        platform: &mut P,
        id: QueueId,
        registers: Bar<P::Registers>,
        capabilities: Capabilities,
        count: u16,
    ) -> Result<Self, NicError> {
        Ok(Self {
            id,
            registers,
            ring: TxRing::new(platform, capabilities, count, RING_ALIGN, GAP)?,
            contexts: Contexts::default(),
            command: 0,
            enabled: false,
        })
    }

    /// The device has no context any more.
    fn forget_contexts(&mut self) {
        self.contexts = Contexts::default();
        self.ring.forget();
    }

    /// Tells the device, which is reset and stopped, of the empty ring (82599 datasheet 4.6.8, as
    /// TinyNF quotes it). The reset has set the tail to 0, but a doorbell on another thread may have
    /// moved it since: so it is written (as Linux `ixgbe_configure_tx_ring` does). Other values are
    /// not written before the queue is on (4.6.8).
    pub(crate) fn program(&mut self) {
        self.forget_contexts();
        self.ring.prepare();
        let address = self.ring.address().0;
        for (register, value) in [
            (TDBAL, address as u32),
            (TDBAH, (address >> 32) as u32),
            (TDLEN, self.ring.bytes()),
            (TDH, 0),
            (TDT, 0),
            (TDWBAL, 0),
        ] {
            // SAFETY: the ring is ours and in custody as not quiet. The queue is off since the
            // reset, and head and tail are equal before it is switched on, so no descriptor is the
            // device's; nothing is written elsewhere.
            unsafe {
                self.registers
                    .write_ring(register.of(self.id.pair()), value)
            };
        }
        let pair = self.id.pair();
        let relaxed = DcaTxctrl::WRITE_BACK_RELAXED.bits();
        self.registers.change(DCA_TXCTRL.of(pair), relaxed, 0);
        self.registers.write(TXDCTL.of(pair), THRESHOLDS.bits());
        self.enabled = false;
    }

    /// Switches the queue on, once transmit DMA is.
    pub(crate) fn enable(&mut self) {
        let on = THRESHOLDS | Txdctl::ENABLE;
        self.registers.write(TXDCTL.of(self.id.pair()), on.bits());
    }

    /// Whether the device has switched the queue on.
    #[cold]
    pub(crate) fn is_enabled(&mut self) -> bool {
        let state = Txdctl::from_bits_retain(self.registers.read(TXDCTL.of(self.id.pair())));
        self.enabled |= state.contains(Txdctl::ENABLE);
        self.enabled
    }

    /// Writes the data descriptors of a frame from `index` on. `first` is what the first one
    /// says; the last one ends the frame and reports.
    #[inline(always)]
    fn write_data(&mut self, frame: &TxFrame<'_>, index: u32, first: u64) {
        const END: u64 = TX_EOP | TX_RS;
        let data = |fragment: &Fragment, command| {
            TxDescriptor::data(fragment.address, fragment.len, command)
        };
        match frame.fragments {
            [] => {}
            [only] => {
                self.ring.write(index, data(only, first | END));
            }
            [head, middle @ .., last] => {
                let index = self.ring.write(index, data(head, first));
                let middle = middle.iter().map(|fragment| data(fragment, 0));
                let index = self.ring.write_all(index, middle);
                self.ring.write(index, data(last, END));
            }
        }
    }

    /// Posts a frame that asks for something else than the one before, or is to be segmented.
    #[cold]
    #[inline(never)]
    fn post_other(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let bytes = self.ring.check(frame)?;
        let (slot_index, context) = self
            .choose_context(frame, bytes)
            .map_err(PostError::Refused)?;
        let len = frame.fragments.len() as u32 + u32::from(context.is_some());
        let mut index = self.ring.begin(len, token).ok_or(PostError::Full)?;
        if let Some(context) = context {
            index = self.ring.write(index, context.descriptor(slot_index));
            self.contexts.put(slot_index, context);
        } else if !frame.offload.checksum.is_empty() {
            self.contexts.last = slot_index;
        }
        let first = first_command(&frame.offload, bytes, slot_index);
        self.write_data(frame, index, first);
        self.ring.finish(len);
        // What is to be segmented is checked each time for its header.
        if frame.offload.segment_len == 0 {
            self.command = first_command(&frame.offload, 0, slot_index);
            self.ring.remember(frame.offload);
        } else {
            self.ring.forget();
        }
        Ok(())
    }

    /// Checks what [`TxFrame::check`] does not of a frame of `len` bytes that asks for something:
    /// the device's own rules. Returns the context that it needs.
    #[inline]
    fn check_offload(&self, frame: &TxFrame<'_>, len: u32) -> Result<Context, FrameError> {
        let offload = &frame.offload;
        if offload.segment_len != 0 {
            let header = header_len(offload);
            let within = frame.fragments.iter().take(HEADER_DESCRIPTORS);
            let reach = within.fold(0u32, |sum, f| sum.saturating_add(f.len));
            let segment = u32::from(offload.segment_len).min(len.saturating_sub(header));
            if reach < header || header + segment > self.ring.capabilities().max_frame_len {
                return Err(FrameError::OffloadLayout);
            }
        }
        Context::new(offload)
    }

    /// Which context slot a frame of `len` bytes uses, and what is to be written there first.
    #[inline]
    fn choose_context(
        &self,
        frame: &TxFrame<'_>,
        len: u32,
    ) -> Result<(u8, Option<Context>), FrameError> {
        if frame.offload == Offload::NONE || frame.offload.checksum.is_empty() {
            return Ok((0, None));
        }
        let wanted = self.check_offload(frame, len)?;
        Ok(match self.contexts.find(wanted) {
            Some(index) => (index, None),
            None => (1 - (self.contexts.last & 1), Some(wanted)),
        })
    }
}

impl<P: Platform> TransmitHalf for IxgbeTx<P> {
    fn id(&self) -> QueueId {
        self.id
    }

    unsafe fn drain(&mut self, released: &mut dyn FnMut(Token)) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.drain(released) };
        self.forget_contexts();
    }

    unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet() };
    }
}

/// What TXDCTL says of a queue's thresholds: prefetch as in Linux, no write-back threshold.
const THRESHOLDS: Txdctl = Txdctl::PTHRESH_32.union(Txdctl::HTHRESH_1);
const _: () = assert!(WTHRESH == 0, "THRESHOLDS has none, and each frame reports");

// SAFETY: a token is handed back when the device has written DD to the last descriptor of its
// frame, which it does when it has processed it (X550 datasheet, 7.2.3.2.4 by `nics.md`), from
// head to tail. Or by `drain`, when the device is quiet. Frames leave the ring before their token
// is handed back, so none comes twice. The device gets the addresses of the fragments and of the
// ring, no others. The domain never changes.
unsafe impl<P: Platform> TxQueue for IxgbeTx<P> {
    #[inline]
    fn capabilities(&self) -> &Capabilities {
        self.ring.capabilities()
    }

    #[inline]
    fn domain(&self) -> DomainId {
        self.ring.domain()
    }

    #[inline(always)]
    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        let Some(bytes) = self.ring.check_again(frame) else {
            return self.post_other(frame, token);
        };
        let len = frame.fragments.len() as u32;
        let index = self.ring.begin(len, token).ok_or(PostError::Full)?;
        self.write_data(frame, index, with_payload(self.command, bytes));
        self.ring.finish(len);
        Ok(())
    }

    /// Until the device has switched the queue on, shortly after a restart, nothing is handed
    /// over: [`reclaim`](TxQueue::reclaim) makes up for it.
    #[inline]
    fn doorbell(&mut self) {
        if !self.ring.has_news() || !(self.enabled || self.is_enabled()) {
            return;
        }
        self.ring.publish(|tail| {
            // SAFETY: the ring is ours and in custody. The caller of `post` promised that the
            // fragments of all frames between head and tail stay mapped until their token is
            // handed back, which is when the device is done with them.
            unsafe { self.registers.write_ring(TDT.of(self.id.pair()), tail) };
        });
    }

    #[inline]
    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        if self.ring.is_down() {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        // Descriptors that the device has been told of: whole frames.
        let mut published = self.ring.published();
        while !self.ring.is_empty() {
            let frame = self.ring.oldest();
            let last = self.ring.after(self.ring.head(), frame.len() - 1);
            if !self.ring.is_done(last) {
                break;
            }
            if published == 0 {
                return Err(self.ring.marked_too_early(last));
            }
            published = published.saturating_sub(frame.len());
            self.ring.consume(frame);
            count += 1;
            done(frame.token());
        }
        if !self.enabled {
            self.doorbell();
        }
        Ok(count)
    }

    #[inline]
    fn has_room(&self, fragments: usize) -> bool {
        self.ring.has_room(fragments, CONTEXTS)
    }

    #[inline]
    fn outstanding(&self) -> usize {
        self.ring.outstanding()
    }
}

#[cfg(test)]
impl<P: Platform> IxgbeTx<P> {
    /// Descriptor `index` as it is in memory.
    pub(crate) fn descriptor(&self, index: u32) -> TxDescriptor {
        self.ring.read(index)
    }

    /// Writes descriptor `index`, as a device that misbehaves might.
    pub(crate) fn overwrite(&mut self, index: u32, descriptor: TxDescriptor) {
        self.ring.write(index, descriptor);
    }
}
