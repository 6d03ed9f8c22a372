//! The safe layer above a transmit queue: buffers of its own, loans of the program's regions,
//! and the books that keep both until the device is done.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use crate::address::unique;
use crate::pool::Pool;
use crate::{
    Capabilities, DmaMemory, FrameBuffer, GatherList, Ledger, LendError, Loan, MAX_GATHER, Nic,
    NicError, Offload, PoolLayout, PostError, QueueError, QueuePair, Run, Token, TxFrame, TxQueue,
};

/// Names a posted frame; never names another one later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FrameId {
    slot: u32,
    generation: u32,
}

/// Why a frame was not posted. Its loans have been given back, its buffer is in the pool again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortError {
    /// More pieces than one frame may gather.
    TooManyPieces,
    /// The part of the buffer, or of the loan, that was named does not exist.
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
    /// Frames by number of fragments: the n-th entry counts those of n.
    pub by_fragments: Box<[u64]>,
    /// Tokens that the queue handed back and that were not out: a fault of the driver.
    pub stray_tokens: u64,
}

const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// The frame's own buffer while it is posted.
    buffer: Option<FrameBuffer>,
    /// First of its loans in `lent`, or `NONE`.
    loans: u32,
}

#[derive(Debug)]
struct Lent {
    loan: Option<Loan>,
    next: u32,
}

/// A transmit queue with its ledger and its buffers: everything that a sender needs, all of it
/// safe.
///
/// Dropped while frames are out, it leaks what the device may still read, and says so.
#[derive(Debug)]
pub struct TxPort<Q: TxQueue, M: DmaMemory> {
    queue: Q,
    ledger: Ledger,
    pool: Pool<M>,
    gather: GatherList,
    slots: Vec<Slot>,
    vacant_slots: Vec<u32>,
    lent: Vec<Lent>,
    vacant_lent: u32,
    counters: PortCounters,
}

impl<Q: TxQueue, M: DmaMemory> TxPort<Q, M> {
    /// A port on `queue`, with buffers from `nic`, whose queue it is.
    ///
    /// # Errors
    /// What the platform said, or [`NicError::Config`] if queue and device do not belong
    /// together.
    pub fn new<N>(nic: &mut N, queue: Q, layout: &PoolLayout) -> Result<Self, NicError>
    where
        N: Nic<Tx = Q, Memory = M>,
    {
        let (small, large) = layout.bytes(usize::from(queue.capabilities().head_room));
        let small = nic.allocate(
            small.max(1),
            layout.page.bytes().min(small.next_power_of_two()),
        )?;
        let large = nic.allocate(
            large.max(1),
            layout.page.bytes().min(large.next_power_of_two()),
        )?;
        Self::with_memory(queue, layout, small, large)
    }

    /// A port on `queue`, with small and large buffers in memory of the queue's device. There
    /// are as many buffers as fit the memory.
    ///
    /// # Errors
    /// [`NicError::Config`] if the memory belongs to another device.
    pub fn with_memory(
        queue: Q,
        layout: &PoolLayout,
        small: M,
        large: M,
    ) -> Result<Self, NicError> {
        let capabilities = queue.capabilities();
        let head_room = usize::from(capabilities.head_room);
        let mut pool = Pool::new(unique(), layout, head_room, small, large);
        if pool.domains() != [queue.domain(); 2] {
            // SAFETY: the device has not been told of this memory.
            unsafe { pool.set_quiet(true) };
            return Err(NicError::Config {
                what: "the buffers belong to another device",
            });
        }
        let max_fragments = usize::from(capabilities.max_fragments);
        Ok(Self {
            gather: GatherList::new(max_fragments, capabilities.max_fragment_len),
            ledger: Ledger::new(queue.domain(), layout.page),
            queue,
            pool,
            slots: Vec::new(),
            vacant_slots: Vec::new(),
            lent: Vec::new(),
            vacant_lent: NONE,
            counters: PortCounters {
                by_fragments: vec![0; MAX_GATHER + 1].into_boxed_slice(),
                ..PortCounters::default()
            },
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

    /// The books, to register regions, to lend and to give back.
    #[inline]
    pub const fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> &PortCounters {
        &self.counters
    }

    /// Takes a buffer of at least `len` bytes; `None` while there is none.
    #[inline]
    pub fn buffer(&mut self, len: usize) -> Option<FrameBuffer> {
        self.pool.take(len)
    }

    /// Puts an unused buffer back.
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

    /// Whether a frame of `fragments` fragments can be posted now.
    #[must_use]
    #[inline]
    pub fn has_room(&self, fragments: usize) -> bool {
        self.queue.has_room(fragments)
    }

    /// Begins a frame with the first `len` bytes of `buffer`. Lent pieces are attached behind
    /// it; dropping the builder undoes everything.
    #[inline]
    pub fn frame(&mut self, buffer: FrameBuffer, len: usize) -> FrameBuilder<'_, Q, M> {
        self.gather.clear();
        let first = self.pool.run(&buffer, len).filter(|_| len > 0);
        let failed = match first {
            Some((run, _)) => self
                .gather
                .push(run)
                .err()
                .map(|_| PortError::TooManyPieces),
            None => Some(PortError::Lend(LendError::OutOfRange)),
        };
        FrameBuilder {
            port: self,
            buffer: Some(buffer),
            first: first.map(|(_, pointer)| pointer),
            loans: NONE,
            buffer_bytes: len as u64,
            shared_bytes: 0,
            failed,
        }
    }

    /// Hands what was posted to the device. Once per burst.
    #[inline]
    pub fn doorbell(&mut self) {
        self.queue.doorbell();
    }

    /// Takes back what completed frames were lent, calls `done` for each frame, and returns how
    /// many there were.
    ///
    /// # Errors
    /// See [`TxQueue::reclaim`]. What has not completed stays lent.
    #[inline]
    pub fn reclaim(&mut self, done: &mut impl FnMut(FrameId)) -> Result<usize, QueueError> {
        let Self {
            queue,
            ledger,
            pool,
            slots,
            vacant_slots,
            lent,
            vacant_lent,
            counters,
            ..
        } = self;
        let mut books = Books {
            ledger,
            pool,
            slots,
            vacant_slots,
            lent,
            vacant_lent,
            counters,
        };
        queue.reclaim(&mut |token| {
            if let Some(frame) = books.complete(token) {
                done(frame);
            }
        })
    }

    /// Whether the device may still read the frame (rule 2: done is not acknowledged, and
    /// acknowledged is not done).
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

    fn complete(&mut self, token: Token) -> Option<FrameId> {
        let Self {
            ledger,
            pool,
            slots,
            vacant_slots,
            lent,
            vacant_lent,
            counters,
            ..
        } = self;
        Books {
            ledger,
            pool,
            slots,
            vacant_slots,
            lent,
            vacant_lent,
            counters,
        }
        .complete(token)
    }

    /// The raw queue, to look at.
    #[must_use]
    pub const fn queue(&self) -> &Q {
        &self.queue
    }
}

/// A port and the receive queue of the same pair, lent for a reset.
#[derive(Debug)]
pub struct PortPair<'a, N: Nic> {
    /// The port on the transmit queue.
    pub tx: &'a mut TxPort<N::Tx, N::Memory>,
    /// The receive queue.
    pub rx: &'a mut N::Rx,
}

/// [`Nic::restart`] for queues that are in ports: all frames that had not completed are taken
/// back, then the device starts again.
///
/// # Errors
/// As there.
pub fn restart<N: Nic>(nic: &mut N, pairs: &mut [PortPair<'_, N>]) -> Result<(), NicError> {
    with_queues(nic, pairs, N::restart)
}

/// [`Nic::release`] for queues that are in ports: all frames that had not completed are taken
/// back, the device stays stopped.
///
/// # Errors
/// As there.
pub fn release<N: Nic>(nic: &mut N, pairs: &mut [PortPair<'_, N>]) -> Result<(), NicError> {
    with_queues(nic, pairs, N::release)
}

type ResetCall<N> = fn(
    &mut N,
    &mut [QueuePair<'_, <N as Nic>::Tx, <N as Nic>::Rx>],
    &mut dyn FnMut(u16, Token),
) -> Result<(), NicError>;

fn with_queues<N: Nic>(
    nic: &mut N,
    pairs: &mut [PortPair<'_, N>],
    call: ResetCall<N>,
) -> Result<(), NicError> {
    let mut tokens = Vec::new();
    let result = {
        let mut queues: Vec<_> = pairs
            .iter_mut()
            .map(|p| QueuePair {
                tx: &mut p.tx.queue,
                rx: &mut *p.rx,
            })
            .collect();
        call(nic, &mut queues, &mut |index, token| {
            tokens.push((index, token))
        })
    };
    for (index, token) in tokens {
        if let Some(pair) = pairs.get_mut(usize::from(index)) {
            pair.tx.complete(token);
        }
    }
    result
}

/// The parts of a port that a completion changes, apart from the queue that reports it.
struct Books<'a, M: DmaMemory> {
    ledger: &'a mut Ledger,
    pool: &'a mut Pool<M>,
    slots: &'a mut Vec<Slot>,
    vacant_slots: &'a mut Vec<u32>,
    lent: &'a mut Vec<Lent>,
    vacant_lent: &'a mut u32,
    counters: &'a mut PortCounters,
}

impl<M: DmaMemory> Books<'_, M> {
    #[inline]
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
        let loans = core::mem::replace(&mut slot.loans, NONE);
        self.pool.put(buffer);
        self.vacant_slots.push(token.0);
        give_back(self.ledger, self.lent, self.vacant_lent, loans);
        Some(frame)
    }
}

/// Gives back a chain of loans, and their places in `lent`.
#[inline]
fn give_back(ledger: &mut Ledger, lent: &mut [Lent], vacant: &mut u32, first: u32) {
    let mut index = first;
    while let Some(place) = lent.get_mut(index as usize) {
        let next = core::mem::replace(&mut place.next, *vacant);
        *vacant = index;
        if let Some(loan) = place.loan.take() {
            ledger.give_back(loan);
        }
        index = next;
    }
}

/// A frame under construction: a header in a buffer of the port, lent pieces behind it.
#[derive(Debug)]
#[must_use = "a frame that is not posted is undone"]
pub struct FrameBuilder<'a, Q: TxQueue, M: DmaMemory> {
    port: &'a mut TxPort<Q, M>,
    buffer: Option<FrameBuffer>,
    first: Option<NonNull<u8>>,
    loans: u32,
    buffer_bytes: u64,
    shared_bytes: u64,
    failed: Option<PortError>,
}

impl<Q: TxQueue, M: DmaMemory> FrameBuilder<'_, Q, M> {
    /// Attaches `len` bytes from offset `start` of the region of `loan`: lends them to the
    /// device as well, and adds their pieces to the gather list. An error is reported by
    /// [`post`](Self::post).
    #[inline]
    pub fn attach(&mut self, loan: &Loan, start: usize, len: usize) -> &mut Self {
        if self.failed.is_none()
            && let Err(error) = self.try_attach(loan, start, len)
        {
            self.failed = Some(error);
        }
        self
    }

    #[inline]
    fn try_attach(&mut self, loan: &Loan, start: usize, len: usize) -> Result<(), PortError> {
        let TxPort {
            ledger,
            gather,
            lent,
            vacant_lent,
            ..
        } = &mut *self.port;
        let second = ledger
            .lend_again(loan, start, len)
            .map_err(PortError::Lend)?;
        let runs = ledger.runs(&second, start, len);
        let mut translated = 0;
        let mut full = false;
        for run in runs.into_iter().flatten() {
            let Run { len, .. } = run;
            translated += len;
            full |= gather.push(run).is_err();
        }
        let index = *vacant_lent;
        match lent.get_mut(index as usize) {
            Some(place) => {
                *vacant_lent = place.next;
                *place = Lent {
                    loan: Some(second),
                    next: self.loans,
                };
                self.loans = index;
            }
            None => {
                let Some(index) = u32::try_from(lent.len())
                    .ok()
                    .filter(|index| *index != NONE)
                else {
                    ledger.give_back(second);
                    return Err(PortError::Lend(LendError::TooMany));
                };
                lent.push(Lent {
                    loan: Some(second),
                    next: self.loans,
                });
                self.loans = index;
            }
        }
        self.shared_bytes += len as u64;
        if full {
            return Err(PortError::TooManyPieces);
        }
        // A translation that ends early would put other bytes on the wire.
        if translated != len {
            return Err(PortError::Lend(LendError::OutOfRange));
        }
        Ok(())
    }

    /// Posts the frame: wholly, or not at all. The device sees it with the next
    /// [`doorbell`](TxPort::doorbell).
    ///
    /// # Errors
    /// [`PortError`]; everything is as before, the buffer is back in the pool.
    #[inline]
    pub fn post(mut self, offload: Offload) -> Result<FrameId, PortError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let port = &mut *self.port;
        let vacant = port.vacant_slots.pop();
        let index = match vacant {
            Some(index) => index,
            None => {
                let index = u32::try_from(port.slots.len())
                    .map_err(|_| PortError::Lend(LendError::TooMany))?;
                port.slots.push(Slot {
                    generation: 0,
                    buffer: None,
                    loans: NONE,
                });
                index
            }
        };
        let frame = TxFrame {
            fragments: port.gather.as_slice(),
            offload,
            first: self.first,
        };
        let fragments = frame.fragments.len();
        // SAFETY: the fragments are the port's own buffer, which stays out of the pool, and
        // bytes of regions of the queue's domain (`Ledger::register` checked it) that are lent
        // until the token comes back: `Region` promises that they stay mapped and constant that
        // long. Whatever happens to the port, neither is freed before: its drop leaks them.
        let posted = unsafe { port.queue.post(&frame, Token(index)) };
        let Some(slot) = port.slots.get_mut(index as usize) else {
            return Err(PortError::Lend(LendError::TooMany));
        };
        match posted {
            Ok(()) => {
                slot.buffer = self.buffer.take();
                slot.loans = core::mem::replace(&mut self.loans, NONE);
                port.counters.frames += 1;
                port.counters.shared_bytes += self.shared_bytes;
                port.counters.buffer_bytes += self.buffer_bytes;
                if let Some(count) = port.counters.by_fragments.get_mut(fragments) {
                    *count += 1;
                }
                Ok(FrameId {
                    slot: index,
                    generation: slot.generation,
                })
            }
            Err(error) => {
                port.vacant_slots.push(index);
                Err(PortError::Post(error))
            }
        }
    }
}

impl<Q: TxQueue, M: DmaMemory> Drop for FrameBuilder<'_, Q, M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let TxPort {
                ledger,
                lent,
                vacant_lent,
                pool,
                ..
            } = &mut *self.port;
            give_back(ledger, lent, vacant_lent, self.loans);
            pool.put(buffer);
        }
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
