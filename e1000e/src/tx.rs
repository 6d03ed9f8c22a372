//! The transmit queue.
//!
//! Each frame takes one data descriptor per fragment, and before them a context descriptor if a
//! checksum is asked for: the device remembers one context, and to write it anew for each such
//! frame is the simplest correct use of it.
//!
//! Descriptors are reclaimed by DD in descriptors that asked for a report (RS), never by TDH,
//! which may run ahead of what has been fetched (Intel's datasheet of the 82599 warns of it). A report covers all frames since
//! the one before: they form a *group*. The last frame before a doorbell always reports, and
//! inside a long burst one frame every few dozen descriptors.
//!
//! What must be remembered of each frame lies in [`Platform::Slots`], which the device cannot
//! reach, at the index of the frame's first descriptor. The only bit that the device writes and
//! that this file looks at is DD.

use core::cell::Cell;
use core::marker::PhantomData;

use pagewire_hal::driver::QueueId;
use pagewire_hal::{
    Capabilities, DescriptorRing, DomainId, FrameError, NicError, Platform, PostError, QueueError,
    RingCounters, Token, TxFrame, TxQueue, barrier,
};

use crate::desc::{TX_EOP, TX_RS, TxDescriptor, data_command};
use crate::regs::{Bar, TDBAH, TDBAL, TDH, TDLEN, TDT};

/// Descriptors that always stay free, as in Linux e1000e: head and tail must not meet in a full
/// ring, and one more for good measure.
pub(crate) const GAP: u32 = 2;
/// Context descriptors that a frame may need.
pub(crate) const CONTEXTS: u32 = 1;
/// Inside a burst one report is asked for at least every so many descriptors, or every quarter
/// of the ring if that is less.
const REPORT_EVERY: u32 = 32;

/// Remembered of a frame: the token in bits 31:0.
const SLOT_LEN_SHIFT: u32 = 32;
/// Descriptors of the frame, 16 bits.
const SLOT_LEN_MASK: u64 = 0xFFFF;
/// Remembered in the first frame of a group: index of the descriptor that reports, 12 bits.
const SLOT_REPORT_SHIFT: u32 = 48;
/// Mask of the index.
const SLOT_REPORT_MASK: u64 = 0xFFF;
/// The group has a descriptor that reports.
const SLOT_REPORTED: u64 = 1 << 63;

/// The transmit half of the 82574's queue pair.
///
/// It may move to another thread, and is used from one at a time. While the device is being
/// reset the queue does not know of it: it takes frames until it is full, and they come back
/// with all others from [`restart`](pagewire_hal::Nic::restart) or
/// [`release`](pagewire_hal::Nic::release).
///
/// Dropped without `release`, its ring is leaked, as the device may still read it.
pub struct E1000eTx<P: Platform> {
    id: QueueId,
    registers: Bar<P::Registers>,
    ring: DescriptorRing<P::Memory, TxDescriptor>,
    counters: RingCounters,
    slots: P::Slots,
    capabilities: Capabilities,
    domain: DomainId,
    report_every: u32,
    /// Index of the first descriptor of the group that has no report yet.
    group: u32,
    /// Descriptors in that group.
    group_len: u32,
    /// The last descriptor that was written, to ask for a report after all.
    last: TxDescriptor,
    /// Descriptors written since the last doorbell.
    unpublished: u32,
    /// While a completed group is handed back: the index of its last descriptor.
    done_through: Option<u32>,
    outstanding: usize,
    down: bool,
    /// `Cell` is not `Sync`: a queue has one user at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl<P: Platform> core::fmt::Debug for E1000eTx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("E1000eTx")
            .field("counters", &self.counters)
            .field("outstanding", &self.outstanding)
            .field("down", &self.down)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> E1000eTx<P> {
    /// A queue of `count` descriptors that the device has not been told of.
    pub(crate) fn new(
        platform: &mut P,
        id: QueueId,
        registers: Bar<P::Registers>,
        capabilities: Capabilities,
        count: u16,
    ) -> Result<Self, NicError> {
        const UNFIT: NicError = NicError::Config {
            what: "the platform's memory for the transmit ring does not fit it",
        };
        let count = u32::from(count);
        let bytes = count as usize * size_of::<TxDescriptor>();
        let memory = platform.allocate(bytes, 128)?;
        let mut ring = DescriptorRing::new(memory, count).ok_or(UNFIT)?;
        // SAFETY: the device has not been told of this memory.
        unsafe { ring.set_quiet(true) };
        let counters = RingCounters::new(count, GAP).ok_or(UNFIT)?;
        let slots = platform.slots(count as usize)?;
        if slots.as_ref().len() < count as usize {
            return Err(UNFIT);
        }
        Ok(Self {
            id,
            registers,
            ring,
            counters,
            slots,
            capabilities,
            domain: platform.domain(),
            report_every: REPORT_EVERY.min(count / 4),
            group: 0,
            group_len: 0,
            last: TxDescriptor::default(),
            unpublished: 0,
            done_through: None,
            outstanding: 0,
            down: true,
            not_sync: PhantomData,
        })
    }

    /// Which queue it is.
    pub(crate) fn id(&self) -> QueueId {
        self.id
    }

    /// Tells the device, which is reset and stopped, of the empty ring.
    pub(crate) fn program(&mut self) {
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.ring.set_quiet(false) };
        self.empty();
        self.ring.clear();
        let address = self.ring.address().0;
        for (register, value) in [
            (TDBAL, address as u32),
            (TDBAH, (address >> 32) as u32),
            (TDLEN, self.ring.bytes()),
            (TDH, 0),
            (TDT, 0),
        ] {
            // SAFETY: the ring is ours and in custody as not quiet; head and tail are equal, so
            // no descriptor is the device's.
            unsafe { self.registers.write_ring(register, value) };
        }
        self.down = false;
    }

    fn empty(&mut self) {
        self.counters.reset();
        self.group_len = 0;
        self.unpublished = 0;
        self.done_through = None;
    }

    /// Hands back the tokens of all frames in the ring, in the order in which they were posted.
    ///
    /// # Safety
    /// The device is quiet: bus mastering is off and nothing is pending.
    pub(crate) unsafe fn drain(&mut self, released: &mut dyn FnMut(Token)) {
        self.down = true;
        while self.counters.used() > 0 {
            let (token, _) = self.consume_frame();
            released(token);
        }
        self.empty();
    }

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// As [`drain`](Self::drain), and the device is not started again before
    /// [`program`](Self::program) was called.
    pub(crate) unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> u64 {
        self.slots
            .as_ref()
            .get(index as usize)
            .copied()
            .unwrap_or(0)
    }

    /// Takes the oldest frame out of the ring and returns its token and the index of its last
    /// descriptor. It is out before anybody is told, so that a caller who panics gets no token
    /// twice.
    #[inline(always)]
    fn consume_frame(&mut self) -> (Token, u32) {
        let head = self.counters.head();
        let word = self.slot(head);
        let len = ((word >> SLOT_LEN_SHIFT & SLOT_LEN_MASK) as u32).max(1);
        self.counters.consume(len);
        self.outstanding = self.outstanding.saturating_sub(1);
        let last = head.wrapping_add(len - 1) & (self.ring.len() - 1);
        (Token(word as u32), last)
    }

    /// Remembers that descriptor `index` reports for the group, and begins the next group.
    #[inline(always)]
    fn close_group(&mut self, index: u32) {
        if let Some(slot) = self.slots.as_mut().get_mut(self.group as usize) {
            *slot |= SLOT_REPORTED | u64::from(index) << SLOT_REPORT_SHIFT;
        }
        self.group_len = 0;
    }

    /// Whether the oldest group is done; if so, sets [`done_through`](Self::done_through).
    #[inline]
    fn find_done(&mut self) -> Result<bool, QueueError> {
        let head = self.counters.head();
        let word = self.slot(head);
        if word & SLOT_REPORTED == 0 {
            return Ok(false);
        }
        let index = (word >> SLOT_REPORT_SHIFT & SLOT_REPORT_MASK) as u32;
        if !self.ring.read(index).is_done() {
            return Ok(false);
        }
        barrier::observe();
        let published = self.counters.used() - self.unpublished;
        if self.counters.distance(head, index) >= published {
            self.down = true;
            return Err(QueueError::BadIndex { index });
        }
        self.done_through = Some(index);
        Ok(true)
    }

    /// Writes the data descriptors of a frame from `index` on. The last one ends the frame, and
    /// reports if `report` says so. Returns its index.
    #[inline(always)]
    fn write_data(&mut self, frame: &TxFrame<'_>, mut index: u32, report: bool) -> u32 {
        let command = data_command(frame.offload.checksum);
        let Some((last, before)) = frame.fragments.split_last() else {
            return index;
        };
        for fragment in before {
            let descriptor = TxDescriptor::data(fragment.address, fragment.len, command);
            self.ring.write(index, descriptor);
            index = self.counters.next(index);
        }
        let end = TX_EOP | if report { TX_RS } else { 0 };
        self.last = TxDescriptor::data(last.address, last.len, command | end);
        self.ring.write(index, self.last);
        index
    }
}

// SAFETY: a token is handed back when the device has written DD to the descriptor that reports
// for its frame. That descriptor is the last of the frame or of a later one, it is written back
// "after the descriptor has been processed" (8254x manual 3.3.7.2), and the device processes the
// ring from head to tail. Or by `drain`, when the device is quiet. Frames leave the ring before their token is
// handed back, so none comes twice. The device gets the addresses of the fragments and of the
// ring, no others. The domain never changes.
unsafe impl<P: Platform> TxQueue for E1000eTx<P> {
    #[inline]
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    #[inline]
    fn domain(&self) -> DomainId {
        self.domain
    }

    #[inline]
    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        if self.down {
            return Err(PostError::Down);
        }
        frame
            .check(&self.capabilities)
            .map_err(PostError::Refused)?;
        let context = if frame.offload.checksum.is_empty() {
            None
        } else {
            let refused = PostError::Refused(FrameError::OffloadLayout);
            Some(TxDescriptor::context(&frame.offload).ok_or(refused)?)
        };
        let len = frame.fragments.len() as u32 + u32::from(context.is_some());
        if len > self.counters.free() {
            return Err(PostError::Full);
        }
        let first = self.counters.tail();
        let Some(slot) = self.slots.as_mut().get_mut(first as usize) else {
            return Err(PostError::Down);
        };
        *slot = u64::from(token.0) | u64::from(len) << SLOT_LEN_SHIFT;
        if self.group_len == 0 {
            self.group = first;
        }
        self.group_len += len;
        let mut index = first;
        if let Some(context) = context {
            self.ring.write(index, context);
            index = self.counters.next(index);
        }
        let report = self.group_len >= self.report_every;
        let index = self.write_data(frame, index, report);
        if report {
            self.close_group(index);
        }
        self.counters.produce(len);
        self.unpublished += len;
        self.outstanding += 1;
        Ok(())
    }

    #[inline]
    fn doorbell(&mut self) {
        if self.unpublished == 0 || self.down {
            return;
        }
        let tail = self.counters.tail();
        if self.group_len > 0 {
            // The device has not been given this descriptor yet, so it may be written again.
            let index = tail.wrapping_sub(1) & (self.ring.len() - 1);
            self.ring.write(index, self.last.reporting());
            self.close_group(index);
        }
        barrier::publish();
        // SAFETY: the ring is ours and in custody. The caller of `post` promised that the
        // fragments of all frames between head and tail stay mapped until their token is
        // handed back, which is when the device is done with them.
        unsafe { self.registers.write_ring(TDT, tail) };
        self.unpublished = 0;
    }

    #[inline]
    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        if self.down {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        while self.counters.used() > 0 {
            if self.done_through.is_none() && !self.find_done()? {
                break;
            }
            let (token, last) = self.consume_frame();
            if self.done_through == Some(last) {
                self.done_through = None;
            }
            count += 1;
            done(token);
        }
        Ok(count)
    }

    #[inline]
    fn has_room(&self, fragments: usize) -> bool {
        !self.down
            && fragments <= usize::from(self.capabilities.max_fragments)
            && fragments < self.counters.free() as usize
    }

    #[inline]
    fn outstanding(&self) -> usize {
        self.outstanding
    }
}

#[cfg(test)]
impl<P: Platform> E1000eTx<P> {
    /// Descriptor `index` as it is in memory.
    pub(crate) fn descriptor(&self, index: u32) -> TxDescriptor {
        self.ring.read(index)
    }

    /// Writes descriptor `index`, as a device that misbehaves might.
    pub(crate) fn overwrite(&mut self, index: u32, descriptor: TxDescriptor) {
        self.ring.write(index, descriptor);
    }
}
