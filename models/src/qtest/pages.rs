//! Which pages of the machine's memory are free.

/// One flag per page.
pub(super) struct PageMap {
    used: Vec<bool>,
}

impl PageMap {
    /// `count` pages, of which the first `reserved` belong to nobody ever.
    pub(super) fn new(reserved: usize, count: usize) -> Self {
        let used = (0..count).map(|page| page < reserved).collect();
        Self { used }
    }

    /// Free pages.
    pub(super) fn free(&self) -> usize {
        self.used.iter().filter(|used| !**used).count()
    }

    /// Takes `count` neighbouring pages, the first a multiple of `align` (at least 1), at the
    /// lowest place where they are free.
    pub(super) fn take_run(&mut self, count: usize, align: usize) -> Option<usize> {
        let mut first = 0usize;
        loop {
            let run = self.used.get_mut(first..first.checked_add(count)?)?;
            match run.iter().rposition(|used| *used) {
                None => {
                    run.fill(true);
                    return Some(first);
                }
                Some(last_used) => first = (first + last_used + 1).next_multiple_of(align),
            }
        }
    }

    /// Takes `count` blocks of `size` pages, each aligned to its size, from the top down: so
    /// that none lies behind the one before it, and no two of them are contiguous in this order.
    pub(super) fn take_scattered(&mut self, count: usize, size: usize) -> Option<Vec<usize>> {
        let mut found = Vec::new();
        let blocks = self.used.len().checked_div(size)?;
        for first in (0..blocks).rev().map(|block| block * size) {
            if found.len() == count {
                break;
            }
            let block = self.used.get(first..first + size)?;
            if !block.contains(&true) {
                found.push(first);
            }
        }
        if found.len() < count {
            return None;
        }
        for first in &found {
            self.used.get_mut(*first..first + size)?.fill(true);
        }
        Some(found)
    }

    /// Takes back `count` pages from `first` on.
    pub(super) fn put(&mut self, first: usize, count: usize) {
        if let Some(pages) = self.used.get_mut(first..first.saturating_add(count)) {
            pages.fill(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_aligned_and_lowest_first() {
        let mut map = PageMap::new(3, 16);
        assert_eq!(map.free(), 13);
        assert_eq!(map.take_run(2, 1), Some(3));
        assert_eq!(map.take_run(1, 4), Some(8));
        assert_eq!(map.take_run(3, 1), Some(5));
        assert_eq!(map.take_run(8, 1), None);
        assert_eq!(map.take_run(7, 1), Some(9));
        assert_eq!(map.free(), 0);
        assert_eq!(map.take_run(1, 1), None);
        map.put(5, 3);
        assert_eq!(map.take_run(3, 1), Some(5));
    }

    #[test]
    fn scattered_blocks_are_never_neighbours_in_order() {
        let mut map = PageMap::new(1, 17);
        let blocks = map.take_scattered(3, 4).unwrap();
        assert_eq!(blocks, [12, 8, 4]);
        assert_eq!(map.take_scattered(1, 4), None);
        assert_eq!(map.free(), 4);
        // What cannot be had in full is not taken in part.
        assert_eq!(map.take_scattered(5, 1), None);
        assert_eq!(map.free(), 4);
        assert_eq!(map.take_scattered(4, 1).unwrap(), [16, 3, 2, 1]);
        map.put(8, 4);
        assert_eq!(map.take_scattered(1, 4).unwrap(), [8]);
        assert_eq!(map.take_scattered(1, 0), None);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let mut map = PageMap::new(1, 4);
        assert_eq!(map.take_run(usize::MAX, 1), None);
        map.put(usize::MAX, 2);
        map.put(3, 2);
        assert_eq!(map.free(), 3);
    }
}
