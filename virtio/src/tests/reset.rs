//! Stopping with frames in flight, restart, release, what happens on drop.

use core::time::Duration;
use std::vec::Vec;

use pagewire_hal::{
    Instant, Nic, NicError, Phase, PostError, QueueError, QueuePair, RxQueue, TxQueue, pci,
};

use super::Bench;
use crate::fake::{Fake, Fault, Play, TX};
use crate::fake_ring::PlayRings;
use crate::{Config, Features, VirtioNet, VirtioRx, VirtioTx};

type Pair<'a> = QueuePair<'a, VirtioTx<Fake>, VirtioRx<Fake>>;
type Outcome = (Result<(), NicError>, Vec<(u16, u32)>);

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

fn make_quiet(nic: &mut VirtioNet<Fake>) {
    nic.begin_reset(at(0));
    assert_eq!(nic.poll(at(1)), Ok(Phase::Quiet));
}

fn restart(bench: &mut Bench) -> Outcome {
    let mut tokens = Vec::new();
    let (tx, rx) = (&mut bench.tx, &mut bench.rx);
    let result = bench
        .nic
        .restart(&mut [Pair { tx, rx }], &mut |place, token| {
            tokens.push((place, token.0));
        });
    (result, tokens)
}

fn release(bench: &mut Bench) -> Outcome {
    let mut tokens = Vec::new();
    let (tx, rx) = (&mut bench.tx, &mut bench.rx);
    let result = bench
        .nic
        .release(&mut [Pair { tx, rx }], &mut |place, token| {
            tokens.push((place, token.0));
        });
    (result, tokens)
}

#[test]
fn rule_6_a_reset_hands_back_each_token_once() {
    let features = Features::INDIRECT_DESC | Features::EVENT_IDX | Features::STATUS;
    let packed = features | Features::RING_PACKED;
    for features in [features, Features::empty(), Features::IN_ORDER, packed] {
        let mut bench = Bench::with(features, 16);
        for token in 0..6 {
            assert_eq!(bench.post(2, token), Ok(()));
            if token < 4 {
                bench.tx.doorbell();
            }
        }
        let heads: Vec<_> = core::iter::from_fn(|| bench.fake.fetch(TX)).collect();
        bench.fake.complete(TX, u32::from(heads[0].head), 0);
        assert_eq!(bench.reclaim(), [0]);
        bench.fake.complete(TX, u32::from(heads[1].head), 0);
        make_quiet(&mut bench.nic);
        assert!(pci::is_bus_mastering_off(&bench.fake));
        let agreed = bench.nic.features();
        let (result, mut tokens) = restart(&mut bench);
        assert_eq!(result, Ok(()));
        tokens.sort_unstable();
        assert_eq!(tokens, [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
        assert_eq!(bench.tx.outstanding(), 0);
        assert!(!pci::is_bus_mastering_off(&bench.fake));
        assert_eq!(bench.nic.features(), agreed);
        assert_eq!(bench.fake.device().accepted, agreed.bits());
        // All of it works again.
        for token in 10..13 {
            assert_eq!(bench.post(3, token), Ok(()));
        }
        bench.tx.doorbell();
        assert_eq!(bench.fake.transmit().len(), 3);
        assert_eq!(bench.reclaim(), [10, 11, 12]);
        let mut frame = [0xFF; 60];
        frame[6..].fill(1);
        assert!(bench.fake.deliver(&frame, 72));
        assert_eq!(
            bench
                .rx
                .receive(1, &mut |frame| assert_eq!(frame.len(), 60)),
            Ok(1)
        );
    }
}

#[test]
fn rule_6_a_device_that_does_not_become_quiet_keeps_what_it_was_lent() {
    for (fault, limit) in [(Fault::EndlessReset, 1000), (Fault::StuckPending, 500)] {
        let mut bench = Bench::new();
        assert_eq!(bench.post(1, 0), Ok(()));
        bench.tx.doorbell();
        bench.fake.break_with(fault);
        bench.nic.begin_reset(at(0));
        assert_eq!(bench.nic.poll(at(0)), Ok(Phase::Stopping), "{fault:?}");
        let bus_master = fault == Fault::EndlessReset;
        assert_eq!(
            !pci::is_bus_mastering_off(&bench.fake),
            bus_master,
            "{fault:?}"
        );
        assert_eq!(
            bench.nic.poll(at(limit - 1)),
            Ok(Phase::Stopping),
            "{fault:?}"
        );
        assert_eq!(
            bench.nic.poll(at(limit)),
            Err(NicError::NotQuiet),
            "{fault:?}"
        );
        assert_eq!(
            bench.nic.poll(at(limit + 1)),
            Ok(Phase::Failed),
            "{fault:?}"
        );
        let outcome = release(&mut bench);
        assert_eq!(
            outcome,
            (Err(NicError::WrongPhase), Vec::new()),
            "{fault:?}"
        );
        let (fake, mapped) = (bench.fake.clone(), bench.fake.mapped());
        drop(bench);
        // Less the memory of the bench.
        assert_eq!(fake.mapped(), mapped - 1, "{fault:?}: leaked, not freed");
    }
}

#[test]
fn queues_are_reset_one_by_one_before_the_device() {
    for (pairs, expected) in [(1u8, &[1, 0][..]), (3, &[1, 3, 5, 0, 2, 4])] {
        let fake = Fake::new();
        fake.device().net[8] = pairs;
        let config = Config {
            queue_pairs: u16::from(pairs),
            ..Config::default()
        };
        let mut nic = VirtioNet::open(fake.clone(), &config).expect("opens");
        nic.begin_reset(at(0));
        assert_eq!(fake.device().queues_reset, expected);
        assert_eq!(fake.device().status, 0x0F, "the device is not reset yet");
        assert_eq!(nic.poll(at(1)), Ok(Phase::Quiet));
        assert_eq!(fake.device().status, 0);
        assert_eq!(nic.restart(&mut [], &mut |_, _| {}), Ok(()));
    }
    // Not where it was not negotiated (the fake device asserts it), nor where the register is not
    // there.
    let fake = Fake::new();
    fake.device().config[(0x40 + 3 * 20) / 4 + 3] = 56;
    let mut nic = VirtioNet::open(fake, &Config::default()).expect("opens");
    assert!(!nic.features().contains(Features::RING_RESET));
    make_quiet(&mut nic);
}

#[test]
fn queues_that_are_not_reset_in_time_are_reset_with_the_device() {
    let mut bench = Bench::new();
    assert_eq!(bench.post(1, 3), Ok(()));
    bench.fake.break_with(Fault::EndlessQueueReset);
    bench.nic.begin_reset(at(0));
    assert_eq!(bench.nic.poll(at(99)), Ok(Phase::Stopping));
    assert_eq!(bench.fake.device().status, 0x0F);
    assert_eq!(bench.nic.poll(at(100)), Ok(Phase::Quiet));
    assert_eq!(restart(&mut bench), (Ok(()), [(0, 3)].into()));
}

#[test]
fn release_stops_the_queues_and_lets_their_memory_go() {
    let mut bench = Bench::new();
    for token in 0..3 {
        assert_eq!(bench.post(2, token), Ok(()));
    }
    make_quiet(&mut bench.nic);
    let (result, tokens) = release(&mut bench);
    assert_eq!((result, tokens.len()), (Ok(()), 3));
    assert_eq!(bench.post(1, 9), Err(PostError::Down));
    assert_eq!(bench.tx.reclaim(&mut |_| {}), Err(QueueError::Down));
    assert_eq!(bench.rx.receive(1, &mut |_| {}), Err(QueueError::Down));
    // A second time there is nothing left to give back; and it can still be started.
    assert_eq!(release(&mut bench), (Ok(()), Vec::new()));
    assert_eq!(restart(&mut bench), (Ok(()), Vec::new()));
    assert_eq!(bench.post(1, 9), Ok(()));
    make_quiet(&mut bench.nic);
    assert_eq!(release(&mut bench).1, [(0, 9)]);
    let fake = bench.fake.clone();
    drop(bench);
    assert_eq!(fake.mapped(), 0);
}

#[test]
fn rule_6_drop_without_release_leaks() {
    let bench = Bench::new();
    let (fake, mapped) = (bench.fake.clone(), bench.fake.mapped());
    drop(bench);
    assert_eq!(fake.mapped(), mapped - 1);
    // Also when the queues never left.
    let fake = Fake::new();
    drop(VirtioNet::open(fake.clone(), &Config::default()).expect("opens"));
    assert_eq!(fake.mapped(), mapped - 1);
}

#[test]
fn queues_that_were_not_taken_are_reset_with_the_device() {
    let fake = Fake::new();
    let mut nic = VirtioNet::open(fake.clone(), &Config::default()).expect("opens");
    make_quiet(&mut nic);
    assert_eq!(nic.restart(&mut [], &mut |_, _| {}), Ok(()));
    assert!(matches!(nic.poll(at(1000)), Ok(Phase::Running(_))));
    make_quiet(&mut nic);
    assert_eq!(nic.release(&mut [], &mut |_, _| {}), Ok(()));
    drop(nic);
    assert_eq!(fake.mapped(), 0);
}

#[test]
fn the_right_pair_must_be_handed_in() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    assert_eq!(one.post(1, 1), Ok(()));
    assert_eq!(other.post(1, 2), Ok(()));
    assert_eq!(restart(&mut one).0, Err(NicError::WrongPhase));
    make_quiet(&mut one.nic);
    make_quiet(&mut other.nic);
    let missing = one.nic.restart(&mut [], &mut |_, _| panic!("a token"));
    assert_eq!(missing, Err(NicError::QueueMissing { index: 0 }));
    core::mem::swap(&mut one.tx, &mut other.tx);
    let (alien, tokens) = restart(&mut one);
    assert!(matches!(alien, Err(NicError::Config { .. })));
    assert!(tokens.is_empty());
    core::mem::swap(&mut one.tx, &mut other.tx);
    assert_eq!(restart(&mut one), (Ok(()), [(0, 1)].into()));
    assert_eq!(restart(&mut other), (Ok(()), [(0, 2)].into()));
}

#[test]
fn a_device_that_offers_something_else_after_a_reset_can_be_released() {
    let mut bench = Bench::new();
    assert_eq!(bench.post(1, 5), Ok(()));
    make_quiet(&mut bench.nic);
    let offered = bench.fake.device().offered;
    bench.fake.device().offered &= !Features::EVENT_IDX.bits();
    let (result, tokens) = restart(&mut bench);
    assert!(matches!(result, Err(NicError::NotOffered { .. })));
    assert_eq!(tokens, [(0, 5)]);
    assert_eq!(bench.nic.poll(at(2)), Ok(Phase::Quiet));
    assert_eq!(bench.post(1, 6), Err(PostError::Down));
    assert!(pci::is_bus_mastering_off(&bench.fake));
    bench.fake.device().offered = offered;
    assert_eq!(restart(&mut bench), (Ok(()), Vec::new()));
    assert_eq!(bench.post(1, 6), Ok(()));
}

#[test]
fn a_failed_queue_works_again_after_a_reset() {
    let mut bench = Bench::new();
    assert_eq!(bench.post(1, 0), Ok(()));
    bench.tx.doorbell();
    bench.fake.complete(TX, 77, 0);
    let error = bench.tx.reclaim(&mut |_| panic!("a token"));
    assert_eq!(error, Err(QueueError::BadIndex { index: 77 }));
    make_quiet(&mut bench.nic);
    assert_eq!(restart(&mut bench), (Ok(()), [(0, 0)].into()));
    assert_eq!(bench.post(1, 0), Ok(()));
}

#[test]
fn a_device_that_needs_a_reset_is_hung() {
    let mut bench = Bench::new();
    assert!(matches!(bench.nic.poll(at(0)), Ok(Phase::Running(link)) if link.up));
    bench.fake.device().status |= 64;
    assert_eq!(bench.nic.poll(at(1)), Ok(Phase::Hung));
    make_quiet(&mut bench.nic);
    assert_eq!(restart(&mut bench).0, Ok(()));
    assert!(matches!(bench.nic.poll(at(2)), Ok(Phase::Running(_))));
}

#[test]
fn a_removal_is_said_once() {
    for stopping in [false, true] {
        let mut bench = Bench::new();
        if stopping {
            bench.nic.begin_reset(at(0));
        }
        bench.fake.break_with(Fault::Removed);
        assert_eq!(bench.nic.poll(at(1)), Err(NicError::Removed));
        assert_eq!(bench.nic.poll(at(2)), Ok(Phase::Failed));
        bench.fake.repair();
        assert_eq!(restart(&mut bench).0, Err(NicError::WrongPhase));
    }
}
