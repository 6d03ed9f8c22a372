//! The watch on transmit queues.

use core::time::Duration;

use pagewire_hal::{Instant, Nic, Phase, QueuePair, TxQueue};

use super::Bench;
use crate::Features;
use crate::fake::{Play, TX};

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

fn is_hung(bench: &mut Bench, millis: u64) -> bool {
    match bench.nic.poll(at(millis)) {
        Ok(Phase::Hung) => true,
        Ok(Phase::Running(_)) => false,
        other => panic!("{other:?}"),
    }
}

fn send(bench: &mut Bench, token: u32) {
    assert_eq!(bench.post(1, token), Ok(()));
    bench.tx.doorbell();
}

/// Ring formats, and how many milliseconds a hang takes.
const FORMATS: [(Features, u64); 2] = [(Features::empty(), 500), (Features::RING_PACKED, 4000)];

#[test]
fn a_device_that_stands_still_with_work_is_hung_and_a_reset_cures_it() {
    for (features, limit) in FORMATS {
        let mut bench = Bench::with(features, 8);
        assert!(!is_hung(&mut bench, 0));
        assert!(!is_hung(&mut bench, 100_000), "without work");
        send(&mut bench, 1);
        assert!(!is_hung(&mut bench, 100_001), "first seen now");
        assert!(!is_hung(&mut bench, 100_000 + limit));
        assert!(is_hung(&mut bench, 100_001 + limit), "{features}");
        assert_eq!(bench.fake.transmit().len(), 1);
        assert_eq!(bench.reclaim(), [1]);
        assert!(!is_hung(&mut bench, 200_000), "it goes by itself");
        send(&mut bench, 2);
        assert!(!is_hung(&mut bench, 200_001));
        assert!(is_hung(&mut bench, 300_000));
        bench.nic.begin_reset(at(300_000));
        assert_eq!(bench.nic.poll(at(300_000)), Ok(Phase::Quiet));
        let (tx, rx) = (&mut bench.tx, &mut bench.rx);
        let lent = &mut [QueuePair { tx, rx }];
        assert_eq!(bench.nic.restart(lent, &mut |_, _| {}), Ok(()));
        send(&mut bench, 3);
        assert!(!is_hung(&mut bench, 300_001), "not by what was before");
    }
}

#[test]
fn a_device_that_moves_is_not_hung_however_many_frames_it_sends() {
    for (features, limit) in FORMATS {
        let mut bench = Bench::with(features, 8);
        let mut now = 0;
        // Between two looks the ring's length of frames, or 2^16 of them: the same places.
        for count in [1, 7, 8, 9, 16, 65_536] {
            send(&mut bench, 0);
            assert!(!is_hung(&mut bench, now), "{features} {count}");
            for _ in 0..count {
                assert_eq!(bench.fake.transmit().len(), 1);
                assert_eq!(bench.reclaim(), [0]);
                send(&mut bench, 0);
            }
            now += limit;
            assert!(!is_hung(&mut bench, now), "{features} {count}");
            assert_eq!(bench.fake.transmit().len(), 1);
            assert_eq!(bench.reclaim(), [0]);
        }
    }
}

#[test]
fn frames_that_are_done_but_not_reclaimed_are_no_hang() {
    let mut bench = Bench::with(Features::empty(), 8);
    for token in 0..5 {
        send(&mut bench, token);
    }
    assert!(!is_hung(&mut bench, 0));
    assert_eq!(bench.fake.transmit().len(), 5);
    assert!(!is_hung(&mut bench, 10_000));
    assert!(!is_hung(&mut bench, 20_000));
    // Posted, but the device was not told.
    assert_eq!(bench.post(1, 9), Ok(()));
    assert!(!is_hung(&mut bench, 30_000));
    assert!(!is_hung(&mut bench, 40_000));
}

#[test]
fn a_queue_that_is_gone_is_not_watched() {
    let mut bench = Bench::with(Features::empty(), 8);
    send(&mut bench, 1);
    assert!(!is_hung(&mut bench, 0));
    let Bench { mut nic, tx, .. } = bench;
    drop(tx);
    assert!(matches!(nic.poll(at(1000)), Ok(Phase::Running(_))));
}

#[test]
fn a_queue_on_another_thread_may_go_while_it_is_watched() {
    for _ in 0..50 {
        let mut bench = Bench::with(Features::empty(), 4);
        send(&mut bench, 1);
        let Bench { mut nic, tx, .. } = bench;
        let other = std::thread::spawn(move || drop(tx));
        for millis in 0..50 {
            assert!(matches!(nic.poll(at(millis)), Ok(Phase::Running(_))));
        }
        other.join().expect("no panic");
        assert!(matches!(nic.poll(at(9000)), Ok(Phase::Running(_))));
    }
}

#[test]
fn each_pair_is_watched() {
    let fake = crate::fake::Fake::new();
    fake.device().net[8] = 2;
    let config = crate::Config {
        queue_pairs: 2,
        ..crate::Config::default()
    };
    let mut bench = Bench::of(fake, &config);
    let (mut tx, _rx) = bench.nic.take_queues(1).expect("a pair");
    assert_eq!(bench.post_on(&mut tx, 1, 7), Ok(()));
    tx.doorbell();
    send(&mut bench, 8);
    assert!(!is_hung(&mut bench, 0));
    assert_eq!(bench.fake.transmit_on(TX).len(), 1);
    assert!(is_hung(&mut bench, 500), "the second stands still");
    assert_eq!(bench.fake.transmit_on(3).len(), 1);
    assert!(!is_hung(&mut bench, 501));
}
