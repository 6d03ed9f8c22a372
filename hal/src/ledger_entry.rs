//! One region in a ledger: how often each of its pages is lent, and what its watcher is told.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;

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
                    watch.release(self.offsets(&run, all));
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
                watch.release(self.offsets(&run, all));
                Ok(())
            });
        }
    }

    /// Whether lent bytes are where the region has them, for the CPU to read.
    pub(crate) fn in_place(&self, start: usize, len: usize) -> bool {
        let mut at = start;
        while at - start < len {
            match self.place(at) {
                None => return false,
                Some((place, row)) => {
                    let usual = self.region.as_ref().map(|region| region.base());
                    if usual.map(|base| base.as_ptr().wrapping_byte_add(at)) != Some(place.as_ptr())
                    {
                        return false;
                    }
                    at += row;
                }
            }
        }
        true
    }

    /// Where the CPU finds lent bytes from an offset on, and how many in a row; `None` if nowhere.
    pub(crate) fn place(&self, start: usize) -> Option<(NonNull<u8>, usize)> {
        let region = self.region.as_ref()?;
        let rest = region.len().checked_sub(start).filter(|rest| *rest > 0)?;
        let elsewhere = match region.sharing() {
            Sharing::Live(_) => return None,
            Sharing::Owned => None,
            Sharing::Watched(watch) => watch.place(start),
        };
        Some(match elsewhere {
            Some((place, row)) => (place, row.clamp(1, rest)),
            // SAFETY: the offset is less than the region's length.
            None => (unsafe { region.base().add(start) }, rest),
        })
    }
}
