//! Sending.

use super::super::Latitude;
use super::super::pace::Random;
use super::rig::*;
use crate::Device;

#[test]
fn a_frame_goes_out_and_is_done() {
    let mut rig = Rig::plain();
    let frame = pattern(100, 1);
    let last = rig.post(&frame, &[], 0, 0, 100);
    assert!(!rig.is_done(last));
    rig.doorbell();
    rig.step();
    assert_eq!(rig.sent(), [frame]);
    assert!(rig.is_done(last));
    assert_eq!(rig.read(0x6010), 1, "TDH");
    assert_eq!(rig.read(0x6018), 1, "TDT");
    assert_eq!(rig.read(0x4080), 1, "GPTC");
    assert_eq!(rig.read(0x4080), 0, "read clears");
    assert_eq!(rig.read(0x4090), 104, "GOTCL");
    assert_eq!(rig.read(0x8680), 1, "QPTC");
    assert_eq!(rig.read(0x8700), 104, "QBTC");
    rig.expect_clean();
}

#[test]
fn fragments_are_gathered_in_order_and_counted() {
    let mut rig = Rig::plain();
    let frame = pattern(333, 2);
    let last = rig.post(&frame, &[1, 55], 0, 0, 333);
    rig.doorbell();
    rig.step();
    assert_eq!(rig.sent(), [frame]);
    assert!(!rig.is_done(0) && !rig.is_done(1) && rig.is_done(last));
    let counters = rig.device.counters();
    assert_eq!(counters.fragments[3], 1);
    assert_eq!((counters.most_fragments, counters.most_bytes), (3, 333));
    assert_eq!((counters.frames_sent, counters.bytes_sent), (1, 333));
    assert_eq!(counters.doorbells, 1);
    rig.expect_clean();
}

#[test]
fn short_frames_are_padded_with_zeros() {
    let mut rig = Rig::plain();
    rig.put(PAYLOAD, &pattern(80, 0xee));
    let frame = pattern(17, 3);
    rig.send(&frame);
    let mut padded = frame;
    padded.resize(60, 0);
    assert_eq!(rig.sent(), [padded]);
    rig.expect_clean();
}

#[test]
fn thirty_eight_fragments_pass_and_thirty_nine_do_not() {
    let mut rig = Rig::plain();
    let frame = pattern(380, 4);
    let last = rig.post(&frame, &[10; 37], 0, 0, 380);
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    assert_eq!(rig.device.counters().most_fragments, 38);
    let mut rig = Rig::plain();
    let last = rig.post(&frame, &[9; 38], 0, 0, 380);
    rig.doorbell();
    rig.until_done(last);
    rig.expect_violation("39 descriptors; with WTHRESH 0 38 are allowed");
    assert_eq!(rig.sent().len(), 0);
}

#[test]
fn checksums_are_inserted_for_both_protocols_and_both_versions() {
    let cases = [(4, 6, IPV4 | TCP), (4, 17, IPV4), (6, 6, TCP), (6, 17, 0)];
    for (version, protocol, kind) in cases {
        for len in [0, 1, 7, 300, 1400] {
            let mut rig = Rig::plain();
            let mut frame = ip_frame(version, protocol, &pattern(len, 5));
            let ip = if version == 4 { 20 } else { 40 };
            seed_checksum(&mut frame, false);
            rig.push(context((14, ip, 0), kind, 0, 1));
            let options = TXSM | 1 << 4 | if version == 4 { IXSM } else { 0 };
            let last = rig.post(&frame, &[9, 17], 0, options, frame.len());
            rig.doorbell();
            rig.until_done(last);
            rig.expect_clean();
            let sent = rig.sent();
            assert!(
                verifies(&sent[0][..frame.len()]),
                "{version} {protocol} {len}"
            );
            let expected = if version == 4 { 2 } else { 1 };
            assert_eq!(rig.device.counters().checksums_inserted, expected);
        }
    }
}

#[test]
fn a_transport_checksum_alone_needs_no_ip_version() {
    let mut rig = Rig::plain();
    let mut frame = ip_frame(4, 6, &pattern(99, 5));
    seed_checksum(&mut frame, false);
    let ip = !plain_sum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    rig.push(context((14, 20, 0), TCP, 0, 0));
    let last = rig.post(&frame, &[], 0, TXSM, frame.len());
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    assert!(verifies(&rig.sent()[0]));
}

#[test]
fn a_context_stays_in_its_slot() {
    let mut rig = Rig::plain();
    rig.push(context((14, 20, 0), IPV4 | TCP, 0, 0));
    rig.push(context((14, 40, 0), TCP, 0, 1));
    for round in 0..5 {
        for (version, slot) in [(4, 0), (6, 1)] {
            let mut frame = ip_frame(version, 6, &pattern(100 + round, 6));
            seed_checksum(&mut frame, false);
            let options = TXSM | slot << 4 | if version == 4 { IXSM } else { 0 };
            let last = rig.post(&frame, &[], 0, options, frame.len());
            rig.doorbell();
            rig.until_done(last);
        }
    }
    assert_eq!(
        rig.sent().iter().filter(|frame| verifies(frame)).count(),
        10
    );
    assert_eq!(rig.device.counters().contexts, 2);
    assert_eq!(rig.device.counters().contexts_repeated, 0);
    rig.push(context((14, 40, 0), TCP, 0, 1));
    rig.send(&pattern(64, 0));
    assert_eq!(rig.device.counters().contexts_repeated, 1);
    rig.expect_clean();
}

/// Segments as the definition has them, compared with what the device sends.
fn check_segments(version: u8, len: usize, mss: usize, cuts: &[usize]) {
    let mut rig = Rig::plain();
    let payload = pattern(len, 9);
    let mut request = ip_frame(version, 6, &payload);
    let (ip, kind) = if version == 4 {
        (20, IPV4 | TCP)
    } else {
        (40, TCP)
    };
    let header = 14 + ip as usize + 20;
    seed_checksum(&mut request, true);
    let length_at = if version == 4 { 16 } else { 18 };
    request[length_at..length_at + 2].fill(0);
    rig.push(context((14, ip, 20), kind, mss as u32, 0));
    let options = TXSM | if version == 4 { IXSM } else { 0 };
    let last = rig.post(&request, cuts, TSE, options, len);
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    let sent = rig.sent();
    let count = len.div_ceil(mss);
    assert_eq!(sent.len(), count, "{version} {len} {mss}");
    for (index, (frame, part)) in sent.iter().zip(payload.chunks(mss)).enumerate() {
        let frame = &frame[..header + part.len()];
        assert_eq!(&frame[header..], part, "segment {index}");
        assert!(verifies(frame), "segment {index} of {version} {len} {mss}");
        let at = 14 + ip as usize;
        let sequence = u32::from_be_bytes(frame[at + 4..at + 8].try_into().unwrap());
        assert_eq!(sequence as usize, 1 + index * mss);
        // The request has CWR, ACK, PSH and FIN.
        let flags = match index {
            _ if index + 1 == count => 0x19,
            0 => 0x90,
            _ => 0x10,
        };
        assert_eq!(frame[at + 13], flags, "segment {index}");
        if version == 4 {
            let number = u16::from_be_bytes([frame[18], frame[19]]);
            assert_eq!(number, 0x1234 + index as u16);
            let total = u16::from_be_bytes([frame[16], frame[17]]);
            assert_eq!(usize::from(total), 40 + part.len());
        }
    }
    let counters = rig.device.counters();
    assert_eq!((counters.requests, counters.segmented), (1, 1));
    assert_eq!(counters.segmented_payload, len as u64);
    assert_eq!(counters.segments_made, count as u64);
}

#[test]
fn segmentation_is_by_the_book() {
    for version in [4, 6] {
        let header = if version == 4 { 54 } else { 74 };
        check_segments(version, 5000, 1460, &[header]);
        check_segments(version, 1460, 1460, &[header]);
        check_segments(version, 1461, 1460, &[header, 700]);
        check_segments(
            version,
            65_000,
            1448,
            &[header, 16_000, 16_000, 16_000, 16_000],
        );
        check_segments(version, 300, 1, &[10, 20, 10]);
    }
}

#[test]
fn the_head_is_written_back_instead_of_descriptors() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    let place = rig.put(0xf000, &[0xff; 8]);
    rig.write(0x6038, place as u32 | 1);
    rig.write(0x603c, (place >> 32) as u32);
    rig.clear(0x600c, 1 << 11);
    rig.start_transmit(0, 0);
    for round in 1..4u8 {
        rig.post(&pattern(64, round), &[20], 0, 0, 64);
        rig.doorbell();
        rig.steps(3);
        assert_eq!(rig.memory.bytes[0xf000..0xf004], [2 * round, 0, 0, 0]);
        assert_eq!(rig.memory.bytes[0xf004..0xf008], [0xff; 4]);
    }
    assert!(!rig.is_done(1));
    rig.expect_clean();
}

#[test]
fn with_a_threshold_descriptors_come_back_in_groups() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    rig.start_transmit(0, 4 << 16);
    rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
    for index in 0..3 {
        let address = rig.put(PAYLOAD, &pattern(64, index));
        rig.push(data(address, 64, EOP | IFCS, 0, 64));
    }
    rig.doorbell();
    rig.steps(5);
    assert!(!rig.is_done(0) && !rig.is_done(2));
    let address = rig.put(PAYLOAD, &pattern(64, 9));
    rig.push(data(address, 64, EOP | IFCS, 0, 64));
    rig.doorbell();
    rig.steps(2);
    assert!((0..4).all(|index| rig.is_done(index)));
    // One that is alone comes back after a while all the same.
    rig.push(data(address, 64, EOP | IFCS, 0, 64));
    rig.doorbell();
    rig.until_done(4);
    rig.expect_clean();
}

#[test]
fn held_completions_come_when_they_are_let_go() {
    let mut rig = Rig::wild(3);
    rig.device.hold_completions(true);
    let last = rig.post(&pattern(90, 1), &[], 0, 0, 90);
    rig.doorbell();
    rig.steps(500);
    assert_eq!(rig.sent().len(), 1, "seed 3");
    assert!(!rig.is_done(last), "seed 3");
    rig.device.hold_completions(false);
    rig.until_done(last);
    rig.expect_clean();
}

#[test]
fn a_stalled_device_does_nothing_until_it_goes_on() {
    let mut rig = Rig::plain();
    rig.device.stall(true);
    let last = rig.post(&pattern(90, 1), &[], 0, 0, 90);
    rig.doorbell();
    rig.steps(50);
    assert_eq!((rig.sent().len(), rig.is_done(last)), (0, false));
    rig.device.stall(false);
    rig.until_done(last);
    rig.expect_clean();
}

#[test]
fn loopback_sends_frames_to_the_receiver() {
    let mut rig = Rig::plain();
    rig.set(0x4240, 1 << 15);
    rig.lanes.lock().unwrap().cut = true;
    rig.give(0, 4);
    let mut frame = ip_frame(4, 6, b"around");
    fill_checksums(&mut frame);
    rig.send(&frame);
    rig.until_received(0, 0);
    assert_eq!(rig.sent().len(), 0);
    assert_eq!(rig.buffer(0, 0)[..60], frame);
    assert_ne!(rig.rx(0, 0).status & 1 << 18, 0, "LB");
    rig.expect_clean();
}

#[test]
fn whatever_the_latitude_all_frames_arrive_whole_and_in_order() {
    for seed in 0..60 {
        let mut rig = Rig::wild(seed);
        let mut random = Random::new(seed);
        let mut expected = Vec::new();
        let mut posted = Vec::new();
        for round in 0..40 {
            let len = 60 + random.below(1400) as usize;
            let frame = pattern(len, round as u8);
            let mut cuts = Vec::new();
            let mut rest = len;
            while rest > 600 && cuts.len() < 5 {
                cuts.push(1 + random.below(300) as usize);
                rest = len - cuts.iter().sum::<usize>();
            }
            let first = rig.next;
            let last = rig.post(&frame, &cuts, 0, 0, len);
            rig.memory.bytes[TX_RING + last as usize * 16 + 12] &= !1;
            rig.doorbell();
            expected.push(frame);
            posted.push((first, last));
            // Payload is overwritten by the next frame: wait for this one.
            rig.until_done(last);
        }
        assert_eq!(rig.sent(), expected, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn random_descriptors_do_no_harm_to_the_model() {
    for seed in 0..300 {
        let mut rig = Rig::wild(seed);
        let mut random = Random::new(seed);
        for index in 0..ENTRIES - 1 {
            let at = MEMORY + random.below(1 << 20);
            let low = if random.one_in(2) { at } else { random.next() };
            // Mostly of a known format, and with lengths that may be right.
            let kind = [2, 3, 3, 3, random.below(16)][random.below(5) as usize] as u32;
            let mask = if random.one_in(2) {
                0x0000_0dff
            } else {
                u32::MAX
            };
            let command = random.next() as u32 & !(0xf << 20) & (mask | 0xff << 24) | kind << 20;
            let options = random.next() as u32;
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&low.to_le_bytes());
            raw[8..12].copy_from_slice(&(command | DEXT).to_le_bytes());
            raw[12..].copy_from_slice(&options.to_le_bytes());
            let place = TX_RING + index as usize * 16;
            rig.memory.bytes[place..place + 16].copy_from_slice(&raw);
        }
        rig.write(0x6018, ENTRIES - 1);
        rig.steps(200);
        assert!(!rig.device.take_violations().is_empty(), "seed {seed}");
    }
}

#[test]
fn random_registers_do_no_harm_to_the_model() {
    for seed in 0..40 {
        let mut rig = Rig::wild(seed);
        let mut random = Random::new(seed);
        for _ in 0..3000 {
            let at = match random.below(4) {
                0 => 0x1000 + random.below(0x1000) as u32,
                1 => 0x6000 + random.below(0x2000) as u32,
                2 => random.below(0x1_0000) as u32,
                _ => random.below(0x8_0000) as u32,
            } & !3;
            match random.below(3) {
                0 => {
                    rig.read(at);
                }
                1 if at != 0 => rig.write(at, random.next() as u32),
                _ => {
                    rig.step();
                }
            }
        }
        // It is still a device: a reset brings it back.
        rig.device.take_violations();
        rig.write(0, 1 << 2);
        rig.write(0, 1 << 26);
        rig.until("reset", |rig| rig.read(0) & 1 << 26 == 0);
        rig.until("EEPROM", |rig| rig.read(0x1_0010) & 1 << 9 != 0);
        assert_eq!(rig.read(0xa200), 0x3322_1102, "seed {seed}");
    }
}

#[test]
fn without_a_request_nothing_is_reported() {
    let mut rig = Rig::plain();
    let address = rig.put(PAYLOAD, &pattern(64, 1));
    let quiet = rig.push(data(address, 64, EOP | IFCS, 0, 64));
    rig.doorbell();
    rig.until("a frame", |rig| rig.sent().len() == 1);
    rig.steps(100);
    assert!(!rig.is_done(quiet));
    // The next one that asks is.
    rig.send(&pattern(70, 2));
    rig.steps(100);
    assert!(!rig.is_done(quiet));
}
