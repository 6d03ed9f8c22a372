//! That each freedom is taken when it is switched on, and not otherwise.

use super::super::{Latitude, ModelConfig};
use super::rig::*;

type Switch = fn(&mut Latitude) -> &mut bool;

/// Devices with one freedom, by seed.
fn rigs(switch: Switch, features: u64) -> impl Iterator<Item = Rig> {
    (0..40).map(move |seed| {
        let mut latitude = Latitude::none();
        *switch(&mut latitude) = true;
        let config = ModelConfig {
            seed,
            latitude,
            ..ModelConfig::default()
        };
        Rig::warm(config, LEAST | features, 16)
    })
}

/// Makes `count` frames available with one doorbell; their ids.
fn burst(rig: &mut Rig, count: usize) -> Vec<u16> {
    rig.memory.put(PAYLOAD, &[0; 72]);
    let piece = [(PAYLOAD, 72, false)];
    let ids = (0..count).map(|_| rig.rings[1].push(&mut rig.memory, &piece, false));
    let ids = ids.collect();
    rig.doorbell(1);
    ids
}

#[test]
fn buffers_are_used_in_another_order() {
    for features in [0, PACKED] {
        let mut strange = 0;
        for mut rig in rigs(|latitude| &mut latitude.out_of_order, features) {
            let ids = burst(&mut rig, 8);
            let mut used = Vec::new();
            while used.len() < 8 {
                used.extend(rig.wait(1).into_iter().map(|(id, _)| id));
            }
            strange += usize::from(used != ids);
            rig.expect_clean();
        }
        assert!(strange > 30, "{strange}");
    }
}

#[test]
fn the_used_index_jumps_late() {
    for features in [0, PACKED] {
        let (mut late, mut jumps) = (0, 0);
        for mut rig in rigs(|latitude| &mut latitude.late_used, features) {
            burst(&mut rig, 8);
            rig.step();
            late += usize::from(rig.pop(1).is_empty());
            let mut left = 8usize;
            while left > 0 {
                let mut found = rig.wait(1).len();
                loop {
                    let more = rig.pop(1).len();
                    if more == 0 {
                        break;
                    }
                    found += more;
                }
                jumps += usize::from(found > 1);
                left = left.saturating_sub(found);
            }
            rig.expect_clean();
        }
        assert!(late > 20 && jumps > 30, "{late} {jumps}");
    }
}

#[test]
fn one_entry_stands_for_a_batch() {
    for features in [IN_ORDER, IN_ORDER | PACKED] {
        let mut most = 0;
        for seed in 0..40 {
            let latitude = Latitude {
                in_order_batches: true,
                late_used: true,
                ..Latitude::none()
            };
            let config = ModelConfig {
                seed,
                latitude,
                ..ModelConfig::default()
            };
            let mut rig = Rig::warm(config, LEAST | features, 16);
            let ids = burst(&mut rig, 8);
            let mut used = Vec::new();
            while used.len() < 8 {
                let now: Vec<u16> = rig.wait(1).into_iter().map(|(id, _)| id).collect();
                most = most.max(now.len());
                used.extend(now);
            }
            assert_eq!(used, ids, "seed {seed}");
            rig.expect_clean();
        }
        assert!(most > 2, "{most}");
    }
}

#[test]
fn the_device_looks_late_and_unasked() {
    let mut late = 0;
    for mut rig in rigs(|latitude| &mut latitude.late_look, 0) {
        // It looks once at the start, whoever rings.
        rig.step();
        burst(&mut rig, 1);
        rig.step();
        late += usize::from(rig.sent().is_empty());
        rig.wait(1);
    }
    assert!(late > 20, "{late}");
    for mut rig in rigs(|latitude| &mut latitude.unasked_look, PACKED) {
        rig.steps(3);
        rig.memory.put(PAYLOAD, &[0; 72]);
        rig.rings[1].push(&mut rig.memory, &[(PAYLOAD, 72, false)], false);
        rig.wait(1);
        assert_eq!(rig.device.counters().doorbells, 0, "seed {}", rig.seed);
    }
}

#[test]
fn a_polling_device_wants_no_doorbells() {
    for features in [0, PACKED, EVENTS, PACKED | EVENTS] {
        let mut quiet = 0;
        for mut rig in rigs(|latitude| &mut latitude.polls_awhile, features) {
            burst(&mut rig, 1);
            rig.step();
            let ring = &rig.rings[1];
            let (used, size) = (ring.device, usize::from(ring.size));
            let wanted = match features {
                0 => rig.memory.half(used) == 0,
                EVENTS => rig.memory.half(used + 4 + 8 * size) == 1,
                _ => match rig.memory.half(used + 2) {
                    2 => rig.memory.half(used) == 0x8001,
                    flags => flags == 0,
                },
            };
            quiet += usize::from(!wanted);
            // It comes to rest, and then a doorbell is wanted again.
            rig.steps(100);
            while !rig.pop(1).is_empty() {}
            rig.doorbell(1);
            let before = rig.device.counters().doorbells_unasked;
            assert_eq!(before, 0, "seed {}", rig.seed);
            rig.expect_clean();
        }
        assert!(quiet > 10, "{features:#x}: {quiet}");
    }
}

#[test]
fn interrupts_are_late_or_mean_nothing() {
    let mut late = 0;
    for mut rig in rigs(|latitude| &mut latitude.late_interrupts, 0) {
        burst(&mut rig, 1);
        rig.wait(1);
        late += usize::from(rig.take_interrupts().is_empty());
        rig.until("interrupt", |rig| rig.take_interrupts() == [2]);
    }
    assert!(late > 20, "{late}");
    for mut rig in rigs(|latitude| &mut latitude.spurious_interrupts, 0) {
        rig.until("interrupt", |rig| !rig.take_interrupts().is_empty());
    }
    for mut rig in rigs(|latitude| &mut latitude.spurious_configuration, 0) {
        rig.write(0x10, 2, 0);
        let generation = rig.read(0x15, 1);
        rig.until("interrupt", |rig| rig.take_interrupts() == [0]);
        rig.read(0x2000, 1);
        assert_ne!(rig.read(0x15, 1), generation, "seed {}", rig.seed);
    }
}

#[test]
fn memory_behind_a_frame_is_overwritten() {
    for mut rig in rigs(|latitude| &mut latitude.poisons_memory, PACKED) {
        rig.deliver(&[3; 60]);
        rig.push(0, &[(BUFFERS, 1600, true)], false);
        assert_eq!(rig.wait(0), [(0, 72)]);
        assert_eq!(rig.memory.bytes[BUFFERS + 12..BUFFERS + 72], [3; 60]);
        assert_eq!(rig.memory.bytes[BUFFERS + 72], 0xa5);
        assert_eq!(rig.memory.bytes[..8], [0xa5; 8], "the used descriptor");
    }
}

#[test]
fn a_device_without_freedom_is_prompt() {
    for features in [0, PACKED, EVENTS, IN_ORDER | PACKED] {
        let mut rig = Rig::warm(plain(), LEAST | features, 16);
        let ids = burst(&mut rig, 8);
        rig.step();
        let used: Vec<u16> = (0..8).flat_map(|_| rig.pop(1)).map(|(id, _)| id).collect();
        assert_eq!(used, ids);
        rig.set_status(0);
        assert_eq!(rig.status(), 0);
    }
}
