//! How much of the copy pool each connection may have, so that peers that do not answer leave some
//! of it to the others.

use pagewire_hal::{CopyPool, DmaMemory, Granule, Ledger, LendError, Loan};

/// What a connection holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held {
    /// Bytes of the slots of the copy pool that it has.
    pub(crate) copied: usize,
    /// It has loans that are to be moved there when somebody wants to write to them.
    pub(crate) moves: bool,
}

/// What all connections of a stack hold together.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Bytes of slots of the copy pool.
    copied: usize,
    /// Connections that have some.
    holders: usize,
    /// Connections with loans that may have to be moved there.
    movers: usize,
}

impl Shares {
    /// A connection held what was `noted` when it was looked at last, and holds so much `now`.
    #[inline]
    pub(crate) fn note(&mut self, noted: &mut Held, now: Held) {
        if *noted == now {
            return;
        }
        self.copied = self.copied.saturating_sub(noted.copied) + now.copied;
        self.holders -= usize::from(noted.copied > 0);
        self.holders += usize::from(now.copied > 0);
        self.movers -= usize::from(noted.moves);
        self.movers += usize::from(now.moves);
        *noted = now;
    }

    /// Whether a connection has loans that may have to be moved.
    pub(crate) const fn may_move(&self) -> bool {
        self.movers > 0
    }

    /// The copy pool, for a connection that was noted to hold so much.
    pub(crate) fn copier<'a, M: DmaMemory>(
        &self,
        pool: &'a mut CopyPool<M>,
        noted: Held,
        limit: Option<usize>,
    ) -> Copier<'a, M> {
        let share = Share {
            slot: pool.slot().bytes(),
            have: noted.copied,
            free: pool.len().saturating_sub(self.copied),
            holders: self.holders + usize::from(noted.copied == 0),
            limit,
        };
        Copier { pool, share }
    }
}

/// What a connection may have of the copy pool.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Bytes of a slot.
    slot: usize,
    /// Bytes of slots that it has.
    have: usize,
    /// Bytes of slots that no connection has.
    free: usize,
    /// Connections that have some, this one counted.
    holders: usize,
    /// The limit of the configuration, if there is one.
    limit: Option<usize>,
}

impl Share {
    /// Bytes that it may have beyond those that it has: whole slots.
    ///
    /// Without a limit, what it has then is at most what is free then, divided by the connections
    /// that have some. So if nobody gives anything back, the *k*th of them (in the order in which
    /// they took their last) leaves at least *k* parts of *k* + 1 of what those before it left, and
    /// *n* of them leave the (*n* + 1)th part of the pool: 1/2 of it, of that 2/3, of that 3/4, ….
    /// The first slot each may have whatever the others have, or many would have none: so as many
    /// connections as there are slots, all of whose peers are silent, leave none to the next.
    fn room(&self) -> usize {
        let more = match self.limit {
            Some(limit) => limit.saturating_sub(self.have),
            None => {
                let kept = self.have.saturating_mul(self.holders);
                self.free.saturating_sub(kept) / (self.holders + 1)
            }
        };
        let first = if self.have == 0 { self.slot } else { 0 };
        (more - more % self.slot).max(first)
    }

    /// It has taken slots for `len` bytes.
    const fn take(&mut self, len: usize) {
        let taken = len.next_multiple_of(self.slot);
        self.have += taken;
        self.free = self.free.saturating_sub(taken);
    }
}

/// The copy pool, for one connection.
pub(crate) struct Copier<'a, M: DmaMemory> {
    pool: &'a mut CopyPool<M>,
    share: Share,
}

impl<M: DmaMemory> Copier<'_, M> {
    /// Whether the connection has some of the pool.
    pub(crate) const fn has_some(&self) -> bool {
        self.share.have > 0
    }

    /// The size of the pool's slots.
    pub(crate) fn slot(&self) -> Granule {
        self.pool.slot()
    }

    /// Has `fill` write up to `len` bytes to the pool, as many as the connection may have there and
    /// as there are free slots in a row, and borrows them. `None`: there is no room now.
    pub(crate) fn copy(
        &mut self,
        ledger: &mut Ledger,
        len: usize,
        fill: impl FnOnce(&Ledger, &mut [u8]) -> Result<(), LendError>,
    ) -> Result<Option<Loan>, LendError> {
        let len = len.min(self.share.room());
        let put = self.pool.put(len, |bytes| fill(ledger, bytes))?;
        let Some(range) = put else {
            return Ok(None);
        };
        let loan = ledger.lend(self.pool.region(), range.start, range.len())?;
        self.share.take(range.len());
        Ok(Some(loan))
    }
}

#[cfg(test)]
mod tests {
    use super::Share;
    use alloc::vec;
    use alloc::vec::Vec;

    const SLOT: usize = 4096;

    /// Connections that take what they may in turn, until none may have more.
    fn shares(slots: usize, connections: usize) -> (Vec<usize>, usize) {
        let mut have = vec![0; connections];
        loop {
            let mut moved = false;
            for index in 0..connections {
                let used: usize = have.iter().sum();
                let others = have.iter().filter(|have| **have > 0).count();
                let mut share = Share {
                    slot: SLOT,
                    have: have[index] * SLOT,
                    free: (slots - used) * SLOT,
                    holders: others + usize::from(have[index] == 0),
                    limit: None,
                };
                let room = share.room().min(share.free);
                assert_eq!(room % SLOT, 0);
                share.take(room);
                moved |= room > 0;
                have[index] = share.have / SLOT;
            }
            if !moved {
                let used: usize = have.iter().sum();
                return (have, slots - used);
            }
        }
    }

    #[test]
    fn one_alone_has_half_and_many_leave_their_part() {
        assert_eq!(shares(64, 1), (vec![32], 32));
        assert_eq!(shares(64, 2).1, 22);
        for connections in 1..64 {
            let (have, free) = shares(1024, connections);
            assert!(have.iter().all(|have| *have > 0), "{have:?}");
            if connections < 31 {
                assert!(free >= 1024 / (connections + 1), "{have:?}, {free} free");
            }
            assert!(free > 0, "{have:?}");
        }
    }

    #[test]
    fn a_limit_is_kept_and_one_slot_is_for_all() {
        let mut share = Share {
            slot: SLOT,
            have: 0,
            free: 8 * SLOT,
            holders: 1,
            limit: Some(3 * SLOT + 1),
        };
        assert_eq!(share.room(), 3 * SLOT);
        share.take(2 * SLOT - 5);
        assert_eq!((share.have, share.room()), (2 * SLOT, SLOT));
        share.take(SLOT);
        assert_eq!(share.room(), 0);
        let (have, limit) = (0, Some(0));
        let least = Share {
            have,
            limit,
            ..share
        };
        assert_eq!(least.room(), SLOT);
        // Only one slot is left of a small pool.
        let free = SLOT;
        let last = Share {
            have: 0,
            free,
            holders: 9,
            limit: None,
            ..share
        };
        assert_eq!(last.room(), SLOT);
    }
}
