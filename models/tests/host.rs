//! The host: device addresses, faults, counters, interrupts and time.

#![allow(clippy::unwrap_used, reason = "helpers of tests are test code")]
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pagewire_hal::{
    DeviceAddress, DmaMemory, Granule, Instant, Platform, PlatformError, Region, Registers,
};
use pagewire_models::host::{Attached, Host, HostConfig, HostMemory, RegisterError};
use pagewire_models::{Bus, Device, DmaFault, ModelHandle};

type Job = Box<dyn FnOnce(&mut dyn Bus) + Send>;

/// A device that does to memory what the test tells it, and has one register and an MSI-X
/// capability.
#[derive(Default)]
struct Probe {
    jobs: VecDeque<Job>,
    register: u32,
    msix: u32,
    steps: u64,
}

impl Device for Probe {
    fn config_read(&mut self, offset: u16) -> u32 {
        match offset {
            0x04 => 1 << 20,
            0x34 => 0x40,
            // Some other capability, then MSI-X.
            0x40 => 0x0000_5001,
            0x50 => self.msix | 0x0002_4011,
            _ => u32::MAX,
        }
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        if offset == 0x50 {
            self.msix = value & 0xc000_0000;
        }
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        (index == 0).then_some(0x100)
    }

    fn read(&mut self, _bar: u8, _offset: u32, _now: Instant) -> u32 {
        self.register
    }

    fn write(&mut self, _bar: u8, _offset: u32, value: u32, _now: Instant) {
        self.register = value;
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        (bar, offset) == (0, 8)
    }

    fn vectors(&self) -> u16 {
        3
    }

    fn step(&mut self, bus: &mut dyn Bus, _now: Instant) -> bool {
        self.steps += 1;
        match self.jobs.pop_front() {
            Some(job) => {
                job(bus);
                true
            }
            None => false,
        }
    }

    fn take_violations(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Lets the device do `job` and returns its result.
fn on_bus<R: Send + 'static>(
    handle: &ModelHandle<Probe>,
    job: impl FnOnce(&mut dyn Bus) -> R + Send + 'static,
) -> R {
    let (sender, receiver) = std::sync::mpsc::channel();
    handle.with_device(|device| {
        device.jobs.push_back(Box::new(move |bus| {
            sender.send(job(bus)).unwrap();
        }));
    });
    assert!(handle.step());
    receiver.recv().unwrap()
}

fn append(handle: &ModelHandle<Probe>, address: u64, len: usize) -> Result<Vec<u8>, DmaFault> {
    on_bus(handle, move |bus| {
        let mut frame = Vec::new();
        bus.append(address, len, &mut frame).map(|()| frame)
    })
}

fn read(handle: &ModelHandle<Probe>, address: u64, len: usize) -> Result<Vec<u8>, DmaFault> {
    on_bus(handle, move |bus| {
        let mut bytes = vec![0; len];
        bus.read(address, &mut bytes).map(|()| bytes)
    })
}

fn write(handle: &ModelHandle<Probe>, address: u64, bytes: Vec<u8>) -> Result<(), DmaFault> {
    on_bus(handle, move |bus| bus.write(address, &bytes))
}

fn cpu_view(memory: &HostMemory) -> Vec<u8> {
    // SAFETY: the memory is alive and no device is being stepped.
    unsafe { std::slice::from_raw_parts(memory.pointer().as_ptr(), memory.len()) }.to_vec()
}

fn granule(bytes: usize) -> Granule {
    Granule::from_bytes(bytes).unwrap()
}

fn host(seed: u64, granule: Granule) -> (Host, Attached<Probe>) {
    let host = Host::new(HostConfig { seed, granule });
    let attached = host.attach(Probe::default());
    (host, attached)
}

#[test]
fn the_device_reads_every_byte_of_a_region_at_its_translation() {
    let granules = [
        granule(64),
        granule(4096),
        granule(16 << 10),
        granule(64 << 10),
        granule(2 << 20),
        Granule::CONTIGUOUS,
    ];
    for seed in 0..8u64 {
        for unit in granules {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (host, Attached { handle, .. }) = host(seed, unit);
            let len = rng.usize(1..200_000);
            let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(len).collect();
            let region = host.register(bytes.clone()).unwrap();
            let mut seen = Vec::new();
            for run in region.translation().runs(0, len) {
                seen.extend(append(&handle, run.address.0, run.len).unwrap());
            }
            assert!(seen == bytes, "seed {seed}, granule {unit:?}: other bytes");
            assert_eq!(handle.counters().region_bytes, len as u64, "seed {seed}");
            assert_eq!(handle.counters().memory_bytes, 0, "seed {seed}");
            assert_eq!(handle.violations(), Vec::<String>::new(), "seed {seed}");
        }
    }
}

#[test]
fn granules_are_scattered_and_never_neighbours() {
    for seed in 0..8 {
        let (host, _) = host(seed, granule(4096));
        let region = host.register(vec![1u8; 40 * 4096]).unwrap();
        let translation = region.translation();
        let lead = region.base().addr().get() % 4096;
        let runs: Vec<_> = translation.runs(0, region.len()).collect();
        assert_eq!(
            runs.len(),
            (lead + region.len()).div_ceil(4096),
            "seed {seed}"
        );
        let mut offset = 0;
        for run in &runs {
            let cpu = (region.base().addr().get() + offset) as u64;
            assert_ne!(run.address.0, cpu, "seed {seed}");
            assert_eq!(run.address.0 % 4096, cpu % 4096, "seed {seed}");
            assert!(run.address.0 > u64::from(u32::MAX), "seed {seed}");
            offset += run.len;
        }
        let mut starts: Vec<u64> = runs.iter().map(|run| run.address.0 & !4095).collect();
        assert!(!starts.is_sorted(), "seed {seed}: the addresses ascend");
        starts.sort_unstable();
        assert!(
            starts.windows(2).all(|pair| pair[1] - pair[0] > 4096),
            "seed {seed}: neighbours"
        );
    }
}

#[test]
fn a_contiguous_region_is_one_run() {
    let (host, Attached { handle, .. }) = host(3, Granule::CONTIGUOUS);
    let region = host.register(vec![7u8; 300_000]).unwrap();
    let runs: Vec<_> = region.translation().runs(100, 200_000).collect();
    assert_eq!(runs.len(), 1);
    assert_eq!(
        append(&handle, runs[0].address.0, 200_000).unwrap(),
        vec![7; 200_000]
    );
}

#[test]
fn what_is_not_mapped_faults() {
    for unit in [granule(4096), granule(2 << 20), Granule::CONTIGUOUS] {
        for seed in 0..8 {
            let (host, Attached { handle, .. }) = host(seed, unit);
            let region = host.register(vec![7u8; 5000]).unwrap();
            let last = region.translation().runs(0, 5000).last().unwrap();
            let end = last.address.0 + last.len as u64;
            let fault = DmaFault {
                address: end,
                write: false,
            };
            assert_eq!(
                append(&handle, last.address.0, last.len + 1),
                Err(fault),
                "seed {seed}"
            );
            assert_eq!(read(&handle, end, 1), Err(fault), "seed {seed}");
            let first = region.translation().runs(0, 1).next().unwrap().address.0;
            let before = DmaFault {
                address: first - 1,
                write: false,
            };
            assert_eq!(read(&handle, first - 1, 2), Err(before), "seed {seed}");
            for address in [0, 0x1000, 1 << 33, (1 << 40) + 4096, u64::MAX - 3, u64::MAX] {
                assert!(
                    read(&handle, address, 8).is_err(),
                    "seed {seed}: {address:#x}"
                );
            }
            let said = handle.violations();
            assert_eq!(said.len(), 9, "seed {seed}: {said:?}");
            assert!(
                said[0].contains(&format!("{end:#x}")),
                "seed {seed}: {said:?}"
            );
            assert_eq!(handle.counters().faults, 9, "seed {seed}");
            assert_eq!(handle.counters().region_bytes, 0, "seed {seed}");
            assert!(handle.violations().is_empty(), "seed {seed}: said twice");
        }
    }
}

#[test]
fn a_region_is_read_only_and_gone_after_its_drop() {
    for unit in [granule(4096), Granule::CONTIGUOUS] {
        let (host, Attached { handle, .. }) = host(11, unit);
        let region = host.register(vec![9u8; 100]).unwrap();
        let address = region.translation().runs(0, 1).next().unwrap().address.0;
        let fault = DmaFault {
            address,
            write: true,
        };
        assert_eq!(write(&handle, address, vec![1]), Err(fault));
        assert_eq!(region.bytes(), [9; 100]);
        assert!(read(&handle, address, 1).is_ok());
        let bytes = Arc::into_inner(region).unwrap().into_inner().unwrap();
        assert_eq!(bytes, [9; 100]);
        assert!(read(&handle, address, 1).is_err());
        assert_eq!(handle.violations().len(), 2);
    }
}

#[test]
fn an_empty_region_is_refused() {
    let (host, _) = host(1, granule(4096));
    assert_eq!(host.register(Vec::new()).unwrap_err(), RegisterError::Empty);
    assert!(host.register(&[0u8; 1][..]).is_ok());
}

#[test]
fn memory_is_zeroed_aligned_as_asked_for_and_freed() {
    for seed in 0..8 {
        let (host, mut attached) = host(seed, granule(4096));
        let handle = &attached.handle;
        for align in [1usize, 16, 128, 4096, 65_536] {
            let memory = attached.platform.allocate(10_000, align).unwrap();
            let address = memory.address().0;
            assert_eq!(memory.pointer().addr().get() % align, 0, "seed {seed}");
            assert_eq!(address % (2 * align as u64), align as u64, "seed {seed}");
            assert_eq!(memory.domain(), host.domain(), "seed {seed}");
            assert_eq!(cpu_view(&memory), [0; 10_000], "seed {seed}");
            // Across granules: contiguous for the device.
            let bytes: Vec<u8> = (0..9_000u32).map(|n| n as u8).collect();
            write(handle, address + 500, bytes.clone()).unwrap();
            assert_eq!(cpu_view(&memory)[500..9_500], bytes, "seed {seed}");
            assert_eq!(
                read(handle, address + 500, 9_000).unwrap(),
                bytes,
                "seed {seed}"
            );
            // Nothing is written by a write that does not fit.
            assert!(
                write(handle, address + 9_999, vec![5, 5]).is_err(),
                "seed {seed}"
            );
            assert_eq!(cpu_view(&memory)[9_999], 0, "seed {seed}");
            drop(memory);
            assert!(read(handle, address, 1).is_err(), "seed {seed}");
        }
    }
}

#[test]
fn short_accesses_of_every_length_and_alignment_move_the_right_bytes() {
    let (host, Attached { handle, .. }) = host(5, granule(4096));
    let memory = host.allocate(256, 64).unwrap();
    let mut expected = vec![0u8; 256];
    let mut value = 0u8;
    for offset in 0..9 {
        for len in 0..=72 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    value = value.wrapping_add(37);
                    value
                })
                .collect();
            expected[offset..offset + len].copy_from_slice(&bytes);
            let address = memory.address().0 + offset as u64;
            write(&handle, address, bytes.clone()).unwrap();
            assert_eq!(cpu_view(&memory), expected, "{len} bytes at {offset}");
            assert_eq!(
                read(&handle, address, len).unwrap(),
                bytes,
                "{len} bytes at {offset}"
            );
        }
    }
}

#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let (host, _) = host(1, granule(4096));
    for (len, align) in [(usize::MAX, 16), (1 << 60, 16), (64, 3), (64, 0)] {
        assert!(
            matches!(host.allocate(len, align), Err(PlatformError::OutOfMemory)),
            "{len} bytes aligned to {align}"
        );
    }
}

#[test]
fn the_same_seed_draws_the_same_addresses() {
    let draw = |seed| -> Vec<DeviceAddress> {
        let (host, _) = host(seed, granule(4096));
        (0..20)
            .map(|_| host.allocate(64, 16).unwrap().address())
            .collect()
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn payload_and_other_bytes_are_counted_apart() {
    let (host, Attached { handle, .. }) = host(2, granule(4096));
    let region = host.register(vec![0u8; 64]).unwrap();
    let memory = host.allocate(64, 16).unwrap();
    let in_region = region.translation().runs(0, 64).next().unwrap().address.0;
    append(&handle, in_region, 40).unwrap();
    append(&handle, memory.address().0, 30).unwrap();
    read(&handle, memory.address().0, 16).unwrap();
    write(&handle, memory.address().0, vec![0; 5]).unwrap();
    let counters = handle.counters();
    assert_eq!(counters.region_bytes, 40);
    assert_eq!(counters.memory_bytes, 30);
    assert_eq!(counters.read_bytes, 16);
    assert_eq!(counters.written_bytes, 5);
}

#[test]
fn interrupts_arrive_when_they_are_on() {
    let (
        _host,
        Attached {
            mut platform,
            handle,
        },
    ) = host(2, granule(4096));
    on_bus(&handle, |bus| bus.interrupt(1));
    assert_eq!(platform.enable_interrupts(8), Ok(3));
    assert_eq!(handle.with_device(|device| device.msix >> 30), 0b10);
    assert!(!platform.take_interrupt(1), "raised before they were on");
    on_bus(&handle, |bus| bus.interrupt(1));
    assert!(!platform.take_interrupt(0));
    assert!(platform.take_interrupt(1));
    assert!(!platform.take_interrupt(1), "taken twice");
    on_bus(&handle, |bus| bus.interrupt(200));
    assert!(!platform.take_interrupt(200));
    assert_eq!(platform.enable_interrupts(0), Ok(0));
    assert_eq!(handle.with_device(|device| device.msix >> 30), 0);
    assert_eq!(handle.counters().interrupts, 3);
}

#[test]
fn waiting_moves_the_clock_and_steps_the_device() {
    let (host, Attached { platform, handle }) = host(2, granule(4096));
    host.set_now(Instant::from_nanos(500));
    platform.wait(Duration::from_millis(10));
    assert_eq!(host.now(), Instant::from_nanos(10_000_500));
    assert_eq!(platform.now(), host.now());
    assert!(handle.with_device(|device| device.steps) >= 64);
    host.set_now(Instant::ZERO);
    assert_eq!(
        host.now(),
        Instant::from_nanos(10_000_500),
        "time went back"
    );
    host.advance(Duration::from_nanos(1));
    assert_eq!(host.now(), Instant::from_nanos(10_000_501));
}

#[test]
fn registers_end_where_the_bar_ends() {
    let (
        _host,
        Attached {
            mut platform,
            handle,
        },
    ) = host(2, granule(4096));
    assert_eq!(platform.map_bar(1).unwrap_err(), PlatformError::NoBar(1));
    let registers = platform.map_bar(0).unwrap();
    // SAFETY: the probe's registers move no memory.
    unsafe { registers.write(0xfc, 77) };
    assert_eq!(registers.read(0), 77);
    assert!(handle.violations().is_empty());
    for offset in [0x100, 0x102, 0xfd, 0xffff_fffc] {
        assert_eq!(registers.read(offset), u32::MAX);
        // SAFETY: as above.
        unsafe { registers.write(offset, 1) };
    }
    assert_eq!(platform.read_config(2), u32::MAX);
    assert_eq!(
        registers.read(0),
        77,
        "a write outside the BAR had an effect"
    );
    assert_eq!(handle.violations().len(), 9);
}

#[test]
fn an_eager_device_works_inside_a_write() {
    let (
        _host,
        Attached {
            mut platform,
            handle,
        },
    ) = host(4, granule(4096));
    let registers = platform.map_bar(0).unwrap();
    // SAFETY: the probe's registers move no memory.
    let write = || unsafe { registers.write(0, 1) };
    let steps = || handle.with_device(|probe| probe.steps);
    write();
    assert_eq!(steps(), 0);
    handle.be_eager(true);
    write();
    registers.read(0);
    assert_eq!(steps(), 1);
    handle.step();
    handle.be_eager(false);
    write();
    assert_eq!(steps(), 2);
}

/// x86 reorders no stores, so a forgotten barrier shows nowhere else.
#[test]
#[cfg(debug_assertions)]
fn a_doorbell_before_the_barrier_is_a_violation() {
    use pagewire_hal::{DescriptorRing, barrier};
    let (
        _host,
        Attached {
            mut platform,
            handle,
        },
    ) = host(3, granule(4096));
    let memory = platform.allocate(64, 64).unwrap();
    let mut ring: DescriptorRing<_, [u64; 2]> = DescriptorRing::new(memory, 4).unwrap();
    let registers = platform.map_bar(0).unwrap();
    // SAFETY: the probe's registers move no memory.
    let write = |offset| unsafe { registers.write(offset, 1) };
    ring.write(0, [1, 2]);
    barrier::publish();
    write(8);
    ring.write(1, [3, 4]);
    write(4);
    assert_eq!(handle.violations(), Vec::<String>::new());
    write(8);
    let said = handle.violations();
    assert_eq!(said, ["doorbell at 0x8 before `barrier::publish`"]);
    barrier::full();
    write(8);
    // What another thread has stored is not this one's to publish.
    std::thread::scope(|scope| {
        scope.spawn(|| ring.write(2, [5, 6]));
    });
    write(8);
    assert_eq!(handle.violations(), Vec::<String>::new());
    // SAFETY: no device has been told of the ring.
    unsafe { ring.set_quiet(true) };
}

#[test]
fn a_register_of_a_width_that_the_device_has_not_is_a_violation() {
    let (
        _host,
        Attached {
            mut platform,
            handle,
        },
    ) = host(2, granule(4096));
    let registers = platform.map_bar(0).unwrap();
    assert_eq!(registers.read16(0), u16::MAX);
    assert_eq!(registers.read8(0), u8::MAX);
    // SAFETY: the probe's registers move no memory.
    unsafe { registers.write16(2, 1) };
    // SAFETY: as above.
    unsafe { registers.write8(3, 1) };
    let said = handle.violations();
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(
        said[0].starts_with("16-bit register read at 0x0"),
        "{said:?}"
    );
    assert!(
        said[3].starts_with("8-bit register written at 0x3"),
        "{said:?}"
    );
}

#[test]
fn a_removed_device_reads_all_ones() {
    let (
        _host,
        Attached {
            mut platform,
            handle,
        },
    ) = host(2, granule(4096));
    let registers = platform.map_bar(0).unwrap();
    handle.remove();
    // SAFETY: the probe's registers move no memory.
    unsafe { registers.write(0, 5) };
    assert_eq!(registers.read(0), u32::MAX);
    assert_eq!(platform.read_config(0x40), u32::MAX);
    assert_eq!(handle.with_device(|device| device.register), 0);
    assert!(!handle.step());
}

#[test]
fn violations_do_not_pile_up_without_end() {
    let (_host, Attached { handle, .. }) = host(2, granule(4096));
    for _ in 0..1000 {
        let _ = read(&handle, 0, 1);
    }
    let said = handle.violations();
    assert_eq!(said.len(), 257);
    assert_eq!(said[256], "and 744 more");
}

#[test]
fn regions_come_and_go_while_another_thread_runs_the_device() {
    let (host, Attached { handle, .. }) = host(9, granule(4096));
    let kept = host.register(vec![3u8; 50_000]).unwrap();
    let other = host.clone();
    let thread = std::thread::spawn(move || {
        for round in 0..500usize {
            let region = other.register(vec![4u8; 1 + round * 37]).unwrap();
            assert_eq!(region.bytes().len(), 1 + round * 37);
        }
    });
    for round in 0..500 {
        let run = kept.translation().runs(round * 50, 1).next().unwrap();
        assert_eq!(append(&handle, run.address.0, 1).unwrap(), [3]);
    }
    thread.join().unwrap();
    assert!(handle.violations().is_empty());
}
