//! What a driver must not do, one by one. Each test also shows what is said about it.

use super::super::Latitude;
use super::rig::*;

/// A rig with a frame of 64 bytes in memory.
fn rig() -> (Rig, u64) {
    let mut rig = Rig::plain();
    let frame: Vec<u8> = (0..64).collect();
    let address = rig.put(PAYLOAD, &frame);
    (rig, address)
}

/// Rings the doorbell, steps, and expects a report.
fn ring_and_expect(rig: &mut Rig, part: &str) {
    rig.doorbell();
    rig.steps(3);
    rig.expect_violation(part);
}

#[test]
fn a_doorbell_in_the_middle_of_a_frame() {
    let (mut rig, address) = rig();
    rig.push(data(address, 32, IFCS, 0));
    ring_and_expect(&mut rig, "middle of a frame");
    // The frame is sent when the rest comes.
    rig.push(data(address + 32, 32, LAST, 0));
    rig.doorbell();
    rig.steps(3);
    assert_eq!(rig.sent().len(), 1);
    rig.expect_clean();
}

#[test]
fn a_doorbell_without_a_completion_asked_for() {
    let (mut rig, address) = rig();
    rig.push(data(address, 64, LAST, 0));
    rig.push(data(address, 64, EOP | IFCS, 0));
    ring_and_expect(&mut rig, "rule 2");
    assert_eq!(rig.sent().len(), 2);
}

#[test]
fn two_doorbells_before_the_device_looks_are_both_judged() {
    let (mut rig, address) = rig();
    rig.push(data(address, 64, EOP | IFCS, 0));
    rig.doorbell();
    rig.push(data(address, 64, LAST, 0));
    ring_and_expect(&mut rig, "descriptor 0 ");
}

#[test]
fn an_offload_without_a_context() {
    let (mut rig, address) = rig();
    rig.push(data(address, 64, LAST, TXSM));
    ring_and_expect(&mut rig, "no context since the reset");
    // One from before a reset does not count.
    rig.push(tcp_context());
    rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.steps(2);
    rig.initialise();
    rig.start_transmit();
    rig.steps(2);
    rig.expect_clean();
    rig.push(data(address, 64, LAST, TXSM));
    ring_and_expect(&mut rig, "no context since the reset");
}

/// Sends a TCP frame behind `context` and expects a report.
fn offload_and_expect(context: [u8; 16], options: u8, part: &str) {
    let mut rig = Rig::plain();
    let mut frame = ip_frame(4, 6, &[7; 40]);
    seed_checksum(&mut frame, false);
    let address = rig.put(PAYLOAD, &frame);
    rig.push(context);
    rig.push(data(address, frame.len() as u32, LAST, options));
    ring_and_expect(&mut rig, part);
}

#[test]
fn contexts_that_do_not_fit_the_frame() {
    // (IP range, TCP range, TUCMD), POPTS, report. The good one is (14,24,33), (34,50,0), 3.
    let wrong = [
        ((14, 24, 34), (34, 50, 0), 3, IXSM, "IPCSE"),
        ((14, 24, 0), (34, 50, 0), 3, IXSM, "IPCSE"),
        ((14, 26, 33), (34, 50, 0), 3, IXSM, "IPCSO"),
        ((21, 31, 40), (34, 50, 0), 3, IXSM, "no IPv4 header"),
        ((14, 24, 33), (34, 50, 0), 1, IXSM, "IPv6"),
        ((14, 24, 33), (200, 216, 0), 3, TXSM, "starts beyond"),
        ((14, 24, 33), (34, 50, 900), 3, TXSM, "ends beyond"),
        ((14, 24, 33), (34, 50, 40), 3, TXSM, "does not cover"),
        ((14, 24, 33), (34, 40, 0), 3, TXSM, "TUCSO"),
        ((14, 24, 33), (60, 30, 0), 3, TXSM, "does not cover"),
        ((14, 24, 33), (34, 50, 0), 7, TXSM, "segmentation"),
    ];
    for (ip, tu, command, options, part) in wrong {
        offload_and_expect(context(ip, tu, command), options, part);
    }
}

#[test]
fn an_ip_checksum_field_that_is_not_zero() {
    let mut rig = Rig::plain();
    let mut frame = ip_frame(4, 6, &[7; 40]);
    frame[24] = 1;
    let address = rig.put(PAYLOAD, &frame);
    rig.push(tcp_context());
    rig.push(data(address, frame.len() as u32, LAST, IXSM));
    ring_and_expect(&mut rig, "not zero before insertion");
}

#[test]
fn a_legacy_checksum_beyond_the_frame() {
    let (mut rig, address) = rig();
    rig.push(legacy(address, 64, LAST | IC, 63, 20));
    ring_and_expect(&mut rig, "legacy checksum");
}

#[test]
fn null_descriptors() {
    let (mut rig, address) = rig();
    rig.push(data(address, 0, 0, 0));
    rig.push(data(address, 64, LAST, 0));
    ring_and_expect(&mut rig, "null descriptor");
    rig.push(data(0, 64, 0, 0));
    rig.push(data(address, 64, LAST, 0));
    ring_and_expect(&mut rig, "null descriptor");
}

#[test]
fn reserved_bits_of_descriptors() {
    let (mut rig, address) = rig();
    let good = data(address, 64, LAST, 0);
    for (byte, bits, part) in [
        (11, 0x10, "reserved command bit"),
        (12, 0x01, "DD would never be seen"),
        (12, 0x80, "reserved bit beside it"),
        (13, 0x40, "POPTS"),
        (10, 0x20, "DTYP"),
    ] {
        let mut raw = good;
        raw[byte] |= bits;
        let index = rig.push(raw);
        ring_and_expect(&mut rig, part);
        rig.memory.bytes[TX_RING + index as usize * 16 + 12] = 0;
    }
    let mut raw = tcp_context();
    raw[11] |= 0x10;
    rig.push(raw);
    ring_and_expect(&mut rig, "reserved or status bit");
}

#[test]
fn formats_and_segmentation_do_not_mix() {
    let (mut rig, address) = rig();
    rig.push(data(address, 32, IFCS, 0));
    rig.push(legacy(address, 32, LAST, 0, 0));
    ring_and_expect(&mut rig, "mixed");
    rig.push(data(address, 32, IFCS, 0));
    rig.push(data(address, 32, LAST | TSE, 0));
    ring_and_expect(&mut rig, "TSE differs");
    rig.push(data(address, 32, IFCS, 0));
    rig.push(tcp_context());
    rig.push(data(address, 32, LAST, 0));
    ring_and_expect(&mut rig, "context descriptor inside a frame");
}

#[test]
fn what_is_not_modelled_is_said() {
    let (mut rig, address) = rig();
    rig.push(data(address, 64, EOP | RS, 0));
    ring_and_expect(&mut rig, "IFCS");
    assert!(rig.sent().is_empty());
    rig.write(0x0100, 3 << 6);
    rig.expect_violation("reserved loopback mode");
    rig.write(0x5818, 1);
    rig.expect_violation("receive side scaling");
}

#[test]
fn frames_that_cannot_be_sent() {
    let (mut rig, address) = rig();
    rig.push(data(address, 64, EOP | RS, 0));
    ring_and_expect(&mut rig, "IFCS");
    rig.push(data(address, 16, LAST, 0));
    ring_and_expect(&mut rig, "less than 17");
    assert!(rig.sent().is_empty());
    rig.write(0x0400, 1 << 1);
    rig.push(data(address, 40, LAST, 0));
    ring_and_expect(&mut rig, "runt");
}

#[test]
fn a_frame_longer_than_the_fifo() {
    let (mut rig, address) = rig();
    // 20 KiB less 80 bytes fit; one more does not.
    let limit = 20 * 1024 - 80;
    rig.push(data(address, limit, LAST, 0));
    rig.doorbell();
    rig.steps(2);
    rig.expect_clean();
    rig.push(data(address, limit, IFCS, 0));
    let last = rig.push(data(address, 1, LAST, 0));
    ring_and_expect(&mut rig, "transmit FIFO");
    assert_eq!(rig.sent().len(), 1);
    assert!(rig.is_done(last));
}

#[test]
fn memory_that_is_not_mapped() {
    let (mut rig, address) = rig();
    rig.push(data(address, 20, IFCS, 0));
    let last = rig.push(data(MEMORY - 8, 64, LAST, 0));
    ring_and_expect(&mut rig, "descriptor 1 ");
    assert!(rig.sent().is_empty());
    assert!(rig.is_done(last));
    // The ring itself.
    rig.push(data(address, 64, LAST, 0));
    rig.memory.hole = TX_RING..TX_RING + 512;
    ring_and_expect(&mut rig, "cannot be fetched");
    // A write-back.
    let (mut rig, address) = self::rig();
    rig.device.hold_completions(true);
    rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.step();
    rig.memory.hole = TX_RING..TX_RING + 512;
    rig.device.hold_completions(false);
    rig.steps(2);
    rig.expect_violation("write-back");
}

#[test]
fn receive_descriptors_and_buffers() {
    let mut rig = Rig::plain();
    rig.give_one(0);
    rig.memory.bytes[RX_RING + 12] = 1;
    rig.write(0x2818, 1);
    rig.step();
    rig.expect_violation("its status is not clear");
    let mut rig = Rig::wild(1);
    rig.give_one(0);
    rig.memory.hole = BUFFERS + 2040..BUFFERS + 2048;
    rig.write(0x2818, 1);
    rig.steps(2);
    rig.expect_violation("its buffer cannot be written");
}

#[test]
fn tails() {
    let (mut rig, address) = rig();
    rig.write(0x3818, ENTRIES);
    rig.expect_violation("in a ring of 32");
    rig.write(0x2818, 40);
    rig.expect_violation("in a ring of 32");
    // Forward by three, then back by one.
    rig.device.hold_completions(true);
    for _ in 0..3 {
        rig.push(data(address, 64, LAST, 0));
    }
    rig.doorbell();
    rig.steps(2);
    rig.expect_clean();
    rig.write(0x3818, 2);
    rig.expect_violation("went back");
    // Past the first descriptor that is not known to be done.
    let (mut rig, address) = self::rig();
    rig.device.hold_completions(true);
    for _ in 0..20 {
        rig.push(data(address, 64, LAST, 0));
    }
    rig.doorbell();
    rig.steps(2);
    for _ in 0..14 {
        rig.push(data(address, 64, LAST, 0));
    }
    rig.doorbell();
    rig.expect_violation("first that is not known to be done");
}

#[test]
fn a_receive_tail_that_goes_back() {
    let mut rig = Rig::plain();
    rig.give(5);
    rig.step();
    rig.write(0x2818, 3);
    rig.expect_violation("went back");
}

#[test]
fn tails_while_disabled() {
    let (mut rig, _) = rig();
    rig.write(0x0400, 0);
    rig.write(0x3818, 1);
    rig.expect_violation("while transmit is disabled");
    rig.write(0x3818, 0);
    rig.expect_clean();
}

#[test]
fn doorbells_while_bus_mastering_is_off() {
    let (mut rig, address) = rig();
    let command = crate::Device::config_read(&mut rig.device, 4);
    crate::Device::config_write(&mut rig.device, 4, command & !4);
    rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.expect_violation("bus mastering is off");
}

#[test]
fn ring_registers() {
    let mut rig = Rig::plain();
    for (at, part) in [
        (0x3800, "written while enabled"),
        (0x3804, "written while enabled"),
        (0x3808, "written while enabled"),
        (0x3810, "written while enabled"),
        (0x2800, "written while enabled"),
        (0x2808, "written while enabled"),
    ] {
        let value = rig.read(at);
        rig.write(at, value);
        rig.expect_violation(part);
    }
    rig.write(0x0400, 0);
    rig.write(0x3800, 0x1008);
    rig.expect_violation("16-byte aligned");
    rig.write(0x3808, 100);
    rig.expect_violation("multiple of 128");
    rig.write(0x3808, 1 << 20);
    rig.expect_violation("multiple of 128");
}

#[test]
fn enabling_too_early() {
    let mut rig = Rig::cold(0, super::super::Latitude::none());
    rig.initialise();
    rig.write(0x0400, 1 << 1);
    rig.expect_violation("transmit enabled before the base");
    rig.write(0x0100, 1 << 1);
    rig.expect_violation("receive enabled before the base");
}

#[test]
fn descriptor_control() {
    let enable = |first: u32, second: u32| {
        let mut rig = Rig::cold(0, super::super::Latitude::none());
        rig.initialise();
        rig.prepare_transmit();
        rig.write(0x3828, first);
        rig.write(0x3928, second);
        rig.write(0x0400, 1 << 1 | 1 << 3);
        rig
    };
    let good = 1 << 22 | 1 << 24 | 1 << 16;
    enable(good, good).expect_clean();
    enable(good, good | 1).expect_violation("unequal");
    enable(good & !(1 << 22), good & !(1 << 22)).expect_violation("bit 22");
}

#[test]
fn reserved_bits_of_registers_and_unknown_registers() {
    let mut rig = Rig::plain();
    rig.write(0x0400, 1 << 1 | 1 << 2);
    rig.expect_violation("TCTL");
    rig.write(0x0100, 1 << 21);
    rig.expect_violation("RCTL");
    assert_eq!(rig.read(0x0bad0 & 0xfffc), 0);
    rig.expect_violation("where no register is");
    rig.write(0x0050, 1);
    rig.expect_violation("where no register is");
    rig.write(0x00e4, 0xd);
    rig.expect_violation("IVAR");
}

#[test]
fn receive_control() {
    let mut rig = Rig::plain();
    let control = rig.read(0x0100);
    rig.write(0x0100, control | 1 << 16);
    rig.expect_violation("buffer size was changed");
    rig.write(0x0100, 0);
    rig.write(0x0100, 1 << 1 | 1 << 25);
    rig.expect_violation("reserved buffer size");
}

#[test]
fn the_packet_buffer_allocation() {
    let mut rig = Rig::plain();
    rig.write(0x1000, 40);
    rig.expect_violation("PBA");
    rig.write(0x0400, 0);
    rig.write(0x1000, 32);
    assert_eq!(rig.read(0x1000), 8 << 16 | 32);
    rig.write(0x0400, 1 << 1 | 1 << 3);
    rig.expect_violation("no reset has put into force");
    rig.initialise();
    rig.start_transmit();
    rig.expect_clean();
}

#[test]
fn a_tail_beyond_a_ring_that_was_made_shorter_is_never_reached() {
    let (mut rig, _) = rig();
    rig.write(0x0400, 0);
    rig.write(0x3818, 20);
    rig.write(0x3808, 128);
    rig.write(0x0400, 1 << 1 | 1 << 3);
    rig.write(0x0100, 0);
    rig.write(0x2818, 20);
    rig.write(0x2808, 128);
    rig.write(0x0100, 1 << 1);
    rig.steps(10);
    assert!(rig.sent().is_empty());
    assert_eq!(rig.read(0x3810), 0);
    rig.expect_violation("while transmit is disabled");
}

/// Registers and memory filled at random: whatever a driver does, the model neither panics nor
/// hangs, and what it reports is bounded.
#[test]
fn a_driver_that_does_anything_at_all_cannot_break_the_model() {
    for seed in 0..150 {
        let latitude = match seed % 2 {
            0 => super::super::Latitude::none(),
            _ => super::super::Latitude::default(),
        };
        let mut rig = Rig::warm(seed, latitude);
        let mut random = super::super::pace::Random::new(seed ^ 0xabad);
        for byte in &mut rig.memory.bytes {
            *byte = random.next() as u8;
        }
        // Some descriptors that nearly make sense.
        for place in (0x1000..0x6000).step_by(16) {
            let address = MEMORY + random.below(1 << 20);
            rig.memory.bytes[place..place + 8].copy_from_slice(&address.to_le_bytes());
            rig.memory.bytes[place + 9] &= 0x0f;
            rig.memory.bytes[place + 10] &= 0x10;
        }
        let ring = [0x00, 0x04, 0x08, 0x10, 0x18, 0x28];
        for _ in 0..400 {
            let at = match random.below(4) {
                0 => random.below(0x2_0000 / 4) as u32 * 4,
                1 => [0x0000, 0x0100, 0x0400, 0x00d0, 0x1000][random.below(5) as usize],
                _ => {
                    let base = [0x2800, 0x3800, 0x3900][random.below(3) as usize];
                    base + ring[random.below(6) as usize]
                }
            };
            let value = match random.below(4) {
                0 => random.next() as u32,
                1 => random.below(64) as u32,
                2 => (MEMORY as u32) + random.below(0x6000) as u32,
                _ => (MEMORY >> 32) as u32,
            };
            // Resets would end the story too often.
            let value = if at < 8 { value & !(1 << 26) } else { value };
            rig.write(at, value);
            rig.read(random.below(0x2_0000 / 4) as u32 * 4);
            if random.one_in(3) {
                let len = random.below(4000) as usize;
                let frame: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
                rig.deliver(&frame);
            }
            rig.step();
        }
        let violations = crate::Device::take_violations(&mut rig.device);
        assert!(
            !violations.is_empty() && violations.len() <= 257,
            "seed {seed}"
        );
    }
}

#[test]
fn reports_are_bounded() {
    let mut rig = Rig::plain();
    for _ in 0..1000 {
        rig.read(0x0050);
    }
    let violations = crate::Device::take_violations(&mut rig.device);
    assert_eq!(violations.len(), 257);
    assert_eq!(violations[256], "and 744 more");
    rig.expect_clean();
}

#[test]
fn what_linux_does_is_none_where_that_is_said() {
    for permitted in [false, true] {
        let mut rig = Rig::cold(0, Latitude::none());
        if permitted {
            rig.device.permit_linux();
        }
        let judge = |rig: &mut Rig, what: &str| {
            if permitted {
                rig.expect_clean();
            } else {
                rig.expect_violation(what);
            }
        };
        // RCTL.EN, then the ring (FLAG2_NO_DISABLE_RX).
        rig.write(0x0100, 1 << 1);
        judge(&mut rig, "before the base and the length");
        rig.write(0x2808, 512);
        judge(&mut rig, "written while enabled");
        rig.read(0x000c);
        judge(&mut rig, "where no register is");
    }
}
