//! Lies that only the 82599 can tell in this way, or that concern several pairs of queues.

use std::collections::BTreeSet;
use std::time::Duration;

use pagewire::hal::{Nic, NicError, Phase, QueueError, RxQueue, Statistics, TxQueue};
use pagewire_models::ixgbe::{DeviceId, Lie};

use crate::hostile::{Decisions, Ixgbe, Machine, Offloaded, Plan, Raw, Stopped};
use crate::lies::{lasting, only, post, start, told};

/// Pairs of queues in these tests.
const PAIRS: u16 = 4;

/// The same with several pairs of queues.
fn with_pairs(mut plan: Plan<Ixgbe>) -> Plan<Ixgbe> {
    plan.setup.config.queue_pairs = PAIRS;
    plan
}

/// A device that does this as soon as it can: the gap, the choice among the lies that are possible,
/// and what the lie needs to know.
fn scripted(lie: Lie, script: &[u8]) -> Plan<Ixgbe> {
    let mut plan = Plan::honest();
    plan.set_lies(Decisions::Script(script), &[lie]);
    plan
}

/// DD in a descriptor that was written and not handed over: the first ring that the model knows is
/// the transmit ring, and the frame is its first descriptor. (Of what lies in pages of the program,
/// nobody knows how many descriptors it takes.)
#[test]
fn a_frame_that_the_device_does_not_have_is_not_done() {
    let mut raw = Raw::open(&scripted(Lie::DoneAtRandom, &[0, 0, 0, 0, 0, 0]));
    raw.run(3000, 10);
    raw.post(60, &[], Offloaded::Nothing).unwrap();
    raw.machine.set_hostile(true);
    raw.run(1, 10);
    assert_eq!(told(&raw, Lie::DoneAtRandom), 1);
    assert_eq!(raw.reclaim(), Err(QueueError::BadIndex { index: 0 }));
    assert_eq!(raw.reclaim(), Err(QueueError::Down));
    assert!(raw.post(60, &[], Offloaded::Nothing).is_err(), "down");
    assert!(!raw.port.queue().has_room(1), "down");
    raw.port.doorbell();
    raw.run(100, 10);
    raw.machine.check_wire();
    assert_eq!(
        raw.machine.sent, 0,
        "a queue that is down rings no doorbell"
    );
    assert_eq!(raw.books.out.len(), 1);
    raw.check();
    assert_eq!(raw.machine.stop(&mut raw.nic), Stopped::Quiet);
    assert_eq!(raw.restart(), Ok(()));
    assert_eq!(raw.books.out.len(), 0, "it comes back with the reset");
    raw.recover();
    raw.finish();
}

/// A frame that goes on in the next buffer, where its end is no frame by itself.
#[test]
fn the_end_of_a_longer_frame_is_no_frame() {
    // In each of three descriptors of the receive ring: DD, a length of 100, and EOP or not.
    let descriptor = |index, ends| [0, 0, 1, index, 0, 4, 100, 0, ends];
    let script = [descriptor(0, 0), descriptor(1, 1), descriptor(2, 1), [0; 9]].concat();
    let mut raw = Raw::open(&scripted(Lie::DoneAtRandom, &script));
    raw.run(3000, 10);
    raw.machine.set_hostile(true);
    raw.run(3, 10);
    assert_eq!(told(&raw, Lie::DoneAtRandom), 3);
    raw.machine.set_hostile(false);
    assert_eq!(raw.receive(10), Ok(vec![100]), "the third");
    assert_eq!(raw.rx.counters().too_long, 1);
    raw.recover();
    raw.finish();
}

/// Just what fits the buffer, and one byte more, each with the EOP that makes it a frame.
#[test]
fn a_length_is_compared_with_the_buffer() {
    let cases = [
        (1501, 2048u16, true),
        (1501, 2049, false),
        (1500, 14, true),
        (1500, 13, false),
        (9000, 0x4000, true),
        (9000, 0x4001, false),
        (9000, 0xffff, false),
    ];
    for (mtu, len, fits) in cases {
        let [low, high] = len.to_le_bytes();
        // The length is chosen as the last of five, which is given in two bytes.
        let script = [0, 0, 1, 0, 0, 4, low, high, 1, 0];
        let mut plan = scripted(Lie::DoneAtRandom, &script);
        plan.setup.config.mtu = mtu;
        let mut raw = Raw::open(&plan);
        raw.run(3000, 10);
        raw.machine.set_hostile(true);
        raw.run(1, 10);
        let expected = if fits { vec![len.into()] } else { vec![] };
        assert_eq!(raw.receive(10), Ok(expected), "MTU {mtu}, {len} bytes");
        let nonsense = u64::from(!fits);
        assert_eq!(
            raw.rx.counters().nonsense,
            nonsense,
            "MTU {mtu}, {len} bytes"
        );
        raw.recover();
        raw.finish();
    }
}

/// A restart does not wait: it goes through, and that nothing has become of it is seen later.
#[test]
fn a_restart_of_which_nothing_arrives_says_hung() {
    for seed in 0..5 {
        let mut raw = start(&with_pairs(only(Lie::WriteLost, seed)));
        raw.machine.set_hostile(false);
        raw.for_each_pair(|raw| post(raw, 2));
        assert_eq!(raw.machine.stop(&mut raw.nic), Stopped::Quiet);
        raw.run(100, 1000);
        raw.machine.set_hostile(true);
        assert_eq!(raw.restart(), Ok(()), "seed {seed}");
        assert!(raw.books.out.is_empty(), "seed {seed}");
        raw.for_each_pair(|raw| {
            post(raw, 2);
            assert_eq!(raw.reclaim(), Ok(0), "seed {seed}");
            assert_eq!(raw.receive(10), Ok(vec![]), "seed {seed}");
        });
        let mut phase = raw.nic.poll(raw.machine.watch.host.now());
        assert!(matches!(phase, Ok(Phase::Running(_))), "{seed}: {phase:?}");
        raw.run(30, 1000);
        phase = raw.nic.poll(raw.machine.watch.host.now());
        assert_eq!(phase, Ok(Phase::Hung), "seed {seed}");
        raw.recover();
        raw.for_each_pair(|raw| assert!(raw.books.out.is_empty()));
        raw.finish();
    }
}

#[test]
fn what_never_becomes_quiet_leaks_what_every_pair_was_lent() {
    for seed in 0..5 {
        let mut raw = start(&with_pairs(lasting(Lie::NeverQuiet, seed)));
        raw.machine.hold_completions(true);
        raw.for_each_pair(|raw| post(raw, 3));
        raw.run(10, 10);
        let stopped = raw.machine.stop(&mut raw.nic);
        let failed = Stopped::Failed(Some(NicError::NotQuiet));
        assert_eq!(stopped, failed, "seed {seed}");
        assert_eq!(raw.restart(), Err(NicError::WrongPhase), "seed {seed}");
        assert_eq!(raw.release(), Err(NicError::WrongPhase), "seed {seed}");
        raw.for_each_pair(|raw| assert_eq!(raw.books.out.len(), 3, "seed {seed}"));
        raw.finish();
    }
}

/// PCI Express says that requests are pending, and the device that they are not.
#[test]
fn pending_transactions_are_waited_for() {
    for seed in 0..5 {
        let mut raw = start::<Ixgbe>(&only(Lie::TransactionsPending, seed));
        raw.machine.hold_completions(true);
        post(&mut raw, 3);
        raw.nic.begin_reset(raw.machine.watch.host.now());
        raw.run(100, 10);
        let stopped = raw.machine.stop(&mut raw.nic);
        let failed = Stopped::Failed(Some(NicError::NotQuiet));
        assert_eq!(stopped, failed, "seed {seed}");
        assert_eq!(raw.books.out.len(), 3, "seed {seed}");
        raw.finish();
    }
}

/// PCI Express says that nothing is pending, and the device that it is: also after the flush and
/// the two resets by which Intel would make sure of it.
#[test]
fn a_device_that_is_busy_after_two_resets_is_not_quiet() {
    // At each read of STATUS its bit is the contrary of what it should be.
    let script = [0, 0, 0, 1].repeat(2000);
    let mut raw = Raw::open(&scripted(Lie::RegisterNonsense, &script));
    raw.run(3000, 10);
    raw.machine.hold_completions(true);
    post(&mut raw, 3);
    raw.nic.begin_reset(raw.machine.watch.host.now());
    raw.run(100, 10);
    raw.machine.set_hostile(true);
    let stopped = raw.machine.stop(&mut raw.nic);
    assert_eq!(stopped, Stopped::Failed(Some(NicError::NotQuiet)));
    assert_eq!(raw.restart(), Err(NicError::WrongPhase));
    assert_eq!(raw.release(), Err(NicError::WrongPhase));
    assert_eq!(raw.books.out.len(), 3);
    raw.finish();
}

/// A completion that comes to another pair completes nothing there, and its own frame waits.
#[test]
fn a_write_back_to_another_ring_completes_nothing_there() {
    let mut sum = 0;
    for seed in 0..20 {
        let mut raw = start(&with_pairs(only(Lie::OtherRing, seed)));
        post(&mut raw, 3);
        raw.run(500, 10);
        sum += told(&raw, Lie::OtherRing);
        assert_eq!(raw.reclaim(), Ok(0), "seed {seed}");
        assert_eq!(raw.books.out.len(), 3, "seed {seed}");
        raw.machine.set_hostile(false);
        raw.for_each_pair(|raw| {
            assert_eq!(raw.reclaim(), Ok(0), "seed {seed}");
            let received = raw.receive(10);
            assert!(received.is_ok(), "seed {seed}: {received:?}");
        });
        raw.check();
        raw.recover();
        raw.finish();
    }
    assert!(sum >= 60, "{sum} of 60");
}

/// Each lie while every pair works; then the device is honest, and every pair has to work again.
#[test]
fn every_lie_with_several_pairs() {
    for lie in Lie::ALL {
        let mut sum = 0;
        for seed in 0..6 {
            let mut plan = with_pairs(only(lie, seed));
            // Whenever it can, and with gaps: among accesses those are forty times as long.
            let gap = if seed < 2 { 0 } else { 3 };
            plan.set_lies(Decisions::Seed { seed, gap }, &[lie]);
            if seed & 1 != 0 {
                plan.setup.device = DeviceId::X540T;
            }
            let mut raw = start(&plan);
            raw.nic.enable_interrupts().ok();
            for _ in 0..4 {
                raw.for_each_pair(|raw| {
                    if raw.books.out.len() < 20 && raw.port.queue().has_room(3) {
                        post(raw, 2);
                    }
                    raw.deliver(100);
                });
                raw.run(60, 10);
                raw.nic.take_interrupts();
                raw.for_each_pair(|raw| {
                    let reclaimed = raw.reclaim();
                    let named = matches!(
                        reclaimed,
                        Ok(_) | Err(QueueError::BadIndex { .. } | QueueError::Down)
                    );
                    assert!(named, "{lie:?}, seed {seed}: {reclaimed:?}");
                    let received = raw.receive(10);
                    assert!(received.is_ok(), "{lie:?}, seed {seed}: {received:?}");
                });
                raw.nic.statistics();
                raw.nic.poll(raw.machine.watch.host.now()).ok();
                raw.check();
            }
            if raw.machine.stop(&mut raw.nic) == Stopped::Quiet {
                raw.run(20, 100);
                raw.restart().ok();
            }
            sum += told(&raw, lie);
            raw.check();
            raw.recover();
            raw.finish();
        }
        // These have their place when a device is opened.
        let is_rare = matches!(lie, Lie::IdChanged | Lie::CapabilityLoop);
        assert!(sum > 0 || is_rare, "nobody told {lie:?}");
    }
}

/// Counters only grow, whatever is read, and by no more than a register holds.
#[test]
fn statistics_of_a_device_that_lies_grow_and_do_not_overflow() {
    for lie in [
        Lie::RegisterRandom,
        Lie::RegisterBitFlip,
        Lie::RegisterNonsense,
        Lie::RegisterAllOnes,
    ] {
        let mut raw = start(&with_pairs(only(lie, 1)));
        let mut last = raw.nic.statistics();
        for round in 0..200 {
            let now = raw.nic.statistics();
            let grows = |count: fn(&Statistics) -> u64, most: u64| {
                let (before, after) = (count(&last), count(&now));
                let by = after.checked_sub(before);
                assert!(
                    by.is_some_and(|by| by <= most),
                    "{lie:?}, round {round}: {before} to {after}"
                );
            };
            let (word, wide) = (u64::from(u32::MAX), (1 << 36) - 1);
            grows(|s| s.tx_frames, word);
            grows(|s| s.tx_bytes, wide);
            grows(|s| s.rx_frames, 16 * word);
            grows(|s| s.rx_bytes, 16 * (wide + 4 * word));
            grows(|s| s.rx_no_buffer, 16 * word);
            grows(|s| s.rx_missed, 8 * word);
            last = now;
        }
        raw.finish();
    }
}

#[test]
fn what_a_device_says_while_it_goes_away_is_not_counted() {
    let counts = |first: u64| {
        let mut raw: Raw<Ixgbe> = Raw::open(&Plan::honest());
        raw.run(3000, 10);
        post(&mut raw, 3);
        raw.deliver(100);
        raw.run(300, 10);
        let before = raw.nic.statistics();
        assert_eq!((before.tx_frames, before.rx_frames), (3, 1));
        let now = raw.machine.watch.accesses();
        raw.machine.watch.tear_out(now + first..u64::MAX);
        assert_eq!(raw.nic.statistics(), before, "access {first}");
        let count = raw.machine.watch.accesses() - now;
        raw.finish();
        count
    };
    let all = counts(1000);
    assert!(all < 1000, "it is there for all of them");
    (0..all).for_each(|first| {
        counts(first);
    });
}

/// One access after the other reads all ones, until it is that of the station address, which is a
/// group's then. (`Machine::open` looks at the address of what opens.)
#[test]
fn an_address_that_is_no_station_is_refused() {
    let refused = (0..5000).find(|access| {
        let (mut machine, platform) = Machine::<Ixgbe>::new(&Plan::honest());
        machine.watch.tear_out(*access..*access + 1);
        let opened = machine.open(platform).map(drop);
        machine.watch.free_all();
        matches!(opened, Err(NicError::BadMacAddress(_)))
    });
    assert!(refused.is_some(), "nobody noticed");
}

/// Bits that say "ready" are late by one look each, and from some look on they never come: the
/// error names what was waited for. If that are the queues, the device was told of memory, and it
/// does not say either that the reset which follows is done: so the memory leaks.
#[test]
fn opening_names_what_is_never_ready() {
    let mut said = BTreeSet::new();
    let mut leaked = false;
    for look in (0..1200u16).step_by(3) {
        let mut script = [u8::MAX, 0, 0].repeat(usize::from(look / 256));
        script.extend([(look % 256) as u8, 0, 15]);
        script.extend([0, 0, 15].repeat(64));
        let (mut machine, platform) = Machine::new(&scripted(Lie::ReadyNever, &script));
        machine.set_hostile(true);
        let opened = machine.open(platform).map(drop);
        let kept = machine.watch.live();
        if let Err(NicError::Timeout { what, .. }) = opened {
            let is_queue = what.contains("queue");
            assert_eq!(kept > 0, is_queue, "look {look}: {what}: {kept} pieces");
            leaked |= is_queue;
            said.insert(what);
        } else {
            assert_eq!(opened, Ok(()), "look {look}");
        }
        machine.watch.free_all();
    }
    for part in ["the reset", "EEPROM", "SWSM", "queue"] {
        assert!(
            said.iter().any(|what| what.contains(part)),
            "{part}: {said:?}"
        );
    }
    assert!(leaked, "{said:?}");
}

/// The limit for opening holds with lies about everything that opening waits for.
#[test]
fn opening_ends_whatever_it_waits_for() {
    let mut refused = 0;
    for seed in 0..60 {
        let mut plan: Plan<Ixgbe> = only(Lie::ReadyNever, seed);
        let lies = [Lie::ReadyNever, Lie::RegisterNonsense, Lie::NeverQuiet];
        let gap = seed as u32;
        plan.set_lies(Decisions::Seed { seed, gap }, &lies);
        plan.setup.device = [DeviceId::Kx4, DeviceId::X540T, DeviceId::Sfp][seed as usize % 3];
        let (mut machine, platform) = Machine::new(&plan);
        machine.set_hostile(true);
        machine.watch.run(5, Duration::from_micros(10));
        // `Machine::open` holds the limit against it.
        let opened = machine.open(platform);
        refused += u32::from(opened.is_err());
        machine.check_bus();
        drop(opened);
        machine.watch.free_all();
    }
    assert!(refused > 0, "nobody noticed");
}
