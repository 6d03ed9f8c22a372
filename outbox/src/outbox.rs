//! Messages on their way.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{DmaMemory, Instant, Region, RegionId, TxQueue};
use pagewire_tcp::{ConnectionId, SendError, SendOptions, Slice, Stack, State};

use crate::completions::{Done, Notice};
use crate::files::{BUFFER, Counters, Files, Limits, MapFile};
use crate::line::Line;
use crate::message::{Message, Piece};

/// Pieces of one call of `Stack::send`.
const MOST_PIECES: usize = 16;

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
    /// reaches. Of the two for each connection that are sensible, one is being sent and one has not arrived.
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

    /// Aborts and removes a connection, from the stack too, and gives back all that was its own. Returns
    /// what it has not been asked for, and what has become of messages that were not over.
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
    /// called in each round before [`Stack::poll`].
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
                line.abandon(id);
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
    ) -> Result<usize, SendError> {
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

/// Takes the stack's completions of one connection; whether there were any.
fn take_completions<Q: TxQueue, M: DmaMemory>(
    files: &mut Files<M>,
    line: &mut Line,
    stack: &mut Stack<Q, M>,
    now: Instant,
    id: ConnectionId,
) -> bool {
    let mut worked = false;
    while let Some((completion, explanation)) = stack.explained(now, id) {
        worked = true;
        for region in line.completed(id, &completion, explanation.as_ref()) {
            files.give_up(stack, region, &mut line.claims);
        }
    }
    worked
}

/// Hands over what waits; whether any of it was accepted, or refused for ever.
fn hand_over<Q: TxQueue, M: DmaMemory>(
    files: &mut Files<M>,
    line: &mut Line,
    stack: &mut Stack<Q, M>,
    now: Instant,
    id: ConnectionId,
) -> bool {
    let mut worked = false;
    while let Some(mut first) = line.waiting.pop_front() {
        let is_done = first.pieces.is_empty();
        let (pieces, options) = (&mut first.pieces, &first.options);
        let offered = match is_done {
            true => Ok(0),
            false => offer(files, line, stack, (now, id), pieces, options),
        };
        line.waiting.push_front(first);
        match offered {
            _ if is_done => line.finish(id),
            Ok(0) if accepts_data(stack, id) => return worked,
            Ok(0) => line.refuse_waiting(id, Some(SendError::Closed)),
            Ok(_) => {}
            Err(error) => {
                // The peer would take what comes next for the rest of this message.
                stack.abort(now, id);
                line.refuse_waiting(id, Some(error));
            }
        }
        worked = true;
    }
    if std::mem::take(&mut line.closing) {
        stack.close(now, id);
        worked = true;
    }
    worked
}

fn accepts_data<Q: TxQueue, M: DmaMemory>(stack: &Stack<Q, M>, id: ConnectionId) -> bool {
    use State::{CloseWait, Established, SynReceived, SynSent};
    let state = stack.state(id);
    matches!(state, Some(SynSent | SynReceived | Established | CloseWait))
}

/// Makes one call of `Stack::send` with the first pieces; returns how many bytes were accepted.
fn offer<Q: TxQueue, M: DmaMemory>(
    files: &mut Files<M>,
    line: &mut Line,
    stack: &mut Stack<Q, M>,
    (now, id): (Instant, ConnectionId),
    pieces: &mut VecDeque<Piece>,
    options: &SendOptions,
) -> Result<usize, SendError> {
    if pieces.is_empty() || stack.send_room(id) == 0 {
        return Ok(0);
    }
    let Some((slices, count)) = gather(files, line, stack, now, pieces) else {
        return Ok(0);
    };
    let slices = slices.get(..count).unwrap_or_default();
    let accepted = stack.send_with(now, id, slices, 0, options)?;
    if accepted == 0 {
        return Ok(0);
    }
    let mut used_up = Vec::new();
    let (mut left, mut read) = (accepted as u64, 0);
    while let Some(piece) = pieces.front_mut().filter(|_| left > 0) {
        let bytes = left.min(piece.rest());
        left -= bytes;
        read += if piece.placed.is_some_and(|placed| placed.read) {
            bytes
        } else {
            0
        };
        used_up.extend(piece.advance(bytes).map(|placed| placed.region));
        if piece.rest() > 0 {
            break;
        }
        pieces.pop_front();
    }
    line.accepted(accepted, used_up, read);
    Ok(accepted)
}

/// The first pieces as slices, and how many: up to where one is not reachable whole. `None`: there is no
/// room even for the first.
fn gather<Q: TxQueue, M: DmaMemory>(
    files: &mut Files<M>,
    line: &mut Line,
    stack: &mut Stack<Q, M>,
    now: Instant,
    pieces: &mut VecDeque<Piece>,
) -> Option<([Slice; MOST_PIECES], usize)> {
    let mut gathered: Option<[Slice; MOST_PIECES]> = None;
    let mut count = 0;
    for piece in pieces.iter_mut().take(MOST_PIECES) {
        let placed = files.place(stack, now, piece, &mut line.claims);
        let Some(slice) = placed.ok().and_then(|()| piece.slice()) else {
            break;
        };
        let slices = gathered.get_or_insert([slice; MOST_PIECES]);
        if let Some(place) = slices.get_mut(count) {
            *place = slice;
        }
        count += 1;
        if (slice.len as u64) < piece.rest() {
            break;
        }
    }
    gathered.map(|slices| (slices, count))
}
