//! Configuration space, reset, EEPROM, PHY, link, stopping.

use super::super::Latitude;
use super::rig::*;
use crate::Device;

#[test]
fn configuration_space_names_an_82574() {
    let mut rig = Rig::cold(0, Latitude::none());
    let device = &mut rig.device;
    assert_eq!(device.config_read(0x00), 0x10d3_8086);
    assert_eq!(device.config_read(0x08) >> 8, 0x02_0000);
    assert_eq!(device.config_read(0x04) & 6, 2, "memory on, bus master off");
    device.config_write(0x10, u32::MAX);
    assert_eq!(device.config_read(0x10), 0xfffe_0000);
    device.config_write(0x1c, u32::MAX);
    assert_eq!(device.config_read(0x1c), 0xffff_c000);
    device.config_write(0x00, 0);
    assert_eq!(device.config_read(0x00), 0x10d3_8086);
    assert_eq!(device.config_read(0x100), 0, "no extended capability");
    assert_eq!(device.bar_len(0), Some(0x2_0000));
    assert_eq!(device.bar_len(3), Some(0x4000));
    assert_eq!(device.bar_len(1), None);
}

#[test]
fn the_capabilities_are_a_list() {
    let mut rig = Rig::cold(0, Latitude::none());
    let device = &mut rig.device;
    let mut at = (device.config_read(0x34) & 0xff) as u16;
    let mut found = Vec::new();
    while at != 0 {
        let word = device.config_read(at);
        found.push(word & 0xff);
        at = (word >> 8 & 0xff) as u16;
    }
    assert_eq!(found, [0x01, 0x10, 0x11]);
    assert_eq!(device.config_read(0xa0) >> 16 & 0x7ff, 4, "five vectors");
    assert_eq!(device.config_read(0xa4) & 7, 3, "the table is in BAR 3");
    assert_eq!(
        device.config_read(0xe4) & 1 << 28,
        0,
        "no function level reset"
    );
}

#[test]
fn a_reset_takes_its_time_and_then_loads_the_eeprom() {
    let mut slow = 0;
    for seed in 0..40 {
        let mut rig = Rig::cold(seed, Latitude::default());
        rig.write(0x0038, 0x88a8);
        rig.write(0x00d0, 4);
        rig.write(0x0000, 1 << 26);
        if rig.read(0x0000) & 1 << 26 != 0 {
            slow += 1;
            assert_eq!(rig.read(0x5400), 0, "seed {seed}: loaded too early");
        }
        // The clock stands still: polling alone must get us there.
        for _ in 0..3000 {
            rig.read(0x0000);
        }
        assert_eq!(rig.read(0x0000) & 1 << 26, 0, "seed {seed}");
        assert_ne!(rig.read(0x0010) & 1 << 9, 0, "seed {seed}");
        let [a, b, c, d, e, f] = MAC;
        assert_eq!(rig.read(0x5400), u32::from_le_bytes([a, b, c, d]));
        assert_eq!(rig.read(0x5404), u32::from_le_bytes([e, f, 0, 0x80]));
        assert_eq!(rig.read(0x0038), 0x8100, "seed {seed}: VET");
        assert_eq!(rig.read(0x00d0), 0, "seed {seed}: IMS");
        rig.expect_clean();
    }
    assert!(slow > 30, "resets are slow in most of the seeds 0 to 39");
}

#[test]
fn a_write_during_a_reset_is_lost_and_reported() {
    let mut rig = Rig::cold(3, Latitude::default());
    rig.write(0x0000, 1 << 26);
    assert_ne!(rig.read(0x0000) & 1 << 26, 0, "seed 3");
    rig.write(0x0038, 0x88a8);
    rig.expect_violation("during a reset");
    rig.until("reset", |rig| rig.read(0x0000) & 1 << 26 == 0);
    assert_eq!(rig.read(0x0038), 0x8100);
}

/// Reads a word of the EEPROM as a driver does.
fn eeprom(rig: &mut Rig, at: u32) -> u16 {
    rig.write(0x0014, at << 2 | 1);
    let mut value = 0;
    rig.until("EERD", |rig| {
        value = rig.read(0x0014);
        value & 2 != 0
    });
    assert_eq!(value >> 2 & 0x3fff, at);
    (value >> 16) as u16
}

#[test]
fn the_eeprom_has_the_address_and_adds_up() {
    for seed in [0, 1, 2] {
        let mut rig = Rig::cold(seed, Latitude::default());
        let words: Vec<u16> = (0..0x40).map(|at| eeprom(&mut rig, at)).collect();
        let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
        assert_eq!(sum, 0xbaba, "seed {seed}");
        let mac: Vec<u8> = words[..3]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(mac, MAC, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn one_access_at_a_time() {
    let mut latitude = Latitude::none();
    latitude.slow_nvm = true;
    latitude.slow_mdic = true;
    let mut rig = Rig::cold(5, latitude);
    rig.write(0x0014, 1);
    rig.write(0x0014, 1 << 2 | 1);
    rig.expect_violation("EERD");
    rig.write(0x0020, 1 << 21 | 2 << 26);
    rig.write(0x0020, 1 << 21 | 2 << 26);
    rig.expect_violation("MDIC");
}

/// Reads a PHY register as a driver does.
fn phy(rig: &mut Rig, register: u32) -> u16 {
    rig.write(0x0020, register << 16 | 1 << 21 | 2 << 26);
    let mut value = 0;
    rig.until("MDIC", |rig| {
        value = rig.read(0x0020);
        value & 1 << 28 != 0
    });
    assert_eq!(value & 1 << 30, 0, "error");
    value as u16
}

#[test]
fn the_phy_answers() {
    let mut rig = Rig::wild(6);
    assert_eq!((phy(&mut rig, 2), phy(&mut rig, 3)), (0x0141, 0x0cb1));
    phy(&mut rig, 1);
    assert_eq!(phy(&mut rig, 1) & 0x24, 0x24, "link, negotiated");
    // A wrong address, and a page that is not there.
    rig.write(0x0020, 2 << 16 | 2 << 21 | 2 << 26);
    rig.until("MDIC", |rig| rig.read(0x0020) & 1 << 28 != 0);
    assert_ne!(rig.read(0x0020) & 1 << 30, 0);
    rig.expect_clean();
}

#[test]
fn a_lost_link_is_latched_in_the_phy() {
    let mut rig = Rig::plain();
    phy(&mut rig, 1);
    assert_ne!(phy(&mut rig, 1) & 4, 0);
    rig.lanes.lock().unwrap().cut = true;
    rig.steps(2);
    rig.lanes.lock().unwrap().cut = false;
    rig.steps(5);
    assert_eq!(phy(&mut rig, 1) & 4, 0, "the first reading shows the loss");
    assert_ne!(phy(&mut rig, 1) & 4, 0, "the second one the link");
}

#[test]
fn powering_the_phy_down_takes_the_link() {
    let mut rig = Rig::plain();
    rig.write(0x0020, 0x1940 | 1 << 21 | 1 << 26);
    rig.steps(2);
    assert_eq!(rig.read(0x0008) & 2, 0);
    rig.write(0x0020, 0x1140 | 1 << 21 | 1 << 26);
    rig.steps(2);
    assert_ne!(rig.read(0x0008) & 2, 0);
}

#[test]
fn the_link_needs_a_carrier_and_slu() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.initialise();
    rig.write(0x0000, 1);
    rig.steps(10);
    assert_eq!(rig.read(0x0008) & 2, 0, "without SLU");
    rig.write(0x0000, 1 | 1 << 6);
    rig.steps(2);
    assert_eq!(rig.read(0x0008) & 0xc3, 0x83, "up, full duplex, 1000 Mb/s");
    rig.lanes.lock().unwrap().cut = true;
    rig.steps(2);
    assert_eq!(rig.read(0x0008) & 2, 0, "without carrier");
    assert_ne!(rig.read(0x00c0) & 4, 0, "LSC");
}

#[test]
fn negotiation_takes_time_with_latitude() {
    let mut rig = Rig::cold(1, Latitude::default());
    rig.initialise();
    rig.steps(3);
    let early = rig.read(0x0008) & 2;
    rig.until("link", |rig| rig.read(0x0008) & 2 != 0);
    assert_eq!(early, 0, "seed 1: the link came at once");
    assert!(rig.now < 10_000_000, "seed 1: {} ns", rig.now);
}

#[test]
fn semaphores() {
    let mut rig = Rig::cold(0, Latitude::none());
    assert_eq!(rig.read(0x5b50) & 1, 0, "SMBI is free");
    assert_eq!(rig.read(0x5b50) & 1, 1, "and taken by reading");
    rig.write(0x5b50, 0);
    assert_eq!(rig.read(0x5b50) & 1, 0);
    rig.write(0x5b50, 2);
    assert_eq!(rig.read(0x5b50) & 2, 2);
    rig.write(0x0f00, 1 << 5);
    assert_ne!(rig.read(0x0f00) & 1 << 5, 0);
    // With latitude SMBI is found taken, and the MDIO is the firmware's for a while.
    let mut rig = Rig::cold(2, Latitude::default());
    assert_eq!(rig.read(0x5b50) & 1, 1, "seed 2");
    rig.write(0x0000, 1 << 26);
    let mut tries = 0;
    rig.until("MDIO", |rig| {
        tries += 1;
        rig.write(0x0f00, 1 << 5);
        rig.read(0x0f00) & 1 << 5 != 0
    });
    assert!(tries > 1, "seed 2");
}

#[test]
fn memory_space_can_be_turned_off() {
    let mut rig = Rig::plain();
    rig.device.config_write(4, 4);
    assert_eq!(rig.read(0x0008), u32::MAX);
    rig.device.config_write(4, 6);
    assert_ne!(rig.read(0x0008), u32::MAX);
}

#[test]
fn waking_up_is_a_reset() {
    let mut rig = Rig::plain();
    rig.device.config_write(0xcc, 3);
    assert_eq!(rig.read(0x0008), u32::MAX, "D3hot");
    rig.device.config_write(0xcc, 0);
    assert_eq!(rig.read(0x0400), 0, "TCTL");
    assert_eq!(rig.device.config_read(4) & 4, 0, "bus mastering");
    rig.expect_clean();
}

#[test]
fn a_device_that_is_gone_reads_all_ones() {
    let mut rig = Rig::plain();
    let address = rig.put(PAYLOAD, &[1; 64]);
    let index = rig.push(data(address, 64, LAST, 0));
    rig.doorbell();
    rig.device.remove();
    assert!(!rig.step());
    assert_eq!(rig.read(0x0008), u32::MAX);
    assert_eq!(rig.device.config_read(0), u32::MAX);
    rig.write(0x0000, 1 << 26);
    assert_eq!(rig.read(0x0000), u32::MAX);
    assert!(!rig.is_done(index) && rig.sent().is_empty());
}

#[test]
fn bus_mastering_gates_everything() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        let address = rig.put(PAYLOAD, &[1; 64]);
        for _ in 0..30 {
            rig.push(data(address, 64, LAST, 0));
        }
        rig.doorbell();
        rig.step();
        // From this moment, and not only when it is quiet.
        rig.device.config_write(4, 2);
        rig.give(4);
        rig.deliver(&[0xff; 64]);
        rig.memory.reads = 0;
        let before = rig.memory.bytes.clone();
        rig.take_interrupts();
        rig.steps(100);
        assert_eq!(rig.memory.reads, 0, "seed {seed}");
        assert!(
            rig.memory.bytes == before,
            "seed {seed}: memory was written"
        );
        assert!(rig.take_interrupts().is_empty(), "seed {seed}");
        assert_eq!(rig.read(0x4010), 1, "seed {seed}: MPC");
        assert_eq!(rig.device.config_read(0xe8) & 1 << 21, 0, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn master_disable_ends_requests_and_then_says_so() {
    let mut waited = 0;
    for seed in 0..40 {
        let mut rig = Rig::wild(seed);
        let address = rig.put(PAYLOAD, &[1; 64]);
        for n in 0..30 {
            let command = if n % 3 == 2 { LAST } else { IFCS };
            rig.push(data(address, 20, command, 0));
        }
        rig.doorbell();
        rig.step();
        let control = rig.read(0x0000);
        rig.write(0x0000, control | 4);
        waited += u32::from(rig.read(0x0008) & 1 << 19 != 0);
        rig.until("quiet", |rig| rig.read(0x0008) & 1 << 19 == 0);
        assert_eq!(rig.device.config_read(0xe8) & 1 << 21, 0, "seed {seed}");
        let before = rig.memory.bytes.clone();
        let sent = rig.sent().len();
        rig.steps(100);
        assert!(
            rig.memory.bytes == before,
            "seed {seed}: memory was written"
        );
        assert_eq!(rig.sent().len(), sent, "seed {seed}");
        // It goes on where it stopped.
        rig.write(0x0000, control);
        rig.until_done(29);
        assert_eq!(rig.sent().len(), 10, "seed {seed}");
        rig.expect_clean();
    }
    assert!(waited > 20, "it is slow in most of the seeds 0 to 39");
}

#[test]
fn after_master_disable_no_new_frame_begins() {
    for seed in 0..20 {
        let mut latitude = Latitude::none();
        latitude.late_master_disable = true;
        let mut rig = Rig::warm(seed, latitude);
        rig.give(2);
        let address = rig.put(PAYLOAD, &[1; 64]);
        rig.push(data(address, 64, LAST, 0));
        let control = rig.read(0x0000);
        rig.write(0x0000, control | 4);
        rig.doorbell();
        rig.deliver(&[0xff; 64]);
        let pending = rig.device.config_read(0xe8) & 1 << 21 != 0;
        rig.step();
        assert!(rig.sent().is_empty(), "seed {seed}, pending: {pending}");
        assert_eq!(rig.rx(0).status, 0, "seed {seed}, pending: {pending}");
    }
}

#[test]
fn a_device_that_never_becomes_quiet() {
    let mut rig = Rig::plain();
    rig.device.never_quiet(true);
    let control = rig.read(0x0000);
    rig.write(0x0000, control | 4);
    rig.steps(5000);
    assert_ne!(rig.read(0x0008) & 1 << 19, 0);
    assert_ne!(rig.device.config_read(0xe8) & 1 << 21, 0);
    rig.device.config_write(4, 2);
    rig.write(0x0000, 1 << 26);
    rig.steps(5000);
    assert_ne!(rig.device.config_read(0xe8) & 1 << 21, 0);
    rig.device.never_quiet(false);
    rig.steps(2);
    assert_eq!(rig.device.config_read(0xe8) & 1 << 21, 0);
}

#[test]
fn statistics_are_cleared_by_reading() {
    let mut rig = Rig::plain();
    let mut frame = vec![0xff; 6];
    frame.resize(100, 1);
    let address = rig.put(PAYLOAD, &frame);
    for _ in 0..3 {
        rig.push(data(address, 100, LAST, 0));
    }
    rig.doorbell();
    rig.steps(2);
    assert_eq!(rig.read(0x4080), 3, "GPTC");
    assert_eq!(rig.read(0x4080), 0);
    assert_eq!(rig.read(0x40f4), 3, "BPTC");
    assert_eq!(rig.read(0x40dc), 3, "PTC127");
    assert_eq!(rig.read(0x4090), 312, "GOTCL");
    assert_eq!(rig.read(0x4090), 312, "the lower half stays");
    assert_eq!(rig.read(0x4094), 0, "GOTCH");
    assert_eq!(rig.read(0x4090), 0, "and is cleared with the upper one");
    rig.write(0x40c8, 7);
    assert_eq!(rig.read(0x40c8), 312, "TOTL cannot be written");
    rig.expect_clean();
}

#[test]
fn octets_counted_between_the_two_halves_are_read_later_or_lost() {
    for forgets in [false, true] {
        let mut latitude = Latitude::none();
        latitude.forgets_octets = forgets;
        let mut rig = Rig::warm(0, latitude);
        let address = rig.put(PAYLOAD, &[7; 100]);
        let send = |rig: &mut Rig| {
            rig.push(data(address, 100, LAST, 0));
            rig.doorbell();
            rig.steps(2);
        };
        send(&mut rig);
        assert_eq!(rig.read(0x4090), 104, "GOTCL");
        send(&mut rig);
        assert_eq!(rig.read(0x4094), 0, "GOTCH");
        assert_eq!(rig.read(0x4090), if forgets { 0 } else { 104 }, "GOTCL");
        // The upper half alone clears as well.
        send(&mut rig);
        rig.read(0x4094);
        rig.read(0x4094);
        assert_eq!(rig.read(0x4090), 0, "GOTCL");
        rig.expect_clean();
    }
}

#[test]
fn the_same_seed_is_the_same_device() {
    let trace = |seed: u64| {
        let mut rig = Rig::wild(seed);
        let address = rig.put(PAYLOAD, &[1; 64]);
        rig.give(20);
        let mut trace = Vec::new();
        for n in 0..20 {
            rig.push(data(address, 64, LAST, 0));
            rig.doorbell();
            rig.deliver(&[0xff; 80]);
            rig.step();
            trace.push((rig.now, rig.read(0x3810), rig.sent().len(), rig.is_done(n)));
        }
        (trace, rig.memory.bytes, rig.memory.interrupts)
    };
    assert!(trace(9) == trace(9));
    assert!(trace(9) != trace(10));
}

/// As the register test of Linux e1000e (`ethtool -t`) writes and compares.
#[test]
fn bits_that_are_not_there_read_zero() {
    let mut rig = Rig::cold(0, Latitude::none());
    for (at, mask) in [
        (0x0028, u32::MAX),
        (0x002c, 0xffff),
        (0x0030, 0xffff),
        (0x0038, 0xffff),
        (0x2820, 0xffff),
        (0x2804, u32::MAX),
        (0x2810, 0xffff),
        (0x2818, 0xffff),
        (0x2168, 0xfff8),
        (0x0170, 0xffff),
        (0x0178, 0xffff),
        (0x0410, 0x3fff_ffff),
        (0x3804, u32::MAX),
        (0x3820, 0xffff),
        (0x5404, 0x8003_ffff),
        (0x5200, u32::MAX),
    ] {
        for pattern in [0x5a5a_5a5a, 0xa5a5_a5a5, 0, u32::MAX] {
            rig.write(at, pattern);
            assert_eq!(rig.read(at), pattern & mask, "{at:#x}");
        }
    }
    rig.expect_clean();
}

#[test]
fn a_phy_in_loopback_sends_back_what_it_gets() {
    let mut rig = Rig::plain();
    rig.start_receive(0);
    rig.give(2);
    // MDIC: write BMCR of PHY 1: loopback, 1000 Mbit/s, full duplex.
    rig.write(0x0020, 0x0420_0000 | 0x4140);
    rig.steps(2);
    let mut frame = vec![0x5a; 100];
    frame[..6].copy_from_slice(&MAC);
    let address = rig.put(PAYLOAD, &frame);
    let index = rig.push(data(address, 100, LAST, 0));
    rig.doorbell();
    rig.until_done(index);
    rig.steps(4);
    assert_eq!(rig.buffer(0)[..100], frame[..]);
    assert!(rig.sent().is_empty(), "nothing leaves");
}
