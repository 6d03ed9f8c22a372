//! The platform, without a driver.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use pagewire_hal::{DmaMemory, Platform, PlatformError, Region, Registers};
use pagewire_vfio::user::{ClientError, Options, VfioUserPlatform};
use pagewire_vfio::{SealedFile, VfioError};

use crate::bench::Served;
use crate::conformance::{Intel82574, Virtio};

#[test]
fn registers_and_configuration_space_are_those_of_the_device() {
    let served = Served::<Intel82574>::new(0);
    let mut platform = served.connect();
    assert_eq!(platform.read_config(0), 0x10d3_8086);
    assert_eq!(platform.read_config(2), u32::MAX);
    // SAFETY: bus mastering stays off.
    unsafe { platform.write_config(0x3c, 0x77) };
    assert_eq!(platform.read_config(0x3c) & 0xff, 0x77);
    assert_eq!(platform.map_bar(1).err(), Some(PlatformError::NoBar(1)));
    assert_eq!(platform.map_bar(6).err(), Some(PlatformError::NoBar(6)));
    let len = platform.bar_len(0).unwrap() as u32;
    let registers = platform.map_bar(0).unwrap();
    // STATUS says at least that there is a full duplex link, or not; no ones in its upper half.
    assert_ne!(registers.read(8), u32::MAX);
    assert_eq!(registers.read(len), u32::MAX);
    assert_eq!(registers.read(u32::MAX - 3), u32::MAX);
    assert_eq!(registers.read(2), u32::MAX);
    // Outside, so the device has seen none of it.
    assert_eq!(served.server.violations(), Vec::<String>::new());
    // It has no registers of 16 bits, and says so.
    assert_eq!(registers.read16(8), u16::MAX);
    assert_eq!(served.server.violations().len(), 1);
}

#[test]
fn narrow_registers_and_reset() {
    let served = Served::<Virtio>::new(0);
    let mut platform = served.connect();
    let registers = platform.map_bar(4).unwrap();
    // SAFETY: the status of virtio; no queue is on.
    unsafe { registers.write8(20, 1) };
    assert_eq!(registers.read8(20), 1);
    platform.reset().unwrap();
    assert_eq!(registers.read8(20), 0);
    // queue_select and queue_size, which never are all ones.
    // SAFETY: as above.
    unsafe { registers.write16(0x16, 0) };
    assert_eq!(registers.read16(0x16), 0);
    assert_eq!(served.server.violations(), Vec::<String>::new());
}

#[test]
fn vectors_are_those_that_were_asked_for() {
    let served = Served::<Intel82574>::new(0);
    let mut platform = served.connect();
    let handle = platform.handle();
    assert_eq!(platform.vectors(), 5);
    for count in [3, 5, 1] {
        assert_eq!(platform.enable_interrupts(count), Ok(count));
        for vector in 0..count {
            assert!(!platform.take_interrupt(vector));
            platform.trigger_interrupt(vector).unwrap();
            assert!(handle.wait_for_interrupt(Duration::from_secs(20)));
            assert!(platform.take_interrupt(vector));
        }
        assert!(!handle.wait_for_interrupt(Duration::ZERO));
    }
    assert_eq!(platform.enable_interrupts(9), Ok(5));
    assert_eq!(platform.enable_interrupts(0), Ok(0));
}

#[test]
fn memory_is_shared_and_regions_are_sealed() {
    let served = Served::<Intel82574>::new(0);
    let mut platform = served.connect();
    let handle = platform.handle();
    let free = handle.free_addresses();
    let memory = platform.allocate(10_000, 4096).unwrap();
    assert!(memory.address().0.is_multiple_of(4096));
    assert!(memory.address().0 < 1 << 32);
    let sealed = SealedFile::copy_of(b"as it is").unwrap();
    let file = sealed.as_fd().try_clone_to_owned().unwrap();
    let region = handle.register(sealed).unwrap();
    assert!(!region.was_copied());
    assert_eq!(region.bytes(), b"as it is");
    assert_eq!(
        rustix::io::pwrite(&file, b"x", 0),
        Err(rustix::io::Errno::PERM)
    );
    let mut long = vec![7; 3 * 4096 + 5];
    long[4096] = 9;
    let copied = handle.register(long.clone()).unwrap();
    assert!(copied.was_copied());
    assert_eq!(copied.bytes(), long);
    assert_eq!(copied.translation().len(), long.len());
    assert_eq!(handle.register(Vec::new()).err(), Some(VfioError::Empty));
    assert!(handle.mapped_bytes() > 0);
    drop((region, copied));
    assert_eq!(handle.free_addresses(), free);
    // What lives on after the platform stays readable.
    drop(platform);
    assert!(handle.is_gone());
    assert_eq!(memory.len(), 10_000);
    drop(memory);
    assert_eq!(handle.stranded_bytes(), 0);
}

#[test]
fn a_server_that_is_not_there_or_busy_is_said_so() {
    let connect = |path: &Path| VfioUserPlatform::connect(path, &Options::default());
    let nowhere = connect(Path::new("/nowhere/nic")).unwrap_err().to_string();
    assert!(
        nowhere.contains("/nowhere/nic") && nowhere.contains("start one"),
        "{nowhere}"
    );
    let served = Served::<Intel82574>::new(0);
    let first = served.connect();
    let path = served.folder.path().join("nic");
    let second = connect(&path).unwrap_err();
    assert_eq!(second, VfioError::User(ClientError::InUse));
    // It is free as soon as the first has gone, although a region is left.
    let region = first.handle().register(vec![1; 10]).unwrap();
    drop(first);
    let third = loop {
        match connect(&path) {
            Err(VfioError::User(ClientError::InUse)) => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert_eq!(third.read_config(0), 0x10d3_8086);
    drop(region);
}
