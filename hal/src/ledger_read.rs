//! Reading what is lent, or could be, with the CPU.

use core::ops::Range;

use crate::ledger_entry::Kind;
use crate::{Ledger, LendError, Loan, RegionId, Sharing};

impl Ledger {
    /// Fills `into` with bytes of a loan from offset `start` of its region on, of whatever kind:
    /// as they were when they were lent, or as they are now where they are live.
    ///
    /// # Errors
    /// [`LendError::UnknownRegion`] for a loan of another ledger; [`LendError::OutOfRange`].
    pub fn copy_lent(&self, loan: &Loan, start: usize, into: &mut [u8]) -> Result<(), LendError> {
        let range = loan.range();
        let end = start.checked_add(into.len());
        if start < range.start || end.is_none_or(|end| end > range.end) {
            return Err(LendError::OutOfRange);
        }
        if let Sharing::Live(live) = self.region_of(loan)?.sharing() {
            live.copy_to(start, into);
            return Ok(());
        }
        let bytes = self.bytes(loan)?;
        let bytes = bytes.get(start - range.start..).unwrap_or_default();
        into.copy_from_slice(bytes.get(..into.len()).ok_or(LendError::OutOfRange)?);
        Ok(())
    }

    /// Fills `into` with bytes of a region from offset `start` on as they are now, lent or not: what
    /// is copied instead of lent.
    ///
    /// # Errors
    /// [`LendError::UnknownRegion`], [`LendError::OutOfRange`], or what the watcher says.
    pub fn copy_now(&self, id: RegionId, start: usize, into: &mut [u8]) -> Result<(), LendError> {
        let entry = self.entry(id).filter(|entry| !entry.closing);
        let region = entry.and_then(|entry| entry.region.as_ref());
        let region = region.ok_or(LendError::UnknownRegion)?;
        let end = start.checked_add(into.len());
        if end.is_none_or(|end| end > region.len()) {
            return Err(LendError::OutOfRange);
        }
        match region.sharing() {
            Sharing::Watched(watch) => watch.copy_to(start, into).map_err(LendError::Refused),
            Sharing::Live(live) => {
                live.copy_to(start, into);
                Ok(())
            }
            Sharing::Owned => {
                // SAFETY: the range lies in the region.
                let first = unsafe { region.base().add(start) };
                // SAFETY: as above; `Region` promises readable, initialised bytes. They change
                // through `&mut` to the region only, which nobody can have while the ledger has a
                // share of it.
                let bytes = unsafe { core::slice::from_raw_parts(first.as_ptr(), into.len()) };
                into.copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Who keeps the bytes of a region as they are; `None` if it is not registered here.
    #[must_use]
    pub fn sharing(&self, id: RegionId) -> Option<Sharing<'_>> {
        let region = self.entry(id)?.region.as_ref()?;
        Some(region.sharing())
    }

    /// Whether the bytes of a loan can change while it is out.
    #[must_use]
    #[inline]
    pub fn is_live(&self, loan: &Loan) -> bool {
        self.entry_of(loan)
            .is_ok_and(|entry| entry.kind == Kind::Live)
    }

    /// Whether the region of a loan has a watcher, see [`Sharing::Watched`].
    #[must_use]
    #[inline]
    pub fn is_watched(&self, loan: &Loan) -> bool {
        self.entry_of(loan)
            .is_ok_and(|entry| entry.kind == Kind::Watched)
    }

    /// Calls `each` for what is lent and somebody waits to write to, as ranges of offsets into
    /// regions, see [`Watch::wanted`](crate::Watch::wanted). They are whole pages in the unit in which
    /// the region's are counted, as less than that is not given back.
    pub fn wanted(&self, each: &mut dyn FnMut(RegionId, Range<usize>)) {
        for id in self.watched() {
            if let Some(Sharing::Watched(watch)) = self.sharing(id)
                && let Some(entry) = self.entry(id)
                && watch.has_wanted()
            {
                let len = entry.region.as_ref().map_or(0, |region| region.len());
                watch.wanted(&mut |range| each(id, entry.whole_pages(&range, len)));
            }
        }
    }

    /// The first of these bytes in a row that share a page, in the unit in which the region's are
    /// counted, with what is lent and somebody waits to write to: who lends them once more lets him
    /// wait for longer. Costs next to nothing where nobody waits.
    #[must_use]
    pub fn first_wanted(&self, id: RegionId, range: Range<usize>) -> Option<Range<usize>> {
        let Some(Sharing::Watched(watch)) = self.sharing(id) else {
            return None;
        };
        if !watch.has_wanted() {
            return None;
        }
        let entry = self.entry(id)?;
        let len = entry.region.as_ref()?.len();
        let first = watch.first_wanted(entry.whole_pages(&range, len))?;
        let pages = entry.whole_pages(&first, len);
        Some(pages.start.max(range.start)..pages.end.min(range.end))
    }
}
