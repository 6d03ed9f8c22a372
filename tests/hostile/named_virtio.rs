//! Lies of virtio-net one by one, each in both formats of the rings, with what must come of it.

use std::time::Duration;

use pagewire::hal::{Nic, NicError, Phase, QueueError, RxQueue};
use pagewire::virtio::Features;
use pagewire_models::virtio::Lie;

use crate::hostile::{Decisions, Machine, Plan, Raw, Stopped, Virtio};
use crate::lies::{lasting, only, open, post, start, told};

/// Both formats, in any order and in order.
const RINGS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// The same for a device with these rings.
fn with_rings(mut plan: Plan<Virtio>, (packed, in_order): (bool, bool)) -> Plan<Virtio> {
    plan.setup.model.offers.packed = packed;
    plan.setup.model.offers.in_order = in_order;
    plan
}

/// A driver on a device that tells this lie from now on, for each kind of ring and some seeds;
/// then it is honest again, and all must work.
fn each(lie: Lie, seeds: u64, mut play: impl FnMut(&mut Raw<Virtio>, &str)) {
    let mut sum = 0;
    for rings in RINGS {
        for seed in 0..seeds {
            let mut raw = start(&with_rings(only(lie, seed), rings));
            let name = format!("{lie:?}, packed and in order {rings:?}, seed {seed}");
            play(&mut raw, &name);
            raw.check();
            sum += told(&raw, lie);
            raw.recover();
            raw.finish();
        }
    }
    assert!(sum > 0, "{lie:?} was never told");
}

#[test]
fn a_used_buffer_that_the_device_does_not_have_stops_the_queue() {
    for lie in [Lie::IdOutOfRange, Lie::IdNotOutstanding] {
        each(lie, 10, |raw, name| {
            post(raw, 3);
            raw.run(500, 10);
            let result = raw.reclaim();
            assert!(
                matches!(result, Err(QueueError::BadIndex { .. })),
                "{name}: {result:?}"
            );
            assert_eq!(raw.reclaim(), Err(QueueError::Down), "{name}");
            assert_eq!(raw.port.queue().counters().nonsense, 1, "{name}");
            assert!(!raw.books.out.is_empty(), "{name}: all came back");
        });
        each(lie, 10, |raw, name| {
            (0..3).for_each(|_| raw.deliver(100));
            raw.run(500, 10);
            let result = raw.receive(10);
            assert!(
                matches!(result, Err(QueueError::BadIndex { .. })),
                "{name}: {result:?}"
            );
            assert_eq!(raw.receive(10), Err(QueueError::Down), "{name}");
            assert_eq!(raw.rx.counters().nonsense, 1, "{name}");
        });
    }
}

#[test]
fn indices_that_jump_release_nothing_twice() {
    let lies = [
        Lie::IndexAhead,
        Lie::IndexBack,
        Lie::UsedTwice,
        Lie::OrderBroken,
        Lie::FlagsFlipped,
        Lie::UsedAtRandom,
        Lie::ScribbleRing,
    ];
    for lie in lies {
        let mut errors = 0;
        each(lie, 10, |raw, name| {
            for round in 0..12 {
                if raw.books.out.len() < 20 {
                    // A queue that is down takes none.
                    let region = raw.register(0, 600);
                    let posted =
                        raw.post(60, &[(region, 1, 500)], crate::hostile::Offloaded::Nothing);
                    errors += u64::from(posted.is_err());
                    raw.port.doorbell();
                }
                raw.deliver(200);
                raw.run(60, 10);
                let reclaimed = raw.reclaim();
                let received = raw.receive(100).map(|lens| lens.len());
                for result in [reclaimed, received] {
                    let fine = matches!(
                        result,
                        Ok(_)
                            | Err(QueueError::BadIndex { .. }
                                | QueueError::BadLength { .. }
                                | QueueError::Down)
                    );
                    assert!(fine, "{name}, round {round}: {result:?}");
                    errors += u64::from(result.is_err());
                }
                raw.check();
            }
        });
        // With other flags a descriptor is not a used one yet.
        let is_seen = lie != Lie::FlagsFlipped;
        assert!(errors > 0 || !is_seen, "nobody noticed {lie:?}");
    }
}

#[test]
fn a_length_beyond_the_buffer_stops_the_queue() {
    each(Lie::LengthTooLong, 10, |raw, name| {
        (0..3).for_each(|_| raw.deliver(100));
        raw.run(500, 10);
        let result = raw.receive(10);
        assert!(
            matches!(result, Err(QueueError::BadLength { .. })),
            "{name}: {result:?}"
        );
        assert_eq!(raw.rx.counters().nonsense, 1, "{name}");
        assert_eq!(raw.receive(10), Err(QueueError::Down), "{name}");
        // On the transmit side a length means nothing.
        post(raw, 3);
        raw.run(500, 10);
        assert_eq!(raw.reclaim(), Ok(3), "{name}");
    });
}

/// With MRG_RXBUF a frame of 8000 bytes lies in four buffers of 2 KiB, and each of them has a length
/// of its own. The script says which one is lied about, and by how much: a byte, a page, 64 KiB, all
/// that fits 32 bits.
#[test]
fn a_length_beyond_any_buffer_of_a_frame_stops_the_queue() {
    let room = 2048u32;
    for rings in RINGS {
        for (place, more) in (0..4).flat_map(|place| [0, 1, 2, 3].map(|more| (place, more))) {
            let mut plan: Plan<Virtio> = with_rings(Plan::honest(), rings);
            plan.setup.config.mtu = 9000;
            plan.setup.model.mtu = 9000;
            // With joined frames, 16 buffers are larger.
            let joins = Features::GUEST_TSO4 | Features::GUEST_TSO6;
            plan.setup.config.features.remove(joins);
            // No opportunity passes, the one lie that is allowed, the place, a random word that
            // is not wanted, the choice of a length.
            let script = [0, 0, place, 0, 0, 0, 0, more];
            plan.set_lies(Decisions::Script(&script), &[Lie::LengthTooLong]);
            let name = format!("packed and in order {rings:?}, buffer {place}, length {more}");
            let mut raw: Raw<Virtio> = Raw::open(&plan);
            raw.run(3000, 10);
            raw.deliver(8000);
            raw.run(500, 10);
            assert_eq!(raw.receive(10), Ok(vec![8000]), "{name}: without a lie");
            raw.machine.set_hostile(true);
            raw.deliver(8000);
            raw.run(500, 10);
            assert_eq!(told(&raw, Lie::LengthTooLong), 1, "{name}");
            let more = [1, 4096, 0x1_0000, u32::MAX][usize::from(more)];
            let len = room.saturating_add(more);
            assert_eq!(
                raw.receive(10),
                Err(QueueError::BadLength { len }),
                "{name}"
            );
            assert_eq!(raw.rx.counters().delivered, 1, "{name}");
            assert_eq!(raw.rx.counters().nonsense, 1, "{name}");
            assert_eq!(raw.receive(10), Err(QueueError::Down), "{name}");
            raw.recover();
            raw.finish();
        }
    }
}

#[test]
fn a_length_that_is_no_frame_is_counted_and_dropped() {
    let mut sum = 0;
    each(Lie::LengthTooShort, 20, |raw, name| {
        for _ in 0..4 {
            (0..5).for_each(|_| raw.deliver(100));
            raw.run(300, 10);
            let lens = raw.receive(100).unwrap();
            assert!(
                lens.iter().all(|len| (14..=100).contains(len)),
                "{name}: {lens:?}"
            );
        }
        let counters = raw.rx.counters();
        // A header that lies in what was not written may say "for another station" as well.
        assert!(
            counters.delivered + counters.nonsense <= 20,
            "{name}: {counters:?}"
        );
        sum += counters.nonsense;
    });
    assert!(sum >= 100, "{sum} of 1600");
}

/// Headers with which a frame is not one, and those that say nothing that is believed.
#[test]
fn a_header_that_makes_no_sense_is_counted_and_dropped() {
    for (lie, is_seen) in [
        (Lie::BuffersZero, true),
        (Lie::BuffersMany, true),
        (Lie::GsoTypeUnknown, true),
        (Lie::GsoSizeNonsense, false),
        (Lie::ChecksumPlace, true),
        (Lie::HeaderLength, false),
        (Lie::HeaderFlags, false),
        (Lie::HeaderRandom, true),
    ] {
        let mut seen = 0;
        each(lie, 10, |raw, name| {
            for _ in 0..4 {
                (0..5).for_each(|_| raw.deliver(100));
                raw.run(300, 10);
                match raw.receive(100) {
                    Ok(lens) => assert!(lens.len() <= 5, "{name}: {lens:?}"),
                    Err(error) => {
                        let named = matches!(error, QueueError::BadIndex { .. } | QueueError::Down);
                        assert!(named, "{name}: {error:?}");
                    }
                }
                raw.check();
            }
            seen += raw.rx.counters().nonsense;
            if lie == Lie::HeaderLength {
                // It is for segments, and a hint at best.
                assert_eq!(raw.delivered, 20, "{name}");
            }
        });
        assert!(seen > 0 || !is_seen, "nobody noticed {lie:?}");
    }
}

#[test]
fn a_buffer_that_is_never_used_waits_for_a_reset() {
    each(Lie::UsedLost, 10, |raw, name| {
        post(raw, 4);
        raw.run(500, 10);
        // In order, a later one speaks for those before, or its place gives the gap away.
        let is_in_order = raw.machine.plan.setup.model.offers.in_order;
        assert!(raw.reclaim().is_ok() || is_in_order, "{name}");
        assert!(is_in_order || !raw.books.out.is_empty(), "{name}");
        raw.recover();
        assert!(raw.books.out.is_empty(), "{name}");
    });
}

#[test]
fn writes_into_rings_and_buffers_give_no_memory_back() {
    for lie in [Lie::ScribbleBuffer, Lie::WildWrite, Lie::WriteWhileQuiet] {
        each(lie, 10, |raw, name| {
            raw.machine.hold_completions(true);
            post(raw, 5);
            for round in 0..10 {
                raw.deliver(300);
                raw.run(30, 10);
                raw.reclaim().ok();
                let received = raw.receive(20);
                assert_ne!(received, Err(QueueError::Removed), "{name}, round {round}");
                raw.check();
            }
            // And while the driver believes it quiet.
            if raw.machine.stop(&mut raw.nic) == Stopped::Quiet {
                raw.run(100, 10);
                raw.restart().ok();
                raw.check();
            }
        });
    }
}

#[test]
fn a_device_that_needs_a_reset_says_hung() {
    let mut hung = 0;
    each(Lie::NeedsReset, 10, |raw, name| {
        post(raw, 2);
        for _ in 0..10 {
            raw.run(10, 10);
            let phase = raw.nic.poll(raw.machine.watch.host.now());
            let fine = matches!(phase, Ok(Phase::Running(_) | Phase::Hung));
            assert!(fine, "{name}: {phase:?}");
            hung += u64::from(phase == Ok(Phase::Hung));
        }
        // Its status never reads 0, with that bit in it.
        let stopped = raw.machine.stop(&mut raw.nic);
        let fine = matches!(
            stopped,
            Stopped::Quiet | Stopped::Failed(Some(NicError::NotQuiet))
        );
        assert!(fine, "{name}: {stopped:?}");
    });
    assert!(hung > 0, "nobody noticed");
}

#[test]
fn what_never_becomes_quiet_leaks_what_it_was_lent() {
    for rings in RINGS {
        for seed in 0..10 {
            let mut raw = start(&with_rings(lasting(Lie::ResetNeverEnds, seed), rings));
            raw.machine.hold_completions(true);
            post(&mut raw, 3);
            raw.run(10, 10);
            let stopped = raw.machine.stop(&mut raw.nic);
            let failed = Stopped::Failed(Some(NicError::NotQuiet));
            assert_eq!(stopped, failed, "seed {seed}");
            assert_eq!(raw.restart(), Err(NicError::WrongPhase), "seed {seed}");
            assert_eq!(raw.release(), Err(NicError::WrongPhase), "seed {seed}");
            assert_eq!(raw.books.out.len(), 3, "seed {seed}");
            // The rings, both kinds of buffers and the one region, and nothing else.
            raw.finish();
        }
    }
}

#[test]
fn doorbells_and_interrupts_that_are_lost_lose_no_memory() {
    for lie in [
        Lie::WriteLost,
        Lie::EventNonsense,
        Lie::InterruptLost,
        Lie::InterruptAtRandom,
        Lie::Stall,
        Lie::LinkFlap,
        Lie::EnableWrong,
        Lie::VectorRefused,
    ] {
        each_or_never(lie, |raw, name| {
            raw.nic.enable_interrupts().ok();
            for round in 0..10 {
                if raw.books.out.len() < 20 {
                    post(raw, 2);
                }
                raw.deliver(300);
                raw.run(30, 10);
                assert!(raw.reclaim().is_ok(), "{name}, round {round}");
                assert!(raw.receive(20).is_ok(), "{name}, round {round}");
                raw.nic.take_interrupts();
                raw.nic.link();
                raw.check();
            }
            if raw.machine.stop(&mut raw.nic) == Stopped::Quiet {
                raw.restart().ok();
            }
        });
    }
}

/// As [`each`], with a lie for which there may be no occasion while a device runs.
fn each_or_never(lie: Lie, mut play: impl FnMut(&mut Raw<Virtio>, &str)) {
    for rings in RINGS {
        for seed in 0..5 {
            let mut raw = start(&with_rings(only(lie, seed), rings));
            play(&mut raw, &format!("{lie:?}, {rings:?}, seed {seed}"));
            raw.check();
            raw.recover();
            raw.finish();
        }
    }
}

/// Opens on a device that tells this lie whenever it can, or for long; what was said.
fn opened(plan: &Plan<Virtio>) -> Option<NicError> {
    let (mut machine, platform) = Machine::new(plan);
    machine.set_hostile(true);
    machine.watch.run(5, Duration::from_micros(10));
    let nic = match machine.open(platform) {
        Ok(nic) => nic,
        Err(error) => return Some(error),
    };
    // Then it must be one that can be worked with, as far as the lie lets it.
    machine.set_hostile(false);
    let mut raw = Raw::new(machine, nic).unwrap();
    raw.check();
    post(&mut raw, 2);
    raw.deliver(200);
    raw.run(500, 10);
    raw.reclaim().ok();
    raw.receive(10).ok();
    raw.check();
    raw.finish();
    None
}

#[test]
fn opening_names_what_was_wrong() {
    type Named = fn(&NicError) -> bool;
    let not_offered: Named = |error| matches!(error, NicError::NotOffered { .. });
    let removed: Named = |error| *error == NicError::Removed;
    let cases: [(Lie, bool, Named); 7] = [
        (Lie::IdChanged, false, |error| {
            matches!(
                error,
                NicError::UnknownDevice { .. } | NicError::NotOffered { .. } | NicError::Removed
            )
        }),
        (Lie::ConfigAllOnes, false, removed),
        (Lie::RegisterAllOnes, false, removed),
        (Lie::StatusForgotten, true, |error| {
            matches!(error, NicError::NotOffered { .. })
        }),
        (Lie::ResetNeverEnds, true, |error| {
            matches!(error, NicError::Timeout { .. })
        }),
        (Lie::GenerationUnsettled, false, not_offered),
        (Lie::MacNonsense, true, |error| {
            matches!(
                error,
                NicError::BadMacAddress(_) | NicError::NotOffered { .. }
            )
        }),
    ];
    for (lie, lasts, is_named) in cases {
        for seed in 0..10 {
            let plan: Plan<Virtio> = if lasts {
                lasting(lie, seed)
            } else {
                only(lie, seed)
            };
            let error = open(&plan).err();
            assert!(
                error.as_ref().is_some_and(is_named),
                "{lie:?}, seed {seed}: {error:?}"
            );
        }
    }
}

/// Where a lie may hit what does not matter: an error, or a driver that works.
#[test]
fn opening_refuses_or_works() {
    for lie in [
        Lie::CapabilityLoop,
        Lie::CapabilityMissing,
        Lie::CapabilityShort,
        Lie::CapabilityBar,
        Lie::CapabilityOffset,
        Lie::CapabilityLength,
        Lie::NotifyMultiplier,
        Lie::CapabilityNonsense,
        Lie::RegisterRandom,
        Lie::RegisterBitFlip,
        Lie::WriteLost,
        Lie::FeaturesChanged,
        Lie::QueueCount,
        Lie::QueueSize,
        Lie::NotifyOffset,
        Lie::VectorRefused,
        Lie::MtuNonsense,
        Lie::PairsNonsense,
        Lie::AnswerMissing,
        Lie::AnswerGarbage,
        Lie::CommandLost,
    ] {
        let mut refused = 0;
        for rings in RINGS {
            for seed in 0..24 {
                let mut plan = with_rings(only(lie, seed), rings);
                plan.setup.config.queue_pairs = 2;
                if seed % 3 > 0 {
                    // Not at once, nor always.
                    let gap = seed as u32 * 3;
                    plan.set_lies(Decisions::Seed { seed, gap }, &[lie]);
                }
                refused += u32::from(opened(&plan).is_some());
            }
        }
        let harmless = [Lie::VectorRefused, Lie::MtuNonsense, Lie::PairsNonsense];
        assert!(
            refused > 0 || harmless.contains(&lie),
            "nobody noticed {lie:?}"
        );
    }
}

#[test]
fn a_device_that_fills_while_we_read_ends_somewhere() {
    for rings in RINGS {
        let mut raw: Raw<Virtio> = Raw::open(&with_rings(Plan::honest(), rings));
        raw.run(3000, 10);
        let buffers = usize::from(raw.machine.plan.setup.config.rx_descriptors);
        (0..2 * buffers).for_each(|_| raw.deliver(200));
        raw.run(100, 10);
        let watch = raw.machine.watch.clone();
        let mut count = 0;
        let result = raw.rx.receive(1000, &mut |_| {
            count += 1;
            watch.run(50, Duration::from_micros(10));
        });
        assert_eq!(result, Ok(count), "{rings:?}");
        assert!((1..=buffers).contains(&count), "{rings:?}: {count}");
        raw.delivered += count as u64;
        raw.finish();
    }
}
