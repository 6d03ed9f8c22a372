//! Where the bytes of a page are that was written although somebody still wants them as they were.
//! No system call in here.

use std::collections::BTreeMap;

/// Old bytes of a page.
struct Version {
    /// They are those of everybody who kept the page before this time, and after the version before.
    made: u64,
    /// The slot that has them.
    slot: usize,
}

/// A page of the pool.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Of which page it has old bytes; nothing without holders and loans.
    page: usize,
    /// Those who keep them.
    holders: u32,
    /// Loans to the device.
    loans: u32,
}

/// Pages set aside for old bytes.
pub(crate) struct Pool {
    slots: Box<[Slot]>,
    free: Vec<usize>,
    versions: BTreeMap<usize, Vec<Version>>,
    /// Counts versions.
    now: u64,
}

impl Pool {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots: vec![Slot::default(); slots].into_boxed_slice(),
            free: (0..slots).rev().collect(),
            versions: BTreeMap::new(),
            now: 0,
        }
    }

    /// The time: who keeps a page from now on wants what it has now.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Slots that have something.
    pub(crate) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A slot for what a page has now, for so many who keep it.
    pub(crate) fn take(&mut self, page: usize, holders: u32) -> Option<usize> {
        let slot = self.free.pop()?;
        self.now += 1;
        *self.slots.get_mut(slot)? = Slot {
            page,
            holders,
            loans: 0,
        };
        let version = Version {
            made: self.now,
            slot,
        };
        self.versions.entry(page).or_default().push(version);
        Some(slot)
    }

    /// The slot that has what a page had at a time; `None` if the page itself still has it.
    pub(crate) fn find(&self, page: usize, since: u64) -> Option<usize> {
        let mut versions = self.versions.get(&page)?.iter();
        // Ascending: the first that was made later.
        let version = versions.find(|version| version.made > since)?;
        Some(version.slot)
    }

    /// One keeps it no more.
    pub(crate) fn let_go(&mut self, slot: usize) {
        if let Some(of) = self.slots.get_mut(slot) {
            of.holders = of.holders.saturating_sub(1);
        }
        self.settle(slot);
    }

    /// Lends a slot to the device; false if that cannot be counted.
    pub(crate) fn lend(&mut self, slot: usize) -> bool {
        let counted = self.slots.get_mut(slot).and_then(|slot| {
            slot.loans = slot.loans.checked_add(1)?;
            Some(())
        });
        counted.is_some()
    }

    /// Takes a loan of a slot back.
    pub(crate) fn release(&mut self, slot: usize) {
        if let Some(of) = self.slots.get_mut(slot) {
            of.loans = of.loans.saturating_sub(1);
        }
        self.settle(slot);
    }

    /// Frees a slot that nobody wants.
    fn settle(&mut self, slot: usize) {
        let Some(of) = self.slots.get(slot) else {
            return;
        };
        if of.holders > 0 {
            return;
        }
        if let Some(versions) = self.versions.get_mut(&of.page) {
            versions.retain(|version| version.slot != slot);
            if versions.is_empty() {
                self.versions.remove(&of.page);
            }
        }
        if of.loans == 0 {
            self.free.push(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finds_what_the_page_had_when_it_was_kept() {
        let mut pool = Pool::new(2);
        let first = pool.now();
        let a = pool.take(7, 2).unwrap();
        let second = pool.now();
        let b = pool.take(7, 1).unwrap();
        assert_eq!(
            (pool.find(7, first), pool.find(7, second)),
            (Some(a), Some(b))
        );
        assert_eq!(
            (pool.find(7, pool.now()), pool.find(6, first)),
            (None, None)
        );
        assert_eq!(pool.take(8, 1), None);
        pool.let_go(b);
        assert_eq!((pool.find(7, second), pool.used()), (None, 1));
        // Kept by nobody, but lent: it stays, and is found by nobody.
        assert!(pool.lend(a));
        pool.let_go(a);
        assert_eq!(pool.find(7, first), Some(a));
        pool.let_go(a);
        assert_eq!((pool.find(7, first), pool.used()), (None, 1));
        pool.release(a);
        assert_eq!(pool.used(), 0);
        assert!(pool.take(1, 1).is_some() && pool.take(2, 1).is_some());
    }
}
