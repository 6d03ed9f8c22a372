//! A machine without a NIC: the platform traits on plain memory, and a program on top that would
//! drive a NIC if there were one.

use alloc::boxed::Box;
use alloc::vec;
use core::cell::Cell;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::ptr::NonNull;
use core::time::Duration;

use pagewire_drivers::{AnyNic, Config};
use pagewire_hal::{
    DeviceAddress, DmaMemory, DomainId, Granule, Instant, Nic, NicError, Platform, PlatformError,
    PoolLayout, Registers, RxQueue, TxPort,
};
use pagewire_tcp::{Stack, StackConfig};

/// What an empty slot reads: nothing answers, so the bus floats high.
static EMPTY_SLOT: u32 = u32::MAX;

/// Nothing is plugged in.
#[derive(Clone)]
pub(crate) struct NoRegisters;

impl Registers for NoRegisters {
    fn read(&self, _: u32) -> u32 {
        // Volatile, so that the compiler cannot know that no NIC is there and drop the driver.
        // SAFETY: a reference to a static is valid.
        unsafe { (&raw const EMPTY_SLOT).read_volatile() }
    }

    unsafe fn write(&self, _: u32, _: u32) {}

    // Nor does anything answer narrower accesses.
    fn read16(&self, _: u32) -> u16 {
        u16::MAX
    }

    unsafe fn write16(&self, _: u32, _: u16) {}

    fn read8(&self, _: u32) -> u8 {
        u8::MAX
    }

    unsafe fn write8(&self, _: u32, _: u8) {}
}

/// Memory from the allocator, at the same address for a device. Never given back.
pub(crate) struct Memory {
    words: NonNull<[u64]>,
    domain: DomainId,
}

// SAFETY: the value is the only pointer to its memory.
unsafe impl Send for Memory {}

// SAFETY: the words were leaked to this one value: they stay where they are, belong to nobody
// else and are never freed; no device exists to find them elsewhere.
unsafe impl DmaMemory for Memory {
    fn pointer(&self) -> NonNull<u8> {
        self.words.cast()
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.pointer().as_ptr().addr() as u64)
    }

    fn len(&self) -> usize {
        self.words.len() * 8
    }

    fn domain(&self) -> DomainId {
        self.domain
    }
}

/// The machine.
pub(crate) struct Machine {
    domain: DomainId,
    now: Cell<Instant>,
}

// SAFETY: there is one value, there is no device, and all memory has the same domain.
unsafe impl Platform for Machine {
    type Registers = NoRegisters;
    type Memory = Memory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        NoRegisters.read(u32::from(offset))
    }

    unsafe fn write_config(&mut self, _: u16, _: u32) {}

    fn map_bar(&mut self, _: u8) -> Result<NoRegisters, PlatformError> {
        Ok(NoRegisters)
    }

    fn allocate(&mut self, len: usize, _: usize) -> Result<Memory, PlatformError> {
        let words = NonNull::from(Box::leak(vec![0; len.div_ceil(8)].into_boxed_slice()));
        Ok(Memory {
            words,
            domain: self.domain,
        })
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        Ok(vec![0; count].into())
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn enable_interrupts(&mut self, _: u16) -> Result<u16, PlatformError> {
        Err(PlatformError::NoInterrupts)
    }

    fn take_interrupt(&mut self, _: u16) -> bool {
        false
    }

    fn now(&self) -> Instant {
        self.now.get()
    }

    fn wait(&self, duration: Duration) {
        self.now.set(self.now.get() + duration);
    }
}

/// Drives the NIC if there is one. The exit status: 0 if the driver says, as it must on this
/// machine, that there is none that it knows.
pub(crate) fn send_something() -> i32 {
    match drive(Machine {
        domain: DomainId::new_unique(),
        now: Cell::default(),
    }) {
        Err(NicError::UnknownDevice {
            vendor: 0xffff,
            device: 0xffff,
        }) => 0,
        Err(NicError::Removed) => 0,
        Err(_) => 1,
        Ok(()) => 2,
    }
}

fn drive(machine: Machine) -> Result<(), NicError> {
    let mut nic = AnyNic::open(machine, &Config::default())?;
    let Some((tx, mut rx)) = nic.take_queues(0) else {
        return Err(NicError::NotOffered {
            what: "queue pair 0",
        });
    };
    let layout = PoolLayout {
        small_len: 192,
        small_count: 64,
        large_len: 1514,
        large_count: 64,
        page: Granule::CONTIGUOUS,
    };
    let port = TxPort::new(&mut nic, tx, &layout)?;
    let config = StackConfig {
        mac: nic.mac_address(),
        address: Ipv4Addr::new(10, 0, 0, 1),
        secret: [7; 16],
        ..StackConfig::default()
    };
    let Ok(mut stack) = Stack::new(port, config) else {
        return Err(NicError::Config {
            what: "the sender's",
        });
    };
    let remote = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 7);
    let connected = stack.connect(Instant::ZERO, remote, None).is_ok();
    let mut frame = [0; 1514];
    for round in 0..u64::from(connected) * 1000 {
        let now = Instant::from_nanos(round * 1_000_000);
        let received = rx.receive(64, &mut |f| {
            stack.input(now, f.copy_to(&mut frame), f.checksum())
        });
        if received.is_err() || stack.poll(now).is_err() {
            return Err(NicError::Removed);
        }
    }
    Ok(())
}
