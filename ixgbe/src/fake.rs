//! The device for the unit tests, on the [platform that all drivers' tests have](pagewire_hal::fake):
//! registers in an array with the few reactions that opening needs. It moves no frames by itself;
//! tests play the device's part with [`Play`].

use core::ops::{Deref, DerefMut};
use std::vec;
use std::vec::Vec;

use pagewire_hal::fake::lifecycle::Subject;
use pagewire_hal::fake::{self, FakeDevice, Machine};
use pagewire_hal::{Nic, NicError};

use crate::regs::{self, PerQueue};
use crate::{Config, Ixgbe};

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
    machine: Machine<Fault>,
    words: Vec<u32>,
    pub(crate) eeprom: Vec<u16>,
    word_at: u64,
    pub(crate) resets: u32,
    /// Registers read and written since the last reset.
    pub(crate) touched: u32,
    pub(crate) log: Vec<(u32, u32)>,
}

impl Deref for Device {
    type Target = Machine<Fault>;

    fn deref(&self) -> &Self::Target {
        &self.machine
    }
}

impl DerefMut for Device {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.machine
    }
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
            machine: Machine::new(config, 64),
            words: vec![0; 0x2_0000 / 4],
            eeprom: eeprom(),
            word_at: 0,
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
        self.set(regs::LINKS.0, 1 << 30 | 3 << 28);
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

    fn read_word(&mut self, offset: u32) -> u32 {
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
            offset if offset == regs::LINKS.0 && self.has(Fault::NoLink) => 0,
            offset if offset == regs::SECRXSTAT.0 => u32::from(!self.has(Fault::BusyReceive)),
            offset if is_counter(offset) || offset == regs::EICR.0 => {
                self.set(offset, 0);
                value
            }
            _ => value,
        }
    }

    fn write_word(&mut self, offset: u32, value: u32) {
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

    /// Where descriptor `index` of the ring is whose address is in `low` and the next one.
    fn ring(&self, low: u32, index: u32) -> u64 {
        let base = u64::from(self.get(low + 4)) << 32 | u64::from(self.get(low));
        base + 16 * u64::from(index)
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new(KX4)
    }
}

impl FakeDevice for Device {
    type Fault = Fault;
    const REMOVED: Fault = Fault::Removed;
    const STUCK_PENDING: Fault = Fault::StuckPending;
    const PCIE: u16 = PCIE as u16;

    fn read(&mut self, _bar: u8, offset: u32, width: u32) -> u32 {
        assert_eq!(width, 4, "the device has no narrow registers");
        self.read_word(offset)
    }

    fn write(&mut self, _bar: u8, offset: u32, width: u32, value: u32) {
        assert_eq!(width, 4, "the device has no narrow registers");
        self.write_word(offset, value);
    }
}

// SAFETY: the device reads descriptors, and no fragment.
unsafe impl Subject for Device {
    type Nic = Ixgbe<Fake>;
    const ENDLESS_RESET: Fault = Fault::EndlessReset;
    const STUCK_MASTER: Fault = Fault::StuckMaster;
    const RESET_MILLIS: [u64; 2] = [50, 500];
    const PATIENCE_MILLIS: u64 = 79;
    const FIRST_REPORT: u32 = 0;

    fn open(fake: Fake) -> Result<Self::Nic, NicError> {
        Ixgbe::open(fake, &Config::default())
    }

    fn complete(fake: &Fake, count: u32) -> u32 {
        Play::complete(fake, 0, count)
    }

    fn tail(fake: &Fake) -> u32 {
        Play::tail(fake, 0)
    }

    fn deliver(fake: &Fake) -> bool {
        Play::deliver(fake, 0, &[7; 60], 60, 3, 0)
    }

    fn mark_done(tx: &mut <Self::Nic as Nic>::Tx, index: u32) {
        tx.overwrite(index, tx.descriptor(index).marked_done());
    }

    fn count_sent(fake: &Fake, frames: u32) {
        fake.device().set(regs::QPTC.0, frames);
    }

    fn resets(fake: &Fake) -> usize {
        fake.device().resets as usize
    }
}

/// A clone is the same device.
pub(crate) type Fake = fake::Fake<Device>;

/// The device's part, in the tests' hands.
pub(crate) trait Play {
    /// The tail that the driver wrote.
    fn tail(&self, pair: u16) -> u32;

    /// The head.
    fn head(&self, pair: u16) -> u32;

    /// Processes up to `count` transmit descriptors before the tail as the device does: DD where
    /// a report was asked for, then the head. Returns how many there were.
    fn complete(&self, pair: u16, count: u32) -> u32;

    /// Fills the next receive descriptor: `bytes` into the buffer, `len`, `status` (of status and
    /// errors) and the packet's type into the descriptor. False if the device has none.
    fn deliver(&self, pair: u16, bytes: &[u8], len: u16, status: u32, packet_type: u16) -> bool;
}

/// A device with another PCI id.
pub(crate) fn with_id(id: u32) -> Fake {
    Fake::of(Device::new(id))
}

impl Play for Fake {
    fn tail(&self, pair: u16) -> u32 {
        self.device().get(regs::TDT.of(pair).0)
    }

    fn head(&self, pair: u16) -> u32 {
        self.device().get(regs::TDH.of(pair).0)
    }

    fn complete(&self, pair: u16, count: u32) -> u32 {
        let mut device = self.device();
        let ring_len = device.get(regs::TDLEN.of(pair).0) / 16;
        let tail = device.get(regs::TDT.of(pair).0);
        let mut head = device.get(regs::TDH.of(pair).0);
        let mut done = 0;
        while done < count && head != tail {
            let high = device.ring(regs::TDBAL.of(pair).0, head) + 8;
            let word = u64::from_le(device.load(high));
            if word & crate::desc::TX_EOP != 0 {
                let sent = device.get(regs::QPTC.of(pair).0);
                device.set(regs::QPTC.of(pair).0, sent + 1);
            }
            if word & crate::desc::TX_RS != 0 {
                device.store(high, (word | 1 << 32).to_le());
            }
            head = (head + 1) % ring_len;
            done += 1;
        }
        device.set(regs::TDH.of(pair).0, head);
        done
    }

    fn deliver(&self, pair: u16, bytes: &[u8], len: u16, status: u32, packet_type: u16) -> bool {
        let mut device = self.device();
        let ring_len = device.get(regs::RDLEN.of(pair).0) / 16;
        let head = device.get(regs::RDH.of(pair).0);
        if head == device.get(regs::RDT.of(pair).0) {
            return false;
        }
        let descriptor = device.ring(regs::RDBAL.of(pair).0, head);
        let buffer = u64::from_le(device.load(descriptor));
        device.store_bytes(buffer, bytes);
        device.store(
            descriptor,
            (0xAABB_CCDD << 32 | u64::from(packet_type)).to_le(),
        );
        let word = u64::from(status) | u64::from(len) << 32;
        device.store(descriptor + 8, word.to_le());
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
