//! Several pairs of queues.

use std::vec::Vec;

use pagewire_hal::{Instant, Nic, NicError, Offload, Phase, QueuePair, RxQueue, TxQueue};

use super::{post, reclaim};
use crate::fake::{Fake, Fault, Play};
use crate::regs::PerQueue;
use crate::{Config, Ixgbe, IxgbeRx, IxgbeTx, regs};
use pagewire_hal::fake::lifecycle::make_quiet;

type Pair = (IxgbeTx<Fake>, IxgbeRx<Fake>);

fn open(count: u16) -> (Fake, Ixgbe<Fake>, Vec<Pair>) {
    let config = Config {
        queue_pairs: count,
        tx_descriptors: 8,
        rx_descriptors: 8,
        ..Config::default()
    };
    let fake = Fake::new();
    let mut nic = Ixgbe::open(fake.clone(), &config).expect("opens");
    let pairs = (0..count).map(|index| nic.take_queues(index).expect("a pair"));
    let pairs = pairs.collect();
    (fake, nic, pairs)
}

fn lend(pairs: &mut [Pair]) -> Vec<QueuePair<'_, IxgbeTx<Fake>, IxgbeRx<Fake>>> {
    let lent = pairs.iter_mut().map(|(tx, rx)| QueuePair { tx, rx });
    lent.collect()
}

/// All pairs send and receive.
fn check_traffic(fake: &Fake, pairs: &mut [Pair]) {
    for (pair, (tx, rx)) in (0..).zip(pairs) {
        let token = 100 + u32::from(pair);
        assert_eq!(post(tx, 2, Offload::NONE, token), Ok(()));
        tx.doorbell();
        assert_eq!(fake.complete(pair, 9), 2, "pair {pair}");
        assert_eq!(reclaim(tx), [token]);
        assert!(
            fake.deliver(pair, &[pair as u8; 60], 60, 3, 0),
            "pair {pair}"
        );
        let got = rx.receive(9, &mut |frame| {
            let mut bytes = [0; 60];
            assert_eq!(frame.copy_to(&mut bytes), [pair as u8; 60]);
        });
        assert_eq!(got, Ok(1));
    }
}

#[test]
fn all_pairs_work_also_after_a_reset_in_any_order() {
    for count in [1, 4, 16] {
        let (fake, mut nic, mut pairs) = open(count);
        assert_eq!(nic.capabilities().queue_pairs, count);
        assert!(nic.take_queues(0).is_none() && nic.take_queues(count).is_none());
        check_traffic(&fake, &mut pairs);
        let dropping = fake.device().get(regs::SRRCTL.0) & 1 << 28 != 0;
        assert_eq!(dropping, count > 1, "no queue holds up another one");
        // One frame is out in each.
        for (token, (tx, _)) in (10..).zip(&mut pairs) {
            assert_eq!(post(tx, 1, Offload::NONE, token), Ok(()));
        }
        make_quiet(&mut nic);
        let mut lent = lend(&mut pairs);
        lent.reverse();
        let mut tokens = Vec::new();
        let restarted = nic.restart(&mut lent, &mut |at, token| tokens.push((at, token.0)));
        assert_eq!(restarted, Ok(()));
        tokens.sort_unstable();
        let expected = (0..count).map(|at| (at, 10 + u32::from(count - 1 - at)));
        assert!(expected.eq(tokens));
        assert!(matches!(nic.poll(Instant::ZERO), Ok(Phase::Running(_))));
        check_traffic(&fake, &mut pairs);
        make_quiet(&mut nic);
        assert_eq!(nic.release(&mut lend(&mut pairs), &mut |_, _| {}), Ok(()));
        drop((nic, pairs));
        assert_eq!(fake.mapped(), 0);
    }
}

#[test]
fn pairs_that_were_not_taken_are_reset_with_the_others() {
    let config = Config {
        queue_pairs: 3,
        ..Config::default()
    };
    let mut nic = Ixgbe::open(Fake::new(), &config).expect("opens");
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
    let (_fake, mut nic, mut pairs) = open(2);
    make_quiet(&mut nic);
    let [first, second] = &mut pairs[..] else {
        panic!("two pairs")
    };
    core::mem::swap(&mut first.0, &mut second.0);
    let crossed = nic.restart(&mut lend(&mut pairs), &mut |_, _| {});
    assert!(matches!(crossed, Err(NicError::Config { .. })));
}

#[test]
fn one_queue_that_hangs_is_noticed_beside_others_that_work() {
    let (fake, mut nic, mut pairs) = open(2);
    let at = |millis| Instant::from_nanos(millis * 1_000_000);
    assert_eq!(post(&mut pairs[1].0, 1, Offload::NONE, 0), Ok(()));
    pairs[1].0.doorbell();
    for round in 0..3 {
        assert_eq!(post(&mut pairs[0].0, 1, Offload::NONE, round), Ok(()));
        pairs[0].0.doorbell();
        let phase = nic.poll(at(300 * u64::from(round)));
        assert_eq!(phase == Ok(Phase::Hung), round == 2, "{phase:?}");
        fake.complete(0, 9);
    }
}

#[test]
fn a_queue_that_comes_on_late_after_a_restart_loses_nothing() {
    let (fake, mut nic, mut pairs) = open(2);
    make_quiet(&mut nic);
    fake.break_with(Fault::NoTxEnable);
    fake.break_with(Fault::NoRxEnable);
    assert_eq!(nic.restart(&mut lend(&mut pairs), &mut |_, _| {}), Ok(()));
    assert!(matches!(nic.poll(Instant::ZERO), Ok(Phase::Running(_))));
    let tx = &mut pairs[1].0;
    assert_eq!(post(tx, 3, Offload::NONE, 5), Ok(()));
    tx.doorbell();
    assert_eq!(fake.tail(1), 0, "the tail of a queue that is off");
    assert_eq!(fake.device().get(regs::RDT.of(1).0), 0);
    assert_eq!(pairs[1].1.receive(1, &mut |_| {}), Ok(0));
    let late = Instant::from_nanos(20_000_000);
    assert_eq!(nic.poll(late), Ok(Phase::Hung), "for too long");
    fake.repair();
    for pair in 0..2 {
        for control in [regs::TXDCTL.of(pair).0, regs::RXDCTL.of(pair).0] {
            let on = fake.device().get(control) | 1 << 25;
            fake.device().set(control, on);
        }
    }
    assert!(matches!(nic.poll(late), Ok(Phase::Running(_))));
    assert_eq!(reclaim(&mut pairs[1].0), [], "but it rings the bell");
    assert_eq!(fake.tail(1), 3);
    for (pair, (_, rx)) in (0..).zip(&mut pairs) {
        assert_eq!(rx.receive(1, &mut |_| {}), Ok(0));
        assert_eq!(fake.device().get(regs::RDT.of(pair).0), 7);
    }
    fake.complete(1, 9);
    assert_eq!(reclaim(&mut pairs[1].0), [5]);
    check_traffic(&fake, &mut pairs);
}
