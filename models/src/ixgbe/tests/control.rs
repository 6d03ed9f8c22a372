//! Registers, reset, EEPROM, link, configuration space.

use super::super::{DeviceId, Latitude, ModelConfig};
use super::rig::*;
use crate::Device;

#[test]
fn configuration_space_names_the_device_and_its_capabilities() {
    for device in [
        DeviceId::Kx4,
        DeviceId::Xaui,
        DeviceId::Sfp,
        DeviceId::X540T,
    ] {
        let mut rig = Rig::with(ModelConfig {
            device,
            ..ModelConfig::default()
        });
        let id = rig.device.config_read(0);
        assert_eq!(id, u32::from(device.id()) << 16 | 0x8086);
        assert_eq!(rig.device.config_read(0x70) & 0x07ff_00ff, 0x003f_0011);
        assert_eq!(rig.device.config_read(0xa4) & 1 << 28, 1 << 28, "FLR");
    }
    let rig = Rig::cold(0, Latitude::none());
    assert_eq!(rig.device.bar_len(0), Some(512 * 1024));
    assert_eq!(rig.device.bar_len(4), Some(16 * 1024));
    assert_eq!(rig.device.bar_len(1), None);
    assert_eq!(rig.device.vectors(), 64);
}

#[test]
fn the_eeprom_is_read_word_by_word_and_adds_up() {
    for bad_eeprom in [false, true] {
        let mut rig = Rig::with(ModelConfig {
            seed: 5,
            bad_eeprom,
            latitude: Latitude {
                eeprom_sections: false,
                ..Latitude::default()
            },
            ..ModelConfig::default()
        });
        let mut sum = 0u16;
        for word in 0..0x40 {
            rig.write(0x1_0014, word << 2 | 1);
            rig.until("EERD", |rig| rig.read(0x1_0014) & 2 != 0);
            sum = sum.wrapping_add((rig.read(0x1_0014) >> 16) as u16);
        }
        assert_eq!(sum != 0xbaba, bad_eeprom, "seed 5: {sum:#x}");
        rig.expect_clean();
    }
}

#[test]
fn a_reset_brings_the_address_back_and_forgets_the_rest() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        rig.write(0xa200, 0x1234);
        rig.write(0x5080, 0x300);
        rig.set(0x0000, 1 << 2);
        rig.reset();
        rig.until("EEPROM", |rig| rig.read(0x1_0010) & 1 << 9 != 0);
        assert_eq!(rig.read(0x5400), 0x3322_1102, "seed {seed}");
        assert_eq!(rig.read(0xa204), 0x8000_5544, "seed {seed}");
        assert_eq!(rig.read(0x5080), 0, "seed {seed}");
        assert_eq!(rig.read(0x6028) & 1 << 25, 0, "seed {seed}");
        assert_eq!(rig.read(0x3000), 0, "seed {seed}");
        rig.expect_clean();
    }
}

#[test]
fn writes_during_a_reset_are_lost_and_reported() {
    let mut found = 0;
    for seed in 0..20 {
        let mut rig = Rig::cold(seed, Latitude::default());
        rig.write(0x0000, 1 << 26);
        if rig.read(0x0000) & 1 << 26 != 0 {
            rig.write(0x5080, 1 << 10);
            rig.expect_violation("during a reset");
            found += 1;
        }
    }
    assert!(found > 5, "seeds 0 to 19: {found}");
}

#[test]
fn a_function_level_reset_is_one_and_takes_bus_mastering() {
    let mut rig = Rig::plain();
    rig.device.config_write(0xa8, 1 << 15);
    assert_eq!(rig.device.config_read(4) & 4, 0);
    assert_eq!(rig.device.config_read(0x70) & 1 << 31, 0);
    assert_eq!(rig.device.config_read(0xa8) & 1 << 15, 0);
    assert_eq!(rig.read(0x3000), 0);
    rig.expect_clean();
}

#[test]
fn power_management_sleeps_and_wakes() {
    let mut rig = Rig::plain();
    rig.device.config_write(0x44, 3);
    assert_eq!(rig.device.config_read(0x44) & 3, 3, "PMCSR is writable");
    assert_eq!(rig.read(0x0008), u32::MAX);
    rig.device.config_write(0x44, 0);
    assert_ne!(rig.read(0x0008), u32::MAX);
    assert_eq!(rig.read(0x3000), 0, "it was reset");
}

#[test]
fn the_master_disable_is_followed_by_the_status() {
    for seed in 0..20 {
        let mut rig = Rig::wild(seed);
        assert_ne!(rig.read(0x0008) & 1 << 19, 0, "seed {seed}");
        rig.set(0x0000, 1 << 2);
        rig.until("quiet", |rig| rig.read(0x0008) & 1 << 19 == 0);
        assert_eq!(rig.device.config_read(0xa8) & 1 << 21, 0, "seed {seed}");
        rig.clear(0x0000, 1 << 2);
        assert_ne!(rig.read(0x0008) & 1 << 19, 0, "seed {seed}");
    }
    let mut rig = Rig::plain();
    rig.device.never_quiet(true);
    rig.set(0x0000, 1 << 2);
    rig.steps(200);
    assert_ne!(rig.read(0x0008) & 1 << 19, 0);
    assert_ne!(rig.device.config_read(0xa8) & 1 << 21, 0);
}

#[test]
fn the_link_follows_the_carrier_and_interrupts() {
    let mut rig = Rig::plain();
    rig.write(0x0a00, 0x8300);
    rig.write(0x0880, 1 << 20);
    rig.read(0x0800);
    assert_eq!(rig.read(0x42a4), 1 << 30 | 3 << 28);
    rig.lanes.lock().unwrap().cut = true;
    rig.steps(2);
    assert_eq!(rig.read(0x42a4), 0);
    assert_eq!(rig.take_interrupts(), [3]);
    assert_eq!(rig.read(0x0800), 1 << 20);
    rig.lanes.lock().unwrap().cut = false;
    rig.steps(2);
    assert_eq!(rig.read(0x42a4), 1 << 30 | 3 << 28);
    assert_eq!(rig.take_interrupts(), [3]);
    rig.expect_clean();
}

#[test]
fn semaphores_are_taken_and_given_back() {
    for seed in 0..20 {
        let mut rig = Rig::cold(seed, Latitude::default());
        assert_eq!(rig.read(0x1_0140) & 1, 1, "as the one before left it");
        rig.write(0x1_0140, 0);
        assert_eq!(rig.read(0x1_0140) & 1, 0, "seed {seed}");
        assert_eq!(rig.read(0x1_0140) & 1, 1, "seed {seed}: reading takes it");
        rig.until("SWESMBI", |rig| {
            rig.write(0x1_0140, 3);
            rig.read(0x1_0140) & 2 != 0
        });
        rig.write(0x1_0160, 1);
        rig.write(0x1_0140, 0);
        rig.expect_clean();
        rig.write(0x1_0160, 0);
        rig.expect_violation("SWESMBI");
    }
}

#[test]
fn registers_hold_the_bits_that_they_have() {
    let mut rig = Rig::cold(0, Latitude::none());
    rig.write(0x1000, u32::MAX);
    assert_eq!(rig.read(0x1000), 0xffff_ff80);
    rig.write(0x1008, u32::MAX);
    assert_eq!(rig.read(0x1008), 0x000f_ff80);
    rig.write(0x6008, u32::MAX);
    assert_eq!(rig.read(0x6008), 0x000f_ff80);
    rig.write(0x3000, u32::MAX);
    assert_eq!(rig.read(0x3000), 1);
    rig.write(0xa20c, u32::MAX);
    assert_eq!(rig.read(0xa20c), 0x8000_ffff, "RAH");
    for value in [0xffff, 0x5a5a, 0] {
        rig.write(0x1018, value);
        assert_eq!(rig.read(0x1018), value, "RDT");
    }
    rig.write(0x2104, 0x0200_0003);
    assert_eq!(rig.read(0x1054), 0x0200_0003, "SRRCTL of the 82598's place");
    rig.write(0x5c04, 0x0102_0304);
    assert_eq!(rig.read(0xeb04), 0x0102_0304);
    assert_eq!(rig.read(0x3c00), 512 << 10);
    assert_eq!(rig.read(0xcc1c), 160 << 10);
    assert_eq!(rig.read(0x1_0148) & 1 << 15, 1 << 15, "FWSM");
    rig.write(0x425c, 1 << 30);
    assert_eq!(rig.read(0x425c) & 1 << 30, 0, "MSCA");
    assert_eq!(rig.read(0xee00) & 8, 8, "FDIRCTRL");
    rig.expect_violation("128-byte aligned");
    rig.read(0x0100);
    rig.expect_violation("no register");
}

#[test]
fn enable_reads_as_it_is_and_not_as_it_was_written() {
    let mut late = 0;
    for seed in 0..20 {
        let mut rig = Rig::cold(seed, Latitude::default());
        rig.initialise();
        rig.ring(0x1000, RX_RING);
        rig.write(0x1014, 1 << 25 | 2);
        rig.write(0x1028, 1 << 25);
        late += u32::from(rig.read(0x1028) & 1 << 25 == 0);
        rig.until("on", |rig| rig.read(0x1028) & 1 << 25 != 0);
        rig.write(0x1028, 0);
        rig.until("off", |rig| rig.read(0x1028) & 1 << 25 == 0);
        rig.expect_clean();
    }
    assert!(late > 5, "seeds 0 to 19: {late}");
}

#[test]
fn a_removed_device_reads_all_ones() {
    let mut rig = Rig::plain();
    rig.device.remove();
    assert_eq!(rig.read(0x0008), u32::MAX);
    assert_eq!(rig.device.config_read(0), u32::MAX);
    assert!(!rig.step());
}

#[test]
fn the_register_of_semaphores_of_an_x540_has_one_of_its_own() {
    for seed in 0..10 {
        let mut rig = Rig::with(ModelConfig {
            seed,
            device: DeviceId::X540T,
            ..ModelConfig::default()
        });
        rig.reset();
        rig.until("the firmware", |rig| rig.read(0x1_0160) >> 31 == 0);
        assert_eq!(
            rig.read(0x1_0160) >> 31,
            1,
            "seed {seed}: the first read took it"
        );
        rig.write(0x1_0160, 1 << 31 | 2);
        assert_eq!(rig.read(0x1_0160), 1 << 31 | 2, "seed {seed}");
        rig.write(0x1_0160, 2);
        rig.expect_clean();
        rig.write(0x1_0160, 0);
        rig.expect_violation("own semaphore");
    }
}

/// Frames that are sent between the two readings of a long counter are counted by the next ones.
#[test]
fn a_long_counter_is_read_in_halves_and_loses_nothing() {
    let mut rig = Rig::plain();
    // GOTCL and GOTCH; QBTC_L and QBTC_H of set 0.
    for low in [0x4090, 0x8700] {
        rig.read(low);
        rig.read(low + 4);
        rig.send(&pattern(60, 1));
        rig.steps(3);
        assert_eq!(rig.read(low), 64);
        rig.send(&pattern(124, 1));
        rig.steps(3);
        assert_eq!(rig.read(low + 4), 0);
        assert_eq!(rig.read(low), 128, "{low:#x}");
        rig.read(low + 4);
        assert_eq!(rig.read(low), 0, "{low:#x}");
        // The upper half alone clears it as well.
        rig.send(&pattern(60, 1));
        rig.steps(3);
        rig.read(low + 4);
        rig.read(low + 4);
        assert_eq!(rig.read(low), 0, "{low:#x}");
        rig.read(low + 4);
    }
    rig.expect_clean();
}

#[test]
fn an_x540_has_a_phy_and_an_82599_has_none() {
    for (device, there) in [(DeviceId::X540T, true), (DeviceId::Kx4, false)] {
        let mut rig = Rig::with(ModelConfig {
            latitude: Latitude::none(),
            device,
            ..ModelConfig::default()
        });
        let mut read = |port: u32, kind: u32, register: u32| {
            let place = port << 21 | kind << 16 | 1 << 30;
            rig.write(0x425c, place | register);
            rig.write(0x425c, place | 3 << 26);
            assert_eq!(rig.read(0x425c) >> 30 & 1, 0, "it clears itself");
            rig.read(0x4260) >> 16
        };
        let expected = |value| if there { value } else { 0xffff };
        // PMA/PMD: identifier, devices, and that one is there.
        assert_eq!(read(0, 1, 2), expected(0x0154));
        assert_eq!(read(0, 1, 3), expected(0x0200));
        assert_eq!(read(0, 1, 5), expected(0x009a));
        assert_eq!(read(0, 1, 8) >> 14, expected(0x8000) >> 14);
        assert_eq!(read(0, 2, 8), 0xffff, "no WIS");
        assert_eq!(read(1, 1, 2), 0xffff, "no second PHY");
        // Advertisement of auto-negotiation is kept, its restart is not.
        for (register, written, kept) in [(16, 0x1e1, 0x1e1), (0, 0x1200, 0x1000)] {
            let place = 7 << 16 | 1 << 30;
            rig.write(0x425c, place | register);
            rig.write(0x4260, written);
            rig.write(0x425c, place | 1 << 26);
            rig.write(0x425c, place | 3 << 26);
            assert_eq!(rig.read(0x4260) >> 16, expected(kept));
        }
        rig.expect_clean();
    }
}
