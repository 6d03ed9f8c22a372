//! The control queue: filter, address, pairs.

use super::rig::*;

const CTRL_VQ: u64 = 1 << 17;
const CTRL_RX: u64 = 1 << 18;
const MQ: u64 = 1 << 22;
const CTRL_MAC: u64 = 1 << 23;
const ALL: u64 = LEAST | CTRL_VQ | CTRL_RX | MQ | CTRL_MAC;

/// Executes a command; the answer.
fn command(rig: &mut Rig, bytes: &[u8]) -> u8 {
    let queue = rig.rings.len() as u16 - 1;
    rig.memory.put(PAYLOAD, bytes);
    rig.memory.put(PAYLOAD + 4096, &[0xee]);
    let pieces = [
        (PAYLOAD, 2, false),
        (PAYLOAD + 2, bytes.len() - 2, false),
        (PAYLOAD + 4096, 1, true),
    ];
    rig.push(queue, &pieces, false);
    assert_eq!(rig.wait(queue)[0].1, 1);
    rig.memory.bytes[PAYLOAD + 4096]
}

/// Whether a frame to `target` is received.
fn gets(rig: &mut Rig, target: [u8; 6]) -> bool {
    let before = rig.device.counters().frames_received;
    let mut frame = target.to_vec();
    frame.extend_from_slice(&[2; 60]);
    rig.deliver(&frame);
    rig.push(0, &[(BUFFERS, 2000, true)], false);
    rig.steps(3);
    while !rig.pop(0).is_empty() {}
    rig.device.counters().frames_received > before
}

#[test]
fn the_filter_does_as_it_is_told() {
    for features in [ALL, ALL | PACKED] {
        let mut rig = Rig::warm(plain(), features, 32);
        let mac = rig.device.config().mac;
        let (stranger, group) = ([2, 9, 9, 9, 9, 9], [1, 0, 0x5e, 0, 0, 7]);
        assert!(gets(&mut rig, stranger), "promiscuous at first");
        assert_eq!(command(&mut rig, &[0, 0, 0]), 0);
        assert!(gets(&mut rig, mac) && gets(&mut rig, [0xff; 6]));
        assert!(!gets(&mut rig, stranger) && !gets(&mut rig, group));
        assert_eq!(command(&mut rig, &[0, 1, 1]), 0);
        assert!(gets(&mut rig, group) && !gets(&mut rig, stranger));
        assert_eq!(command(&mut rig, &[0, 1, 0]), 0);
        let mut table = vec![1, 0, 1, 0, 0, 0];
        table.extend_from_slice(&stranger);
        table.extend_from_slice(&[1, 0, 0, 0]);
        table.extend_from_slice(&group);
        assert_eq!(command(&mut rig, &table), 0);
        assert!(gets(&mut rig, group) && gets(&mut rig, stranger));
        assert_eq!(command(&mut rig, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), 0);
        assert!(!gets(&mut rig, group) && !gets(&mut rig, stranger));
        assert_eq!(command(&mut rig, &[1, 1, 2, 9, 9, 9, 9, 9]), 0);
        assert!(gets(&mut rig, stranger) && !gets(&mut rig, mac));
        assert_eq!(rig.read(0x2001, 1), 9);
        rig.expect_clean();
        assert_eq!(command(&mut rig, &[1, 0, 5, 0, 0, 0]), 1);
        rig.expect_violation("command 0 of class 1");
        assert_eq!(command(&mut rig, &[9, 0, 0]), 1);
        rig.expect_violation("class 9");
    }
}

#[test]
fn commands_need_their_features() {
    let mut rig = Rig::warm(plain(), LEAST | CTRL_VQ, 8);
    for bytes in [&[0, 0, 1][..], &[1, 1, 2, 0, 0, 0, 0, 1], &[4, 0, 1, 0]] {
        assert_eq!(command(&mut rig, bytes), 1);
        rig.expect_violation("was not negotiated");
    }
}

#[test]
fn pairs_of_queues_share_the_flows() {
    for features in [ALL, ALL | PACKED] {
        let mut rig = Rig::warm(plain(), features, 32);
        assert_eq!(command(&mut rig, &[4, 0, 5, 0]), 1);
        rig.expect_violation("5 pairs");
        assert_eq!(command(&mut rig, &[4, 0, 4, 0]), 0);
        for pair in 0..4 {
            for index in 0..20 {
                let place = BUFFERS + 0x1000 * (20 * pair + index);
                rig.push(2 * pair as u16, &[(place, 2000, true)], false);
            }
        }
        let mut queues = std::collections::BTreeSet::new();
        for port in 0..16u8 {
            let mut frame = vec![2; 12];
            frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0, port, 0, 9, 0, 8, 0, 0]);
            let mut homes = Vec::new();
            for _ in 0..2 {
                rig.deliver(&frame);
                rig.steps(3);
                homes.extend(
                    (0..4)
                        .map(|pair| 2 * pair)
                        .filter(|queue| !rig.pop(*queue).is_empty()),
                );
            }
            assert_eq!(homes.len(), 2);
            assert_eq!(homes[0], homes[1], "a flow stays in its queue");
            queues.insert(homes[0]);
        }
        assert_eq!(queues.len(), 4);
        // All transmit queues send.
        for pair in 0..4u16 {
            rig.memory.put(PAYLOAD, &[0; 72]);
            rig.push(2 * pair + 1, &[(PAYLOAD, 72, false)], false);
            rig.wait(2 * pair + 1);
        }
        rig.expect_clean();
        assert_eq!(command(&mut rig, &[4, 0, 1, 0]), 0);
        rig.push(3, &[(PAYLOAD, 72, false)], false);
        rig.wait(3);
        rig.expect_violation("its pair is off");
    }
}
