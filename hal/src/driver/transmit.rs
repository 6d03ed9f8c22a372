//! A transmit ring of descriptors that the device gets by a tail and marks as done.

use core::cell::Cell;
use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::frame::Lengths;
use crate::{
    Capabilities, DescriptorRing, DeviceAddress, DmaMemory, DomainId, NicError, Offload, Platform,
    PostError, QueueError, RingCounters, Token, TxFrame, barrier,
};

/// What a transmit ring must know of a descriptor.
pub trait TransmitDescriptor: FromBytes + IntoBytes + Immutable + Copy {
    /// Whether the device has marked it as done.
    fn is_done(self) -> bool;
}

/// Remembered of a frame, at the index of its first descriptor: the token in bits 31:0, a note of
/// the driver's in bits 47:32.
const SLOT_NOTE_SHIFT: u32 = 32;
/// Descriptors of the frame, in bits 63:48.
const SLOT_LEN_SHIFT: u32 = 48;

/// What a ring remembers of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Remembered(u64);

impl Remembered {
    /// What it was posted with.
    #[must_use]
    #[inline(always)]
    pub const fn token(self) -> Token {
        Token(self.0 as u32)
    }

    /// The note that was [added](TxRing::add_note), or 0.
    #[must_use]
    #[inline(always)]
    pub const fn note(self) -> u16 {
        (self.0 >> SLOT_NOTE_SHIFT) as u16
    }

    /// Descriptors of the frame, at least 1.
    #[must_use]
    #[inline(always)]
    pub const fn len(self) -> u32 {
        let len = (self.0 >> SLOT_LEN_SHIFT) as u32;
        if len == 0 { 1 } else { len }
    }

    /// Never.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        false
    }
}

/// A transmit ring whose device processes the descriptors in turn and marks those that were asked
/// to report. Which ask, and which report covers which frame, is the driver's affair.
///
/// What must be remembered of each frame lies in [`Platform::Slots`], which the device cannot
/// reach. The only thing that the device writes and that is looked at here is the done mark.
///
/// The slots have `MARGIN` words before and behind them that nobody uses. 16 of them are 128 bytes:
/// then those of two queues share no cache line, nor a pair of lines that is fetched together,
/// wherever the platform has them.
///
/// One thread uses it at a time. Its memory is in [`Custody`](crate::Custody).
#[derive(Debug)]
pub struct TxRing<M: DmaMemory, S, D, const MARGIN: usize = 0> {
    ring: DescriptorRing<M, D>,
    counters: RingCounters,
    slots: S,
    capabilities: Capabilities,
    /// Of frames that ask for the same as the last one that was [remembered](Self::remember); none
    /// while the ring is down.
    lengths: Lengths,
    domain: DomainId,
    /// The producer's counter at the last doorbell.
    published: u32,
    outstanding: usize,
    down: bool,
    /// `Cell` is not `Sync`: a queue has one user at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl<M, S, D, const MARGIN: usize> TxRing<M, S, D, MARGIN>
where
    M: DmaMemory,
    S: AsRef<[u64]> + AsMut<[u64]>,
    D: TransmitDescriptor,
{
    /// A ring of `count` descriptors, a power of two, aligned to `align` bytes, of which `gap`
    /// always stay free, that the device has not been told of. It is down.
    ///
    /// # Errors
    /// What the platform said, or [`NicError::Config`] if its memory does not fit.
    pub fn new<P: Platform<Memory = M, Slots = S>>(
        platform: &mut P,
        capabilities: Capabilities,
        count: u16,
        align: usize,
        gap: u32,
    ) -> Result<Self, NicError> {
        const UNFIT: NicError = NicError::Config {
            what: "the platform's memory for the transmit ring does not fit it",
        };
        let words = usize::from(count) + 2 * MARGIN;
        let count = u32::from(count);
        let ring = DescriptorRing::allocate(platform, count, align)?;
        let counters = RingCounters::new(count, gap).ok_or(UNFIT)?;
        let slots = platform.slots(words)?;
        if slots.as_ref().len() < words {
            return Err(UNFIT);
        }
        Ok(Self {
            ring,
            counters,
            slots,
            capabilities,
            lengths: Lengths::NONE,
            domain: platform.domain(),
            published: 0,
            outstanding: 0,
            down: true,
            not_sync: PhantomData,
        })
    }

    /// Empties the ring; the device, reset and stopped, is to be told of it next, with head and
    /// tail at 0.
    pub fn prepare(&mut self) {
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.ring.set_quiet(false) };
        self.empty();
        self.ring.clear();
        self.down = false;
    }

    fn empty(&mut self) {
        self.counters.reset();
        self.published = 0;
    }

    fn put_down(&mut self) {
        self.down = true;
        self.forget();
    }

    /// Hands back the tokens of all frames in the ring, in the order in which they were posted.
    /// The ring is down and empty afterwards.
    ///
    /// # Safety
    /// The device is quiet: bus mastering is off and nothing is pending.
    pub unsafe fn drain(&mut self, released: &mut dyn FnMut(Token)) {
        self.put_down();
        while self.counters.used() > 0 {
            let frame = self.oldest();
            self.consume(frame);
            released(frame.token());
        }
        self.empty();
    }

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// As [`drain`](Self::drain), and the device is not told of the ring again before
    /// [`prepare`](Self::prepare) was called.
    pub unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
    }

    /// Where the device finds the ring.
    #[must_use]
    pub fn address(&self) -> DeviceAddress {
        self.ring.address()
    }

    /// Bytes of the ring, for the length register.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.ring.bytes()
    }

    /// Checks `frame` against the capabilities, and returns its bytes.
    ///
    /// # Errors
    /// [`PostError::Down`], [`PostError::Refused`].
    #[inline(always)]
    pub fn check(&self, frame: &TxFrame<'_>) -> Result<u32, PostError> {
        if self.down {
            return Err(PostError::Down);
        }
        frame.check(&self.capabilities).map_err(PostError::Refused)
    }

    /// Takes note that frames follow which ask for the same as one that has passed
    /// [`check`](Self::check), for [`check_again`](Self::check_again).
    pub fn remember(&mut self, offload: Offload) {
        let lengths = Lengths::of(offload, &self.capabilities);
        self.lengths = lengths.unwrap_or(Lengths::NONE);
    }

    /// Forgets what was remembered: every frame has to pass [`check`](Self::check) again.
    pub fn forget(&mut self) {
        self.lengths = Lengths::NONE;
    }

    /// The bytes of a frame that asks for what was [remembered](Self::remember) last, if it passes
    /// [`check`](Self::check), which is to be asked otherwise.
    #[inline(always)]
    pub fn check_again(&self, frame: &TxFrame<'_>) -> Option<u32> {
        frame.check_again(&self.lengths, &self.capabilities)
    }

    /// Begins a frame of `len` descriptors, at least 1, and returns the index of the first one, or
    /// `None` if the ring is too full. All of them are then [written](Self::write), and
    /// [`finish`](Self::finish) ends it. A frame that is begun and not finished never was.
    #[inline(always)]
    pub fn begin(&mut self, len: u32, token: Token) -> Option<u32> {
        if len > self.counters.free() {
            return None;
        }
        let first = self.counters.tail();
        let slot = self.slots.as_mut().get_mut(first as usize + MARGIN)?;
        *slot = u64::from(token.0) | u64::from(len) << SLOT_LEN_SHIFT;
        Some(first)
    }

    /// Writes descriptor `index`, taken modulo the length of the ring, and returns the next index.
    #[inline(always)]
    pub fn write(&mut self, index: u32, descriptor: D) -> u32 {
        self.ring.write(index, descriptor);
        self.counters.next(index)
    }

    /// Writes descriptors from `index` on, one behind the other, and returns the index behind the last.
    /// Indices are taken modulo the length of the ring.
    #[inline(always)]
    pub fn write_all(&mut self, index: u32, descriptors: impl Iterator<Item = D>) -> u32 {
        self.ring.write_all(index, descriptors)
    }

    /// Descriptor `index` as it is in memory.
    #[must_use]
    #[inline(always)]
    pub fn read(&self, index: u32) -> D {
        self.ring.read(index)
    }

    /// Takes note of the frame of `len` descriptors that was begun.
    #[inline(always)]
    pub fn finish(&mut self, len: u32) {
        self.counters.produce(len);
        self.outstanding += 1;
    }

    /// Adds `note` to what is remembered of the frame that begins at `index`: zero at first.
    #[inline(always)]
    pub fn add_note(&mut self, index: u32, note: u16) {
        if let Some(slot) = self.slots.as_mut().get_mut(index as usize + MARGIN) {
            *slot |= u64::from(note) << SLOT_NOTE_SHIFT;
        }
    }

    /// What is remembered of the oldest frame; of none if the ring is empty.
    #[must_use]
    #[inline(always)]
    pub fn oldest(&self) -> Remembered {
        let slot = self.counters.head() as usize + MARGIN;
        Remembered(self.slots.as_ref().get(slot).copied().unwrap_or(0))
    }

    /// Index of the oldest descriptor in use.
    #[must_use]
    #[inline(always)]
    pub const fn head(&self) -> u32 {
        self.counters.head()
    }

    /// Index of the next descriptor to be written.
    #[must_use]
    #[inline(always)]
    pub const fn tail(&self) -> u32 {
        self.counters.tail()
    }

    /// The index `steps` after `index`, around the end.
    #[must_use]
    #[inline(always)]
    pub const fn after(&self, index: u32, steps: u32) -> u32 {
        index.wrapping_add(steps) & (self.ring.len() - 1)
    }

    /// How many steps lead from index `from` forward to index `to`.
    #[must_use]
    #[inline(always)]
    pub const fn distance(&self, from: u32, to: u32) -> u32 {
        self.counters.distance(from, to)
    }

    /// Whether no frame is in the ring.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.counters.used() == 0
    }

    /// Descriptors in use that the device has been told of.
    #[must_use]
    #[inline(always)]
    pub const fn published(&self) -> u32 {
        self.counters.since_consumed(self.published)
    }

    /// Whether the device has marked descriptor `index`.
    #[must_use]
    #[inline(always)]
    pub fn is_done(&self, index: u32) -> bool {
        let done = self.ring.read(index).is_done();
        if done {
            barrier::observe();
        }
        done
    }

    /// The device has marked descriptor `index`, of which it has not been told: the ring is down.
    #[cold]
    pub fn marked_too_early(&mut self, index: u32) -> QueueError {
        self.put_down();
        QueueError::BadIndex { index }
    }

    /// Takes the oldest frame, which is `frame`, out of the ring. Then somebody may be told, who
    /// gets no token twice, also if he panics.
    #[inline(always)]
    pub fn consume(&mut self, frame: Remembered) {
        self.counters.consume(frame.len());
        self.outstanding = self.outstanding.wrapping_sub(1);
    }

    /// Whether there is something that the device has not been told of, and may be.
    #[must_use]
    #[inline(always)]
    pub const fn has_news(&self) -> bool {
        self.published() != self.counters.used() && !self.down
    }

    /// Hands all that was written to the device: `write_tail` tells it which descriptor is the
    /// first that is not its own.
    #[inline(always)]
    pub fn publish(&mut self, write_tail: impl FnOnce(u32)) {
        barrier::publish();
        write_tail(self.counters.tail());
        self.published = self.counters.produced();
    }

    /// Whether the ring takes and hands back nothing.
    #[must_use]
    #[inline(always)]
    pub const fn is_down(&self) -> bool {
        self.down
    }

    /// What the device can do.
    #[must_use]
    #[inline(always)]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whose addresses the fragments must be.
    #[must_use]
    #[inline(always)]
    pub const fn domain(&self) -> DomainId {
        self.domain
    }

    /// Whether a frame of `fragments` fragments fits now, with `contexts` descriptors more.
    #[must_use]
    #[inline]
    pub fn has_room(&self, fragments: usize, contexts: u32) -> bool {
        !self.down
            && fragments <= usize::from(self.capabilities.max_fragments)
            && fragments + contexts as usize <= self.counters.free() as usize
    }

    /// Frames that were posted and not handed back.
    #[must_use]
    #[inline]
    pub const fn outstanding(&self) -> usize {
        self.outstanding
    }
}
