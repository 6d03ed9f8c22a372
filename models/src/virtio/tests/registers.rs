//! Discovery, registers, status, reset, link.

use pagewire_hal::Instant;

use super::super::{Latitude, ModelConfig, Offers, VirtioNet};
use super::rig::*;
use crate::Device;

const STATUS: u64 = 1 << 16;

fn cold() -> Rig {
    Rig::cold(plain())
}

/// The vendor capabilities: offset, type, BAR, offset in it, length.
fn structures(device: &mut VirtioNet) -> Vec<(u16, u32, u32, u32, u32)> {
    let mut found = Vec::new();
    let mut at = device.config_read(0x34) as u16 & 0xfc;
    while at != 0 {
        let word = device.config_read(at);
        if word & 0xff == 9 {
            let rest = [4, 8, 12].map(|offset| device.config_read(at + offset));
            found.push((at, word >> 24, rest[0] & 0xff, rest[1], rest[2]));
        }
        at = (word >> 8) as u16 & 0xfc;
    }
    found
}

#[test]
fn a_driver_finds_what_it_needs() {
    for latitude in [Latitude::none(), Latitude::all()] {
        let mut rig = Rig::cold(ModelConfig {
            latitude,
            ..plain()
        });
        assert_eq!(rig.device.config_read(0), 0x1041_1af4);
        assert!(rig.device.config_read(8) & 0xff >= 1);
        let found = structures(&mut rig.device);
        for kind in 1..=4 {
            let (.., bar, offset, len) = *found
                .iter()
                .find(|(_, other, bar, ..)| *other == kind && *bar < 6)
                .unwrap();
            assert_eq!(bar, 4);
            assert!(offset + len <= rig.device.bar_len(4).unwrap());
        }
        assert_eq!(found.len(), if latitude.odd_capabilities { 7 } else { 5 });
        // 4 pairs, a control queue, and the configuration.
        assert_eq!(rig.device.vectors(), 10);
        assert_eq!(rig.device.config_read(0xe0) >> 16 & 0x7ff, 9);
    }
}

#[test]
fn bars_tell_their_size() {
    let mut rig = cold();
    rig.device.config_write(0x20, u32::MAX);
    assert_eq!(rig.device.config_read(0x20), !0x3fff | 0xc);
    rig.device.config_write(0x14, u32::MAX);
    assert_eq!(rig.device.config_read(0x14), !0xfff);
}

#[test]
fn registers_have_one_width() {
    let mut rig = cold();
    let now = Instant::from_nanos(0);
    for (offset, width) in [
        (0, 2),
        (0, 1),
        (0x10, 1),
        (0x14, 2),
        (0x16, 1),
        (0x20, 2),
        (0x3e, 2),
        (0x2000, 2),
        (0x2006, 1),
    ] {
        assert_eq!(
            rig.device.read_narrow(4, offset, width, now),
            None,
            "{offset:#x}"
        );
        assert!(offset >= 0x2000 || !rig.device.write_narrow(4, offset, width, 0, now));
    }
    assert!(
        !rig.device.write_narrow(4, 0x2000, 1, 0, now),
        "the device configuration is read-only"
    );
    rig.expect_clean();
    rig.read(0x14, 4);
    rig.expect_violation("32-bit register read at 0x14");
    rig.write(0x3000, 4, 0);
    rig.expect_violation("32-bit register written at 0x3000");
    rig.write(0x12, 2, 5);
    rig.expect_violation("read-only");
}

#[test]
fn configuration_space_reaches_the_bars() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    let window = structures(&mut rig.device)
        .iter()
        .find(|s| s.1 == 5)
        .unwrap()
        .0;
    rig.device.config_write(window + 4, 4);
    rig.device.config_write(window + 8, 0x14);
    rig.device.config_write(window + 12, 1);
    assert_eq!(rig.device.config_read(window + 16), 15);
    rig.device.config_write(window + 16, 0);
    assert_eq!(rig.status(), 0);
    // A window onto nothing.
    rig.device.config_write(window + 8, u32::MAX);
    rig.device.config_read(window + 16);
    rig.device.config_write(window + 16, 1);
    rig.expect_clean();
}

#[test]
fn offers_are_what_was_configured() {
    assert_eq!(cold().offered(), Offers::all().bits());
    let config = ModelConfig {
        offers: Offers::none(),
        ..plain()
    };
    let mut rig = Rig::cold(config);
    assert_eq!(rig.offered(), VERSION_1);
    assert_eq!(rig.read(0x12, 2), 2, "two queues");
    assert!(rig.negotiate(VERSION_1));
    rig.enable_all(8);
    rig.set_status(15);
    rig.send([0; 12], &[3; 60]);
    rig.wait(1);
    rig.expect_clean();
}

#[test]
fn features_are_refused() {
    let mut rig = cold();
    assert!(!rig.negotiate(PLATFORM));
    rig.expect_violation("VERSION_1");
    assert!(!rig.negotiate(LEAST | 1 << 13));
    rig.expect_violation("not offered");
    assert!(!rig.negotiate(LEAST | 1 << 11));
    rig.expect_violation("without 0x1");
    assert!(!rig.negotiate(VERSION_1), "ACCESS_PLATFORM is asked for");
    rig.expect_clean();
    let mut rig = Rig::cold(ModelConfig {
        refuse_features: true,
        ..plain()
    });
    assert!(!rig.negotiate(LEAST));
    rig.expect_clean();
}

#[test]
fn the_status_has_an_order() {
    let cases: [(&[u8], &str); 5] = [
        (&[2], "DRIVER before"),
        (&[1, 9], "FEATURES_OK before"),
        (&[1, 3, 7], "DRIVER_OK without"),
        (&[1, 3, 1], "overwritten"),
        (&[1, 3, 11, 15], "queue 0 is not enabled"),
    ];
    for (writes, part) in cases {
        let mut rig = cold();
        let features = LEAST;
        for value in writes {
            rig.set_status(*value);
            if *value == 3 {
                for select in 0..2 {
                    rig.write(8, 4, select);
                    rig.write(12, 4, (features >> (32 * select)) as u32);
                }
            }
        }
        rig.expect_violation(part);
    }
}

#[test]
fn features_do_not_change_once_they_are_agreed() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.write(12, 4, 0);
    rig.expect_violation("features written after");
    assert_eq!(rig.device.negotiated(), LEAST);
}

#[test]
fn a_reset_takes_its_time_and_forgets() {
    let mut slow = 0;
    for seed in 0..50 {
        let config = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        let mut rig = Rig::warm(config, LEAST, 8);
        rig.set_status(0);
        slow += usize::from(rig.status() != 0);
        rig.until("reset", |rig| rig.status() == 0);
        assert_eq!(rig.device.negotiated(), 0, "seed {seed}");
        rig.write(0x16, 2, 1);
        assert_eq!(rig.read(0x1c, 2), 0, "seed {seed}");
        assert_eq!(rig.read(0x18, 2), 256, "seed {seed}");
        assert_eq!(rig.read(0x1a, 2), 0xffff, "seed {seed}");
        rig.expect_clean();
    }
    assert!(slow > 40);
}

#[test]
fn a_device_that_never_becomes_quiet_says_so() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.device.never_quiet(true);
    rig.set_status(0);
    rig.steps(5000);
    assert_ne!(rig.status(), 0);
    rig.set_status(1);
    rig.expect_violation("before the reset");
    rig.device.never_quiet(false);
    assert_eq!(rig.status(), 0);
}

#[test]
fn a_removed_device_is_all_ones() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.device.remove();
    assert_eq!(rig.status(), 0xff);
    assert_eq!(rig.read(0, 4), u32::MAX);
    assert_eq!(rig.device.config_read(0), u32::MAX);
    rig.doorbell(1);
    assert!(!rig.step());
    rig.expect_clean();
}

#[test]
fn the_link_is_in_the_configuration() {
    let mut rig = Rig::cold(plain());
    assert!(rig.negotiate(LEAST | STATUS));
    rig.enable_all(8);
    rig.write(0x10, 2, 0);
    rig.set_status(15);
    rig.steps(3);
    assert_eq!(rig.read(0x2006, 2), 1);
    let generation = rig.read(0x15, 1);
    rig.take_interrupts();
    rig.lanes.lock().unwrap().cut = true;
    rig.steps(2);
    assert_eq!(rig.take_interrupts(), [0]);
    assert_eq!(rig.read(0x2006, 2), 0);
    assert_ne!(rig.read(0x15, 1), generation);
    assert_eq!(rig.read(0x1000, 1), 2, "ISR");
    assert_eq!(rig.read(0x1000, 1), 0, "cleared by reading");
    rig.expect_clean();
}

#[test]
fn masked_vectors_wait() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    let now = Instant::from_nanos(0);
    rig.device.write(1, 2 * 16 + 12, 1, now);
    rig.send([0; 12], &[1; 60]);
    rig.wait(1);
    assert_eq!(rig.take_interrupts(), []);
    assert_eq!(rig.device.read(1, 0x800, now), 1 << 2);
    rig.device.write(1, 2 * 16 + 12, 0, now);
    rig.step();
    assert_eq!(rig.take_interrupts(), [2]);
}

#[test]
fn a_queue_is_reset_alone() {
    for (seed, features) in [(0, 0), (1, PACKED), (2, 0), (3, PACKED | EVENTS)] {
        let config = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        let mut rig = Rig::warm(config, LEAST | RING_RESET | features, 8);
        rig.device.hold_completions(true);
        rig.send([0; 12], &[1; 60]);
        rig.until("sent", |rig| rig.sent().len() == 1);
        rig.write(0x16, 2, 1);
        rig.write(0x3a, 2, 1);
        rig.until("queue reset", |rig| rig.read(0x3a, 2) == 0);
        assert_eq!(rig.read(0x1c, 2), 0, "seed {seed}");
        rig.device.hold_completions(false);
        rig.steps(300);
        // A new ring of another size in the same place.
        rig.memory.put(0x4000, &[0; 0x3000]);
        rig.renew(1, 4);
        rig.enable(1);
        for _ in 0..10 {
            rig.send([0; 12], &[2; 60]);
            rig.wait(1);
        }
        assert_eq!(rig.sent().len(), 11, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn nothing_moves_without_bus_mastering() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.device.config_write(4, 2);
    rig.send([0; 12], &[1; 60]);
    rig.steps(50);
    assert!(rig.sent().is_empty());
    rig.device.config_write(4, 6);
    rig.wait(1);
}

/// As Linux does when its module is unloaded.
#[test]
fn a_queue_may_be_taken_from_its_vector_after_a_reset_and_given_one_only_later() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.set_status(0);
    rig.until("reset", |rig| rig.status() == 0);
    for queue in 0..2 {
        rig.write(0x16, 2, queue);
        rig.write(0x1a, 2, 0xffff);
    }
    rig.expect_clean();
    rig.write(0x1a, 2, 1);
    rig.expect_violation("set up before FEATURES_OK");
}
