//! Several pairs of queues, and the control queue that puts them to use.

use core::time::Duration;
use std::vec;
use std::vec::Vec;

use pagewire_hal::{Causes, Instant, Nic, NicError, Phase, QueuePair, RxQueue, Token, TxQueue};

use super::Bench;
use crate::fake::{Fake, Fault, MAC, Play};
use crate::{Config, Features, VirtioNet, VirtioRx, VirtioTx};

type Pair = (VirtioTx<Fake>, VirtioRx<Fake>);
type Lent<'a> = QueuePair<'a, VirtioTx<Fake>, VirtioRx<Fake>>;

/// A device of `pairs` pairs.
fn fake(pairs: u8) -> Fake {
    let fake = Fake::new();
    fake.device().net[8] = pairs;
    fake
}

fn config(pairs: u16) -> Config {
    Config {
        queue_pairs: pairs,
        tx_descriptors: 8,
        rx_descriptors: 8,
        ..Config::default()
    }
}

/// A bench of `count` pairs of a device that has six, and the pairs but the first, which the bench
/// has.
fn open(count: u16, features: Features) -> (Bench, Vec<Pair>) {
    let mut config = config(count);
    config.features |= features;
    let mut bench = Bench::of(fake(6), &config);
    let others = (1..count).map(|index| bench.nic.take_queues(index).expect("a pair"));
    let others = others.collect();
    (bench, others)
}

fn lend<'a>(
    bench: &'a mut Bench,
    others: &'a mut [Pair],
) -> (&'a mut VirtioNet<Fake>, Vec<Lent<'a>>) {
    let (tx, rx) = (&mut bench.tx, &mut bench.rx);
    let mut lent = vec![QueuePair { tx, rx }];
    lent.extend(others.iter_mut().map(|(tx, rx)| QueuePair { tx, rx }));
    (&mut bench.nic, lent)
}

fn make_quiet(nic: &mut VirtioNet<Fake>) {
    nic.begin_reset(Instant::ZERO);
    let now = Instant::ZERO + Duration::from_millis(1);
    assert_eq!(nic.poll(now), Ok(Phase::Quiet));
}

fn frame() -> Vec<u8> {
    let mut frame = vec![3; 60];
    frame[..6].copy_from_slice(&MAC);
    frame
}

/// All pairs send and receive.
fn check_traffic(bench: &mut Bench, others: &mut [Pair]) {
    assert_eq!(bench.post(2, 100), Ok(()));
    bench.tx.doorbell();
    for (token, (tx, _)) in (101..).zip(&mut *others) {
        assert_eq!(bench.post_on(tx, 2, token), Ok(()));
        tx.doorbell();
    }
    for pair in 0..=others.len() {
        assert_eq!(bench.fake.transmit_on(2 * pair + 1).len(), 1, "pair {pair}");
        let got = bench.fake.deliver_on(2 * pair, &[0; 12], &frame(), 72);
        assert!(got, "pair {pair}");
    }
    assert_eq!(bench.reclaim(), [100]);
    assert_eq!(bench.rx.receive(9, &mut |_| {}), Ok(1));
    for (token, (tx, rx)) in (101..).zip(others) {
        assert_eq!(
            tx.reclaim(&mut |done| assert_eq!(done, Token(token))),
            Ok(1)
        );
        assert_eq!(rx.receive(9, &mut |_| {}), Ok(1));
    }
}

#[test]
fn all_pairs_work_also_after_a_reset_in_any_order() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let (mut bench, mut others) = open(4, features);
        assert_eq!(bench.nic.capabilities().queue_pairs, 4);
        assert!(
            bench
                .nic
                .features()
                .contains(Features::MQ | Features::CTRL_VQ)
        );
        assert_eq!(bench.fake.device().pairs_in_use, 4);
        assert!(bench.nic.take_queues(0).is_none() && bench.nic.take_queues(4).is_none());
        check_traffic(&mut bench, &mut others);
        // One frame is out in each; two in the last.
        assert_eq!(bench.post(1, 10), Ok(()));
        for (token, (tx, _)) in (11..).zip(&mut others) {
            assert_eq!(bench.post_on(tx, 1, token), Ok(()));
        }
        assert_eq!(bench.post_on(&mut others[2].0, 1, 20), Ok(()));
        make_quiet(&mut bench.nic);
        let (nic, mut lent) = lend(&mut bench, &mut others);
        lent.reverse();
        let mut tokens = Vec::new();
        let restarted = nic.restart(&mut lent, &mut |at, token| tokens.push((at, token.0)));
        assert_eq!(restarted, Ok(()));
        tokens.sort_unstable();
        assert_eq!(tokens, [(0, 13), (0, 20), (1, 12), (2, 11), (3, 10)]);
        assert_eq!(bench.fake.device().pairs_in_use, 4);
        let now = Instant::ZERO + Duration::from_millis(2);
        assert!(matches!(bench.nic.poll(now), Ok(Phase::Running(_))));
        check_traffic(&mut bench, &mut others);
        make_quiet(&mut bench.nic);
        let (nic, mut lent) = lend(&mut bench, &mut others);
        assert_eq!(nic.release(&mut lent, &mut |_, _| {}), Ok(()));
        let fake = bench.fake.clone();
        drop((bench, others));
        assert_eq!(fake.mapped(), 0);
    }
}

#[test]
fn the_command_does_not_fill_its_ring() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let fake = fake(2);
        fake.device().offered |= Features::IN_ORDER.bits();
        let mut config = config(2);
        config.features |= features;
        let bench = Bench::of(fake.clone(), &config);
        let wanted = features | Features::IN_ORDER | Features::MQ;
        assert!(bench.nic.features().contains(wanted));
        assert_eq!(fake.device().pairs_in_use, 2);
    }
    // A shorter ring does where it is not used in order; one of one descriptor does not.
    let short = fake(2);
    short.device().queues[4].max = 2;
    assert_eq!(
        Bench::of(short.clone(), &config(2))
            .nic
            .capabilities()
            .queue_pairs,
        2
    );
    short.device().queues[4].max = 1;
    let refused = VirtioNet::open(short, &config(2)).expect_err("refused");
    assert!(
        matches!(refused, NicError::NotOffered { .. }),
        "{refused:?}"
    );
}

#[test]
fn pairs_that_were_not_taken_are_reset_with_the_others() {
    let mut nic = VirtioNet::open(fake(3), &config(3)).expect("opens");
    let (mut tx, mut rx) = nic.take_queues(1).expect("a pair");
    make_quiet(&mut nic);
    let missing = nic.restart(&mut [], &mut |_, _| {});
    assert_eq!(missing, Err(NicError::QueueMissing { index: 1 }));
    let lent = &mut [QueuePair {
        tx: &mut tx,
        rx: &mut rx,
    }];
    assert_eq!(nic.restart(lent, &mut |_, _| {}), Ok(()));
    assert!(nic.take_queues(0).is_some() && nic.take_queues(2).is_some());
}

#[test]
fn halves_of_different_pairs_are_refused() {
    let (mut bench, mut others) = open(2, Features::empty());
    make_quiet(&mut bench.nic);
    core::mem::swap(&mut bench.tx, &mut others[0].0);
    let (nic, mut lent) = lend(&mut bench, &mut others);
    let refused = nic.restart(&mut lent, &mut |_, _| panic!("a token"));
    assert!(matches!(refused, Err(NicError::Config { .. })));
}

#[test]
fn there_are_as_many_pairs_as_the_device_has() {
    let open = |fake: Fake, pairs| Bench::of(fake, &config(pairs)).nic;
    assert_eq!(open(fake(3), 8).capabilities().queue_pairs, 3);
    for pairs in [0, 1] {
        let nic = open(fake(pairs), 8);
        assert_eq!(nic.capabilities().queue_pairs, 1);
        assert!(!nic.features().intersects(Features::MQ | Features::CTRL_VQ));
    }
    // Neither without the control queue, nor where one pair will do.
    let without = fake(3);
    without.device().offered &= !Features::CTRL_VQ.bits();
    for nic in [open(without, 3), open(fake(3), 1)] {
        assert_eq!(nic.capabilities().queue_pairs, 1);
        assert!(!nic.features().intersects(Features::MQ | Features::CTRL_VQ));
    }
    // More than there can be.
    let lying = fake(0);
    lying.device().net[9] = 0x81;
    assert_eq!(open(lying, 3).capabilities().queue_pairs, 1);
}

#[test]
fn a_control_queue_that_refuses_or_sleeps_is_an_error_and_leaks_nothing() {
    for answer in [Some(1), Some(0x77), None] {
        let fake = fake(2);
        fake.device().answer = answer;
        let refused = VirtioNet::open(fake.clone(), &config(2)).expect_err("refused");
        assert!(matches!(refused, NicError::NotOffered { .. }), "{answer:?}");
        assert_eq!(fake.mapped(), 0, "{answer:?}");
        assert_eq!(fake.device().status, 0, "{answer:?}");
    }
}

#[test]
fn rule_7_the_pairs_are_those_of_the_first_answer() {
    for second in [0, 1, 5, 0xFFFF] {
        let fake = fake(3);
        fake.device().fickle.push((8, second, false));
        let nic = VirtioNet::open(fake, &config(8)).map(|nic| nic.capabilities().queue_pairs);
        assert_eq!(nic, Ok(3), "{second}");
    }
}

#[test]
fn rule_6_a_refusal_gives_nothing_back_to_a_device_that_remains_bus_master() {
    let fake = fake(2);
    fake.device().answer = Some(1);
    fake.break_with(Fault::EndlessBusMastering);
    let refused = VirtioNet::open(fake.clone(), &config(2)).expect_err("refused");
    assert!(
        matches!(refused, NicError::NotOffered { .. }),
        "{refused:?}"
    );
    assert_ne!(fake.mapped(), 0);
}

#[test]
fn a_restart_does_not_wait_and_a_refusal_is_seen_by_poll() {
    for (answer, millis, hung) in [(Some(1), 2, true), (None, 1001, false), (None, 1003, true)] {
        let (mut bench, mut others) = open(2, Features::empty());
        make_quiet(&mut bench.nic);
        bench.fake.device().answer = answer;
        let clock = bench.fake.device().nanos;
        let (nic, mut lent) = lend(&mut bench, &mut others);
        assert_eq!(nic.restart(&mut lent, &mut |_, _| {}), Ok(()));
        assert_eq!(bench.fake.device().nanos, clock, "it waited");
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        if answer.is_none() {
            assert!(matches!(bench.nic.poll(at(2)), Ok(Phase::Running(_))));
        }
        let phase = bench.nic.poll(at(millis));
        assert_eq!(phase == Ok(Phase::Hung), hung, "{answer:?} {millis}");
        // Another reset cures it.
        bench.fake.device().answer = Some(0);
        make_quiet(&mut bench.nic);
        let (nic, mut lent) = lend(&mut bench, &mut others);
        assert_eq!(nic.restart(&mut lent, &mut |_, _| {}), Ok(()));
        assert!(matches!(bench.nic.poll(at(millis)), Ok(Phase::Running(_))));
        check_traffic(&mut bench, &mut others);
    }
}

#[test]
fn each_queue_has_a_vector_or_each_pair_or_pairs_share() {
    for (granted, expected, fired, causes) in [
        (64, [0, 1, 2, 3, 4, 5], 0b1000, Causes::TRANSMIT),
        (
            4,
            [0, 0, 1, 1, 2, 2],
            0b0100,
            Causes::RECEIVE | Causes::TRANSMIT,
        ),
        (2, [0; 6], 0b0010, Causes::LINK),
    ] {
        let fake = fake(3);
        fake.device().vectors = granted;
        let mut bench = Bench::of(fake, &config(3));
        let queues = bench.fake.device().queues;
        let vectors: Vec<_> = queues.iter().take(6).map(|queue| queue.vector).collect();
        assert_eq!(vectors, expected);
        assert_eq!(bench.nic.enable_interrupts(), Ok(granted.min(7)));
        bench.fake.device().fired = fired;
        assert_eq!(bench.nic.take_interrupts(), causes);
    }
}
