//! The impaired wire: it does what it says, as often as it says, and counts it.

use std::time::Duration;

use pagewire_hal::Instant;
use pagewire_models::Wire;
use pagewire_models::wire::{Impaired, Impairment, PairEnd, pair};

const STEP: Duration = Duration::from_micros(10);

/// Sends `count` numbered frames, one every [`STEP`], then waits until all have arrived;
/// returns the numbers as they arrived, and when.
fn run(wire: &mut Impaired<PairEnd>, far: &mut PairEnd, count: u32) -> Vec<(u32, Instant)> {
    let mut arrived = Vec::new();
    let mut now = Instant::ZERO;
    let mut frame = Vec::new();
    let mut n = 0;
    while n < count || wire.next_due().is_some() {
        if n < count {
            frame.clear();
            frame.extend_from_slice(&n.to_be_bytes());
            wire.transmit(&mut frame, now);
            n += 1;
        }
        wire.poll(now);
        while far.receive(&mut frame, now) {
            let number = u32::from_be_bytes(frame.first_chunk().copied().unwrap_or_default());
            arrived.push((number, now));
        }
        now = now + STEP;
    }
    arrived
}

fn impaired(seed: u64, impairment: Impairment) -> (Impaired<PairEnd>, PairEnd) {
    let (near, far) = pair();
    (Impaired::new(near, seed, impairment, Impairment::NONE), far)
}

#[test]
fn an_unimpaired_wire_changes_nothing() {
    let (mut wire, mut far) = impaired(1, Impairment::NONE);
    let arrived = run(&mut wire, &mut far, 1000);
    assert!(arrived.iter().map(|(n, _)| *n).eq(0..1000));
    let counters = wire.transmit_counters();
    assert_eq!((counters.seen, counters.delivered), (1000, 1000));
    assert_eq!(counters.lost + counters.duplicated + counters.reordered, 0);
}

#[test]
fn losses_and_copies_are_as_many_as_counted_and_about_as_many_as_asked_for() {
    for seed in 0..10 {
        let (mut wire, mut far) = impaired(
            seed,
            Impairment {
                loss: 0.1,
                duplication: 0.2,
                ..Impairment::NONE
            },
        );
        let arrived = run(&mut wire, &mut far, 10_000);
        let counters = wire.transmit_counters();
        // Six standard deviations around the mean.
        assert!(
            (820..=1180).contains(&counters.lost),
            "seed {seed}: {counters:?}"
        );
        // A frame that is lost is not duplicated: 0.9 × 0.2.
        assert!(
            (1570..=2030).contains(&counters.duplicated),
            "seed {seed}: {counters:?}"
        );
        let expected = 10_000 - counters.lost + counters.duplicated;
        assert_eq!(arrived.len() as u64, expected, "seed {seed}");
        assert_eq!(counters.delivered, expected, "seed {seed}");
        assert!(
            arrived.is_sorted_by_key(|(n, _)| *n),
            "seed {seed}: reordered"
        );
        let mut numbers: Vec<u32> = arrived.iter().map(|(n, _)| *n).collect();
        numbers.dedup();
        assert_eq!(numbers.len() as u64, 10_000 - counters.lost, "seed {seed}");
    }
}

#[test]
fn a_frame_is_overtaken_by_as_many_as_asked_for() {
    for seed in 0..10 {
        let (mut wire, mut far) = impaired(
            seed,
            Impairment {
                reordering: 0.01,
                reorder_frames: 4,
                reorder_time: Duration::from_secs(1),
                ..Impairment::NONE
            },
        );
        let arrived = run(&mut wire, &mut far, 5000);
        let reordered = wire.transmit_counters().reordered;
        assert!((15..=100).contains(&reordered), "seed {seed}: {reordered}");
        assert_eq!(arrived.len(), 5000, "seed {seed}");
        let late = (0..arrived.len()).filter(|at| {
            let overtaken_by = arrived[..*at].iter().filter(|(n, _)| *n > arrived[*at].0);
            let count = overtaken_by.count();
            assert!(count <= 5, "seed {seed}: overtaken by {count}");
            count > 0
        });
        assert_eq!(late.count() as u64, reordered, "seed {seed}");
    }
}

#[test]
fn a_frame_that_nothing_overtakes_goes_on_in_time() {
    let (mut wire, mut far) = impaired(
        7,
        Impairment {
            reordering: 1.0,
            reorder_frames: u32::MAX,
            reorder_time: Duration::from_millis(3),
            ..Impairment::NONE
        },
    );
    assert_eq!(wire.next_due(), None);
    let arrived = run(&mut wire, &mut far, 1);
    assert_eq!(arrived, [(0, Instant::from_nanos(3_000_000))]);
    assert_eq!(wire.next_due(), None);
}

#[test]
fn every_frame_is_delayed() {
    let (mut wire, mut far) = impaired(
        7,
        Impairment {
            delay: Duration::from_micros(500),
            ..Impairment::NONE
        },
    );
    let arrived = run(&mut wire, &mut far, 100);
    for (n, at) in arrived {
        assert_eq!(at, Instant::ZERO + STEP * n + Duration::from_micros(500));
    }
}

#[test]
fn received_frames_are_impaired_by_themselves() {
    let (near, mut far) = pair();
    let receive = Impairment {
        loss: 0.5,
        delay: STEP,
        ..Impairment::NONE
    };
    let mut wire = Impaired::new(near, 3, Impairment::NONE, receive);
    for n in 0..200u8 {
        far.transmit(&mut vec![n], Instant::ZERO);
        wire.transmit(&mut vec![n], Instant::ZERO);
    }
    assert_eq!(far.waiting(), 200);
    let mut frame = Vec::new();
    assert!(!wire.receive(&mut frame, Instant::ZERO), "arrived at once");
    let later = Instant::ZERO + STEP;
    assert_eq!(wire.next_due(), Some(later));
    let mut count = 0;
    while wire.receive(&mut frame, later) {
        count += 1;
    }
    let counters = wire.receive_counters();
    assert_eq!(counters.seen, 200);
    assert_eq!(counters.lost + count, 200);
    assert!((50..150).contains(&count), "{count}");
    assert_eq!(wire.transmit_counters().lost, 0);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let all = Impairment {
        loss: 0.1,
        duplication: 0.1,
        reordering: 0.1,
        delay: Duration::from_micros(55),
        ..Impairment::NONE
    };
    let go = |seed| {
        let (mut wire, mut far) = impaired(seed, all);
        run(&mut wire, &mut far, 1000)
    };
    assert_eq!(go(5), go(5));
    assert_ne!(go(5), go(6));
}
