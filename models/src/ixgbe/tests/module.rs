//! The SFP+ module behind I2CCTL, asked bit by bit.

use super::super::{DeviceId, Latitude, ModelConfig, Module};
use super::rig::*;

const I2CCTL: u32 = 0x0028;
const CLOCK_IN: u32 = 1 << 0;
const CLOCK: u32 = 1 << 1;
const DATA_IN: u32 = 1 << 2;
const DATA: u32 = 1 << 3;

fn rig(seed: u64, module: Module, latitude: Latitude) -> Rig {
    let mut rig = Rig::with(ModelConfig {
        seed,
        latitude,
        device: DeviceId::Sfp,
        module,
        ..ModelConfig::default()
    });
    // The PHY's semaphore, by that of the register.
    rig.until("SMBI", |rig| {
        let free = rig.read(0x1_0140) & 1 == 0;
        rig.write(0x1_0140, 2);
        free && rig.read(0x1_0140) & 2 != 0
    });
    rig.write(0x1_0160, 2);
    rig
}

/// Drives both wires, and waits until the clock is up if it is to be.
fn drive(rig: &mut Rig, wires: u32) {
    rig.write(I2CCTL, wires);
    if wires & CLOCK != 0 {
        rig.until("the clock", |rig| rig.read(I2CCTL) & CLOCK_IN != 0);
    }
}

fn start(rig: &mut Rig) {
    drive(rig, DATA);
    drive(rig, CLOCK | DATA);
    drive(rig, CLOCK);
    drive(rig, 0);
}

fn stop(rig: &mut Rig) {
    drive(rig, 0);
    drive(rig, CLOCK);
    drive(rig, CLOCK | DATA);
}

fn bit(rig: &mut Rig, high: bool) -> bool {
    let data = if high { DATA } else { 0 };
    drive(rig, data);
    drive(rig, CLOCK | data);
    let seen = rig.read(I2CCTL) & DATA_IN != 0;
    drive(rig, data);
    seen
}

/// Sends a byte; whether it was acknowledged.
fn send(rig: &mut Rig, byte: u8) -> bool {
    for n in (0..8).rev() {
        bit(rig, byte >> n & 1 != 0);
    }
    !bit(rig, true)
}

fn receive(rig: &mut Rig, last: bool) -> u8 {
    let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(bit(rig, true)));
    bit(rig, last);
    byte
}

/// `count` bytes from `at` on.
fn read(rig: &mut Rig, address: u8, at: u8, count: usize) -> Option<Vec<u8>> {
    start(rig);
    let named = send(rig, address) && send(rig, at);
    start(rig);
    let bytes = (named && send(rig, address | 1))
        .then(|| (1..=count).map(|n| receive(rig, n == count)).collect());
    stop(rig);
    bytes
}

#[test]
fn a_module_says_what_it_is() {
    for (module, expected) in [
        (Module::ShortReach, [0x03, 0, 0, 0x10, 0, 0, 0, 0, 0]),
        (Module::Cable, [0x03, 0, 0, 0, 0, 0, 0, 0, 0x04]),
        (Module::Gigabit, [0x03, 0, 0, 0, 0, 0, 0x01, 0, 0]),
    ] {
        for seed in 0..10 {
            let latitude = Latitude::default();
            let mut rig = rig(seed, module, latitude);
            for _ in 0..10 {
                let found = (0..3).find_map(|_| read(&mut rig, 0xa0, 0, 9));
                assert_eq!(found.as_deref(), Some(&expected[..]), "seed {seed}");
                let one = (0..3).find_map(|_| read(&mut rig, 0xa0, 3, 1));
                assert_eq!(one, Some(vec![expected[3]]), "seed {seed}");
            }
            assert_eq!(rig.read(0x0020) & 1 << 2, 1 << 2, "a module is there");
            rig.expect_clean();
        }
        let mut rig = rig(0, module, Latitude::none());
        assert_eq!(read(&mut rig, 0xa0, 0, 9).as_deref(), Some(&expected[..]));
        assert_eq!(read(&mut rig, 0xa4, 0, 1), None, "nobody has this address");
    }
}

#[test]
fn an_empty_cage_answers_nobody() {
    let mut rig = rig(1, Module::None, Latitude::default());
    assert_eq!(read(&mut rig, 0xa0, 0, 1), None);
    assert_eq!(rig.read(0x0020) & 1 << 2, 0);
    rig.expect_clean();
}

#[test]
fn the_wires_are_software_s_with_the_semaphore_only() {
    let mut rig = rig(1, Module::Cable, Latitude::none());
    rig.write(0x1_0160, 0);
    rig.write(I2CCTL, CLOCK | DATA);
    rig.expect_violation("I2CCTL");
}

#[test]
fn a_module_without_its_laser_has_no_link() {
    let mut rig = rig(1, Module::ShortReach, Latitude::default());
    rig.steps(6000);
    assert_eq!(rig.read(0x42a4) & 1 << 30, 0, "dark");
    rig.write(0x0020, 0);
    rig.until("the link", |rig| {
        rig.step();
        rig.read(0x42a4) & 1 << 30 != 0
    });
    rig.expect_clean();
}
