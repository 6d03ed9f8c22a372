//! Stopping with frames in flight, restart, release, hang detection, what happens on drop.

use pagewire_hal::fake::lifecycle::{at, is_running, make_quiet, restart};
use pagewire_hal::{Nic, Offload, TxQueue};

use super::{open, post};
use crate::fake::Device;
use crate::regs;

pagewire_hal::lifecycle_tests!(Device);

#[test]
fn frames_that_the_hang_watch_has_found_sent_are_counted() {
    let (fake, mut nic, mut tx, _rx) = open();
    assert_eq!(post(&mut tx, 4, Offload::NONE, 0), Ok(()));
    tx.doorbell();
    assert!(is_running(nic.poll(at(0))));
    fake.device().set(regs::GPTC.0, 17);
    assert!(is_running(nic.poll(at(1000))));
    assert_eq!(nic.statistics().tx_frames, 17);
}

#[test]
fn statistics_and_interrupts_survive_a_reset() {
    let (fake, mut nic, mut tx, mut rx) = open();
    assert_eq!(nic.enable_interrupts(), Ok(3));
    fake.device().set(regs::GPTC.0, 5);
    make_quiet(&mut nic);
    assert_eq!(fake.device().get(regs::IVAR.0), 0, "the fake forgets");
    assert_eq!(restart(&mut nic, &mut tx, &mut rx).0, Ok(()));
    assert_eq!(fake.device().get(regs::IVAR.0), 0x800A_0908);
    fake.device().set(regs::GPTC.0, 2);
    assert_eq!(nic.statistics().tx_frames, 7);
}

#[test]
fn causes_from_before_a_reset_are_read_away() {
    let (fake, mut nic, _tx, _rx) = open();
    fake.device().set(regs::ICR.0, 1 << 22);
    make_quiet(&mut nic);
    assert_eq!(fake.device().get(regs::ICR.0), 0);
}
