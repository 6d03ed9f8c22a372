//! The virtio-net model on the modelled host: what a driver does, through the platform alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]

use std::time::Duration;

use pagewire_hal::{DmaMemory, Platform, Region, Registers, barrier};
use pagewire_models::host::{Attached, HostMemory, ModelRegisters};
use pagewire_models::virtio::{Hostile, Latitude, Lie, Lies, ModelConfig, VirtioNet};
use pagewire_models::wire::PairEnd;
use pagewire_models::{Host, HostConfig, Wire};

/// VERSION_1 and ACCESS_PLATFORM.
const FEATURES: u64 = 3 << 32;
const SIZE: u16 = 64;
/// Offsets of the driver and the device area in the memory of the rings.
const DRIVER: usize = 0x1000;
const DEVICE: usize = 0x2000;

/// A driver of one split transmit queue; the receive queue has no buffers.
struct Driver {
    attached: Attached<VirtioNet>,
    registers: ModelRegisters,
    rings: [HostMemory; 2],
}

impl Driver {
    fn write8(&self, offset: u32, value: u8) {
        // SAFETY: the rings that are set up live as long as the device is driven.
        unsafe { self.registers.write8(offset, value) }
    }

    fn write16(&self, offset: u32, value: u16) {
        // SAFETY: as above.
        unsafe { self.registers.write16(offset, value) }
    }

    fn write(&self, offset: u32, value: u32) {
        // SAFETY: as above.
        unsafe { self.registers.write(offset, value) }
    }

    fn put(&self, ring: usize, at: usize, bytes: &[u8]) {
        let memory = &self.rings[ring];
        assert!(at + bytes.len() <= memory.len());
        for (index, byte) in bytes.iter().enumerate() {
            let pointer = memory.pointer().as_ptr().wrapping_add(at + index);
            // SAFETY: inside the memory, which belongs to the test; the device does not step now.
            unsafe { pointer.write_volatile(*byte) };
        }
    }

    fn used_index(&self) -> u8 {
        let pointer = self.rings[1].pointer().as_ptr().wrapping_add(DEVICE + 2);
        // SAFETY: inside the memory, which belongs to the test; the device does not step now.
        unsafe { pointer.read_volatile() }
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

    fn start(host: &Host, device: VirtioNet) -> Self {
        let mut attached = host.attach(device);
        let command = attached.platform.read_config(4);
        // SAFETY: turns bus mastering on; no ring is set yet.
        unsafe { attached.platform.write_config(4, command | 4) };
        assert_eq!(attached.platform.enable_interrupts(3).unwrap(), 3);
        let registers = attached.platform.map_bar(4).unwrap();
        let rings = [0, 1].map(|_| attached.platform.allocate(0x3000, 4096).unwrap());
        let driver = Self {
            attached,
            registers,
            rings,
        };
        driver.write8(0x14, 0);
        driver.until("reset", |d| d.registers.read8(0x14) == 0);
        driver.write8(0x14, 1);
        driver.write8(0x14, 3);
        for select in 0..2 {
            driver.write(8, select);
            driver.write(12, (FEATURES >> (32 * select)) as u32);
        }
        driver.write8(0x14, 11);
        assert_eq!(driver.registers.read8(0x14), 11);
        for (index, memory) in driver.rings.iter().enumerate() {
            driver.write16(0x16, index as u16);
            driver.write16(0x18, SIZE);
            driver.write16(0x1a, index as u16 + 1);
            for (at, area) in [(0x20, 0), (0x28, DRIVER), (0x30, DEVICE)] {
                let address = memory.address().0 + area as u64;
                driver.write(at, address as u32);
                driver.write(at + 4, (address >> 32) as u32);
            }
            driver.write16(0x1c, 1);
        }
        driver.write8(0x14, 15);
        driver
    }

    /// Makes the first chain available; `pieces` are addresses and lengths.
    fn post(&self, pieces: &[(u64, usize)]) {
        for (index, (address, len)) in pieces.iter().enumerate() {
            let more = u16::from(index + 1 < pieces.len());
            let mut raw = [0; 16];
            raw[..8].copy_from_slice(&address.to_le_bytes());
            raw[8..12].copy_from_slice(&(*len as u32).to_le_bytes());
            raw[12..14].copy_from_slice(&more.to_le_bytes());
            raw[14..].copy_from_slice(&(index as u16 + 1).to_le_bytes());
            self.put(1, 16 * index, &raw);
        }
        self.put(1, DRIVER + 2, &[1, 0]);
    }

    fn doorbell(&self) {
        self.write16(0x16, 1);
        let offset = self.registers.read16(0x1e);
        self.write16(0x3000 + 4 * u32::from(offset), 1);
    }
}

fn start(seed: u64) -> (Host, Driver, PairEnd) {
    let host = Host::new(HostConfig {
        seed,
        ..HostConfig::default()
    });
    let (ours, theirs) = pagewire_models::wire::pair();
    let config = ModelConfig {
        seed,
        latitude: Latitude::default(),
        ..ModelConfig::default()
    };
    let driver = Driver::start(&host, VirtioNet::new(config, Box::new(ours)));
    (host, driver, theirs)
}

#[test]
fn a_frame_is_gathered_from_scattered_pages() {
    for seed in 0..20 {
        let (host, driver, mut theirs) = start(seed);
        let payload: Vec<u8> = (0..40_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let region = host.register(payload.clone()).unwrap();
        let (begin, len) = (93, 30_000);
        // The header of virtio: zeros, at the end of the memory of the receive ring.
        let zeros = driver.rings[0].address().0 + 0x2f00;
        let mut pieces = vec![(zeros, 12)];
        for run in region.translation().runs(begin, len) {
            pieces.push((run.address.0, run.len));
        }
        assert!(pieces.len() > 8, "seed {seed}: the pages are neighbours");
        driver.post(&pieces);
        barrier::publish();
        driver.doorbell();
        driver.until("used", |d| d.used_index() == 1);
        let mut frame = Vec::new();
        assert!(theirs.receive(&mut frame, host.now()), "seed {seed}");
        assert!(frame == payload[begin..begin + len], "seed {seed}");
        // A message may be 200 µs late.
        let Attached {
            handle,
            mut platform,
        } = driver.attached;
        platform.wait(Duration::from_micros(300));
        assert!(platform.take_interrupt(2), "seed {seed}");
        assert_eq!(handle.counters().region_bytes, len as u64, "seed {seed}");
        let most = handle.with_device(|device| device.counters().most_fragments);
        assert_eq!(most as usize, pieces.len(), "seed {seed}");
        assert_eq!(handle.violations(), Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn the_wrong_width_and_the_wrong_memory_are_reported() {
    let (_host, driver, _theirs) = start(3);
    driver.registers.read16(0x14);
    let violations = driver.attached.handle.violations();
    assert!(
        violations[0].contains("16-bit register read at 0x14"),
        "{violations:?}"
    );
    driver.post(&[(0x1234_5678, 72)]);
    barrier::publish();
    driver.doorbell();
    driver.attached.platform.wait(Duration::from_millis(1));
    let violations = driver.attached.handle.violations();
    assert!(
        violations
            .iter()
            .any(|text| text.contains("transmit buffer")),
        "{violations:?}"
    );
}

#[test]
fn removal_is_seen_in_every_register() {
    let (_host, driver, _theirs) = start(4);
    driver.attached.handle.with_device(VirtioNet::remove);
    assert_eq!(driver.registers.read8(0x14), u8::MAX);
    assert_eq!(driver.registers.read16(0x12), u16::MAX);
    assert_eq!(driver.registers.read(0), u32::MAX);
    assert_eq!(driver.attached.platform.read_config(0), u32::MAX);
    assert!(!driver.attached.handle.step());
}

#[test]
fn what_is_not_mapped_for_writing_stays_as_it_is() {
    let mut quiet = 0;
    for seed in 0..20 {
        let (host, driver, _theirs) = start(seed);
        let payload: Vec<u8> = (0..8192u32).map(|i| ((i * 3) >> 2) as u8).collect();
        let region = host.register(payload.clone()).unwrap();
        let runs = region.translation().runs(0, 2000);
        let pieces: Vec<_> = runs.map(|run| (run.address.0, run.len)).collect();
        // It stays, or it would soon be gone for ever.
        let lies = Lies::all().without(Lie::Removal).without(Lie::Stall);
        let hostile = Hostile::from_seed(seed).with_lies(lies).with_gap(4);
        let handle = driver.attached.handle.clone();
        handle.with_device(|device| device.be_hostile(Some(hostile)));
        driver.post(&pieces);
        barrier::publish();
        for _ in 0..100 {
            for doorbell in [0x3000, 0x3004, 0x3008] {
                driver.write16(doorbell, 1);
            }
            driver.registers.read8(0x14);
            driver.attached.platform.read_config(0x40);
            driver.attached.platform.wait(Duration::from_micros(20));
        }
        // The device goes on as it likes while the driver resets it and gives its memory back.
        driver.write8(0x14, 0);
        driver.attached.platform.wait(Duration::from_millis(2));
        let Driver {
            attached, rings, ..
        } = driver;
        drop(rings);
        attached.platform.wait(Duration::from_millis(2));
        assert!(region.bytes() == payload, "seed {seed}");
        let told = handle.with_device(|device| device.lies_told().clone());
        assert!(told.total() > 10, "seed {seed}: {told:?}");
        quiet += told.told(Lie::WriteWhileQuiet);
    }
    assert!(quiet > 0, "no write while quiet in seeds 0 to 19");
}
