//! Several pairs of queues: which one a flow is received on.

use super::super::{Latitude, ModelConfig};
use super::rig::*;

const FEATURES: u64 = LEAST | RING_RESET | 1 << 17 | 1 << 22;

/// A UDP frame of flow `port`, to us or from us.
fn datagram(port: u8, to_us: bool) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend_from_slice(&[8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    let (near, far) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let (here, there) = ([7, 1], [9, port]);
    let parts = if to_us {
        [far, near, [there[0], there[1], here[0], here[1]]]
    } else {
        [near, far, [here[0], here[1], there[0], there[1]]]
    };
    frame.extend_from_slice(&parts.concat());
    frame.extend_from_slice(&[0, 8, 0, 0]);
    frame
}

fn set_pairs(rig: &mut Rig, pairs: u8) {
    let queue = rig.rings.len() as u16 - 1;
    rig.memory.put(PAYLOAD + 0x7000, &[4, 0, pairs, 0, 0xee]);
    let command = PAYLOAD + 0x7000;
    rig.push(queue, &[(command, 4, false), (command + 4, 1, true)], false);
    rig.wait(queue);
    assert_eq!(rig.memory.bytes[command + 4], 0, "seed {}", rig.seed);
}

/// A device with `pairs` in use, and buffers in all receive queues.
fn start(config: ModelConfig, ring: u64, pairs: u8) -> Rig {
    let mut rig = Rig::warm(config, FEATURES | ring, 64);
    set_pairs(&mut rig, pairs);
    for pair in 0..4 {
        fill(&mut rig, pair);
    }
    rig
}

fn fill(rig: &mut Rig, pair: u16) {
    while rig.rings[usize::from(2 * pair)].fits(1) {
        let place = BUFFERS + 0x8_0000 * usize::from(pair);
        rig.push(2 * pair, &[(place, 2000, true)], false);
    }
}

fn send(rig: &mut Rig, port: u8, pair: u16) {
    let frame = datagram(port, false);
    rig.memory.put(PAYLOAD, &[0; 12]);
    rig.memory.put(PAYLOAD + 12, &frame);
    rig.push(2 * pair + 1, &[(PAYLOAD, 12 + frame.len(), false)], false);
    rig.wait(2 * pair + 1);
}

/// The pair that a frame of a flow is received on.
fn home(rig: &mut Rig, port: u8) -> u16 {
    rig.deliver(&datagram(port, true));
    let mut home = None;
    rig.until("received", |rig| {
        home = (0..4).find(|pair| !rig.pop(2 * pair).is_empty());
        home.is_some()
    });
    let pair = home.unwrap();
    fill(rig, pair);
    pair
}

#[test]
fn a_flow_is_received_where_it_was_last_sent() {
    for seed in 0..40 {
        let ring = if seed % 2 == 0 { 0 } else { PACKED };
        let config = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rig = start(config, ring, 4);
        let mut homes = [None; 16];
        for _ in 0..60 {
            let port = random.u8(..16);
            let pair = random.u16(..4);
            if random.bool() {
                send(&mut rig, port, pair);
                homes[usize::from(port)] = Some(pair);
            }
            let found = home(&mut rig, port);
            if let Some(due) = homes[usize::from(port)] {
                assert_eq!(found, due, "seed {seed}, flow {port}");
            }
        }
        rig.expect_clean();
        // With fewer pairs, what belonged to the others goes to those that are left.
        set_pairs(&mut rig, 2);
        for port in 0..16 {
            let found = home(&mut rig, port);
            assert!(found < 2, "seed {seed}, flow {port}");
            if let Some(due @ (0 | 1)) = homes[usize::from(port)] {
                assert_eq!(found, due, "seed {seed}, flow {port}");
            }
        }
        set_pairs(&mut rig, 1);
        for port in 0..16 {
            assert_eq!(home(&mut rig, port), 0, "seed {seed}, flow {port}");
        }
        rig.expect_clean();
    }
}

#[test]
fn an_unknown_flow_goes_anywhere_or_stays() {
    for random_steering in [false, true] {
        let latitude = Latitude {
            random_steering,
            ..Latitude::none()
        };
        let config = ModelConfig {
            latitude,
            ..ModelConfig::default()
        };
        let mut rig = start(config, 0, 4);
        let homes: std::collections::BTreeSet<u16> = (0..40).map(|_| home(&mut rig, 5)).collect();
        assert_eq!(homes.len(), if random_steering { 4 } else { 1 });
    }
}

#[test]
fn before_the_command_and_after_a_reset_there_is_one_pair() {
    let mut rig = Rig::warm(plain(), FEATURES, 64);
    for pair in 0..4 {
        fill(&mut rig, pair);
    }
    for port in 0..16 {
        assert_eq!(home(&mut rig, port), 0, "flow {port}");
    }
    let mut rig = start(plain(), 0, 4);
    send(&mut rig, 3, 2);
    assert!(rig.negotiate(FEATURES));
    rig.memory.bytes[..0x8_0000].fill(0);
    rig.enable_all(64);
    rig.set_status(15);
    for pair in 0..4 {
        fill(&mut rig, pair);
    }
    assert_eq!(home(&mut rig, 3), 0);
    rig.expect_clean();
}

#[test]
fn what_was_sent_before_the_command_is_no_offence() {
    for seed in 0..60 {
        let latitude = Latitude {
            late_look: true,
            ..Latitude::none()
        };
        let config = ModelConfig {
            seed,
            latitude,
            ..ModelConfig::default()
        };
        let mut rig = start(config, 0, 4);
        rig.memory.put(PAYLOAD, &[0; 72]);
        rig.push(7, &[(PAYLOAD, 72, false)], false);
        set_pairs(&mut rig, 1);
        rig.wait(7);
        rig.expect_clean();
        rig.push(7, &[(PAYLOAD, 72, false)], false);
        rig.wait(7);
        rig.expect_violation("its pair is off");
    }
}

#[test]
fn a_queue_without_buffers_holds_up_no_other() {
    let mut rig = Rig::warm(plain(), FEATURES, 64);
    set_pairs(&mut rig, 2);
    send(&mut rig, 1, 0);
    send(&mut rig, 2, 1);
    for _ in 0..5 {
        rig.deliver(&datagram(1, true));
    }
    rig.deliver(&datagram(2, true));
    rig.push(2, &[(BUFFERS, 2000, true)], false);
    rig.wait(2);
    assert!(rig.pop(0).is_empty());
    fill(&mut rig, 0);
    for _ in 0..5 {
        rig.wait(0);
    }
    rig.expect_clean();
}

/// Resets queue `index` through its register.
fn reset_queue(rig: &mut Rig, index: u16) {
    rig.write(0x16, 2, index.into());
    rig.write(0x3a, 2, 1);
    rig.until("queue reset", |rig| rig.read(0x3a, 2) == 0);
}

#[test]
fn a_queue_that_is_reset_is_avoided() {
    let mut rig = start(plain(), 0, 2);
    send(&mut rig, 1, 1);
    assert_eq!(home(&mut rig, 1), 1);
    reset_queue(&mut rig, 2);
    rig.deliver(&datagram(1, true));
    rig.wait(0);
    let missed = rig.device.counters().frames_missed;
    reset_queue(&mut rig, 0);
    rig.deliver(&datagram(1, true));
    rig.steps(3);
    assert_eq!(rig.device.counters().frames_missed, missed + 1);
    rig.memory.bytes[..0x4000].fill(0);
    rig.renew(0, 64);
    rig.enable(0);
    fill(&mut rig, 0);
    assert_eq!(home(&mut rig, 1), 0);
    rig.expect_clean();
}
