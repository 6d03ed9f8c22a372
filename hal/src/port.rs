//! The safe layer above a transmit queue: buffers of its own, loans of the program's regions,
//! and the books that keep both until the device is done.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroUsize;

use crate::address::unique;
use crate::apart;
use crate::builder::Pending;
use crate::ledger::highest;
use crate::ledger_hold::Holds;
use crate::pool::Pool;
use crate::{
    Capabilities, DmaMemory, FrameBuffer, FrameBuilder, GatherList, Ledger, LendError, MAX_GATHER,
    Nic, NicError, PoolLayout, PostError, QueueError, Token, TxQueue,
};

/// Names a posted frame of one port; never names another frame of it later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FrameId {
    pub(crate) slot: u32,
    pub(crate) generation: u64,
}

/// Why a frame was not posted. Its loans have been given back, its buffer is in the pool again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortError {
    /// More pieces than one frame may gather.
    TooManyPieces,
    /// A part of the buffer, or of a loan, that is not there, or cannot be lent to this device.
    Lend(LendError),
    /// The queue did not take it.
    Post(PostError),
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyPieces => write!(f, "more pieces than one frame may gather"),
            Self::Lend(error) => write!(f, "{error}"),
            Self::Post(error) => write!(f, "{error}"),
        }
    }
}

impl core::error::Error for PortError {}

/// What a port has counted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PortCounters {
    /// Frames posted.
    pub frames: u64,
    /// Bytes posted from the program's regions, without a copy.
    pub shared_bytes: u64,
    /// Bytes posted from buffers of the port: headers and what was copied behind them.
    pub buffer_bytes: u64,
    /// Frames by number of fragments: the n-th entry counts those of n. Entries behind
    /// [`MAX_GATHER`] stay 0.
    pub by_fragments: Box<[u64]>,
    /// Tokens that the queue handed back and that were not out: a fault of the driver, or what
    /// comes again with a reset after a callback of [`TxPort::reclaim`] has panicked.
    pub stray_tokens: u64,
}

#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) generation: u64,
    /// The frame's own buffer while it is posted.
    pub(crate) buffer: Option<FrameBuffer>,
    /// What it was lent, and by which ledger.
    pub(crate) holds: Holds,
    pub(crate) books: NonZeroUsize,
}

const TOO_LONG: NicError = NicError::Config {
    what: "no memory could hold the buffers",
};

/// A transmit queue with its ledger and its buffers: everything that a sender needs, all of it
/// safe.
///
/// A frame is made of a buffer of the port (its header, or all of it), with pieces of lent
/// regions behind: [`buffer`](Self::buffer), [`frame`](Self::frame),
/// [`attach`](FrameBuilder::attach), [`post`](FrameBuilder::post); then one
/// [`doorbell`](Self::doorbell) for many frames, and [`reclaim`](Self::reclaim) later.
///
/// Dropped while frames are out, it leaks what the device may still read, and says so in the
/// log: call [`release`](crate::release) first.
#[derive(Debug)]
pub struct TxPort<Q: TxQueue, M: DmaMemory> {
    pub(crate) queue: Q,
    pub(crate) ledger: Ledger,
    /// Of the device, at most 64.
    pub(crate) address_bits: u8,
    pub(crate) pool: Pool<M>,
    pub(crate) gather: GatherList,
    pub(crate) slots: Vec<Slot>,
    pub(crate) vacant_slots: Vec<u32>,
    /// The frame under construction.
    pub(crate) pending: Pending,
    /// The ledger that was found to be for this queue: the program may put another in its place.
    pub(crate) books: NonZeroUsize,
    pub(crate) counters: PortCounters,
    /// Set while the driver runs: still set afterwards if that unwound. The driver may then hand
    /// back a token once more, so none is given to another frame before a reset.
    pub(crate) interrupted: bool,
}

impl<Q: TxQueue, M: DmaMemory> TxPort<Q, M> {
    /// A port on `queue`, with buffers from `nic`, whose queue it is.
    ///
    /// # Errors
    /// What the platform said, or [`NicError::Config`] as [`with_memory`](Self::with_memory).
    pub fn new<N>(nic: &mut N, queue: Q, layout: &PoolLayout) -> Result<Self, NicError>
    where
        N: Nic<Tx = Q, Memory = M>,
    {
        let head_room = usize::from(queue.capabilities().head_room);
        let (small, large) = layout.bytes(head_room).ok_or(TOO_LONG)?;
        let align = |len: usize| {
            let whole = len.checked_next_power_of_two().unwrap_or(usize::MAX);
            layout.page.bytes().min(whole)
        };
        let small = nic.allocate(small.max(1), align(small))?;
        let large = nic.allocate(large.max(1), align(large))?;
        Self::with_memory(queue, layout, small, large)
    }

    /// A port on `queue`, with small and large buffers in memory of the queue's device, in which
    /// any bytes may stand. There are as many buffers as fit the memory, whatever the counts of
    /// `layout` say.
    ///
    /// # Errors
    /// [`NicError::Config`] if the memory belongs to another device or lies at addresses that this
    /// one cannot emit, if no memory could hold a
    /// buffer of `layout`, or if frames are out on the queue, whose tokens the port would take
    /// for its own.
    pub fn with_memory(
        queue: Q,
        layout: &PoolLayout,
        small: M,
        large: M,
    ) -> Result<Self, NicError> {
        let config = |what| Err(NicError::Config { what });
        if [small.domain(), large.domain()] != [queue.domain(); 2] {
            return config("the buffers belong to another device");
        }
        if queue.outstanding() != 0 {
            return config("frames are out on the queue that did not come from this port");
        }
        let capabilities = queue.capabilities();
        let address_bits = capabilities.dma_address_bits.min(64);
        let reached = |memory: &M| {
            let last = memory
                .address()
                .0
                .checked_add(memory.len().max(1) as u64 - 1);
            last.is_some_and(|last| last <= highest(address_bits))
        };
        if !reached(&small) || !reached(&large) {
            return config("the buffers lie at addresses beyond those that the device can emit");
        }
        let head_room = usize::from(capabilities.head_room);
        let pool = Pool::new(unique(), layout, head_room, small, large).ok_or(TOO_LONG)?;
        let max_fragments = usize::from(capabilities.max_fragments);
        let ledger = Ledger::new(queue.domain(), address_bits, layout.page);
        Ok(Self {
            gather: GatherList::new(max_fragments, capabilities.max_fragment_len),
            pending: Pending::default(),
            books: ledger.id,
            ledger,
            address_bits,
            queue,
            pool,
            slots: Vec::new(),
            vacant_slots: Vec::new(),
            counters: PortCounters {
                by_fragments: vec![0; MAX_GATHER + 1 + apart::spare::<u64>()].into_boxed_slice(),
                ..PortCounters::default()
            },
            interrupted: false,
        })
    }

    /// What the device can do.
    #[must_use]
    #[inline]
    pub fn capabilities(&self) -> &Capabilities {
        self.queue.capabilities()
    }

    /// Fragments that one frame may have here: the device's limit, or [`MAX_GATHER`].
    #[must_use]
    #[inline]
    pub fn max_fragments(&self) -> usize {
        usize::from(self.capabilities().max_fragments).min(MAX_GATHER)
    }

    /// The books.
    #[must_use]
    #[inline]
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The books, to register regions, to lend and to give back. Other books may be put in their
    /// place: what is out then leaks, and loans of books for another domain, or for more bits of an
    /// address than the device has, are refused.
    #[inline]
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// Takes a buffer of at least `len` bytes, a small one if there is one; `None` while there is
    /// none, and always for more bytes than the large ones have.
    #[inline(always)]
    pub fn buffer(&mut self, len: usize) -> Option<FrameBuffer> {
        self.pool.take(len)
    }

    /// Puts an unused buffer back. One of another port is lost to its pool.
    pub fn put_buffer(&mut self, buffer: FrameBuffer) {
        self.pool.put(buffer);
    }

    /// The bytes of a buffer: at least as many as were asked for. Their content is that of an
    /// earlier frame. Empty for a buffer of another port.
    #[inline]
    pub fn bytes_mut<'a>(&'a mut self, buffer: &'a mut FrameBuffer) -> &'a mut [u8] {
        self.pool.bytes_mut(buffer)
    }

    /// A buffer to write and the books to read at once: for copying lent bytes behind a header.
    #[inline]
    pub fn bytes_and_ledger<'a>(
        &'a mut self,
        buffer: &'a mut FrameBuffer,
    ) -> (&'a mut [u8], &'a Ledger) {
        (self.pool.bytes_mut(buffer), &self.ledger)
    }

    /// Buffers that are not in use: small ones, large ones.
    #[must_use]
    pub fn vacant_buffers(&self) -> (usize, usize) {
        self.pool.vacant()
    }

    /// Whether a frame of `fragments` fragments can be posted now, see [`TxQueue::has_room`].
    #[must_use]
    #[inline]
    pub fn has_room(&self, fragments: usize) -> bool {
        !self.interrupted && self.queue.has_room(fragments)
    }

    /// Begins a frame with the first `len` bytes of `buffer`, at least 1. Lent pieces are
    /// attached behind it; dropping the builder undoes everything. A buffer of another port is
    /// refused by [`post`](FrameBuilder::post), and lost to its pool.
    #[inline(always)]
    pub fn frame(&mut self, buffer: FrameBuffer, len: usize) -> FrameBuilder<'_, Q, M> {
        FrameBuilder::new(self, buffer, len)
    }

    /// Hands what was posted to the device. Once per burst.
    #[inline]
    pub fn doorbell(&mut self) {
        self.queue.doorbell();
    }

    /// Takes back what completed frames were lent, calls `done` for each frame, and returns how
    /// many there were. To be called after doorbells, and before buffers or room are short.
    ///
    /// # Errors
    /// See [`TxQueue::reclaim`]. What has not completed stays lent. If `done` has panicked, the
    /// port is [`QueueError::Down`] until a reset.
    #[inline(always)]
    pub fn reclaim(&mut self, done: &mut impl FnMut(FrameId)) -> Result<usize, QueueError> {
        if self.interrupted {
            return Err(QueueError::Down);
        }
        self.interrupted = true;
        let (queue, mut books) = self.split();
        let result = queue.reclaim(&mut |token| {
            if let Some(frame) = books.complete(token) {
                done(frame);
            }
        });
        self.interrupted = false;
        result
    }

    /// Whether the device may still read the frame, as far as [`reclaim`](Self::reclaim) has
    /// found out (rule 2: done is not acknowledged, and acknowledged is not done).
    #[must_use]
    #[inline]
    pub fn in_flight(&self, frame: FrameId) -> bool {
        self.slots
            .get(frame.slot as usize)
            .is_some_and(|slot| slot.generation == frame.generation && slot.buffer.is_some())
    }

    /// Frames that the device may still read.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.vacant_slots.len()
    }

    pub(crate) fn complete(&mut self, token: Token) -> Option<FrameId> {
        self.split().1.complete(token)
    }

    /// The index of a vacant slot, which is vacant no more.
    #[inline(always)]
    pub(crate) fn take_slot(&mut self) -> Result<u32, PortError> {
        if let Some(index) = self.vacant_slots.pop() {
            return Ok(index);
        }
        self.add_slot()
    }

    #[cold]
    #[inline(never)]
    fn add_slot(&mut self) -> Result<u32, PortError> {
        let index =
            u32::try_from(self.slots.len()).map_err(|_| PortError::Lend(LendError::TooMany))?;
        let slot = Slot {
            generation: 0,
            buffer: None,
            holds: Holds::default(),
            books: self.books,
        };
        apart::push(&mut self.slots, slot);
        // Completions then push without looking: it is empty now, and never has more than these.
        apart::make_room(&mut self.vacant_slots, self.slots.len());
        Ok(index)
    }

    /// Why the ledger, which may be another than before, lends what the queue's device does not
    /// reach.
    pub(crate) fn foreign_books(&self) -> Option<LendError> {
        if self.ledger.domain() != self.queue.domain() {
            Some(LendError::OtherDomain)
        } else if self.ledger.address_bits() > self.address_bits {
            Some(LendError::OutOfReach)
        } else {
            None
        }
    }

    /// The ledger is another than before: from now on it lends by the short way, or never.
    #[cold]
    #[inline(never)]
    pub(crate) fn check_books(&mut self) {
        if self.foreign_books().is_none() {
            self.books = self.ledger.id;
        } else {
            self.pending.books = 0;
        }
    }

    /// Takes back what the frame under construction has.
    #[cold]
    #[inline(never)]
    pub(crate) fn undo(&mut self) {
        if let Some(buffer) = self.pending.buffer.take() {
            // The port is borrowed since the first of them was lent: so the ledger is the same.
            self.ledger.let_go(&mut self.pending.holds);
            self.pool.put(buffer);
        }
    }

    #[inline(always)]
    fn split(&mut self) -> (&mut Q, Books<'_, M>) {
        let books = Books {
            ledger: &mut self.ledger,
            pool: &mut self.pool,
            slots: &mut self.slots,
            vacant_slots: &mut self.vacant_slots,
            counters: &mut self.counters,
        };
        (&mut self.queue, books)
    }

    /// The raw queue, to look at.
    #[must_use]
    pub const fn queue(&self) -> &Q {
        &self.queue
    }
}

/// The parts of a port that a completion changes, apart from the queue that reports it.
struct Books<'a, M: DmaMemory> {
    ledger: &'a mut Ledger,
    pool: &'a mut Pool<M>,
    slots: &'a mut Vec<Slot>,
    vacant_slots: &'a mut Vec<u32>,
    counters: &'a mut PortCounters,
}

impl<M: DmaMemory> Books<'_, M> {
    #[inline(always)]
    fn complete(&mut self, token: Token) -> Option<FrameId> {
        let slot = self.slots.get_mut(token.0 as usize);
        let Some((slot, buffer)) = slot.and_then(|s| s.buffer.take().map(|buffer| (s, buffer)))
        else {
            self.counters.stray_tokens += 1;
            return None;
        };
        let frame = FrameId {
            slot: token.0,
            generation: slot.generation,
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.pool.put(buffer);
        self.vacant_slots.push(token.0);
        if slot.books == self.ledger.id {
            self.ledger.let_go(&mut slot.holds);
        } else {
            slot.holds.strand(self.ledger);
        }
        Some(frame)
    }
}

impl<Q: TxQueue, M: DmaMemory> Drop for TxPort<Q, M> {
    fn drop(&mut self) {
        // A builder that was forgotten leaves loans and a buffer out, but the device never
        // heard of them: only posted frames count.
        let quiet = self.outstanding() == 0;
        // SAFETY: every frame that named the buffers has completed, or was taken back when the
        // device was quiet.
        unsafe { self.pool.set_quiet(quiet) };
    }
}

#[cfg(test)]
#[path = "port_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "port_abuse_tests.rs"]
mod abuse_tests;

#[cfg(test)]
#[path = "port_model_tests.rs"]
mod model_tests;
