//! A device that is taken out at any access, for ever or for a while, or cannot be stopped.

use std::ops::Range;

use pagewire::hal::{LinkState, Nic, NicError, Phase, QueueError};

use crate::hostile::{Machine, Offloaded, Plan, Raw, Stopped, Subject};
use crate::lies::post;

/// Makes a test of each function below, for a subject.
macro_rules! tests {
    ($subject:ty) => {
        #[test]
        fn all_ones_at_any_access_of_any_operation() {
            $crate::removal::at_any_access::<$subject>();
        }

        #[test]
        fn all_ones_in_the_middle_of_restart_and_release() {
            $crate::removal::in_restart_and_release::<$subject>();
        }

        #[test]
        fn all_ones_in_the_middle_of_open() {
            $crate::removal::in_open::<$subject>();
        }

        #[test]
        fn a_device_that_was_gone_and_is_back() {
            $crate::removal::gone_and_back::<$subject>();
        }

        #[test]
        fn a_device_that_stays_bus_master_is_not_quiet() {
            $crate::removal::stays_bus_master::<$subject>();
        }

        #[test]
        fn a_queue_that_is_down_says_so() {
            $crate::removal::down::<$subject>();
        }
    };
}
pub(crate) use tests;

/// What a program does: nothing of it panics, though the device is gone.
type Operation<S> = (&'static str, fn(&mut Raw<S>));

fn operations<S: Subject>() -> [Operation<S>; 10] {
    [
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
            assert!(up || speed_mbps == 0);
        }),
        ("interrupts", |raw| {
            let vectors = raw.nic.enable_interrupts();
            assert!(matches!(vectors, Ok(1..=7)), "{vectors:?}");
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
    ]
}

/// A driver in the middle of its work.
fn busy<S: Subject>(seed: u64) -> Raw<S> {
    let mut plan = Plan::<S>::honest();
    plan.seed = seed;
    let mut raw = Raw::open(&plan);
    raw.run(3000, 10);
    post(&mut raw, 3);
    (0..3).for_each(|_| raw.deliver(300));
    raw.run(30, 10);
    raw
}

/// How many accesses an operation takes, on an honest device.
fn accesses<S: Subject>(raw: &mut Raw<S>, operation: fn(&mut Raw<S>)) -> u64 {
    let before = raw.machine.watch.accesses();
    operation(raw);
    raw.machine.watch.accesses() - before
}

/// The device is gone from access `first` of the operation on, for as long as `back` says.
fn gone_at<S: Subject>(raw: &Raw<S>, first: u64, back: u64) {
    let now = raw.machine.watch.accesses();
    let until = now.saturating_add(first).saturating_add(back);
    raw.machine.watch.tear_out(Range {
        start: now + first,
        end: until,
    });
}

pub(crate) fn at_any_access<S: Subject>() {
    for (name, operation) in operations::<S>() {
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
            // Of a device that was quiet all may be taken back before it is seen to be gone.
            let left = raw.books.out.len();
            let taken_back = was_quiet && left == 0;
            assert!(left == out || taken_back, "{name}, access {first}: {left}");
            raw.check();
            raw.finish();
        }
    }
}

pub(crate) fn in_restart_and_release<S: Subject>() {
    for release in [false, true] {
        let run = |first: Option<u64>| {
            let mut raw = busy::<S>(2);
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
                    assert!(
                        S::may_restart_say(&error) && !release,
                        "access {first:?}: {error:?}"
                    );
                    // All are out, or all are back.
                    let out = raw.books.out.len();
                    assert!(out == 3 || out == 0, "access {first:?}: {out}");
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

pub(crate) fn in_open<S: Subject>() {
    let mut plan = Plan::<S>::honest();
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

pub(crate) fn gone_and_back<S: Subject>() {
    for (name, operation) in operations::<S>() {
        let count = accesses(&mut busy(4), operation);
        for first in 0..=count {
            for back in [1, 2, 7, 40] {
                let mut raw = busy(4);
                gone_at(&raw, first, back);
                operation(&mut raw);
                raw.check();
                if raw.machine.stop(&mut raw.nic) == Stopped::Quiet {
                    let taken = raw.restart();
                    let named = taken.as_ref().err().is_none_or(S::may_restart_say);
                    assert!(named, "{name}, access {first}: {taken:?}");
                }
                raw.check();
                raw.finish();
            }
        }
    }
}

/// The device says that it is quiet, but the bit that lets it reach memory is not cleared.
pub(crate) fn stays_bus_master<S: Subject>() {
    let mut raw = busy::<S>(6);
    let out = raw.books.out.len();
    raw.machine.watch.deafen();
    let stopped = raw.machine.stop(&mut raw.nic);
    assert_eq!(stopped, Stopped::Failed(Some(NicError::NotQuiet)));
    assert_eq!(raw.books.out.len(), out);
    raw.finish();
}

/// What queues answer after a release.
pub(crate) fn down<S: Subject>() {
    let mut raw = busy::<S>(5);
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
