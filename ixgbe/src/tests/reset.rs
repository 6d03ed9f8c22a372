//! Stopping with frames in flight, restart, release, hang detection, what happens on drop.

use core::time::Duration;
use std::vec::Vec;

use pagewire_hal::{
    Instant, Nic, NicError, Offload, Phase, PostError, QueueError, QueuePair, RxQueue, TxQueue,
};

use super::{open, post, reclaim};
use crate::fake::{Fake, Fault};
use crate::{Ixgbe, IxgbeRx, IxgbeTx, regs};

const BUS_MASTER: u32 = 1 << 2;
type Pair<'a> = QueuePair<'a, IxgbeTx<Fake>, IxgbeRx<Fake>>;

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

/// Goes through a reset to quiet, at one poll every 5 ms.
pub(super) fn make_quiet(nic: &mut Ixgbe<Fake>) {
    nic.begin_reset(at(0));
    for step in 0..20 {
        match nic.poll(at(5 * step)) {
            Ok(Phase::Stopping) => {}
            Ok(Phase::Quiet) => return,
            other => panic!("{other:?} at step {step}"),
        }
    }
    panic!("not quiet after 100 ms");
}

fn is_running(phase: Result<Phase, NicError>) -> bool {
    matches!(phase, Ok(Phase::Running(_)))
}

pub(super) fn restart(
    nic: &mut Ixgbe<Fake>,
    tx: &mut IxgbeTx<Fake>,
    rx: &mut IxgbeRx<Fake>,
) -> (Result<(), NicError>, Vec<(u16, u32)>) {
    let mut tokens = Vec::new();
    let result = nic.restart(&mut [Pair { tx, rx }], &mut |position, token| {
        tokens.push((position, token.0));
    });
    (result, tokens)
}

fn release(
    nic: &mut Ixgbe<Fake>,
    tx: &mut IxgbeTx<Fake>,
    rx: &mut IxgbeRx<Fake>,
) -> (Result<(), NicError>, Vec<(u16, u32)>) {
    let mut tokens = Vec::new();
    let result = nic.release(&mut [Pair { tx, rx }], &mut |position, token| {
        tokens.push((position, token.0));
    });
    (result, tokens)
}

#[test]
fn rule_6_a_reset_hands_back_each_token_once_and_in_order() {
    let (fake, mut nic, mut tx, mut rx) = open();
    for token in 0..6 {
        assert_eq!(post(&mut tx, 2, Offload::NONE, token), Ok(()));
        if token < 4 {
            tx.doorbell();
        }
    }
    fake.complete(0, 4);
    assert_eq!(reclaim(&mut tx), [0, 1]);
    fake.complete(0, 2);
    make_quiet(&mut nic);
    assert_eq!(fake.device().config[1] & BUS_MASTER, 0);
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Ok(()));
    assert_eq!(tokens, [(0, 2), (0, 3), (0, 4), (0, 5)]);
    assert_eq!(tx.outstanding(), 0);
    assert_ne!(fake.device().config[1] & BUS_MASTER, 0);
    assert!(is_running(nic.poll(at(1000))));
    // All of it works again, from index 0 on.
    for token in 10..13 {
        assert_eq!(post(&mut tx, 3, Offload::NONE, token), Ok(()));
    }
    tx.doorbell();
    assert_eq!(fake.tail(0), 9);
    fake.complete(0, 9);
    assert_eq!(reclaim(&mut tx), [10, 11, 12]);
    assert!(fake.deliver(0, &[7; 60], 60, 3, 0));
    assert_eq!(
        rx.receive(1, &mut |frame| assert_eq!(frame.len(), 60)),
        Ok(1)
    );
}

#[test]
fn the_steps_to_quiet_are_taken_in_order_and_none_waits() {
    let (fake, mut nic, mut tx, mut rx) = open();
    fake.break_with(Fault::StuckMaster);
    let clock = fake.device().log.len();
    nic.begin_reset(at(0));
    assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping));
    assert_ne!(
        fake.device().config[1] & BUS_MASTER,
        0,
        "not before the device is done"
    );
    fake.repair();
    fake.break_with(Fault::StuckPending);
    assert_eq!(nic.poll(at(2)), Ok(Phase::Stopping));
    assert_eq!(fake.device().config[1] & BUS_MASTER, 0);
    let reset = |fake: &Fake| {
        let device = fake.device();
        device.log[clock..]
            .iter()
            .any(|(offset, value)| *offset == regs::CTRL.0 && value & 1 << 26 != 0)
    };
    assert!(!reset(&fake), "not before the bus is done");
    fake.repair();
    assert_eq!(nic.poll(at(3)), Ok(Phase::Stopping));
    assert!(reset(&fake));
    assert_eq!(
        nic.poll(at(52)),
        Ok(Phase::Stopping),
        "50 ms have not passed"
    );
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Err(NicError::WrongPhase));
    assert!(tokens.is_empty());
    assert_eq!(nic.poll(at(53)), Ok(Phase::Quiet));
    assert_eq!(nic.poll(at(54)), Ok(Phase::Quiet));
}

#[test]
fn no_register_is_touched_until_a_reset_has_settled() {
    let (fake, mut nic, _tx, _rx) = open();
    nic.begin_reset(at(0));
    let resets = fake.device().resets;
    assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping));
    assert_eq!(fake.device().resets, resets + 1);
    for millis in 1..51 {
        assert_eq!(nic.poll(at(millis)), Ok(Phase::Stopping));
        assert!(!nic.link().up);
        nic.statistics();
        assert_eq!(fake.device().touched, 0, "after {millis} ms");
    }
    assert_eq!(nic.poll(at(51)), Ok(Phase::Quiet));
    assert_ne!(fake.device().touched, 0);
}

#[test]
fn rule_6_a_device_that_does_not_become_quiet_keeps_what_it_was_lent() {
    for fault in [Fault::StuckMaster, Fault::StuckPending] {
        let (fake, mut nic, mut tx, mut rx) = open();
        assert_eq!(post(&mut tx, 1, Offload::NONE, 0), Ok(()));
        tx.doorbell();
        fake.break_with(fault);
        nic.begin_reset(at(0));
        assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping), "{fault:?}");
        // With the master stuck the flush and two resets are tried first.
        let mut polls = (0..100).map(|n| nic.poll(at(100 + 20 * n)));
        let last = polls.find(|phase| *phase != Ok(Phase::Stopping));
        assert_eq!(last, Some(Err(NicError::NotQuiet)), "{fault:?}");
        assert_eq!(nic.poll(at(9000)), Ok(Phase::Failed), "{fault:?}");
        let forced = fault == Fault::StuckMaster;
        assert_eq!(
            fake.device().resets,
            if forced { 4 } else { 2 },
            "{fault:?}"
        );
        let (result, tokens) = release(&mut nic, &mut tx, &mut rx);
        assert_eq!(result, Err(NicError::WrongPhase), "{fault:?}");
        assert!(tokens.is_empty(), "{fault:?}");
        let mapped = fake.mapped();
        drop((tx, rx, nic));
        assert_eq!(fake.mapped(), mapped, "{fault:?}: leaked, not freed");
    }
}

#[test]
fn a_device_whose_status_sticks_is_flushed_reset_twice_and_quiet() {
    let (fake, mut nic, mut tx, mut rx) = open();
    assert_eq!(post(&mut tx, 1, Offload::NONE, 5), Ok(()));
    tx.doorbell();
    fake.device().resets = 1;
    fake.break_with(Fault::SlowMaster);
    nic.begin_reset(at(0));
    let mut polls = (1..100).map(|n| nic.poll(at(20 * n)));
    let last = polls.find(|phase| *phase != Ok(Phase::Stopping));
    assert_eq!(last, Some(Ok(Phase::Quiet)));
    assert_eq!(fake.device().resets, 3);
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!((result, tokens), (Ok(()), [(0, 5)].into()));
}

#[test]
fn a_device_that_was_done_is_quiet_however_late_one_asks() {
    let (fake, mut nic, mut tx, mut rx) = open();
    nic.begin_reset(at(0));
    assert_eq!(nic.poll(at(10_000)), Ok(Phase::Stopping));
    assert_eq!(nic.poll(at(20_000)), Ok(Phase::Quiet));
    assert_eq!(restart(&mut nic, &mut tx, &mut rx).0, Ok(()));
    assert_eq!(fake.tail(0), 0);
}

#[test]
fn a_reset_that_does_not_end_can_be_released_but_not_restarted() {
    let (fake, mut nic, mut tx, mut rx) = open();
    assert_eq!(post(&mut tx, 1, Offload::NONE, 5), Ok(()));
    tx.doorbell();
    fake.break_with(Fault::EndlessReset);
    nic.begin_reset(at(0));
    assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping));
    assert_eq!(nic.poll(at(50)), Ok(Phase::Stopping));
    assert_eq!(nic.poll(at(600)), Ok(Phase::Quiet));
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert!(matches!(result, Err(NicError::Timeout { .. })));
    assert!(tokens.is_empty());
    let (result, tokens) = release(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Ok(()));
    assert_eq!(tokens, [(0, 5)]);
}

#[test]
fn release_stops_the_queues_and_lets_their_memory_go() {
    let (fake, mut nic, mut tx, mut rx) = open();
    for token in 0..3 {
        assert_eq!(post(&mut tx, 1, Offload::NONE, token), Ok(()));
    }
    make_quiet(&mut nic);
    let (result, tokens) = release(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Ok(()));
    assert_eq!(tokens, [(0, 0), (0, 1), (0, 2)]);
    assert_eq!(fake.device().config[1] & BUS_MASTER, 0);
    assert_eq!(post(&mut tx, 1, Offload::NONE, 9), Err(PostError::Down));
    assert_eq!(tx.reclaim(&mut |_| {}), Err(QueueError::Down));
    assert_eq!(rx.receive(1, &mut |_| {}), Err(QueueError::Down));
    // A second time there is nothing left to give back; and it can still be started.
    assert_eq!(release(&mut nic, &mut tx, &mut rx), (Ok(()), Vec::new()));
    assert_eq!(restart(&mut nic, &mut tx, &mut rx), (Ok(()), Vec::new()));
    assert_eq!(post(&mut tx, 1, Offload::NONE, 9), Ok(()));
    make_quiet(&mut nic);
    assert_eq!(release(&mut nic, &mut tx, &mut rx).1, [(0, 9)]);
    assert_eq!(fake.mapped(), 3);
    drop((tx, rx, nic));
    assert_eq!(fake.mapped(), 0);
}

#[test]
fn queues_that_were_not_taken_are_reset_with_the_device() {
    let fake = Fake::new();
    let mut nic = Ixgbe::open(fake.clone(), &crate::Config::default()).expect("opens");
    make_quiet(&mut nic);
    assert_eq!(nic.restart(&mut [], &mut |_, _| {}), Ok(()));
    assert!(is_running(nic.poll(at(1000))));
    make_quiet(&mut nic);
    assert_eq!(nic.release(&mut [], &mut |_, _| {}), Ok(()));
    drop(nic);
    assert_eq!(fake.mapped(), 0);
}

#[test]
fn the_right_pair_must_be_handed_in() {
    let (_fake, mut nic, mut tx, mut rx) = open();
    let (_other_fake, mut other, mut other_tx, mut other_rx) = open();
    assert_eq!(post(&mut tx, 1, Offload::NONE, 1), Ok(()));
    assert_eq!(post(&mut other_tx, 1, Offload::NONE, 2), Ok(()));
    make_quiet(&mut nic);
    make_quiet(&mut other);
    let missing = nic.restart(&mut [], &mut |_, _| panic!("a token"));
    assert_eq!(missing, Err(NicError::QueueMissing { index: 0 }));
    let (alien, tokens) = restart(&mut nic, &mut other_tx, &mut other_rx);
    assert!(matches!(alien, Err(NicError::Config { .. })));
    assert!(tokens.is_empty());
    let (mixed, tokens) = restart(&mut nic, &mut tx, &mut other_rx);
    assert!(matches!(mixed, Err(NicError::Config { .. })));
    assert!(tokens.is_empty());
    let mut both = [
        Pair {
            tx: &mut other_tx,
            rx: &mut other_rx,
        },
        Pair {
            tx: &mut tx,
            rx: &mut rx,
        },
    ];
    let result = nic.release(&mut both, &mut |_, _| panic!("a token"));
    assert!(matches!(result, Err(NicError::Config { .. })));
    assert_eq!(
        restart(&mut nic, &mut tx, &mut rx),
        (Ok(()), [(0, 1)].into())
    );
    assert_eq!(
        restart(&mut other, &mut other_tx, &mut other_rx),
        (Ok(()), [(0, 2)].into())
    );
}

#[test]
fn queues_at_the_addresses_of_earlier_ones_are_not_taken_for_them() {
    let (fake, mut nic, ..) = open();
    let mut other = Ixgbe::open(Fake::successor_of(&fake), &crate::Config::default()).unwrap();
    let (mut tx, mut rx) = other.take_queues(0).unwrap();
    assert_eq!(post(&mut tx, 1, Offload::NONE, 1), Ok(()));
    make_quiet(&mut nic);
    let (alien, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert!(matches!(alien, Err(NicError::Config { .. })));
    assert!(tokens.is_empty());
}

#[test]
fn rule_6_drop_without_release_leaks() {
    let (fake, nic, tx, rx) = open();
    assert_eq!(fake.mapped(), 3);
    drop((nic, tx, rx));
    assert_eq!(fake.mapped(), 3);
    assert_eq!(fake.device().freed, 0);
    // Also when the queues never left.
    let fake = Fake::new();
    drop(Ixgbe::open(fake.clone(), &crate::Config::default()).expect("opens"));
    assert_eq!(fake.mapped(), 3);
}

#[test]
fn frames_posted_while_the_device_stops_come_back_as_well() {
    let (_fake, mut nic, mut tx, mut rx) = open();
    nic.begin_reset(at(0));
    assert_eq!(post(&mut tx, 1, Offload::NONE, 0), Ok(()));
    tx.doorbell();
    assert_eq!(nic.poll(at(1)), Ok(Phase::Stopping));
    assert_eq!(nic.poll(at(60)), Ok(Phase::Quiet));
    assert_eq!(post(&mut tx, 1, Offload::NONE, 1), Ok(()));
    assert_eq!(restart(&mut nic, &mut tx, &mut rx).1, [(0, 0), (0, 1)]);
}

#[test]
fn a_failed_queue_works_again_after_a_reset() {
    let (_fake, mut nic, mut tx, mut rx) = open();
    for token in 0..32 {
        assert_eq!(post(&mut tx, 1, Offload::NONE, token), Ok(()));
    }
    tx.overwrite(0, tx.descriptor(0).marked_done());
    assert_eq!(
        tx.reclaim(&mut |_| {}),
        Err(QueueError::BadIndex { index: 0 })
    );
    make_quiet(&mut nic);
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!(result, Ok(()));
    assert_eq!(tokens.len(), 32);
    assert_eq!(post(&mut tx, 1, Offload::NONE, 0), Ok(()));
}

#[test]
fn a_transmitter_without_progress_is_hung_and_one_with_progress_is_not() {
    let (fake, mut nic, mut tx, _rx) = open();
    assert!(is_running(nic.poll(at(0))));
    assert!(is_running(nic.poll(at(10_000))), "nothing to do is no hang");
    assert_eq!(post(&mut tx, 4, Offload::NONE, 0), Ok(()));
    assert!(is_running(nic.poll(at(20_000))), "no doorbell, no work");
    tx.doorbell();
    assert!(is_running(nic.poll(at(30_000))), "the first look");
    assert!(is_running(nic.poll(at(30_499))), "too early to say");
    assert_eq!(nic.poll(at(30_500)), Ok(Phase::Hung));
    fake.complete(0, 1);
    assert!(is_running(nic.poll(at(31_000))), "the head has moved");
    assert_eq!(nic.poll(at(32_000)), Ok(Phase::Hung));
    // The head is where it was, but the device has sent frames: it has gone round.
    fake.device().set(regs::QPTC.0, 17);
    assert!(is_running(nic.poll(at(33_000))));
    fake.complete(0, 10);
    assert!(is_running(nic.poll(at(34_000))));
    assert!(is_running(nic.poll(at(44_000))));
}

#[test]
fn statistics_and_interrupts_survive_a_reset() {
    let (fake, mut nic, mut tx, mut rx) = open();
    assert_eq!(nic.enable_interrupts(), Ok(3));
    fake.device().set(regs::GPTC.0, 5);
    make_quiet(&mut nic);
    assert_eq!(fake.device().get(regs::IVAR.0), 0, "the fake forgets");
    assert_eq!(restart(&mut nic, &mut tx, &mut rx).0, Ok(()));
    assert_eq!(fake.device().get(regs::IVAR.0), 0x8180);
    fake.device().set(regs::GPTC.0, 2);
    assert_eq!(nic.statistics().tx_frames, 7);
}

#[test]
fn causes_from_before_a_reset_are_read_away() {
    let (fake, mut nic, _tx, _rx) = open();
    fake.device().set(regs::EICR.0, 1 << 22);
    make_quiet(&mut nic);
    assert_eq!(fake.device().get(regs::EICR.0), 0);
}

#[test]
fn a_removal_during_a_reset_is_said_once() {
    let (fake, mut nic, _tx, _rx) = open();
    nic.begin_reset(at(0));
    fake.break_with(Fault::Removed);
    assert_eq!(nic.poll(at(1)), Err(NicError::Removed));
    assert_eq!(nic.poll(at(2)), Ok(Phase::Failed));
}
