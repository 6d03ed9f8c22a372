//! Reading what is lent, or could be, with the CPU.

use crate::ledger_entry::Kind;
use crate::{Ledger, LendError, Loan, RegionId, Sharing};

impl Ledger {
    /// Calls `each` with `len` bytes from offset `start` of the region of a loan, inside its range,
    /// in order, in as few slices as can be: almost always one.
    ///
    /// # Errors
    /// [`LendError::UnknownRegion`] for a loan of another ledger; [`LendError::OutOfRange`];
    /// [`LendError::NoSlice`] for live bytes, which only [`copy_lent`](Self::copy_lent) can read.
    /// Before an error `each` may have been called.
    #[inline]
    pub fn read(
        &self,
        loan: &Loan,
        start: usize,
        len: usize,
        each: &mut dyn FnMut(&[u8]),
    ) -> Result<(), LendError> {
        let entry = self.entry_of(loan)?;
        let end = start.checked_add(len).ok_or(LendError::OutOfRange)?;
        let range = loan.range();
        if start < range.start || end > range.end {
            return Err(LendError::OutOfRange);
        }
        let mut at = start;
        while at < end {
            let (place, row) = entry.place(at).ok_or(LendError::NoSlice)?;
            let row = row.min(end - at);
            // SAFETY: the range lies in the loan, so in the region, and is lent: `Region` or its
            // watcher promises that these bytes are readable there and do not change as long as
            // the loan is out, which it is while it is borrowed.
            each(unsafe { core::slice::from_raw_parts(place.as_ptr(), row) });
            at += row;
        }
        Ok(())
    }

    /// Fills `into` with bytes of a loan from offset `start` of its region on, of whatever kind:
    /// as they were when they were lent, or as they are now where they are live.
    ///
    /// # Errors
    /// As for [`read`](Self::read), but for live bytes.
    pub fn copy_lent(&self, loan: &Loan, start: usize, into: &mut [u8]) -> Result<(), LendError> {
        let range = loan.range();
        let end = start.checked_add(into.len());
        if start < range.start || end.is_none_or(|end| end > range.end) {
            return Err(LendError::OutOfRange);
        }
        let region = self.region_of(loan)?;
        if let Sharing::Live(live) = region.sharing() {
            live.copy_to(start, into);
            return Ok(());
        }
        let mut filled = 0;
        self.read(loan, start, into.len(), &mut |bytes| {
            if let Some(part) = into.get_mut(filled..filled + bytes.len()) {
                part.copy_from_slice(bytes);
            }
            filled += bytes.len();
        })
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

    /// Calls `each` for what is lent and somebody waits to write to, as ranges of offsets into
    /// regions, see [`Watch::wanted`](crate::Watch::wanted).
    pub fn wanted(&self, each: &mut dyn FnMut(RegionId, core::ops::Range<usize>)) {
        for id in self.watched() {
            if let Some(Sharing::Watched(watch)) = self.sharing(id)
                && watch.has_wanted()
            {
                watch.wanted(&mut |range| each(id, range));
            }
        }
    }
}
