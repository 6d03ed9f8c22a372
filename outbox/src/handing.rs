//! How messages get from a line to the stack, and what comes back.

use std::collections::VecDeque;

use pagewire_hal::{DmaMemory, Instant, LendError, TxQueue};
use pagewire_tcp::{ConnectionId, SendError, SendOptions, Slice, Stack, State};

use crate::completions::OutboxError;
use crate::files::{COPIED_BEFORE_RETRY, Files, Obstacle};
use crate::line::Line;
use crate::message::{Piece, Source};

/// Pieces of one call of `Stack::send`.
const MOST_PIECES: usize = 16;

/// Takes the stack's completions of one connection; whether there were any.
pub(crate) fn take_completions<Q: TxQueue, M: DmaMemory>(
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
pub(crate) fn hand_over<Q: TxQueue, M: DmaMemory>(
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
            Ok(0) => refuse(files, line, stack, id, SendError::Closed.into()),
            Ok(_) => {}
            Err(error) => {
                // The peer would take what comes next for the rest of this message.
                stack.abort(now, id);
                refuse(files, line, stack, id, error);
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

/// What waits will never be accepted.
fn refuse<Q: TxQueue, M: DmaMemory>(
    files: &mut Files<M>,
    line: &mut Line,
    stack: &mut Stack<Q, M>,
    id: ConnectionId,
    error: OutboxError,
) {
    for waiting in &mut line.waiting {
        let placed = waiting.pieces.iter_mut().filter_map(|p| p.placed.take());
        for placed in placed {
            files.give_up(stack, placed.region, &mut line.claims);
        }
    }
    line.refuse_waiting(id, error);
}

fn accepts_data<Q: TxQueue, M: DmaMemory>(stack: &Stack<Q, M>, id: ConnectionId) -> bool {
    use State::{CloseWait, Established, SynReceived, SynSent};
    let state = stack.state(id);
    matches!(state, Some(SynSent | SynReceived | Established | CloseWait))
}

/// Makes one call of `Stack::send` with the first pieces; returns how many bytes were accepted.
pub(crate) fn offer<Q: TxQueue, M: DmaMemory>(
    files: &mut Files<M>,
    line: &mut Line,
    stack: &mut Stack<Q, M>,
    (now, id): (Instant, ConnectionId),
    pieces: &mut VecDeque<Piece>,
    options: &SendOptions,
) -> Result<usize, OutboxError> {
    loop {
        if pieces.is_empty() || stack.send_room(id) == 0 {
            return Ok(0);
        }
        let Some((slices, count)) = gather(files, line, stack, now, pieces)? else {
            return Ok(0);
        };
        let slices = slices.get(..count).unwrap_or_default();
        match stack.send_with(now, id, slices, 0, options) {
            Ok(0) => return Ok(0),
            Ok(accepted) => {
                take_note(line, pieces, accepted);
                return Ok(accepted);
            }
            // A watcher lets no more be lent, and the stack has no copy pool.
            Err(SendError::Lend(LendError::Refused(_))) if copy_one(pieces, count) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The first of `count` pieces that is lent where it is, is to be copied; false: none is.
fn copy_one(pieces: &mut VecDeque<Piece>, count: usize) -> bool {
    let is_lent =
        |piece: &&mut Piece| matches!(piece.source, Source::Memory(_)) && piece.placed.is_none();
    let first = pieces.iter_mut().take(count).find(is_lent);
    first
        .map(|piece| piece.copy_next(COPIED_BEFORE_RETRY))
        .is_some()
}

/// The first bytes of the pieces were accepted.
fn take_note(line: &mut Line, pieces: &mut VecDeque<Piece>, accepted: usize) {
    let mut used_up = Vec::new();
    let (mut left, mut copied) = (accepted as u64, 0);
    while let Some(piece) = pieces.front_mut().filter(|_| left > 0) {
        let bytes = left.min(piece.rest());
        left -= bytes;
        if piece.placed.is_some_and(|placed| placed.copied) {
            copied += bytes;
        }
        used_up.extend(piece.advance(bytes).map(|placed| placed.region));
        if piece.rest() > 0 {
            break;
        }
        pieces.pop_front();
    }
    line.accepted(accepted, used_up, copied);
}

/// Slices of one call.
type Gathered = ([Slice; MOST_PIECES], usize);

/// The first pieces as slices, and how many: up to where one is not reachable whole. `None`: there is no
/// room even for the first.
fn gather<Q: TxQueue, M: DmaMemory>(
    files: &mut Files<M>,
    line: &mut Line,
    stack: &mut Stack<Q, M>,
    now: Instant,
    pieces: &mut VecDeque<Piece>,
) -> Result<Option<Gathered>, OutboxError> {
    let mut gathered: Option<[Slice; MOST_PIECES]> = None;
    let mut count = 0;
    for piece in pieces.iter_mut().take(MOST_PIECES) {
        match files.place(stack, now, piece, &mut line.claims) {
            Ok(()) => {}
            // What is before it goes first; it will be the first then.
            Err(Obstacle::Broken(error)) if count == 0 => return Err(error),
            Err(_) => break,
        }
        let Some(slice) = piece.slice() else {
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
    Ok(gathered.map(|slices| (slices, count)))
}
