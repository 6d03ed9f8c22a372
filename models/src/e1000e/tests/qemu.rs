//! What QEMU's e1000e does otherwise, switch by switch, and the freedoms it led to.

use super::super::{Latitude, QemuDeviations};
use super::rig::*;

const DD: u8 = 1;
const IXSM_STATUS: u8 = 4;
const MPC: u32 = 0x4010;
const RLEC: u32 = 0x4040;
const ROC: u32 = 0x40ac;
const TPR: u32 = 0x40d0;
const TXQ0: u32 = 1 << 22;
const RXQ0: u32 = 1 << 20;
const OTHER: u32 = 1 << 24;
const LSC: u32 = 1 << 2;
const RXO: u32 = 1 << 6;
const TXDW: u32 = 1 << 0;
const RXT0: u32 = 1 << 7;

/// A device that deviates as `change` says, and does all else by the datasheet.
fn deviating(change: impl FnOnce(&mut QemuDeviations)) -> Rig {
    let mut latitude = Latitude::none();
    change(&mut latitude.qemu);
    Rig::warm(0, latitude)
}

/// A frame for us that is no IP packet.
fn plain_frame(len: usize, mark: u8) -> Vec<u8> {
    let mut frame = MAC.to_vec();
    frame.resize(len, mark);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// Sends `frame` in one fragment behind `context`; what came out, if anything.
fn offload(rig: &mut Rig, context: [u8; 16], frame: &[u8], options: u8) -> Option<Vec<u8>> {
    let before = rig.sent().len();
    rig.push(context);
    let address = rig.put(PAYLOAD, frame);
    let index = rig.push(data(address, frame.len() as u32, LAST, options));
    rig.doorbell();
    rig.until_done(index);
    rig.sent().get(before).cloned()
}

#[test]
fn the_deviations_are_off_unless_asked_for() {
    assert_eq!(Latitude::default().qemu, QemuDeviations::none());
    assert_eq!(Latitude::none().qemu, QemuDeviations::none());
    assert_eq!(Latitude::qemu().qemu, QemuDeviations::all());
}

#[test]
fn short_frames_leave_short() {
    let mut rig = deviating(|qemu| qemu.no_padding = true);
    let frame = plain_frame(20, 3);
    let address = rig.put(PAYLOAD, &frame);
    rig.push(legacy(address, 20, LAST, 0, 0));
    rig.doorbell();
    rig.step();
    assert_eq!(rig.sent(), [frame]);
    rig.expect_clean();
}

#[test]
fn messages_come_late_but_come() {
    let latitude = Latitude {
        late_interrupts: true,
        ..Latitude::none()
    };
    let mut latest = 0;
    let mut prompt = 0;
    for seed in 0..8 {
        let mut rig = Rig::warm(seed, latitude);
        rig.write(0x00e4, 9 << 8);
        rig.write(0x00d0, TXQ0);
        let address = rig.put(PAYLOAD, &[1; 64]);
        for frame in 0..40 {
            let index = rig.push(data(address, 64, LAST, 0));
            rig.doorbell();
            rig.until_done(index);
            let mut late = 0;
            while rig.take_interrupts() != [1] {
                assert!(late <= 500, "seed {seed}, frame {frame}: no message");
                assert!(rig.step(), "seed {seed}, frame {frame}: at rest too soon");
                late += 1;
            }
            rig.write(0x00c0, TXQ0);
            latest = latest.max(late);
            prompt += u32::from(late == 0);
        }
        rig.expect_clean();
    }
    assert!(latest > 300, "the latest of seeds 0 to 7: {latest} µs");
    assert!(prompt > 100, "prompt ones of seeds 0 to 7: {prompt}");
}

#[test]
fn frames_wait_for_descriptors_and_a_burst_may_be_longer_than_the_ring() {
    let mut rig = deviating(|qemu| qemu.frames_wait = true);
    const BURST: u8 = 100;
    for mark in 0..BURST {
        rig.deliver(&plain_frame(100, mark));
    }
    rig.steps(20);
    assert_eq!(rig.read(0x2810), 0, "RDH: no descriptor, no frame");
    let (mut tail, mut next) = (0, 0);
    for mark in 0..BURST {
        if next == tail {
            // Five more descriptors.
            for _ in 0..5 {
                rig.give_one(tail);
                tail = (tail + 1) % ENTRIES;
            }
            rig.write(0x2818, tail);
            rig.steps(2);
        }
        assert_eq!(rig.rx(next).status & DD, DD, "frame {mark}");
        assert_eq!(rig.buffer(next)[20], mark);
        next = (next + 1) % ENTRIES;
    }
    assert_eq!(rig.device.counters().frames_missed, 0);
    assert_eq!(rig.device.counters().frames_received, u64::from(BURST));
    assert_eq!((rig.read(MPC), rig.read(TPR)), (0, u32::from(BURST)));
    rig.expect_clean();
}

#[test]
fn a_frame_waits_for_its_last_descriptor_even_over_a_reset() {
    let mut rig = deviating(|qemu| qemu.frames_wait = true);
    rig.start_receive(1 << 5);
    rig.give(1);
    rig.deliver(&plain_frame(3000, 1));
    rig.deliver(&plain_frame(100, 2));
    rig.steps(5);
    assert_eq!(rig.rx(0).status & DD, 0);
    assert_eq!(rig.read(0x00c0) & RXO, RXO);
    rig.write(0x0000, 1 << 26);
    rig.initialise();
    rig.start_receive(1 << 5);
    rig.give(1);
    rig.steps(5);
    assert_eq!(rig.rx(0).status & DD, 0);
    for index in 1..3 {
        rig.give_one(index);
    }
    rig.write(0x2818, 3);
    rig.steps(5);
    assert_eq!(rig.rx(0).len + rig.rx(1).len, 3000);
    assert_eq!((rig.rx(2).len, rig.buffer(2)[20]), (100, 2));
    assert_eq!(rig.read(TPR), 2);
    // What the filter does not want does not wait.
    let mut other = plain_frame(100, 3);
    other[5] ^= 1;
    rig.deliver(&other);
    rig.steps(5);
    rig.give_one(3);
    rig.write(0x2818, 4);
    rig.steps(5);
    assert_eq!(rig.rx(3).status & DD, 0);
    rig.expect_clean();
}

#[test]
fn frames_that_are_too_long_are_counted_in_one_register() {
    for alone in [false, true] {
        let mut rig = deviating(|qemu| qemu.oversize_in_roc_alone = alone);
        rig.give(4);
        rig.deliver(&plain_frame(1600, 1));
        let mut other = plain_frame(1600, 1);
        other[5] ^= 1;
        rig.deliver(&other);
        rig.steps(2);
        let counted = [ROC, RLEC, TPR].map(|at| rig.read(at));
        assert_eq!(counted, if alone { [2, 0, 0] } else { [1, 1, 2] });
    }
}

#[test]
fn short_frames_that_are_kept_are_counted_as_undersized() {
    let mut rig = deviating(|qemu| {
        qemu.short_frames_in_ruc = true;
        qemu.frames_wait = true;
    });
    rig.deliver(&plain_frame(30, 1));
    rig.steps(5);
    rig.give(2);
    rig.deliver(&plain_frame(60, 2));
    rig.steps(5);
    assert_eq!((rig.rx(0).len, rig.rx(1).len), (60, 60));
    assert_eq!(rig.read(0x40a4), 1, "RUC");
}

/// Whether a frame goes out, on a device that drops cut headers or does not.
fn leaves(drops: bool, frame: &[u8]) -> bool {
    let mut rig = deviating(|qemu| qemu.drops_cut_headers = drops);
    let address = rig.put(PAYLOAD, frame);
    let index = rig.push(data(address, frame.len() as u32, LAST, 0));
    rig.doorbell();
    rig.step();
    assert!(rig.is_done(index));
    let sent = rig.sent().len() as u64;
    let counters = rig.device.counters();
    assert_eq!(counters.frames_with_cut_headers, 1 - sent);
    assert_eq!(counters.frames_dropped, 1 - sent);
    rig.expect_clean();
    sent == 1
}

#[test]
fn frames_with_a_cut_header_are_lost_and_marked_done() {
    let whole = ip_frame(4, 6, &[1; 40]);
    let mut options = whole.clone();
    options[14] = 0x46;
    let mut too_short = whole.clone();
    too_short[14] = 0x44;
    let mut six = plain_frame(100, 0);
    six[12..14].copy_from_slice(&[0x86, 0xdd]);
    six[20] = 59;
    let mut extended = six.clone();
    extended[20] = 60;
    extended[54..56].copy_from_slice(&[59, 1]);
    let mut tagged = whole.clone();
    tagged.splice(12..12, [0x81, 0, 0, 1]);
    for (frame, len, lost) in [
        (&whole, 33, true),
        (&whole, 34, false),
        (&options, 37, true),
        (&options, 38, false),
        (&too_short, 60, true),
        (&six, 53, true),
        (&six, 54, false),
        (&extended, 69, true),
        (&extended, 70, false),
        (&tagged, 37, true),
        (&tagged, 38, false),
    ] {
        assert!(
            leaves(false, &frame[..len]),
            "{len} bytes, by the datasheet"
        );
        assert_eq!(leaves(true, &frame[..len]), !lost, "{len} bytes");
    }
}

#[test]
fn checksums_are_found_by_the_protocol() {
    for by_protocol in [false, true] {
        let mut rig = deviating(|qemu| qemu.checksums_by_protocol = by_protocol);
        // No pseudo-header sum in the field: QEMU makes its own.
        for (protocol, context) in [
            (6, tcp_context()),
            (17, context((14, 24, 33), (34, 40, 0), 0b10)),
        ] {
            let mut frame = ip_frame(4, protocol, &[9; 51]);
            let sent = offload(&mut rig, context, &frame, IXSM | TXSM).unwrap();
            assert_eq!(verifies(&sent), by_protocol, "protocol {protocol}");
            // With it both are right.
            seed_checksum(&mut frame, false);
            let sent = offload(&mut rig, context, &frame, IXSM | TXSM).unwrap();
            assert!(verifies(&sent), "protocol {protocol}");
        }
        // A sum that is asked for elsewhere: of GRE, say.
        let mut frame = ip_frame(4, 17, &[9; 51]);
        frame[23] = 47;
        let elsewhere = context((14, 24, 33), (34, 36, 0), 0b10);
        let sent = offload(&mut rig, elsewhere, &frame, TXSM).unwrap();
        assert_eq!(sent == frame, by_protocol);
        // The length in the header is made to fit.
        let mut frame = ip_frame(4, 6, &[9; 51]);
        let right = frame[16..18].to_vec();
        frame[17] -= 1;
        let sent = offload(&mut rig, tcp_context(), &frame, IXSM).unwrap();
        assert_eq!(sent[16..18] == right, by_protocol);
        assert_eq!(plain_sum(&[&sent[14..34]]), 0xffff);
        rig.expect_clean();
    }
}

#[test]
fn ipv6_checksums_are_found_behind_extension_headers() {
    let mut rig = deviating(|qemu| qemu.checksums_by_protocol = true);
    let mut frame = plain_frame(54, 7);
    frame[12..16].copy_from_slice(&[0x86, 0xdd, 0x60, 0]);
    frame[18..22].copy_from_slice(&[0, 8 + 30, 60, 64]);
    frame.extend_from_slice(&[17, 0, 1, 4, 0, 0, 0, 0]);
    frame.extend_from_slice(&[0, 1, 0, 2, 0, 30, 0, 0]);
    frame.extend_from_slice(&[5; 22]);
    let sent = offload(&mut rig, context((0, 0, 0), (62, 68, 0), 0), &frame, TXSM).unwrap();
    let pseudo: [&[u8]; 3] = [&sent[22..54], &[0, 0, 0, 30, 0, 0, 0, 17], &sent[62..]];
    assert_eq!(plain_sum(&pseudo), 0xffff);
    assert_ne!(sent, frame);
    rig.expect_clean();
}

#[test]
fn the_options_of_one_descriptor_count() {
    for of_last in [false, true] {
        for in_last in [false, true] {
            let mut rig = deviating(|qemu| qemu.options_of_last_descriptor = of_last);
            let mut frame = ip_frame(4, 6, &[9; 51]);
            seed_checksum(&mut frame, false);
            let (first, last) = if in_last { (0, TXSM) } else { (TXSM, 0) };
            rig.push(tcp_context());
            let address = rig.put(PAYLOAD, &frame);
            rig.push(data(address, 54, IFCS, first));
            rig.push(data(address + 54, 51, LAST, last));
            rig.doorbell();
            rig.step();
            assert_eq!(rig.sent()[0] != frame, of_last == in_last);
        }
    }
}

#[test]
fn a_legacy_checksum_is_not_inserted() {
    let mut rig = deviating(|qemu| qemu.no_legacy_checksum = true);
    let frame = ip_frame(4, 6, &[9; 51]);
    let address = rig.put(PAYLOAD, &frame);
    rig.push(legacy(address, frame.len() as u16, LAST | IC, 50, 34));
    rig.doorbell();
    rig.step();
    assert_eq!(rig.sent(), [frame]);
    assert_eq!(rig.device.counters().checksums_inserted, 0);
}

#[test]
fn without_a_link_frames_are_done_and_lost() {
    let mut rig = deviating(|qemu| qemu.sends_without_link = true);
    let address = rig.put(PAYLOAD, &[7; 64]);
    rig.lanes.lock().unwrap().cut = true;
    rig.steps(2);
    assert_eq!(rig.read(0x0008) & 2, 0, "STATUS.LU");
    let index = rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.steps(2);
    assert!(rig.is_done(index) && rig.sent().is_empty());
    rig.lanes.lock().unwrap().cut = false;
    rig.steps(10);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.device.counters().frames_sent, 1);
    rig.expect_clean();
}

#[test]
fn a_write_back_raises_the_cause_of_its_queue_alone() {
    for (alone, msix, expected) in [
        (false, true, TXQ0 | TXDW | RXQ0 | RXT0),
        (true, true, TXQ0 | RXQ0),
        (true, false, TXDW | RXT0),
    ] {
        let mut rig = deviating(|qemu| qemu.queue_causes_alone = alone);
        let control = u32::from(msix) << 31;
        crate::Device::config_write(&mut rig.device, 0xa0, control);
        rig.read(0x00c0);
        rig.give(2);
        rig.deliver(&plain_frame(100, 1));
        let address = rig.put(PAYLOAD, &[7; 64]);
        rig.push(data(address, 64, LAST, 0));
        rig.doorbell();
        rig.steps(2);
        let causes = rig.read(0x00c0) & (TXQ0 | TXDW | RXQ0 | RXT0);
        assert_eq!(causes, expected, "alone: {alone}, MSI-X: {msix}");
    }
}

#[test]
fn acknowledging_other_takes_the_link_change_with_it() {
    for whole in [false, true] {
        let mut rig = deviating(|qemu| qemu.other_clears_its_causes = whole);
        rig.write(0x00c8, LSC);
        rig.write(0x00c0, OTHER);
        let left = if whole { 0 } else { LSC };
        assert_eq!(rig.read(0x00c8) & (LSC | OTHER), left);
    }
}

#[test]
fn what_ixsm_says_to_ignore_may_be_rubbish() {
    let latitude = Latitude {
        rubbish_with_ixsm: true,
        ..Latitude::none()
    };
    let mut checked = ip_frame(4, 17, &[5; 40]);
    fill_checksums(&mut checked);
    let (mut errors, mut verified) = (0, 0);
    for seed in 0..20 {
        let mut rig = Rig::warm(seed, latitude);
        rig.give(4);
        rig.deliver(&plain_frame(100, 1));
        rig.deliver(&checked);
        rig.steps(3);
        let ignored = rig.rx(0);
        assert_eq!(ignored.status & !0x70, DD | 2 | IXSM_STATUS, "seed {seed}");
        assert_eq!(ignored.errors & !0x60, 0, "seed {seed}");
        errors += u32::from(ignored.errors != 0);
        verified += u32::from(ignored.status & 0x70 != 0);
        let (status, wrong) = (rig.rx(1).status, rig.rx(1).errors);
        assert_eq!((status, wrong), (DD | 2 | 0x70, 0), "seed {seed}");
    }
    assert!(errors > 0 && verified > 0, "seeds 0 to 19");
}

#[test]
fn qemu_leaves_fields_of_a_receive_descriptor_empty() {
    let mut rig = deviating(|qemu| {
        qemu.never_ixsm = true;
        qemu.no_packet_checksum = true;
        qemu.zero_check_sequence = true;
    });
    rig.start_receive(0);
    let control = rig.read(0x0100);
    rig.write(0x0100, control & !(1 << 26));
    rig.give(2);
    rig.deliver(&plain_frame(100, 1));
    rig.steps(2);
    let received = rig.rx(0);
    assert_eq!(received.status, DD | 2);
    assert_eq!((received.len, received.checksum), (104, 0));
    assert_eq!(rig.buffer(0)[100..104], [0; 4]);
    rig.expect_clean();
}

#[test]
fn the_model_as_qemu_behaves_moves_frames() {
    for seed in 0..10 {
        let mut rig = Rig::warm(seed, Latitude::qemu());
        rig.give(8);
        let mut frame = ip_frame(4, 6, &[seed as u8; 300]);
        seed_checksum(&mut frame, false);
        let sent = offload(&mut rig, tcp_context(), &frame, IXSM | TXSM).unwrap();
        assert!(verifies(&sent), "seed {seed}");
        rig.deliver(&sent);
        rig.until("DD", |rig| rig.rx(0).status & DD != 0);
        assert_eq!(rig.buffer(0)[..sent.len()], sent, "seed {seed}");
        rig.expect_clean();
    }
}
