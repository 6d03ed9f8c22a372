//! The 82574L model on the modelled host: what a driver does, through the platform alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

use std::time::Duration;

use pagewire_hal::{DmaMemory, Platform, Region, Registers};
use pagewire_models::e1000e::{E1000e82574, Latitude, ModelConfig};
use pagewire_models::host::{Attached, HostMemory, ModelRegisters};
use pagewire_models::{Host, HostConfig, Wire};

const ENTRIES: u32 = 32;

struct Driver {
    attached: Attached<E1000e82574>,
    registers: ModelRegisters,
    ring: HostMemory,
}

impl Driver {
    fn write(&self, offset: u32, value: u32) {
        // SAFETY: the test is the driver; the rings it names live as long as the device runs,
        // and nobody else uses them.
        unsafe { self.registers.write(offset, value) }
    }

    fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if done(self) {
                return;
            }
            self.attached.platform.wait(Duration::from_micros(50));
        }
        panic!("never happened: {what}");
    }

    /// Resets the device and enables transmission.
    fn start(host: &Host, device: E1000e82574) -> Self {
        let mut attached = host.attach(device);
        let command = attached.platform.read_config(4);
        // SAFETY: turns bus mastering on; no ring is set yet.
        unsafe { attached.platform.write_config(4, command | 4) };
        assert_eq!(attached.platform.enable_interrupts(5).unwrap(), 5);
        let registers = attached.platform.map_bar(0).unwrap();
        let ring = attached
            .platform
            .allocate(ENTRIES as usize * 16, 4096)
            .unwrap();
        let driver = Self {
            attached,
            registers,
            ring,
        };
        driver.write(0x0000, 1 << 26);
        driver.until("reset", |d| d.registers.read(0x0000) & 1 << 26 == 0);
        driver.until("EEPROM", |d| d.registers.read(0x0010) & 1 << 9 != 0);
        let base = driver.ring.address().0;
        driver.write(0x3800, base as u32);
        driver.write(0x3804, (base >> 32) as u32);
        driver.write(0x3808, ENTRIES * 16);
        driver.write(0x3828, 0x0141_0000);
        driver.write(0x3928, 0x0141_0000);
        driver.write(0x0400, 1 << 1 | 1 << 3);
        // TXQ0 on vector 1.
        driver.write(0x00e4, 9 << 8);
        driver.write(0x00d0, 1 << 22);
        let control = driver.registers.read(0x0000);
        driver.write(0x0000, control | 1 << 6);
        driver.until("link", |d| d.registers.read(0x0008) & 2 != 0);
        driver
    }

    fn descriptor(&self, index: usize) -> *mut [u8; 16] {
        assert!(index < ENTRIES as usize);
        self.ring.pointer().as_ptr().wrapping_add(index * 16).cast()
    }

    fn put(&self, index: usize, address: u64, len: usize, command: u8) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..10].copy_from_slice(&(len as u16).to_le_bytes());
        raw[11] = command;
        // SAFETY: inside the ring, which belongs to the test; the device does not step now.
        unsafe { self.descriptor(index).write_volatile(raw) };
    }

    fn is_done(&self, index: usize) -> bool {
        // SAFETY: inside the ring, which belongs to the test; the device does not step now.
        let raw = unsafe { self.descriptor(index).read_volatile() };
        raw[12] & 1 != 0
    }
}

#[test]
fn a_frame_is_gathered_from_scattered_pages() {
    for seed in 0..10 {
        let host = Host::new(HostConfig {
            seed,
            ..HostConfig::default()
        });
        let (ours, mut theirs) = pagewire_models::wire::pair();
        let config = ModelConfig {
            seed,
            latitude: Latitude::default(),
            ..ModelConfig::default()
        };
        let mut driver = Driver::start(&host, E1000e82574::new(config, Box::new(ours)));
        let payload: Vec<u8> = (0..20_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let region = host.register(payload.clone()).unwrap();
        // A jumbo frame: three pages, wherever in a page it begins.
        let (start, len) = (93, 9000);
        let runs: Vec<_> = region.translation().runs(start, len).collect();
        assert!(runs.len() >= 3, "seed {seed}: the pages are neighbours");
        for (index, run) in runs.iter().enumerate() {
            let command = if index + 1 == runs.len() { 0xb } else { 2 };
            driver.put(index, run.address.0, run.len, command);
        }
        let last = runs.len() - 1;
        driver.write(0x3818, runs.len() as u32);
        driver.until("DD", |d| d.is_done(last));
        let mut frame = Vec::new();
        assert!(theirs.receive(&mut frame, host.now()), "seed {seed}");
        assert!(frame == payload[start..start + len], "seed {seed}");
        // A message may be half a millisecond late.
        driver.attached.platform.wait(Duration::from_micros(600));
        assert!(driver.attached.platform.take_interrupt(1), "seed {seed}");
        let counters = driver.attached.handle.counters();
        assert_eq!(counters.region_bytes, len as u64, "seed {seed}");
        let handle = &driver.attached.handle;
        let fragments = handle.with_device(|device| device.counters().most_fragments);
        assert_eq!(fragments as usize, runs.len(), "seed {seed}");
        assert_eq!(handle.violations(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn removal_is_seen_in_every_register() {
    let host = Host::new(HostConfig::default());
    let (ours, _theirs) = pagewire_models::wire::pair();
    let driver = Driver::start(
        &host,
        E1000e82574::new(ModelConfig::default(), Box::new(ours)),
    );
    driver.attached.handle.with_device(E1000e82574::remove);
    assert_eq!(driver.registers.read(0x0008), u32::MAX);
    assert_eq!(driver.attached.platform.read_config(0), u32::MAX);
    assert!(!driver.attached.handle.step());
}
