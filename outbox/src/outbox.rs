//! Messages on their way.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{DmaMemory, Instant, Region, RegionId, TxQueue};
use pagewire_tcp::{ConnectionId, Stack};

use crate::completions::{Done, Notice, OutboxError};
use crate::files::{BUFFER, Counters, Files, Limits, MapFile};
use crate::handing::{hand_over, offer, take_completions};
use crate::line::Line;
use crate::message::Message;

/// What the connections of one [`Stack`] have to send. It hands over as much as there is room for, keeps
/// the place, and takes the stack's completions and released regions: nobody else is to take those.
pub struct Outbox<M: DmaMemory> {
    pub(crate) files: Files<M>,
    pub(crate) lines: HashMap<ConnectionId, Line>,
    /// Connections that have something to do, in turn.
    busy: VecDeque<ConnectionId>,
}

impl<M: DmaMemory> fmt::Debug for Outbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("connections", &self.lines.len())
            .field("counters", &self.files.counters)
            .finish_non_exhaustive()
    }
}

impl<M: DmaMemory> Outbox<M> {
    /// An outbox that makes files reachable by `map`, within `limits`. It wants buffers
    /// ([`add_buffer`](Self::add_buffer)) for texts.
    #[must_use]
    pub fn new(map: impl MapFile + Send + 'static, limits: Limits) -> Self {
        Self {
            files: Files::new(Box::new(map), limits),
            lines: HashMap::new(),
            busy: VecDeque::new(),
        }
    }

    /// Adds a buffer, for texts and for what is read of files: [`BUFFER`] bytes of memory that the device
    /// reaches, of the stack's device. Two for each connection are sensible: one that is being sent, and one
    /// that has not arrived. As long as there are as many as connections ([`Limits::connections`]), none waits
    /// for what another one holds; without any, texts wait for ever.
    pub fn add_buffer(&mut self, memory: M) {
        debug_assert!(memory.len() >= BUFFER, "a buffer is too short");
        self.files.add_buffer(memory);
    }

    /// Buffers that nobody has.
    #[must_use]
    pub fn free_buffers(&self) -> usize {
        self.files.free_buffers()
    }

    /// Puts a message behind all others of a connection. It is handed to the stack piece by piece, by
    /// [`poll`](Self::poll), and its end is told whatever happens.
    pub fn send(&mut self, id: ConnectionId, message: Message) {
        let line = self.lines.entry(id).or_default();
        line.add(message);
        mark_busy(&mut self.busy, line, id);
    }

    /// Messages of a connection of which not all is accepted by the stack: a program that makes them
    /// faster than they go waits for this to fall.
    #[must_use]
    pub fn waiting(&self, id: ConnectionId) -> usize {
        self.lines.get(&id).map_or(0, |line| line.waiting.len())
    }

    /// Connections that it knows: each of which something was sent or asked for, until it is
    /// [removed](Self::remove).
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lines.len()
    }

    /// Ends the sending direction of a connection behind all that waits.
    pub fn close<Q: TxQueue>(&mut self, stack: &mut Stack<Q, M>, now: Instant, id: ConnectionId) {
        match self.lines.get_mut(&id) {
            Some(line) if !line.waiting.is_empty() => {
                line.closing = true;
                mark_busy(&mut self.busy, line, id);
            }
            _ => stack.close(now, id),
        }
    }

    /// Aborts and removes a connection, from the stack too, and gives back all that was its own. To be
    /// called of each connection in the end, in place of [`Stack::remove`]. Returns what it has not been
    /// asked for, and what has become of messages that were not over; with another [`Notice`] than `Poll`
    /// that has gone there.
    pub fn remove<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        id: ConnectionId,
    ) -> Vec<Done> {
        stack.abort(now, id);
        let Some(mut line) = self.lines.remove(&id) else {
            stack.remove(now, id);
            return Vec::new();
        };
        take_completions(&mut self.files, &mut line, stack, now, id);
        stack.remove(now, id);
        self.files.give_up_all(stack, &mut line.claims);
        line.abandon(id);
        line.done.into()
    }

    /// Where a connection's [`Done`] goes from now on.
    pub fn notify(&mut self, id: ConnectionId, notice: Notice) {
        self.lines.entry(id).or_default().notice = notice;
    }

    /// The next message of a connection that is over, in their order, if it has [`Notice::Poll`].
    pub fn done(&mut self, id: ConnectionId) -> Option<Done> {
        self.lines.get_mut(&id)?.done.pop_front()
    }

    /// How long the oldest window or buffer of a connection has been held: a peer that does not
    /// acknowledge holds them until the program has had enough, and [removes](Self::remove) it.
    #[must_use]
    pub fn held(&self, now: Instant, id: ConnectionId) -> Duration {
        let line = self.lines.get(&id);
        line.map_or(Duration::ZERO, |line| line.claims.age(now))
    }

    /// A region of the program's own that was released, as
    /// [`Stack::take_released`](pagewire_tcp::Stack::take_released).
    pub fn take_released(&mut self) -> Option<(RegionId, Arc<dyn Region>)> {
        self.files.others.pop_front()
    }

    /// What was done with files.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.files.counters
    }

    /// Takes what is over, and hands over what there is room for; whether there was anything. To be
    /// called in each round before [`Stack::poll`], for what it hands over; and after it, before a program
    /// sleeps: what the device has done, and who does not answer any more, the stack finds out there.
    pub fn poll<Q: TxQueue>(&mut self, stack: &mut Stack<Q, M>, now: Instant) -> bool {
        let mut worked = self.files.collect(stack);
        // Another one first each time: what there is too little of goes round.
        if let Some(first) = self.busy.pop_front() {
            self.busy.push_back(first);
        }
        for _ in 0..self.busy.len() {
            let Some(id) = self.busy.pop_front() else {
                break;
            };
            let Some(line) = self.lines.get_mut(&id) else {
                continue;
            };
            worked |= take_completions(&mut self.files, line, stack, now, id);
            if stack.state(id).is_none() {
                // Removed behind our back.
                self.files.give_up_all(stack, &mut line.claims);
                worked |= line.abandon(id);
            }
            worked |= hand_over(&mut self.files, line, stack, now, id);
            line.is_busy = false;
            if line.has_work() {
                mark_busy(&mut self.busy, line, id);
            }
        }
        worked | self.files.collect(stack)
    }

    /// Hands over as much of `message` as there is room for, now.
    pub(crate) fn offer_now<Q: TxQueue>(
        &mut self,
        stack: &mut Stack<Q, M>,
        now: Instant,
        id: ConnectionId,
        message: &mut Message,
    ) -> Result<usize, OutboxError> {
        let line = self.lines.entry(id).or_default();
        if !line.waiting.is_empty() {
            return Ok(0);
        }
        let files = &mut self.files;
        // Its account is the last, though nothing of it waits. Its length is known at the end.
        line.open(message.tag, 0);
        let (pieces, options) = (&mut message.pieces, &message.options);
        let mut bytes = 0;
        let ended = loop {
            match offer(files, line, stack, (now, id), pieces, options) {
                Ok(0) => break Ok(bytes),
                Ok(accepted) => bytes += accepted,
                // What was accepted before stays accepted; the error comes again with the rest.
                Err(_) if bytes > 0 => break Ok(bytes),
                Err(error) => break Err(error),
            }
        };
        // A message that the program may drop holds nothing.
        for placed in pieces.iter_mut().filter_map(|piece| piece.placed.take()) {
            if bytes == 0 || !line.end_region(placed.region) {
                files.give_up(stack, placed.region, &mut line.claims);
            }
        }
        line.settle(id, bytes);
        if bytes > 0 {
            mark_busy(&mut self.busy, line, id);
        }
        ended
    }
}

fn mark_busy(busy: &mut VecDeque<ConnectionId>, line: &mut Line, id: ConnectionId) {
    if !std::mem::replace(&mut line.is_busy, true) {
        busy.push_back(id);
    }
}
