//! Lies one by one, each with what must come of it.

use std::ops::Range;
use std::time::Duration;

use pagewire::hal::{LinkState, Nic, NicError, Phase, QueueError, RxQueue};
use pagewire_models::e1000e::{Hostile, Lie, Lies};

use crate::hostile::{Machine, Nic82574, Offloaded, Plan, Raw, Stopped};

/// A plan for a device that tells this lie whenever it can.
fn only(lie: Lie, seed: u64) -> Plan {
    let mut plan = Plan::honest();
    plan.hostile = Hostile::from_seed(seed)
        .with_lies(Lies::only(lie))
        .with_gap(0);
    plan.seed = seed;
    plan
}

/// A driver that was opened on an honest device, which lies from now on. The link is up.
fn lying(lie: Lie, seed: u64) -> Raw {
    start(&only(lie, seed))
}

fn start(plan: &Plan) -> Raw {
    let mut raw = Raw::open(plan);
    raw.run(3000, 10);
    raw.machine.set_hostile(true);
    raw
}

/// Opens a driver on a device that lies from the start, and has worked for a while.
fn open(plan: &Plan) -> Result<Nic82574, NicError> {
    let (mut machine, platform) = Machine::new(plan);
    machine.set_hostile(true);
    machine.watch.run(5, Duration::from_micros(10));
    machine.open(platform)
}

/// A plan for a device that tells this lie for as long as a script can: 2^15 accesses and steps.
fn lasting(lie: Lie, seed: u64) -> Plan {
    let mut plan = Plan::honest();
    // No opportunity passes, the one lie that is allowed, the longest time.
    plan.hostile = Hostile::from_bytes([0, 0, 15].repeat(64)).with_lies(Lies::only(lie));
    plan.seed = seed;
    plan
}

fn told(raw: &Raw, lie: Lie) -> u64 {
    raw.machine.told().told(lie)
}

/// Posts frames of a header and two pieces of a region each.
fn post(raw: &mut Raw, count: usize) {
    let region = raw.register(100, 9000);
    for _ in 0..count {
        let pieces = [(region, 5, 300), (region, 4000, 200)];
        raw.post(14, &pieces, Offloaded::Nothing).unwrap();
    }
    raw.port.doorbell();
}

#[test]
fn a_length_beyond_the_buffer_is_counted_and_dropped() {
    let mut sum = 0;
    for seed in 0..20 {
        let mut raw = lying(Lie::WrongLength, seed);
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

#[test]
fn error_bits_are_counted_and_dropped() {
    for seed in 0..10 {
        let mut raw = lying(Lie::ErrorBits, seed);
        (0..5).for_each(|_| raw.deliver(100));
        raw.run(300, 10);
        assert_eq!(raw.receive(100), Ok(vec![]), "seed {seed}");
        assert_eq!(raw.rx.counters().damaged, 5, "seed {seed}");
        assert_eq!(told(&raw, Lie::ErrorBits), 5, "seed {seed}");
        raw.finish();
    }
}

#[test]
fn heads_and_tails_release_nothing() {
    for seed in 0..20 {
        let mut raw = lying(Lie::RingIndex, seed);
        let model = raw.machine.watch.model.clone();
        model.with_device(|device| device.hold_completions(true));
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
        model.with_device(|device| device.hold_completions(false));
        raw.run(500, 10);
        assert_eq!(raw.reclaim(), Ok(5), "seed {seed}");
        raw.recover();
        raw.finish();
    }
}

#[test]
fn done_bits_where_nothing_was_posted_complete_nothing() {
    for seed in 0..20 {
        let mut raw = lying(Lie::DoneAtRandom, seed);
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

#[test]
fn a_write_back_that_is_taken_away_or_lost_waits_for_a_reset() {
    for lie in [Lie::WriteBackLost, Lie::DoneTakenAway] {
        for seed in 0..10 {
            let mut raw = lying(lie, seed);
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

#[test]
fn what_never_becomes_quiet_leaks_what_it_was_lent() {
    for seed in 0..10 {
        let mut raw = start(&lasting(Lie::NeverQuiet, seed));
        let model = raw.machine.watch.model.clone();
        model.with_device(|device| device.hold_completions(true));
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

#[test]
fn a_reset_that_does_not_end_is_no_start_and_no_leak() {
    for seed in 0..10 {
        let mut raw = start(&lasting(Lie::ResetNeverClears, seed));
        post(&mut raw, 3);
        let stopped = raw.machine.stop(&mut raw.nic);
        assert_eq!(stopped, Stopped::Quiet, "seed {seed}");
        match raw.restart() {
            Err(NicError::Timeout { what, .. }) => {
                assert!(what.contains("global reset"), "seed {seed}: {what}");
                assert_eq!(raw.books.out.len(), 3, "seed {seed}");
                assert_eq!(raw.release(), Ok(()), "seed {seed}");
                assert_eq!(raw.books.out.len(), 0, "seed {seed}");
            }
            other => panic!("seed {seed}: {other:?}"),
        }
        raw.finish();
    }
}

#[test]
fn opening_names_what_was_wrong() {
    for seed in 0..10 {
        let unknown = open(&only(Lie::IdChanged, seed));
        assert!(
            matches!(
                unknown,
                Err(NicError::UnknownDevice { .. } | NicError::Removed)
            ),
            "seed {seed}: {unknown:?}"
        );
        let sum = open(&only(Lie::ReadyAtOnce, seed));
        assert!(
            matches!(sum, Err(NicError::EepromChecksum { .. })),
            "seed {seed}: {sum:?}"
        );
        let gone = open(&only(Lie::ConfigAllOnes, seed));
        assert_eq!(gone.err(), Some(NicError::Removed), "seed {seed}");
        let gone = open(&only(Lie::RegisterAllOnes, seed));
        assert_eq!(gone.err(), Some(NicError::Removed), "seed {seed}");
        let master = open(&lasting(Lie::NeverQuiet, seed));
        assert!(
            matches!(master, Err(NicError::Timeout { what, .. }) if what.contains("master")),
            "seed {seed}: {master:?}"
        );
        let never = open(&only(Lie::ReadyNever, seed));
        assert!(
            matches!(never, Err(NicError::Timeout { .. })),
            "seed {seed}: {never:?}"
        );
        let lost = open(&only(Lie::WriteLost, seed));
        assert!(lost.is_err(), "seed {seed}: opened without a write");
        // A capability list that is a ring ends; without PCI Express the device's word has to do.
        let ring = open(&only(Lie::CapabilityLoop, seed));
        assert!(ring.is_ok(), "seed {seed}: {ring:?}");
    }
}

/// What a program does, and whether it may go unnoticed that the device is gone.
type Operation = (&'static str, fn(&mut Raw));

const OPERATIONS: [Operation; 10] = [
    ("post", |raw| {
        let region = raw.register(0, 5000);
        raw.post(14, &[(region, 0, 5000 / 4)], Offloaded::Tcp).ok();
        raw.post(60, &[], Offloaded::Nothing).unwrap();
    }),
    ("doorbell", |raw| post(raw, 2)),
    ("reclaim", |raw| {
        raw.reclaim().unwrap();
    }),
    ("receive", |raw| {
        raw.receive(64).unwrap();
    }),
    ("statistics", |raw| {
        raw.nic.statistics();
    }),
    ("link", |raw| {
        let LinkState { up, speed_mbps, .. } = raw.nic.link();
        assert_eq!(up, speed_mbps > 0);
    }),
    ("interrupts", |raw| {
        let vectors = raw.nic.enable_interrupts();
        assert!(matches!(vectors, Ok(1..=3)), "{vectors:?}");
        raw.run(50, 10);
        raw.nic.take_interrupts();
    }),
    ("poll", |raw| {
        match raw.nic.poll(raw.machine.watch.host.now()) {
            Ok(Phase::Running(_) | Phase::Hung) | Err(NicError::Removed) => {}
            other => panic!("{other:?}"),
        }
    }),
    ("begin_reset", |raw| {
        raw.nic.begin_reset(raw.machine.watch.host.now());
    }),
    ("stop", |raw| match raw.machine.stop(&mut raw.nic) {
        Stopped::Quiet => {}
        Stopped::Failed(Some(NicError::Removed | NicError::NotQuiet)) => {}
        other => panic!("{other:?}"),
    }),
];

/// A driver in the middle of its work.
fn busy(seed: u64) -> Raw {
    let mut plan = Plan::honest();
    plan.seed = seed;
    let mut raw = Raw::open(&plan);
    raw.run(3000, 10);
    post(&mut raw, 3);
    (0..3).for_each(|_| raw.deliver(300));
    raw.run(30, 10);
    raw
}

/// How many accesses an operation takes, on an honest device.
fn accesses(raw: &mut Raw, operation: fn(&mut Raw)) -> u64 {
    let before = raw.machine.watch.accesses();
    operation(raw);
    raw.machine.watch.accesses() - before
}

/// The device is gone from access `first` of the operation on, for as long as `back` says.
fn gone_at(raw: &Raw, first: u64, back: u64) {
    let now = raw.machine.watch.accesses();
    let until = now.saturating_add(first).saturating_add(back);
    raw.machine.watch.tear_out(Range {
        start: now + first,
        end: until,
    });
}

#[test]
fn all_ones_at_any_access_of_any_operation() {
    for (name, operation) in OPERATIONS {
        let count = accesses(&mut busy(1), operation);
        for first in 0..=count {
            let mut raw = busy(1);
            gone_at(&raw, first, u64::MAX);
            operation(&mut raw);
            raw.check();
            // What it says from now on.
            assert!(!raw.nic.link().up, "{name}, access {first}");
            let stopped = raw.machine.stop(&mut raw.nic);
            let failed = matches!(
                stopped,
                Stopped::Failed(None | Some(NicError::Removed | NicError::NotQuiet))
            );
            let was_quiet = name == "stop" && stopped == Stopped::Quiet;
            assert!(failed || was_quiet, "{name}, access {first}: {stopped:?}");
            let expected = if was_quiet {
                NicError::Removed
            } else {
                NicError::WrongPhase
            };
            let out = raw.books.out.len();
            assert_eq!(raw.restart(), Err(expected), "{name}, access {first}");
            assert_eq!(raw.books.out.len(), out, "{name}, access {first}");
            raw.check();
            raw.finish();
        }
    }
}

#[test]
fn all_ones_in_the_middle_of_restart_and_release() {
    for release in [false, true] {
        let run = |first: Option<u64>| {
            let mut raw = busy(2);
            assert_eq!(raw.machine.stop(&mut raw.nic), Stopped::Quiet);
            if let Some(first) = first {
                gone_at(&raw, first, u64::MAX);
            }
            let before = raw.machine.watch.accesses();
            let result = if release {
                raw.release()
            } else {
                raw.restart()
            };
            let count = raw.machine.watch.accesses() - before;
            match result {
                Ok(()) => assert_eq!(raw.books.out.len(), 0, "access {first:?}"),
                Err(error) => {
                    let named = matches!(error, NicError::Removed | NicError::Timeout { .. });
                    assert!(named && !release, "access {first:?}: {error:?}");
                    assert_eq!(raw.books.out.len(), 3, "access {first:?}");
                }
            }
            raw.check();
            // Quiet it was, so what it had can be taken back even now.
            if !release && result.is_err() {
                assert_eq!(raw.release(), Ok(()), "access {first:?}");
            }
            raw.finish();
            count
        };
        let count = run(None);
        (0..=count).for_each(|first| {
            run(Some(first));
        });
    }
}

#[test]
fn all_ones_in_the_middle_of_open() {
    let mut plan = Plan::honest();
    plan.seed = 3;
    let (mut machine, platform) = Machine::new(&plan);
    machine.open(platform).unwrap();
    let count = machine.watch.accesses();
    let mut late = 0;
    for first in (0..count).step_by(3).chain(count - 40..count) {
        let (mut machine, platform) = Machine::new(&plan);
        machine.watch.tear_out(first..u64::MAX);
        match machine.open(platform) {
            Err(error) => assert_eq!(error, NicError::Removed, "access {first}"),
            Ok(mut nic) => {
                late += 1;
                let polled = nic.poll(machine.watch.host.now());
                assert_eq!(polled, Err(NicError::Removed), "access {first}");
            }
        }
        machine.watch.free_all();
    }
    assert!(late < count / 2, "{late} of {count} went unnoticed");
}

#[test]
fn a_device_that_was_gone_and_is_back() {
    for (name, operation) in OPERATIONS {
        let count = accesses(&mut busy(4), operation);
        for first in 0..=count {
            for back in [1, 2, 7, 40] {
                let mut raw = busy(4);
                gone_at(&raw, first, back);
                operation(&mut raw);
                raw.check();
                if raw.machine.stop(&mut raw.nic) == Stopped::Quiet {
                    let taken = raw.restart();
                    let named = matches!(
                        taken,
                        Ok(()) | Err(NicError::Removed | NicError::Timeout { .. })
                    );
                    assert!(named, "{name}, access {first}: {taken:?}");
                }
                raw.check();
                raw.finish();
            }
        }
    }
}

#[test]
fn a_device_that_fills_while_we_read_ends_somewhere() {
    let mut filled = 0;
    for seed in 0..100 {
        let mut plan = only(Lie::DoneAtRandom, seed);
        plan.config.rx_descriptors = 8;
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

#[test]
fn a_queue_that_is_down_says_so() {
    let mut raw = busy(5);
    assert_eq!(raw.machine.stop(&mut raw.nic), Stopped::Quiet);
    assert_eq!(raw.release(), Ok(()));
    assert_eq!(raw.reclaim(), Err(QueueError::Down));
    assert_eq!(raw.receive(1), Err(QueueError::Down));
    let refused = raw.post(60, &[], Offloaded::Nothing).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the transmit queue is down: reset the device"
    );
    raw.finish();
}
