//! What a driver must not do, and that it is said.

use super::rig::*;
use crate::Device;

fn expect(features: u64, part: &str, act: impl Fn(&mut Rig)) {
    let mut rig = Rig::warm(plain(), LEAST | features, 8);
    act(&mut rig);
    rig.steps(5);
    rig.expect_violation(part);
}

#[test]
fn split_rings_are_checked() {
    let piece = (PAYLOAD, 72, false);
    expect(0, "a loop", |rig| {
        rig.push(1, &[piece, piece], false);
        let at = rig.rings[1].table;
        // Descriptor 1 goes back to 0.
        rig.memory.put_half(at + 28, 1);
        rig.memory.put_half(at + 30, 0);
    });
    expect(0, "ahead of the used index", |rig| {
        let at = rig.rings[1].driver + 2;
        rig.memory.put_half(at, 9);
        rig.doorbell(1);
    });
    expect(0, "descriptor 8 in a queue of 8", |rig| {
        rig.push(1, &[piece], false);
        let at = rig.rings[1].driver + 4;
        rig.memory.put_half(at, 8);
    });
    expect(0, "still in the chain", |rig| {
        rig.device.hold_completions(true);
        rig.push(1, &[piece], false);
        rig.steps(3);
        rig.push(1, &[piece], false);
        let at = rig.rings[1].driver + 6;
        rig.memory.put_half(at, 0);
    });
    expect(IN_ORDER, "with IN_ORDER", |rig| {
        rig.push(1, &[piece], false);
        let at = rig.rings[1].driver + 4;
        rig.memory.put_half(at, 3);
    });
    expect(0, "available ring flags 0x2", |rig| {
        let at = rig.rings[1].driver;
        rig.memory.put_half(at, 2);
        rig.push(1, &[piece], false);
    });
    expect(EVENTS, "with EVENT_IDX", |rig| {
        let at = rig.rings[1].driver;
        rig.memory.put_half(at, 1);
        rig.push(1, &[piece], false);
    });
}

#[test]
fn packed_rings_are_checked() {
    let piece = (PAYLOAD, 72, false);
    expect(PACKED, "inside a chain is not available", |rig| {
        rig.push(1, &[piece, piece], false);
        let at = rig.rings[1].table + 30;
        rig.memory.put_half(at, 0);
    });
    expect(PACKED, "buffer id 0 is still in use", |rig| {
        rig.device.hold_completions(true);
        rig.push(1, &[piece], false);
        rig.push(1, &[piece], false);
        let at = rig.rings[1].table + 28;
        rig.memory.put_half(at, 0);
    });
    expect(PACKED | INDIRECT, "inside a chain", |rig| {
        rig.push(1, &[piece, piece], false);
        let at = rig.rings[1].table + 30;
        rig.memory.put_half(at, 1 << 7 | 4);
    });
    expect(PACKED | INDIRECT, "reserved flags 0x1", |rig| {
        rig.push(1, &[piece, piece], true);
        let table = u64::from_le_bytes(rig.memory.bytes[0x4000..0x4008].try_into().unwrap());
        let at = (table - MEMORY) as usize + 14;
        rig.memory.put_half(at, 1);
    });
    expect(PACKED, "event suppression flags 0x2", |rig| {
        let at = rig.rings[1].driver + 2;
        rig.memory.put_half(at, 2);
        rig.push(1, &[piece], false);
    });
}

#[test]
fn buffers_are_checked_in_both_formats() {
    for ring in [0, PACKED] {
        expect(ring, "length 0", |rig| {
            rig.push(1, &[(PAYLOAD, 0, false)], false);
        });
        expect(ring, "less than its header", |rig| {
            rig.push(1, &[(PAYLOAD, 11, false)], false);
        });
        expect(ring, "a frame of 13 bytes", |rig| {
            rig.push(1, &[(PAYLOAD, 25, false)], false);
        });
        expect(ring | 1 << 3, "with an MTU of 1500", |rig| {
            rig.push(1, &[(PAYLOAD, 12 + 1515, false)], false);
        });
        expect(ring, "behind a device-writable one", |rig| {
            rig.push(1, &[(PAYLOAD, 72, true), (PAYLOAD, 72, false)], false);
        });
        expect(
            ring,
            "device-writable descriptor in a transmit buffer",
            |rig| {
                rig.push(1, &[(PAYLOAD, 72, false), (PAYLOAD, 72, true)], false);
            },
        );
        expect(
            ring,
            "device-readable descriptor in a receive buffer",
            |rig| {
                rig.deliver(&[1; 60]);
                rig.push(0, &[(PAYLOAD, 72, false), (PAYLOAD, 1600, true)], false);
            },
        );
        expect(ring | 1 << 3, "1526 are due", |rig| {
            rig.deliver(&[1; 60]);
            rig.push(0, &[(BUFFERS, 1525, true)], false);
        });
        expect(ring | MERGE, "12 are due", |rig| {
            rig.deliver(&[1; 60]);
            rig.push(0, &[(BUFFERS, 11, true)], false);
        });
        expect(ring, "without INDIRECT_DESC", |rig| {
            rig.push(1, &[(PAYLOAD, 72, false)], true);
        });
        expect(ring | INDIRECT, "indirect table of 24 bytes", |rig| {
            rig.rings[1].push_flagged(&mut rig.memory, &[(PAYLOAD, 24, false)], 4);
            rig.doorbell(1);
        });
        expect(ring | INDIRECT, "a chain of 9 descriptors", |rig| {
            rig.push(1, &[(PAYLOAD, 72, false); 9], true);
        });
        expect(ring, "transmit buffer cannot be read", |rig| {
            rig.push(1, &[(1 << 30, 72, false)], false);
        });
        expect(ring, "have no meaning", |rig| {
            rig.rings[1].push_flagged(&mut rig.memory, &[(PAYLOAD, 72, false)], 1 << 5);
            rig.doorbell(1);
        });
    }
}

#[test]
fn a_broken_ring_stops_the_queue_and_asks_for_a_reset() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.push(1, &[(PAYLOAD, 0, false)], false);
    rig.steps(5);
    rig.expect_violation("length 0");
    assert_eq!(rig.status() & 64, 64);
    rig.push(1, &[(PAYLOAD, 72, false)], false);
    rig.steps(5);
    assert!(rig.sent().is_empty());
    rig.set_status(0);
    assert_eq!(rig.status(), 0);
}

#[test]
fn queues_are_set_up_properly() {
    let cases: [(u64, u32, u32, u32, &str); 6] = [
        (0, 0x18, 2, 12, "size 12"),
        (0, 0x18, 2, 512, "size 512"),
        (0, 0x18, 2, 0, "size 0"),
        (0, 0x20, 4, 8, "not aligned to 16"),
        (0, 0x30, 4, 2, "not aligned to 4"),
        (PACKED, 0x28, 4, 2, "not aligned to 4"),
    ];
    for (features, offset, width, value, part) in cases {
        let mut rig = Rig::cold(plain());
        assert!(rig.negotiate(LEAST | features));
        rig.write(offset, width, value);
        rig.write(0x1c, 2, 1);
        rig.expect_violation(part);
    }
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.write(0x16, 2, 1);
    rig.write(0x18, 2, 4);
    rig.expect_violation("while it is enabled");
    rig.write(0x1c, 2, 0);
    rig.expect_violation("while it is enabled");
    rig.write(0x16, 2, 2);
    rig.write(0x1c, 2, 1);
    rig.expect_violation("enabled after DRIVER_OK");
    rig.write(0x1a, 2, 77);
    rig.expect_violation("interrupt vector 77");
    rig.write(0x3a, 2, 1);
    rig.expect_violation("queue_reset");
}

#[test]
fn rings_are_where_the_device_can_write() {
    for (part, what) in [(0x20, "descriptor"), (0x28, "driver"), (0x30, "device")] {
        for features in [0, PACKED] {
            let mut rig = Rig::cold(plain());
            assert!(rig.negotiate(LEAST | features));
            rig.enable_all(8);
            // Once more, with one part elsewhere.
            assert!(rig.negotiate(LEAST | features));
            rig.enable(0);
            rig.write(0x16, 2, 1);
            rig.write(0x18, 2, 8);
            for at in [0x20, 0x28, 0x30] {
                let place = if at == part {
                    0x1_0000_0000
                } else {
                    MEMORY + 0x4000
                };
                rig.write(at, 4, place as u32);
                rig.write(at + 4, 4, (place >> 32) as u32);
            }
            rig.write(0x1c, 2, 1);
            rig.set_status(15);
            rig.steps(3);
            let violations = rig.device.take_violations();
            assert!(
                violations.iter().any(|text| text.contains("cannot be")),
                "{what}: {violations:?}"
            );
        }
    }
}

#[test]
fn doorbells_are_checked() {
    let mut rig = Rig::cold(plain());
    assert!(rig.negotiate(LEAST));
    rig.enable_all(8);
    rig.doorbell(1);
    rig.expect_violation("before DRIVER_OK");
    rig.set_status(15);
    rig.write(0x3000, 2, 1);
    rig.expect_violation("doorbell at 0x3000 for queue 1");
    rig.write(0x3000 + 4 * 3, 2, 3);
    rig.expect_violation("queue 3: doorbell while it is disabled");
}

#[test]
fn what_dpdk_does_not_do_is_a_switch() {
    for beyond_dpdk in [false, true] {
        let config = super::super::ModelConfig {
            beyond_dpdk,
            ..plain()
        };
        let mut rig = Rig::warm(config, LEAST, 8);
        // num_buffers, at the end of the header.
        rig.memory.put(PAYLOAD, &[0; 72]);
        rig.memory.put_half(PAYLOAD + 10, 1);
        rig.push(1, &[(PAYLOAD, 72, false)], false);
        rig.doorbell(1);
        rig.steps(5);
        let now = pagewire_hal::Instant::from_nanos(rig.now);
        let mut byte = |offset: u32| rig.device.read_narrow(4, 0x2000 + offset, 1, now);
        if beyond_dpdk {
            assert_eq!(byte(10), None);
            rig.expect_violation("num_buffers 1 in transmission");
        } else {
            // The MTU is 1500.
            assert_eq!([byte(10), byte(11)], [Some(0xdc), Some(0x05)]);
            assert_eq!([byte(6), byte(7), byte(12)], [Some(1), Some(0), None]);
            rig.expect_clean();
        }
    }
}
