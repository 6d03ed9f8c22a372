//! Checksums and segmentation, both ways, checked against the definitions.

use super::super::{Latitude, ModelConfig};
use super::rig::*;

pub(super) const CSUM: u64 = 1;
pub(super) const GUEST_CSUM: u64 = 1 << 1;
pub(super) const GUEST_TSO4: u64 = 1 << 7;
pub(super) const GUEST_TSO6: u64 = 1 << 8;
pub(super) const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// The definition of the checksum.
pub(super) fn plain_sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for word in parts.concat().chunks(2) {
        total += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// A frame with all checksums zero, and where its transport header is. TCP has 12 bytes of
/// options, all flags but URG, SYN and RST.
pub(super) fn frame(is_ipv6: bool, protocol: u8, payload: &[u8]) -> (Vec<u8>, usize) {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
    let header = if protocol == TCP { 32 } else { 8 };
    let len = header + payload.len();
    if is_ipv6 {
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend_from_slice(&(len as u16).to_be_bytes());
        frame.extend_from_slice(&[protocol, 64]);
        frame.extend((0..32).map(|byte: u8| byte.wrapping_mul(37)));
    } else {
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        frame.extend_from_slice(&((20 + len) as u16).to_be_bytes());
        frame.extend_from_slice(&[0xff, 0xfe, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    }
    let transport = frame.len();
    frame.extend_from_slice(&[0x30, 0x39, 0, 80]);
    if protocol == TCP {
        frame.extend_from_slice(&0xffff_f000u32.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 2, 0x80, 0b0001_1001, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend_from_slice(&[1; 12]);
    } else {
        frame.extend_from_slice(&(len as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
    }
    frame.extend_from_slice(payload);
    if !is_ipv6 {
        let sum = !plain_sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    (frame, transport)
}

fn pseudo_header(frame: &[u8], transport: usize) -> Vec<u8> {
    let is_ipv6 = frame[12] == 0x86;
    let (addresses, protocol) = if is_ipv6 {
        (&frame[22..54], frame[20])
    } else {
        (&frame[26..34], frame[23])
    };
    let mut pseudo = addresses.to_vec();
    pseudo.extend_from_slice(&[0, protocol]);
    pseudo.extend_from_slice(&((frame.len() - transport) as u16).to_be_bytes());
    pseudo
}

fn field(frame: &[u8], transport: usize) -> usize {
    let protocol = if frame[12] == 0x86 {
        frame[20]
    } else {
        frame[23]
    };
    transport + if protocol == TCP { 16 } else { 6 }
}

/// Puts the pseudo-header sum where the device expects it.
pub(super) fn seed(frame: &mut [u8], transport: usize) {
    let sum = plain_sum(&[&pseudo_header(frame, transport)]);
    let at = field(frame, transport);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Fills in the transport checksum.
pub(super) fn complete(frame: &mut [u8], transport: usize) {
    let sum = !plain_sum(&[&pseudo_header(frame, transport), &frame[transport..]]);
    let at = field(frame, transport);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether lengths and checksums of a frame are right.
pub(super) fn verifies(frame: &[u8], transport: usize) -> bool {
    let is_ipv6 = frame[12] == 0x86;
    let at = if is_ipv6 { 18 } else { 16 };
    let len = usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let whole = if is_ipv6 { len + 54 } else { len + 14 };
    whole == frame.len()
        && (is_ipv6 || plain_sum(&[&frame[14..34]]) == 0xffff)
        && plain_sum(&[&pseudo_header(frame, transport), &frame[transport..]]) == 0xffff
}

pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|byte| ((byte * 31) >> 3) as u8).collect()
}

#[test]
fn checksums_are_inserted() {
    for is_ipv6 in [false, true] {
        for protocol in [TCP, UDP] {
            for len in [0, 1, 700, 1001] {
                let mut rig = Rig::warm(plain(), LEAST | CSUM, 8);
                let (mut frame, transport) = frame(is_ipv6, protocol, &payload(len));
                seed(&mut frame, transport);
                let offset = (field(&frame, transport) - transport) as u16;
                rig.send(header(1, 0, [0, 0, transport as u16, offset]), &frame);
                rig.wait(1);
                let sent = rig.sent();
                assert!(verifies(&sent[0], transport), "{is_ipv6} {protocol} {len}");
                let at = transport + usize::from(offset);
                frame[at..at + 2].copy_from_slice(&sent[0][at..at + 2]);
                assert_eq!(sent[0], frame, "nothing else is changed");
                rig.expect_clean();
            }
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_goes_as_ones() {
    let mut rig = Rig::warm(plain(), LEAST | CSUM, 8);
    let (mut frame, transport) = frame(false, UDP, &[0, 0]);
    // Payload that brings the sum to 0xffff.
    let rest = !plain_sum(&[&pseudo_header(&frame, transport), &frame[transport..]]);
    let end = frame.len();
    frame[end - 2..].copy_from_slice(&rest.to_be_bytes());
    seed(&mut frame, transport);
    rig.send(header(1, 0, [0, 0, transport as u16, 6]), &frame);
    rig.wait(1);
    assert_eq!(rig.sent()[0][transport + 6..transport + 8], [0xff, 0xff]);
}

#[test]
fn segments_are_made_by_the_book() {
    for is_ipv6 in [false, true] {
        for (len, size) in [
            (10_000, 1448),
            (1448, 1448),
            (2896, 1448),
            (5, 1),
            (60_000, 536),
            (1, 9),
        ] {
            let mut rig = Rig::warm(plain(), LEAST | CSUM | HOST_TSO4 | HOST_TSO6, 8);
            let whole = payload(len);
            let (mut frame, transport) = frame(is_ipv6, TCP, &whole);
            seed(&mut frame, transport);
            let headers = transport + 32;
            let kind = if is_ipv6 { 4 } else { 1 };
            rig.send(
                header(1, kind, [headers as u16, size as u16, transport as u16, 16]),
                &frame,
            );
            rig.wait(1);
            let sent = rig.sent();
            assert_eq!(sent.len(), len.div_ceil(size));
            let mut got = Vec::new();
            for (index, segment) in sent.iter().enumerate() {
                let last = index + 1 == sent.len();
                assert!(
                    verifies(segment, transport),
                    "segment {index} of {len}/{size}"
                );
                let sequence = &segment[transport + 4..transport + 8];
                let due = 0xffff_f000u32.wrapping_add((index * size) as u32);
                assert_eq!(sequence, due.to_be_bytes());
                let flags = if last { 0b0001_1001 } else { 0b0001_0000 };
                assert_eq!(segment[transport + 13], flags);
                assert!(last || segment.len() == headers + size);
                if !is_ipv6 {
                    let id = 0xfffeu16.wrapping_add(index as u16);
                    assert_eq!(segment[18..20], id.to_be_bytes());
                }
                // What segmentation does not touch.
                assert_eq!(segment[..14], frame[..14]);
                assert_eq!(
                    segment[transport + 8..transport + 13],
                    frame[transport + 8..transport + 13]
                );
                got.extend_from_slice(&segment[headers..]);
            }
            assert!(got == whole);
            assert_eq!(rig.device.counters().segmented, 1);
            rig.expect_clean();
        }
    }
}

#[test]
fn headers_for_segmentation_are_checked() {
    let good = [66, 1448, 34, 16];
    let cases: [(u8, u8, [u16; 4], &str); 7] = [
        (0, 1, good, "without NEEDS_CSUM"),
        (1, 4, good, "another packet"),
        (1, 0x81, good, "HOST_ECN"),
        (1, 3, good, "gso_type"),
        (1, 1, [66, 0, 34, 16], "gso_size 0"),
        (1, 1, [66, 1448, 35, 16], "csum_start 35"),
        (2, 0, [0, 0, 0, 0], "header flags"),
    ];
    for (flags, kind, numbers, part) in cases {
        let mut rig = Rig::warm(plain(), LEAST | CSUM | HOST_TSO4 | HOST_TSO6, 8);
        let (mut frame, transport) = frame(false, TCP, &payload(1000));
        seed(&mut frame, transport);
        rig.send(header(flags, kind, numbers), &frame);
        rig.wait(1);
        rig.expect_violation(part);
    }
}

#[test]
fn a_header_length_is_a_hint() {
    for len in [0, 65, 66, 2000] {
        let mut rig = Rig::warm(plain(), LEAST | CSUM | HOST_TSO4, 8);
        let (mut frame, transport) = frame(false, TCP, &payload(1000));
        seed(&mut frame, transport);
        rig.send(header(1, 1, [len, 500, 34, 16]), &frame);
        rig.wait(1);
        assert_eq!(rig.sent().len(), 2, "hdr_len {len}");
        rig.expect_clean();
        let advice = rig.device.take_advice();
        assert_eq!(advice.is_empty(), len == 66, "hdr_len {len}: {advice:?}");
    }
}

#[test]
fn offloads_need_their_features() {
    let (mut frame, transport) = frame(false, TCP, &payload(3000));
    seed(&mut frame, transport);
    let mut rig = Rig::warm(plain(), LEAST, 8);
    rig.send(header(1, 0, [0, 0, 34, 16]), &frame);
    rig.wait(1);
    rig.expect_violation("NEEDS_CSUM without CSUM");
    let mut rig = Rig::warm(plain(), LEAST | CSUM, 8);
    rig.send(header(1, 1, [66, 1448, 34, 16]), &frame);
    rig.wait(1);
    rig.expect_violation("not negotiated");
    assert!(rig.sent().is_empty());
    // Outside the frame, and a wrong seed.
    rig.send(header(1, 0, [0, 0, 3060, 16]), &frame);
    rig.wait(1);
    rig.expect_violation("csum_start 3060");
    frame[50] ^= 1;
    rig.send(header(1, 0, [0, 0, 34, 16]), &frame);
    rig.wait(1);
    rig.expect_violation("pseudo-header sum");
}

/// Gives one buffer of 64 KiB and receives into it: header and frame.
fn receive(rig: &mut Rig, frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    rig.deliver(frame);
    rig.push(
        0,
        &[(BUFFERS, 30_000, true), (BUFFERS + 30_000, 36_000, true)],
        false,
    );
    let (_, len) = rig.wait(0)[0];
    let bytes = rig.memory.bytes[BUFFERS..BUFFERS + len].to_vec();
    (bytes[..12].to_vec(), bytes[12..].to_vec())
}

#[test]
fn checksum_verdicts_are_true() {
    let mut kinds = [0; 3];
    for seed in 0..60 {
        let config = ModelConfig {
            seed,
            latitude: Latitude::default(),
            ..ModelConfig::default()
        };
        let mut rig = Rig::warm(config, LEAST | GUEST_CSUM, 8);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..4 {
            let protocol = if random.bool() { TCP } else { UDP };
            let (mut frame, transport) =
                frame(random.bool(), protocol, &payload(random.usize(1..900)));
            complete(&mut frame, transport);
            let (header, mut got) = receive(&mut rig, &frame);
            kinds[usize::from(header[0])] += 1;
            if header[0] == 1 {
                let start = usize::from(u16::from_le_bytes([header[6], header[7]]));
                let at = start + usize::from(u16::from_le_bytes([header[8], header[9]]));
                assert_ne!(got, frame, "seed {seed}");
                let sum = !plain_sum(&[&got[start..]]);
                got[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
            assert_eq!(got, frame, "seed {seed}");
            // One that is wrong has no verdict.
            let last = frame.len() - 1;
            frame[last] ^= 1;
            let (header, got) = receive(&mut rig, &frame);
            assert_eq!((header[0], got), (0, frame), "seed {seed}");
        }
        rig.expect_clean();
    }
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}

#[test]
fn without_guest_csum_there_is_no_verdict() {
    let mut rig = Rig::warm(plain(), LEAST, 8);
    let (mut frame, transport) = frame(false, TCP, &payload(100));
    complete(&mut frame, transport);
    let (header, got) = receive(&mut rig, &frame);
    assert_eq!(header, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(got, frame);
}

#[test]
fn long_frames_come_whole_or_in_segments() {
    for (is_ipv6, wanted, kind) in [(false, GUEST_TSO4, 1), (true, GUEST_TSO6, 4)] {
        let whole = payload(20_000);
        let (mut frame, transport) = frame(is_ipv6, TCP, &whole);
        complete(&mut frame, transport);
        let mut rig = Rig::warm(plain(), LEAST | GUEST_CSUM | wanted, 8);
        let (header, got) = receive(&mut rig, &frame);
        let mss = 1500 - (transport - 14) - 32;
        assert_eq!(header[..2], [1, kind]);
        assert_eq!(header[4..6], (mss as u16).to_le_bytes());
        assert_eq!(got[transport + 32..], whole);
        rig.expect_clean();
        let mut rig = Rig::warm(plain(), LEAST | GUEST_CSUM, 8);
        let mut all = Vec::new();
        rig.deliver(&frame);
        while all.len() < whole.len() {
            rig.push(0, &[(BUFFERS, 2000, true)], false);
            let (_, len) = rig.wait(0)[0];
            let segment = &rig.memory.bytes[BUFFERS + 12..BUFFERS + len];
            assert!(verifies(segment, transport));
            assert!(segment.len() <= 1514);
            all.extend_from_slice(&segment[transport + 32..]);
        }
        assert!(all == whole);
        rig.expect_clean();
    }
}
