//! A hostile 82574L on the modelled host: its lies end where the IOMMU says.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

use std::time::Duration;

use pagewire_hal::{DmaMemory, Platform, Region, Registers};
use pagewire_models::e1000e::{E1000e82574, Hostile, Lie, Lies, ModelConfig};
use pagewire_models::host::{Attached, ModelRegisters};
use pagewire_models::{Host, HostConfig};

const ENTRIES: u32 = 64;

fn write(registers: &ModelRegisters, offset: u32, value: u32) {
    // SAFETY: the test is the driver. The device writes at random, and the host lets it reach
    // nothing but what is mapped, which belongs to the test and is looked at when no step runs.
    unsafe { registers.write(offset, value) }
}

/// Sets both rings up whatever the device says, and posts a frame that begins at `address`.
fn drive(attached: &mut Attached<E1000e82574>, registers: &ModelRegisters, address: u64) {
    // SAFETY: as for `write`.
    unsafe { attached.platform.write_config(4, 0x0010_0006) };
    let len = ENTRIES as usize * 16;
    let ring = attached.platform.allocate(2 * len, 4096).unwrap();
    let base = ring.address().0;
    let mut raw = [0; 16];
    raw[..8].copy_from_slice(&address.to_le_bytes());
    raw[8..10].copy_from_slice(&100u16.to_le_bytes());
    raw[11] = 0xb;
    for index in 0..ENTRIES as usize {
        let place = ring.pointer().as_ptr().wrapping_add(index * 16);
        // SAFETY: inside the first ring, and the device does not step now.
        unsafe { place.cast::<[u8; 16]>().write_volatile(raw) };
    }
    for (at, start) in [(0x3800, base), (0x2800, base + len as u64)] {
        write(registers, at, start as u32);
        write(registers, at + 4, (start >> 32) as u32);
        write(registers, at + 8, len as u32);
        write(registers, at + 0x10, 0);
    }
    write(registers, 0x0000, 1 << 6);
    write(registers, 0x0400, 1 << 1 | 1 << 3);
    write(registers, 0x0100, 1 << 1 | 1 << 15 | 1 << 26);
    for tail in 1..ENTRIES {
        write(registers, 0x3818, tail);
        registers.read(0x3810);
        attached.platform.read_config(0xe8);
        attached.platform.wait(Duration::from_micros(20));
    }
    // The device goes on as it likes while the driver resets it and gives its memory back.
    write(registers, 0x0000, 1 << 26);
    attached.platform.wait(Duration::from_micros(200));
    drop(ring);
    attached.platform.wait(Duration::from_micros(200));
}

#[test]
fn what_is_not_mapped_for_writing_stays_as_it_is() {
    let mut quiet = 0;
    for seed in 0..20 {
        let host = Host::new(HostConfig {
            seed,
            ..HostConfig::default()
        });
        let (ours, _theirs) = pagewire_models::wire::pair();
        let config = ModelConfig {
            seed,
            ..ModelConfig::default()
        };
        let mut attached = host.attach(E1000e82574::new(config, Box::new(ours)));
        let payload: Vec<u8> = (0..8192u32).map(|i| ((i * 3) >> 2) as u8).collect();
        let region = host.register(payload.clone()).unwrap();
        let address = region.translation().runs(0, 100).next().unwrap().address.0;
        let registers = attached.platform.map_bar(0).unwrap();
        // It stays, or it would soon be gone for ever.
        let lies = Lies::all().without(Lie::Removal);
        let hostile = Hostile::from_seed(seed).with_lies(lies).with_gap(4);
        let handle = attached.handle.clone();
        handle.with_device(|device| device.be_hostile(Some(hostile)));
        for _ in 0..3 {
            drive(&mut attached, &registers, address);
        }
        assert!(region.bytes() == payload, "seed {seed}");
        let told = handle.with_device(|device| device.lies_told().clone());
        assert!(told.total() > 20, "seed {seed}: {told:?}");
        quiet += told.told(Lie::WriteWhileQuiet);
    }
    assert!(quiet > 0, "no write while quiet in seeds 0 to 19");
}
