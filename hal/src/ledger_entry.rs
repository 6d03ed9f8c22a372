//! One region in a ledger: how often each of its pages is lent, and what its watcher is told.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use crate::apart;
use crate::ledger_hold::HoldError;
use crate::{DeviceAddress, GatherList, Granule, LendError, Refused, Region, Sharing, Watch};

/// [`Sharing`] without what it borrows, to be looked at on the way of every frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Owned,
    Watched,
    Live,
}

pub(crate) struct Entry {
    /// How often each page is lent, and where the device finds it.
    pub(crate) pages: Box<[Page]>,
    /// Bytes between the start of the first page and the start of the region.
    pub(crate) lead: usize,
    /// The bits of an address above those of an offset into a page.
    pub(crate) above: usize,
    pub(crate) region: Option<Arc<dyn Region>>,
    /// Loans that are out; what a port holds for its device is counted by page only.
    pub(crate) loans: u32,
    /// Pages that are lent.
    pub(crate) pinned: u32,
    /// The unit in which pages are counted.
    pub(crate) page: Granule,
    pub(crate) kind: Kind,
    pub(crate) closing: bool,
}

/// The page is not one run for the device.
const SCATTERED: u32 = 1 << 31;

/// A page of a region: where the device finds it, and who has it. Both in one word each, as each
/// fragment of each frame looks at both.
#[derive(Clone, Copy, Default)]
pub(crate) struct Page {
    /// Where the device finds the first byte of the page (which may lie before the region), or
    /// nothing if it is [`SCATTERED`].
    address: u64,
    /// Loans that touch it, and [`SCATTERED`].
    count: u32,
}

impl Page {
    /// Loans that touch it.
    #[inline]
    pub(crate) const fn count(self) -> u32 {
        self.count & !SCATTERED
    }

    /// Whether one more can be counted.
    #[inline]
    pub(crate) const fn has_room(self) -> bool {
        self.count() < !SCATTERED
    }

    /// Where the device finds its first byte, if it is one run.
    #[inline]
    pub(crate) fn address(self) -> Option<DeviceAddress> {
        (self.count & SCATTERED == 0).then_some(DeviceAddress(self.address))
    }

    /// Counts one more, for whom there is [room](Self::has_room); whether it is the first.
    #[inline]
    pub(crate) fn add(&mut self) -> bool {
        self.count += 1;
        self.count() == 1
    }

    /// Counts one less, if there is one; whether it was the last.
    #[inline]
    pub(crate) fn remove(&mut self) -> bool {
        let is_lent = self.count() > 0;
        self.count -= u32::from(is_lent);
        is_lent && self.count() == 0
    }

    /// Counts one more of a page that is lent already and is one run, and returns its address: the
    /// short way. The highest bit of the count is set if it is not one run, or as good as full.
    #[inline(always)]
    pub(crate) fn add_another(&mut self) -> Option<u64> {
        if self.count.cast_signed() <= 0 || self.count == !SCATTERED {
            return None;
        }
        self.count += 1;
        Some(self.address)
    }

    /// Counts one less of a page that is one run and stays lent; whether that is so.
    #[inline(always)]
    pub(crate) fn remove_another(&mut self) -> bool {
        if self.count.cast_signed() <= 1 {
            return false;
        }
        self.count -= 1;
        true
    }
}

/// The pages of `region`, of which none is lent, and some that nobody uses, see [`apart`].
pub(crate) fn pages(
    region: &dyn Region,
    page: Granule,
    lead: usize,
) -> Result<Box<[Page]>, LendError> {
    let len = region.len();
    let last = lead.checked_add(len - 1).ok_or(LendError::OutOfRange)?;
    let count = (last >> page.log2()) + 1;
    // Numbers of pages are kept in 32 bits.
    u32::try_from(count).map_err(|_| LendError::TooMany)?;
    let mut pages = Vec::new();
    let spare = apart::spare::<Page>();
    let wanted = count.checked_add(spare).ok_or(LendError::TooMany)?;
    pages
        .try_reserve_exact(wanted)
        .map_err(|_| LendError::TooMany)?;
    let translation = region.translation();
    for index in 0..count {
        let begin = index << page.log2();
        let start = begin.saturating_sub(lead);
        let end = (begin + (page.bytes() - 1)).saturating_sub(lead);
        let end = end.min(len - 1) + 1;
        let run = translation.runs(start, end - start).next();
        pages.push(match run {
            Some(run) if run.len == end - start => Page {
                address: run.address.0.wrapping_sub((lead + start - begin) as u64),
                count: 0,
            },
            _ => Page {
                address: 0,
                count: SCATTERED,
            },
        });
    }
    pages.resize(wanted, Page::default());
    Ok(pages.into_boxed_slice())
}

/// The longer of two units.
pub(crate) const fn longer(one: Granule, other: Granule) -> Granule {
    if one.log2() < other.log2() {
        other
    } else {
        one
    }
}

impl Entry {
    /// A place without a region.
    pub(crate) fn vacant() -> Self {
        Self {
            pages: Box::default(),
            lead: 0,
            above: 0,
            region: None,
            loans: 0,
            pinned: 0,
            page: Granule::CONTIGUOUS,
            kind: Kind::Owned,
            closing: false,
        }
    }

    /// Whether a part of the region is lent.
    #[inline]
    pub(crate) const fn is_lent(&self) -> bool {
        self.loans > 0 || self.pinned > 0
    }

    /// The pages that bytes touch.
    #[inline]
    pub(crate) fn indices(&self, start: usize, len: usize) -> Range<usize> {
        if len == 0 {
            return 0..0;
        }
        let first = self.lead + start;
        first >> self.page.log2()..((first + (len - 1)) >> self.page.log2()) + 1
    }

    /// The same, to count.
    #[inline]
    pub(crate) fn touched(&mut self, start: usize, len: usize) -> &mut [Page] {
        let indices = self.indices(start, len);
        self.pages.get_mut(indices).unwrap_or_default()
    }

    /// Adds the pieces of bytes to a list, as the region translates them.
    pub(crate) fn gather(
        &self,
        start: usize,
        len: usize,
        gather: &mut GatherList,
    ) -> Result<(), HoldError> {
        let unknown = HoldError::Lend(LendError::UnknownRegion);
        let region = self.region.as_ref().ok_or(unknown)?;
        let mut translated = 0;
        for run in region.translation().runs(start, len) {
            translated += run.len;
            gather.push(run)?;
        }
        // A translation that ends early would put other bytes on the wire.
        if translated == len {
            Ok(())
        } else {
            Err(HoldError::Lend(LendError::OutOfRange))
        }
    }

    /// The offsets into the region that pages have.
    pub(crate) fn offsets(&self, pages: &Range<usize>, len: usize) -> Range<usize> {
        let offset = |page: usize| (page << self.page.log2()).saturating_sub(self.lead);
        offset(pages.start)..offset(pages.end).min(len)
    }

    /// These bytes of a region of `len`, and those that share a page with them.
    pub(crate) fn whole_pages(&self, bytes: &Range<usize>, len: usize) -> Range<usize> {
        let bytes = bytes.start.min(len)..bytes.end.min(len);
        self.offsets(&self.indices(bytes.start, bytes.len()), len)
    }

    /// The region's watcher, and the region's length.
    fn watch(&self) -> Option<(&dyn Watch, usize)> {
        let region = self.region.as_ref()?;
        match region.sharing() {
            Sharing::Watched(watch) => Some((watch, region.len())),
            Sharing::Owned | Sharing::Live(_) => None,
        }
    }

    /// Calls `each` for the runs of pages that nobody has, of those that bytes touch, until it
    /// fails; then for none, but `undo` for those before.
    fn free_runs(
        &self,
        start: usize,
        len: usize,
        mut each: impl FnMut(Range<usize>) -> Result<(), Refused>,
    ) -> Result<(), (Refused, usize)> {
        let indices = self.indices(start, len);
        let mut run: Option<Range<usize>> = None;
        for index in indices.clone() {
            let free = self.pages.get(index).is_some_and(|page| page.count() == 0);
            if free {
                run = Some(run.map_or(index, |run| run.start)..index + 1);
            } else if let Some(run) = run.take() {
                let begin = run.start;
                each(run).map_err(|why| (why, begin))?;
            }
        }
        match run {
            Some(run) => {
                let begin = run.start;
                each(run).map_err(|why| (why, begin))
            }
            None => Ok(()),
        }
    }

    /// Tells the watcher of the pages that nobody has yet. They are to be counted next.
    pub(crate) fn begin_watch(&self, start: usize, len: usize) -> Result<(), LendError> {
        let (watch, all) = self.watch().ok_or(LendError::UnknownRegion)?;
        let lent = self.free_runs(start, len, |run| watch.lend(self.offsets(&run, all)));
        lent.map_err(|(why, failed)| {
            let before = (failed << self.page.log2()).saturating_sub(self.lead);
            if before > start {
                // Cannot fail, as it asks for nothing.
                let _ = self.free_runs(start, before - start, |run| {
                    // SAFETY: these runs were lent a moment ago, and those after them not.
                    unsafe { watch.release(self.offsets(&run, all)) };
                    Ok(())
                });
            }
            LendError::Refused(why)
        })
    }

    /// Tells the watcher of the pages that nobody has any more, of those that were counted down.
    pub(crate) fn end_watch(&self, start: usize, len: usize) {
        if let Some((watch, all)) = self.watch() {
            // Cannot fail, as it asks for nothing.
            let _ = self.free_runs(start, len, |run| {
                // SAFETY: a loan had all of these pages, and those that count 0 now counted 1
                // before: they were lent when that began.
                unsafe { watch.release(self.offsets(&run, all)) };
                Ok(())
            });
        }
    }
}
