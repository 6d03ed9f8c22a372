//! What is counted, what is advised, and a device that stalls.

use super::super::Latitude;
use super::offload::{CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, TCP, frame, payload, seed};
use super::rig::*;

#[test]
fn requests_are_counted_as_the_driver_made_them() {
    let mut rig = Rig::warm(plain(), LEAST | CSUM | HOST_TSO4, 16);
    let (mut large, transport) = frame(false, TCP, &payload(10_000));
    seed(&mut large, transport);
    rig.memory.put(PAYLOAD, &header(1, 1, [66, 1000, 34, 16]));
    rig.memory.put(PAYLOAD + 12, &large);
    let rest = 12 + large.len() - 300;
    let pieces = [
        (PAYLOAD, 78, false),
        (PAYLOAD + 78, 222, false),
        (PAYLOAD + 300, rest, false),
    ];
    rig.push(1, &pieces, false);
    rig.wait(1);
    rig.send([0; 12], &[1; 60]);
    rig.wait(1);
    let counters = rig.device.counters();
    assert_eq!((counters.buffers_sent, counters.frames_sent), (2, 11));
    assert_eq!((counters.segmented, counters.segments_made), (1, 10));
    assert_eq!(counters.segmented_payload, 10_000);
    assert_eq!(counters.checksums_inserted, 1);
    assert_eq!((counters.fragments, counters.most_fragments), (4, 3));
    assert_eq!(counters.most_bytes as usize, large.len());
    assert_eq!(counters.bytes_requested as usize, large.len() + 60);
    assert_eq!(counters.bytes_sent, 10_000 + 10 * 66 + 60);
    assert!((counters.mean_fragments() - 2.0).abs() < 1e-9);
    let mean = (large.len() + 60) as f64 / 2.0;
    assert!((counters.mean_bytes() - mean).abs() < 1e-9);
    assert_eq!((counters.doorbells, counters.doorbells_transmit), (2, 2));
    assert!(super::super::Counters::default().mean_bytes().abs() < 1e-9);
    rig.push(0, &[(BUFFERS, 2000, true)], false);
    let counters = rig.device.counters();
    assert_eq!((counters.doorbells, counters.doorbells_transmit), (3, 2));
    rig.expect_clean();
}

#[test]
fn small_receive_buffers_are_advised_against() {
    // Neither MTU nor merged buffers: then the size is what a driver should, not must.
    for (features, len, advised) in [
        (0, 1525, true),
        (0, 1526, false),
        (GUEST_CSUM | GUEST_TSO4, 65_600, true),
        (GUEST_CSUM | GUEST_TSO4, 65_601, false),
        (MERGE, 600, false),
    ] {
        let mut rig = Rig::warm(plain(), LEAST | features, 8);
        rig.deliver(&[1; 60]);
        rig.push(0, &[(BUFFERS, len, true)], false);
        rig.wait(0);
        rig.expect_clean();
        let advice = rig.device.take_advice();
        assert_eq!(!advice.is_empty(), advised, "{len}: {advice:?}");
    }
}

#[test]
fn a_stalled_device_answers_and_does_nothing() {
    for features in [0, PACKED] {
        let mut rig = Rig::warm(plain(), LEAST | features, 8);
        rig.device.stall(true);
        rig.send([0; 12], &[1; 60]);
        rig.deliver(&[2; 60]);
        rig.push(0, &[(BUFFERS, 2000, true)], false);
        rig.steps(500);
        assert!(rig.sent().is_empty() && rig.pop(1).is_empty() && rig.pop(0).is_empty());
        assert!(rig.take_interrupts().is_empty());
        assert_eq!(rig.status(), 15);
        rig.device.stall(false);
        rig.wait(1);
        rig.wait(0);
        assert_eq!(rig.sent().len(), 1);
        rig.device.stall(true);
        rig.set_status(0);
        rig.until("reset", |rig| rig.status() == 0);
    }
}

#[test]
fn a_device_that_needs_a_reset_says_so_until_it_gets_one() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.write(0x10, 2, 0);
    rig.device.need_reset();
    assert_eq!(rig.status(), 15 | 64);
    rig.until("interrupt", |rig| rig.take_interrupts() == [0]);
    rig.set_status(15);
    assert_eq!(rig.status(), 15 | 64, "no driver takes it back");
    assert!(rig.negotiate(LEAST));
    assert_eq!(rig.status(), 11);
    rig.expect_clean();
}

#[test]
fn qemu_is_in_order_and_prompt_with_what_it_has_looked_at() {
    let config = super::super::ModelConfig {
        latitude: Latitude::qemu(),
        ..super::super::ModelConfig::default()
    };
    for features in [0, PACKED, EVENTS] {
        let mut rig = Rig::warm(config.clone(), LEAST | features, 16);
        rig.memory.put(PAYLOAD, &[0; 72]);
        let piece = [(PAYLOAD, 72, false)];
        let ids: Vec<u16> = (0..8)
            .map(|_| rig.rings[1].push(&mut rig.memory, &piece, false))
            .collect();
        rig.doorbell(1);
        let mut used = rig.wait(1);
        used.extend((0..7).flat_map(|_| rig.pop(1)));
        let used: Vec<u16> = used.into_iter().map(|(id, _)| id).collect();
        assert_eq!(used, ids, "all at once, in order");
        rig.set_status(0);
        assert_eq!(rig.status(), 0, "a reset is done when it is written");
        rig.expect_clean();
    }
}
