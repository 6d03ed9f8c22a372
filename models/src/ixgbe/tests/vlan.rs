//! VLAN tags that the device puts on and takes off (X550 datasheet 7.4.3, whose descriptors and
//! registers are those of the 82599).

use super::super::{DeviceId, Latitude, ModelConfig};
use super::rig::*;

/// Priority 5, VLAN 0x123.
const TAG: u16 = 0xa123;
const TAG_BYTES: [u8; 4] = [0x81, 0x00, 0xa1, 0x23];
/// RXDCTL.VME.
const VME: u32 = 1 << 30;
/// Status VP.
const VP: u32 = 1 << 3;
const IPCS: u32 = 1 << 6;
const L4CS: u32 = 1 << 5;
const TCPE: u32 = 1 << 30;

/// A context with a tag.
fn tag_context(lengths: (u32, u32, u32), kind: u32, mss: u32) -> [u8; 16] {
    let mut raw = context(lengths, kind, mss, 0);
    raw[2..4].copy_from_slice(&TAG.to_le_bytes());
    raw
}

/// `frame` with a tag behind its addresses.
fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &TAG_BYTES, &frame[12..]].concat()
}

/// `frame` without its tag, which must be there.
fn untagged(frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame[12..16], TAG_BYTES);
    [&frame[..12], &frame[16..]].concat()
}

fn post_and_wait(rig: &mut Rig, frame: &[u8], pieces: &[usize], command: u32, options: u32) {
    let last = rig.post(frame, pieces, command, options, frame.len());
    rig.doorbell();
    rig.until_done(last);
}

/// Queue 0 takes tags off, of frames that go through the filter.
fn start_stripping(rig: &mut Rig) {
    rig.write(0x5088, 0x8100 | 1 << 30);
    rig.write(0xa000 + 4 * (0x123 >> 5), 1 << (0x123 & 31));
    rig.set(0x1028, VME);
    rig.give(0, 8);
}

#[test]
fn a_tag_is_put_behind_the_addresses() {
    // For a tag alone the context's lengths count for nothing; Linux gives 14 and 0.
    for lengths in [(0, 0, 0), (14, 0, 0)] {
        let mut rig = Rig::plain();
        let frame = pattern(100, 1);
        rig.push(tag_context(lengths, 0, 0));
        post_and_wait(&mut rig, &frame, &[5, 8], VLE, 0);
        // The same context, without VLE.
        post_and_wait(&mut rig, &frame, &[], 0, 0);
        assert_eq!(rig.sent(), [tagged(&frame), frame]);
        assert_eq!(rig.device.counters().tags_inserted, 1);
        assert_eq!(rig.device.counters().bytes_sent, 104 + 100);
        assert_eq!(rig.device.counters().bytes_requested, 200);
        assert_eq!(rig.read(0x4090), 108 + 104, "GOTCL");
        assert_eq!(rig.read(0x8700), 108 + 104, "QBTC");
        assert_eq!(rig.read(0x40dc), 2, "PTC127");
        rig.expect_clean();
    }
}

#[test]
fn the_size_that_is_counted_has_the_tag() {
    let mut rig = Rig::plain();
    rig.push(tag_context((14, 0, 0), 0, 0));
    // 123 and the check sequence are a PTC127 without a tag, a PTC255 with one.
    post_and_wait(&mut rig, &pattern(123, 1), &[], 0, 0);
    assert_eq!((rig.read(0x40dc), rig.read(0x40e0)), (1, 0));
    post_and_wait(&mut rig, &pattern(123, 1), &[], VLE, 0);
    assert_eq!((rig.read(0x40dc), rig.read(0x40e0)), (0, 1));
    rig.expect_clean();
}

#[test]
fn padding_is_behind_the_tag() {
    let mut rig = Rig::plain();
    rig.push(tag_context((14, 0, 0), 0, 0));
    for (len, expected) in [(17, 60), (55, 60), (56, 60), (57, 61), (60, 64)] {
        let frame = pattern(len, 3);
        post_and_wait(&mut rig, &frame, &[], VLE, 0);
        let mut whole = tagged(&frame);
        whole.resize(expected, 0);
        assert_eq!(rig.sent().last(), Some(&whole), "{len}");
    }
    rig.expect_clean();
}

#[test]
fn checksums_are_as_without_a_tag() {
    for (version, protocol, kind) in [(4, 6, IPV4 | TCP), (4, 17, IPV4), (6, 6, TCP), (6, 17, 0)] {
        let mut rig = Rig::plain();
        let mut frame = ip_frame(version, protocol, &pattern(301, 5));
        let mut expected = frame.clone();
        fill_checksums(&mut expected);
        let ip = if version == 4 { 20 } else { 40 };
        seed_checksum(&mut frame, false);
        // MACLEN is without what the device adds.
        rig.push(tag_context((14, ip, 0), kind, 0));
        let options = TXSM | if version == 4 { IXSM } else { 0 };
        post_and_wait(&mut rig, &frame, &[9, 17], VLE, options);
        let sent = untagged(&rig.sent()[0]);
        assert_eq!(sent, expected, "{version} {protocol}");
        rig.expect_clean();
    }
}

#[test]
fn every_segment_has_the_tag() {
    for version in [4, 6] {
        let mut rig = Rig::plain();
        let payload = pattern(5000, 9);
        let mut request = ip_frame(version, 6, &payload);
        seed_checksum(&mut request, true);
        let (ip, kind, length_at) = if version == 4 {
            (20, IPV4 | TCP, 16)
        } else {
            (40, TCP, 18)
        };
        request[length_at..length_at + 2].fill(0);
        let header = 14 + ip as usize + 20;
        rig.push(tag_context((14, ip, 20), kind, 1460));
        let options = TXSM | if version == 4 { IXSM } else { 0 };
        let last = rig.post(&request, &[header], TSE | VLE, options, 5000);
        rig.doorbell();
        rig.until_done(last);
        let sent = rig.sent();
        assert_eq!(sent.len(), 4, "version {version}");
        for (frame, part) in sent.iter().zip(payload.chunks(1460)) {
            assert_eq!(frame.len(), header + 4 + part.len());
            let frame = untagged(frame);
            assert_eq!(&frame[header..], part);
            assert!(verifies(&frame), "version {version}");
        }
        assert_eq!(rig.device.counters().tags_inserted, 4);
        rig.expect_clean();
    }
}

#[test]
fn a_tag_counts_in_the_longest_frame() {
    let longest = 15_872 - 4;
    for (len, command, fits) in [
        (longest, 0, true),
        (longest - 4, VLE, true),
        (longest - 3, VLE, false),
    ] {
        let mut rig = Rig::plain();
        rig.push(tag_context((14, 0, 0), 0, 0));
        post_and_wait(&mut rig, &pattern(len, 1), &[], command, 0);
        assert_eq!(rig.sent().len(), usize::from(fits), "{len}");
        if fits {
            rig.expect_clean();
        } else {
            rig.expect_violation("more than 15.5 KiB");
        }
    }
}

#[test]
fn wrong_use_of_tags_is_reported() {
    type Spoil = fn(&mut Rig);
    let frame = || {
        let mut frame = ip_frame(4, 6, &pattern(300, 1));
        seed_checksum(&mut frame, false);
        frame
    };
    let whole = frame().len();
    let cases: [(&str, Spoil); 4] = [
        ("no context in its slot", |_| {}),
        ("EtherType", |rig| {
            // As if the tag were in the buffer.
            rig.push(tag_context((18, 20, 0), IPV4 | TCP, 0));
        }),
        ("VT 0x8100, and VLNCTRL.VET is 0x88a8", |rig| {
            rig.push(tag_context((14, 20, 0), IPV4 | TCP, 0));
            rig.write(0x5088, 0x88a8);
        }),
        ("PAYLEN is", |rig| {
            rig.push(tag_context((14, 20, 0), IPV4 | TCP, 0));
        }),
    ];
    for (text, spoil) in cases {
        let mut rig = Rig::plain();
        spoil(&mut rig);
        let payload = whole + if text.starts_with("PAYLEN") { 4 } else { 0 };
        let last = rig.post(&frame(), &[], VLE, IXSM | TXSM, payload);
        rig.doorbell();
        rig.until_done(last);
        rig.expect_violation(text);
    }
    let mut rig = Rig::plain();
    rig.push(tag_context((14, 0, 0), 0, 0));
    let at = rig.put(PAYLOAD, &pattern(120, 1));
    rig.push(data(at, 60, IFCS, 0, 120));
    let last = rig.push(data(at + 60, 60, LAST | VLE, 0, 120));
    rig.doorbell();
    rig.until_done(last);
    assert_eq!(rig.sent(), [pattern(120, 1)], "the first descriptor counts");
    rig.expect_violation("not in the first descriptor");
    // Two tags.
    let mut rig = Rig::plain();
    rig.set(0x4a80, 1 << 3);
    rig.expect_violation("double VLAN");
    rig.set(0x0018, 1 << 26);
    rig.expect_violation("double VLAN");
}

#[test]
fn a_tag_is_taken_off_and_told() {
    for device in [DeviceId::Kx4, DeviceId::X540T] {
        let mut rig = Rig::with(ModelConfig {
            latitude: Latitude::none(),
            device,
            mac: MAC,
            ..ModelConfig::default()
        })
        .warmed_up();
        start_stripping(&mut rig);
        let mut frame = ip_frame(4, 6, &pattern(77, 1));
        fill_checksums(&mut frame);
        let len = frame.len();
        rig.deliver(&tagged(&frame));
        rig.deliver(&frame);
        let mut broken = tagged(&frame);
        *broken.last_mut().unwrap() ^= 4;
        rig.deliver(&broken);
        rig.until_received(0, 2);
        let [first, second, third] = [0, 1, 2].map(|index| rig.rx(0, index));
        assert_eq!((first.len, first.vlan), (len, TAG));
        assert_eq!(first.status, VP | IPCS | L4CS | 3);
        assert_eq!(first.kind, 1 << 4 | 1 << 8, "IPv4 and TCP, as without it");
        assert_eq!(rig.buffer(0, 0)[..len], frame);
        assert_eq!((second.len, second.vlan), (len, 0));
        assert_eq!(second.status, IPCS | L4CS | 3);
        assert_eq!(third.status, VP | IPCS | L4CS | TCPE | 3);
        // What was on the wire is counted.
        let octets = 3 * len as u32 + 2 * 4;
        assert_eq!(rig.read(0x4088), octets + 3 * 4, "GORCL");
        assert_eq!(rig.read(0x1034), octets, "QBRC");
        let counters = rig.device.counters();
        assert_eq!(counters.bytes_received, u64::from(octets));
        assert_eq!(counters.tags_stripped, 2);
        rig.expect_clean();
    }
}

#[test]
fn without_vme_a_tag_stays_and_is_not_told() {
    let mut rig = Rig::plain();
    rig.give(0, 4);
    let mut frame = ip_frame(6, 17, &pattern(77, 1));
    fill_checksums(&mut frame);
    rig.deliver(&tagged(&frame));
    rig.until_received(0, 0);
    let received = rig.rx(0, 0);
    assert_eq!((received.len, received.vlan), (frame.len() + 4, 0));
    assert_eq!(received.status & VP, 0);
    assert_eq!(received.kind, 1 << 6 | 1 << 9, "IPv6 and UDP");
    assert_ne!(received.status & L4CS, 0);
    assert_eq!(rig.buffer(0, 0)[..frame.len() + 4], tagged(&frame));
    rig.expect_clean();
}

#[test]
fn each_queue_strips_or_does_not() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    for queue in 0..2 {
        rig.start_receive(queue);
        rig.give(queue, 8);
    }
    rig.set(0x1068, VME);
    for word in 0..10 {
        rig.write(
            0x5c80 + 4 * word,
            0x6d5a_56da ^ word.wrapping_mul(0x0101_0101),
        );
    }
    for word in 0..32 {
        rig.write(0x5c00 + 4 * word, 0x0100_0100);
    }
    rig.write(0x5000, 1 << 13);
    rig.write(0x5818, 1 | 1 << 16);
    rig.start_receiver();
    rig.until("link", |rig| rig.read(0x42a4) & 1 << 30 != 0);
    let mut found = [0; 2];
    for port in 0..8u16 {
        let mut frame = ip_frame(4, 6, &[0; 20]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        fill_checksums(&mut frame);
        rig.deliver(&frame);
        rig.steps(3);
        rig.deliver(&tagged(&frame));
        rig.steps(3);
        // The tag does not change the hash, and so not the queue.
        let queue = usize::from(rig.rx(1, found[1]).status & 1 != 0);
        let [plain, with_tag] = [0, 1].map(|more| rig.rx(queue as u32, found[queue] + more));
        assert_eq!(plain.hash, with_tag.hash);
        assert_eq!(with_tag.kind & 0xf, 1, "there is a hash");
        let told = if queue == 1 { TAG } else { 0 };
        assert_eq!((plain.vlan, with_tag.vlan), (0, told));
        assert_eq!(with_tag.status & VP != 0, queue == 1);
        let len = frame.len() + if queue == 1 { 0 } else { 4 };
        assert_eq!(with_tag.len, len);
        found[queue] += 2;
        if found[queue] == 8 {
            break;
        }
    }
    assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    rig.expect_clean();
}

#[test]
fn the_longest_frame_may_have_a_tag_and_splits_without_it() {
    for seed in 0..30 {
        let mut rig = Rig::wild(seed);
        rig.set(0x4240, 1 << 2);
        rig.write(0x4268, 9000 << 16);
        start_stripping(&mut rig);
        let mut frame = pattern(8996, 3);
        frame[..6].copy_from_slice(&MAC);
        rig.deliver(&tagged(&frame));
        frame.push(0);
        rig.deliver(&tagged(&frame));
        frame.pop();
        rig.until_received(0, 4);
        let mut whole = Vec::new();
        for index in 0..5 {
            whole.extend_from_slice(&rig.buffer(0, index)[..rig.rx(0, index).len]);
        }
        assert_eq!(whole, frame, "seed {seed}");
        let last = rig.rx(0, 4);
        assert_eq!((last.vlan, last.status & VP), (TAG, VP), "seed {seed}");
        rig.steps(300);
        assert_eq!(rig.rx(0, 5).status & 1, 0, "seed {seed}: one is too long");
        assert_eq!(rig.read(0x40ac), 1, "seed {seed}: ROC");
        rig.expect_clean();
    }
}

#[test]
fn a_check_sequence_that_is_kept_is_that_of_the_wire() {
    let mut rig = Rig::plain();
    rig.clear(0x4240, 1 << 1);
    rig.clear(0x2f00, 1 << 1);
    start_stripping(&mut rig);
    let mut frame = pattern(80, 2);
    frame[..6].fill(0xff);
    rig.deliver(&tagged(&frame));
    rig.until_received(0, 0);
    assert_eq!(rig.rx(0, 0).len, 84);
    let check = crate::checksum::frame_check_sequence(&tagged(&frame));
    assert_eq!(rig.buffer(0, 0)[..84], [frame, check.to_vec()].concat());
    assert_eq!(rig.read(0x1034), 88, "QBRC");
    rig.expect_clean();
}

#[test]
fn a_tag_goes_round() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        rig.set(0x4240, 1 << 15);
        start_stripping(&mut rig);
        let mut frame = ip_frame(4, 6, &pattern(3000, 7));
        seed_checksum(&mut frame, true);
        frame[16..18].fill(0);
        rig.push(tag_context((14, 20, 20), IPV4 | TCP, 1000));
        let last = rig.post(&frame, &[54], TSE | VLE, IXSM | TXSM, 3000);
        rig.doorbell();
        rig.until_done(last);
        rig.until_received(0, 2);
        for index in 0..3 {
            let received = rig.rx(0, index);
            assert_eq!((received.vlan, received.len), (TAG, 1054), "seed {seed}");
            assert_eq!(
                received.status & (VP | L4CS | TCPE),
                VP | L4CS,
                "seed {seed}"
            );
            assert!(verifies(&rig.buffer(0, index)[..1054]), "seed {seed}");
        }
        rig.expect_clean();
    }
}
