//! TCP segmentation.

use super::super::Latitude;
use super::super::pace::Random;
use super::rig::*;
use crate::rig::{pattern, transport};

const TSCTC: u32 = 0x40f8;
const TSCTFC: u32 = 0x40fc;
const FIN: u8 = 1;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// A TCP request over IP `version`, as a driver leaves it: lengths zero, the seed without one.
fn request(version: u8, payload: &[u8], flags: u8) -> Vec<u8> {
    let mut frame = ip_frame(version, 6, payload);
    let at = transport(&frame);
    frame[at + 4..at + 8].copy_from_slice(&0xffff_ff00u32.to_be_bytes());
    frame[at + 13] = flags;
    let len = if version == 4 { 16 } else { 18 };
    frame[len..len + 2].fill(0);
    seed_checksum(&mut frame, true);
    frame
}

/// The context that goes with it.
fn context_of(frame: &[u8], mss: usize) -> [u8; 16] {
    let at = transport(frame);
    let (ip, command) = match frame[14] >> 4 {
        4 => ((14, 24, 33), 0b11),
        _ => ((14, 24, 0), 0b01),
    };
    let raw = context(ip, (at as u8, at as u8 + 16, 0), command);
    with_segmentation(raw, frame.len() - at - 20, at + 20, mss)
}

fn options_of(frame: &[u8]) -> u8 {
    if frame[14] >> 4 == 4 {
        IXSM | TXSM
    } else {
        TXSM
    }
}

/// Posts `frame` in pieces that end at `cuts`, behind `context`.
fn post(rig: &mut Rig, context: [u8; 16], frame: &[u8], cuts: &[usize], options: u8) -> u32 {
    rig.push(context);
    let mut from = 0;
    for (n, to) in cuts.iter().copied().chain([frame.len()]).enumerate() {
        let address = rig.put(PAYLOAD + n * 0x4000 + n, &frame[from..to]);
        let last = if to == frame.len() { LAST } else { IFCS };
        let raw = data(address, (to - from) as u32, last | TSE, options);
        from = to;
        let index = rig.push(raw);
        if from == frame.len() {
            return index;
        }
    }
    unreachable!("the last piece ends the frame")
}

/// Sends it all and returns the segments.
fn send(rig: &mut Rig, frame: &[u8], mss: usize, cuts: &[usize]) -> Vec<Vec<u8>> {
    let already = rig.sent().len();
    let last = post(rig, context_of(frame, mss), frame, cuts, options_of(frame));
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    rig.sent().split_off(already)
}

/// Checks segments against the request, field by field.
fn check(segments: &[Vec<u8>], frame: &[u8], payload: &[u8], mss: usize, what: &str) {
    assert_eq!(segments.len(), payload.len().div_ceil(mss), "{what}");
    let header = transport(frame) + 20;
    let at = transport(frame);
    for (index, (segment, part)) in segments.iter().zip(payload.chunks(mss)).enumerate() {
        let what = format!("{what}, segment {index}");
        let len = header + part.len();
        assert_eq!(segment.len(), len.max(60), "{what}");
        assert_eq!(&segment[header..len], part, "{what}");
        assert!(verifies(segment), "{what}");
        let half = |from: usize| u16::from_be_bytes([segment[from], segment[from + 1]]);
        if frame[14] >> 4 == 4 {
            assert_eq!(usize::from(half(16)), len - 14, "{what}");
            assert_eq!(half(18), 0x1234 + index as u16, "{what}");
        } else {
            assert_eq!(usize::from(half(18)), len - 54, "{what}");
        }
        let sequence = u32::from(half(at + 4)) << 16 | u32::from(half(at + 6));
        let expected = 0xffff_ff00u32.wrapping_add((index * mss) as u32);
        assert_eq!(sequence, expected, "{what}");
        let flags = frame[at + 13];
        let is_last = index + 1 == segments.len();
        let kept = if is_last { flags } else { flags & !(FIN | PSH) };
        assert_eq!(segment[at + 13], kept, "{what}");
        assert_eq!(segment[at + 12], 0x50, "{what}");
    }
}

#[test]
fn a_request_leaves_in_segments() {
    for version in [4, 6] {
        for len in [1, 99, 100, 101, 1000, 1005] {
            let mut rig = Rig::plain();
            let payload = pattern(len, 1);
            let frame = request(version, &payload, ACK | PSH | FIN);
            let header = transport(&frame) + 20;
            let segments = send(&mut rig, &frame, 100, &[header]);
            check(
                &segments,
                &frame,
                &payload,
                100,
                &format!("version {version}, {len}"),
            );
            let counters = rig.device.counters();
            let count = segments.len() as u64;
            assert_eq!((counters.segmented, counters.segments_made), (1, count));
            assert_eq!(counters.frames_sent, count);
            let sums = if version == 4 { 2 } else { 1 };
            assert_eq!(counters.checksums_inserted, sums * count);
            assert_eq!(rig.read(TSCTC), 1, "TSCTC");
            assert_eq!(rig.read(0x4080), count as u32, "GPTC");
        }
    }
}

#[test]
fn a_request_may_be_longer_than_the_fifo() {
    let mut rig = Rig::plain();
    let payload = pattern(60_000, 2);
    let frame = request(4, &payload, ACK | PSH);
    let last = {
        rig.push(context_of(&frame, 1460));
        // Four times the same 15,000 bytes would do, but these differ.
        let address = rig.put(PAYLOAD, &frame);
        let first = data(address, 54, IFCS | TSE, IXSM | TXSM);
        rig.push(first);
        rig.push(data(address + 54, 30_000, IFCS | TSE, 0));
        rig.push(data(address + 30_054, 30_000, LAST | TSE, 0))
    };
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    check(&rig.sent(), &frame, &payload, 1460, "60,000 bytes");
}

#[test]
fn pieces_may_end_anywhere_in_the_payload_and_between_headers() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        let mut random = Random::new(seed ^ 0x7509);
        for round in 0..8 {
            let version = if random.one_in(2) { 4 } else { 6 };
            let payload = pattern(2 + random.below(9000) as usize, round);
            let frame = request(version, &payload, ACK | PSH);
            let at = transport(&frame);
            let mut cuts = match random.below(3) {
                0 => vec![14, at, at + 20],
                1 => vec![at, at + 21],
                _ => vec![at + 20],
            };
            let behind = cuts[cuts.len() - 1];
            cuts.push(behind + random.below((frame.len() - behind - 1).max(1) as u64) as usize);
            cuts.dedup();
            cuts.retain(|cut| *cut < frame.len());
            let mss = 500 + random.below(1000) as usize;
            let segments = send(&mut rig, &frame, mss, &cuts);
            check(
                &segments,
                &frame,
                &payload,
                mss,
                &format!("seed {seed}, round {round}"),
            );
        }
    }
}

#[test]
fn options_of_ip_and_tcp_are_repeated() {
    let mut rig = Rig::plain();
    let payload = pattern(300, 3);
    let mut frame = request(4, &payload, ACK);
    // Twelve bytes of TCP options, four of IP.
    frame.splice(54..54, [1; 12]);
    frame.splice(34..34, [1; 4]);
    frame[14] = 0x46;
    frame[38 + 12] = 0x80;
    let raw = context((14, 24, 37), (38, 54, 0), 0b11);
    let raw = with_segmentation(raw, 300, 70, 128);
    let last = post(&mut rig, raw, &frame, &[70], IXSM | TXSM);
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    let sent = rig.sent();
    assert_eq!(sent.len(), 3);
    for (segment, part) in sent.iter().zip(payload.chunks(128)) {
        assert_eq!(segment[70..], *part);
        assert_eq!(plain_sum(&[&segment[14..38]]), 0xffff, "IPv4 header");
        let len = (segment.len() - 38) as u16;
        let pseudo = [&segment[26..34], &[0, 6], &len.to_be_bytes()].concat();
        assert_eq!(plain_sum(&[&pseudo, &segment[38..]]), 0xffff, "TCP");
    }
}

#[test]
fn the_context_is_used_again_by_the_next_request() {
    let mut rig = Rig::plain();
    let payload = pattern(250, 4);
    let frame = request(4, &payload, ACK);
    send(&mut rig, &frame, 100, &[54]);
    let address = rig.put(PAYLOAD, &frame);
    let last = rig.push(data(address, frame.len() as u32, LAST | TSE, IXSM | TXSM));
    rig.doorbell();
    rig.until_done(last);
    rig.expect_clean();
    check(
        &rig.sent()[3..],
        &frame,
        &payload,
        100,
        "the second request",
    );
}

/// Posts a request, changed by `change`, with the context, changed by `with`; whether any of it
/// was sent after the report.
fn wrong(
    version: u8,
    change: impl FnOnce(&mut Vec<u8>),
    with: impl FnOnce(&mut [u8; 16]),
    options: u8,
    part: &str,
) -> bool {
    let mut rig = Rig::warm(0, Latitude::none());
    let mut frame = request(version, &pattern(250, 5), ACK);
    let mut raw = context_of(&frame, 100);
    change(&mut frame);
    with(&mut raw);
    let header = transport(&frame) + 20;
    let last = post(&mut rig, raw, &frame, &[header], options);
    rig.doorbell();
    rig.steps(3);
    rig.expect_violation(part);
    assert!(rig.is_done(last), "{part}");
    let is_sent = !rig.sent().is_empty();
    assert_eq!(rig.read(TSCTFC), u32::from(!is_sent), "TSCTFC: {part}");
    is_sent
}

#[test]
fn frames_that_are_no_tcp_or_have_a_length_for_a_type() {
    assert!(wrong(
        4,
        |frame| frame[14 + 9] = 17,
        |_| {},
        IXSM | TXSM,
        "another protocol"
    ));
    let length = |frame: &mut Vec<u8>| frame[12..14].copy_from_slice(&[1, 0]);
    assert!(!wrong(
        4,
        length,
        |_| {},
        IXSM | TXSM,
        "a length in place of its type"
    ));
}

#[test]
fn contexts_that_make_no_segments() {
    let sends = |with: &dyn Fn(&mut [u8; 16]), part: &str| {
        wrong(4, |_| {}, |raw| with(raw), IXSM | TXSM, part)
    };
    assert!(!sends(&|raw| raw[8] = 251, "PAYLEN"));
    assert!(!sends(&|raw| raw[10] |= 1, "PAYLEN"));
    assert!(!sends(&|raw| raw[11] &= !TSE, "not one for segmentation"));
    assert!(!sends(&|raw| raw[11] &= !1, "anything but TCP"));
    assert!(!sends(&|raw| raw[14..].fill(0), "MSS is zero"));
    assert!(!sends(
        &|raw| raw[15] = 0x80,
        "do not fit the transmit FIFO"
    ));
    assert!(!sends(&|raw| raw[13] = 53, "ends before the TCP header"));
    assert!(!sends(&|raw| raw[14] = 16, "MSS is not more than 16"));
    assert!(sends(&|raw| raw[4] = 30, "from IPCSS to TUCSS"));
    assert!(sends(&|raw| raw[2] = 34, "IPCSE"));
    assert!(sends(&|raw| raw[1] = 25, "IPCSO"));
    assert!(sends(&|raw| raw[5] = 51, "TUCSO"));
    assert!(sends(&|raw| raw[6] = 200, "TUCSE"));
    assert!(sends(&|raw| raw[11] &= !2, "no IPv6 header"));
}

#[test]
fn a_request_without_a_context() {
    let mut rig = Rig::plain();
    let frame = request(4, &pattern(250, 5), ACK);
    let address = rig.put(PAYLOAD, &frame);
    let last = rig.push(data(address, frame.len() as u32, LAST | TSE, IXSM | TXSM));
    rig.doorbell();
    rig.steps(3);
    rig.expect_violation("no context since the reset");
    assert!(rig.is_done(last) && rig.sent().is_empty());
}

#[test]
fn headers_that_are_not_prepared() {
    let all = IXSM | TXSM;
    let same = |_: &mut [u8; 16]| {};
    wrong(4, |frame| frame[17] = 9, same, all, "total length");
    wrong(6, |frame| frame[19] = 9, same, TXSM, "payload length");
    wrong(
        4,
        |frame| frame[24] = 9,
        same,
        all,
        "not zero before insertion",
    );
    wrong(4, |frame| frame[50] ^= 9, same, all, "the seed");
    wrong(6, |frame| frame[70] ^= 9, same, TXSM, "the seed");
    wrong(4, |frame| seed_with_length(frame), same, all, "the seed");
    wrong(
        4,
        |frame| frame[46] = 0x60,
        same,
        all,
        "end of the TCP header",
    );
    wrong(4, |_| {}, same, TXSM, "TSE without IXSM");
    wrong(4, |_| {}, same, IXSM, "TSE without TXSM");
    wrong(6, |_| {}, same, all, "IXSM with a context for IPv6");
}

/// As it would be without segmentation.
fn seed_with_length(frame: &mut [u8]) {
    let sum = u16::from_be_bytes([frame[50], frame[51]]).wrapping_add(270);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn descriptors_that_end_inside_a_header() {
    for (cut, is_right) in [(14, true), (34, true), (20, false), (50, false), (60, true)] {
        let mut rig = Rig::plain();
        let frame = request(4, &pattern(250, 5), ACK);
        let raw = context_of(&frame, 100);
        let last = post(&mut rig, raw, &frame, &[cut], IXSM | TXSM);
        rig.doorbell();
        rig.until_done(last);
        if is_right {
            rig.expect_clean();
        } else {
            rig.expect_violation("in the middle of a header");
        }
    }
}

#[test]
fn the_frame_check_sequence_is_asked_for_in_the_first_descriptor() {
    let mut rig = Rig::plain();
    let frame = request(4, &pattern(250, 5), ACK);
    rig.push(context_of(&frame, 100));
    let address = rig.put(PAYLOAD, &frame);
    rig.push(data(address, 54, TSE, IXSM | TXSM));
    rig.push(data(address + 54, 250, LAST | TSE, 0));
    rig.doorbell();
    rig.steps(3);
    rig.expect_violation("IFCS is off in the first descriptor");
    assert!(rig.sent().is_empty());
}
