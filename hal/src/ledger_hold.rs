//! Counts of pages, and what a port holds of them for its device.

use alloc::vec::Vec;
use core::mem::take;

use crate::ledger_entry::Kind;
use crate::{GatherFull, GatherList, Ledger, LendError, Loan, Run};

/// A page that is counted once more for a frame: which region, which page of it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Hold {
    region: u32,
    page: u32,
}

/// Holds that have a place of their own in a frame's books.
const INLINE: usize = 8;

/// What one frame holds.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    inline: [Hold; INLINE],
    /// Those beyond.
    more: Vec<Hold>,
    /// How many there are.
    count: u32,
    /// How many of them are not the first of a loan.
    further: u32,
}

impl Holds {
    #[inline(always)]
    pub(crate) fn push(&mut self, hold: Hold) {
        match self.inline.get_mut(self.count as usize) {
            Some(place) => *place = hold,
            None => self.push_more(hold),
        }
        self.count += 1;
    }

    #[cold]
    #[inline(never)]
    fn push_more(&mut self, hold: Hold) {
        // A panic, of a watcher say, may have left some behind that are not held any more.
        self.more.truncate(self.count as usize - INLINE);
        self.more.push(hold);
    }

    /// Loans that they are of.
    #[inline(always)]
    const fn loans(&self) -> u32 {
        self.count - self.further
    }

    /// Forgets all: the pages stay counted.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        if self.count > INLINE as u32 {
            self.more.clear();
        }
        (self.count, self.further) = (0, 0);
    }

    /// Moves all of them to `other`, which has none.
    #[inline(always)]
    pub(crate) fn move_to(&mut self, other: &mut Self) {
        other.inline = self.inline;
        (other.count, other.further) = (self.count, self.further);
        if self.count > INLINE as u32 {
            core::mem::swap(&mut self.more, &mut other.more);
        }
        (self.count, self.further) = (0, 0);
    }
}

impl Holds {
    /// The ledger that lent is not there any more, `ledger` is in its place: what was lent leaks.
    #[cold]
    pub(crate) fn strand(&mut self, ledger: &mut Ledger) {
        let loans = self.loans();
        ledger.counters.strays += u64::from(loans);
        // Before anything is logged: a logger may panic.
        self.forget();
        if loans > 0 {
            log::error!("loans were given back to a ledger that had not lent them: they leak");
        }
    }
}

/// Why nothing more is held.
#[derive(Debug)]
pub(crate) enum HoldError {
    Lend(LendError),
    Full,
}

impl From<GatherFull> for HoldError {
    fn from(_: GatherFull) -> Self {
        Self::Full
    }
}

impl Ledger {
    /// Lends bytes of a loan *of this ledger* to the device as well, and counts their page: the short
    /// way, for bytes of one page that is lent already (as those of a connection are) and is one run
    /// for the device. `None`: nothing is counted, and the long way says more.
    #[inline(always)]
    pub(crate) fn hold_one(
        &mut self,
        loan: &Loan,
        start: usize,
        len: usize,
    ) -> Option<(Hold, Run)> {
        let offset = start.wrapping_sub(loan.start);
        let left = loan.len.checked_sub(offset)?;
        // At least one byte, and no more than are left.
        if len.wrapping_sub(1) >= left {
            return None;
        }
        let region = loan.index;
        let entry = self.entries.get_mut(region as usize)?;
        let first = entry.lead.wrapping_add(start);
        let within = first & !entry.above;
        if within.wrapping_add(len - 1) & entry.above != 0 {
            return None;
        }
        let index = first.wrapping_shr(entry.page.log2().into());
        let address = entry.pages.get_mut(index)?.add_another()?;
        self.counters.loans += 1;
        let address = crate::DeviceAddress(address).offset(within as u64);
        let page = index as u32;
        Some((Hold { region, page }, Run { address, len }))
    }

    /// Lends `len` bytes from offset `start` of the region of `loan`, inside of its range, to the
    /// device as well: counts their pages, notes that in `holds`, and adds the pieces to `gather`.
    /// After an error a part may have been noted.
    ///
    /// # Errors
    /// As [`lend_again`](Self::lend_again), or the list is full.
    #[cold]
    #[inline(never)]
    pub(crate) fn hold_slowly(
        &mut self,
        loan: &Loan,
        start: usize,
        len: usize,
        (holds, gather): (&mut Holds, &mut GatherList),
    ) -> Result<(), HoldError> {
        self.check_inside(loan, start, len)
            .and_then(|()| self.pin(loan.index, start, len))
            .map_err(HoldError::Lend)?;
        self.counters.loans += 1;
        let unknown = HoldError::Lend(LendError::UnknownRegion);
        let region = loan.index;
        let entry = self.entries.get(region as usize).ok_or(unknown)?;
        let mut result = Ok(());
        let end = start + len;
        let indices = entry.indices(start, len);
        holds.further += (indices.len() as u32).saturating_sub(1);
        for index in indices {
            let page = index as u32;
            holds.push(Hold { region, page });
            if result.is_err() {
                continue;
            }
            let bytes = entry.offsets(&(index..index + 1), end);
            let bytes = bytes.start.max(start)..bytes.end;
            let address = entry.pages.get(index).and_then(|page| page.address());
            result = match address {
                Some(address) => {
                    let within = (entry.lead + bytes.start) & (entry.page.bytes() - 1);
                    let address = address.offset(within as u64);
                    let len = bytes.len();
                    gather.push(Run { address, len }).map_err(HoldError::from)
                }
                None => entry.gather(bytes.start, bytes.len(), gather),
            };
        }
        result
    }

    /// Gives back what was held.
    #[inline(always)]
    pub(crate) fn let_go(&mut self, holds: &mut Holds) {
        self.counters.loans = self.counters.loans.wrapping_sub(u64::from(holds.loans()));
        let count = take(&mut holds.count);
        holds.further = 0;
        for hold in holds.inline.iter().take(count as usize) {
            self.let_one_go(*hold);
        }
        if count > INLINE as u32 {
            for hold in holds.more.drain(..) {
                self.let_one_go(hold);
            }
        }
    }

    #[inline(always)]
    fn let_one_go(&mut self, hold: Hold) {
        let entry = self.entries.get_mut(hold.region as usize);
        let page = entry.and_then(|entry| entry.pages.get_mut(hold.page as usize));
        if !page.is_some_and(|page| page.remove_another()) {
            self.let_last_go(hold);
        }
    }

    /// The page may be lent no more after this, or is no single run.
    #[cold]
    #[inline(never)]
    fn let_last_go(&mut self, hold: Hold) {
        if let Some(entry) = self.entries.get(hold.region as usize) {
            let page = hold.page as usize;
            let bytes = entry.offsets(&(page..page + 1), usize::MAX);
            self.unpin(hold.region, bytes.start, 1);
            self.retire_if_idle(hold.region);
        }
    }

    /// Lets go of a region that is being released, if nothing of it is lent any more.
    #[inline]
    pub(crate) fn retire_if_idle(&mut self, index: u32) {
        let entry = self.entries.get(index as usize);
        if entry.is_some_and(|entry| entry.closing && !entry.is_lent()) {
            self.retire(index);
        }
    }

    /// Counts the pages that bytes touch.
    ///
    /// # Errors
    /// [`LendError::TooMany`], or what the watcher says; nothing has been counted.
    #[inline]
    pub(crate) fn pin(&mut self, index: u32, start: usize, len: usize) -> Result<(), LendError> {
        let entry = self
            .entries
            .get_mut(index as usize)
            .ok_or(LendError::UnknownRegion)?;
        if !entry.touched(start, len).iter().all(|page| page.has_room()) {
            return Err(LendError::TooMany);
        }
        if entry.kind == Kind::Watched {
            entry.begin_watch(start, len)?;
        }
        let mut pinned = 0u32;
        for page in entry.touched(start, len) {
            pinned += u32::from(page.add());
        }
        entry.pinned += pinned;
        let mut pinned = u64::from(pinned);
        if entry.kind == Kind::Watched {
            pinned <<= entry.page.log2() - self.page().log2();
        }
        let counters = &mut self.counters;
        counters.pinned_pages += pinned;
        counters.pinned_pages_peak = counters.pinned_pages_peak.max(counters.pinned_pages);
        Ok(())
    }

    #[inline]
    pub(crate) fn unpin(&mut self, index: u32, start: usize, len: usize) {
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return;
        };
        let mut unpinned = 0u32;
        for page in entry.touched(start, len) {
            unpinned += u32::from(page.remove());
        }
        entry.pinned = entry.pinned.saturating_sub(unpinned);
        let mut unpinned = u64::from(unpinned);
        if entry.kind == Kind::Watched && unpinned > 0 {
            entry.end_watch(start, len);
            unpinned <<= entry.page.log2() - self.page().log2();
        }
        self.counters.pinned_pages = self.counters.pinned_pages.saturating_sub(unpinned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_has_left_behind_is_not_held_by_the_next_frame() {
        let hold = |page| Hold { region: 0, page };
        let mut holds = Holds::default();
        (0..10).for_each(|page| holds.push(hold(page)));
        // As `let_go` begins, and goes no further.
        holds.count = 0;
        (20..29).for_each(|page| holds.push(hold(page)));
        let more: Vec<_> = holds.more.iter().map(|hold| hold.page).collect();
        assert_eq!((holds.count, more), (9, Vec::from([28])));
        let mut other = Holds::default();
        holds.move_to(&mut other);
        (40..50).for_each(|page| holds.push(hold(page)));
        assert_eq!((holds.more.len(), other.more.len()), (2, 1));
    }
}
