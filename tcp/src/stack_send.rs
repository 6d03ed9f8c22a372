//! What a program sends: lent or copied, and moved when somebody wants to write over it.

use pagewire_hal::{CopyPool, DmaMemory, Granule, Instant, LendError, TxQueue};

use crate::lending::{Explanation, Lender, SendOptions};
use crate::send_buffer::{Completion, NewCall, Slice};
use crate::stack::{ConnectionId, Stack, find};
use crate::stack_config::SendError;

impl<Q: TxQueue, M: DmaMemory> Stack<Q, M> {
    /// Gives the stack memory for what is copied instead of lent, in slots of `slot`, at least the
    /// page of the port. Without it all is lent, or `send` fails. All connections share it: while it
    /// is full, or one has as much of it as it may
    /// ([`StackConfig::copy_limit`](crate::StackConfig::copy_limit)), [`send`](Self::send) may
    /// accept less than [`send_room`](Self::send_room) names, or nothing; try again after each
    /// poll. A pool that it had before
    /// goes on until the last of its bytes is acknowledged, and comes back by
    /// [`take_released`](Self::take_released).
    ///
    /// # Errors
    /// As [`CopyPool::new`](pagewire_hal::CopyPool::new).
    pub fn set_copy_pool(&mut self, memory: M, slot: Granule) -> Result<(), LendError> {
        let pool = CopyPool::new(memory, slot, self.port.ledger_mut())?;
        if let Some(old) = self.pool.replace(pool) {
            self.port.ledger_mut().release(old.region())?;
        }
        Ok(())
    }

    /// The memory for what is copied, to see how full it is.
    #[must_use]
    pub const fn copy_pool(&self) -> Option<&CopyPool<M>> {
        self.pool.as_ref()
    }

    /// Borrows as many bytes of `slices` as there is room for, in their order, and returns how
    /// many: the program goes on from there, with the rest. A [`Completion`] with `tag` comes
    /// when all that was accepted is acknowledged by the peer and no longer read by the device.
    ///
    /// The slices may have any length and alignment, and be of regions of any kind, mixed. 0 means
    /// that there is no room now, or that all slices are empty; no completion comes then.
    ///
    /// # Errors
    /// [`SendError`]; nothing has been accepted.
    pub fn send(
        &mut self,
        id: ConnectionId,
        slices: &[Slice],
        tag: u64,
    ) -> Result<usize, SendError> {
        self.send_with(Instant::ZERO, id, slices, tag, &SendOptions::default())
    }

    /// As [`send`](Self::send), and says what is to be copied, what becomes of bytes that somebody
    /// wants to write over, and whether the call is to be explained. `now` is for that alone.
    ///
    /// # Errors
    /// [`SendError`]; nothing has been accepted.
    pub fn send_with(
        &mut self,
        now: Instant,
        id: ConnectionId,
        slices: &[Slice],
        tag: u64,
        options: &SendOptions,
    ) -> Result<usize, SendError> {
        let limit = self.config.send_limit;
        let connection = find(&mut self.places, id).ok_or(SendError::UnknownConnection)?;
        if !connection.accepts_data() {
            return Err(SendError::Closed);
        }
        let room = self
            .config
            .pin_limit
            .saturating_sub(connection.buffer.lent());
        let copier = match &mut self.pool {
            Some(pool) => {
                let limit = self.config.copy_limit;
                Some(self.shares.copier(pool, connection.noted, limit))
            }
            None => None,
        };
        let lender = Lender {
            ledger: self.port.ledger_mut(),
            copier,
            thresholds: self.config.thresholds,
            rule: options.copy,
            room,
        };
        let call = NewCall {
            now,
            tag,
            limit,
            options,
        };
        let accepted = connection
            .send(lender, slices, call)
            .map_err(SendError::Lend)?;
        let held = connection.buffer.held();
        self.shares.note(&mut connection.noted, held);
        self.enqueue(id.index);
        Ok(accepted)
    }

    /// The next call of [`send`](Self::send) on a connection that is over, in their order. Also
    /// after the connection has ended, until it is removed.
    pub fn completion(&mut self, now: Instant, id: ConnectionId) -> Option<Completion> {
        self.explained(now, id).map(|(completion, _)| completion)
    }

    /// As [`completion`](Self::completion), with an account of the call if it asked for one
    /// ([`SendOptions::explain`]).
    pub fn explained(
        &mut self,
        now: Instant,
        id: ConnectionId,
    ) -> Option<(Completion, Option<Explanation>)> {
        find(&mut self.places, id)?.completion(now, &self.port)
    }

    /// Bytes of the program that a connection has lent, and that are not acknowledged.
    #[must_use]
    pub fn lent_bytes(&self, id: ConnectionId) -> usize {
        self.get(id)
            .map_or(0, |connection| connection.buffer.lent())
    }

    /// Moves bytes that somebody waits to write over to the copy pool, where their calls wanted
    /// that. What finds no room there is looked at again at the next poll.
    pub(crate) fn move_wanted_away(&mut self) {
        let Some(pool) = self.pool.as_mut().filter(|_| self.shares.may_move()) else {
            return;
        };
        let wanted = &mut self.wanted;
        wanted.clear();
        self.port
            .ledger()
            .wanted(&mut |region, range| wanted.push((region, range)));
        for (region, range) in wanted.iter() {
            let all = self.places.iter_mut().filter_map(|p| p.connection.as_mut());
            for connection in all.filter(|connection| connection.noted.moves) {
                let ledger = self.port.ledger_mut();
                let limit = self.config.copy_limit;
                let mut copier = self.shares.copier(pool, connection.noted, limit);
                let buffer = &mut connection.buffer;
                let moved = buffer.move_away(ledger, &mut copier, *region, range);
                connection.stats.copied_early.written += moved as u64;
                self.shares.note(&mut connection.noted, buffer.held());
            }
        }
    }
}
