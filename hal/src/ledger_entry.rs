//! One region in a ledger: how often each of its pages is lent, and what its watcher is told.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use crate::apart;
use crate::{Granule, LendError, Refused, Region, Sharing, Watch};

/// [`Sharing`] without what it borrows, to be looked at on the way of every frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Owned,
    Watched,
    Live,
}

pub(crate) struct Entry {
    pub(crate) region: Option<Arc<dyn Region>>,
    pub(crate) generation: u64,
    pub(crate) loans: u32,
    pub(crate) closing: bool,
    pub(crate) kind: Kind,
    /// The unit in which pages are counted.
    pub(crate) page: Granule,
    /// Bytes between the start of the first page and the start of the region.
    pub(crate) lead: usize,
    /// Loans that touch each page.
    pub(crate) pages: Box<[u32]>,
}

/// A count of zero for each of `pages` pages, and some that nobody uses, see [`apart`].
pub(crate) fn counts(pages: usize) -> Result<Box<[u32]>, LendError> {
    let pages = pages
        .checked_add(apart::spare::<u32>())
        .ok_or(LendError::TooMany)?;
    let mut counts = Vec::new();
    counts
        .try_reserve_exact(pages)
        .map_err(|_| LendError::TooMany)?;
    counts.resize(pages, 0);
    Ok(counts.into_boxed_slice())
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
            region: None,
            generation: 0,
            loans: 0,
            closing: false,
            kind: Kind::Owned,
            page: Granule::CONTIGUOUS,
            lead: 0,
            pages: Box::default(),
        }
    }

    /// The pages that bytes touch.
    #[inline]
    fn indices(&self, start: usize, len: usize) -> Range<usize> {
        if len == 0 {
            return 0..0;
        }
        let first = self.lead + start;
        first >> self.page.log2()..((first + (len - 1)) >> self.page.log2()) + 1
    }

    /// Their counts.
    #[inline]
    pub(crate) fn touched(&mut self, start: usize, len: usize) -> &mut [u32] {
        let indices = self.indices(start, len);
        self.pages.get_mut(indices).unwrap_or_default()
    }

    /// The offsets into the region that pages have.
    fn offsets(&self, pages: &Range<usize>, len: usize) -> Range<usize> {
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
            let free = self.pages.get(index).is_some_and(|count| *count == 0);
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
