//! Packet split: headers and payload in buffers of their own.

use super::super::Latitude;
use super::super::pace::Random;
use super::rig::*;
use crate::rig::transport;

const PSRCTL: u32 = 0x2170;
const RFCTL: u32 = 0x5008;
const RCTL: u32 = 0x0100;
const RDT: u32 = 0x2818;
const EXSTEN: u32 = 1 << 15;
const DTYP: u32 = 1 << 10;
const LPE: u32 = 1 << 5;
/// 128 bytes for headers, then 4, 4 and 1 KiB.
const SIZES: u32 = 0x0104_0401;
const BYTES: [usize; 4] = [128, 4096, 4096, 1024];
const DD: u32 = 1;
const EOP: u32 = 2;
const HDRSP: u16 = 1 << 15;
/// From one descriptor's buffers to the next one's.
const STRIDE: usize = 0x3000;
/// Packet split descriptors in a ring.
const COUNT: u32 = ENTRIES / 2;

/// Packet split with buffers as PSRCTL says.
fn split(rig: &mut Rig, sizes: u32) {
    rig.write(RCTL, 0);
    rig.ring(0x2800, RX_RING);
    rig.write(RFCTL, EXSTEN);
    rig.write(PSRCTL, sizes);
    rig.write(RCTL, 1 << 1 | 1 << 15 | 1 << 26 | DTYP | LPE);
}

fn split_rig() -> Rig {
    let mut rig = Rig::plain();
    split(&mut rig, SIZES);
    rig
}

/// Where buffer `buffer` of descriptor `index` is.
fn place(index: u32, buffer: usize) -> usize {
    BUFFERS + index as usize * STRIDE + [0, 0x200, 0x1200, 0x2200][buffer]
}

/// Fills in descriptor `index`; buffers without a size have the address that Linux gives them.
fn give_one(rig: &mut Rig, index: u32, sizes: u32) {
    let at = RX_RING + index as usize * 32;
    for buffer in 0..4 {
        let used = sizes >> (8 * buffer) & 0x7f != 0;
        let address = if used {
            MEMORY + place(index, buffer) as u64
        } else {
            u64::MAX
        };
        rig.memory.put(at + 8 * buffer, &address.to_le_bytes());
    }
}

fn give(rig: &mut Rig, count: u32) {
    for index in 0..count {
        give_one(rig, index, SIZES);
    }
    rig.write(RDT, 2 * count);
}

/// A packet split descriptor after write-back.
#[derive(Debug, PartialEq)]
struct Split {
    status: u32,
    header_status: u16,
    lens: [usize; 4],
    checksum: u16,
    identification: u16,
}

fn written(rig: &Rig, index: u32) -> Split {
    let at = RX_RING + index as usize * 32;
    let half = |from: usize| rig.memory.half(at + from);
    let len = |from: usize| usize::from(half(from));
    Split {
        status: u32::from(half(10)) << 16 | u32::from(half(8)),
        header_status: half(16),
        lens: [len(12), len(18), len(20), len(22)],
        checksum: half(6),
        identification: half(4),
    }
}

/// The bytes that a descriptor got, one buffer after the other.
fn stored(rig: &Rig, index: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (buffer, len) in written(rig, index).lens.into_iter().enumerate() {
        let at = place(index, buffer);
        bytes.extend_from_slice(&rig.memory.bytes[at..at + len]);
    }
    bytes
}

fn packet(version: u8, protocol: u8, payload: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload).map(|i| (i / 7) as u8).collect();
    let mut frame = ip_frame(version, protocol, &payload);
    fill_checksums(&mut frame);
    frame
}

#[test]
fn headers_and_payload_lie_apart() {
    for (version, protocol) in [(4, 6), (4, 17), (6, 6), (6, 17)] {
        let mut rig = split_rig();
        give(&mut rig, 4);
        let frame = packet(version, protocol, 5000);
        rig.deliver(&frame);
        rig.steps(2);
        let header = transport(&frame) + if protocol == 6 { 20 } else { 8 };
        let split = written(&rig, 0);
        assert_eq!(split.lens, [header, 4096, 904, 0]);
        assert_eq!(split.header_status, HDRSP | header as u16);
        assert_eq!(split.status & (DD | EOP), DD | EOP);
        assert_eq!(split.status >> 29, 0, "checksum errors");
        assert_eq!(split.checksum, plain_sum(&[&frame]));
        let identification = if version == 4 { 0x1234 } else { 0 };
        assert_eq!(split.identification, identification);
        assert_eq!(stored(&rig, 0), frame);
        assert_eq!(rig.read(0x2810), 2, "RDH");
        assert_eq!(rig.read(0x4088), frame.len() as u32 + 4, "GORCL");
        rig.expect_clean();
    }
}

#[test]
fn what_has_no_header_to_split_fills_the_buffers_in_turn() {
    let mut rig = split_rig();
    give(&mut rig, 4);
    let mut strange = packet(4, 6, 4200);
    strange[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mut other_protocol = packet(4, 6, 1000);
    other_protocol[23] = 1;
    rig.deliver(&strange);
    rig.deliver(&other_protocol);
    rig.steps(2);
    assert_eq!(written(&rig, 0).lens, [128, 4096, 30, 0]);
    assert_eq!(written(&rig, 1).lens, [128, 926, 0, 0]);
    for (index, frame) in [strange, other_protocol].iter().enumerate() {
        assert_eq!(written(&rig, index as u32).header_status, 0);
        assert_eq!(stored(&rig, index as u32), *frame);
    }
    rig.expect_clean();
}

#[test]
fn fragments_are_cut_behind_ip_unless_that_is_off() {
    for off in [false, true] {
        let mut rig = split_rig();
        if off {
            rig.write(RFCTL, EXSTEN | 1 << 14);
        }
        give(&mut rig, 2);
        let mut fragment = packet(4, 17, 600);
        fragment[20] = 0x20;
        rig.deliver(&fragment);
        rig.steps(2);
        let split = written(&rig, 0);
        if off {
            assert_eq!(split.lens[0], 128);
            assert_eq!(split.header_status, 0);
        } else {
            assert_eq!(split.lens[0], 34);
            assert_eq!(split.header_status, HDRSP | 34);
        }
        assert_eq!(stored(&rig, 0), fragment);
        rig.expect_clean();
    }
}

#[test]
fn a_header_that_does_not_fit_the_first_buffer_is_not_split_off() {
    let mut rig = split_rig();
    give(&mut rig, 2);
    // 60 bytes of options each: 14 + 60 + 60 is more than 128.
    let mut frame = packet(4, 6, 400);
    frame[14] = 0x4f;
    frame[34 + 40 + 12] = 0xf0;
    rig.deliver(&frame);
    rig.steps(2);
    assert_eq!(written(&rig, 0).header_status, 0);
    assert_eq!(written(&rig, 0).lens[0], 128);
    assert_eq!(stored(&rig, 0), frame);
}

#[test]
fn a_second_descriptor_leaves_its_first_buffer_empty() {
    let mut rig = split_rig();
    give(&mut rig, 8);
    let frame = packet(4, 6, 9216 + 700);
    rig.deliver(&frame);
    rig.steps(2);
    let (first, second) = (written(&rig, 0), written(&rig, 1));
    assert_eq!(first.lens, [54, 4096, 4096, 1024]);
    assert_eq!(first.status & (DD | EOP), DD);
    assert_eq!(first.header_status, HDRSP | 54);
    assert_eq!(second.lens, [0, 700, 0, 0]);
    assert_eq!(second.status & (DD | EOP), DD | EOP);
    assert_eq!(second.header_status, 0);
    assert_eq!([stored(&rig, 0), stored(&rig, 1)].concat(), frame);
    rig.expect_clean();
}

#[test]
fn buffers_without_a_size_are_not_touched() {
    let mut rig = Rig::plain();
    // 256 bytes and one of 2 KiB.
    split(&mut rig, 0x0202);
    for index in 0..4 {
        give_one(&mut rig, index, 0x0202);
    }
    rig.write(RDT, 8);
    let frame = packet(4, 6, 3000);
    rig.deliver(&frame);
    rig.steps(2);
    assert_eq!(written(&rig, 0).lens, [54, 2048, 0, 0]);
    assert_eq!(written(&rig, 1).lens, [0, 952, 0, 0]);
    rig.expect_clean();
}

#[test]
fn what_does_not_fit_is_missed() {
    let mut rig = split_rig();
    give(&mut rig, 1);
    rig.deliver(&packet(4, 6, 9217));
    rig.deliver(&packet(4, 6, 9216));
    rig.steps(2);
    assert_eq!(rig.read(0x4010), 1, "MPC");
    assert_eq!(written(&rig, 0).lens, [54, 4096, 4096, 1024]);
    rig.expect_clean();
}

#[test]
fn the_check_sequence_is_behind_the_payload() {
    let mut rig = split_rig();
    let control = rig.read(RCTL);
    rig.write(RCTL, control & !(1 << 26));
    give(&mut rig, 1);
    let frame = packet(4, 6, 4094);
    rig.deliver(&frame);
    rig.steps(2);
    assert_eq!(written(&rig, 0).lens, [54, 4096, 2, 0]);
    assert_eq!(stored(&rig, 0)[..frame.len()], frame);
    rig.expect_clean();
}

#[test]
fn another_layout_after_a_reset_is_followed() {
    let mut rig = split_rig();
    give(&mut rig, 4);
    rig.deliver(&packet(4, 6, 100));
    rig.steps(2);
    rig.initialise();
    rig.start_receive(0);
    rig.give(4);
    let frame = packet(4, 6, 200);
    rig.until("link", |rig| rig.read(0x0008) & 2 != 0);
    rig.deliver(&frame);
    rig.steps(2);
    assert_eq!(rig.rx(0).len, frame.len());
    assert_eq!(rig.buffer(0)[..frame.len()], frame);
    // And back.
    rig.initialise();
    split(&mut rig, SIZES);
    rig.until("link", |rig| rig.read(0x0008) & 2 != 0);
    give(&mut rig, 4);
    rig.deliver(&frame);
    rig.steps(2);
    assert_eq!(written(&rig, 0).lens, [54, 200, 0, 0]);
    rig.expect_clean();
}

#[test]
fn descriptors_that_make_no_sense() {
    let mut rig = split_rig();
    give_one(&mut rig, 0, SIZES);
    rig.memory.bytes[RX_RING + 16..RX_RING + 24].fill(0);
    rig.write(RDT, 2);
    rig.step();
    rig.expect_violation("without one of its buffers");
    // What was written back in the place of the second address.
    let mut rig = split_rig();
    give_one(&mut rig, 0, SIZES);
    rig.memory.bytes[RX_RING + 8] |= 1;
    rig.write(RDT, 2);
    rig.step();
    rig.expect_violation("its status is not clear");
    let mut rig = split_rig();
    give_one(&mut rig, 0, SIZES);
    rig.write(RDT, 1);
    rig.expect_violation("middle of a packet split descriptor");
    rig.deliver(&packet(4, 6, 10));
    rig.steps(2);
    assert_eq!(rig.read(0x4010), 1, "half a descriptor was used");
}

#[test]
fn registers_that_make_no_sense() {
    let start = |format: u32, sizes: u32| {
        let mut rig = Rig::plain();
        rig.write(RCTL, 0);
        rig.write(RFCTL, format);
        rig.write(PSRCTL, sizes);
        rig.write(RCTL, 1 << 1 | DTYP);
        rig
    };
    start(EXSTEN, SIZES).expect_clean();
    start(0, SIZES).expect_violation("without RFCTL.EXSTEN");
    start(EXSTEN, 0x0400).expect_violation("no room for headers");
    start(EXSTEN, 0x0004_0001).expect_violation("one before it has none");
    let mut rig = split_rig();
    // Nothing was given yet.
    rig.write(PSRCTL, 0x0402);
    rig.write(PSRCTL, SIZES);
    rig.expect_clean();
    give(&mut rig, 2);
    rig.write(PSRCTL, 0x0402);
    rig.expect_violation("buffer sizes were changed");
    rig.write(RFCTL, 0);
    rig.expect_violation("descriptor format was changed");
    rig.write(RCTL, 1 << 1);
    rig.expect_violation("descriptor type was changed");
    rig.write(RCTL, 2 << 10);
    rig.expect_violation("reserved descriptor type");
}

/// The soak: packets and other frames of random lengths with every latitude, and buffers given
/// back at random. What is received is what was sent, in order.
#[test]
fn every_frame_is_received_once_and_in_order_whatever_the_latitude() {
    let mut unsplit = 0;
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        split(&mut rig, SIZES);
        let mut random = Random::new(seed ^ 0xf00d);
        give(&mut rig, COUNT - 1);
        let (mut next, mut tail) = (0, COUNT - 1);
        let mut sent = std::collections::VecDeque::new();
        let mut frame = Vec::new();
        let mut received = 0;
        while received < 100 {
            // Never more on the way than the buffers can take.
            if sent.len() < 4 && random.one_in(2) {
                let version = if random.one_in(2) { 4 } else { 6 };
                let protocol = if random.one_in(2) { 6 } else { 17 };
                let mut next = packet(version, protocol, 20 + random.below(12_000) as usize);
                if random.one_in(4) {
                    next[12] = 0x99;
                }
                rig.deliver(&next);
                sent.push_back(next);
            }
            rig.step();
            while written(&rig, next).status & DD != 0 {
                let split = written(&rig, next);
                let is_first = frame.is_empty();
                assert_eq!(split.lens[0] > 0, is_first, "seed {seed}, frame {received}");
                frame.extend_from_slice(&stored(&rig, next));
                if is_first && frame[12] != 0x99 {
                    unsplit += u32::from(split.header_status == 0);
                }
                for (len, most) in split.lens.iter().zip(BYTES) {
                    assert!(*len <= most, "seed {seed}, frame {received}");
                }
                if split.status & EOP != 0 {
                    let expected = sent.pop_front();
                    assert!(
                        Some(&frame) == expected.as_ref(),
                        "seed {seed}, frame {received}"
                    );
                    frame.clear();
                    received += 1;
                }
                give_one(&mut rig, tail, SIZES);
                tail = (tail + 1) % COUNT;
                next = (next + 1) % COUNT;
            }
            rig.write(RDT, 2 * tail);
        }
        assert_eq!(rig.device.counters().frames_missed, 0, "seed {seed}");
        rig.expect_clean();
    }
    assert!(unsplit > 0, "every packet was split in seeds 0 to 19");
}

#[test]
fn without_latitude_every_packet_is_split() {
    assert!(!Latitude::none().unsplit_packets);
    let mut rig = split_rig();
    give(&mut rig, COUNT - 1);
    for _ in 0..COUNT - 1 {
        rig.deliver(&packet(4, 6, 1));
    }
    rig.steps(3);
    for index in 0..COUNT - 1 {
        assert_eq!(written(&rig, index).lens, [54, 6, 0, 0], "padded to 60");
    }
    rig.expect_clean();
}
