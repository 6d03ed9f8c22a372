//! VLAN tags: put on, taken off, filtered.

use super::super::Latitude;
use super::super::checksum::frame_check_sequence;
use super::rig::*;
use crate::rig::pattern;

const CTRL: u32 = 0x0000;
const RCTL: u32 = 0x0100;
const VET: u32 = 0x0038;
const VME: u32 = 1 << 30;
const VP: u8 = 8;
const DD: u8 = 1;

/// A device that puts tags on and takes them off.
fn tagging() -> Rig {
    let mut rig = Rig::plain();
    rig.write(VET, 0x8100);
    let control = rig.read(CTRL);
    rig.write(CTRL, control | VME);
    rig
}

/// `frame` with a tag.
fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    let [t0, t1] = tag.to_be_bytes();
    let mut frame = frame.to_vec();
    frame.splice(12..12, [0x81, 0x00, t0, t1]);
    frame
}

fn plain_frame(len: usize) -> Vec<u8> {
    let mut frame = pattern(len, 9);
    frame[..6].copy_from_slice(&MAC);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// A transmit descriptor with a tag in it.
fn with_tag(mut raw: [u8; 16], tag: u16) -> [u8; 16] {
    raw[14..].copy_from_slice(&tag.to_le_bytes());
    raw
}

#[test]
fn the_last_descriptor_puts_a_tag_on() {
    let mut rig = tagging();
    let frame = plain_frame(200);
    let address = rig.put(PAYLOAD, &frame);
    rig.push(with_tag(legacy(address, 200, LAST | VLE, 0, 0), 0x6005));
    // What the first one says counts for nothing.
    rig.push(with_tag(data(address, 100, IFCS | VLE, 0), 0x0007));
    rig.push(with_tag(data(address + 100, 100, LAST | VLE, 0), 0x2abc));
    rig.push(with_tag(data(address, 100, IFCS | VLE, 0), 0x0007));
    let last = rig.push(data(address + 100, 100, LAST, 0));
    rig.doorbell();
    rig.until_done(last);
    let expected = [
        tagged(&frame, 0x6005),
        tagged(&frame, 0x2abc),
        frame.clone(),
    ];
    assert_eq!(rig.sent(), expected);
    assert_eq!(rig.read(0x4090), 204 + 4 + 204 + 4 + 200 + 4, "GOTCL");
    assert_eq!(rig.device.counters().tags_inserted, 2);
    rig.expect_clean();
}

#[test]
fn the_type_of_the_tag_is_that_of_vet() {
    let mut rig = tagging();
    rig.write(VET, 0x88a8);
    let frame = plain_frame(100);
    let address = rig.put(PAYLOAD, &frame);
    let last = rig.push(with_tag(data(address, 100, LAST | VLE, 0), 3));
    rig.doorbell();
    rig.until_done(last);
    assert_eq!(rig.sent()[0][12..16], [0x88, 0xa8, 0, 3]);
    rig.give(1);
    let sent = rig.sent().remove(0);
    rig.deliver(&sent);
    rig.steps(2);
    assert_eq!(rig.rx(0).status & VP, VP);
    assert_eq!(rig.buffer(0)[..100], frame);
    rig.expect_clean();
}

#[test]
fn offsets_of_checksums_do_not_count_the_tag() {
    let mut rig = tagging();
    let mut frame = ip_frame(4, 6, &pattern(90, 1));
    seed_checksum(&mut frame, false);
    let address = rig.put(PAYLOAD, &frame);
    rig.push(tcp_context());
    let raw = data(address, frame.len() as u32, LAST | VLE, IXSM | TXSM);
    let last = rig.push(with_tag(raw, 9));
    rig.doorbell();
    rig.until_done(last);
    let mut sent = rig.sent().remove(0);
    assert_eq!(sent[12..16], [0x81, 0, 0, 9]);
    sent.drain(12..16);
    assert!(verifies(&sent));
    rig.expect_clean();
}

#[test]
fn every_segment_gets_the_tag_of_the_first_descriptor() {
    let mut rig = tagging();
    let mut frame = ip_frame(4, 6, &pattern(250, 2));
    frame[16..18].fill(0);
    seed_checksum(&mut frame, true);
    let address = rig.put(PAYLOAD, &frame);
    rig.push(with_segmentation(tcp_context(), 250, 54, 100));
    let first = data(address, 54, IFCS | TSE | VLE, IXSM | TXSM);
    rig.push(with_tag(first, 0x4011));
    let last = data(address + 54, 250, LAST | TSE, 0);
    let last = rig.push(with_tag(last, 0x0022));
    rig.doorbell();
    rig.until_done(last);
    let sent = rig.sent();
    assert_eq!(sent.len(), 3);
    for mut segment in sent {
        assert_eq!(segment[12..16], [0x81, 0, 0x40, 0x11]);
        segment.drain(12..16);
        assert!(verifies(&segment));
    }
    rig.expect_clean();
}

#[test]
fn a_short_frame_is_padded_with_its_tag_counted() {
    let mut rig = tagging();
    let frame = plain_frame(40);
    let address = rig.put(PAYLOAD, &frame);
    let last = rig.push(with_tag(data(address, 40, LAST | VLE, 0), 3));
    rig.doorbell();
    rig.until_done(last);
    let sent = rig.sent().remove(0);
    assert_eq!(sent.len(), 60);
    assert_eq!(sent[..44], tagged(&frame, 3));
    rig.expect_clean();
}

#[test]
fn no_tag_is_put_on_unless_that_is_allowed() {
    let mut rig = Rig::plain();
    let frame = plain_frame(100);
    let address = rig.put(PAYLOAD, &frame);
    rig.push(with_tag(data(address, 100, LAST | VLE, 0), 3));
    rig.doorbell();
    rig.steps(3);
    rig.expect_violation("CTRL.VME is off");
    assert_eq!(rig.sent(), [frame]);
}

#[test]
fn a_tag_is_taken_off_and_reported() {
    for (format, place) in [(0, 12), (1u32 << 15, 8)] {
        let mut rig = tagging();
        rig.write(0x5008, format);
        rig.give(4);
        let mut packet = ip_frame(4, 17, &pattern(90, 3));
        fill_checksums(&mut packet);
        rig.deliver(&tagged(&packet, 0x7123));
        rig.deliver(&packet);
        rig.steps(2);
        let raw = rig.rx(0).raw;
        // IPCS, TCPCS, UDPCS, VP, EOP, DD.
        assert_eq!(raw[place], 0x7b);
        assert_eq!(raw[14..], 0x7123u16.to_le_bytes());
        assert_eq!(rig.buffer(0)[..packet.len()], packet);
        let len = u16::from_le_bytes(if format == 0 {
            [raw[8], raw[9]]
        } else {
            [raw[12], raw[13]]
        });
        assert_eq!(usize::from(len), packet.len());
        let checksum = if format == 0 { 10 } else { 6 };
        let sum = plain_sum(&[&packet]).to_le_bytes();
        assert_eq!(raw[checksum..checksum + 2], sum, "without the tag");
        let raw = rig.rx(1).raw;
        assert_eq!((raw[place], &raw[14..]), (0x73, &[0, 0][..]));
        // Octets with it: of the one frame, of the other, and two check sequences.
        let octets = packet.len() as u32 * 2 + 4 + 8;
        assert_eq!(rig.read(0x4088), octets, "GORCL");
        assert_eq!(rig.device.counters().tags_stripped, 1);
        rig.expect_clean();
    }
}

#[test]
fn without_vme_the_tag_stays() {
    let mut rig = Rig::plain();
    rig.write(VET, 0x8100);
    rig.give(1);
    let frame = tagged(&plain_frame(100), 5);
    rig.deliver(&frame);
    rig.steps(2);
    assert_eq!(rig.rx(0).status & (VP | DD), DD);
    assert_eq!(rig.buffer(0)[..104], frame);
    rig.expect_clean();
}

#[test]
fn the_check_sequence_stays_that_of_the_frame_with_its_tag() {
    let mut rig = tagging();
    let control = rig.read(RCTL);
    rig.write(RCTL, control & !(1 << 26));
    rig.give(1);
    let frame = plain_frame(100);
    let whole = tagged(&frame, 5);
    rig.deliver(&whole);
    rig.steps(2);
    assert_eq!(rig.rx(0).len, 104);
    assert_eq!(rig.buffer(0)[..100], frame);
    assert_eq!(rig.buffer(0)[100..104], frame_check_sequence(&whole));
    rig.expect_clean();
}

#[test]
fn the_tag_of_a_long_frame_is_in_its_last_descriptor() {
    let mut rig = tagging();
    rig.start_receive(1 << 5);
    rig.give(4);
    let frame = plain_frame(5000);
    rig.deliver(&tagged(&frame, 0x0abc));
    rig.steps(2);
    for index in 0..3 {
        let raw = rig.rx(index).raw;
        let is_last = index == 2;
        assert_eq!(raw[12] & VP != 0, is_last, "descriptor {index}");
        assert_eq!(raw[14] != 0, is_last, "descriptor {index}");
    }
    let stored: Vec<u8> = (0..3)
        .flat_map(|index| rig.buffer(index)[..rig.rx(index).len].to_vec())
        .collect();
    assert_eq!(stored, frame);
    rig.expect_clean();
}

#[test]
fn split_headers_do_not_count_the_tag() {
    let mut rig = tagging();
    rig.write(RCTL, 0);
    rig.ring(0x2800, RX_RING);
    rig.write(0x5008, 1 << 15);
    rig.write(0x2170, 0x0401);
    rig.write(RCTL, 1 << 1 | 1 << 15 | 1 << 26 | 1 << 10);
    for (buffer, place) in [(0, BUFFERS), (1, BUFFERS + 0x1000)] {
        let address = MEMORY + place as u64;
        rig.memory.put(RX_RING + 8 * buffer, &address.to_le_bytes());
    }
    rig.write(0x2818, 2);
    let mut packet = ip_frame(4, 6, &pattern(700, 3));
    fill_checksums(&mut packet);
    rig.deliver(&tagged(&packet, 6));
    rig.steps(2);
    let half = |at: usize| rig.memory.half(RX_RING + at);
    assert_eq!(
        (half(12), half(14), half(16), half(18)),
        (54, 6, 1 << 15 | 54, 700)
    );
    assert_eq!(rig.memory.bytes[BUFFERS..][..54], packet[..54]);
    assert_eq!(rig.memory.bytes[BUFFERS + 0x1000..][..700], packet[54..]);
    rig.expect_clean();
}

#[test]
fn a_frame_that_fits_without_its_tag_only_is_kept() {
    for (len, fits) in [(BUFFER, true), (BUFFER + 1, false)] {
        let mut rig = tagging();
        rig.start_receive(1 << 5);
        rig.give(1);
        rig.deliver(&tagged(&plain_frame(len), 5));
        rig.steps(2);
        assert_eq!(rig.rx(0).status & DD != 0, fits, "{len} bytes");
        rig.expect_clean();
    }
}

#[test]
fn a_waiting_frame_loses_its_tag_once() {
    let mut latitude = Latitude::none();
    latitude.qemu.frames_wait = true;
    let mut rig = Rig::warm(0, latitude);
    rig.write(VET, 0x8100);
    let control = rig.read(CTRL);
    rig.write(CTRL, control | VME);
    rig.start_receive(1 << 5);
    rig.give(1);
    let frame = plain_frame(3000);
    rig.deliver(&tagged(&tagged(&frame, 5), 6));
    rig.steps(3);
    assert_eq!(rig.rx(0).status, 0, "one buffer is not enough");
    rig.give(2);
    rig.steps(3);
    let stored = [&rig.buffer(0)[..2048], &rig.buffer(1)[..956]].concat();
    assert_eq!(stored, tagged(&frame, 5));
    rig.expect_clean();
}

#[test]
fn the_canonical_form_indicator_is_filtered() {
    for (control, tag, passes) in [
        (0, 0x1005, true),
        (1 << 19, 0x1005, false),
        (1 << 19, 0x0005, true),
        (1 << 19 | 1 << 20, 0x1005, true),
        (1 << 19 | 1 << 20, 0x0005, false),
    ] {
        let mut rig = Rig::plain();
        rig.write(VET, 0x8100);
        rig.start_receive(control);
        rig.give(2);
        rig.deliver(&tagged(&plain_frame(100), tag));
        rig.deliver(&plain_frame(100));
        rig.steps(2);
        let count = u32::from(passes) + 1;
        assert_eq!(rig.read(0x4074), count, "GPRC with {control:#x}, {tag:#x}");
        rig.expect_clean();
    }
}
