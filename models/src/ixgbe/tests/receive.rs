//! Receiving.

use super::super::{DeviceId, Latitude, ModelConfig};
use super::rig::*;
use crate::checksum::frame_check_sequence;

/// IPCS, L4CS, IPE and TCPE.
const IPCS: u32 = 1 << 6;
const L4CS: u32 = 1 << 5;
const UDPCS: u32 = 1 << 4;
const TCPE: u32 = 1 << 30;
const IPE: u32 = 1 << 31;

#[test]
fn a_frame_is_stored_and_judged() {
    for (version, protocol, good) in [
        (4, 6, IPCS | L4CS),
        (4, 17, IPCS | L4CS | UDPCS),
        (6, 6, L4CS),
        (6, 17, L4CS | UDPCS),
    ] {
        let mut rig = Rig::plain();
        rig.give(0, 3);
        let mut frame = ip_frame(version, protocol, &pattern(77, 1));
        fill_checksums(&mut frame);
        rig.deliver(&frame);
        let wrong = frame.len() - 1;
        frame[wrong] ^= 4;
        rig.deliver(&frame);
        rig.until_received(0, 1);
        let first = rig.rx(0, 0);
        assert_eq!(first.status, good | 3, "{version} {protocol}");
        assert_eq!(first.len, frame.len());
        assert_eq!(rig.rx(0, 1).status, good | TCPE | 3, "{version} {protocol}");
        assert_eq!(rig.buffer(0, 1)[..frame.len()], frame);
        let kind = if version == 4 { 1 << 4 } else { 1 << 6 };
        let transport = if protocol == 6 { 1 << 8 } else { 1 << 9 };
        assert_eq!(first.kind, kind | transport);
        rig.expect_clean();
    }
}

#[test]
fn a_wrong_ip_header_is_said_to_be() {
    let mut rig = Rig::plain();
    rig.give(0, 3);
    let mut frame = ip_frame(4, 6, &[]);
    fill_checksums(&mut frame);
    frame[24] ^= 1;
    rig.deliver(&frame);
    rig.until_received(0, 0);
    assert_eq!(rig.rx(0, 0).status, IPCS | IPE | L4CS | 3);
    assert_eq!(rig.rx(0, 0).len, 60, "padding is there");
}

#[test]
fn a_datagram_without_checksum_may_be_called_wrong_by_an_82599_alone() {
    for device in [DeviceId::Kx4, DeviceId::Sfp, DeviceId::X540T] {
        let mut called_wrong = 0;
        for seed in 0..30 {
            let config = ModelConfig {
                seed,
                device,
                mac: MAC,
                ..ModelConfig::default()
            };
            let mut rig = Rig::with(config).warmed_up();
            rig.give(0, 3);
            let mut frame = ip_frame(4, 17, &pattern(77, 1));
            fill_checksums(&mut frame);
            frame[40..42].fill(0);
            rig.deliver(&frame);
            rig.until_received(0, 0);
            called_wrong += u32::from(rig.rx(0, 0).status & TCPE != 0);
        }
        let may_be = device != DeviceId::X540T;
        assert_eq!(called_wrong > 0, may_be, "{device:?}: {called_wrong}");
    }
}

#[test]
fn a_check_sequence_is_kept_only_where_it_is_wanted() {
    let mut rig = Rig::plain();
    rig.give(0, 3);
    rig.clear(0x4240, 1 << 1);
    rig.clear(0x2f00, 1 << 1);
    let mut frame = pattern(80, 2);
    frame[..6].fill(0xff);
    rig.deliver(&frame);
    rig.until_received(0, 0);
    assert_eq!(rig.rx(0, 0).len, 84);
    assert_eq!(rig.buffer(0, 0)[80..84], frame_check_sequence(&frame));
    assert_eq!(rig.read(0x4074), 1, "GPRC");
    assert_eq!(rig.read(0x4078), 1, "BPRC");
    assert_eq!(rig.read(0x1030), 1, "QPRC");
}

#[test]
fn a_long_frame_is_split_over_buffers() {
    for seed in 0..30 {
        let mut rig = Rig::wild(seed);
        rig.set(0x4240, 1 << 2);
        rig.write(0x4268, 9728 << 16);
        rig.give(0, 8);
        let mut frame = pattern(9000, 3);
        frame[..6].copy_from_slice(&MAC);
        rig.deliver(&frame);
        rig.until_received(0, 4);
        let mut whole = Vec::new();
        for index in 0..5 {
            let part = rig.rx(0, index);
            assert_eq!(part.status & 2 != 0, index == 4, "seed {seed}: EOP");
            whole.extend_from_slice(&rig.buffer(0, index)[..part.len]);
        }
        assert_eq!(whole, frame, "seed {seed}");
        assert_eq!(rig.device.counters().frames_scattered, 1, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn the_address_filter_knows_stations_groups_and_broadcast() {
    let frame = |destination: [u8; 6]| {
        let mut frame = pattern(64, 1);
        frame[..6].copy_from_slice(&destination);
        frame
    };
    let group = [0x33, 0x33, 0, 0, 0x12, 0x34];
    let passes = |rig: &mut Rig, destination| {
        let before = rig.device.counters().frames_received;
        rig.deliver(&frame(destination));
        rig.steps(3);
        rig.device.counters().frames_received > before
    };
    let mut rig = Rig::plain();
    rig.give(0, 40);
    assert!(passes(&mut rig, MAC));
    assert!(passes(&mut rig, [0xff; 6]));
    assert!(!passes(&mut rig, [2, 0, 0, 0, 0, 1]));
    assert!(!passes(&mut rig, group));
    // 0x12 and 0x34: the vector is 0x341 (byte 4 shifted by 4, byte 5 above it).
    let vector = 0x12u32 >> 4 | 0x34 << 4;
    rig.write(0x5200 + 4 * (vector >> 5), 1 << (vector & 0x1f));
    assert!(!passes(&mut rig, group), "MFE is off");
    rig.write(0x5090, 1 << 2);
    assert!(passes(&mut rig, group));
    let index = rig.device.counters().frames_received as u32 - 1;
    assert_ne!(rig.rx(0, index).status & 1 << 7, 0, "PIF");
    rig.write(0xa208, 0x0000_0002);
    rig.write(0xa20c, 0x8000_0100);
    assert!(passes(&mut rig, [2, 0, 0, 0, 0, 1]));
    rig.write(0x5080, 0);
    assert!(!passes(&mut rig, [0xff; 6]));
    rig.write(0x5080, 1 << 9 | 1 << 8);
    assert!(passes(&mut rig, [2, 0, 0, 0, 0, 9]));
    assert!(passes(&mut rig, [0x33, 0x33, 0, 0, 0, 1]));
    assert_eq!(rig.device.counters().frames_filtered, 4);
    rig.expect_clean();
}

#[test]
fn flows_are_spread_by_the_hash() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    for queue in 0..4 {
        rig.start_receive(queue);
        rig.give(queue, 8);
    }
    for word in 0..10 {
        rig.write(
            0x5c80 + 4 * word,
            0x6d5a_56da ^ word.wrapping_mul(0x0101_0101),
        );
    }
    // Seven bits of the hash choose an entry: the other half of the table is the other way round.
    for word in 0..32 {
        let entries = if word < 16 { 0x0302_0100 } else { 0x0001_0203 };
        rig.write(0x5c00 + 4 * word, entries);
    }
    rig.write(0x5000, 1 << 13);
    rig.write(0x5818, 1 | 1 << 16 | 1 << 17 | 1 << 22);
    rig.start_receiver();
    rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
    let mut found = [0u32; 4];
    let mut halves = [0u32; 2];
    for port in 0..16u16 {
        let mut frame = ip_frame(4, 6, &[0; 20]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        fill_checksums(&mut frame);
        rig.deliver(&frame);
        rig.steps(3);
        let queue = (0..4).find(|queue| {
            let index = found[*queue as usize];
            rig.rx(*queue, index).status & 1 != 0
        });
        let queue = queue.expect("the frame went somewhere");
        let received = rig.rx(queue, found[queue as usize]);
        assert_eq!(received.kind & 0xf, 1, "IPv4 and TCP");
        let half = received.hash >> 6 & 1;
        halves[half as usize] += 1;
        let entry = if half == 0 { 0 } else { 3 } ^ received.hash & 3;
        assert_eq!(entry, queue, "RETA of {:#x}", received.hash);
        found[queue as usize] += 1;
        if found[queue as usize] == 8 {
            break;
        }
    }
    assert!(
        found.iter().filter(|count| **count > 0).count() > 2,
        "{found:?}"
    );
    assert!(halves.iter().all(|count| *count > 0), "{halves:?}");
    // What has no hash goes to queue 0.
    let mut frame = pattern(64, 0);
    frame[..6].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    rig.deliver(&frame);
    rig.steps(3);
    assert_eq!(rig.rx(0, found[0]).kind & 0xf, 0);
    rig.expect_clean();
}

#[test]
fn frames_wait_for_buffers_or_are_dropped() {
    let mut rig = Rig::plain();
    let mut frame = pattern(64, 1);
    frame[..6].copy_from_slice(&MAC);
    rig.deliver(&frame);
    rig.steps(5);
    assert_eq!(rig.device.counters().frames_received, 0);
    assert_eq!(rig.device.counters().frames_missed, 0);
    rig.give(0, 2);
    rig.until_received(0, 0);
    rig.expect_clean();
    // With Drop_En it is gone.
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    rig.ring(0x1000, RX_RING);
    rig.write(0x1014, 1 << 25 | 2 | 1 << 28);
    rig.clear(0x100c, 1 << 12);
    rig.write(0x1028, 1 << 25);
    rig.read(0x1028);
    rig.start_receiver();
    rig.deliver(&frame);
    rig.steps(5);
    assert_eq!(rig.device.counters().frames_missed, 1);
    assert_eq!(rig.read(0x1430), 1, "QPRDC");
    rig.expect_clean();
}

#[test]
fn a_full_packet_buffer_misses_frames() {
    let mut rig = Rig::plain();
    rig.write(0x3c00, 1 << 10);
    let mut frame = pattern(500, 1);
    frame[..6].copy_from_slice(&MAC);
    for _ in 0..3 {
        rig.deliver(&frame);
    }
    rig.steps(5);
    assert_eq!(rig.device.counters().frames_missed, 1);
    assert_eq!(rig.read(0x3fa0), 1, "MPC");
    // It has passed the filter: counted there all the same.
    assert_eq!(rig.read(0x4074), 3, "GPRC");
}

#[test]
fn oversized_frames_are_counted_and_lost() {
    let mut rig = Rig::plain();
    rig.give(0, 8);
    let mut frame = pattern(1514, 1);
    frame[..6].copy_from_slice(&MAC);
    rig.deliver(&frame);
    rig.until_received(0, 0);
    frame.push(0);
    rig.deliver(&frame);
    rig.steps(3);
    // One for another station is counted as well.
    frame[0] ^= 4;
    rig.deliver(&frame);
    rig.steps(3);
    assert_eq!(rig.read(0x40ac), 2, "ROC");
    assert_eq!(rig.read(0x4040), 0, "RLEC: no length field was wrong");
    assert_eq!(rig.device.counters().frames_received, 1);
}

#[test]
fn a_frame_that_is_larger_than_the_free_buffers_goes_on_when_there_are_more() {
    let mut rig = Rig::plain();
    rig.set(0x4240, 1 << 2);
    rig.write(0x4268, 9728 << 16);
    rig.give(0, 2);
    let mut frame = pattern(5000, 3);
    frame[..6].copy_from_slice(&MAC);
    rig.deliver(&frame);
    rig.steps(5);
    assert_eq!(rig.rx(0, 1).status & 3, 1, "DD and no EOP");
    assert_eq!(rig.device.counters().frames_received, 0);
    let done: Vec<_> = rig.memory.bytes[RX_RING..RX_RING + 32].to_vec();
    rig.give(0, 4);
    rig.memory.bytes[RX_RING..RX_RING + 32].copy_from_slice(&done);
    rig.until_received(0, 2);
    assert_eq!(rig.rx(0, 2).len, 5000 - 4096);
    assert_eq!(rig.buffer(0, 2)[..904], frame[4096..]);
    rig.expect_clean();
}

#[test]
fn a_disabled_queue_is_not_written_to() {
    // Write-backs are late and the queue is off at once, so that some are under way by then.
    let latitude = Latitude {
        slow_queue_enable: false,
        ..Latitude::default()
    };
    for seed in 0..30 {
        let mut rig = Rig::warm(seed, latitude);
        rig.give(0, 8);
        let mut frame = pattern(64, 1);
        frame[..6].copy_from_slice(&MAC);
        for _ in 0..8 {
            rig.deliver(&frame);
        }
        rig.steps(seed as usize % 7);
        rig.write(0x1028, 0);
        rig.until("off", |rig| rig.read(0x1028) & 1 << 25 == 0);
        let before = rig.memory.bytes.clone();
        rig.steps(100);
        assert!(rig.memory.bytes == before, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn a_reset_forgets_the_buffers_that_were_fetched() {
    for seed in 0..10 {
        let mut rig = Rig::wild(seed);
        rig.give(0, 6);
        let mut frame = pattern(64, 1);
        frame[..6].copy_from_slice(&MAC);
        rig.deliver(&frame);
        rig.until_received(0, 0);
        // The descriptors behind it were fetched by then. After a reset the ring begins anew, also
        // for a driver that leaves RDH as the reset has it.
        rig.set(0x0000, 1 << 2);
        rig.until("no master", |rig| rig.read(0x0008) & 1 << 19 == 0);
        rig.initialise();
        let base = MEMORY + RX_RING as u64;
        rig.write(0x1000, base as u32);
        rig.write(0x1004, (base >> 32) as u32);
        rig.write(0x1008, ENTRIES * 16);
        rig.write(0x1014, 1 << 25 | 2 | 4 << 8);
        rig.clear(0x100c, 1 << 12);
        rig.write(0x1028, 1 << 25);
        rig.until("queue", |rig| rig.read(0x1028) & 1 << 25 != 0);
        rig.start_receiver();
        rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
        rig.give(0, 6);
        rig.deliver(&frame);
        rig.until_received(0, 0);
        assert_eq!(rig.rx(0, 0).len, 64, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn the_vlan_filter_lets_through_what_its_table_has() {
    let mut rig = Rig::plain();
    rig.give(0, 4);
    let tagged = |id: u8| {
        let mut frame = pattern(100, 1);
        frame[..6].copy_from_slice(&MAC);
        frame[12..16].copy_from_slice(&[0x81, 0x00, 0x60, id]);
        frame
    };
    rig.write(0x5088, 0x8100 | 1 << 30);
    rig.write(0xa000 + 4, 1 << (37 - 32));
    rig.deliver(&tagged(36));
    rig.deliver(&tagged(37));
    rig.until_received(0, 0);
    assert_eq!(rig.buffer(0, 0)[..100], tagged(37));
    rig.steps(4);
    rig.expect_clean();
    // Every VLAN.
    rig.write(0x5088, 0x8100);
    rig.deliver(&tagged(36));
    rig.until_received(0, 1);
    assert_eq!(rig.buffer(0, 1)[..100], tagged(36));
    rig.expect_clean();
}
