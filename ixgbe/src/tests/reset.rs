//! Stopping with frames in flight, restart, release, hang detection, what happens on drop.

use pagewire_hal::fake::lifecycle::{at, make_quiet, restart};
use pagewire_hal::{Nic, NicError, Offload, Phase, RxQueue, TxQueue};

use super::{open, post};
use crate::fake::{Device, Fault, Play};
use crate::regs;

pagewire_hal::lifecycle_tests!(Device);

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
fn before_a_device_whose_status_sticks_is_given_up_it_is_reset_twice() {
    for (fault, resets) in [(Fault::StuckMaster, 4), (Fault::StuckPending, 2)] {
        let (fake, mut nic, _tx, _rx) = open();
        fake.break_with(fault);
        nic.begin_reset(at(0));
        let mut polls = (1..100).map(|n| nic.poll(at(20 * n)));
        let last = polls.find(|phase| *phase != Ok(Phase::Stopping));
        assert_eq!(last, Some(Err(NicError::NotQuiet)), "{fault:?}");
        assert_eq!(fake.device().resets, resets, "{fault:?}");
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
fn a_tail_that_was_written_after_the_reset_is_forgotten_before_the_queues_are_on() {
    let (fake, mut nic, mut tx, mut rx) = open();
    for _ in 0..2 {
        assert!(fake.deliver(0, &[7; 60], 60, 3, 0));
    }
    make_quiet(&mut nic);
    // The queues do not know of the reset: they may be on other threads.
    assert_eq!(post(&mut tx, 3, Offload::NONE, 5), Ok(()));
    tx.doorbell();
    assert_eq!(rx.receive(9, &mut |_| {}), Ok(2));
    let tails = [regs::TDT.0, regs::RDT.0];
    for tail in tails {
        assert_ne!(fake.device().get(tail), 0, "{tail:#x}: it was moved");
    }
    fake.device().log.clear();
    let (result, tokens) = restart(&mut nic, &mut tx, &mut rx);
    assert_eq!((result, tokens), (Ok(()), [(0, 5)].into()));
    assert_eq!(fake.tail(0), 0, "no descriptor is the device's");
    let device = fake.device();
    for (tail, control) in tails.into_iter().zip([regs::TXDCTL.0, regs::RXDCTL.0]) {
        let on = |&(at, value): &(u32, u32)| at == control && value & 1 << 25 != 0;
        let on = device.log.iter().position(on).expect("switched on");
        let mut before = device.log.iter().take(on).rev();
        let last = before.find(|(at, _)| *at == tail);
        assert_eq!(last, Some(&(tail, 0)), "{tail:#x}");
    }
}
