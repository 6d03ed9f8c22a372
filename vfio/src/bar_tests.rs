//! On a file in memory that plays the device's: where the BAR is mapped the accesses are the CPU's
//! own, elsewhere they are calls, and both must find the same bytes.

use std::os::fd::AsFd;

use proptest::prelude::*;
use rustix::fs::MemfdFlags;

use super::*;
use crate::device::played;

/// Where the BAR begins in the file.
const OFFSET: u64 = 0x1_0000;
const LEN: u32 = 0x6000;

fn device() -> Arc<Device> {
    let file = rustix::fs::memfd_create("pagewire-device", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, OFFSET + u64::from(LEN)).unwrap();
    Arc::new(played(file))
}

fn registers(device: &Arc<Device>, mappable: &[(u64, u64)]) -> VfioRegisters {
    let area = |(offset, len): &(u64, u64)| Area {
        offset: *offset,
        len: *len,
    };
    let region = Region {
        len: u64::from(LEN),
        offset: OFFSET,
        mappable: mappable.iter().map(area).collect(),
    };
    VfioRegisters::map(device, &region).unwrap()
}

/// Byte `offset` of the BAR as the device has it.
fn byte(device: &Device, offset: u32) -> u8 {
    let mut byte = [0];
    let at = OFFSET + u64::from(offset);
    assert_eq!(rustix::io::pread(device, &mut byte, at), Ok(1));
    byte[0]
}

fn write(registers: &VfioRegisters, width: u32, offset: u32, value: u32) {
    match width {
        // SAFETY: the device is a file.
        1 => unsafe { registers.write8(offset, value as u8) },
        // SAFETY: as above.
        2 => unsafe { registers.write16(offset, value as u16) },
        // SAFETY: as above.
        _ => unsafe { registers.write(offset, value) },
    }
}

fn read(registers: &VfioRegisters, width: u32, offset: u32) -> u32 {
    match width {
        1 => u32::from(registers.read8(offset)),
        2 => u32::from(registers.read16(offset)),
        _ => registers.read(offset),
    }
}

/// All of it, nothing, without the first page, with holes, in one page.
const MAPPINGS: [&[(u64, u64)]; 5] = [
    &[(0, 0x6000)],
    &[],
    &[(0x1000, 0x5000)],
    &[(0, 0x2000), (0x3000, 0x1000), (0x5000, 0x1000)],
    &[(0x2000, 0x1000)],
];

proptest! {
    #[test]
    fn every_register_is_reached_however_it_is_mapped(
        accesses in prop::collection::vec((0..3_u32, 0..LEN + 8, any::<u32>()), 1..50),
    ) {
        for mapping in MAPPINGS {
            let device = device();
            let registers = registers(&device, mapping);
            for (log2, offset, value) in &accesses {
                let width = 1 << log2;
                let ones = u32::MAX >> (32 - 8 * width);
                let before = (0..4).map(|i| offset + i).filter(|at| *at < LEN);
                let before: Vec<u8> = before.map(|at| byte(&device, at)).collect();
                write(&registers, width, *offset, *value);
                let found = read(&registers, width, *offset);
                if offset + width <= LEN && offset % width == 0 {
                    prop_assert_eq!(found, value & ones);
                    for (i, expected) in value.to_le_bytes().iter().take(width as usize).enumerate() {
                        prop_assert_eq!(byte(&device, offset + i as u32), *expected);
                    }
                } else {
                    prop_assert_eq!(found, ones, "outside, or not aligned");
                    let after = (0..4).map(|i| offset + i).filter(|at| *at < LEN);
                    let after: Vec<u8> = after.map(|at| byte(&device, at)).collect();
                    prop_assert_eq!(before, after);
                }
            }
        }
    }
}

#[test]
fn registers_outlive_whoever_made_them() {
    let device = device();
    let file = device.as_fd().try_clone_to_owned().unwrap();
    let first = registers(&device, MAPPINGS[3]);
    drop(device);
    let second = first.clone();
    drop(first);
    write(&second, 4, 0, 0x1234_5678);
    write(&second, 4, 0x2000, 0x9abc_def0);
    let elsewhere = std::thread::spawn(move || (second.read(0), second.read(0x2000)));
    assert_eq!(elsewhere.join().unwrap(), (0x1234_5678, 0x9abc_def0));
    let mut bytes = [0; 4];
    rustix::io::pread(&file, &mut bytes, OFFSET).unwrap();
    assert_eq!(u32::from_le_bytes(bytes), 0x1234_5678);
}

#[test]
fn what_is_mapped_is_told() {
    let device = device();
    let all = |mapping| registers(&device, mapping).mapped().collect::<Vec<_>>();
    assert_eq!(all(MAPPINGS[4]), std::slice::from_ref(&(0x2000..0x3000)));
    assert_eq!(all(MAPPINGS[1]), []);
    assert_eq!(
        all(MAPPINGS[3]),
        [0..0x2000, 0x3000..0x4000, 0x5000..0x6000]
    );
    assert_eq!(registers(&device, MAPPINGS[1]).len(), LEN);
}

#[test]
fn configuration_space_is_words_and_all_ones_outside() {
    let device = device();
    device.write_config(0x10, 0x1234_5678);
    assert_eq!(device.read_config(0x10), 0x1234_5678);
    for outside in [2, 0x1000, 0xffff, 0xfffc] {
        assert_eq!(device.read_config(outside), u32::MAX, "{outside:#x}");
        device.write_config(outside, 0);
    }
    assert_eq!(byte(&device, 0), 0);
}
