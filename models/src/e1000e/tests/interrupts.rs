//! MSI-X vectors, causes and masks.

use super::super::Latitude;
use super::rig::*;
use crate::Device;

const TXQ0: u32 = 1 << 22;
const RXQ0: u32 = 1 << 20;
const OTHER: u32 = 1 << 24;

/// RXQ0 on vector 0, TXQ0 on vector 1, other on vector 2; these causes enabled.
fn route(rig: &mut Rig, mask: u32) {
    rig.write(0x00e4, 8 | 9 << 8 | 10 << 16 | 1 << 31);
    rig.write(0x00d8, u32::MAX);
    rig.read(0x00c0);
    rig.write(0x00c0, u32::MAX);
    rig.write(0x00d0, mask);
    rig.step();
    rig.take_interrupts();
}

fn send(rig: &mut Rig) {
    let address = rig.put(PAYLOAD, &[1; 64]);
    let index = rig.push(data(address, 64, LAST, 0));
    rig.memory.bytes[TX_RING + index as usize * 16 + 12] = 0;
    rig.doorbell();
    rig.until_done(index);
    rig.step();
}

#[test]
fn a_write_back_fires_the_vector_of_its_queue() {
    let mut rig = Rig::plain();
    route(&mut rig, TXQ0);
    send(&mut rig);
    assert_eq!(rig.take_interrupts(), [1]);
    // The cause is still set: no second message until it is cleared.
    send(&mut rig);
    assert!(rig.take_interrupts().is_empty());
    rig.write(0x00c0, TXQ0);
    send(&mut rig);
    assert_eq!(rig.take_interrupts(), [1]);
    rig.expect_clean();
}

#[test]
fn a_masked_cause_fires_when_it_is_enabled() {
    let mut rig = Rig::plain();
    route(&mut rig, 0);
    send(&mut rig);
    assert!(rig.take_interrupts().is_empty());
    rig.write(0x00d0, TXQ0);
    rig.step();
    assert_eq!(rig.take_interrupts(), [1]);
    assert_eq!(rig.read(0x00d0), TXQ0);
    rig.write(0x00d8, TXQ0);
    assert_eq!(rig.read(0x00d0), 0);
}

#[test]
fn auto_clear_takes_the_cause_and_the_mask() {
    let mut rig = Rig::plain();
    rig.write(0x00dc, TXQ0);
    route(&mut rig, TXQ0);
    send(&mut rig);
    assert_eq!(rig.take_interrupts(), [1]);
    assert_eq!(rig.read(0x00d0), 0, "IMS");
    assert_eq!(rig.read(0x00c8) & TXQ0, 0, "ICR, seen through ICS");
    send(&mut rig);
    assert!(rig.take_interrupts().is_empty());
    rig.write(0x00d0, TXQ0);
    rig.step();
    assert_eq!(rig.take_interrupts(), [1]);
}

#[test]
fn receiving_and_the_link_have_their_vectors() {
    let mut rig = Rig::plain();
    rig.give(4);
    route(&mut rig, RXQ0 | OTHER);
    rig.deliver(&[0xff; 64]);
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [0]);
    rig.lanes.lock().unwrap().cut = true;
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [2]);
    let causes = rig.read(0x00c0);
    assert_eq!(causes & (4 | OTHER | 1 << 31), 4 | OTHER | 1 << 31);
}

#[test]
fn reading_icr_clears_it_if_nothing_is_enabled_or_an_interrupt_is_asserted() {
    let mut rig = Rig::plain();
    route(&mut rig, 0);
    rig.write(0x00c8, TXQ0);
    assert_eq!(rig.read(0x00c0), TXQ0);
    assert_eq!(rig.read(0x00c0), 0, "nothing was enabled");
    // Enabled, not asserted: it stays.
    rig.write(0x00d0, RXQ0);
    rig.write(0x00c8, TXQ0);
    assert_eq!(rig.read(0x00c0), TXQ0);
    assert_eq!(rig.read(0x00c0), TXQ0);
    rig.write(0x00c8, RXQ0);
    assert_eq!(rig.read(0x00c0), TXQ0 | RXQ0 | 1 << 31);
    assert_eq!(rig.read(0x00c0), 0, "it was asserted");
}

#[test]
fn iame_masks_what_iam_says() {
    let mut rig = Rig::plain();
    route(&mut rig, TXQ0 | RXQ0);
    rig.write(0x0018, 1 << 27);
    rig.write(0x00e0, TXQ0);
    rig.write(0x00c8, TXQ0);
    rig.read(0x00c0);
    assert_eq!(rig.read(0x00d0), RXQ0);
}

#[test]
fn with_latitude_some_devices_keep_icr_over_a_read_and_none_over_a_write() {
    let (mut kept, mut cleared) = (0, 0);
    for seed in 0..20 {
        let mut latitude = Latitude::none();
        latitude.icr_survives_read = true;
        let mut rig = Rig::warm(seed, latitude);
        route(&mut rig, TXQ0);
        rig.write(0x00c8, TXQ0);
        rig.read(0x00c0);
        match rig.read(0x00c0) & TXQ0 {
            0 => cleared += 1,
            _ => kept += 1,
        }
        rig.write(0x00c0, TXQ0);
        assert_eq!(rig.read(0x00c0), 0, "seed {seed}");
    }
    assert!(
        kept > 0 && cleared > 0,
        "seeds 0 to 19: {kept} and {cleared}"
    );
}

#[test]
fn throttling_keeps_vectors_apart() {
    let mut rig = Rig::plain();
    rig.write(0x00dc, TXQ0);
    // 100 µs for vector 1.
    rig.write(0x00ec, 391);
    route(&mut rig, TXQ0);
    send(&mut rig);
    assert_eq!(rig.take_interrupts(), [1], "the first comes at once");
    rig.write(0x00d0, TXQ0);
    send(&mut rig);
    rig.steps(50);
    assert!(rig.take_interrupts().is_empty(), "50 µs later");
    rig.steps(60);
    assert_eq!(rig.take_interrupts(), [1]);
}

#[test]
fn masks_of_the_system_are_kept_too() {
    let mut rig = Rig::plain();
    let now = pagewire_hal::Instant::ZERO;
    rig.device.write(3, 0x1c, 1, now);
    route(&mut rig, TXQ0);
    send(&mut rig);
    assert!(rig.take_interrupts().is_empty());
    assert_eq!(rig.device.read(3, 0x2000, now), 2, "pending");
    rig.device.write(3, 0x1c, 0, now);
    rig.step();
    assert_eq!(rig.take_interrupts(), [1]);
    // Without MSI-X nothing is sent.
    rig.device.config_write(0xa0, 0);
    rig.write(0x00c0, TXQ0);
    send(&mut rig);
    assert!(rig.take_interrupts().is_empty());
}

#[test]
fn with_latitude_vectors_come_early_and_for_nothing_and_never_fail() {
    let (mut early, mut spurious) = (0, 0);
    for seed in 0..60 {
        let mut rig = Rig::wild(seed);
        rig.write(0x00dc, TXQ0 | RXQ0);
        route(&mut rig, TXQ0 | RXQ0);
        let address = rig.put(PAYLOAD, &[1; 64]);
        for n in 0..24 {
            let index = rig.push(data(address, 64, LAST, 0));
            rig.doorbell();
            let mut fired = false;
            // A message may be 500 steps late.
            for _ in 0..600 {
                rig.step();
                let done = rig.is_done(index);
                let vectors = rig.take_interrupts();
                early += u32::from(vectors.contains(&1) && !done);
                spurious += u32::from(vectors.iter().any(|vector| *vector != 1));
                rig.write(0x00d0, TXQ0 | RXQ0);
                fired |= done && vectors.contains(&1);
                if fired {
                    break;
                }
            }
            assert!(fired, "seed {seed}, frame {n}: DD without a vector");
        }
        rig.expect_clean();
    }
    assert!(early > 0, "no early vector in seeds 0 to 59");
    assert!(spurious > 0, "no spurious vector in seeds 0 to 59");
}

#[test]
fn the_pin_follows_the_causes_while_msix_is_off() {
    const MSIX: u16 = 0xa0;
    let mut rig = Rig::plain();
    let control = rig.device.config_read(MSIX);
    rig.device.config_write(MSIX, control & !(1 << 31));
    rig.write(0x00d8, u32::MAX);
    rig.read(0x00c0);
    assert!(!rig.device.interrupt_pin());
    // ICS: a cause that is not enabled asserts nothing.
    rig.write(0x00c8, TXQ0);
    assert!(!rig.device.interrupt_pin());
    rig.write(0x00d0, TXQ0);
    assert!(rig.device.interrupt_pin());
    // Nothing else is sent.
    rig.step();
    assert!(rig.take_interrupts().is_empty());
    // Interrupt Disable, in the command register.
    let command = rig.device.config_read(4);
    rig.device.config_write(4, command | 1 << 10);
    assert!(!rig.device.interrupt_pin());
    rig.device.config_write(4, command);
    assert!(rig.device.interrupt_pin());
    // Reading ICR takes it back.
    assert_ne!(rig.read(0x00c0) & TXQ0, 0);
    assert!(!rig.device.interrupt_pin());
    // With MSI-X there is no pin.
    rig.write(0x00c8, TXQ0);
    rig.device.config_write(MSIX, control | 1 << 31);
    assert!(!rig.device.interrupt_pin());
}
