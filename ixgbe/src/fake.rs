//! A platform for the unit tests: registers in an array with the few reactions that opening
//! needs, memory from the heap at device addresses that are unlike the CPU's, a clock that only
//! waiting moves. It moves no frames by itself; tests play the device's part with
//! [`Fake::complete`] and [`Fake::deliver`].

use core::ptr::NonNull;
use core::time::Duration;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::boxed::Box;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec;
use std::vec::Vec;

use pagewire_hal::{
    DeviceAddress, DmaMemory, DomainId, Instant, Platform, PlatformError, Registers,
};

use crate::regs::{self, PerQueue};

/// Ways in which the device may misbehave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// GIO master enable stays set until a second reset.
    SlowMaster,
    /// Requests never finish: GIO master enable stays set.
    StuckMaster,
    /// PCIe transactions stay pending.
    StuckPending,
    /// A reset never ends.
    EndlessReset,
    /// The EEPROM is not read after a reset.
    NoAutoRead,
    /// The memory of the receive DMA is not initialised after a reset.
    NoDmaInit,
    /// A word of the EEPROM never arrives.
    SilentEeprom,
    /// A word of the EEPROM takes 0.4 s.
    SlowEeprom,
    /// Another driver has died with the semaphore (SMBI), which a release frees.
    DeadDriver,
    /// The firmware does not grant the semaphore.
    GreedyFirmware,
    /// Transmit queues do not switch on.
    NoTxEnable,
    /// Receive queues do not switch on.
    NoRxEnable,
    /// The receive path does not become empty.
    BusyReceive,
    /// There is no link.
    NoLink,
    /// All ones.
    Removed,
}

pub(crate) struct Device {
    words: Vec<u32>,
    pub(crate) config: [u32; 64],
    pub(crate) eeprom: Vec<u16>,
    word_at: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) fired: u64,
    pub(crate) vectors: u16,
    pub(crate) allocations_left: usize,
    memory: Vec<Piece>,
    pub(crate) freed: usize,
    next_address: u64,
    nanos: u64,
    pub(crate) resets: u32,
    /// Registers read and written since the last reset.
    pub(crate) touched: u32,
    pub(crate) log: Vec<(u32, u32)>,
}

#[derive(Clone, Copy)]
struct Piece {
    address: u64,
    pointer: usize,
    len: usize,
}

const STATUS: u32 = regs::STATUS.0;
const CTRL: u32 = regs::CTRL.0;
const SWSM: u32 = regs::SWSM.0;
const SW_FW_SYNC: u32 = regs::SW_FW_SYNC.0;
const PCIE: u32 = 0xA0;
/// Both reset bits.
const RESETS: u32 = 1 << 26 | 1 << 3;
pub(crate) const MAC: [u8; 6] = [0x00, 0x1B, 0x21, 0x12, 0x34, 0x56];
pub(crate) const KX4: u32 = 0x10F7_8086;
pub(crate) const X540T: u32 = 0x1528_8086;

impl Device {
    fn new(id: u32) -> Self {
        let mut config = [0u32; 64];
        config[0] = id;
        config[1] = 1 << 20;
        config[0x34 / 4] = 0x50;
        config[0x50 / 4] = PCIE << 8 | 0x01;
        config[PCIE as usize / 4] = 0x10;
        let mut device = Self {
            words: vec![0; 0x2_0000 / 4],
            config,
            eeprom: eeprom(),
            word_at: 0,
            faults: Vec::new(),
            fired: 0,
            vectors: 64,
            allocations_left: usize::MAX,
            memory: Vec::new(),
            freed: 0,
            next_address: 0x1_0000_0000,
            nanos: 0,
            resets: 0,
            touched: 0,
            log: Vec::new(),
        };
        device.reset();
        device
    }

    /// Reset values that matter, by the machine-readable map.
    fn reset(&mut self) {
        let semaphores = [self.get(SWSM), self.get(SW_FW_SYNC)];
        self.words.fill(0);
        self.set(SWSM, semaphores[0]);
        self.set(SW_FW_SYNC, semaphores[1]);
        self.resets += 1;
        self.touched = 0;
        if !self.has(Fault::NoAutoRead) {
            self.set(regs::EEC.0, 2 << 11 | 1 << 9 | 1 << 8);
        }
        let done = if self.has(Fault::NoDmaInit) {
            0
        } else {
            1 << 3
        };
        self.set(regs::RDRXCTL.0, 8 << 17 | done);
        self.set(regs::HLREG0.0, 0x1_07FB & !(1 << 2));
        let up = u32::from(!self.has(Fault::NoLink)) << 30;
        self.set(regs::LINKS.0, up | 3 << 28);
        let [a, b, c, d, e, f] = MAC;
        self.set(regs::RAL0.0, u32::from_le_bytes([a, b, c, d]));
        self.set(regs::RAH0.0, u32::from_le_bytes([e, f, 0, 0]) | 1 << 31);
        for queue in 0..128 {
            self.set(regs::DCA_TXCTRL.0 + 0x40 * queue, 0x2A00);
        }
        for queue in 0..16 {
            self.set(regs::DCA_RXCTRL.0 + 4 * queue, 0xB200);
        }
        if self.has(Fault::EndlessReset) {
            self.set(CTRL, 1 << 26);
        }
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    pub(crate) fn get(&self, offset: u32) -> u32 {
        self.words[offset as usize / 4]
    }

    pub(crate) fn set(&mut self, offset: u32, value: u32) {
        self.words[offset as usize / 4] = value;
    }

    fn is_x540(&self) -> bool {
        self.config[0] == X540T
    }

    fn is_master(&self) -> bool {
        let disabled = self.get(CTRL) & 1 << 2 != 0;
        let slow = self.has(Fault::SlowMaster) && self.resets < 3;
        !disabled || slow || self.has(Fault::StuckMaster)
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.touched += 1;
        if self.has(Fault::Removed) {
            return u32::MAX;
        }
        let value = self.get(offset);
        match offset {
            STATUS => value | u32::from(self.is_master()) << 19,
            SWSM => {
                let dead = u32::from(self.has(Fault::DeadDriver));
                self.set(SWSM, value | 1);
                value | dead
            }
            SW_FW_SYNC if self.is_x540() => {
                self.set(SW_FW_SYNC, value | 1 << 31);
                value | u32::from(self.has(Fault::GreedyFirmware)) << 31
            }
            offset if offset == regs::EERD.0 && self.nanos < self.word_at => value & !(1 << 1),
            offset if offset == regs::SECRXSTAT.0 => u32::from(!self.has(Fault::BusyReceive)),
            offset if is_counter(offset) || offset == regs::EICR.0 => {
                self.set(offset, 0);
                value
            }
            _ => value,
        }
    }

    fn write(&mut self, offset: u32, value: u32) {
        if self.has(Fault::Removed) {
            return;
        }
        self.touched += 1;
        self.log.push((offset, value));
        match offset {
            STATUS => {}
            CTRL if value & RESETS != 0 => self.reset(),
            SWSM => {
                self.faults
                    .retain(|fault| *fault != Fault::DeadDriver || value & 1 != 0);
                let granted = !self.has(Fault::GreedyFirmware);
                let old = self.get(SWSM);
                let kept = value & (old | if granted { !0 } else { !2 });
                self.set(SWSM, kept);
            }
            offset if offset == regs::EERD.0 => {
                let word = self.eeprom.get((value >> 2) as usize).copied();
                let answer = u32::from(word.unwrap_or(0xFFFF)) << 16 | 1 << 1;
                let silent = self.has(Fault::SilentEeprom);
                self.set(offset, if silent { 0 } else { answer });
                let time = u64::from(self.has(Fault::SlowEeprom)) * 400_000_000;
                self.word_at = self.nanos + time;
            }
            offset if is_queue_control(offset, regs::TXDCTL.0, 128) => {
                let off = u32::from(self.has(Fault::NoTxEnable)) << 25;
                self.set(offset, value & !off & !(1 << 26));
            }
            offset if is_queue_control(offset, regs::RXDCTL.0, 64) => {
                let off = u32::from(self.has(Fault::NoRxEnable)) << 25;
                self.set(offset, value & !off & !(1 << 26));
            }
            offset if offset == regs::EICR.0 => {
                let rest = self.get(offset) & !value;
                self.set(offset, rest);
            }
            _ => self.set(offset, value),
        }
    }

    fn locate(&self, address: u64, len: usize) -> *mut u8 {
        let piece = self
            .memory
            .iter()
            .find(|p| p.address <= address && address + len as u64 <= p.address + p.len as u64)
            .expect("the device reaches memory that is not mapped");
        (piece.pointer + (address - piece.address) as usize) as *mut u8
    }

    fn read_u64(&self, address: u64) -> u64 {
        let pointer = self.locate(address, 8).cast::<u64>();
        // SAFETY: `locate` found eight mapped bytes; volatile as the driver's side is.
        u64::from_le(unsafe { pointer.read_volatile() })
    }

    fn write_u64(&self, address: u64, value: u64) {
        let pointer = self.locate(address, 8).cast::<u64>();
        // SAFETY: as above.
        unsafe { pointer.write_volatile(value.to_le()) };
    }

    /// Where descriptor `index` of the ring is whose address is in `low` and the next one.
    fn ring(&self, low: u32, index: u32) -> u64 {
        let base = u64::from(self.get(low + 4)) << 32 | u64::from(self.get(low));
        base + 16 * u64::from(index)
    }
}

/// A clone is the same device.
#[derive(Clone)]
pub(crate) struct Fake {
    device: Arc<Mutex<Device>>,
    domain: DomainId,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            device: Arc::new(Mutex::new(Device::new(KX4))),
            domain: DomainId::new_unique(),
        }
    }

    /// A device with another PCI id.
    pub(crate) fn with_id(id: u32) -> Self {
        let fake = Self::new();
        *fake.device() = Device::new(id);
        fake
    }

    /// Another device in the same domain, whose memory begins at the same address: as if that of
    /// the first had been freed and taken again.
    pub(crate) fn successor_of(other: &Self) -> Self {
        Self {
            domain: other.domain,
            ..Self::new()
        }
    }

    pub(crate) fn device(&self) -> MutexGuard<'_, Device> {
        self.device.lock().expect("no test panics with the lock")
    }

    pub(crate) fn with_fault(fault: Fault) -> Self {
        let fake = Self::new();
        fake.break_with(fault);
        if fault == Fault::NoLink {
            fake.device().set(regs::LINKS.0, 0);
        }
        fake
    }

    pub(crate) fn break_with(&self, fault: Fault) {
        self.device().faults.push(fault);
    }

    pub(crate) fn repair(&self) {
        self.device().faults.clear();
    }

    pub(crate) fn advance(&self, duration: Duration) {
        self.device().nanos += duration.as_nanos() as u64;
    }

    /// Pieces of memory that are mapped.
    pub(crate) fn mapped(&self) -> usize {
        self.device().memory.len()
    }

    pub(crate) fn tail(&self, pair: u16) -> u32 {
        self.device().get(regs::TDT.of(pair).0)
    }

    pub(crate) fn head(&self, pair: u16) -> u32 {
        self.device().get(regs::TDH.of(pair).0)
    }

    /// Processes up to `count` transmit descriptors before the tail as the device does: DD where
    /// a report was asked for, then the head. Returns how many there were.
    pub(crate) fn complete(&self, pair: u16, count: u32) -> u32 {
        let mut device = self.device();
        let ring_len = device.get(regs::TDLEN.of(pair).0) / 16;
        let tail = device.get(regs::TDT.of(pair).0);
        let mut head = device.get(regs::TDH.of(pair).0);
        let mut done = 0;
        while done < count && head != tail {
            let high = device.ring(regs::TDBAL.of(pair).0, head) + 8;
            let word = device.read_u64(high);
            if word & crate::desc::TX_EOP != 0 {
                let sent = device.get(regs::QPTC.of(pair).0);
                device.set(regs::QPTC.of(pair).0, sent + 1);
            }
            if word & crate::desc::TX_RS != 0 {
                device.write_u64(high, word | 1 << 32);
            }
            head = (head + 1) % ring_len;
            done += 1;
        }
        device.set(regs::TDH.of(pair).0, head);
        done
    }

    /// Fills the next receive descriptor: `bytes` into the buffer, `len`, `status` (of status and
    /// errors) and the packet's type into the descriptor. False if the device has none.
    pub(crate) fn deliver(
        &self,
        pair: u16,
        bytes: &[u8],
        len: u16,
        status: u32,
        packet_type: u16,
    ) -> bool {
        let mut device = self.device();
        let ring_len = device.get(regs::RDLEN.of(pair).0) / 16;
        let head = device.get(regs::RDH.of(pair).0);
        if head == device.get(regs::RDT.of(pair).0) {
            return false;
        }
        let descriptor = device.ring(regs::RDBAL.of(pair).0, head);
        let buffer = device.read_u64(descriptor);
        let target = device.locate(buffer, bytes.len());
        // SAFETY: `locate` found as many mapped bytes, and the driver reads them only after DD.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        device.write_u64(descriptor, 0xAABB_CCDD << 32 | u64::from(packet_type));
        let word = u64::from(status) | u64::from(len) << 32;
        device.write_u64(descriptor + 8, word);
        device.set(regs::RDH.of(pair).0, (head + 1) % ring_len);
        true
    }
}

/// An EEPROM of 256 words with one section and a checksum that is right.
fn eeprom() -> Vec<u16> {
    let mut words = vec![0xFFFFu16; 256];
    words[0x20] = 0x1234;
    words[0x06] = 0x80;
    words[0x80] = 3;
    words[0x81..0x84].copy_from_slice(&[1, 2, 0x8000]);
    let counted = words[..0x3F].iter().chain(&words[0x81..0x84]);
    let sum = counted.fold(0u16, |sum, word| sum.wrapping_add(*word));
    words[0x3F] = 0xBABAu16.wrapping_sub(sum);
    words
}

/// Counters are cleared by reading.
fn is_counter(offset: u32) -> bool {
    let by_queue = |first: u32| is_queue_control(offset, first, 16);
    matches!(offset, 0x4000..0x4100 | 0x3FA0..0x3FC0)
        || by_queue(regs::QPRC.0)
        || by_queue(regs::QBRCL.0)
        || by_queue(regs::QBRCL.at(1).0)
        || by_queue(regs::QPRDC.0)
        || by_queue(regs::QPTC.0)
}

/// Whether `offset` is a register of one of `count` queues of which `first` is the first.
fn is_queue_control(offset: u32, first: u32, count: u32) -> bool {
    let (first, end) = (first, first + 0x40 * count);
    (first..end).contains(&offset) && (offset - first).is_multiple_of(0x40)
}

#[derive(Clone)]
pub(crate) struct FakeRegisters(Arc<Mutex<Device>>);

impl Registers for FakeRegisters {
    fn read(&self, offset: u32) -> u32 {
        self.0.lock().expect("not poisoned").read(offset)
    }

    unsafe fn write(&self, offset: u32, value: u32) {
        self.0.lock().expect("not poisoned").write(offset, value);
    }

    // The device has no narrow registers.
    fn read16(&self, _: u32) -> u16 {
        u16::MAX
    }

    unsafe fn write16(&self, _: u32, _: u16) {}

    fn read8(&self, _: u32) -> u8 {
        u8::MAX
    }

    unsafe fn write8(&self, _: u32, _: u8) {}
}

pub(crate) struct FakeMemory {
    pointer: NonNull<u8>,
    layout: Layout,
    address: u64,
    len: usize,
    domain: DomainId,
    device: Arc<Mutex<Device>>,
}

// SAFETY: the value is the only owner of its heap memory; tests reach it from one thread.
unsafe impl Send for FakeMemory {}

// SAFETY: the heap memory stays where it is until the drop; the fake device finds it at
// `address` by its table.
unsafe impl DmaMemory for FakeMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.address)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.domain
    }
}

impl Drop for FakeMemory {
    fn drop(&mut self) {
        let mut device = self.device.lock().expect("not poisoned");
        device.memory.retain(|piece| piece.address != self.address);
        device.freed += 1;
        // SAFETY: allocated with this layout in `allocate`, and nobody has it any more.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

// SAFETY: a `Fake` is used by one driver at a time; the test's clone only plays the device. Its
// memory has its domain.
unsafe impl Platform for Fake {
    type Registers = FakeRegisters;
    type Memory = FakeMemory;
    type Slots = Box<[u64]>;

    fn read_config(&self, offset: u16) -> u32 {
        let device = self.device();
        if device.has(Fault::Removed) {
            return u32::MAX;
        }
        let word = device.config[usize::from(offset) / 4 % 64];
        let pending = offset == PCIE as u16 + 8 && device.has(Fault::StuckPending);
        word | u32::from(pending) << 21
    }

    unsafe fn write_config(&mut self, offset: u16, value: u32) {
        let mut device = self.device();
        let old = device.config[usize::from(offset) / 4 % 64];
        device.config[usize::from(offset) / 4 % 64] = old & 0xFFFF_0000 | value & 0xFFFF;
    }

    fn map_bar(&mut self, index: u8) -> Result<FakeRegisters, PlatformError> {
        match index {
            0 => Ok(FakeRegisters(self.device.clone())),
            _ => Err(PlatformError::NoBar(index)),
        }
    }

    fn allocate(&mut self, len: usize, align: usize) -> Result<FakeMemory, PlatformError> {
        let mut device = self.device();
        if device.allocations_left == 0 {
            return Err(PlatformError::OutOfMemory);
        }
        device.allocations_left -= 1;
        let layout =
            Layout::from_size_align(len.max(1), align).map_err(|_| PlatformError::OutOfMemory)?;
        // SAFETY: the layout has at least one byte.
        let pointer = unsafe { alloc_zeroed(layout) };
        let pointer = NonNull::new(pointer).ok_or(PlatformError::OutOfMemory)?;
        let address = device.next_address.next_multiple_of(align as u64);
        device.next_address = address + len as u64 + 0x1000;
        device.memory.push(Piece {
            address,
            pointer: pointer.as_ptr() as usize,
            len,
        });
        Ok(FakeMemory {
            pointer,
            layout,
            address,
            len,
            domain: self.domain,
            device: self.device.clone(),
        })
    }

    fn slots(&mut self, count: usize) -> Result<Box<[u64]>, PlatformError> {
        Ok(vec![0; count].into_boxed_slice())
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<u16, PlatformError> {
        Ok(vectors.min(self.device().vectors))
    }

    fn take_interrupt(&mut self, vector: u16) -> bool {
        let mut device = self.device();
        let fired = device.fired >> vector & 1 != 0;
        device.fired &= !(1 << vector);
        fired
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.device().nanos)
    }

    fn wait(&self, duration: Duration) {
        self.advance(duration);
    }
}
