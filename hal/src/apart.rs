//! Heap memory of a queue that shares no cache line with the memory of another queue.
//!
//! Allocators put small allocations side by side. Where two threads have a queue each, and one has
//! made both, a line would then hold the end of one queue's books and the beginning of the other's,
//! and travel between the processors with every frame. So each of these allocations ends in bytes
//! that nobody uses.

use alloc::vec::Vec;

/// Bytes that stay unused behind the items: a cache line, and the neighbour that processors fetch
/// with it.
const MARGIN: usize = 128;

/// Items that stay unused at the end of each allocation.
pub(crate) const fn spare<T>() -> usize {
    match size_of::<T>() {
        0 => 0,
        size => MARGIN.div_ceil(size),
    }
}

/// Adds an item; where that takes new memory, it has room for more and the unused bytes.
#[inline]
pub(crate) fn push<T>(items: &mut Vec<T>, item: T) {
    make_room(items, 1);
    items.push(item);
}

/// Makes sure that `additional` items can be pushed without touching the unused bytes.
#[inline]
pub(crate) fn make_room<T>(items: &mut Vec<T>, additional: usize) {
    let wanted = additional.saturating_add(spare::<T>());
    if items.capacity() - items.len() < wanted {
        items.reserve(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_allocation_stays_unused() {
        let mut items = Vec::new();
        for number in 0..10_000u32 {
            push(&mut items, number);
            assert!(items.capacity() - items.len() >= 128 / size_of::<u32>());
        }
        let mut large = Vec::new();
        push(&mut large, [0u8; 100]);
        assert!(large.capacity() >= 3);
        make_room(&mut large, 5);
        assert!(large.capacity() >= 8);
        assert_eq!(spare::<()>(), 0);
    }
}
