//! Lies of Intel NICs one by one, each with what must come of it.

use std::time::Duration;

use pagewire::hal::{Nic, NicError, Phase, RxQueue};
use pagewire_models::ixgbe::Lie;

use crate::hostile::{Plan, Raw, Stopped, Subject};
use crate::lies::{lasting, only, open, post, start, told};

/// Makes a test of each function below, for a subject.
macro_rules! tests {
    ($subject:ty) => {
        #[test]
        fn a_length_beyond_the_buffer_is_counted_and_dropped() {
            $crate::named::a_length_beyond_the_buffer_is_counted_and_dropped::<$subject>();
        }

        #[test]
        fn error_bits_are_counted_and_dropped() {
            $crate::named::error_bits_are_counted_and_dropped::<$subject>();
        }

        #[test]
        fn heads_and_tails_release_nothing() {
            $crate::named::heads_and_tails_release_nothing::<$subject>();
        }

        #[test]
        fn done_bits_where_nothing_was_posted_complete_nothing() {
            $crate::named::done_bits_where_nothing_was_posted_complete_nothing::<$subject>();
        }

        #[test]
        fn a_write_back_that_is_taken_away_or_lost_waits_for_a_reset() {
            $crate::named::a_write_back_that_is_taken_away_or_lost_waits_for_a_reset::<$subject>();
        }

        #[test]
        fn what_never_becomes_quiet_leaks_what_it_was_lent() {
            $crate::named::what_never_becomes_quiet_leaks_what_it_was_lent::<$subject>();
        }

        #[test]
        fn a_reset_that_does_not_end_is_no_start_and_no_leak() {
            $crate::named::a_reset_that_does_not_end_is_no_start_and_no_leak::<$subject>();
        }

        #[test]
        fn opening_names_what_was_wrong() {
            $crate::named::opening_names_what_was_wrong::<$subject>();
        }

        #[test]
        fn a_device_that_fills_while_we_read_ends_somewhere() {
            $crate::named::a_device_that_fills_while_we_read_ends_somewhere::<$subject>();
        }
    };
}
pub(crate) use tests;

/// A driver on a device that tells this lie from now on.
fn lying<S: Subject<Lie = Lie>>(lie: Lie, seed: u64) -> Raw<S> {
    start(&only(lie, seed))
}

pub(crate) fn a_length_beyond_the_buffer_is_counted_and_dropped<S: Subject<Lie = Lie>>() {
    let mut sum = 0;
    for seed in 0..20 {
        let mut raw = lying::<S>(Lie::WrongLength, seed);
        for _ in 0..4 {
            (0..5).for_each(|_| raw.deliver(100));
            raw.run(300, 10);
            // `Raw::receive` fails for a length that no buffer has.
            raw.receive(100).unwrap();
        }
        let (lies, counters) = (told(&raw, Lie::WrongLength), raw.rx.counters());
        assert_eq!(lies, 20, "seed {seed}");
        assert_eq!(counters.delivered + counters.nonsense, 20, "seed {seed}");
        sum += counters.nonsense;
        raw.recover();
        raw.finish();
    }
    // Four of five wrong lengths are impossible ones, and most of the others.
    assert!(sum >= 300, "{sum} of 400");
}

pub(crate) fn error_bits_are_counted_and_dropped<S: Subject<Lie = Lie>>() {
    for seed in 0..10 {
        let mut raw = lying::<S>(Lie::ErrorBits, seed);
        (0..5).for_each(|_| raw.deliver(100));
        raw.run(300, 10);
        assert_eq!(raw.receive(100), Ok(vec![]), "seed {seed}");
        assert_eq!(raw.rx.counters().damaged, 5, "seed {seed}");
        assert_eq!(told(&raw, Lie::ErrorBits), 5, "seed {seed}");
        raw.finish();
    }
}

pub(crate) fn heads_and_tails_release_nothing<S: Subject<Lie = Lie>>() {
    for seed in 0..20 {
        let mut raw = lying::<S>(Lie::RingIndex, seed);
        raw.machine.hold_completions(true);
        post(&mut raw, 5);
        for _ in 0..20 {
            raw.run(20, 10);
            let phase = raw.nic.poll(raw.machine.watch.host.now());
            assert!(
                matches!(phase, Ok(Phase::Running(_) | Phase::Hung)),
                "seed {seed}: {phase:?}"
            );
            assert_eq!(raw.reclaim(), Ok(0), "seed {seed}");
            raw.check();
        }
        assert!(told(&raw, Lie::RingIndex) > 0, "seed {seed}");
        raw.machine.hold_completions(false);
        raw.run(500, 10);
        assert_eq!(raw.reclaim(), Ok(5), "seed {seed}");
        raw.recover();
        raw.finish();
    }
}

pub(crate) fn done_bits_where_nothing_was_posted_complete_nothing<S: Subject<Lie = Lie>>() {
    for seed in 0..20 {
        let mut raw = lying::<S>(Lie::DoneAtRandom, seed);
        for _ in 0..20 {
            raw.run(50, 10);
            assert_eq!(raw.reclaim(), Ok(0), "seed {seed}");
            raw.receive(100).unwrap();
            raw.check();
        }
        let counters = raw.rx.counters();
        let seen = counters.delivered + counters.nonsense + counters.too_long;
        assert!(seen > 0, "seed {seed}: {counters:?}");
        // And where something was posted, each frame comes back once.
        for _ in 0..20 {
            post(&mut raw, 2);
            raw.run(10, 10);
            raw.reclaim().unwrap();
            raw.check();
            if raw.books.out.len() > 20 {
                break;
            }
        }
        raw.recover();
        raw.finish();
    }
}

pub(crate) fn a_write_back_that_is_taken_away_or_lost_waits_for_a_reset<S: Subject<Lie = Lie>>() {
    for lie in [Lie::WriteBackLost, Lie::DoneTakenAway] {
        for seed in 0..10 {
            let mut raw = lying::<S>(lie, seed);
            post(&mut raw, 4);
            raw.run(500, 10);
            if lie == Lie::WriteBackLost {
                assert_eq!(raw.reclaim(), Ok(0), "seed {seed}");
                assert_eq!(raw.books.out.len(), 4, "seed {seed}");
            }
            raw.recover();
            assert_eq!(raw.books.out.len(), 0, "seed {seed}");
            raw.finish();
        }
    }
}

pub(crate) fn what_never_becomes_quiet_leaks_what_it_was_lent<S: Subject<Lie = Lie>>() {
    for seed in 0..10 {
        let mut raw = start(&lasting::<S>(Lie::NeverQuiet, seed));
        raw.machine.hold_completions(true);
        post(&mut raw, 3);
        raw.run(10, 10);
        let stopped = raw.machine.stop(&mut raw.nic);
        assert_eq!(
            stopped,
            Stopped::Failed(Some(NicError::NotQuiet)),
            "seed {seed}"
        );
        assert_eq!(raw.restart(), Err(NicError::WrongPhase), "seed {seed}");
        assert_eq!(raw.release(), Err(NicError::WrongPhase), "seed {seed}");
        assert_eq!(raw.books.out.len(), 3, "seed {seed}");
        // The rings, both kinds of buffers and the one region, and nothing else.
        raw.finish();
    }
}

pub(crate) fn a_reset_that_does_not_end_is_no_start_and_no_leak<S: Subject<Lie = Lie>>() {
    for seed in 0..10 {
        let mut raw = start(&lasting::<S>(Lie::ResetNeverClears, seed));
        post(&mut raw, 3);
        let stopped = raw.machine.stop(&mut raw.nic);
        assert_eq!(stopped, Stopped::Quiet, "seed {seed}");
        match raw.restart() {
            Err(NicError::Timeout { what, .. }) => {
                assert!(what.contains("reset"), "seed {seed}: {what}");
                assert_eq!(raw.books.out.len(), 3, "seed {seed}");
                assert_eq!(raw.release(), Ok(()), "seed {seed}");
                assert_eq!(raw.books.out.len(), 0, "seed {seed}");
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        raw.finish();
    }
}

pub(crate) fn opening_names_what_was_wrong<S: Subject<Lie = Lie>>() {
    for seed in 0..10 {
        let unknown = open(&only::<S>(Lie::IdChanged, seed));
        assert!(
            matches!(
                unknown,
                Err(NicError::UnknownDevice { .. } | NicError::Removed)
            ),
            "seed {seed}: {unknown:?}"
        );
        let sum = open(&only::<S>(Lie::ReadyAtOnce, seed));
        assert!(
            matches!(sum, Err(NicError::EepromChecksum { .. })),
            "seed {seed}: {sum:?}"
        );
        let gone = open(&only::<S>(Lie::ConfigAllOnes, seed));
        assert_eq!(gone.err(), Some(NicError::Removed), "seed {seed}");
        let gone = open(&only::<S>(Lie::RegisterAllOnes, seed));
        assert_eq!(gone.err(), Some(NicError::Removed), "seed {seed}");
        let master = open(&lasting::<S>(Lie::NeverQuiet, seed));
        assert!(
            matches!(master, Err(NicError::Timeout { what, .. }) if what.contains("master")),
            "seed {seed}: {master:?}"
        );
        let never = open(&only::<S>(Lie::ReadyNever, seed));
        assert!(
            matches!(never, Err(NicError::Timeout { .. })),
            "seed {seed}: {never:?}"
        );
        let lost = open(&only::<S>(Lie::WriteLost, seed));
        assert!(lost.is_err(), "seed {seed}: opened without a write");
        // A capability list that is a ring ends; without PCI Express the device's word has to do.
        let ring = open(&only::<S>(Lie::CapabilityLoop, seed));
        assert!(ring.is_ok(), "seed {seed}: {ring:?}");
    }
}

pub(crate) fn a_device_that_fills_while_we_read_ends_somewhere<S: Subject<Lie = Lie>>() {
    let mut filled = 0;
    for seed in 0..100 {
        let mut plan = only::<S>(Lie::DoneAtRandom, seed);
        plan.setup = with_few_buffers::<S>();
        let mut raw = start(&plan);
        let watch = raw.machine.watch.clone();
        watch.run(200, Duration::from_micros(10));
        let mut count = 0;
        let result = raw.rx.receive(1000, &mut |_| {
            count += 1;
            watch.run(200, Duration::from_micros(10));
        });
        assert_eq!(result, Ok(count), "seed {seed}");
        raw.delivered += count as u64;
        // It had seven of the eight.
        let counters = raw.rx.counters();
        let seen = counters.delivered + counters.nonsense + counters.too_long;
        assert!(seen <= 7, "seed {seed}: {seen} frames");
        filled += count;
        raw.finish();
    }
    assert!(filled > 0, "no frame in all of them");
}

/// The usual settings, with eight receive descriptors.
fn with_few_buffers<S: Subject>() -> S::Setup {
    let mut bytes = S::HONEST.to_vec();
    bytes[1] &= !0x30;
    Plan::<S>::parse(&bytes).0.setup
}
