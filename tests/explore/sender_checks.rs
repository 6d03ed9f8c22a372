//! What is compared after every step of a connection, and after its end.

use std::ops::Range;

use pagewire::tcp::{ConnectionError, Outcome, State};

use crate::search::same;
use crate::sender::Sender;
use crate::sender_books::{MAX_RETRIES, PAGE, REGIONS, STREAM, blocks, call_end, stream};
use crate::wire::{FIN, Seen};

impl Sender {
    /// Looks at what was posted since the last time.
    fn look_at_posts(&mut self) -> Result<(), String> {
        let log = std::mem::take(&mut self.machine.lock().log);
        for frame in log {
            let Some(seen) = Seen::parse(&frame)? else {
                continue;
            };
            let fin = usize::from(seen.flags & FIN != 0);
            if let Some(range) = self.range(&seen) {
                same!(seen.payload, stream(range.clone()), "bytes of {range:?}");
            }
            if let Some(start) = self.position(seen.seq) {
                let end = start + seen.payload.len() + fin;
                if end > start {
                    self.books.next = self.books.next.max(end);
                }
            }
        }
        Ok(())
    }

    /// Ranges of the stream in the frames that the port has not got back, with the parts of
    /// regions that they name.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn out(&self) -> Result<Vec<(Range<usize>, Vec<(usize, Range<usize>)>)>, String> {
        let state = self.machine.lock();
        let mut out: Vec<(Range<usize>, _)> = Vec::new();
        for held in &state.posted {
            let Some(seen) = Seen::parse(&held.bytes)? else {
                continue;
            };
            let Some(range) = self.range(&seen) else {
                continue;
            };
            let twice = out
                .iter()
                .any(|(r, _)| r.start < range.end && range.start < r.end);
            same!(twice, false, "{range:?} is posted while it is in the ring");
            out.push((range, state.parts(held)));
        }
        Ok(out)
    }

    /// Compares all that can be seen.
    pub(crate) fn agree(&mut self) -> Result<(), String> {
        self.look_at_posts()?;
        self.look_at_state()?;
        let out = self.out()?;
        while let Some((_, share)) = self.stack.take_released() {
            drop(share);
            self.handed_out += 1;
        }
        let mut pages = [[false; 2]; 2];
        let mut loans = 0;
        let held = self.books.held(&self.setup).into_iter().flat_map(blocks);
        let read = out.iter().flat_map(|(_, parts)| parts.iter().cloned());
        for (region, range) in held.chain(read) {
            pages[region][range.start / PAGE..=(range.end - 1) / PAGE].fill(true);
            loans += 1;
        }
        let pinned = pages.iter().flatten().filter(|held| **held).count() as u64;
        let mut state = self.machine.lock();
        let mut free = 0;
        for (region, pages) in pages.iter().enumerate() {
            let expected = u32::from(pages.iter().all(|held| !held));
            same!(state.drops[region], expected, "region {region} dropped");
            free += expected;
        }
        same!(self.handed_out, free, "regions handed out");
        let counters = self.stack.port().ledger().counters();
        same!(counters.pinned_pages, pinned, "pinned pages");
        same!(counters.loans, loans, "loans");
        same!(counters.strays, 0, "stray loans");
        let strays = self.stack.port().counters().stray_tokens;
        same!(strays, 0, "stray tokens");
        same!(
            self.stack.port().outstanding(),
            state.posted.len(),
            "frames"
        );
        state.look_at_all();
        same!(state.violations.first(), None, "the device");
        drop(state);
        self.look_at_completions(&out.into_iter().map(|(r, _)| r).collect::<Vec<_>>())
    }

    /// The connection ends when something has ended it, and never by itself.
    fn look_at_state(&mut self) -> Result<(), String> {
        let state = self.stack.state(self.id);
        same!(state.is_none(), self.books.removed, "removed");
        let over = matches!(state, None | Some(State::Closed));
        if over && self.books.live {
            let timed_out = self.stack.error(self.id) == Some(ConnectionError::TimedOut)
                && self.books.waits > MAX_RETRIES;
            let both = self.books.una > STREAM && self.books.peer_finished;
            if !timed_out && !both {
                return Err("the connection is over without a cause".to_owned());
            }
            self.books.live = false;
        }
        same!(over, !self.books.live, "over");
        Ok(())
    }

    /// A call of send is over when its bytes, and all before, are held by nobody.
    fn look_at_completions(&mut self, out: &[Range<usize>]) -> Result<(), String> {
        while let Some(done) = self.stack.completion(self.now, self.id) {
            let tag = self.books.told;
            same!(done.tag, tag as u64, "the next completion");
            same!(done.bytes, REGIONS[tag].1, "bytes of the call");
            let delivered = self.books.una >= call_end(tag);
            same!(done.outcome == Outcome::Delivered, delivered, "outcome");
            self.books.told += 1;
        }
        let over = |tag: usize| {
            let end = call_end(tag);
            let acked = self.books.una >= end || !self.books.live;
            acked && out.iter().all(|range| range.start >= end)
        };
        if !self.books.removed {
            let expected = (0..2).take_while(|tag| over(*tag)).count();
            same!(self.books.told, expected, "calls completed");
        }
        Ok(())
    }

    /// Drops the stack as it is, and then the device reads all that it may.
    pub(crate) fn drop_stack(self) -> Result<(), String> {
        let out = self.out()?;
        let Self { machine, stack, .. } = self;
        drop(stack);
        let mut state = machine.lock();
        state.look_at_all();
        same!(state.violations.first(), None, "after the drop");
        for region in 0..2 {
            // What no frame names goes back; the rest is leaked.
            let mut parts = out.iter().flat_map(|(_, parts)| parts);
            let expected = u32::from(!parts.any(|(named, _)| *named == region));
            same!(state.drops[region], expected, "region {region} at the end");
        }
        let expected = if state.posted.is_empty() { 2 } else { 0 };
        same!(state.pool_drops, expected, "blocks of the pool freed");
        drop(state);
        machine.gone();
        Ok(())
    }
}
