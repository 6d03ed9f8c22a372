//! What safe code, a panic or a broken driver can try on a port.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::*;
use crate::fake_nic::{FakeQueue, bench, layout};
use crate::test_support::{HeapMemory, World, pattern};
use crate::{DomainId, Fragment, Granule, Offload, PostError, TxFrame};

fn refused(result: Result<TxPort<FakeQueue, HeapMemory>, NicError>) -> bool {
    matches!(result, Err(NicError::Config { .. }))
}

#[test]
fn a_forgotten_builder_leaks_its_loans_and_its_buffer_only() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 8192).unwrap();
    let buffer = bench.port.buffer(14).unwrap();
    let mut frame = bench.port.frame(buffer, 14);
    frame.attach(&loan, 0, 10);
    core::mem::forget(frame);
    assert_eq!((bench.loans(), bench.port.vacant_buffers()), (2, (7, 4)));
    bench.send(&loan, 100, 3).unwrap();
    let posted = bench.ring.lock().unwrap().complete(0);
    let expected = [&[0; 14][..], &pattern(8192, 7)[100..103]].concat();
    assert_eq!(posted.bytes, Some(expected));
    bench.reclaim().unwrap();
    bench.port.ledger_mut().give_back(loan);
    drop(bench.port);
    // The device never heard of the forgotten frame: the buffers are free, the loan is lost.
    assert_eq!(
        (Arc::strong_count(&bench.region), bench.world.freed()),
        (2, 2)
    );
}

#[test]
fn a_builder_that_is_dropped_undoes_everything() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 8192).unwrap();
    for _ in 0..3 {
        let buffer = bench.port.buffer(14).unwrap();
        let mut frame = bench.port.frame(buffer, 14);
        frame.attach(&loan, 0, 10).attach(&loan, 20, 10);
    }
    assert_eq!((bench.loans(), bench.port.vacant_buffers()), (1, (8, 4)));
}

#[test]
fn a_token_that_is_not_out_is_counted_and_frees_nothing() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    bench
        .ring
        .lock()
        .unwrap()
        .done
        .extend([Token(1), Token(u32::MAX)]);
    let mut calls = 0;
    assert_eq!(bench.port.reclaim(&mut |_| calls += 1), Ok(2));
    assert_eq!((calls, bench.port.counters().stray_tokens), (0, 2));
    assert_eq!((bench.loans(), bench.port.outstanding()), (2, 1));
}

#[test]
fn what_completed_before_an_error_is_taken_back() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    bench.complete(1);
    bench.ring.lock().unwrap().fail = Some(QueueError::BadIndex { index: 9 });
    assert_eq!(bench.reclaim(), Err(QueueError::BadIndex { index: 9 }));
    assert_eq!((bench.loans(), bench.port.outstanding()), (2, 1));
}

#[test]
fn a_port_is_refused_memory_of_another_device_and_frees_it() {
    let (world, other) = (World::new(), World::new());
    let queue = || FakeQueue::new(&world, 4);
    let made = TxPort::with_memory(
        queue(),
        &layout(),
        world.memory(512, 64),
        other.memory(512, 64),
    );
    assert!(refused(made));
    let made = TxPort::with_memory(
        queue(),
        &layout(),
        other.memory(512, 64),
        world.memory(512, 64),
    );
    assert!(refused(made));
    assert_eq!((world.freed(), other.freed()), (2, 2));
}

/// A device that emits 32 bits of an address would read other bytes in their place.
#[test]
fn what_the_device_cannot_reach_is_refused() {
    // The world's addresses begin at 2^36.
    let world = World::new();
    let page = Granule::from_bytes(4096).unwrap();
    let region = world.region(4096, 0, &pattern(10_000, 1), |_| true);
    for (bits, reached) in [
        (32, false),
        (36, false),
        (37, true),
        (64, true),
        (200, true),
    ] {
        let mut ledger = Ledger::new(world.domain, bits, page);
        let registered = ledger.register(region.clone()).map(drop);
        let expected = if reached {
            Ok(())
        } else {
            Err(LendError::OutOfReach)
        };
        assert_eq!(registered, expected, "{bits}");
        let mut queue = FakeQueue::new(&world, 4);
        queue.capabilities.dma_address_bits = bits;
        let (small, large) = (world.memory(512, 64), world.memory(512, 64));
        let made = TxPort::with_memory(queue, &layout(), small, large);
        assert_eq!(refused(made), !reached, "{bits}");
    }
    // Other books, which know more bits than the device has.
    let mut bench = bench(4);
    bench.port.address_bits = 40;
    let mut books = Ledger::new(bench.world.domain, 41, page);
    let id = books.register(bench.region.clone()).unwrap();
    let loan = books.lend(id, 0, 100).unwrap();
    *bench.port.ledger_mut() = books;
    assert_eq!(
        bench.send(&loan, 0, 100),
        Err(PortError::Lend(LendError::OutOfReach))
    );
    assert_eq!(bench.ring.lock().unwrap().posted.len(), 0);
    bench.port.ledger_mut().give_back(loan);
}

/// The raw layer's frames have tokens that the port would take for its own.
#[test]
fn a_queue_with_frames_of_somebody_else_is_refused() {
    let world = World::new();
    let mut queue = FakeQueue::new(&world, 4);
    let memory = world.memory(64, 64);
    let fragments = [Fragment {
        address: memory.address(),
        len: 64,
    }];
    let frame = TxFrame {
        fragments: &fragments,
        offload: Offload::NONE,
        first: None,
    };
    // SAFETY: the memory outlives the queue.
    unsafe { queue.post(&frame, Token(0)) }.unwrap();
    let made = TxPort::with_memory(
        queue,
        &layout(),
        world.memory(512, 64),
        world.memory(512, 64),
    );
    assert!(refused(made));
}

/// A port's books can be exchanged in safe code; those of another device's address space would
/// have the device read at addresses that are not its own.
#[test]
fn books_of_another_domain_are_refused() {
    let mut a = bench(4);
    let mut b = bench(4);
    let loan = b.port.ledger_mut().lend(b.id, 0, 100).unwrap();
    core::mem::swap(a.port.ledger_mut(), b.port.ledger_mut());
    assert_eq!(
        a.send(&loan, 0, 100),
        Err(PortError::Lend(LendError::OtherDomain))
    );
    assert_eq!(a.ring.lock().unwrap().posted.len(), 0);
    let foreign = Ledger::new(DomainId::new_unique(), 64, Granule::CONTIGUOUS);
    drop(core::mem::replace(a.port.ledger_mut(), foreign));
    b.port.ledger_mut().give_back(loan);
}

#[test]
fn books_exchanged_while_frames_are_out_release_nothing() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 100).unwrap();
    bench.send(&loan, 0, 100).unwrap();
    bench.port.ledger_mut().give_back(loan);
    let empty = Ledger::new(bench.world.domain, 64, Granule::CONTIGUOUS);
    let mut books = core::mem::replace(bench.port.ledger_mut(), empty);
    books.release(bench.id).unwrap();
    bench.complete(0);
    assert_eq!(bench.reclaim(), Ok(1));
    assert_eq!(bench.port.ledger().counters().strays, 1);
    assert!(books.take_released().is_none());
    drop((books, bench.port));
    assert_eq!(Arc::strong_count(&bench.region), 2);
}

/// A driver may take note of a completion only after the call; if that unwinds, it would hand
/// the token back again, when it may already name another frame.
#[test]
fn a_callback_that_panics_does_not_make_a_token_come_back_twice() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    bench.complete(0);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        bench.port.reclaim(&mut |_| panic!("the program has a bug"))
    }));
    assert!(unwound.is_err());
    let down = Err(PortError::Post(PostError::Down));
    assert_eq!(
        bench.send(&loan, 0, 10),
        down,
        "the ring may be half reclaimed"
    );
    assert_eq!(bench.reclaim(), Err(QueueError::Down));
    assert!(!bench.port.has_room(1));
    assert_eq!((bench.loans(), bench.port.outstanding()), (2, 1));
    bench.reset(true).unwrap();
    assert_eq!((bench.loans(), bench.port.outstanding()), (1, 0));
    bench.send(&loan, 0, 10).unwrap();
    bench.complete(0);
    assert_eq!(bench.reclaim(), Ok(1));
}

#[test]
fn a_driver_that_panics_in_post_does_not_release_what_is_in_the_ring() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.ring.lock().unwrap().panic_in_post = true;
    let unwound = catch_unwind(AssertUnwindSafe(|| bench.send(&loan, 0, 10)));
    assert!(unwound.is_err());
    assert_eq!((bench.loans(), bench.port.outstanding()), (2, 1));
    bench.port.ledger_mut().give_back(loan);
    drop(bench.port);
    assert_eq!(
        (Arc::strong_count(&bench.region), bench.world.freed()),
        (2, 0)
    );
}
