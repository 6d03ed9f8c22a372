//! Frames both ways, in every ring format, with and without latitude.

use super::super::{Latitude, ModelConfig};
use super::rig::*;

fn frame(random: &mut fastrand::Rng, longest: usize) -> Vec<u8> {
    let len = random.usize(14..=longest);
    let mut frame: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
    // Neither IP nor a tag.
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// Sends `count` frames in random pieces, as many at once as fit.
fn transmit(rig: &mut Rig, count: usize, random: &mut fastrand::Rng) {
    let seed = rig.seed;
    let features = rig.device.negotiated();
    let polite = random.bool();
    let mut expected = Vec::new();
    let mut done = 0;
    while done < count {
        while expected.len() < count {
            let slot = expected.len() % 64;
            let indirect = features & INDIRECT != 0 && random.bool();
            let frame = frame(random, 1514);
            let at = PAYLOAD + slot * 0x800;
            let mut pieces = Vec::new();
            let mut from = 0;
            let whole = 12 + frame.len();
            while from < whole {
                let len = if pieces.len() == 3 {
                    whole - from
                } else {
                    random.usize(1..=whole - from)
                };
                pieces.push((at + from, len, false));
                from += len;
            }
            let slots = if indirect { 1 } else { pieces.len() };
            if !rig.rings[1].fits(slots) || expected.len() - done >= 64 {
                // The frame is drawn and forgotten.
                break;
            }
            rig.memory.put(at, &[0; 12]);
            rig.memory.put(at + 12, &frame);
            if polite {
                rig.push_politely(1, &pieces, indirect);
            } else {
                rig.push(1, &pieces, indirect);
            }
            expected.push(frame);
        }
        done += rig.wait(1).len();
    }
    rig.until("all", |rig| rig.sent().len() >= count);
    let sent = rig.sent();
    for (index, (sent, expected)) in sent.iter().zip(&expected).enumerate() {
        assert!(sent == expected, "seed {seed}, frame {index}");
    }
    assert_eq!(sent.len(), count, "seed {seed}");
    assert_eq!(
        rig.device.counters().frames_sent,
        count as u64,
        "seed {seed}"
    );
}

/// Receives `count` frames into buffers of `len` bytes.
fn receive(rig: &mut Rig, count: usize, len: usize, random: &mut fastrand::Rng) {
    let seed = rig.seed;
    let size = usize::from(rig.rings[0].size);
    let merges = rig.device.negotiated() & MERGE != 0;
    let longest = if merges {
        1514.min(size * len - 12)
    } else {
        1514
    };
    let frames: Vec<Vec<u8>> = (0..count).map(|_| frame(random, longest)).collect();
    for frame in &frames {
        rig.deliver(frame);
    }
    let mut places = std::collections::HashMap::new();
    for index in 0..size {
        let place = BUFFERS + index * 0x1000;
        let id = rig.rings[0].push(&mut rig.memory, &[(place, len, true)], false);
        places.insert(id, place);
    }
    rig.doorbell(0);
    let mut used = std::collections::VecDeque::new();
    for (index, frame) in frames.iter().enumerate() {
        let (mut got, mut left) = (Vec::new(), 1);
        while left > 0 {
            while used.is_empty() {
                used.extend(rig.wait(0));
            }
            let (id, written) = used.pop_front().unwrap();
            let place = places.remove(&id).unwrap();
            let bytes = &rig.memory.bytes[place..place + written];
            if got.is_empty() {
                left = usize::from(u16::from_le_bytes([bytes[10], bytes[11]]));
                assert!(merges || left == 1, "seed {seed}");
            }
            got.extend_from_slice(bytes);
            left -= 1;
            assert!(left == 0 || written == len, "seed {seed}: not filled");
            let id = rig.rings[0].push(&mut rig.memory, &[(place, len, true)], false);
            places.insert(id, place);
        }
        rig.doorbell(0);
        assert!(got[12..] == **frame, "seed {seed}, frame {index}");
    }
}

fn both_ways(config: ModelConfig, features: u64, size: u16) {
    let mut random = fastrand::Rng::with_seed(config.seed);
    let mut rig = Rig::warm(config, LEAST | features, size);
    transmit(&mut rig, 150, &mut random);
    let len = if features & MERGE != 0 {
        random.usize(200..600)
    } else {
        1526
    };
    receive(&mut rig, 60, len, &mut random);
    rig.expect_clean();
    let counters = rig.device.counters();
    assert_eq!(counters.frames_received, 60, "seed {}", rig.seed);
}

#[test]
fn frames_go_both_ways_in_a_split_ring() {
    both_ways(plain(), 0, 64);
    both_ways(plain(), INDIRECT, 16);
    both_ways(plain(), EVENTS | MERGE, 256);
}

#[test]
fn frames_go_both_ways_in_a_packed_ring() {
    both_ways(plain(), PACKED, 64);
    both_ways(plain(), PACKED | INDIRECT, 23);
    both_ways(plain(), PACKED | EVENTS | MERGE, 100);
}

#[test]
fn frames_go_both_ways_whatever_the_device_does() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut features = 0;
        for bit in [PACKED, INDIRECT, EVENTS, IN_ORDER, MERGE] {
            if random.bool() {
                features |= bit;
            }
        }
        let size = 8 << random.u16(..5);
        let config = ModelConfig {
            seed,
            latitude: Latitude::default(),
            ..ModelConfig::default()
        };
        both_ways(config, features, size);
    }
}

#[test]
fn a_queue_of_one_descriptor_works() {
    for features in [
        INDIRECT,
        PACKED | INDIRECT,
        INDIRECT | EVENTS,
        PACKED | INDIRECT | EVENTS,
    ] {
        for seed in 0..8 {
            let config = ModelConfig {
                seed,
                ..ModelConfig::default()
            };
            let mut rig = Rig::warm(config, LEAST | features, 1);
            for round in 0..10u8 {
                rig.memory.put(PAYLOAD + 12, &[round; 60]);
                rig.push(1, &[(PAYLOAD, 72, false)], true);
                assert_eq!(rig.wait(1).len(), 1, "seed {seed}");
            }
            assert_eq!(rig.sent().len(), 10, "seed {seed}");
            assert_eq!(rig.sent()[9], [9; 60], "seed {seed}");
            rig.expect_clean();
        }
    }
}

#[test]
fn indices_wrap() {
    for features in [0, PACKED, EVENTS, PACKED | EVENTS] {
        let mut rig = Rig::warm(plain(), LEAST | features, 4);
        rig.rings[1].ask(&mut rig.memory, true);
        for round in 0..66_000u32 {
            rig.memory.put(PAYLOAD + 12, &[7; 14]);
            rig.push(1, &[(PAYLOAD, 26, false)], false);
            rig.step();
            assert_eq!(rig.pop(1).len(), 1, "round {round}");
            rig.rings[1].ask(&mut rig.memory, true);
            rig.lanes.lock().unwrap().sent.clear();
            assert_eq!(rig.take_interrupts(), [2], "round {round}");
        }
        rig.expect_clean();
    }
}

#[test]
fn completions_are_held() {
    for features in [0, PACKED] {
        let mut rig = Rig::warm(plain(), LEAST | features, 8);
        rig.device.hold_completions(true);
        rig.send([0; 12], &[1; 60]);
        rig.steps(50);
        assert_eq!(rig.sent().len(), 1);
        assert!(rig.pop(1).is_empty());
        rig.device.hold_completions(false);
        rig.wait(1);
    }
}

#[test]
fn without_a_doorbell_nothing_happens() {
    for features in [0, PACKED] {
        let mut rig = Rig::warm(plain(), LEAST | features, 8);
        rig.steps(5);
        rig.memory.put(PAYLOAD + 12, &[1; 60]);
        rig.rings[1].push(&mut rig.memory, &[(PAYLOAD, 72, false)], false);
        rig.steps(100);
        assert!(rig.sent().is_empty());
        rig.doorbell(1);
        rig.wait(1);
        assert_eq!(rig.device.counters().doorbells, 1);
    }
}

#[test]
fn interrupts_come_when_they_are_wanted() {
    for features in [0, EVENTS, PACKED, PACKED | EVENTS] {
        let mut rig = Rig::warm(plain(), LEAST | features, 8);
        rig.rings[1].ask(&mut rig.memory, true);
        rig.send([0; 12], &[1; 60]);
        rig.wait(1);
        assert_eq!(rig.take_interrupts(), [2], "features {features:#x}");
        rig.rings[1].ask(&mut rig.memory, false);
        for _ in 0..5 {
            rig.send([0; 12], &[1; 60]);
            rig.wait(1);
        }
        assert_eq!(rig.take_interrupts(), [], "features {features:#x}");
        assert_eq!(rig.device.counters().interrupts_suppressed, 5);
        rig.rings[1].ask(&mut rig.memory, true);
        rig.send([0; 12], &[1; 60]);
        rig.wait(1);
        assert_eq!(rig.take_interrupts(), [2], "features {features:#x}");
        rig.expect_clean();
    }
}
