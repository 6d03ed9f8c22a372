//! The device for the unit tests, on the [platform that all drivers' tests have](pagewire_hal::fake):
//! registers in an array with the few reactions that opening needs. It moves no frames by itself;
//! tests play the device's part with [`Play`].

use core::ops::{Deref, DerefMut};
use std::vec;
use std::vec::Vec;

use pagewire_hal::fake::lifecycle::Subject;
use pagewire_hal::fake::{self, FakeDevice, Machine};
use pagewire_hal::{Nic, NicError};

use crate::{Config, E1000e, regs};

/// Ways in which the device may misbehave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Requests never finish: GIO master enable stays set.
    StuckMaster,
    /// PCIe transactions stay pending.
    StuckPending,
    /// A global reset never ends.
    EndlessReset,
    /// The EEPROM is not read after a reset.
    NoAutoRead,
    /// A word of the EEPROM never arrives.
    SilentEeprom,
    /// The PHY never answers.
    SilentPhy,
    /// All ones.
    Removed,
}

pub(crate) struct Device {
    machine: Machine<Fault>,
    words: Vec<u32>,
    pub(crate) eeprom: [u16; 64],
    pub(crate) phy_control: u16,
    /// A register that always reads this value.
    pub(crate) fixed: Option<(u32, u32)>,
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
const PCIE: u32 = 0xE0;
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

impl Device {
    fn new() -> Self {
        let mut eeprom = [0u16; 64];
        for (word, bytes) in eeprom.iter_mut().zip(MAC.chunks(2)) {
            *word = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        let sum = eeprom
            .iter()
            .fold(0u16, |sum, word| sum.wrapping_add(*word));
        eeprom[63] = 0xBABAu16.wrapping_sub(sum);
        let mut config = [0u32; 64];
        config[0] = 0x10D3_8086;
        config[1] = 1 << 20;
        config[0x34 / 4] = 0xC8;
        config[0xC8 / 4] = PCIE << 8 | 0x01;
        config[PCIE as usize / 4] = 0x10;
        config[PCIE as usize / 4 + 4] = 0b11;
        let mut device = Self {
            machine: Machine::new(config, 3),
            words: vec![0; 0x2_0000 / 4],
            eeprom,
            phy_control: 0x1140,
            fixed: None,
            log: Vec::new(),
        };
        device.set(regs::PBA.0, 0x0014_0014);
        device.reset();
        device
    }

    fn reset(&mut self) {
        let pba = self.get(regs::PBA.0);
        let keep_interrupts = self.get(regs::ICR.0);
        // GIO master disable outlives the reset, as in older versions of QEMU.
        let keep_control = self.get(CTRL) & 1 << 2;
        self.words.fill(0);
        self.set(CTRL, keep_control);
        self.set(regs::ICR.0, keep_interrupts);
        // The transmit share is what the receive share leaves of 40 KiB.
        let receive = pba & 0xFFFF;
        self.set(regs::PBA.0, 40u32.saturating_sub(receive) << 16 | receive);
        self.set(STATUS, 0b1000_0011);
        if !self.has(Fault::NoAutoRead) {
            self.set(regs::EECD.0, 1 << 9 | 1 << 8);
        }
        let [a, b, c, d, e, f] = MAC;
        self.set(regs::RAL0.0, u32::from_le_bytes([a, b, c, d]));
        self.set(regs::RAH0.0, u32::from_le_bytes([e, f, 0, 0]) | 1 << 31);
        if self.has(Fault::EndlessReset) {
            self.set(CTRL, keep_control | 1 << 26);
        }
    }

    pub(crate) fn get(&self, offset: u32) -> u32 {
        self.words[offset as usize / 4]
    }

    pub(crate) fn set(&mut self, offset: u32, value: u32) {
        self.words[offset as usize / 4] = value;
    }

    fn read_word(&mut self, offset: u32) -> u32 {
        if self.has(Fault::Removed) {
            return u32::MAX;
        }
        if let Some((fixed, value)) = self.fixed
            && fixed == offset
        {
            return value;
        }
        let value = self.get(offset);
        match offset {
            STATUS => {
                let disabled = self.get(CTRL) & 1 << 2 != 0;
                let master = !disabled || self.has(Fault::StuckMaster);
                value | u32::from(master) << 19
            }
            0x4000..0x4100 => {
                self.set(offset, 0);
                value
            }
            offset if offset == regs::ICR.0 => {
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
        self.log.push((offset, value));
        match offset {
            STATUS => {}
            CTRL if value & 1 << 26 != 0 => {
                self.set(CTRL, value);
                self.reset();
            }
            offset if offset == regs::EERD.0 => {
                let word = self.eeprom.get((value >> 2) as usize).copied();
                let answer = u32::from(word.unwrap_or(0)) << 16 | 1 << 1;
                let silent = self.has(Fault::SilentEeprom);
                self.set(offset, if silent { 0 } else { answer });
            }
            offset if offset == regs::MDIC.0 => {
                let read = value & 1 << 27 != 0;
                if !read {
                    self.phy_control = value as u16;
                }
                let answer = 1 << 28 | u32::from(self.phy_control);
                let silent = self.has(Fault::SilentPhy);
                self.set(offset, if silent { 0 } else { answer });
            }
            offset if offset == regs::ICR.0 => {
                let rest = self.get(offset) & !value;
                self.set(offset, rest);
            }
            _ => self.set(offset, value),
        }
    }

    fn ring(&self, low: u32, index: u32) -> u64 {
        let base = u64::from(self.get(low + 4)) << 32 | u64::from(self.get(low));
        base + 16 * u64::from(index)
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
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
    type Nic = E1000e<Fake>;
    const ENDLESS_RESET: Fault = Fault::EndlessReset;
    const STUCK_MASTER: Fault = Fault::StuckMaster;
    const RESET_MILLIS: [u64; 2] = [10, 100];
    const PATIENCE_MILLIS: u64 = 400;
    const FIRST_REPORT: u32 = 31;

    fn open(fake: Fake) -> Result<Self::Nic, NicError> {
        E1000e::open(fake, &Config::default())
    }

    fn complete(fake: &Fake, count: u32) -> u32 {
        Play::complete(fake, count)
    }

    fn tail(fake: &Fake) -> u32 {
        Play::tail(fake)
    }

    fn deliver(fake: &Fake) -> bool {
        Play::deliver(fake, &[7; 60], 60, 3)
    }

    fn mark_done(tx: &mut <Self::Nic as Nic>::Tx, index: u32) {
        tx.overwrite(index, tx.descriptor(index).marked_done());
    }

    fn count_sent(fake: &Fake, frames: u32) {
        fake.device().set(regs::GPTC.0, frames);
    }

    fn resets(fake: &Fake) -> usize {
        let device = fake.device();
        let is_reset = |(offset, value): &&(u32, u32)| *offset == CTRL && value & 1 << 26 != 0;
        device.log.iter().filter(is_reset).count()
    }
}

/// A clone is the same device.
pub(crate) type Fake = fake::Fake<Device>;

/// The device's part, in the tests' hands.
pub(crate) trait Play {
    /// The tail that the driver wrote.
    fn tail(&self) -> u32;

    /// The head.
    fn head(&self) -> u32;

    /// Processes up to `count` transmit descriptors before the tail as the device does: DD where
    /// a report was asked for, then the head. Returns how many there were.
    fn complete(&self, count: u32) -> u32;

    /// Fills the next receive descriptor: `bytes` into the buffer, `len` and `status` (of status
    /// and errors) into the descriptor. False if the device has none.
    fn deliver(&self, bytes: &[u8], len: u16, status: u16) -> bool;
}

impl Play for Fake {
    fn tail(&self) -> u32 {
        self.device().get(regs::TDT.0)
    }

    fn head(&self) -> u32 {
        self.device().get(regs::TDH.0)
    }

    fn complete(&self, count: u32) -> u32 {
        let mut device = self.device();
        let ring_len = device.get(regs::TDLEN.0) / 16;
        let tail = device.get(regs::TDT.0);
        let mut head = device.get(regs::TDH.0);
        let mut done = 0;
        while done < count && head != tail {
            let high = device.ring(regs::TDBAL.0, head) + 8;
            let word = u64::from_le(device.load(high));
            if word & crate::desc::TX_RS != 0 {
                device.store(high, (word | 1 << 32).to_le());
            }
            head = (head + 1) % ring_len;
            done += 1;
        }
        device.set(regs::TDH.0, head);
        done
    }

    fn deliver(&self, bytes: &[u8], len: u16, status: u16) -> bool {
        let mut device = self.device();
        let ring_len = device.get(regs::RDLEN.0) / 16;
        let head = device.get(regs::RDH.0);
        if head == device.get(regs::RDT.0) {
            return false;
        }
        let descriptor = device.ring(regs::RDBAL.0, head);
        let buffer = u64::from_le(device.load(descriptor));
        device.store_bytes(buffer, bytes);
        let word = u64::from(len) | 0xABCD << 16 | u64::from(status) << 32;
        device.store(descriptor + 8, word.to_le());
        device.set(regs::RDH.0, (head + 1) % ring_len);
        true
    }
}
