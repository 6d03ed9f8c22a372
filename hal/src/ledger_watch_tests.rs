use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::{DeviceAddress, Live, Translation, Watch};

const LEN: usize = 40_000;
const PAGE: usize = 4096;

/// Bytes with a watcher that counts, page by page from the start of the allocation.
struct Guarded {
    bytes: Box<[u8]>,
    lead: usize,
    page: Granule,
    counts: Mutex<Vec<u32>>,
    calls: Mutex<Vec<Range<usize>>>,
    /// A page that is refused.
    refuses: Mutex<Option<usize>>,
    /// A page of which the program has other bytes.
    outdated: Mutex<Option<usize>>,
    wanted: AtomicBool,
    live: bool,
    domain: DomainId,
    address: [DeviceAddress; 1],
}

impl Guarded {
    fn new(domain: DomainId, page: usize, offset: usize) -> Self {
        let bytes: Box<[u8]> = (0..3 * PAGE + LEN + PAGE)
            .map(|i| (i % 251) as u8)
            .collect();
        let lead = bytes.as_ptr().align_offset(PAGE.max(page)) + offset;
        Self {
            bytes,
            lead,
            page: Granule::from_bytes(page).unwrap(),
            counts: Mutex::new(vec![0; LEN / page + 2]),
            calls: Mutex::new(Vec::new()),
            refuses: Mutex::new(None),
            outdated: Mutex::new(None),
            wanted: AtomicBool::new(false),
            live: false,
            domain,
            address: [DeviceAddress(0x10_0000)],
        }
    }

    /// The pages of a range, which has to be whole pages.
    fn pages(&self, range: &Range<usize>) -> Range<usize> {
        let page = self.page.bytes();
        let into = self.base().addr().get() % page;
        assert!(
            range.start == 0 || (into + range.start).is_multiple_of(page),
            "{range:?}"
        );
        assert!(
            range.end == LEN || (into + range.end).is_multiple_of(page),
            "{range:?}"
        );
        (into + range.start) / page..(into + range.end).div_ceil(page)
    }
}

// SAFETY: nobody writes the bytes.
unsafe impl Watch for Guarded {
    fn page(&self) -> Granule {
        self.page
    }
    fn lend(&self, range: Range<usize>) -> Result<(), Refused> {
        self.calls.lock().unwrap().push(range.clone());
        let pages = self.pages(&range);
        if self
            .refuses
            .lock()
            .unwrap()
            .is_some_and(|page| pages.contains(&page))
        {
            return Err(Refused::OverLimit);
        }
        pages.for_each(|page| self.counts.lock().unwrap()[page] += 1);
        Ok(())
    }
    unsafe fn release(&self, range: Range<usize>) {
        for page in self.pages(&range) {
            let mut counts = self.counts.lock().unwrap();
            counts[page] = counts[page].checked_sub(1).expect("lent before");
        }
    }
    fn copy_to(&self, start: usize, into: &mut [u8]) -> Result<(), Refused> {
        into.copy_from_slice(&self.bytes[self.lead + start..][..into.len()]);
        Ok(())
    }
    fn is_outdated(&self, range: Range<usize>) -> bool {
        let page = *self.outdated.lock().unwrap();
        let page = page.map(|page| page * PAGE..(page + 1) * PAGE);
        page.is_some_and(|page| range.start < page.end && page.start < range.end)
    }
    fn has_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }
    fn wanted(&self, each: &mut dyn FnMut(Range<usize>)) {
        // In no order.
        let len = self.page.bytes();
        each(2 * PAGE..2 * PAGE + len);
        each(PAGE..PAGE + len);
    }
}

impl Live for Guarded {
    fn copy_to(&self, start: usize, into: &mut [u8]) {
        into.copy_from_slice(&self.bytes[self.lead + start..][..into.len()]);
    }
}

// SAFETY: constant bytes on the heap.
unsafe impl Region for Guarded {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(&self.bytes[self.lead..]).cast()
    }
    fn len(&self) -> usize {
        LEN
    }
    fn domain(&self) -> DomainId {
        self.domain
    }
    fn translation(&self) -> Translation<'_> {
        Translation::contiguous(LEN, &self.address)
    }
    fn sharing(&self) -> Sharing<'_> {
        if self.live {
            Sharing::Live(self)
        } else {
            Sharing::Watched(self)
        }
    }
}

/// Numbers by seed (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

fn registered(region: Guarded) -> (Ledger, Arc<Guarded>, RegionId) {
    let region = Arc::new(region);
    let mut ledger = Ledger::new(region.domain, 64, Granule::from_bytes(PAGE).unwrap());
    let id = ledger
        .register(Arc::clone(&region) as Arc<dyn Region>)
        .unwrap();
    (ledger, region, id)
}

/// The watcher has a page as often as ledgers have it lent: once each, from the first loan to the
/// last.
#[test]
fn a_watcher_hears_of_first_and_last_loans_of_pages() {
    for (seed, page, offset) in [(1, PAGE, 0), (2, PAGE, 100), (3, 4 * PAGE, 0), (4, 1024, 0)] {
        let mut random = Random(seed);
        let region = Guarded::new(DomainId::new_unique(), page, offset);
        let (mut ledger, region, id) = registered(region);
        let mut loans: Vec<Loan> = Vec::new();
        for _ in 0..2000 {
            match random.below(4) {
                0 | 1 => {
                    let start = random.below(LEN);
                    let len = 1 + random.below((LEN - start).min(10_000));
                    loans.push(ledger.lend(id, start, len).unwrap());
                }
                2 if !loans.is_empty() => {
                    ledger.give_back(loans.swap_remove(random.below(loans.len())));
                }
                3 if !loans.is_empty() => {
                    let index = random.below(loans.len());
                    ledger.trim_front(&mut loans[index], 1 + random.below(5000));
                }
                _ => {}
            }
            // In the ledger's unit, which may be longer than the watcher's.
            let unit = page.max(PAGE);
            let into = region.base().addr().get() % unit;
            let mut expected = vec![0; region.counts.lock().unwrap().len()];
            let per_unit = unit / page;
            for loan in loans.iter().filter(|loan| !loan.is_empty()) {
                let range = loan.range();
                for unit_index in (into + range.start) / unit..(into + range.end).div_ceil(unit) {
                    for part in 0..per_unit {
                        let first = into / page;
                        if let Some(count) =
                            expected.get_mut((unit_index * per_unit + part).wrapping_sub(first))
                        {
                            *count = 1;
                        }
                    }
                }
            }
            if page >= PAGE {
                assert_eq!(*region.counts.lock().unwrap(), expected, "seed {seed}");
            }
        }
        loans.into_iter().for_each(|loan| ledger.give_back(loan));
        assert!(
            region
                .counts
                .lock()
                .unwrap()
                .iter()
                .all(|count| *count == 0)
        );
        assert_eq!(ledger.counters().pinned_pages, 0);
    }
}

#[test]
fn a_refusal_lends_nothing_and_is_told() {
    let (mut ledger, region, id) = registered(Guarded::new(DomainId::new_unique(), PAGE, 0));
    let middle = ledger.lend(id, 2 * PAGE, 10).unwrap();
    *region.refuses.lock().unwrap() = Some(4);
    let refused = ledger.lend(id, 0, 6 * PAGE);
    assert_eq!(refused.unwrap_err(), LendError::Refused(Refused::OverLimit));
    let counts = region.counts.lock().unwrap().clone();
    assert_eq!(counts[..6], [0, 0, 1, 0, 0, 0]);
    assert_eq!(ledger.counters().loans, 1);
    // In runs: two pages at once, then what lies behind the one that is lent already.
    assert_eq!(
        region.calls.lock().unwrap()[1..],
        [0..2 * PAGE, 3 * PAGE..6 * PAGE]
    );
    ledger.give_back(middle);
    assert_eq!(region.counts.lock().unwrap()[2], 0);
}

#[test]
fn what_is_lent_once_more_costs_no_call() {
    let (mut ledger, region, id) = registered(Guarded::new(DomainId::new_unique(), PAGE, 0));
    let loan = ledger.lend(id, 0, LEN).unwrap();
    let again = ledger.lend_again(&loan, 5000, 9000).unwrap();
    let other = ledger.lend(id, 100, 20_000).unwrap();
    assert_eq!(region.calls.lock().unwrap().len(), 1);
    [loan, again, other]
        .into_iter()
        .for_each(|loan| ledger.give_back(loan));
}

#[test]
fn older_bytes_are_not_lent_once_more() {
    let (mut ledger, region, id) = registered(Guarded::new(DomainId::new_unique(), PAGE, 0));
    let loan = ledger.lend(id, 100, 3 * PAGE).unwrap();
    *region.outdated.lock().unwrap() = Some(1);
    let more = ledger.lend(id, 2 * PAGE - 1, 1).unwrap_err();
    assert_eq!(more, LendError::Refused(Refused::Busy));
    // What is beside them is, and a loan of them can be.
    let beside = ledger.lend(id, 2 * PAGE, 1).unwrap();
    let again = ledger.lend_again(&loan, PAGE, 10).unwrap();
    let mut copy = vec![0; 3 * PAGE];
    ledger.copy_lent(&loan, 100, &mut copy).unwrap();
    assert_eq!(copy, ledger.bytes(&loan).unwrap());
    [beside, again, loan]
        .into_iter()
        .for_each(|loan| ledger.give_back(loan));
}

#[test]
fn live_bytes_are_copied_and_never_a_slice() {
    let region = Guarded {
        live: true,
        ..Guarded::new(DomainId::new_unique(), PAGE, 0)
    };
    let (mut ledger, region, id) = registered(region);
    let loan = ledger.lend(id, 10, 20).unwrap();
    assert!(ledger.is_live(&loan));
    assert!(region.calls.lock().unwrap().is_empty());
    assert_eq!(ledger.bytes(&loan).unwrap_err(), LendError::NoSlice);
    let mut copy = [0; 20];
    ledger.copy_lent(&loan, 10, &mut copy).unwrap();
    assert_eq!(copy, region.bytes[region.lead + 10..][..20]);
    assert_eq!(
        ledger.copy_lent(&loan, 11, &mut copy),
        Err(LendError::OutOfRange)
    );
    assert_eq!(
        ledger.copy_now(id, LEN - 1, &mut copy),
        Err(LendError::OutOfRange)
    );
    ledger.give_back(loan);
}

#[test]
fn those_who_wait_are_told_of_by_region() {
    let (mut ledger, region, id) = registered(Guarded::new(DomainId::new_unique(), PAGE, 0));
    let mut told = Vec::new();
    ledger.wanted(&mut |id, range| told.push((id, range)));
    assert!(told.is_empty());
    region.wanted.store(true, Ordering::Relaxed);
    ledger.wanted(&mut |id, range| told.push((id, range)));
    let pages = [2 * PAGE..3 * PAGE, PAGE..2 * PAGE];
    assert_eq!(told, pages.map(|page| (id, page)));
    ledger.release(id).unwrap();
    ledger.wanted(&mut |_, _| panic!("not registered any more"));
}

/// A watcher's short page is given back with all of the ledger's longer one, or not at all.
#[test]
fn who_waits_for_a_part_of_a_page_waits_for_all_of_it() {
    for offset in [0, 1024] {
        let guarded = Guarded::new(DomainId::new_unique(), 1024, offset);
        let (mut ledger, region, id) = registered(guarded);
        assert_eq!(ledger.page().bytes(), PAGE);
        assert_eq!(ledger.first_wanted(id, 0..LEN), None);
        region.wanted.store(true, Ordering::Relaxed);
        let page = |index| index * PAGE - offset..(index + 1) * PAGE - offset;
        let mut told = Vec::new();
        ledger.wanted(&mut |_, range| told.push(range));
        assert_eq!(told, [page(2), page(1)]);
        let first = |range| ledger.first_wanted(id, range);
        assert_eq!(first(0..LEN), Some(page(1)));
        // What shares the page with what is waited for, before it or behind.
        let (start, end) = (page(1).start, page(1).end);
        assert_eq!(first(end - 7..end - 2), Some(end - 7..end - 2));
        assert_eq!(first(start..start + 3), Some(start..start + 3));
        let third = page(3).start;
        for not in [0..start, third..LEN, third..usize::MAX, LEN + 1..LEN + 9] {
            assert_eq!(first(not), None);
        }
        assert_eq!(first(usize::MAX - 1..usize::MAX), None);
        ledger.release(id).unwrap();
        assert_eq!(ledger.first_wanted(id, 0..LEN), None);
    }
}

#[test]
fn the_first_bytes_that_are_waited_for_are_told() {
    let region = Guarded::new(DomainId::new_unique(), PAGE, 0);
    assert_eq!(region.first_wanted(0..LEN), None);
    region.wanted.store(true, Ordering::Relaxed);
    assert_eq!(region.first_wanted(0..LEN), Some(PAGE..2 * PAGE));
    let inside = PAGE + 10..2 * PAGE - 10;
    assert_eq!(region.first_wanted(inside.clone()), Some(inside));
    let behind = 2 * PAGE + 5..LEN;
    assert_eq!(region.first_wanted(behind), Some(2 * PAGE + 5..3 * PAGE));
    for not in [0..PAGE, 3 * PAGE..LEN, PAGE..PAGE] {
        assert_eq!(region.first_wanted(not), None);
    }
}
