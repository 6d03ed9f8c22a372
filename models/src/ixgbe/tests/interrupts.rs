//! Interrupts.

use super::super::{Latitude, ModelConfig, Rules};
use super::rig::*;

/// Vector 2 for receive queue 0, vector 5 for transmit queue 0, vector 20 for others.
fn routed() -> Rig {
    let mut rig = Rig::plain();
    rig.write(0x0900, 0x0000_8582);
    rig.write(0x0a00, 0x9400);
    rig.read(0x0800);
    rig
}

fn frame() -> Vec<u8> {
    let mut frame = pattern(64, 1);
    frame[..6].copy_from_slice(&MAC);
    frame
}

#[test]
fn each_direction_has_its_vector() {
    let mut rig = routed();
    rig.write(0x0810, 0xffff);
    rig.write(0x0aa0, 1 << 2 | 1 << 5);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [5]);
    rig.give(0, 2);
    rig.deliver(&frame());
    rig.steps(3);
    assert_eq!(rig.take_interrupts(), [2]);
    assert_eq!(rig.read(0x0800), 0, "EIAC cleared the causes");
    assert_eq!(rig.read(0x0880), 1 << 2 | 1 << 5, "EIMS is EIMS_EX, below");
    rig.expect_clean();
}

#[test]
fn without_eiac_the_cause_stays_until_it_is_cleared() {
    let mut rig = routed();
    rig.write(0x0880, 1 << 5);
    rig.send(&frame());
    rig.steps(2);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [5], "one message");
    assert_eq!(rig.read(0x0808), 1 << 5, "EICS peeks");
    rig.write(0x0800, 1 << 5);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [5]);
}

#[test]
fn a_masked_vector_waits_and_eiam_masks() {
    let mut rig = routed();
    rig.write(0x0810, 0xffff);
    rig.write(0x0ad0, 1 << 5);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [], "not enabled");
    rig.write(0x0aa0, 1 << 5);
    rig.step();
    assert_eq!(rig.take_interrupts(), [5]);
    assert_eq!(rig.read(0x0aa0), 0, "EIAM masked it");
    rig.send(&frame());
    rig.steps(3);
    assert_eq!(rig.take_interrupts(), []);
    rig.write(0x0aa0, 1 << 5);
    rig.step();
    assert_eq!(rig.take_interrupts(), [5]);
    rig.write(0x0ab0, 1 << 5);
    rig.write(0x0a90, 1 << 5);
    rig.step();
    assert_eq!(rig.take_interrupts(), [], "EIMC masks");
    rig.expect_clean();
}

#[test]
fn moderation_keeps_a_vector_apart() {
    let mut rig = routed();
    rig.write(0x0810, 0xffff);
    rig.write(0x0aa0, 1 << 5);
    // 50 intervals of 2.048 µs; the clock of the test has steps of 1 µs.
    rig.write(0x0820 + 4 * 5, 50 << 3);
    let start = rig.now;
    let mut times = Vec::new();
    while rig.now < start + 1_000_000 {
        rig.send(&frame());
        rig.step();
        for _ in rig.take_interrupts() {
            times.push(rig.now);
        }
    }
    assert!(times.len() >= 9, "{times:?}");
    assert!(
        times.windows(2).all(|two| two[1] - two[0] >= 102_000),
        "{times:?}"
    );
    rig.expect_clean();
}

#[test]
fn the_table_masks_too_and_remembers() {
    let mut rig = routed();
    rig.write(0x0810, 0xffff);
    rig.write(0x0aa0, 1 << 5);
    let now = pagewire_hal::Instant::from_nanos(rig.now);
    crate::Device::write(&mut rig.device, 4, 5 * 16 + 12, 1, now);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), []);
    assert_eq!(crate::Device::read(&mut rig.device, 4, 0x2000, now), 1 << 5);
    crate::Device::write(&mut rig.device, 4, 5 * 16 + 12, 0, now);
    rig.step();
    assert_eq!(rig.take_interrupts(), [5]);
}

/// GPIE.Multiple_MSIX is 0: all causes are in EICR, and vector 0 tells of any of them.
#[test]
fn without_multiple_msix_there_is_one_vector() {
    let mut rig = Rig::with(ModelConfig {
        latitude: Latitude::none(),
        rules: Rules::dpdk(),
        mac: MAC,
        ..ModelConfig::default()
    })
    .warmed_up();
    rig.write(0x0898, 0);
    rig.write(0x0900, 0x0000_8582);
    rig.read(0x0800);
    rig.write(0x0880, 1 << 5 | 1 << 20);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [0]);
    rig.write(0x0808, 1 << 20);
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [0], "a cause without a queue");
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [], "once");
    assert_eq!(rig.read(0x0800), 1 << 5 | 1 << 20);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(
        rig.take_interrupts(),
        [0],
        "the reading has cleared the causes"
    );
    rig.write(0x0888, 1 << 5);
    rig.send(&frame());
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [], "masked");
    rig.expect_clean();
}

#[test]
fn vectors_beyond_the_sixteenth_work() {
    let mut rig = routed();
    rig.write(0x0900, 0x0000_a882);
    rig.write(0x0aa4, 1 << 8);
    for _ in 0..2 {
        rig.send(&frame());
        rig.steps(2);
        assert_eq!(rig.take_interrupts(), [40]);
    }
    rig.write(0x0a94, 1 << 8);
    rig.step();
    assert_eq!(rig.take_interrupts(), [40], "EICS_EX");
    rig.expect_clean();
}
