//! Opens a NIC that is bound to vfio-pci and tries everything but its driver.
//!
//!     probe 0000:03:00.0 [cdev|group]
//!
//! Ids, BARs, the API used, usable addresses, reset, memory, a register, every MSI-X vector.
//! Ends with a line `PROBE-OK`, or with an error and code 2.

use std::error::Error;
use std::time::{Duration, Instant};

use pagewire_hal::{DmaMemory, Platform, Region, Registers, pci};
use pagewire_vfio::{Options, SealedFile, VfioHandle, VfioPlatform, VfioRegisters};

/// How long an interrupt may take: the clock of a guest can run faster than its devices.
const SOON: Duration = Duration::from_secs(300);

/// What the platform cannot say in an error goes to the log.
struct ToStderr;

impl log::Log for ToStderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn main() {
    if log::set_logger(&ToStderr).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
    if let Err(error) = run() {
        eprintln!("probe: {error}");
        std::process::exit(2);
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, api) = match arguments.as_slice() {
        [address] => (address.parse()?, None),
        [address, api] => (address.parse()?, Some(api.parse()?)),
        _ => return Err("usage: probe ADDRESS [cdev|group]".into()),
    };
    let mut options = Options::default();
    options.api = api;
    let mut platform = VfioPlatform::open(address, &options)?;
    let handle = platform.handle();
    let (vendor, device) = pci::identity(&platform);
    println!("{address}: {vendor:04x}:{device:04x}, {}", handle.api());
    for range in handle.free_addresses() {
        println!("free addresses {:#x} to {:#x}", range.start(), range.end());
    }

    let start = Instant::now();
    let kind = platform.reset()?;
    println!(
        "reset: {kind:?}, {:.1} ms",
        start.elapsed().as_secs_f64() * 1e3
    );
    match platform.hot_reset() {
        Ok(kind) => println!("hot reset: {kind:?}"),
        Err(error) => println!("hot reset: {error}"),
    }

    memory(&mut platform, &handle)?;
    pci::enable_memory(&mut platform);
    let mut first = None;
    for index in 0..6 {
        let Some(len) = platform.bar_len(index) else {
            continue;
        };
        let registers = platform.map_bar(index)?;
        let mapped: Vec<_> = registers.mapped().collect();
        println!("BAR {index}: {len:#x} bytes, mapped {mapped:x?}");
        println!("BAR {index}: first word {:#010x}", registers.read(0));
        assert_eq!(registers.read(registers.len()), u32::MAX);
        first.get_or_insert(registers);
    }
    let registers = first.ok_or("no memory BAR")?;
    speed(&registers);

    let vectors = platform.vectors();
    let granted = platform.enable_interrupts(vectors)?;
    println!("MSI-X: {granted} of {vectors} vectors");
    for vector in 0..granted {
        platform.trigger_interrupt(vector)?;
        expect(&mut platform, &handle, granted, vector, 0)?;
    }
    println!("every eventfd fires when Linux triggers it");
    if (vendor, device) == (0x8086, 0x10d3) {
        by_the_82574(&mut platform, &handle, &registers, granted)?;
    }
    platform.enable_interrupts(0)?;
    assert_eq!(platform.enable_interrupts(1), Ok(1));
    println!("PROBE-OK {address} {}", handle.api());
    Ok(())
}

/// Memory of the device and of the program, mapped and given back.
fn memory(platform: &mut VfioPlatform, handle: &VfioHandle) -> Result<(), Box<dyn Error>> {
    let before = handle.locked_bytes();
    let memory = platform.allocate(4 << 20, 4096)?;
    println!(
        "4 MiB of memory at {:?}, {} bytes locked",
        memory.address(),
        handle.locked_bytes()
    );
    let start = Instant::now();
    let region = handle.register(vec![0x5a; 5 << 20])?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    println!("{region:?} in {took:.2} ms");
    let sealed = handle.register(SealedFile::copy_of(&[0xa5; 100_000])?)?;
    println!(
        "sealed file: {sealed:?}, {} bytes locked",
        handle.locked_bytes()
    );
    let runs = region.translation().runs(0, 5 << 20).count();
    println!("the region has {runs} runs");
    let status = std::fs::read_to_string("/proc/self/status")?;
    for line in status
        .lines()
        .filter(|line| line.starts_with("VmLck") || line.starts_with("VmPin"))
    {
        println!("the kernel counts {}", line.replace('\t', " "));
    }
    drop((memory, region, sealed));
    assert!(handle.locked_bytes() <= before.max(4 << 20));
    assert_eq!(handle.stranded_bytes(), 0);
    Ok(())
}

fn speed(registers: &VfioRegisters) {
    const READS: u32 = 10_000;
    let start = Instant::now();
    for _ in 0..READS {
        registers.read(8);
    }
    println!(
        "a register read takes {} ns",
        (start.elapsed() / READS).as_nanos()
    );
}

/// Waits for `vector`, and checks that no other has fired, except that those below `again` may.
fn expect(
    platform: &mut VfioPlatform,
    handle: &VfioHandle,
    vectors: u16,
    vector: u16,
    again: u16,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    loop {
        let left = SOON.saturating_sub(start.elapsed());
        if !handle.wait_for_interrupt(left) {
            return Err(format!("no interrupt on vector {vector}").into());
        }
        let fired: Vec<u16> = (0..vectors)
            .filter(|vector| platform.take_interrupt(*vector))
            .collect();
        if fired
            .iter()
            .any(|fired| *fired != vector && *fired >= again)
        {
            return Err(format!("vector {vector} was expected, {fired:?} fired").into());
        }
        if fired.contains(&vector) {
            return Ok(());
        }
    }
}

/// Each vector by a cause that the device itself is told to raise (82574 datasheet: IVAR, ICS).
fn by_the_82574(
    platform: &mut VfioPlatform,
    handle: &VfioHandle,
    registers: &VfioRegisters,
    vectors: u16,
) -> Result<(), Box<dyn Error>> {
    const ICR: u32 = 0xc0;
    const ICS: u32 = 0xc8;
    const IMS: u32 = 0xd0;
    const IMC: u32 = 0xd8;
    const IVAR: u32 = 0xe4;
    const FIRST_CAUSE: u32 = 20;
    let write = |offset, value| {
        // SAFETY: these registers concern interrupts, no memory.
        unsafe { registers.write(offset, value) };
    };
    // A message is a write to memory.
    // SAFETY: the device was reset and has not been told of any memory since.
    unsafe { pci::start_bus_mastering(platform) };
    // What an earlier user left: a function reset does not clear it.
    write(IMC, u32::MAX);
    let left = registers.read(ICR);
    println!("ICR held {left:#x}");
    // Five causes, each with a vector of its own: a valid bit and three of the number.
    write(IVAR, 0xc_ba98);
    for vector in 0..vectors.min(5) {
        // QEMU's sends some messages twice, the second as late as it likes.
        std::thread::sleep(Duration::from_millis(5));
        (0..vectors).for_each(|vector| _ = platform.take_interrupt(vector));
        let cause = 1 << (FIRST_CAUSE + u32::from(vector));
        write(IMS, cause);
        write(ICS, cause);
        expect(platform, handle, vectors, vector, vector)?;
        write(IMC, cause);
        write(ICR, cause);
    }
    // One more is pending and left so, for whoever opens the device next.
    write(IMS, 1 << FIRST_CAUSE);
    write(ICS, 1 << FIRST_CAUSE);
    println!("every vector fires when the 82574 raises its cause");
    Ok(())
}
