use alloc::vec::Vec;

use super::*;
use crate::test_support::World;
use crate::{Loan, Refused};

const SLOT: usize = 4096;

fn pool(slots: usize) -> (Ledger, CopyPool<crate::test_support::HeapMemory>) {
    let world = World::new();
    let page = Granule::from_bytes(SLOT).unwrap();
    let mut ledger = Ledger::new(world.domain, 64, page);
    let memory = world.memory(slots * SLOT, SLOT);
    let pool = CopyPool::new(memory, page, &mut ledger).unwrap();
    (ledger, pool)
}

/// Puts bytes that are all `value`, and lends them.
fn put(ledger: &mut Ledger, pool: &mut CopyPool<impl DmaMemory>, len: usize, value: u8) -> Loan {
    let fill = |bytes: &mut [u8]| {
        bytes.fill(value);
        Ok::<(), ()>(())
    };
    let range = pool.put(len, fill).unwrap().expect("there is room");
    ledger
        .lend(pool.region(), range.start, range.len())
        .unwrap()
}

#[test]
fn what_is_lent_stays_and_what_is_given_back_is_used_again() {
    let (mut ledger, mut pool) = pool(8);
    assert_eq!((pool.len(), pool.free_bytes()), (8 * SLOT, 8 * SLOT));
    let mut loans: Vec<(Loan, u8)> = Vec::new();
    for round in 0..200_u32 {
        let value = round as u8;
        while loans.len() >= 4 {
            let (loan, value) = loans.remove(round as usize % loans.len());
            let bytes = ledger.bytes(&loan).unwrap();
            assert!(bytes.iter().all(|byte| *byte == value), "round {round}");
            ledger.give_back(loan);
        }
        let len = 1 + (round as usize * 977) % (2 * SLOT);
        let loan = put(&mut ledger, &mut pool, len, value);
        assert!(loan.len() <= len);
        loans.push((loan, value));
    }
    loans
        .into_iter()
        .for_each(|(loan, _)| ledger.give_back(loan));
    assert_eq!(pool.free_bytes(), 8 * SLOT);
    assert_eq!(ledger.counters().pinned_pages, 0);
}

#[test]
fn a_full_pool_has_no_room_and_calls_nobody() {
    let (mut ledger, mut pool) = pool(2);
    let all = put(&mut ledger, &mut pool, 5 * SLOT, 1);
    assert_eq!(all.len(), 2 * SLOT);
    let nothing = pool.put(1, |_| -> Result<(), ()> { panic!("called") });
    assert_eq!(nothing, Ok(None));
    ledger.give_back(all);
    assert_eq!(pool.put(0, |_| Ok::<(), ()>(())), Ok(None));
    assert_eq!(pool.put(1, |_| Err("refused")), Err("refused"));
    assert_eq!(pool.free_bytes(), 2 * SLOT);
}

/// Safe code with a ledger of its own cannot lend what is being written.
#[test]
fn nothing_is_lent_while_it_is_written() {
    let (mut ledger, mut pool) = pool(2);
    let region = Arc::clone(&pool.region);
    let id = pool.region();
    let put = pool.put(SLOT, |bytes| {
        assert_eq!(
            ledger.lend(id, 0, 10).unwrap_err(),
            LendError::Refused(Refused::Busy)
        );
        assert_eq!(region.copy_to(0, &mut [0; 4]), Err(Refused::Busy));
        // The slot beside it is free, and both together are refused without a trace.
        assert_eq!(region.lend(0..2 * SLOT), Err(Refused::Busy));
        assert_eq!(region.lend(SLOT..2 * SLOT), Ok(()));
        // SAFETY: lent in the line before.
        unsafe { region.release(SLOT..2 * SLOT) };
        bytes.fill(3);
        Ok::<(), ()>(())
    });
    assert_eq!(put, Ok(Some(0..SLOT)));
    assert_eq!(pool.free_bytes(), 2 * SLOT);
    let mut bytes = [0; 4];
    region.copy_to(5, &mut bytes).unwrap();
    assert_eq!(bytes, [3; 4]);
    assert_eq!(
        region.copy_to(2 * SLOT - 1, &mut bytes),
        Err(Refused::OutOfRange)
    );
    assert_eq!(region.lend(SLOT..2 * SLOT + 1), Err(Refused::OutOfRange));
    assert_eq!(pool.free_bytes(), 2 * SLOT);
}

#[test]
fn memory_that_does_not_fit_is_refused() {
    let world = World::new();
    let page = Granule::from_bytes(SLOT).unwrap();
    let mut ledger = Ledger::new(world.domain, 64, page);
    let short = CopyPool::new(world.memory(SLOT - 1, SLOT), page, &mut ledger);
    assert_eq!(short.err(), Some(LendError::OutOfRange));
    let small = Granule::from_bytes(1024).unwrap();
    let small = CopyPool::new(world.memory(SLOT, SLOT), small, &mut ledger);
    assert_eq!(small.err(), Some(LendError::OutOfRange));
    let foreign = World::new().memory(SLOT, SLOT);
    let foreign = CopyPool::new(foreign, page, &mut ledger);
    assert_eq!(foreign.err(), Some(LendError::OtherDomain));
}

/// Memory of which no fragment should reach across the end of a page.
struct Apart(crate::test_support::HeapMemory);

// SAFETY: that of the memory inside.
unsafe impl DmaMemory for Apart {
    fn pointer(&self) -> NonNull<u8> {
        self.0.pointer()
    }

    fn address(&self) -> DeviceAddress {
        self.0.address()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn domain(&self) -> DomainId {
        self.0.domain()
    }

    fn pages_apart(&self) -> bool {
        true
    }
}

/// QEMU's e1000e lost a segment for ever that lay in two slots, in two pages that were no neighbours
/// in the guest's memory.
#[test]
fn where_pages_are_kept_apart_no_two_slots_are_contiguous() {
    for slots in 1..8 {
        let world = World::new();
        let page = Granule::from_bytes(SLOT).unwrap();
        let mut ledger = Ledger::new(world.domain, 64, page);
        let memory = Apart(world.memory(slots * SLOT, SLOT));
        let mut pool = CopyPool::new(memory, page, &mut ledger).unwrap();
        let usable = slots.div_ceil(2);
        assert_eq!(
            (pool.len(), pool.free_bytes()),
            (usable * SLOT, usable * SLOT)
        );
        for round in 0..3 {
            let loans: Vec<Loan> = (0..usable)
                .map(|_| put(&mut ledger, &mut pool, 3 * SLOT, 1))
                .collect();
            for loan in &loans {
                let range = loan.range();
                assert_eq!((range.start % SLOT, range.len()), (0, SLOT));
                assert!(loans.iter().all(|next| next.range().start != range.end));
            }
            assert_eq!(pool.put(1, |_| Ok::<(), ()>(())), Ok(None), "{round}");
            loans.into_iter().for_each(|loan| ledger.give_back(loan));
            assert_eq!(pool.free_bytes(), pool.len());
        }
    }
}
