//! Which addresses are free: for the device's address space, and inside a piece of memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// Free addresses, as ranges that neither overlap nor touch. Ranges are inclusive, as the last
/// address may be the last that 64 bits can say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ranges {
    /// First address to last.
    free: BTreeMap<u64, u64>,
}

impl Ranges {
    /// All of `usable`, which may overlap and have any order, shrunk to whole units of `unit`
    /// addresses (a power of two).
    pub(crate) fn new(usable: impl IntoIterator<Item = RangeInclusive<u64>>, unit: u64) -> Self {
        let mask = unit.wrapping_sub(1);
        let mut whole: Vec<(u64, u64)> = usable
            .into_iter()
            .filter_map(|range| {
                let first = range.start().checked_add(mask)? & !mask;
                // The last address of the last unit that ends inside.
                let last = match range.end().checked_add(1) {
                    Some(behind) => (behind & !mask).checked_sub(1)?,
                    None => u64::MAX,
                };
                (first <= last).then_some((first, last))
            })
            .collect();
        whole.sort_unstable();
        let mut free: BTreeMap<u64, u64> = BTreeMap::new();
        for (first, last) in whole {
            match free.last_entry() {
                Some(mut before) if *before.get() >= first.saturating_sub(1) => {
                    let joined = (*before.get()).max(last);
                    before.insert(joined);
                }
                _ => {
                    free.insert(first, last);
                }
            }
        }
        Self { free }
    }

    /// Takes `len` addresses, at the lowest place where they are free, whose first is `lead`
    /// more than a multiple of `align` (a power of two, more than `lead`) and whose last is at
    /// most `limit`.
    pub(crate) fn take(&mut self, len: u64, align: u64, lead: u64, limit: u64) -> Option<u64> {
        let behind_first = len.checked_sub(1)?;
        let (from, to, start) = self.free.iter().find_map(|(from, to)| {
            let start = fit(*from, align, lead)?;
            let last = start.checked_add(behind_first)?;
            (last <= *to && last <= limit).then_some((*from, *to, start))
        })?;
        self.free.remove(&from);
        if from < start {
            self.free.insert(from, start - 1);
        }
        let last = start + behind_first;
        if last < to {
            self.free.insert(last + 1, to);
        }
        Some(start)
    }

    /// Gives back `len` addresses from `start` on. Refuses, and changes nothing, if one of them
    /// is free already, or if there are none or too many.
    #[must_use]
    pub(crate) fn put(&mut self, start: u64, len: u64) -> bool {
        let Some(last) = len.checked_sub(1).and_then(|more| start.checked_add(more)) else {
            return false;
        };
        let before = self.free.range(..=last).next_back();
        let before = before.map(|(from, to)| (*from, *to));
        if before.is_some_and(|(_, to)| to >= start) {
            return false;
        }
        let mut joined = (start, last);
        if let Some((from, to)) = before
            && to.checked_add(1) == Some(start)
        {
            self.free.remove(&from);
            joined.0 = from;
        }
        if let Some(behind) = last.checked_add(1)
            && let Some(to) = self.free.remove(&behind)
        {
            joined.1 = to;
        }
        self.free.insert(joined.0, joined.1);
        true
    }

    /// The free ranges, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.free.iter().map(|(from, to)| *from..=*to)
    }

    /// The longest free range, in addresses, at most [`u64::MAX`].
    pub(crate) fn longest(&self) -> u64 {
        let lengths = self.free.iter().map(|(from, to)| to - from);
        lengths.max().map_or(0, |most| most.saturating_add(1))
    }
}

/// The lowest address from `from` on that is `lead` more than a multiple of `align`.
fn fit(from: u64, align: u64, lead: u64) -> Option<u64> {
    let mask = align.checked_sub(1)?;
    from.checked_add(lead.wrapping_sub(from) & mask)
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
