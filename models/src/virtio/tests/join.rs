//! Large packets joined from segments.

use std::collections::HashMap;

use super::super::{Latitude, ModelConfig};
use super::offload::{
    GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, TCP, complete, frame, payload, plain_sum, verifies,
};
use super::rig::*;

const ALL: u64 = LEAST | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

fn joining(seed: u64) -> ModelConfig {
    ModelConfig {
        seed,
        latitude: Latitude {
            joins_segments: true,
            ..Latitude::none()
        },
        ..ModelConfig::default()
    }
}

/// The transport header's place.
fn transport(frame: &[u8]) -> usize {
    if frame[12] == 0x86 { 54 } else { 34 }
}

/// Puts all checksums of a frame right.
fn mend(frame: &mut [u8]) {
    let at = transport(frame);
    if at == 34 {
        frame[24..26].fill(0);
        let sum = !plain_sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame[at + 16..at + 18].fill(0);
    complete_from_zero(frame, at);
}

fn complete_from_zero(frame: &mut [u8], at: usize) {
    complete(frame, at);
    assert!(verifies(frame, at));
}

/// Segments of one flow, one after the other; each of its size.
fn stream(is_ipv6: bool, sizes: &[usize]) -> (Vec<Vec<u8>>, Vec<u8>) {
    let whole = payload(sizes.iter().sum());
    let mut from = 0;
    let mut frames = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let (mut next, at) = frame(is_ipv6, TCP, &whole[from..from + size]);
        if !is_ipv6 {
            next[18..20].copy_from_slice(&(0xfff0 + index as u32).to_be_bytes()[2..]);
        }
        let sequence = 0xffff_f000u32.wrapping_add(from as u32);
        next[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
        next[at + 13] = ACK;
        mend(&mut next);
        frames.push(next);
        from += size;
    }
    (frames, whole)
}

/// Receive buffers, all of the same length.
struct Buffers {
    len: usize,
    places: HashMap<u16, usize>,
    used: Vec<(u16, usize)>,
}

impl Buffers {
    fn new(rig: &mut Rig, len: usize, count: usize) -> Self {
        let mut buffers = Self {
            len,
            places: HashMap::new(),
            used: Vec::new(),
        };
        for index in 0..count {
            buffers.give(rig, BUFFERS + index * len.next_multiple_of(64));
        }
        buffers
    }

    fn give(&mut self, rig: &mut Rig, place: usize) {
        let id = rig.push(0, &[(place, self.len, true)], false);
        self.places.insert(id, place);
    }

    fn next(&mut self, rig: &mut Rig) -> Vec<u8> {
        while self.used.is_empty() {
            self.used = rig.wait(0);
        }
        let (id, len) = self.used.remove(0);
        let place = self.places.remove(&id).unwrap();
        let bytes = rig.memory.bytes[place..place + len].to_vec();
        self.give(rig, place);
        bytes
    }

    /// A header and its frame.
    fn frame(&mut self, rig: &mut Rig) -> ([u8; 12], Vec<u8>) {
        let mut bytes = self.next(rig);
        let header: [u8; 12] = bytes[..12].try_into().unwrap();
        for _ in 1..u16::from_le_bytes([header[10], header[11]]) {
            bytes.extend(self.next(rig));
        }
        (header, bytes.split_off(12))
    }
}

fn half(header: &[u8; 12], at: usize) -> usize {
    u16::from_le_bytes([header[at], header[at + 1]]).into()
}

/// Receives until `whole` has come; every packet is what its header says. The large ones.
fn expect_stream(rig: &mut Rig, buffers: &mut Buffers, is_ipv6: bool, whole: &[u8]) -> usize {
    let seed = rig.seed;
    let (mut got, mut large) = (Vec::new(), 0);
    while got.len() < whole.len() {
        let (header, mut frame) = buffers.frame(rig);
        let at = transport(&frame);
        let sequence = 0xffff_f000u32.wrapping_add(got.len() as u32);
        assert_eq!(frame[at + 4..at + 8], sequence.to_be_bytes(), "seed {seed}");
        if header[1] != 0 {
            large += 1;
            assert_eq!(header[..2], [1, if is_ipv6 { 4 } else { 1 }], "seed {seed}");
            assert_eq!(half(&header, 2), at + 32, "seed {seed}");
            assert_eq!(
                (half(&header, 6), half(&header, 8)),
                (at, 16),
                "seed {seed}"
            );
            assert!(frame.len() > at + 32 + half(&header, 4), "seed {seed}");
            // The sum of what is there completes the packet.
            let sum = !plain_sum(&[&frame[at..]]);
            frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        }
        assert!(verifies(&frame, at), "seed {seed}");
        let len = if is_ipv6 {
            frame.len() - 54
        } else {
            frame.len() - 14
        };
        let field = if is_ipv6 { 18 } else { 16 };
        assert_eq!(
            frame[field..field + 2],
            (len as u16).to_be_bytes(),
            "seed {seed}"
        );
        got.extend_from_slice(&frame[at + 32..]);
    }
    assert!(got == whole, "seed {seed}");
    rig.expect_clean();
    large
}

#[test]
fn segments_become_large_packets() {
    for seed in 0..40 {
        let is_ipv6 = seed % 2 == 1;
        let ring = if seed % 4 < 2 { 0 } else { PACKED };
        let (features, len, count) = match seed % 3 {
            0 => (MERGE, 2048, 64),
            1 => (MERGE, 1500, 16),
            _ => (0, 65_601, 8),
        };
        let mut rig = Rig::warm(joining(seed), ALL | ring | features, 64);
        let mut buffers = Buffers::new(&mut rig, len, count);
        let (frames, whole) = stream(is_ipv6, &[1400; 60]);
        frames.iter().for_each(|frame| rig.deliver(frame));
        let large = expect_stream(&mut rig, &mut buffers, is_ipv6, &whole);
        assert!(large > 0, "seed {seed}: none was large");
        let counters = rig.device.counters();
        assert_eq!(counters.large_received as usize, large, "seed {seed}");
        assert!(counters.frames_joined as usize >= 2 * large, "seed {seed}");
    }
}

#[test]
fn a_large_packet_has_no_more_than_64_kib_and_no_more_than_there_are_buffers() {
    for (len, count, most) in [(2048, 64, 65_535), (2048, 8, 8 * 2048), (700, 5, 3500)] {
        for seed in 0..10 {
            let mut rig = Rig::warm(joining(seed), ALL | MERGE, 64);
            let mut buffers = Buffers::new(&mut rig, len, count);
            let (frames, whole) = stream(false, &[1000; 100]);
            frames.iter().for_each(|frame| rig.deliver(frame));
            let before = rig.device.counters().bytes_received;
            expect_stream(&mut rig, &mut buffers, false, &whole);
            let counters = rig.device.counters();
            let mean = (counters.bytes_received - before) / counters.frames_received;
            assert!(mean as usize <= most + 14, "seed {seed}: {mean}");
        }
    }
}

/// Delivers `frames`; how many packets come of them.
fn packets(features: u64, latitude: Latitude, frames: &[Vec<u8>]) -> usize {
    let mut most = usize::MAX;
    // How many may be joined is drawn: the fewest of some seeds.
    for seed in 0..12 {
        let config = ModelConfig {
            latitude,
            ..joining(seed)
        };
        let mut rig = Rig::warm(config, features, 64);
        let mut buffers = Buffers::new(&mut rig, 4096, 32);
        frames.iter().for_each(|frame| rig.deliver(frame));
        rig.steps(10);
        let count = rig.device.counters().frames_received as usize;
        most = most.min(count);
        for _ in 0..count {
            buffers.frame(&mut rig);
        }
        rig.expect_clean();
    }
    most
}

#[test]
fn what_does_not_belong_together_stays_apart() {
    let on = joining(0).latitude;
    let (good, _) = stream(false, &[500; 3]);
    assert_eq!(packets(ALL | MERGE, on, &good), 1);
    assert_eq!(packets(ALL | MERGE, Latitude::none(), &good), 3);
    assert_eq!(packets(LEAST | GUEST_CSUM | MERGE, on, &good), 3);
    let other_kind = LEAST | GUEST_CSUM | GUEST_TSO6 | MERGE;
    assert_eq!(packets(other_kind, on, &good), 3);
    type Change = fn(&mut Vec<u8>);
    // To the second of three: which of them can be joined all the same.
    let changes: [(&str, usize, Change); 12] = [
        ("sequence", 3, |frame| frame[41] ^= 4),
        ("acknowledgement", 3, |frame| frame[45] ^= 1),
        ("port", 3, |frame| frame[37] ^= 1),
        ("address", 3, |frame| frame[29] ^= 1),
        ("station", 3, |frame| frame[5] ^= 1),
        ("time to live", 3, |frame| frame[22] ^= 1),
        ("congestion", 3, |frame| frame[15] = 3),
        ("options", 3, |frame| frame[60] ^= 1),
        ("CWR", 3, |frame| frame[47] |= 0x80),
        ("SYN", 3, |frame| frame[47] |= 0x02),
        ("PSH ends it", 2, |frame| frame[47] |= PSH),
        ("the identification does not matter with DF", 1, |frame| {
            frame[19] ^= 9
        }),
    ];
    for (what, due, change) in changes {
        let mut frames = good.clone();
        change(&mut frames[1]);
        mend(&mut frames[1]);
        assert_eq!(packets(ALL | MERGE, on, &frames), due, "{what}");
    }
    let mut frames = good.clone();
    *frames[1].last_mut().unwrap() ^= 1;
    assert_eq!(packets(ALL | MERGE, on, &frames), 3, "a wrong checksum");
    let mut frames = good.clone();
    for frame in &mut frames {
        frame[20] = 0;
        mend(frame);
    }
    frames[1][19] ^= 9;
    mend(&mut frames[1]);
    assert_eq!(packets(ALL | MERGE, on, &frames), 3, "without DF");
    let mut frames = good;
    for frame in &mut frames {
        frame.splice(12..12, [0x81, 0, 0, 7]);
    }
    assert_eq!(packets(ALL | MERGE, on, &frames), 3, "tagged");
    let (frames, _) = stream(false, &[500, 300, 500]);
    assert_eq!(packets(ALL | MERGE, on, &frames), 2, "a short one ends it");
    let (frames, _) = stream(false, &[500, 501, 501]);
    assert_eq!(
        packets(ALL | MERGE, on, &frames),
        2,
        "a longer one begins anew"
    );
}
