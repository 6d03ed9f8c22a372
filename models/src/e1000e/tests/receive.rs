//! Receiving.

use super::super::Latitude;
use super::super::checksum::frame_check_sequence;
use super::super::pace::Random;
use super::rig::*;

const DD: u8 = 1;
const EOP: u8 = 2;
const IXSM: u8 = 4;
const UDPCS: u8 = 16;
const TCPCS: u8 = 32;
const IPCS: u8 = 64;
const PIF: u8 = 128;
const TCPE: u8 = 32;
const IPE: u8 = 64;

/// A frame to `destination` of `len` bytes.
fn frame_to(destination: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame = destination.to_vec();
    frame.extend((6..len).map(|i| i as u8));
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

#[test]
fn a_frame_is_stored_and_described() {
    let mut rig = Rig::plain();
    rig.give(8);
    let frame = frame_to(MAC, 100);
    rig.deliver(&frame);
    rig.steps(2);
    let received = rig.rx(0);
    assert_eq!(received.status, DD | EOP | IXSM);
    assert_eq!((received.len, received.errors), (100, 0));
    assert_eq!(received.checksum, plain_sum(&[&frame]));
    assert_eq!(rig.buffer(0)[..100], frame);
    assert_eq!(rig.rx(1).status, 0);
    assert_eq!(rig.read(0x2810), 1, "RDH");
    assert_eq!(rig.read(0x4074), 1, "GPRC");
    assert_eq!(rig.read(0x4088), 104, "GORCL");
    rig.expect_clean();
}

#[test]
fn short_frames_come_padded() {
    let mut rig = Rig::plain();
    rig.give(2);
    rig.deliver(&frame_to(MAC, 30));
    rig.deliver(&[1, 2, 3]);
    rig.steps(2);
    assert_eq!(rig.rx(0).len, 60);
    assert_eq!(rig.buffer(0)[30..60], [0; 30]);
    assert_eq!(rig.rx(1).status, 0, "not even an address");
    assert_eq!(rig.read(0x40a4), 1, "RUC");
}

#[test]
fn without_stripping_the_length_includes_the_check_sequence() {
    let mut rig = Rig::plain();
    rig.start_receive(0);
    let control = rig.read(0x0100);
    rig.write(0x0100, control & !(1 << 26));
    rig.give(2);
    let frame = frame_to(MAC, 80);
    rig.deliver(&frame);
    rig.steps(2);
    assert_eq!(rig.rx(0).len, 84);
    assert_eq!(rig.buffer(0)[80..84], frame_check_sequence(&frame));
    rig.expect_clean();
}

#[test]
fn long_frames_take_several_buffers() {
    for len in [4095, 4096, 4097, 9000] {
        let mut rig = Rig::plain();
        rig.start_receive(1 << 5);
        rig.give(8);
        let frame = frame_to(MAC, len);
        rig.deliver(&frame);
        rig.steps(2);
        let buffers = len.div_ceil(BUFFER) as u32;
        let mut stored = Vec::new();
        for index in 0..buffers {
            let received = rig.rx(index);
            let is_last = index + 1 == buffers;
            assert_eq!(received.status & DD, DD);
            assert_eq!(
                received.status & EOP != 0,
                is_last,
                "descriptor {index} of {len}"
            );
            assert_eq!(
                received.checksum != 0,
                index == 0,
                "descriptor {index} of {len}"
            );
            stored.extend_from_slice(&rig.buffer(index)[..received.len]);
        }
        assert_eq!(stored, frame);
        assert_eq!(rig.rx(buffers).status, 0);
        rig.expect_clean();
    }
}

#[test]
fn giants_need_lpe() {
    for (len, extra, expected) in [
        (1518, 0, true),
        (1519, 0, false),
        (1519, 1 << 5, true),
        (16380, 1 << 5, true),
        (16381, 1 << 5, false),
    ] {
        let mut rig = Rig::plain();
        rig.start_receive(extra);
        rig.give(16);
        rig.deliver(&frame_to(MAC, len));
        rig.steps(2);
        assert_eq!(rig.rx(0).status & DD != 0, expected, "{len} bytes");
        assert_eq!(rig.read(0x40ac), u32::from(!expected), "ROC, {len} bytes");
    }
}

/// Whether a frame to `destination` is stored, with RCTL bits `extra`, after `setup`.
fn passes(destination: [u8; 6], extra: u32, setup: impl FnOnce(&mut Rig)) -> Option<u8> {
    let mut rig = Rig::plain();
    rig.start_receive(extra);
    setup(&mut rig);
    rig.give(2);
    rig.deliver(&frame_to(destination, 64));
    rig.steps(2);
    rig.expect_clean();
    let status = rig.rx(0).status;
    (status & DD != 0).then_some(status)
}

#[test]
fn the_address_filter() {
    let other = [0x02, 0x99, 0, 0, 0, 1];
    let group = [0x01, 0x00, 0x5e, 0x00, 0x12, 0x34];
    let nothing = |_: &mut Rig| {};
    assert!(passes(MAC, 0, nothing).is_some());
    assert!(passes([0xff; 6], 0, nothing).is_some(), "BAM is on");
    assert!(
        passes([0xff; 6], 0, |rig| {
            let control = rig.read(0x0100);
            rig.write(0x0100, control & !(1 << 15));
        })
        .is_none()
    );
    assert!(passes(other, 0, nothing).is_none());
    assert!(passes(other, 1 << 3, nothing).is_some(), "UPE");
    assert!(passes(group, 0, nothing).is_none());
    assert!(passes(group, 1 << 4, nothing).is_some(), "MPE");
    assert!(
        passes(group, 1 << 3, nothing).is_none(),
        "UPE is not for groups"
    );
    // A second station address.
    assert!(
        passes(other, 0, |rig| {
            rig.write(0x5408, 0x0000_9902);
            rig.write(0x540c, 0x8000_0100);
        })
        .is_some()
    );
    // MO 0: bits 47:36 of the address, 0x341 here.
    let table = |rig: &mut Rig| rig.write(0x5200 + 4 * (0x341 >> 5), 1 << (0x341 & 31));
    let status = passes(group, 0, table);
    assert_eq!(status.map(|status| status & PIF), Some(PIF));
    assert!(
        passes(group, 3 << 12, table).is_none(),
        "MO 3 takes other bits"
    );
}

/// The status and errors of a frame, with all checks on.
fn verdict(frame: &[u8]) -> (u8, u8) {
    let mut rig = Rig::plain();
    rig.give(2);
    rig.deliver(frame);
    rig.steps(2);
    let received = rig.rx(0);
    (received.status & !(DD | EOP), received.errors)
}

#[test]
fn checksums_are_verified() {
    let mut tcp = ip_frame(4, 6, &[5; 77]);
    fill_checksums(&mut tcp);
    assert_eq!(verdict(&tcp), (IPCS | TCPCS, 0));
    let mut udp = ip_frame(4, 17, &[5; 77]);
    fill_checksums(&mut udp);
    assert_eq!(verdict(&udp), (IPCS | TCPCS | UDPCS, 0));
    // Padding is not part of the packet.
    let mut short = ip_frame(4, 17, &[5; 3]);
    fill_checksums(&mut short);
    short.extend_from_slice(&[0xaa; 20]);
    assert_eq!(verdict(&short), (IPCS | TCPCS | UDPCS, 0));
    let mut broken = tcp.clone();
    broken[60] ^= 1;
    assert_eq!(verdict(&broken), (IPCS | TCPCS, TCPE));
    let mut broken = tcp.clone();
    broken[22] ^= 1;
    assert_eq!(
        verdict(&broken).1,
        IPE,
        "the time to live is in no pseudo-header"
    );
    // No UDP checksum, a fragment, no IP at all.
    udp[40..42].fill(0);
    assert_eq!(verdict(&udp), (IPCS, 0));
    let mut fragment = tcp.clone();
    fragment[20] = 0x20;
    fragment[24..26].fill(0);
    fill_checksums(&mut fragment);
    assert_eq!(verdict(&fragment), (IPCS, 0));
    assert_eq!(verdict(&frame_to(MAC, 64)), (IXSM, 0));
}

#[test]
fn ipv6_is_verified_too() {
    let mut frame = MAC.to_vec();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 18, 17, 64]);
    frame.extend_from_slice(&[7; 32]);
    frame.extend_from_slice(&[1, 2, 3, 4, 0, 18, 0, 0]);
    frame.extend_from_slice(&[9; 10]);
    let sum = plain_sum(&[&[7; 32], &[0, 0, 0, 18, 0, 0, 0, 17], &frame[54..]]);
    frame[60..62].copy_from_slice(&(!sum).to_be_bytes());
    assert_eq!(verdict(&frame), (TCPCS | UDPCS, 0));
    frame[70] ^= 4;
    assert_eq!(verdict(&frame), (TCPCS | UDPCS, TCPE));
}

#[test]
fn checks_can_be_turned_off() {
    let mut frame = ip_frame(4, 6, &[5; 30]);
    fill_checksums(&mut frame);
    for (control, expected) in [(0, IXSM), (1 << 8, IPCS), (1 << 9, TCPCS)] {
        let mut rig = Rig::plain();
        rig.write(0x5000, control);
        rig.give(2);
        rig.deliver(&frame);
        rig.steps(2);
        assert_eq!(rig.rx(0).status & !(DD | EOP), expected);
    }
}

#[test]
fn extended_descriptors() {
    let mut rig = Rig::plain();
    rig.write(0x5008, 1 << 15);
    rig.give(2);
    let mut frame = ip_frame(4, 17, &[5; 40]);
    fill_checksums(&mut frame);
    frame[50] ^= 1;
    rig.deliver(&frame);
    rig.steps(2);
    let raw = rig.rx(0).raw;
    assert_eq!(raw[..4], [0; 4], "no RSS");
    assert_eq!(raw[4..6], [0x34, 0x12], "IP identification");
    assert_eq!(raw[6..8], plain_sum(&[&frame]).to_le_bytes());
    let status = u32::from_le_bytes(raw[8..12].try_into().unwrap());
    assert_eq!(status, u32::from(DD | EOP | IPCS | TCPCS | UDPCS) | 1 << 29);
    assert_eq!(raw[12..14], (frame.len() as u16).to_le_bytes());
    rig.expect_clean();
    rig.give_one(2);
    // The VLAN tag of an earlier write-back is no DD.
    rig.memory.bytes[RX_RING + 2 * 16 + 14] = 1;
    rig.write(0x2818, 3);
    rig.step();
    rig.expect_clean();
    rig.give_one(3);
    rig.memory.bytes[RX_RING + 3 * 16 + 8] = 1;
    rig.write(0x2818, 4);
    rig.step();
    rig.expect_violation("its status is not clear");
}

#[test]
fn frames_without_room_are_missed() {
    let mut rig = Rig::plain();
    rig.start_receive(1 << 5);
    rig.give(2);
    rig.deliver(&frame_to(MAC, 5000));
    rig.deliver(&frame_to(MAC, 100));
    rig.deliver(&frame_to(MAC, 101));
    rig.deliver(&frame_to(MAC, 102));
    rig.steps(3);
    assert_eq!(rig.rx(0).len, 100, "5000 bytes do not fit two buffers");
    assert_eq!(rig.rx(1).len, 101);
    assert_eq!(rig.read(0x4010), 2, "MPC");
    assert_eq!(rig.read(0x40a0), 2, "RNBC");
    assert_ne!(rig.read(0x00c0) & 1 << 6, 0, "RXO");
    assert_eq!(rig.device.counters().frames_missed, 2);
    // A buffer given back is used again.
    rig.give_one(2);
    rig.write(0x2818, 3);
    rig.deliver(&frame_to(MAC, 103));
    rig.steps(2);
    assert_eq!(rig.rx(2).len, 103);
    rig.expect_clean();
}

#[test]
fn a_frame_that_just_fits_is_kept() {
    for strip in [true, false] {
        let mut rig = Rig::plain();
        rig.start_receive(1 << 5);
        if !strip {
            let control = rig.read(0x0100);
            rig.write(0x0100, control & !(1 << 26));
        }
        rig.give(2);
        rig.deliver(&frame_to(MAC, 2 * BUFFER));
        rig.steps(2);
        assert_eq!(rig.rx(1).status & EOP != 0, strip, "4 bytes more or less");
        assert_eq!(rig.read(0x4010), u32::from(!strip), "MPC");
    }
}

#[test]
fn a_disabled_receiver_hears_nothing() {
    let mut rig = Rig::plain();
    rig.give(2);
    rig.write(0x0100, 0);
    rig.deliver(&frame_to(MAC, 100));
    rig.steps(5);
    rig.write(0x0100, 1 << 1 | 1 << 26);
    rig.steps(5);
    assert_eq!(rig.rx(0).status, 0, "a frame from before");
    assert_eq!(rig.read(0x4010), 0, "MPC");
}

#[test]
fn null_descriptors_are_passed_over() {
    let mut rig = Rig::plain();
    rig.give_one(1);
    rig.memory.bytes[RX_RING + 14] = 0x77;
    rig.write(0x2818, 2);
    rig.deliver(&frame_to(MAC, 64));
    rig.steps(3);
    assert_eq!(rig.rx(0).status, DD);
    assert_eq!(rig.rx(0).raw[14], 0x77, "the rest stays");
    assert_eq!(rig.rx(1).status & (DD | EOP), DD | EOP);
    rig.expect_clean();
}

#[test]
fn buffers_are_poisoned_when_they_are_given() {
    let mut latitude = Latitude::none();
    latitude.poison_receive_buffers = true;
    let mut rig = Rig::warm(8, latitude);
    rig.give(3);
    rig.step();
    for index in 0..3 {
        let first = rig.buffer(index)[0];
        assert_ne!(first, 0, "seed 8");
        assert!(
            rig.buffer(index).iter().all(|byte| *byte == first),
            "seed 8"
        );
    }
    assert_eq!(rig.buffer(3)[0], 0, "not given");
    let poison = rig.buffer(0)[2047];
    rig.deliver(&frame_to(MAC, 100));
    rig.steps(2);
    assert_eq!(rig.buffer(0)[100..], [poison; BUFFER - 100], "seed 8");
}

/// The soak: frames of random lengths with every latitude and buffers given back at random.
/// What is received is what was sent, in order; buffers have the frame once DD is there.
#[test]
fn every_frame_is_received_once_and_in_order_whatever_the_latitude() {
    for seed in 0..30 {
        let mut rig = Rig::wild(seed);
        rig.start_receive(1 << 5);
        let mut random = Random::new(seed ^ 0xf00d);
        rig.give(ENTRIES - 1);
        let (mut next, mut tail) = (0, ENTRIES - 1);
        let mut sent = std::collections::VecDeque::new();
        let mut frame = Vec::new();
        let mut received = 0;
        while received < 200 {
            // Never more on the way than the buffers can take.
            if sent.len() < 4 && random.one_in(2) {
                let mut next = frame_to(MAC, 60 + random.below(6000) as usize);
                next[20] = random.next() as u8;
                rig.deliver(&next);
                sent.push_back(next);
            }
            rig.step();
            while rig.rx(next).status & DD != 0 {
                let descriptor = rig.rx(next);
                frame.extend_from_slice(&rig.buffer(next)[..descriptor.len]);
                if descriptor.status & EOP != 0 {
                    let expected = sent.pop_front();
                    assert!(
                        Some(&frame) == expected.as_ref(),
                        "seed {seed}, frame {received}"
                    );
                    frame.clear();
                    received += 1;
                }
                rig.give_one(tail);
                tail = (tail + 1) % ENTRIES;
                next = (next + 1) % ENTRIES;
            }
            rig.write(0x2818, tail);
        }
        assert_eq!(rig.device.counters().frames_missed, 0, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn the_vlan_filter_lets_through_what_its_table_has() {
    let mut rig = Rig::plain();
    rig.write(0x0038, 0x8100);
    rig.start_receive(1 << 18);
    rig.give(4);
    let tagged = |id: u8| {
        let mut frame = frame_to(MAC, 100);
        frame[12..16].copy_from_slice(&[0x81, 0x00, 0x60, id]);
        frame
    };
    rig.write(0x5600 + 4, 1 << (37 - 32));
    rig.deliver(&tagged(36));
    rig.deliver(&tagged(37));
    // What has no tag is none of its business.
    rig.deliver(&frame_to(MAC, 60));
    rig.steps(4);
    assert_eq!(rig.buffer(0)[..100], tagged(37));
    assert_eq!(rig.buffer(1)[..60], frame_to(MAC, 60));
    assert_eq!(rig.rx(2).status, 0);
    rig.expect_clean();
}
