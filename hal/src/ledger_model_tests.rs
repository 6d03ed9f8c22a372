//! The books against naive ones: every step at random.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::test_support::{HeapRegion, World, config, pattern, seed};

#[derive(Clone, Debug)]
enum Step {
    Register { len: usize, lead: usize },
    Lend(usize, usize, usize),
    Again(usize, usize, usize),
    Trim(usize, usize),
    GiveBack(usize),
    Lose(usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0usize..300;
    prop_oneof![
        2 => (1usize..200, 0usize..64).prop_map(|(len, lead)| Step::Register { len, lead }),
        8 => (n.clone(), n.clone(), n.clone()).prop_map(|(r, s, l)| Step::Lend(r, s, l)),
        8 => (n.clone(), n.clone(), n.clone()).prop_map(|(r, s, l)| Step::Again(r, s, l)),
        4 => (n.clone(), n.clone()).prop_map(|(l, n)| Step::Trim(l, n)),
        6 => n.clone().prop_map(Step::GiveBack),
        1 => n.clone().prop_map(Step::Lose),
        1 => n.prop_map(Step::Release),
    ]
}

/// What the books must say, kept in the simplest way: all loans, as sets of pages.
#[derive(Default)]
struct Naive {
    regions: Vec<(RegionId, Arc<HeapRegion>, bool)>,
    /// Region, range; those that were lost too.
    loans: BTreeMap<usize, (usize, Range<usize>)>,
    peak: usize,
    released: BTreeSet<usize>,
}

impl Naive {
    fn pinned(&self, page: Granule) -> usize {
        let pages: BTreeSet<_> = self
            .loans
            .values()
            .flat_map(|(region, range)| {
                let base = self.regions[*region].1.base().addr().get();
                range
                    .clone()
                    .map(move |at| (*region, (base + at) / page.bytes()))
            })
            .collect();
        pages.len()
    }

    fn free(&self, region: usize) -> bool {
        self.regions[region].2 && !self.loans.values().any(|(r, _)| *r == region)
    }
}

fn pick<T>(of: &[T], n: usize) -> Option<usize> {
    (!of.is_empty()).then(|| n % of.len())
}

/// A part of `range`, or one that reaches a little over its ends.
fn part(range: &Range<usize>, a: usize, b: usize) -> (usize, usize) {
    let start =
        (range.start + a % (range.len() + 2)).saturating_sub(usize::from(a.is_multiple_of(17)));
    (start, b % (range.end.saturating_sub(start) + 2))
}

/// What lending `len` bytes from `start` must say, inside `range`.
fn expected(range: Range<usize>, start: usize, len: usize) -> Result<(), LendError> {
    if start < range.start || start + len > range.end {
        Err(LendError::OutOfRange)
    } else if len == 0 {
        Err(LendError::Empty)
    } else {
        Ok(())
    }
}

struct Pair {
    world: World,
    ledger: Ledger,
    page: Granule,
    naive: Naive,
    /// Loans that are out and at hand, with their names in the naive books.
    held: Vec<(usize, Loan)>,
    next: usize,
}

impl Pair {
    fn lent(&mut self, region: usize, start: usize, len: usize, loan: Loan) {
        self.naive
            .loans
            .insert(self.next, (region, start..start + len));
        self.held.push((self.next, loan));
        self.next += 1;
        self.naive.peak = self.naive.peak.max(self.naive.pinned(self.page));
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        let seed = seed();
        match step {
            Step::Register { len, lead } => {
                let region = self
                    .world
                    .region(64, lead, &pattern(len, self.next as u8), |_| true);
                let id = self.ledger.register(region.clone()).unwrap();
                self.naive.regions.push((id, region, false));
            }
            Step::Lend(n, a, b) => {
                let Some(index) = pick(&self.naive.regions, n) else {
                    return Ok(());
                };
                let (id, region, closing) = &self.naive.regions[index];
                let (start, len) = part(&(0..region.len()), a, b);
                let lent = self.ledger.lend(*id, start, len);
                let expected = match closing {
                    true => Err(LendError::UnknownRegion),
                    false => expected(0..region.len(), start, len),
                };
                prop_assert_eq!(
                    lent.as_ref().map(|_| ()).map_err(|e| *e),
                    expected,
                    "seed {}",
                    seed
                );
                if let Ok(loan) = lent {
                    self.lent(index, start, len, loan);
                }
            }
            Step::Again(n, a, b) => {
                let Some(index) = pick(&self.held, n) else {
                    return Ok(());
                };
                let (name, loan) = &self.held[index];
                let (region, range) = self.naive.loans[name].clone();
                let (start, len) = part(&range, a, b);
                let lent = self.ledger.lend_again(loan, start, len);
                let expected = expected(range, start, len);
                prop_assert_eq!(
                    lent.as_ref().map(|_| ()).map_err(|e| *e),
                    expected,
                    "seed {}",
                    seed
                );
                if let Ok(loan) = lent {
                    self.lent(region, start, len, loan);
                }
            }
            Step::Trim(n, len) => {
                let Some(index) = pick(&self.held, n) else {
                    return Ok(());
                };
                let (name, loan) = &mut self.held[index];
                let len = if len.is_multiple_of(8) {
                    usize::MAX
                } else {
                    len % 100
                };
                self.ledger.trim_front(loan, len);
                if let Some((_, range)) = self.naive.loans.get_mut(name) {
                    range.start = range.start.saturating_add(len).min(range.end);
                }
            }
            Step::GiveBack(n) | Step::Lose(n) => {
                let Some(index) = pick(&self.held, n) else {
                    return Ok(());
                };
                let (name, loan) = self.held.swap_remove(index);
                if matches!(step, Step::GiveBack(_)) {
                    self.ledger.give_back(loan);
                    self.naive.loans.remove(&name);
                }
            }
            Step::Release(n) => {
                let Some(index) = pick(&self.naive.regions, n) else {
                    return Ok(());
                };
                let (id, _, closing) = &mut self.naive.regions[index];
                let released = self.ledger.release(*id).is_ok();
                prop_assert_eq!(released, !*closing, "seed {}", seed);
                *closing = true;
            }
        }
        Ok(())
    }

    fn agree(&mut self) -> Result<(), TestCaseError> {
        let seed = seed();
        while let Some((id, share)) = self.ledger.take_released() {
            let index = self
                .naive
                .regions
                .iter()
                .position(|(i, ..)| *i == id)
                .unwrap();
            prop_assert!(self.naive.free(index), "seed {}: released too early", seed);
            prop_assert!(
                self.naive.released.insert(index),
                "seed {}: released twice",
                seed
            );
            prop_assert_eq!(
                share.base(),
                self.naive.regions[index].1.base(),
                "seed {}",
                seed
            );
        }
        for index in 0..self.naive.regions.len() {
            let released = self.naive.released.contains(&index);
            prop_assert_eq!(released, self.naive.free(index), "seed {}", seed);
            let shares = Arc::strong_count(&self.naive.regions[index].1);
            prop_assert_eq!(shares, 2 - usize::from(released), "seed {}", seed);
        }
        let counters = self.ledger.counters();
        let found = (
            counters.loans,
            counters.pinned_pages,
            counters.pinned_pages_peak,
        );
        let pinned = self.naive.pinned(self.page) as u64;
        let expected = (
            self.naive.loans.len() as u64,
            pinned,
            self.naive.peak as u64,
        );
        prop_assert_eq!(found, expected, "seed {}", seed);
        for (name, loan) in &self.held {
            let (region, range) = self.naive.loans[name].clone();
            prop_assert_eq!(loan.range(), range.clone(), "seed {}", seed);
            let base = self.naive.regions[region].1.base();
            // SAFETY: the range was checked against the region.
            let first = unsafe { base.add(range.start) };
            // SAFETY: the naive books share the region, whose bytes are constant.
            let bytes = unsafe { core::slice::from_raw_parts(first.as_ptr(), range.len()) };
            prop_assert_eq!(self.ledger.bytes(loan).unwrap(), bytes, "seed {}", seed);
            let runs = self.ledger.runs(loan, range.start, range.len()).unwrap();
            let fragments: Vec<_> = runs
                .map(|run| crate::Fragment {
                    address: run.address,
                    len: run.len as u32,
                })
                .collect();
            prop_assert_eq!(self.world.read(&fragments).unwrap(), bytes, "seed {}", seed);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_books_agree_with_naive_ones(
        log2 in prop_oneof![0u32..9, Just(12), Just(usize::BITS - 1)],
        steps in prop::collection::vec(step(), 0..70),
    ) {
        let world = World::new();
        let page = Granule::from_bytes(1 << log2).unwrap();
        let ledger = Ledger::new(world.domain, 64, page);
        let mut pair = Pair { world, ledger, page, naive: Naive::default(), held: Vec::new(), next: 0 };
        pair.apply(Step::Register { len: 150, lead: 10 })?;
        for step in steps {
            pair.apply(step)?;
            pair.agree()?;
        }
        let Pair { ledger, naive, held, .. } = pair;
        drop((ledger, held));
        for (index, (_, region, _)) in naive.regions.iter().enumerate() {
            // Dropped with loans out, the ledger leaks its share, else it gives it up.
            let lent = naive.loans.values().any(|(r, _)| *r == index);
            prop_assert_eq!(Arc::strong_count(region), 1 + usize::from(lent), "seed {}", seed());
        }
    }
}
