//! A port against a device that the test plays, rule by rule.

use std::ptr::NonNull;
use std::sync::Arc;

use super::*;
use crate::fake_nic::{Bench, FakeNic, FakeQueue, FakeRx, bench, layout, port};
use crate::test_support::{HeapRegion, World, pattern};
use crate::{
    DeviceAddress, DomainId, Fragment, FrameError, Instant, Offload, PortPair, PostError, Region,
    Translation, release, restart, shut_down,
};

#[test]
fn the_bytes_of_a_frame_are_the_header_and_the_lent_pages() {
    let mut bench = bench(4);
    let mut buffer = bench.port.buffer(20).unwrap();
    bench.port.bytes_mut(&mut buffer)[..20].copy_from_slice(&pattern(20, 1));
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 8192).unwrap();
    let mut frame = bench.port.frame(buffer, 20);
    frame.attach(&loan, 4000, 200).attach(&loan, 0, 10);
    let id = frame.post(Offload::NONE).unwrap();
    assert!(bench.port.in_flight(id));
    let expected = [
        &pattern(20, 1)[..],
        &pattern(8192, 7)[4000..4200],
        &pattern(8192, 7)[..10],
    ]
    .concat();
    let posted = bench.ring.lock().unwrap().complete(0);
    assert_eq!(posted.bytes.as_deref(), Some(&expected[..]));
    assert_eq!(posted.fragments.len(), 4);
    let mut done = None;
    assert_eq!(bench.port.reclaim(&mut |frame| done = Some(frame)), Ok(1));
    assert_eq!(done, Some(id));
    assert!(!bench.port.in_flight(id));
    let counters = bench.port.counters();
    assert_eq!(
        (
            counters.frames,
            counters.shared_bytes,
            counters.buffer_bytes
        ),
        (1, 210, 20)
    );
    assert_eq!(counters.by_fragments[4], 1);
    bench.port.ledger_mut().give_back(loan);
}

#[test]
fn rule_1_one_crossing_and_a_header_make_three_pieces() {
    for (scattered, max_fragments, fits) in [(true, 2, false), (false, 2, true), (true, 3, true)] {
        let mut bench = bench(max_fragments);
        let region = bench
            .world
            .region(4096, 0, &pattern(8192, 3), |_| scattered);
        let id = bench.port.ledger_mut().register(region).unwrap();
        let loan = bench.port.ledger_mut().lend(id, 4095, 2).unwrap();
        let sent = bench.send(&loan, 4095, 2).map(|_| ());
        let expected = if fits {
            Ok(())
        } else {
            Err(PortError::TooManyPieces)
        };
        assert_eq!(sent, expected, "scattered {scattered}, {max_fragments}");
        assert_eq!(bench.port.outstanding(), usize::from(fits));
    }
}

#[test]
fn rule_2_a_region_is_released_after_completion_and_acknowledgement_in_any_order() {
    for completed_first in [true, false] {
        let mut bench = bench(4);
        let loan = bench.port.ledger_mut().lend(bench.id, 0, 100).unwrap();
        bench.send(&loan, 0, 100).unwrap();
        bench.port.ledger_mut().release(bench.id).unwrap();
        let complete = |bench: &mut Bench| {
            bench.complete(0);
            bench.reclaim().unwrap();
        };
        if completed_first {
            complete(&mut bench);
            assert!(bench.port.ledger_mut().take_released().is_none());
            bench.port.ledger_mut().give_back(loan);
        } else {
            bench.port.ledger_mut().give_back(loan);
            assert!(bench.port.ledger_mut().take_released().is_none());
            complete(&mut bench);
        }
        assert!(bench.port.ledger_mut().take_released().is_some());
        assert_eq!(Arc::strong_count(&bench.region), 1);
    }
}

#[test]
fn rule_4_a_frame_that_is_refused_changes_nothing() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 8192).unwrap();
    let before = bench.port.vacant_buffers();
    let full = PostError::Full;
    for refuse in [
        full,
        PostError::Down,
        PostError::Refused(FrameError::NoFragment),
    ] {
        bench.ring.lock().unwrap().refuse = Some(refuse);
        assert_eq!(bench.send(&loan, 4000, 200), Err(PortError::Post(refuse)));
    }
    for (start, len, error) in [
        (0, 0, LendError::Empty),
        (8192, 1, LendError::OutOfRange),
        (1, usize::MAX, LendError::OutOfRange),
    ] {
        assert_eq!(bench.send(&loan, start, len), Err(PortError::Lend(error)));
    }
    bench.ring.lock().unwrap().capacity = 0;
    assert_eq!(bench.send(&loan, 0, 1), Err(PortError::Post(full)));
    assert_eq!(bench.port.vacant_buffers(), before);
    assert_eq!((bench.loans(), bench.port.outstanding()), (1, 0));
    assert_eq!(bench.port.counters().frames, 0);
    bench.ring.lock().unwrap().capacity = 1;
    assert!(bench.send(&loan, 0, 1).is_ok());
}

#[test]
fn rule_4_a_frame_needs_a_header_and_room_for_its_pieces() {
    let mut bench = bench(4);
    for (len, error) in [(0, LendError::Empty), (129, LendError::OutOfRange)] {
        let buffer = bench.port.buffer(14).unwrap();
        let posted = bench.port.frame(buffer, len).post(Offload::NONE);
        assert_eq!(posted, Err(PortError::Lend(error)));
    }
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 8192).unwrap();
    let buffer = bench.port.buffer(14).unwrap();
    let mut frame = bench.port.frame(buffer, 14);
    for piece in 0..8 {
        frame.attach(&loan, piece * 1000, 100);
    }
    assert_eq!(frame.post(Offload::NONE), Err(PortError::TooManyPieces));
    assert_eq!((bench.loans(), bench.port.vacant_buffers()), (1, (8, 4)));
}

#[test]
fn rule_6_a_reset_gives_each_frame_back_once() {
    for start_again in [true, false] {
        let mut bench = bench(4);
        let loan = bench.port.ledger_mut().lend(bench.id, 0, 8192).unwrap();
        let ids: Vec<_> = (0..3)
            .map(|_| bench.send(&loan, 0, 8192).unwrap())
            .collect();
        bench.complete(1);
        assert_eq!(bench.reclaim(), Ok(1));
        bench.complete(1);
        assert_eq!(bench.loans(), 3);
        bench.reset(start_again).unwrap();
        assert_eq!((bench.loans(), bench.port.outstanding()), (1, 0));
        assert!(ids.iter().all(|id| !bench.port.in_flight(*id)));
        assert_eq!(bench.port.vacant_buffers(), (8, 4));
        bench.reset(start_again).unwrap();
        assert_eq!(bench.reclaim(), Ok(0));
        assert_eq!(bench.port.counters().stray_tokens, 0);
        bench.port.ledger_mut().give_back(loan);
        bench.port.ledger_mut().release(bench.id).unwrap();
        assert!(bench.port.ledger_mut().take_released().is_some());
    }
}

#[test]
fn rule_6_a_reset_that_fails_gives_back_only_what_the_driver_says() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    let mut nic = FakeNic::new(&bench.world, 2);
    let mut rx = FakeRx;
    let mut pairs = [PortPair {
        tx: &mut bench.port,
        rx: &mut rx,
    }];
    let missing = NicError::QueueMissing { index: 1 };
    assert_eq!(restart(&mut nic, &mut pairs), Err(missing));
    nic.quiet = false;
    assert_eq!(release(&mut nic, &mut pairs), Err(NicError::WrongPhase));
    assert_eq!(pairs[0].tx.outstanding(), 1);
    (nic.quiet, nic.taken, nic.init) = (true, 1, Err(NicError::NotQuiet));
    // The frames are back even if the device did not come up again.
    assert_eq!(restart(&mut nic, &mut pairs), Err(NicError::NotQuiet));
    assert_eq!((bench.loans(), bench.port.outstanding()), (1, 0));
}

#[test]
fn rule_6_a_shutdown_gives_everything_back_or_nothing() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    let mut nic = FakeNic::new(&bench.world, 1);
    nic.quiet = false;
    let mut rx = FakeRx;
    let mut pairs = [PortPair {
        tx: &mut bench.port,
        rx: &mut rx,
    }];
    // The device does not stop, and the caller has waited long enough.
    let mut waits = 0;
    let patience = || {
        waits += 1;
        (waits < 5).then_some(Instant::ZERO)
    };
    let result = shut_down(&mut nic, &mut pairs, patience);
    assert_eq!((result, waits), (Err(NicError::NotQuiet), 5));
    assert_eq!(pairs[0].tx.outstanding(), 1);
    nic.quiet = true;
    assert_eq!(
        shut_down(&mut nic, &mut pairs, || Some(Instant::ZERO)),
        Ok(())
    );
    assert_eq!((bench.loans(), bench.port.outstanding()), (1, 0));
}

#[test]
fn rule_6_a_reset_gives_tokens_to_the_port_that_posted_them() {
    let mut a = bench(4);
    let world = a.world.clone();
    let (mut b, ring_b) = port(&world, 4);
    let loan = a.port.ledger_mut().lend(a.id, 0, 10).unwrap();
    a.send(&loan, 0, 10).unwrap();
    for _ in 0..2 {
        let buffer = b.buffer(14).unwrap();
        b.frame(buffer, 14).post(Offload::NONE).unwrap();
    }
    ring_b.lock().unwrap().complete(0);
    let mut rx = [FakeRx, FakeRx];
    let [rx_a, rx_b] = &mut rx;
    let mut pairs = [
        PortPair {
            tx: &mut b,
            rx: rx_b,
        },
        PortPair {
            tx: &mut a.port,
            rx: rx_a,
        },
    ];
    restart(&mut FakeNic::new(&world, 2), &mut pairs).unwrap();
    assert_eq!(
        (a.loans(), a.port.outstanding(), b.outstanding()),
        (1, 0, 0)
    );
    assert_eq!(
        (a.port.counters().stray_tokens, b.counters().stray_tokens),
        (0, 0)
    );
}

#[test]
fn rule_6_a_port_dropped_with_frames_out_leaks_what_the_device_may_read() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    bench.port.ledger_mut().give_back(loan);
    let Bench {
        port,
        region,
        world,
        ring,
        ..
    } = bench;
    drop(port);
    assert_eq!((Arc::strong_count(&region), world.freed()), (2, 0));
    let posted = ring.lock().unwrap().complete(0);
    assert_eq!(world.read(&posted.fragments), posted.bytes);
}

#[test]
fn rule_6_a_port_dropped_without_frames_frees_all_it_had() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    bench.send(&loan, 0, 10).unwrap();
    bench.complete(0);
    bench.reclaim().unwrap();
    bench.port.ledger_mut().give_back(loan);
    drop(bench.port);
    assert_eq!(
        (Arc::strong_count(&bench.region), bench.world.freed()),
        (1, 2)
    );
}

#[test]
fn a_frame_id_does_not_name_a_later_frame_of_the_same_slot() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    let first = bench.send(&loan, 0, 10).unwrap();
    bench.complete(0);
    bench.reclaim().unwrap();
    let second = bench.send(&loan, 0, 10).unwrap();
    assert_ne!(first, second);
    assert!(!bench.port.in_flight(first) && bench.port.in_flight(second));
    assert_eq!(bench.port.slots.len(), 1);
}

#[test]
fn a_port_works_on_another_thread() {
    let mut bench = bench(4);
    let loan = bench.port.ledger_mut().lend(bench.id, 0, 10).unwrap();
    let thread = std::thread::spawn(move || {
        bench.send(&loan, 0, 10).unwrap();
        bench.complete(0);
        bench.reclaim()
    });
    assert_eq!(thread.join().unwrap(), Ok(1));
}

#[test]
fn a_device_that_needs_head_room_gets_it_before_the_header() {
    let world = World::new();
    let mut queue = FakeQueue::new(&world, 4);
    queue.capabilities.head_room = 12;
    let ring = queue.ring.clone();
    let mut port = TxPort::new(&mut FakeNic::new(&world, 1), queue, &layout()).unwrap();
    for _ in 0..3 {
        let mut buffer = port.buffer(14).unwrap();
        let start = port.bytes_mut(&mut buffer).as_ptr();
        port.frame(buffer, 14).post(Offload::NONE).unwrap();
        let ring = ring.lock().unwrap();
        let posted = ring.posted.last().unwrap();
        assert_eq!(posted.first, start.addr());
        let head = Fragment {
            address: DeviceAddress(posted.fragments[0].address.0 - 12),
            len: 12,
        };
        assert!(world.read(&[head]).is_some(), "the device finds it there");
    }
}

/// A region that says more of itself than its translation can tell.
struct Short(HeapRegion);

// SAFETY: the bytes are those of the other region; no address is wrong, there is just none.
unsafe impl Region for Short {
    fn base(&self) -> NonNull<u8> {
        Region::base(&self.0)
    }
    fn len(&self) -> usize {
        Region::len(&self.0)
    }
    fn domain(&self) -> DomainId {
        Region::domain(&self.0)
    }
    fn translation(&self) -> Translation<'_> {
        Translation::contiguous(Region::len(self), &[])
    }
}

#[test]
fn a_translation_that_ends_early_puts_no_shorter_frame_on_the_wire() {
    let mut bench = bench(4);
    let region = bench.world.region(4096, 0, &pattern(10, 0), |_| true);
    let short = Arc::new(Short(Arc::into_inner(region).unwrap()));
    let id = bench.port.ledger_mut().register(short).unwrap();
    let loan = bench.port.ledger_mut().lend(id, 0, 10).unwrap();
    let refused = Err(PortError::Lend(LendError::OutOfRange));
    assert_eq!(bench.send(&loan, 0, 10), refused);
    assert_eq!(bench.loans(), 1);
}
