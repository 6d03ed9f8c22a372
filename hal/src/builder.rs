//! A frame on its way into the ring of a port.

use core::ptr::NonNull;

use crate::ledger_hold::{HoldError, Holds};
use crate::{
    DmaMemory, FrameBuffer, FrameId, LendError, Loan, Offload, PortError, PostError, Token,
    TxFrame, TxPort, TxQueue,
};

/// A frame under construction: a header in a buffer of the port, lent pieces behind it.
#[derive(Debug)]
#[must_use = "a frame that is not posted is undone"]
pub struct FrameBuilder<'a, Q: TxQueue, M: DmaMemory> {
    port: &'a mut TxPort<Q, M>,
    /// The first byte, for the CPU.
    first: Option<NonNull<u8>>,
}

/// The one frame under construction of a port.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// The ledger that lends to it without being looked at again; 0 if it has failed.
    pub(crate) books: usize,
    pub(crate) buffer: Option<FrameBuffer>,
    pub(crate) holds: Holds,
    buffer_bytes: u32,
    failed: Option<PortError>,
}

impl Pending {
    #[cold]
    #[inline(never)]
    fn fail(&mut self, error: PortError) {
        self.books = 0;
        self.failed.get_or_insert(error);
    }
}

impl<'a, Q: TxQueue, M: DmaMemory> FrameBuilder<'a, Q, M> {
    #[inline(always)]
    pub(crate) fn new(port: &'a mut TxPort<Q, M>, buffer: FrameBuffer, len: usize) -> Self {
        let run = port.pool.run(&buffer, len);
        let pending = &mut port.pending;
        // Those of a frame that was forgotten leak.
        pending.holds.forget();
        pending.buffer = Some(buffer);
        pending.failed = None;
        pending.books = port.ledger.id.get();
        port.gather.clear();
        if port.ledger.id != port.books {
            port.check_books();
        }
        let Some((run, pointer)) = run.filter(|_| len > 0) else {
            port.pending.fail(PortError::Lend(match len {
                0 => LendError::Empty,
                _ => LendError::OutOfRange,
            }));
            return Self { port, first: None };
        };
        port.pending.buffer_bytes = run.len as u32;
        if port.gather.push(run).is_err() {
            port.pending.fail(PortError::TooManyPieces);
        }
        let first = Some(pointer);
        Self { port, first }
    }

    /// Attaches `len` bytes, at least 1, from offset `start` of the region of `loan`: lends them
    /// to the device as well, and adds their pieces to the gather list. An error is reported by
    /// [`post`](Self::post).
    #[inline(always)]
    pub fn attach(&mut self, loan: &Loan, start: usize, len: usize) -> &mut Self {
        let TxPort {
            ledger,
            pending,
            gather,
            ..
        } = &mut *self.port;
        if pending.books == loan.ledger.get()
            && let Some((hold, run)) = ledger.hold_one(loan, start, len)
        {
            pending.holds.push(hold);
            if gather.push(run).is_err() {
                pending.fail(PortError::TooManyPieces);
            }
        } else {
            self.attach_slowly(loan, start, len);
        }
        self
    }

    #[cold]
    #[inline(never)]
    fn attach_slowly(&mut self, loan: &Loan, start: usize, len: usize) {
        let port = &mut *self.port;
        if port.pending.failed.is_some() {
            return;
        }
        let foreign = port.foreign_books();
        let lists = (&mut port.pending.holds, &mut port.gather);
        let held = match foreign {
            Some(error) => Err(HoldError::Lend(error)),
            None => port.ledger.hold_slowly(loan, start, len, lists),
        };
        match held {
            Ok(()) => {}
            Err(HoldError::Lend(error)) => port.pending.fail(PortError::Lend(error)),
            Err(HoldError::Full) => port.pending.fail(PortError::TooManyPieces),
        }
    }

    /// Pieces so far, those of the buffer included.
    #[must_use]
    #[inline(always)]
    pub fn fragments(&self) -> usize {
        self.port.gather.len()
    }

    /// Posts the frame: wholly, or not at all. The device sees it with the next
    /// [`doorbell`](TxPort::doorbell).
    ///
    /// # Errors
    /// [`PortError`]; everything is as before, the buffer is back in the pool.
    #[inline(always)]
    pub fn post(self, offload: Offload) -> Result<FrameId, PortError> {
        let port = &mut *self.port;
        if let Some(error) = port.pending.failed {
            return Err(error);
        }
        if port.interrupted {
            return Err(PortError::Post(PostError::Down));
        }
        let index = port.take_slot()?;
        let Some(slot) = port.slots.get_mut(index as usize) else {
            return Err(PortError::Lend(LendError::TooMany));
        };
        let (pending, gather) = (&mut port.pending, &port.gather);
        // The slot has them before the driver runs: if that unwinds, they stay out.
        slot.buffer = pending.buffer.take();
        slot.books = port.ledger.id;
        pending.holds.move_to(&mut slot.holds);
        let frame = TxFrame {
            fragments: gather.as_slice(),
            offload,
            first: self.first,
        };
        port.interrupted = true;
        // SAFETY: the fragments are the port's own buffer, which stays out of the pool, and
        // bytes of regions of the queue's domain (`check_books` and `Ledger::register` checked
        // it) that are lent until the token comes back: `Region` promises that they stay mapped
        // and constant that long. The head room is in the buffer's slot. Whatever happens to the
        // port, neither is freed before: its drop leaks them.
        let posted = unsafe { port.queue.post(&frame, Token(index)) };
        port.interrupted = false;
        if let Err(error) = posted {
            pending.buffer = slot.buffer.take();
            slot.holds.move_to(&mut pending.holds);
            port.vacant_slots.push(index);
            return Err(PortError::Post(error));
        }
        let header = u64::from(pending.buffer_bytes);
        port.counters.frames += 1;
        port.counters.shared_bytes += gather.bytes() - header;
        port.counters.buffer_bytes += header;
        if let Some(count) = port.counters.by_fragments.get_mut(gather.len()) {
            *count += 1;
        }
        let frame = FrameId {
            slot: index,
            generation: slot.generation,
        };
        // There is nothing to be undone.
        core::mem::forget(self);
        Ok(frame)
    }
}

impl<Q: TxQueue, M: DmaMemory> Drop for FrameBuilder<'_, Q, M> {
    #[inline(always)]
    fn drop(&mut self) {
        self.port.undo();
    }
}
