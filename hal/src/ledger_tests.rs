//! The books, rule by rule, and what safe code can try on them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use super::*;
use crate::test_support::{HeapRegion, World, hostile_log, pattern};
use crate::{DeviceAddress, Translation};

fn page() -> Granule {
    Granule::from_bytes(4096).unwrap()
}

fn region(world: &World, len: usize) -> Arc<HeapRegion> {
    world.region(4096, 0, &pattern(len, 0), |_| true)
}

/// A ledger with one region of `len` bytes.
fn one(world: &World, len: usize) -> (Ledger, RegionId, Arc<HeapRegion>) {
    let mut ledger = Ledger::new(world.domain, 64, page());
    let region = region(world, len);
    let id = ledger.register(region.clone()).unwrap();
    (ledger, id, region)
}

#[test]
fn rule_2_a_page_is_released_when_both_holders_have_given_it_back() {
    for device_first in [true, false] {
        let world = World::new();
        let (mut ledger, id, _region) = one(&world, 8192);
        let connection = ledger.lend(id, 100, 5000).unwrap();
        let device = ledger.lend_again(&connection, 100, 5000).unwrap();
        ledger.release(id).unwrap();
        assert_eq!(ledger.counters().pinned_pages, 2);
        let (first, last) = if device_first {
            (device, connection)
        } else {
            (connection, device)
        };
        ledger.give_back(first);
        assert_eq!(ledger.counters().pinned_pages, 2);
        assert!(ledger.take_released().is_none());
        ledger.give_back(last);
        assert_eq!(ledger.counters().pinned_pages, 0);
        assert_eq!(
            ledger.take_released().map(|(released, _)| released),
            Some(id)
        );
    }
}

#[test]
fn rule_2_an_acknowledged_page_stays_pinned_while_the_device_has_it() {
    let world = World::new();
    let (mut ledger, id, _region) = one(&world, 3 * 4096);
    let mut connection = ledger.lend(id, 0, 3 * 4096).unwrap();
    let device = ledger.lend_again(&connection, 4096, 4096).unwrap();
    ledger.trim_front(&mut connection, 8192);
    assert_eq!(connection.range(), 8192..3 * 4096);
    assert_eq!(ledger.counters().pinned_pages, 2);
    ledger.give_back(device);
    assert_eq!(ledger.counters().pinned_pages, 1);
    ledger.give_back(connection);
    assert_eq!(ledger.counters().pinned_pages, 0);
}

#[test]
fn rule_6_a_region_comes_back_once_and_as_what_it_was() {
    let world = World::new();
    let (mut ledger, id, region) = one(&world, 10);
    assert_eq!(Arc::strong_count(&region), 2);
    ledger.release(id).unwrap();
    assert_eq!(ledger.release(id), Err(LendError::UnknownRegion));
    assert_eq!(ledger.lend(id, 0, 1).unwrap_err(), LendError::UnknownRegion);
    let (released, share) = ledger.take_released().unwrap();
    assert_eq!(released, id);
    assert!(ledger.take_released().is_none());
    drop(region);
    let any: Arc<dyn core::any::Any + Send + Sync> = share;
    let owned = Arc::into_inner(any.downcast::<HeapRegion>().unwrap()).unwrap();
    assert_eq!(owned.len(), 10);
    assert_eq!(world.freed(), 0);
    drop(owned);
    assert_eq!(world.freed(), 1);
}

#[test]
fn rule_6_a_lost_loan_leaks_its_region_and_no_other() {
    hostile_log::install();
    let world = World::new();
    let (mut ledger, id, leaked) = one(&world, 10);
    let whole = region(&world, 10);
    let other = ledger.register(whole.clone()).unwrap();
    let _lost = ledger.lend(id, 0, 10).unwrap();
    let dropped = ledger.lend(id, 0, 1).unwrap();
    drop(dropped);
    let kept = ledger.lend(other, 0, 10).unwrap();
    ledger.give_back(kept);
    ledger.release(id).unwrap();
    assert!(ledger.take_released().is_none());
    drop(ledger);
    assert_eq!(Arc::strong_count(&leaked), 2);
    assert_eq!(Arc::strong_count(&whole), 1);
}

#[test]
fn rule_6_a_log_that_panics_frees_nothing_that_is_lent() {
    hostile_log::install();
    let world = World::new();
    let (mut ledger, id, first) = one(&world, 10);
    let second = region(&world, 10);
    let other = ledger.register(second.clone()).unwrap();
    let _loans = (
        ledger.lend(id, 0, 1).unwrap(),
        ledger.lend(other, 0, 1).unwrap(),
    );
    hostile_log::ARMED.set(true);
    let unwound = catch_unwind(AssertUnwindSafe(|| drop(ledger)));
    hostile_log::ARMED.set(false);
    assert!(unwound.is_err());
    assert_eq!(
        (Arc::strong_count(&first), Arc::strong_count(&second)),
        (2, 2)
    );
}

#[test]
fn a_loan_of_another_ledger_does_nothing_but_leak() {
    hostile_log::install();
    let world = World::new();
    let (mut mine, id, region) = one(&world, 8192);
    let (mut other, other_id, _other_region) = one(&world, 8192);
    let held = other.lend(other_id, 0, 8192).unwrap();
    let mut loan = mine.lend(id, 0, 8192).unwrap();
    let unknown = LendError::UnknownRegion;
    assert_eq!(other.lend(id, 0, 1).unwrap_err(), unknown);
    assert_eq!(other.lend_again(&loan, 0, 1).unwrap_err(), unknown);
    assert_eq!(other.bytes(&loan).unwrap_err(), unknown);
    assert!(other.runs(&loan, 0, 1).is_err());
    assert_eq!(other.release(id), Err(unknown));
    other.trim_front(&mut loan, 4096);
    assert_eq!(loan.len(), 8192);
    other.give_back(loan);
    assert_eq!(other.counters().strays, 2);
    assert_eq!(
        (other.counters().loans, other.counters().pinned_pages),
        (1, 2)
    );
    assert_eq!(
        (mine.counters().loans, mine.counters().pinned_pages),
        (1, 2)
    );
    drop(mine);
    assert_eq!(Arc::strong_count(&region), 2);
    other.give_back(held);
}

#[test]
fn an_id_of_an_earlier_region_names_no_later_one() {
    let world = World::new();
    let (mut ledger, old, _region) = one(&world, 10);
    ledger.release(old).unwrap();
    let new = ledger.register(region(&world, 20)).unwrap();
    assert_ne!(old, new);
    assert_eq!(
        ledger.lend(old, 0, 1).unwrap_err(),
        LendError::UnknownRegion
    );
    assert_eq!(ledger.release(old), Err(LendError::UnknownRegion));
    assert_eq!(ledger.take_released().map(|(id, _)| id), Some(old));
    let loan = ledger.lend(new, 0, 20).unwrap();
    ledger.give_back(loan);
}

#[test]
fn two_registrations_of_one_region_are_released_each_for_itself() {
    let world = World::new();
    let (mut ledger, first, region) = one(&world, 10);
    let second = ledger.register(region.clone()).unwrap();
    let loan = ledger.lend(second, 0, 10).unwrap();
    ledger.release(first).unwrap();
    ledger.release(second).unwrap();
    let (id, share) = ledger.take_released().unwrap();
    assert_eq!(id, first);
    assert!(ledger.take_released().is_none());
    drop((share, region));
    assert_eq!(world.freed(), 0);
    ledger.give_back(loan);
    drop(ledger.take_released());
    assert_eq!(world.freed(), 1);
}

/// Says a length, and has not one byte of it.
struct Boast {
    domain: DomainId,
    len: usize,
    translated: usize,
}

// SAFETY: only for tests that touch no byte of it.
unsafe impl Region for Boast {
    fn base(&self) -> NonNull<u8> {
        NonNull::dangling()
    }
    fn len(&self) -> usize {
        self.len
    }
    fn domain(&self) -> DomainId {
        self.domain
    }
    fn translation(&self) -> Translation<'_> {
        Translation::contiguous(self.translated, &[DeviceAddress(0)])
    }
}

#[test]
fn a_region_is_refused_for_its_domain_its_length_or_its_pages() {
    let domain = DomainId::new_unique();
    let register = |len, translated, page| {
        let boast = Boast {
            domain,
            len,
            translated,
        };
        Ledger::new(domain, 64, page).register(Arc::new(boast))
    };
    let max = isize::MAX as usize;
    assert_eq!(register(0, 0, page()), Err(LendError::Empty));
    assert_eq!(register(5, 4, page()), Err(LendError::OutOfRange));
    assert_eq!(
        register(max + 1, max + 1, page()),
        Err(LendError::OutOfRange)
    );
    assert_eq!(
        register(usize::MAX, usize::MAX, page()),
        Err(LendError::OutOfRange)
    );
    let byte = Granule::from_bytes(1).unwrap();
    assert_eq!(register(max, max, byte), Err(LendError::TooMany));
    assert!(register(max, max, Granule::CONTIGUOUS).is_ok());
    let boast = Boast {
        domain,
        len: 1,
        translated: 1,
    };
    let mut elsewhere = Ledger::new(DomainId::new_unique(), 64, page());
    assert_eq!(
        elsewhere.register(Arc::new(boast)),
        Err(LendError::OtherDomain)
    );
}

#[test]
fn ranges_that_overflow_are_out_of_range() {
    let world = World::new();
    let (mut ledger, id, _region) = one(&world, 100);
    let max = usize::MAX;
    for (start, len) in [(0, 101), (100, 1), (101, 0), (1, max), (max, 1), (max, max)] {
        assert_eq!(
            ledger.lend(id, start, len).unwrap_err(),
            LendError::OutOfRange
        );
    }
    assert_eq!(ledger.lend(id, 100, 0).unwrap_err(), LendError::Empty);
    let loan = ledger.lend(id, 10, 20).unwrap();
    for (start, len) in [(9, 1), (10, 21), (30, 1), (11, max), (max, 1), (0, 0)] {
        assert_eq!(
            ledger.lend_again(&loan, start, len).unwrap_err(),
            LendError::OutOfRange
        );
        assert_eq!(ledger.runs(&loan, start, len).unwrap().count(), 0);
    }
    assert_eq!(
        ledger.lend_again(&loan, 30, 0).unwrap_err(),
        LendError::Empty
    );
    ledger.give_back(loan);
    assert_eq!(ledger.counters().loans, 0);
}

#[test]
fn more_loans_than_can_be_counted_are_refused() {
    let world = World::new();
    let (mut ledger, id, _region) = one(&world, 100);
    let loan = ledger.lend(id, 0, 100).unwrap();
    ledger.entries[0].loans = u32::MAX;
    assert_eq!(ledger.lend(id, 0, 1).unwrap_err(), LendError::TooMany);
    assert_eq!(
        ledger.lend_again(&loan, 0, 1).unwrap_err(),
        LendError::TooMany
    );
    assert_eq!(ledger.counters().loans, 1);
    ledger.entries[0].loans = 1;
    ledger.give_back(loan);
    assert_eq!(ledger.counters().pinned_pages, 0);
}

#[test]
fn a_ledger_and_its_loans_may_cross_threads() {
    let world = World::new();
    let (mut ledger, id, region) = one(&world, 100);
    let loan = ledger.lend(id, 3, 4).unwrap();
    let thread = std::thread::spawn(move || {
        assert_eq!(ledger.bytes(&loan).unwrap(), &pattern(100, 0)[3..7]);
        ledger.give_back(loan);
        ledger.release(id).unwrap();
        ledger.take_released().is_some()
    });
    assert!(thread.join().unwrap());
    assert_eq!(Arc::strong_count(&region), 1);
}
