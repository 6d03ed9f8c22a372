use proptest::prelude::*;

use super::*;

const PAGE: u64 = 4096;

fn all(ranges: &Ranges) -> Vec<RangeInclusive<u64>> {
    ranges.iter().collect()
}

#[test]
fn the_interrupt_window_of_a_pc_is_left_out() {
    let usable = [0x1000..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff];
    let mut ranges = Ranges::new(usable, PAGE);
    // As much as lies below, and one page more.
    let below = 0xfee0_0000 - 0x1000;
    assert_eq!(
        ranges.take(below + PAGE, PAGE, 0, u64::MAX),
        Some(0xfef0_0000)
    );
    assert_eq!(ranges.take(below, PAGE, 0, u64::MAX), Some(0x1000));
    assert_eq!(ranges.take(PAGE, PAGE, 0, 0xffff_ffff), None);
}

#[test]
fn usable_ranges_may_be_ragged_overlap_touch_and_reach_the_end() {
    let usable = [
        0x5001..=0x7ffe,
        u64::MAX - 0x1fff..=u64::MAX,
        0x6000..=0x8fff,
        0x9000..=0x9fff,
        0x1..=0xffe,
        0x5000..=0x5000,
    ];
    let ranges = Ranges::new(usable, PAGE);
    assert_eq!(
        all(&ranges),
        [0x6000..=0x9fff, u64::MAX - 0x1fff..=u64::MAX]
    );
    let everything = Ranges::new(std::iter::once(0..=u64::MAX), PAGE);
    assert_eq!(everything.longest(), u64::MAX);
}

#[test]
fn the_last_addresses_can_be_taken_and_given_back() {
    let mut ranges = Ranges::new([u64::MAX - 0x1fff..=u64::MAX], PAGE);
    let whole = ranges.clone();
    assert_eq!(ranges.take(0x3000, PAGE, 0, u64::MAX), None);
    let first = ranges.take(PAGE, PAGE, 0, u64::MAX).unwrap();
    let second = ranges.take(PAGE, PAGE, 0, u64::MAX).unwrap();
    assert_eq!(second, u64::MAX - 0xfff);
    assert_eq!(ranges.longest(), 0);
    assert!(ranges.put(second, PAGE));
    assert!(ranges.put(first, PAGE));
    assert_eq!(ranges, whole);
}

#[test]
fn what_is_free_or_makes_no_sense_cannot_be_given_back() {
    let mut ranges = Ranges::new([0x1000..=0x3fff], PAGE);
    let whole = ranges.clone();
    assert!(!ranges.put(0x2000, PAGE));
    assert!(!ranges.put(0, 0x2000));
    assert!(!ranges.put(0x3000, 0x2000));
    assert!(!ranges.put(0, 0x10_0000));
    assert!(!ranges.put(0x8000, 0));
    assert!(!ranges.put(u64::MAX, 2));
    assert_eq!(ranges, whole);
    assert_eq!(ranges.take(0, PAGE, 0, u64::MAX), None);
}

/// Something to do with an allocator.
#[derive(Clone, Debug)]
enum Step {
    Take {
        pages: u64,
        align: u32,
        lead: u64,
        limit: u64,
    },
    Put(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let take =
        (1..40_u64, 0..6_u32, 0..64_u64, 0..200_u64).prop_map(|(pages, align, lead, limit)| {
            Step::Take {
                pages,
                align,
                lead,
                limit,
            }
        });
    let put = any::<prop::sample::Index>().prop_map(Step::Put);
    prop::collection::vec(prop_oneof![3 => take, 2 => put], 1..200)
}

proptest! {
    /// Against a plain table of pages: what is taken was free, is aligned and inside, and is the
    /// lowest place there is; `None` means that there was none; nothing is lost.
    #[test]
    fn pages_are_given_to_one_owner_each(
        usable in prop::collection::vec((0..256_u64, 0..64_u64), 0..6),
        steps in steps(),
    ) {
        let base = 0x10_0000;
        let usable: Vec<_> = usable
            .iter()
            .map(|(first, len)| base + first * PAGE..=base + (first + len) * PAGE - 1)
            .filter(|range| !range.is_empty())
            .collect();
        let mut ranges = Ranges::new(usable.clone(), PAGE);
        let whole = ranges.clone();
        let is_usable = |page: u64| usable.iter().any(|range| range.contains(&(base + page * PAGE)));
        let mut free: Vec<bool> = (0..400).map(is_usable).collect();
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Take { pages, align, lead, limit } => {
                    let align = 1_u64 << align;
                    let lead = lead % align;
                    let fits = |page: &u64| {
                        (base / PAGE + page) % align == lead
                            && page + pages <= limit
                            && (*page..page + pages).all(|page| {
                                free.get(page as usize).copied().unwrap_or(false)
                            })
                    };
                    let expected = (0..400).find(fits).map(|page| base + page * PAGE);
                    let limit = base + limit * PAGE - 1;
                    let found = ranges.take(pages * PAGE, align * PAGE, lead * PAGE, limit);
                    prop_assert_eq!(found, expected);
                    if let Some(start) = found {
                        let first = (start - base) / PAGE;
                        (first..first + pages).for_each(|page| free[page as usize] = false);
                        taken.push((first, pages));
                    }
                }
                Step::Put(index) if !taken.is_empty() => {
                    let (first, pages) = taken.swap_remove(index.index(taken.len()));
                    prop_assert!(ranges.put(base + first * PAGE, pages * PAGE));
                    (first..first + pages).for_each(|page| free[page as usize] = true);
                    prop_assert!(!ranges.put(base + first * PAGE, pages * PAGE));
                }
                Step::Put(_) => {}
            }
        }
        for (first, pages) in taken {
            prop_assert!(ranges.put(base + first * PAGE, pages * PAGE));
        }
        prop_assert_eq!(ranges, whole);
    }
}
