//! The transmit queue against a device that lies, and against callbacks that unwind.

use std::vec;

use pagewire_hal::{PostError, QueueError, RxQueue, TxQueue};

use super::Bench;
use crate::Features;
use crate::fake::{Play, RX, TX};
use crate::fake_ring::PlayRings;

const NOTHING: Features = Features::empty();
const PACKED: Features = Features::RING_PACKED;

#[test]
fn rule_7_used_entries_that_lie_stop_the_queue_and_hand_nothing_back() {
    let lies: [(&str, u32); 5] = [
        ("beyond the ring", 8),
        ("far beyond", 0xFFFF_FFFF),
        ("not outstanding", 5),
        ("inside a chain", 1),
        ("not announced", 3),
    ];
    for features in [NOTHING, Features::IN_ORDER] {
        for (what, id) in lies {
            let mut bench = Bench::with(features, 8);
            // Descriptors 0 to 2 are announced, 3 is posted, 4 to 7 are free.
            assert_eq!(bench.post(3, 1), Ok(()));
            bench.tx.doorbell();
            assert_eq!(bench.post(1, 2), Ok(()));
            bench.fake.complete(TX, id, 0);
            let error = bench.tx.reclaim(&mut |_| panic!("{what}: a token"));
            assert_eq!(error, Err(QueueError::BadIndex { index: id }), "{what}");
            assert_eq!(bench.tx.outstanding(), 2);
            assert_eq!(bench.tx.reclaim(&mut |_| {}), Err(QueueError::Down));
            assert_eq!(bench.post(1, 9), Err(PostError::Down));
            assert!(!bench.tx.has_room(1));
            assert_eq!(bench.tx.counters().nonsense, 1);
        }
    }
}

#[test]
fn rule_7_a_buffer_that_comes_and_goes_does_not_hold_the_driver() {
    for features in [NOTHING, Features::EVENT_IDX, PACKED] {
        let mut bench = Bench::with(features, 8);
        assert_eq!(bench.post(1, 1), Ok(()));
        bench.tx.doorbell();
        bench.fake.transmit();
        bench.fake.flicker(TX);
        // It is gone, is there when the queue has asked for an interrupt, and is gone again.
        let looked = bench.tx.reclaim(&mut |_| panic!("a token"));
        assert_eq!(looked, Ok(0), "{features}");
        assert!(bench.tx.outstanding() == 1, "{features}");

        let mut bench = Bench::with(features, 8);
        assert!(bench.fake.deliver(&[0; 60], 72));
        bench.fake.flicker(RX);
        let looked = bench.rx.receive(8, &mut |_| panic!("a frame"));
        assert_eq!(looked, Ok(0), "{features}");
    }
}

#[test]
fn rule_7_a_frame_is_completed_once() {
    let mut bench = Bench::with(NOTHING, 8);
    for token in 0..3 {
        assert_eq!(bench.post(1, token), Ok(()));
    }
    bench.tx.doorbell();
    bench.fake.complete(TX, 0, 0);
    bench.fake.complete(TX, 0, 0);
    let mut tokens = vec![];
    let error = bench.tx.reclaim(&mut |token| tokens.push(token.0));
    assert_eq!(error, Err(QueueError::BadIndex { index: 0 }));
    assert_eq!(tokens, [0]);
}

#[test]
fn rule_7_an_index_beyond_what_is_out_is_an_error() {
    let mut bench = Bench::with(NOTHING, 8);
    assert_eq!(bench.post(1, 0), Ok(()));
    bench.tx.doorbell();
    bench.fake.complete_many(TX, 0, 0, 2);
    let error = bench.tx.reclaim(&mut |_| panic!("a token"));
    assert_eq!(error, Err(QueueError::BadIndex { index: 2 }));
    // In order: the entry names a frame that the index does not cover.
    let mut bench = Bench::with(Features::IN_ORDER, 8);
    for token in 0..3 {
        assert_eq!(bench.post(1, token), Ok(()));
    }
    bench.tx.doorbell();
    bench.fake.complete_many(TX, 2, 0, 2);
    let mut tokens = vec![];
    let error = bench.tx.reclaim(&mut |token| tokens.push(token.0));
    assert_eq!(error, Err(QueueError::BadIndex { index: 2 }));
    assert_eq!(tokens, [0, 1]);
}

#[test]
fn rule_7_packed_descriptors_that_lie() {
    for features in [PACKED, PACKED | Features::IN_ORDER] {
        // Id 0 is announced, 1 is posted, the others are free.
        for id in [8, 0xFFFF, 5, 1] {
            let mut bench = Bench::with(features, 8);
            assert_eq!(bench.post(3, 1), Ok(()));
            bench.tx.doorbell();
            assert_eq!(bench.post(1, 2), Ok(()));
            bench.fake.complete(TX, id, 0);
            let error = bench.tx.reclaim(&mut |_| panic!("id {id}: a token"));
            assert_eq!(error, Err(QueueError::BadIndex { index: id }));
            assert_eq!(bench.tx.reclaim(&mut |_| {}), Err(QueueError::Down));
            assert_eq!(bench.tx.outstanding(), 2);
        }
        // Twice the same, and one with nothing outstanding.
        let mut bench = Bench::with(features, 8);
        assert_eq!(bench.post(1, 1), Ok(()));
        bench.tx.doorbell();
        bench.fake.complete(TX, 0, 0);
        bench.fake.complete(TX, 0, 0);
        let mut tokens = vec![];
        let error = bench.tx.reclaim(&mut |token| tokens.push(token.0));
        assert_eq!(error, Err(QueueError::BadIndex { index: 0 }));
        assert_eq!(tokens, [1]);
    }
}

#[test]
fn a_panic_in_the_callback_loses_no_other_token_and_repeats_none() {
    for features in [NOTHING, Features::IN_ORDER, PACKED] {
        let mut bench = Bench::with(features, 8);
        for token in 0..5 {
            assert_eq!(bench.post(1, token), Ok(()));
        }
        bench.tx.doorbell();
        while bench.fake.fetch(TX).is_some() {}
        if !features.contains(Features::IN_ORDER) {
            (0..5).for_each(|id| bench.fake.complete(TX, id, 0));
        } else {
            bench.fake.complete_many(TX, 4, 0, 5);
        }
        let mut seen = vec![];
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = bench.tx.reclaim(&mut |token| {
                seen.push(token.0);
                assert_ne!(token.0, 2, "this is the panic of the test");
            });
        }));
        assert!(panicked.is_err());
        seen.extend(bench.reclaim());
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }
}
