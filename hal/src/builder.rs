//! A frame on its way into the ring of a port.

use core::ptr::NonNull;

use crate::ledger_hold::HoldError;
use crate::{
    DmaMemory, FrameBuffer, FrameId, LendError, Loan, Offload, PortError, PostError, Token,
    TxFrame, TxPort, TxQueue,
};

/// A frame under construction: a header in a buffer of the port, lent pieces behind it.
#[derive(Debug)]
#[must_use = "a frame that is not posted is undone"]
pub struct FrameBuilder<'a, Q: TxQueue, M: DmaMemory> {
    port: &'a mut TxPort<Q, M>,
    buffer: Option<FrameBuffer>,
    first: Option<NonNull<u8>>,
    buffer_bytes: u64,
    shared_bytes: u64,
    failed: Option<PortError>,
}

impl<'a, Q: TxQueue, M: DmaMemory> FrameBuilder<'a, Q, M> {
    #[inline]
    pub(crate) fn new(port: &'a mut TxPort<Q, M>, buffer: FrameBuffer, len: usize) -> Self {
        port.gather.clear();
        port.pending.forget();
        let run = port.pool.run(&buffer, len);
        let failed = match run {
            _ if len == 0 => Some(PortError::Lend(LendError::Empty)),
            None => Some(PortError::Lend(LendError::OutOfRange)),
            Some((run, _)) => port
                .gather
                .push(run)
                .err()
                .map(|_| PortError::TooManyPieces),
        };
        Self {
            port,
            buffer: Some(buffer),
            first: run.map(|(_, pointer)| pointer),
            buffer_bytes: len as u64,
            shared_bytes: 0,
            failed,
        }
    }

    /// Attaches `len` bytes, at least 1, from offset `start` of the region of `loan`: lends them
    /// to the device as well, and adds their pieces to the gather list. An error is reported by
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
        let port = &mut *self.port;
        if port.ledger.id != port.books {
            port.check_books().map_err(PortError::Lend)?;
        }
        let lists = (&mut port.pending, &mut port.gather);
        let held = port.ledger.hold(loan, start, len, lists);
        self.shared_bytes += len as u64;
        held.map_err(|error| match error {
            HoldError::Lend(error) => PortError::Lend(error),
            HoldError::Full => PortError::TooManyPieces,
        })
    }

    /// Pieces so far, those of the buffer included.
    #[must_use]
    #[inline]
    pub fn fragments(&self) -> usize {
        self.port.gather.as_slice().len()
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
        if self.port.interrupted {
            return Err(PortError::Post(PostError::Down));
        }
        let index = self.port.take_slot()?;
        let port = &mut *self.port;
        let Some(slot) = port.slots.get_mut(index as usize) else {
            return Err(PortError::Lend(LendError::TooMany));
        };
        // The slot has them before the driver runs: if that unwinds, they stay out.
        slot.buffer = self.buffer.take();
        slot.books = port.books;
        port.pending.move_to(&mut slot.holds);
        let frame = TxFrame {
            fragments: port.gather.as_slice(),
            offload,
            first: self.first,
        };
        let fragments = frame.fragments.len();
        port.interrupted = true;
        // SAFETY: the fragments are the port's own buffer, which stays out of the pool, and
        // bytes of regions of the queue's domain (`try_attach` and `Ledger::register` checked
        // it) that are lent until the token comes back: `Region` promises that they stay mapped
        // and constant that long. The head room is in the buffer's slot. Whatever happens to the
        // port, neither is freed before: its drop leaks them.
        let posted = unsafe { port.queue.post(&frame, Token(index)) };
        port.interrupted = false;
        if let Err(error) = posted {
            self.buffer = slot.buffer.take();
            slot.holds.move_to(&mut port.pending);
            port.vacant_slots.push(index);
            return Err(PortError::Post(error));
        }
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
}

impl<Q: TxQueue, M: DmaMemory> Drop for FrameBuilder<'_, Q, M> {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            let TxPort {
                ledger,
                pending,
                pool,
                ..
            } = &mut *self.port;
            // The port is borrowed since the first of them was lent: so the ledger is the same.
            ledger.let_go(pending);
            pool.put(buffer);
        }
    }
}
