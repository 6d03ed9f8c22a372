//! The transmit queue.
//!
//! Each frame takes one data descriptor per fragment, and before them a context descriptor if it
//! asks for other checksums than the frame before: the device remembers one context, "the last
//! context used regardless of queue" (82574 datasheet 7.2.6 by `nics.md`), and this is the only
//! queue.
//!
//! Descriptors are reclaimed by DD in descriptors that asked for a report (RS), never by TDH,
//! which may run ahead of what has been fetched (Intel's datasheet of the 82599 warns of it). A report covers all frames since
//! the one before: they form a *group*. The last frame before a doorbell always reports, and
//! inside a long burst one frame every few dozen descriptors.
//!
//! The ring and what must be remembered of each frame are [`TxRing`]'s; the groups are kept here.

use pagewire_hal::driver::{QueueId, TransmitHalf, TxRing};
use pagewire_hal::{
    Capabilities, DomainId, FrameError, NicError, Platform, PostError, QueueError, Token, TxFrame,
    TxQueue,
};

use crate::desc::{RING_ALIGN, TX_EOP, TX_RS, TxDescriptor, data_command};
use crate::regs::{Bar, TDBAH, TDBAL, TDH, TDLEN, TDT};

/// Descriptors that always stay free, as in Linux e1000e: head and tail must not meet in a full
/// ring, and one more for good measure.
pub(crate) const GAP: u32 = 2;
/// Context descriptors that a frame may need.
pub(crate) const CONTEXTS: u32 = 1;
/// Inside a burst one report is asked for at least every so many descriptors, or every quarter
/// of the ring if that is less.
const REPORT_EVERY: u32 = 32;

/// Noted of the first frame of a group: index of the descriptor that reports, 12 bits.
const NOTE_REPORT_MASK: u16 = 0xFFF;
/// The group has a descriptor that reports.
const NOTE_REPORTED: u16 = 1 << 15;

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
    ring: TxRing<P::Memory, P::Slots, TxDescriptor>,
    report_every: u32,
    /// Command and options of a frame that asks for what the [ring](TxRing::remember) remembers: its
    /// context is there.
    command: u64,
    /// Index of the first descriptor of the group that has no report yet.
    group: u32,
    /// Descriptors in that group.
    group_len: u32,
    /// The last descriptor that was written, to ask for a report after all.
    last: TxDescriptor,
    /// While a completed group is handed back: descriptors of it that are still to come.
    done: u32,
}

impl<P: Platform> core::fmt::Debug for E1000eTx<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("E1000eTx")
            .field("outstanding", &self.ring.outstanding())
            .field("down", &self.ring.is_down())
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
        Ok(Self {
            id,
            registers,
            ring: TxRing::new(platform, capabilities, count, RING_ALIGN, GAP)?,
            report_every: REPORT_EVERY.min(u32::from(count) / 4),
            command: 0,
            group: 0,
            group_len: 0,
            last: TxDescriptor::default(),
            done: 0,
        })
    }

    /// Tells the device, which is reset and stopped, of the empty ring.
    pub(crate) fn program(&mut self) {
        self.forget_groups();
        self.ring.forget();
        self.ring.prepare();
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
    }

    fn forget_groups(&mut self) {
        self.group_len = 0;
        self.done = 0;
    }

    /// Remembers that descriptor `index` reports for the group, and begins the next group.
    #[inline(always)]
    fn close_group(&mut self, index: u32) {
        self.ring.add_note(self.group, NOTE_REPORTED | index as u16);
        self.group_len = 0;
    }

    /// Whether the oldest group is done: then its descriptors are [to be handed back](Self::done).
    #[inline]
    fn find_done(&mut self) -> Result<bool, QueueError> {
        let note = self.ring.oldest().note();
        if note & NOTE_REPORTED == 0 {
            return Ok(false);
        }
        let index = u32::from(note & NOTE_REPORT_MASK);
        if !self.ring.is_done(index) {
            return Ok(false);
        }
        let distance = self.ring.distance(self.ring.head(), index);
        if distance >= self.ring.published() {
            return Err(self.ring.marked_too_early(index));
        }
        self.done = distance + 1;
        Ok(true)
    }

    /// Posts a frame that asks for something else than the one before.
    #[cold]
    #[inline(never)]
    fn post_other(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        self.ring.check(frame)?;
        let context = if frame.offload.checksum.is_empty() {
            None
        } else {
            let refused = PostError::Refused(FrameError::OffloadLayout);
            Some(TxDescriptor::context(&frame.offload).ok_or(refused)?)
        };
        let len = frame.fragments.len() as u32 + u32::from(context.is_some());
        let first = self.ring.begin(len, token).ok_or(PostError::Full)?;
        let mut index = first;
        if let Some(context) = context {
            index = self.ring.write(index, context);
        }
        self.command = data_command(frame.offload.checksum);
        self.ring.remember(frame.offload);
        self.write_frame(frame, (first, index), len);
        Ok(())
    }

    /// Writes the data descriptors of a frame of `len` descriptors, of which the first is at
    /// `first`, and those of data begin at `index`.
    #[inline(always)]
    fn write_frame(&mut self, frame: &TxFrame<'_>, (first, index): (u32, u32), len: u32) {
        if self.group_len == 0 {
            self.group = first;
        }
        self.group_len += len;
        let report = self.group_len >= self.report_every;
        let index = self.write_data(frame, index, report);
        if report {
            self.close_group(index);
        }
        self.ring.finish(len);
    }

    /// Writes the data descriptors of a frame from `index` on. The last one ends the frame, and
    /// reports if `report` says so. Returns its index.
    #[inline(always)]
    fn write_data(&mut self, frame: &TxFrame<'_>, index: u32, report: bool) -> u32 {
        let command = self.command;
        let Some((last, before)) = frame.fragments.split_last() else {
            return index;
        };
        let before = before
            .iter()
            .map(|fragment| TxDescriptor::data(fragment.address, fragment.len, command));
        let index = self.ring.write_all(index, before);
        let end = TX_EOP | if report { TX_RS } else { 0 };
        self.last = TxDescriptor::data(last.address, last.len, command | end);
        self.ring.write(index, self.last);
        self.ring.after(index, 0)
    }
}

impl<P: Platform> TransmitHalf for E1000eTx<P> {
    fn id(&self) -> QueueId {
        self.id
    }

    unsafe fn drain(&mut self, released: &mut dyn FnMut(Token)) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.drain(released) };
        self.forget_groups();
        self.ring.forget();
    }

    unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet() };
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
        self.ring.capabilities()
    }

    #[inline]
    fn domain(&self) -> DomainId {
        self.ring.domain()
    }

    #[inline(always)]
    unsafe fn post(&mut self, frame: &TxFrame<'_>, token: Token) -> Result<(), PostError> {
        if self.ring.check_again(frame).is_none() {
            return self.post_other(frame, token);
        }
        let len = frame.fragments.len() as u32;
        let first = self.ring.begin(len, token).ok_or(PostError::Full)?;
        self.write_frame(frame, (first, first), len);
        Ok(())
    }

    #[inline]
    fn doorbell(&mut self) {
        if !self.ring.has_news() {
            return;
        }
        if self.group_len > 0 {
            // The device has not been given this descriptor yet, so it may be written again.
            let index = self.ring.after(self.ring.tail(), u32::MAX);
            self.ring.write(index, self.last.reporting());
            self.close_group(index);
        }
        self.ring.publish(|tail| {
            // SAFETY: the ring is ours and in custody. The caller of `post` promised that the
            // fragments of all frames between head and tail stay mapped until their token is
            // handed back, which is when the device is done with them.
            unsafe { self.registers.write_ring(TDT, tail) };
        });
    }

    #[inline]
    fn reclaim(&mut self, done: &mut impl FnMut(Token)) -> Result<usize, QueueError> {
        if self.ring.is_down() {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        while !self.ring.is_empty() && (self.done > 0 || self.find_done()?) {
            let frame = self.ring.oldest();
            self.done = self.done.saturating_sub(frame.len());
            self.ring.consume(frame);
            count += 1;
            done(frame.token());
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
