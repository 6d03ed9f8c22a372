//! Who has been lent what: counts per region and per page, owned by one thread.
//!
//! A region is registered once. A connection that waits for its acknowledgement has a [`Loan`], which
//! is consumed when it is given back. A loan that is lost (`mem::forget`, a plain drop) is never given
//! back: its region leaks, and is never freed under the device. What a frame in the ring has of a loan
//! is counted page by page, and noted in the port's books of the frame, which nobody else reaches.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroUsize;
use core::ops::Range;

use crate::address::unique;
use crate::apart;
use crate::ledger_entry::{Entry, Kind, longer, pages};
use crate::{DomainId, Granule, Refused, Region, Runs, Sharing};

/// Names a region that is registered with one [`Ledger`]; never names another one later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RegionId {
    ledger: NonZeroUsize,
    index: u32,
    generation: u64,
}

/// A range of a region, lent until it is given back to the [`Ledger`] that lent it.
///
/// Plain data without a reference, so that it crosses threads with its queue; not cloneable, so
/// that each is given back at most once.
#[derive(Debug)]
#[must_use = "a loan that is dropped is never given back: its region leaks"]
pub struct Loan {
    pub(crate) ledger: NonZeroUsize,
    pub(crate) index: u32,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Loan {
    /// The bytes lent, as offsets into the region.
    #[must_use]
    #[inline]
    pub const fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// Bytes lent.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether all of it has been trimmed away.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is of this region. (A region that is lent keeps its place, so no later one has
    /// it.)
    #[must_use]
    #[inline]
    pub fn is_of(&self, region: RegionId) -> bool {
        self.ledger == region.ledger && self.index == region.index
    }
}

/// Why something was not lent, or cannot be looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LendError {
    /// The region is not registered here, or is being released.
    UnknownRegion,
    /// The range is not inside the region or loan.
    OutOfRange,
    /// The range has no byte.
    Empty,
    /// The region is mapped for another device.
    OtherDomain,
    /// Bytes of the region lie at addresses that the device cannot emit, see
    /// [`Capabilities::dma_address_bits`](crate::Capabilities::dma_address_bits): it would read
    /// others in their place.
    OutOfReach,
    /// More regions (2^32) or loans of a page (2^31) than can be counted, or no memory to count the
    /// pages in.
    TooMany,
    /// Who keeps the bytes as they are has refused: copy them.
    Refused(Refused),
    /// The bytes can change at any moment: no slice of them can be had.
    NoSlice,
}

impl fmt::Display for LendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused(why) => return why.fmt(f),
            Self::NoSlice => "the bytes can change at any moment",
            Self::UnknownRegion => "the region is not registered with this ledger",
            Self::OutOfRange => "the range is not inside the region",
            Self::Empty => "the range has no byte",
            Self::OtherDomain => "the region is mapped for another device",
            Self::OutOfReach => {
                "the region lies at addresses beyond those that the device can emit"
            }
            Self::TooMany => "too many loans or regions",
        })
    }
}

impl core::error::Error for LendError {}

/// What a ledger has counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LedgerCounters {
    /// Loans out now.
    pub loans: u64,
    /// Pages with at least one loan now: pages of the CPU, whatever the device's granule; counted
    /// for each registration of a region by itself.
    pub pinned_pages: u64,
    /// The most that `pinned_pages` has been.
    pub pinned_pages_peak: u64,
    /// Loans that were given back to a ledger that had not lent them (and so leaked).
    pub strays: u64,
}

/// The books of one queue: which regions it knows, and how often each of their pages is lent.
///
/// Plain counts, no atomics: a ledger belongs to one thread at a time, with its queue. It holds
/// one share (`Arc`) of each region for as long as that is registered or lent. Dropped while
/// loans are out, it leaks the regions that they are of, and says so in the log.
pub struct Ledger {
    pub(crate) id: NonZeroUsize,
    domain: DomainId,
    address_bits: u8,
    page: Granule,
    pub(crate) entries: Vec<Entry>,
    /// How often each entry has had a region, apart, as no frame looks at it.
    generations: Vec<u64>,
    vacant: Vec<u32>,
    released: VecDeque<(RegionId, Arc<dyn Region>)>,
    /// Those with a watcher: few, and each is asked now and then whether somebody waits.
    watched: Vec<RegionId>,
    /// Regions whose bytes can change while they are lent.
    live: u32,
    pub(crate) counters: LedgerCounters,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger")
            .field("id", &self.id)
            .field("counters", &self.counters)
            .finish()
    }
}

impl Ledger {
    /// An empty ledger for regions of `domain` at addresses of at most `address_bits` bits (more
    /// than 64 are 64), which counts in pages of `page`.
    ///
    /// # Panics
    /// On a 32-bit machine after 2^32 domains, ledgers and ports.
    #[must_use]
    pub fn new(domain: DomainId, address_bits: u8, page: Granule) -> Self {
        Self {
            id: unique(),
            domain,
            address_bits: address_bits.min(64),
            page,
            entries: Vec::new(),
            generations: Vec::new(),
            vacant: Vec::new(),
            released: VecDeque::new(),
            watched: Vec::new(),
            live: 0,
            counters: LedgerCounters::default(),
        }
    }

    /// Takes a share of a region, so that ranges of it can be lent.
    ///
    /// # Errors
    /// [`LendError::OtherDomain`], [`LendError::Empty`], [`LendError::OutOfRange`] (its
    /// translation is not as long as the region), [`LendError::OutOfReach`] or
    /// [`LendError::TooMany`] (no memory for 16 bytes per page).
    pub fn register(&mut self, region: Arc<dyn Region>) -> Result<RegionId, LendError> {
        self.check(&*region)?;
        let (kind, page) = match region.sharing() {
            Sharing::Owned => (Kind::Owned, self.page),
            Sharing::Live(_) => (Kind::Live, self.page),
            // Only pages of at least the watcher's own are lent and released as often.
            Sharing::Watched(watch) => (Kind::Watched, longer(self.page, watch.page())),
        };
        let lead = region.base().as_ptr().addr() & (page.bytes() - 1);
        let pages = pages(&*region, page, lead)?;
        let index = self.vacancy()?;
        let entry = self
            .entries
            .get_mut(index as usize)
            .ok_or(LendError::TooMany)?;
        let generation = self
            .generations
            .get_mut(index as usize)
            .ok_or(LendError::TooMany)?;
        *generation = generation.wrapping_add(1);
        let generation = *generation;
        *entry = Entry {
            pages,
            lead,
            above: !(page.bytes() - 1),
            region: Some(region),
            loans: 0,
            pinned: 0,
            page,
            kind,
            closing: false,
        };
        let id = RegionId {
            ledger: self.id,
            index,
            generation,
        };
        match kind {
            Kind::Owned => {}
            Kind::Watched => self.watched.push(id),
            Kind::Live => self.live += 1,
        }
        Ok(id)
    }

    /// Whether a region is of this domain, has bytes, and its device can reach all of them.
    fn check(&self, region: &dyn Region) -> Result<(), LendError> {
        if region.domain() != self.domain {
            return Err(LendError::OtherDomain);
        }
        let len = region.len();
        if len == 0 {
            return Err(LendError::Empty);
        }
        if region.translation().len() != len {
            return Err(LendError::OutOfRange);
        }
        let highest = highest(self.address_bits);
        let mut runs = region.translation().runs(0, len);
        if !runs.all(|run| {
            let last = run.address.0.checked_add(run.len as u64 - 1);
            last.is_some_and(|last| last <= highest)
        }) {
            return Err(LendError::OutOfReach);
        }
        // No object of the language is longer, and below that no sum of offsets overflows.
        isize::try_from(len).map_err(|_| LendError::OutOfRange)?;
        Ok(())
    }

    /// The index of a vacant entry, which is to be filled at once.
    fn vacancy(&mut self) -> Result<u32, LendError> {
        if let Some(index) = self.vacant.pop() {
            return Ok(index);
        }
        let index = u32::try_from(self.entries.len()).map_err(|_| LendError::TooMany)?;
        apart::push(&mut self.entries, Entry::vacant());
        apart::push(&mut self.generations, 0);
        Ok(index)
    }

    /// Lends `len` bytes from offset `start` of a region.
    ///
    /// # Errors
    /// [`LendError`]; nothing has been lent.
    pub fn lend(&mut self, id: RegionId, start: usize, len: usize) -> Result<Loan, LendError> {
        let entry = self.entry(id).ok_or(LendError::UnknownRegion)?;
        let region = entry.region.as_ref().ok_or(LendError::UnknownRegion)?;
        if entry.closing {
            return Err(LendError::UnknownRegion);
        }
        if start.checked_add(len).is_none_or(|end| end > region.len()) {
            return Err(LendError::OutOfRange);
        }
        if entry.kind == Kind::Watched
            && let Sharing::Watched(watch) = region.sharing()
            && watch.is_outdated(start..start + len)
        {
            return Err(LendError::Refused(Refused::Busy));
        }
        self.take(id.index, start, len)
    }

    /// Lends a part of a loan once more: `len` bytes from offset `start` of the *region*, inside
    /// the range of `loan`.
    ///
    /// # Errors
    /// [`LendError`]; nothing has been lent.
    #[inline]
    pub fn lend_again(&mut self, loan: &Loan, start: usize, len: usize) -> Result<Loan, LendError> {
        self.check_inside(loan, start, len)?;
        self.take(loan.index, start, len)
    }

    /// Whether bytes of a region, at least one, lie inside a loan of this ledger.
    #[inline]
    pub(crate) fn check_inside(
        &self,
        loan: &Loan,
        start: usize,
        len: usize,
    ) -> Result<(), LendError> {
        let range = loan.range();
        if loan.ledger != self.id {
            Err(LendError::UnknownRegion)
        } else if start < range.start || start.checked_add(len).is_none_or(|end| end > range.end) {
            Err(LendError::OutOfRange)
        } else if len == 0 {
            Err(LendError::Empty)
        } else {
            Ok(())
        }
    }

    #[inline]
    fn take(&mut self, index: u32, start: usize, len: usize) -> Result<Loan, LendError> {
        if len == 0 {
            return Err(LendError::Empty);
        }
        let entry = self
            .entries
            .get(index as usize)
            .ok_or(LendError::UnknownRegion)?;
        let loans = entry.loans.checked_add(1).ok_or(LendError::TooMany)?;
        self.pin(index, start, len)?;
        if let Some(entry) = self.entries.get_mut(index as usize) {
            entry.loans = loans;
        }
        self.counters.loans += 1;
        Ok(Loan {
            ledger: self.id,
            index,
            start,
            len,
        })
    }

    /// Takes a loan back. If it was the last of a region that is being released, the region is
    /// ready for [`take_released`](Self::take_released).
    #[inline]
    pub fn give_back(&mut self, loan: Loan) {
        if loan.ledger != self.id {
            log::error!("a loan was given back to a ledger that had not lent it: it leaks");
            self.counters.strays += 1;
            return;
        }
        self.unpin(loan.index, loan.start, loan.len);
        self.counters.loans = self.counters.loans.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(loan.index as usize) else {
            return;
        };
        entry.loans = entry.loans.saturating_sub(1);
        self.retire_if_idle(loan.index);
    }

    /// Gives back the first `len` bytes of a loan (all of it if it has fewer); the rest stays
    /// lent. The loan itself, even when empty, is still to be given back.
    pub fn trim_front(&mut self, loan: &mut Loan, len: usize) {
        if loan.ledger != self.id {
            self.counters.strays += 1;
            return;
        }
        let len = len.min(loan.len);
        let Some(entry) = self.entries.get_mut(loan.index as usize) else {
            return;
        };
        // The page in which the rest begins stays pinned by it.
        let end = loan.start + len;
        let whole = if len == loan.len {
            len
        } else {
            let into_page = (entry.lead + end) & (entry.page.bytes() - 1);
            len.saturating_sub(into_page)
        };
        let start = loan.start;
        loan.start += len;
        loan.len -= len;
        if whole > 0 {
            self.unpin(loan.index, start, whole);
        }
    }

    /// Releases a region: nothing more of it is lent, and when the last loan has come back the
    /// ledger's share of it is handed out by [`take_released`](Self::take_released).
    ///
    /// # Errors
    /// [`LendError::UnknownRegion`].
    pub fn release(&mut self, id: RegionId) -> Result<(), LendError> {
        let entry = self.entry(id).filter(|entry| !entry.closing);
        entry.ok_or(LendError::UnknownRegion)?;
        if let Some(entry) = self.entries.get_mut(id.index as usize) {
            entry.closing = true;
        }
        self.retire_if_idle(id.index);
        Ok(())
    }

    pub(crate) fn retire(&mut self, index: u32) {
        let generation = self.generation(index);
        let Some(entry) = self.entries.get_mut(index as usize) else {
            return;
        };
        let id = RegionId {
            ledger: self.id,
            index,
            generation,
        };
        entry.pages = Box::default();
        match entry.kind {
            Kind::Owned => {}
            Kind::Watched => self.watched.retain(|watched| *watched != id),
            Kind::Live => self.live = self.live.saturating_sub(1),
        }
        if let Some(region) = entry.region.take() {
            self.released.push_back((id, region));
            apart::push(&mut self.vacant, index);
        }
    }

    /// The next region that was released and is lent no more, with the ledger's share of it,
    /// which is kept until it is taken. To have the region back as what it was, make an
    /// `Arc<dyn Any + Send + Sync>` of the share, then [`Arc::downcast`] and
    /// [`Arc::into_inner`].
    pub fn take_released(&mut self) -> Option<(RegionId, Arc<dyn Region>)> {
        self.released.pop_front()
    }

    /// The bytes of a loan: they do not change while it is out.
    ///
    /// # Errors
    /// [`LendError::UnknownRegion`] for a loan of another ledger, [`LendError::NoSlice`] if they
    /// are live, see [`copy_lent`](Self::copy_lent).
    #[inline]
    pub fn bytes<'a>(&'a self, loan: &'a Loan) -> Result<&'a [u8], LendError> {
        let entry = self.entry_of(loan)?;
        if entry.kind == Kind::Live {
            return Err(LendError::NoSlice);
        }
        let region = entry.region.as_ref().ok_or(LendError::UnknownRegion)?;
        // SAFETY: `lend` and `lend_again` checked that the loan's range lies in the region.
        let first = unsafe { region.base().add(loan.start) };
        // SAFETY: as above; the ledger has a share of the region, and `Region` promises readable
        // bytes that do not change while they are lent: they are as long as the loan exists and
        // is borrowed, and the ledger cannot take it back while `self` is borrowed.
        Ok(unsafe { core::slice::from_raw_parts(first.as_ptr(), loan.len) })
    }

    /// The device's view of `len` bytes from offset `start` of the region of a loan, see
    /// [`Translation::runs`](crate::Translation::runs); empty outside the loan.
    ///
    /// # Errors
    /// [`LendError::UnknownRegion`] for a loan of another ledger.
    #[inline]
    pub fn runs(&self, loan: &Loan, start: usize, len: usize) -> Result<Runs<'_>, LendError> {
        let region = self.region_of(loan)?;
        let range = loan.range();
        let inside = start >= range.start && start.checked_add(len).is_some_and(|e| e <= range.end);
        Ok(region
            .translation()
            .runs(start, if inside { len } else { 0 }))
    }

    #[inline]
    pub(crate) fn region_of(&self, loan: &Loan) -> Result<&Arc<dyn Region>, LendError> {
        let region = self.entry_of(loan)?.region.as_ref();
        region.ok_or(LendError::UnknownRegion)
    }

    #[inline]
    pub(crate) fn entry_of(&self, loan: &Loan) -> Result<&Entry, LendError> {
        self.entries
            .get(loan.index as usize)
            .filter(|_| loan.ledger == self.id)
            .ok_or(LendError::UnknownRegion)
    }

    fn generation(&self, index: u32) -> u64 {
        self.generations.get(index as usize).copied().unwrap_or(0)
    }

    pub(crate) fn entry(&self, id: RegionId) -> Option<&Entry> {
        self.entries
            .get(id.index as usize)
            .filter(|_| id.ledger == self.id && self.generation(id.index) == id.generation)
    }

    /// The regions that are watched.
    pub(crate) fn watched(&self) -> impl Iterator<Item = RegionId> {
        self.watched.iter().copied()
    }

    /// Whether a region is registered whose bytes can change while they are lent.
    #[must_use]
    #[inline]
    pub const fn has_live(&self) -> bool {
        self.live > 0
    }

    /// What has been counted.
    #[must_use]
    pub const fn counters(&self) -> LedgerCounters {
        self.counters
    }

    /// Bits that the addresses of the regions may have, at most 64.
    #[must_use]
    #[inline]
    pub const fn address_bits(&self) -> u8 {
        self.address_bits
    }

    /// The unit in which pages are counted, where a watcher has no longer one.
    #[must_use]
    pub const fn page(&self) -> Granule {
        self.page
    }

    /// Whose addresses the regions have.
    #[must_use]
    #[inline]
    pub const fn domain(&self) -> DomainId {
        self.domain
    }
}

/// The highest address of so many bits.
pub(crate) const fn highest(address_bits: u8) -> u64 {
    match 1u64.checked_shl(address_bits as u32) {
        Some(past) => past - 1,
        None => u64::MAX,
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let mut leaked = 0usize;
        for entry in &mut self.entries {
            if entry.is_lent()
                && let Some(region) = entry.region.take()
            {
                core::mem::forget(region);
                leaked += 1;
            }
        }
        // Said only when all are safe: the program's log may panic.
        if leaked > 0 {
            log::warn!(
                "{leaked} regions are leaked: {} loans are out",
                self.counters.loans
            );
        }
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "ledger_model_tests.rs"]
mod model_tests;

#[cfg(test)]
#[path = "ledger_watch_tests.rs"]
mod watch_tests;
