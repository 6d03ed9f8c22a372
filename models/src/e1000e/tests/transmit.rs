//! Sending.

use super::super::Latitude;
use super::super::pace::Random;
use super::rig::*;

/// Bytes that differ from place to place.
fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ salt)
        .collect()
}

#[test]
fn a_legacy_frame_goes_out_and_is_done() {
    let mut rig = Rig::plain();
    let frame = pattern(100, 1);
    let address = rig.put(PAYLOAD, &frame);
    let index = rig.push(legacy(address, 100, LAST, 0, 0));
    assert!(!rig.is_done(index));
    rig.doorbell();
    rig.step();
    assert_eq!(rig.sent(), [frame]);
    assert!(rig.is_done(index));
    assert_eq!(rig.read(0x3810), 1, "TDH");
    assert_eq!(rig.read(0x3818), 1, "TDT");
    rig.expect_clean();
}

#[test]
fn fragments_are_gathered_in_order() {
    let mut rig = Rig::plain();
    let frame = pattern(333, 2);
    // One byte, an odd number, the rest; far apart and backwards in memory.
    let pieces = [(0, 1), (1, 55), (56, 277)];
    for (n, (from, len)) in pieces.into_iter().enumerate() {
        let place = PAYLOAD + 0x8000 - n * 0x2345;
        let address = rig.put(place, &frame[from..from + len]);
        let command = if n == 2 { LAST } else { IFCS };
        rig.push(data(address, len as u32, command, 0));
    }
    rig.doorbell();
    rig.step();
    assert_eq!(rig.sent(), [frame]);
    assert!(!rig.is_done(0) && !rig.is_done(1) && rig.is_done(2));
    let counters = rig.device.counters();
    assert_eq!(counters.fragments[3], 1);
    assert_eq!(counters.most_fragments, 3);
    assert_eq!((counters.frames_sent, counters.bytes_sent), (1, 333));
    rig.expect_clean();
}

#[test]
fn short_frames_are_padded_with_zeros() {
    let mut rig = Rig::plain();
    let frame = pattern(20, 3);
    let address = rig.put(PAYLOAD, &pattern(80, 0xee));
    rig.put(PAYLOAD, &frame);
    rig.push(legacy(address, 20, LAST, 0, 0));
    rig.doorbell();
    rig.step();
    let sent = rig.sent();
    assert_eq!(sent[0].len(), 60);
    assert_eq!(sent[0][..20], frame);
    assert_eq!(sent[0][20..], [0; 40]);
    rig.expect_clean();
}

/// Sends `frame` behind `context`, split at `cut`, and returns what is on the wire.
fn offload(rig: &mut Rig, context: [u8; 16], frame: &[u8], cut: usize, options: u8) -> Vec<u8> {
    let already = rig.sent().len();
    rig.push(context);
    let header = rig.put(PAYLOAD, &frame[..cut]);
    let rest = rig.put(PAYLOAD + 0x4001, &frame[cut..]);
    rig.push(data(header, cut as u32, IFCS, options));
    let last = rig.push(data(rest, (frame.len() - cut) as u32, LAST, 0));
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    rig.sent()[already].clone()
}

#[test]
fn tcp_and_ip_checksums_are_inserted() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        let mut random = Random::new(seed);
        for _ in 0..20 {
            let payload = pattern(7 + random.below(1400) as usize, random.next() as u8);
            let mut frame = ip_frame(4, 6, &payload);
            seed_checksum(&mut frame, false);
            let cut = 15 + random.below(60) as usize % (frame.len() - 20);
            let sent = offload(&mut rig, tcp_context(), &frame, cut, IXSM | TXSM);
            assert!(verifies(&sent), "seed {seed}");
            fill_checksums_again(&mut frame);
            assert_eq!(sent[..frame.len()], frame, "seed {seed}");
        }
        assert_eq!(rig.device.counters().checksums_inserted, 40, "seed {seed}");
    }
}

/// The frame with correct checksums, whatever its fields hold now.
fn fill_checksums_again(frame: &mut [u8]) {
    let at = field(frame);
    frame[at..at + 2].fill(0);
    frame[24..26].fill(0);
    fill_checksums(frame);
}

#[test]
fn only_what_popts_asks_for_is_inserted() {
    let mut rig = Rig::plain();
    let mut frame = ip_frame(4, 6, &pattern(100, 4));
    seed_checksum(&mut frame, false);
    let sent = offload(&mut rig, tcp_context(), &frame, 54, TXSM);
    assert_eq!(sent[24..26], [0, 0], "the IP checksum was not asked for");
    assert_ne!(sent[50..52], frame[50..52]);
    let sent = offload(&mut rig, tcp_context(), &frame, 54, IXSM);
    assert_ne!(sent[24..26], [0, 0]);
    assert_eq!(
        sent[50..52],
        frame[50..52],
        "the TCP checksum was not asked for"
    );
    let sent = offload(&mut rig, tcp_context(), &frame, 54, 0);
    assert_eq!(sent, frame);
}

#[test]
fn udp_checksums_are_inserted_and_never_zero() {
    let mut rig = Rig::plain();
    let udp = context((14, 24, 33), (34, 40, 0), 0b10);
    let mut frame = ip_frame(4, 17, &[0; 30]);
    seed_checksum(&mut frame, false);
    let sent = offload(&mut rig, udp, &frame, 42, IXSM | TXSM);
    assert!(verifies(&sent));
    // Make the sum come out as all ones, so that its complement is zero.
    let missing = u16::from_be_bytes([sent[40], sent[41]]);
    frame[42..44].copy_from_slice(&missing.to_be_bytes());
    let sent = offload(&mut rig, udp, &frame, 42, IXSM | TXSM);
    assert_eq!(sent[40..42], [0xff, 0xff]);
}

#[test]
fn the_sum_ends_where_tucse_says() {
    let mut rig = Rig::plain();
    let mut frame = ip_frame(4, 6, &pattern(60, 5));
    seed_checksum(&mut frame, false);
    let end = frame.len() - 1;
    frame.extend_from_slice(&[0xaa, 0xbb, 0xcc]);
    let trailer = context((14, 24, 33), (34, 50, end as u16), 0b11);
    let sent = offload(&mut rig, trailer, &frame, 54, IXSM | TXSM);
    assert!(verifies(&sent), "the trailer is not part of the sum");
}

#[test]
fn ipv6_needs_no_ip_range() {
    let mut rig = Rig::plain();
    let mut frame = vec![2; 12];
    frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 30, 6, 64]);
    frame.extend_from_slice(&pattern(32, 6));
    frame.extend_from_slice(&[0; 20]);
    frame.extend_from_slice(&pattern(10, 7));
    let addresses: Vec<u8> = frame[22..54].to_vec();
    let pseudo = plain_sum(&[&addresses, &[0, 0, 0, 30, 0, 0, 0, 6]]);
    frame[70..72].copy_from_slice(&pseudo.to_be_bytes());
    let ipv6 = context((0, 0, 0), (54, 70, 0), 0b01);
    let sent = offload(&mut rig, ipv6, &frame, 74, TXSM);
    let parts: [&[u8]; 3] = [&addresses, &[0, 0, 0, 30, 0, 0, 0, 6], &sent[54..]];
    assert_eq!(plain_sum(&parts), 0xffff);
}

#[test]
fn the_legacy_checksum_starts_at_the_first_css_and_is_stored_at_the_last_cso() {
    let mut rig = Rig::plain();
    let mut frame = ip_frame(4, 6, &pattern(80, 8));
    seed_checksum(&mut frame, false);
    let header = rig.put(PAYLOAD, &frame[..60]);
    let rest = rig.put(PAYLOAD + 0x1001, &frame[60..]);
    rig.push(legacy(header, 60, 0, 0, 34));
    rig.push(legacy(rest, (frame.len() - 60) as u16, LAST | IC, 50, 0));
    rig.doorbell();
    rig.step();
    let sent = rig.sent().remove(0);
    let pseudo = pseudo_sum(&sent, false).to_be_bytes();
    assert_eq!(plain_sum(&[&pseudo, &sent[34..]]), 0xffff);
    rig.expect_clean();
}

#[test]
fn there_is_one_context_for_both_queues_and_it_is_remembered() {
    let mut rig = Rig::plain();
    let mut frame = ip_frame(4, 6, &pattern(40, 9));
    seed_checksum(&mut frame, false);
    offload(&mut rig, tcp_context(), &frame, 54, IXSM | TXSM);
    // Queue 1 never had a context of its own.
    let address = rig.put(PAYLOAD, &frame);
    let raw = data(address, frame.len() as u32, LAST, IXSM | TXSM);
    rig.memory.bytes[TX_RING_1..TX_RING_1 + 16].copy_from_slice(&raw);
    rig.write(0x3918, 1);
    rig.step();
    assert!(verifies(&rig.sent()[1]));
    rig.expect_clean();
}

#[test]
fn a_frame_of_65_fragments_is_lost_and_marked_done() {
    let mut latitude = Latitude::none();
    for drop in [false, true] {
        latitude.drop_many_fragments = drop;
        let mut rig = Rig::warm(0, latitude);
        let address = rig.put(PAYLOAD, &pattern(200, 10));
        // More than the ring holds at once: the ring is twice as long here.
        rig.write(0x0400, 0);
        rig.write(0x3808, 128 * 16);
        rig.write(0x0400, 1 << 1 | 1 << 3);
        for n in 0..65u64 {
            let command = if n == 64 { LAST } else { IFCS };
            let at = TX_RING + n as usize * 16;
            let raw = data(address + n, 1, command, 0);
            rig.memory.bytes[at..at + 16].copy_from_slice(&raw);
        }
        rig.write(0x3818, 65);
        rig.steps(3);
        assert!(rig.is_done(64));
        assert_eq!(rig.sent().len(), usize::from(!drop));
        let counters = rig.device.counters();
        assert_eq!(counters.frames_of_too_many_fragments, u64::from(drop));
        assert_eq!(counters.fragments[65], 1);
        rig.expect_clean();
    }
}

#[test]
fn completions_are_held_back_until_they_are_released() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        rig.device.hold_completions(true);
        let address = rig.put(PAYLOAD, &pattern(64, 11));
        let index = rig.push(data(address, 64, LAST, 0));
        rig.doorbell();
        rig.until("frame", |rig| rig.sent().len() == 1);
        rig.steps(200);
        assert!(!rig.is_done(index), "seed {seed}");
        rig.device.hold_completions(false);
        rig.until_done(index);
        rig.expect_clean();
    }
}

#[test]
fn a_threshold_of_several_waits_for_them_or_for_the_timer() {
    let mut rig = Rig::plain();
    rig.write(0x0400, 0);
    rig.write(0x3828, 1 << 24 | 1 << 22 | 4 << 16);
    rig.write(0x3928, 1 << 24 | 1 << 22 | 4 << 16);
    rig.write(0x0400, 1 << 1 | 1 << 3);
    let address = rig.put(PAYLOAD, &pattern(64, 12));
    let send = |rig: &mut Rig, extra| {
        let index = rig.push(data(address, 64, LAST | extra, 0));
        rig.doorbell();
        rig.steps(50);
        index
    };
    let first = send(&mut rig, 0);
    send(&mut rig, 0);
    send(&mut rig, 0);
    assert!(!rig.is_done(first), "three of four");
    send(&mut rig, 0);
    assert!(rig.is_done(first));
    // A flush by hand.
    let fifth = send(&mut rig, 0);
    assert!(!rig.is_done(fifth));
    rig.write(0x3820, 1 << 31);
    rig.steps(2);
    assert!(rig.is_done(fifth));
    // TIDV of 100 µs, counted from a descriptor with IDE.
    rig.write(0x3820, 98);
    let sixth = send(&mut rig, IDE);
    assert!(!rig.is_done(sixth), "after 50 µs");
    rig.steps(60);
    assert!(rig.is_done(sixth));
    rig.expect_clean();
}

#[test]
fn a_reset_forgets_what_was_in_the_ring() {
    let mut rig = Rig::plain();
    rig.device.hold_completions(true);
    let address = rig.put(PAYLOAD, &pattern(64, 13));
    let index = rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.steps(2);
    rig.write(0x0000, 1 << 26);
    rig.device.hold_completions(false);
    rig.steps(50);
    assert!(!rig.is_done(index), "written back after a reset");
    assert_eq!(rig.read(0x3818), 0);
    assert_eq!(rig.read(0x0400), 0);
    rig.expect_clean();
}

#[test]
fn nothing_is_sent_without_a_link() {
    let mut rig = Rig::plain();
    rig.lanes.lock().unwrap().cut = true;
    rig.steps(2);
    let address = rig.put(PAYLOAD, &pattern(64, 14));
    let index = rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.steps(100);
    assert!(!rig.is_done(index) && rig.sent().is_empty());
    rig.lanes.lock().unwrap().cut = false;
    rig.steps(10);
    assert!(rig.is_done(index));
    assert_eq!(rig.sent().len(), 1);
    rig.expect_clean();
}

#[test]
fn loopback_sends_frames_to_the_receiver() {
    let mut rig = Rig::plain();
    rig.lanes.lock().unwrap().cut = true;
    rig.start_receive(1 << 3 | 1 << 6);
    rig.give(4);
    let frame = pattern(64, 14);
    let address = rig.put(PAYLOAD, &frame);
    let index = rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.until_done(index);
    rig.steps(10);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.buffer(0)[..64], frame);
    assert_eq!(rig.rx(0).status & 1, 1, "DD");
    rig.expect_clean();
}

/// The soak: frames of random pieces over a ring that wraps, with every latitude. Every frame
/// arrives whole and in order, DDs come in order, and a piece is overwritten as soon as its
/// frame is known to be done.
#[test]
fn every_frame_arrives_once_and_in_order_whatever_the_latitude() {
    for seed in 0..30 {
        let mut rig = Rig::wild(seed);
        let mut random = Random::new(seed ^ 0x5eed);
        let mut expected: Vec<Vec<u8>> = Vec::new();
        // Last descriptor of each frame in flight, its first one, its place.
        let mut flying: std::collections::VecDeque<(u32, u32, usize)> = Default::default();
        let mut free = ENTRIES - 1;
        while expected.len() < 150 {
            let pieces = 1 + random.below(6) as u32;
            if free > pieces && flying.len() < 16 {
                let slot = expected.len() % 16;
                let place = PAYLOAD + slot * 0x1000;
                let len = 60 + random.below(1400) as usize;
                let frame = pattern(len, random.next() as u8);
                rig.put(place, &frame);
                let mut from = 0;
                for n in 0..pieces {
                    let left = len - from - (pieces - 1 - n) as usize;
                    let size = if n + 1 == pieces {
                        left
                    } else {
                        1 + random.below(left as u64) as usize
                    };
                    let command = if n + 1 == pieces { LAST } else { IFCS };
                    let address = MEMORY + (place + from) as u64;
                    let index = rig.push(data(address, size as u32, command, 0));
                    from += size;
                    if n + 1 == pieces {
                        flying.push_back((index, pieces, place));
                    }
                }
                free -= pieces;
                expected.push(frame);
                if random.one_in(2) {
                    rig.doorbell();
                }
            } else {
                rig.doorbell();
            }
            if random.one_in(3) {
                rig.step();
            }
            while let Some(&(index, pieces, place)) = flying.front() {
                if !rig.is_done(index) {
                    break;
                }
                flying.pop_front();
                free += pieces;
                rig.put(place, &[0xdd; 1460]);
            }
            for (index, ..) in flying.iter().skip(1) {
                let first_is_open = flying.front().is_some_and(|first| !rig.is_done(first.0));
                assert!(
                    !first_is_open || !rig.is_done(*index),
                    "seed {seed}: out of order"
                );
            }
        }
        rig.doorbell();
        let last = flying.back().map(|last| last.0);
        rig.until("the end", |rig| last.is_none_or(|last| rig.is_done(last)));
        assert!(rig.sent() == expected, "seed {seed}: frames differ");
        assert_eq!(rig.device.counters().frames_sent, 150, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn with_latitude_completions_are_sometimes_late_and_heads_run_ahead() {
    let (mut late, mut ahead, mut unasked) = (0, 0, 0);
    for seed in 0..60 {
        let mut rig = Rig::wild(seed);
        let address = rig.put(PAYLOAD, &pattern(64, 15));
        let mut last = 0;
        for n in 0..24 {
            // Every fourth asks; the doorbell comes after all.
            let asks = if n % 4 == 3 { RS } else { 0 };
            last = rig.push(data(address, 64, EOP | IFCS | asks, 0));
        }
        rig.doorbell();
        rig.step();
        let sent = rig.sent().len() as u32;
        late += u32::from(sent == 24 && !rig.is_done(last));
        ahead += u32::from(rig.read(0x3810) > sent);
        rig.until_done(last);
        unasked += u32::from((0..24).any(|n| n % 4 != 3 && rig.is_done(n)));
        rig.expect_clean();
    }
    assert!(late > 0, "no completion was late in seeds 0 to 59");
    assert!(ahead > 0, "TDH never ran ahead in seeds 0 to 59");
    assert!(unasked > 0, "no DD was written unasked in seeds 0 to 59");
}

#[test]
fn a_runner_that_steps_until_there_is_nothing_to_do_needs_no_clock() {
    for seed in 0..40 {
        let mut rig = Rig::wild(seed);
        let now = pagewire_hal::Instant::from_nanos(rig.now);
        let address = rig.put(PAYLOAD, &pattern(64, 17));
        for _ in 0..20 {
            rig.push(data(address, 64, LAST, 0));
        }
        rig.doorbell();
        let mut steps = 0;
        while crate::Device::step(&mut rig.device, &mut rig.memory, now) {
            steps += 1;
            assert!(steps < 1000, "seed {seed}: never idle");
        }
        assert!(rig.is_done(19), "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn descriptors_are_read_in_batches() {
    let mut rig = Rig::plain();
    let address = rig.put(PAYLOAD, &pattern(64, 16));
    for _ in 0..24 {
        rig.push(data(address, 64, LAST, 0));
    }
    rig.memory.reads = 0;
    rig.doorbell();
    rig.step();
    assert_eq!(rig.sent().len(), 24);
    assert_eq!(rig.memory.reads, 1);
}
