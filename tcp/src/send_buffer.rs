//! The half of the ledger that waits for acknowledgments: what the program handed in, as loans
//! in the order of the stream.
//!
//! Positions count in the stream of one direction of a connection, in 64 bits, so that they
//! never wrap: the SYN is at 0, the first byte of data at 1, the FIN behind the last.
//!
//! A loan of a connection is trimmed as bytes are acknowledged *cumulatively* and given back
//! when nothing is left of it; what a SACK says releases nothing, as the peer may take it back
//! (RFC 2018 section 8). What the device still reads has loans of its own in the port: that is
//! rule 2, "done is not acknowledged, acknowledged is not done".

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use pagewire_hal::{DmaMemory, Granule, Instant, Ledger, LendError, Loan, RegionId};

use crate::lending::{CopiedEarly, Early, Explanation, Lender, OnWrite, SendOptions, Taken};
use crate::share::{Copier, Held};

/// A range of a registered region, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// The region, see [`Stack::register`](crate::Stack::register).
    pub region: RegionId,
    /// First byte, as an offset into the region.
    pub start: usize,
    /// Bytes; slices of none are skipped.
    pub len: usize,
}

/// The end of a call of [`Stack::send`](crate::Stack::send): none of its bytes is needed any
/// more, by TCP or by the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// As given to `send`.
    pub tag: u64,
    /// Bytes that `send` accepted.
    pub bytes: usize,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of the bytes of a call of [`Stack::send`](crate::Stack::send).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The peer acknowledged all of them.
    Delivered,
    /// The connection ended before; the peer may have received some of them.
    Aborted,
}

/// An accepted slice: the loan of what is not acknowledged of it.
#[derive(Debug)]
struct Accepted {
    loan: Loan,
    /// Position behind its last byte.
    end: u64,
    /// The size of the slots of the pool that it is a copy in, if it is one.
    copied: Option<Granule>,
    /// It is to be moved to the pool when somebody wants to write to it.
    moves: bool,
}

impl Accepted {
    /// Bytes of the slots of the pool that it has.
    fn in_pool(&self) -> usize {
        let Some(slot) = self.copied else {
            return 0;
        };
        let range = self.loan.range();
        range.end.next_multiple_of(slot.bytes()) - (range.start & !(slot.bytes() - 1))
    }
}

#[derive(Debug)]
struct Call {
    tag: u64,
    bytes: usize,
    /// Position behind its last byte.
    end: u64,
    outcome: Outcome,
    account: Option<Box<Account>>,
}

/// What is known of a call that is to be explained.
#[derive(Debug)]
struct Account {
    since: Instant,
    explanation: Explanation,
}

/// A piece of the stream: `len` bytes from offset `start` of the region of `loan`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) loan: &'a Loan,
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// It is a copy in the pool.
    pub(crate) copied: bool,
}

/// The stream as far as it is accepted and not acknowledged.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    slices: VecDeque<Accepted>,
    /// The slice in which what was posted last ends, if it is still there: a place to look first.
    last: usize,
    /// Position of its first byte, if it is not the first.
    last_start: u64,
    calls: VecDeque<Call>,
    /// Position of the first byte that is not acknowledged.
    start: u64,
    /// Position behind the last byte accepted.
    end: u64,
    /// Bytes of the program that are lent, and not acknowledged.
    lent: usize,
    /// Bytes of the slots of the pool that it has copies in.
    copied: usize,
    /// Slices that are to be moved to the pool when somebody wants to write to them.
    movable: usize,
    /// Calls that are to be explained.
    accounts: usize,
}

impl SendBuffer {
    pub(crate) const fn new() -> Self {
        Self {
            slices: VecDeque::new(),
            last: 0,
            last_start: 1,
            calls: VecDeque::new(),
            start: 1,
            end: 1,
            lent: 0,
            copied: 0,
            movable: 0,
            accounts: 0,
        }
    }

    /// Bytes of the program that are lent, and not acknowledged.
    pub(crate) const fn lent(&self) -> usize {
        self.lent
    }

    /// Whether there may be copies in the pool.
    #[inline]
    pub(crate) const fn has_copies(&self) -> bool {
        self.copied > 0
    }

    /// What it holds beyond loans of the program's bytes.
    #[inline]
    pub(crate) const fn held(&self) -> Held {
        Held {
            copied: self.copied,
            moves: self.movable > 0,
        }
    }

    /// Whether there are calls that are to be explained.
    #[inline]
    pub(crate) const fn explains(&self) -> bool {
        self.accounts > 0
    }

    /// Position behind the last byte accepted.
    #[inline]
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes accepted and not acknowledged.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Borrows up to `limit` bytes of `slices`, in order, and returns how many. If the last
    /// slice taken is taken in part, the rest of it is not accepted.
    ///
    /// An error in any slice up to there undoes the whole call: no loan is left.
    pub(crate) fn accept<M: DmaMemory>(
        &mut self,
        mut lender: Lender<'_, M>,
        slices: &[Slice],
        call: &NewCall<'_>,
        early: &mut CopiedEarly,
    ) -> Result<usize, LendError> {
        let before = self.slices.len();
        let mut explanation = Explanation::default();
        let borrowed = self.borrow(&mut lender, slices, call, &mut explanation);
        let end = borrowed.inspect_err(|_| self.undo(before, lender.ledger))?;
        let bytes = (end - self.end) as usize;
        self.end = end;
        early.join(&explanation.copied_early);
        if bytes > 0 {
            let since = call.now;
            let account = || Box::new(Account { since, explanation });
            let account = call.options.explain.then(account);
            self.accounts += usize::from(account.is_some());
            self.calls.push_back(Call {
                tag: call.tag,
                bytes,
                end,
                outcome: Outcome::Delivered,
                account,
            });
        }
        Ok(bytes)
    }

    /// Borrows what there is room for, and returns the position behind it. After an error some of it
    /// is there.
    #[inline]
    fn borrow<M: DmaMemory>(
        &mut self,
        lender: &mut Lender<'_, M>,
        slices: &[Slice],
        call: &NewCall<'_>,
        explanation: &mut Explanation,
    ) -> Result<u64, LendError> {
        let moves = call.options.on_write == OnWrite::MoveAway;
        let mut end = self.end;
        let mut left = call.limit;
        for slice in slices {
            let mut rest = *slice;
            while rest.len > 0 && left > 0 {
                let Some(taken) = lender.take(&rest, slice.len, rest.len.min(left))? else {
                    return Ok(end);
                };
                let len = taken.loan.len();
                rest.start += len;
                rest.len -= len;
                end += len as u64;
                left -= len;
                match taken.copied {
                    Some((why, _)) => explanation.copied_early.add(why, len),
                    None => explanation.lent += len as u64,
                }
                // What cannot change nobody waits for.
                let moves = moves && lender.ledger.is_watched(&taken.loan);
                self.push(taken, end, moves);
            }
        }
        Ok(end)
    }

    #[inline]
    fn push(&mut self, Taken { loan, copied }: Taken, end: u64, moves: bool) {
        let slice = Accepted {
            loan,
            end,
            copied: copied.map(|(_, slot)| slot),
            moves,
        };
        self.count(&slice);
        self.slices.push_back(slice);
    }

    /// A slice is there.
    #[inline]
    fn count(&mut self, slice: &Accepted) {
        if slice.copied.is_some() {
            self.copied += slice.in_pool();
        } else {
            self.lent += slice.loan.len();
            self.movable += usize::from(slice.moves);
        }
    }

    /// Gives back the slices from an index on, which are not a part of the stream yet.
    fn undo(&mut self, from: usize, ledger: &mut Ledger) {
        while self.slices.len() > from {
            if let Some(slice) = self.slices.pop_back() {
                self.forget(&slice);
                ledger.give_back(slice.loan);
            }
        }
    }

    /// A slice is no more.
    #[inline]
    fn forget(&mut self, slice: &Accepted) {
        if slice.copied.is_some() {
            self.copied -= slice.in_pool();
        } else {
            self.lent -= slice.loan.len();
            self.movable -= usize::from(slice.moves);
        }
    }

    /// Moves bytes of a range of a region to the pool, as far as they are not acknowledged and
    /// their calls wanted it so, and gives back what was lent for them. What finds no room stays.
    /// Returns how many.
    pub(crate) fn move_away<M: DmaMemory>(
        &mut self,
        ledger: &mut Ledger,
        copier: &mut Copier<'_, M>,
        region: RegionId,
        range: &core::ops::Range<usize>,
    ) -> usize {
        let mut moved = 0;
        let mut index = 0;
        while let Some(slice) = self.slices.get(index) {
            index += 1;
            let lent = slice.loan.range();
            let start = lent.start.max(range.start);
            let end = lent.end.min(range.end);
            if !slice.moves || slice.copied.is_some() || start >= end || !slice.loan.is_of(region) {
                continue;
            }
            let Some(parts) = split(ledger, copier, slice, start, end) else {
                return moved;
            };
            let count = parts.iter().flatten().count();
            let Some(whole) = self.slices.remove(index - 1) else {
                return moved;
            };
            self.forget(&whole);
            ledger.give_back(whole.loan);
            for (place, part) in (index - 1..).zip(parts.into_iter().flatten()) {
                self.count(&part);
                if part.copied.is_some() {
                    moved += part.loan.len();
                    self.account_moved(part.end, part.loan.len());
                }
                self.slices.insert(place, part);
            }
            // What is behind the copy is looked at again: it may be the rest of it.
            index += count.saturating_sub(2);
        }
        moved
    }

    fn account_moved(&mut self, end: u64, len: usize) {
        let index = self.calls.partition_point(|call| call.end < end);
        if let Some(account) = self.calls.get_mut(index).and_then(|c| c.account.as_mut()) {
            account.explanation.copied_early.add(Early::Written, len);
        }
    }

    /// Adds what was posted to the accounts of the calls that it is of: `add` is given each one's
    /// explanation and how many of `len` bytes from `position` are its own, from which on.
    pub(crate) fn account_posted(
        &mut self,
        position: u64,
        len: usize,
        mut add: impl FnMut(&mut Explanation, core::ops::Range<usize>),
    ) {
        let end = position + len as u64;
        let first = self.calls.partition_point(|call| call.end <= position);
        let mut from = position;
        for call in self.calls.iter_mut().skip(first) {
            if from >= end {
                return;
            }
            let to = call.end.min(end);
            if let Some(account) = &mut call.account {
                let own = (from - position) as usize..(to - position) as usize;
                add(&mut account.explanation, own);
            }
            from = to;
        }
    }

    /// Gives back what lies before `position`, which the peer has acknowledged cumulatively.
    pub(crate) fn acknowledge(&mut self, ledger: &mut Ledger, position: u64) {
        let position = position.clamp(self.start, self.end);
        while self.slices.front().is_some_and(|s| s.end <= position) {
            if let Some(slice) = self.slices.pop_front() {
                self.last = self.last.saturating_sub(1);
                self.forget(&slice);
                ledger.give_back(slice.loan);
            }
        }
        if let Some(slice) = self.slices.front_mut() {
            let left = (slice.end - position) as usize;
            let done = slice.loan.len().saturating_sub(left);
            if done > 0 {
                let before = slice.in_pool();
                ledger.trim_front(&mut slice.loan, done);
                if slice.copied.is_some() {
                    self.copied -= before - slice.in_pool();
                } else {
                    self.lent -= done;
                }
            }
        }
        self.start = position;
    }

    /// The parts of `len` bytes from `position`; they end where the buffer does.
    #[inline]
    pub(crate) fn parts(&self, position: u64, len: usize) -> Parts<'_> {
        Parts {
            slices: &self.slices,
            index: self.index_of(position),
            position,
            left: len,
        }
    }

    /// The slice in which the byte at a position lies. What is sent in order is found at once.
    #[inline]
    fn index_of(&self, position: u64) -> usize {
        let here = self.slices.get(self.last);
        let ends_behind = here.is_some_and(|slice| slice.end > position);
        if ends_behind && (self.last == 0 || self.last_start <= position) {
            return self.last;
        }
        self.slices.partition_point(|slice| slice.end <= position)
    }

    /// What is before a position was posted: what is behind it comes next.
    #[inline]
    pub(crate) fn sent_up_to(&mut self, position: u64) {
        while let Some(slice) = self.slices.get(self.last)
            && slice.end <= position
        {
            self.last_start = slice.end;
            self.last += 1;
        }
    }

    /// Gives everything back; calls that were not acknowledged are now aborted.
    pub(crate) fn abort(&mut self, ledger: &mut Ledger) {
        for slice in self.slices.drain(..) {
            ledger.give_back(slice.loan);
        }
        self.lent = 0;
        self.copied = 0;
        self.movable = 0;
        for call in self.calls.iter_mut().rev() {
            if call.end <= self.start {
                break;
            }
            call.outcome = Outcome::Aborted;
        }
        self.start = self.end;
    }

    /// The next call that is over: acknowledged or aborted, and all before `unread`, which is
    /// where the device's reading begins.
    ///
    /// With what is known of it, if it is to be explained.
    pub(crate) fn completion(
        &mut self,
        now: Instant,
        unread: u64,
    ) -> Option<(Completion, Option<Explanation>)> {
        let over = self.start.min(unread);
        self.calls.front().filter(|call| call.end <= over)?;
        let call = self.calls.pop_front()?;
        let completion = Completion {
            tag: call.tag,
            bytes: call.bytes,
            outcome: call.outcome,
        };
        self.accounts -= usize::from(call.account.is_some());
        let explanation = call.account.map(|account| Explanation {
            held: now.saturating_since(account.since),
            ..account.explanation
        });
        Some((completion, explanation))
    }

    /// Whether calls are left whose completion has not been taken.
    pub(crate) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }
}

/// What a call of `send` says besides its slices.
pub(crate) struct NewCall<'a> {
    pub(crate) now: Instant,
    pub(crate) tag: u64,
    /// Most bytes that are accepted.
    pub(crate) limit: usize,
    pub(crate) options: &'a SendOptions,
}

/// A slice as what is before `start`, a copy of what lies from there to `end` or before, and what
/// is behind. `None` if there is no room for a copy, or for a loan more.
fn split<M: DmaMemory>(
    ledger: &mut Ledger,
    copier: &mut Copier<'_, M>,
    slice: &Accepted,
    start: usize,
    end: usize,
) -> Option<[Option<Accepted>; 3]> {
    let lent = slice.loan.range();
    let part = |loan: Loan, behind: usize, copied: Option<Granule>| Accepted {
        loan,
        end: slice.end - behind as u64,
        copied,
        moves: slice.moves,
    };
    let fill = |ledger: &Ledger, bytes: &mut [u8]| ledger.copy_lent(&slice.loan, start, bytes);
    let copied = copier.copy(ledger, end - start, fill).ok().flatten()?;
    let end = start + copied.len();
    let again = |ledger: &mut Ledger, range: core::ops::Range<usize>| {
        let lend = || ledger.lend_again(&slice.loan, range.start, range.len());
        (!range.is_empty()).then(lend)
    };
    let before = match again(ledger, lent.start..start) {
        Some(Err(_)) => {
            ledger.give_back(copied);
            return None;
        }
        before => before.and_then(Result::ok),
    };
    let behind = match again(ledger, end..lent.end) {
        Some(Err(_)) => {
            ledger.give_back(copied);
            before.into_iter().for_each(|loan| ledger.give_back(loan));
            return None;
        }
        behind => behind.and_then(Result::ok),
    };
    Some([
        before.map(|loan| part(loan, lent.end - start, None)),
        Some(part(copied, lent.end - end, Some(copier.slot()))),
        behind.map(|loan| part(loan, 0, None)),
    ])
}

/// Iterator over the parts of a range of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'a> {
    slices: &'a VecDeque<Accepted>,
    /// The slice in which the rest begins.
    index: usize,
    position: u64,
    left: usize,
}

impl Parts<'_> {
    /// Only the first `len` bytes.
    #[inline]
    pub(crate) fn take_bytes(mut self, len: usize) -> Self {
        self.left = self.left.min(len);
        self
    }

    /// Without the first `len` bytes.
    #[inline]
    pub(crate) fn skip_bytes(mut self, len: usize) -> Self {
        let len = len.min(self.left);
        if len > 0 {
            self.left -= len;
            self.move_on(len);
        }
        self
    }

    #[inline]
    fn move_on(&mut self, len: usize) {
        self.position += len as u64;
        while self
            .slices
            .get(self.index)
            .is_some_and(|slice| slice.end <= self.position)
        {
            self.index += 1;
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    #[inline]
    fn next(&mut self) -> Option<Part<'a>> {
        if self.left == 0 {
            return None;
        }
        let slice = self.slices.get(self.index)?;
        // From the end, as the front of the loan moves with acknowledgments.
        let behind = usize::try_from(slice.end.checked_sub(self.position)?).ok()?;
        let start = slice.loan.range().end.checked_sub(behind)?;
        let len = behind.min(self.left);
        self.left -= len;
        self.position += len as u64;
        // Slices have at least one byte each.
        self.index += usize::from(len == behind);
        Some(Part {
            loan: &slice.loan,
            start,
            len,
            copied: slice.copied.is_some(),
        })
    }
}
