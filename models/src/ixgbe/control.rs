//! What reading and writing the registers of BAR 0 does, but for those of rings.

use super::bits::{
    ARBDIS, EXTENDED_VLAN, PATH_DISABLE, PATH_READY, SYNC_PHY, SYNC_REGISTER, autoc, cause, ctrl,
    eec, esdp, i2c, mrqc, msca, offset, rdrxctl, swsm,
};
use super::interrupts::Interrupts;
use super::registers::{Register, RingRegister, canonical};
use super::{DeviceId, Engine, Ixgbe82599};
use crate::intel::nvm;

/// FDIRCTRL: initialisation is done.
const FDIR_DONE: u32 = 1 << 3;

/// Nanoseconds that a reset, a word of the EEPROM, the firmware and the receive data path may
/// take.
const LONGEST_RESET: u64 = 1_000_000;
const LONGEST_EERD: u64 = 50_000;
const LONGEST_FIRMWARE: u64 = 300_000;
const LONGEST_DRAIN: u64 = 20_000;

impl Ixgbe82599 {
    pub(super) fn violation(&mut self, text: String) {
        self.violations.report(text);
    }

    /// Everything that CTRL.RST resets, at once.
    pub(super) fn clear(&mut self) {
        self.registers.reset();
        self.interrupts = Interrupts::new();
        for queue in &mut self.transmit {
            queue.reset();
        }
        self.receiver.reset();
        self.looped.clear();
        self.eerd = None;
        self.loading = None;
        self.link = false;
        self.negotiation = None;
        self.judged_msix = false;
        self.long_read.clear();
        if self.config.device == DeviceId::Sfp && self.config.latitude.laser_off {
            self.registers.set(offset::ESDP, esdp::LASER_OFF);
        }
        self.engine = Engine::Running;
    }

    /// A reset begins: what it resets is reset, and the device is not there for a while.
    pub(super) fn begin_reset(&mut self) {
        self.violations.note_reset();
        self.clear();
        let latitude = self.config.latitude;
        self.firmware = self.delay(latitude.slow_semaphores, LONGEST_FIRMWARE);
        self.reset = Some(self.delay(latitude.slow_reset, LONGEST_RESET));
        self.settle();
    }

    /// What the device reads from the EEPROM after a reset.
    pub(super) fn load_nvm(&mut self) {
        let (low, high) = self.nvm.station_address();
        self.registers.set(offset::RAL, low);
        self.registers.set(offset::RAL + 4, high);
        let control = self.registers.get(offset::EEC);
        let done = eec::PRES | eec::AUTO_RD | eec::DONE;
        self.registers.set(offset::EEC, control | done);
        let receive = self.registers.get(offset::RDRXCTL);
        self.registers
            .set(offset::RDRXCTL, receive | rdrxctl::DMAIDONE);
    }

    pub(super) fn read_register(&mut self, at: u32) -> u32 {
        let at = canonical(at);
        let Some(register) = Register::at(at) else {
            if self.config.rules.beyond_linux {
                self.violation(format!("read of {at:#x}, where no register is"));
            }
            return 0;
        };
        // The datasheet (8.2.3.1.1) wants no access for a millisecond; Linux polls CTRL, and
        // reads STATUS behind every write.
        let allowed = matches!(register, Register::Ctrl | Register::Status);
        if self.reset.is_some() && !allowed {
            self.violation(format!("read of {at:#x} during a reset"));
        }
        match register {
            Register::Ctrl => {
                let value = self.registers.get(offset::CTRL);
                let resets = self.reset.is_some();
                if resets { value | ctrl::RST } else { value }
            }
            Register::Status => self.status(),
            Register::Links => self.links(),
            Register::Esdp if self.cage.is_full() => self.registers.get(at) | esdp::MODULE,
            Register::I2c => self.registers.get(at) | self.cage.wires(&self.pace),
            Register::Swsm => {
                let value = self.registers.get(offset::SWSM);
                self.registers.set(offset::SWSM, value | swsm::SMBI);
                value
            }
            Register::SwFwSync if self.config.device == DeviceId::X540T => self.take_sync(),
            Register::Eicr => self.interrupts.read(&self.registers),
            Register::Eics => self.interrupts.peek(),
            Register::Eims => self.interrupts.mask(),
            Register::EimsEx(half) => self.interrupts.mask_half(half),
            Register::Eiam => self.interrupts.auto_mask(),
            Register::EiamEx(half) => self.interrupts.auto_mask_half(half),
            // Write-only.
            Register::Eimc | Register::EimcEx(_) | Register::EicsEx(_) => 0,
            Register::SecrxStatus => {
                let disabled = self.registers.get(offset::SECRXCTRL) & PATH_DISABLE != 0;
                if disabled && self.drained.has_passed(&self.pace) {
                    PATH_READY
                } else {
                    0
                }
            }
            Register::SectxStatus => {
                let disabled = self.registers.get(offset::SECTXCTRL) & PATH_DISABLE != 0;
                if disabled { PATH_READY } else { 0 }
            }
            Register::FdirControl => self.registers.get(at) | FDIR_DONE,
            Register::Ring(which, register) => self.read_ring(which, register, at),
            Register::Statistic => self.read_and_clear(at),
            Register::StatisticLow => {
                let value = self.registers.long(at);
                self.long_read.insert(at, value);
                value as u32
            }
            Register::StatisticHigh => self.read_long(at),
            _ => self.registers.get(at),
        }
    }

    /// Reads the upper half of a long counter, which clears it: of what has come since the lower half
    /// was read, nothing, or that as well (`forgets_octets`).
    fn read_long(&mut self, at: u32) -> u32 {
        let low = at - 4;
        let now = self.registers.long(low);
        let told = self.long_read.remove(&low).unwrap_or(now);
        self.registers.set(low, 0);
        self.registers.set(at, 0);
        if !self.config.latitude.forgets_octets {
            self.registers.add(low, now.wrapping_sub(told));
        }
        (told >> 32) as u32
    }

    fn read_and_clear(&mut self, at: u32) -> u32 {
        let value = self.registers.get(at);
        self.registers.set(at, 0);
        value
    }

    pub(super) fn write_register(&mut self, at: u32, value: u32) {
        let at = canonical(at);
        let Some(register) = Register::at(at) else {
            self.violation(format!(
                "write of {value:#x} to {at:#x}, where no register is"
            ));
            return;
        };
        // Linux gives the semaphores of an X540 back right after it has set RST.
        let allowed = matches!(register, Register::SwFwSync | Register::Swsm);
        if self.reset.is_some() && !allowed {
            // A tail may come from a thread that does not know of the reset.
            if !matches!(register, Register::Ring(_, RingRegister::Tail)) {
                self.violation(format!(
                    "write of {value:#x} to {at:#x} during a reset: lost"
                ));
            }
            return;
        }
        self.registers.note_written(at);
        match register {
            Register::Ctrl => self.write_ctrl(value),
            Register::Eec => self.write_eec(value),
            Register::Eerd => self.write_eerd(value),
            Register::Swsm => {
                let granted = self.firmware.has_passed(&self.pace);
                let kept = if granted {
                    value
                } else {
                    value & !swsm::SWESMBI
                };
                self.registers
                    .set(offset::SWSM, kept & (swsm::SMBI | swsm::SWESMBI));
            }
            Register::SwFwSync => self.write_sync(value),
            Register::Eicr => self.interrupts.acknowledge(value),
            Register::Eics => self.interrupts.set(value),
            Register::Eims => self.interrupts.enable(value),
            Register::Eimc => self.interrupts.disable(value),
            Register::Eiac => self
                .registers
                .set(at, value & (cause::QUEUES | cause::OTHERS)),
            Register::Eiam => self.interrupts.set_auto_mask(value),
            Register::EicsEx(half) => self.interrupts.set_half(half, value),
            Register::EimsEx(half) => self.interrupts.enable_half(half, value),
            Register::EimcEx(half) => self.interrupts.disable_half(half, value),
            Register::EiamEx(half) => self.interrupts.set_auto_mask_half(half, value),
            Register::Ivar => self.write_ivar(at, value),
            Register::Rdrxctl => {
                let done = self.registers.get(at) & rdrxctl::DMAIDONE;
                self.registers.set(at, value & !rdrxctl::DMAIDONE | done);
            }
            Register::Rxctrl => self.write_rxctrl(value),
            Register::Dmatxctl => self.write_dmatxctl(value),
            Register::Mrqc => {
                if value & mrqc::MODE > mrqc::RSS {
                    self.violation(format!(
                        "MRQC {value:#x}: queues by traffic class or pool are not modelled"
                    ));
                }
                self.registers.set(at, value);
            }
            Register::Autoc => self.registers.set(at, value & !autoc::RESTART),
            Register::Msca => {
                self.registers.set(at, value & !msca::COMMAND);
                if value & msca::COMMAND != 0 {
                    self.command_phy(value);
                }
            }
            Register::Arbitrated => self.write_arbitrated(at, value),
            Register::Ring(which, register) => self.write_ring(which, register, at, value),
            // A counter is cleared by reading alone.
            Register::Status
            | Register::Links
            | Register::SecrxStatus
            | Register::SectxStatus
            | Register::Statistic
            | Register::StatisticLow
            | Register::StatisticHigh
            | Register::ReadOnly => {}
            Register::FdirControl | Register::Esdp => self.registers.set(at, value),
            Register::I2c => self.write_i2c(at, value),
            Register::Storage => self.store(at, value),
        }
    }

    /// Only an X540 has a PHY; else what is read is all ones.
    fn command_phy(&mut self, command: u32) {
        let data = self.registers.get(offset::MSRWD);
        let read = match self.config.device {
            DeviceId::X540T => self.phy.command(command, data as u16),
            _ => Some(u16::MAX),
        };
        if let Some(read) = read {
            let value = u32::from(read) << 16 | data & 0xffff;
            self.registers.set(offset::MSRWD, value);
        }
    }

    fn store(&mut self, at: u32, value: u32) {
        let before = self.registers.get(at);
        if at == offset::SECRXCTRL && value & !before & PATH_DISABLE != 0 {
            self.drained = self.delay(self.config.latitude.slow_drain, LONGEST_DRAIN);
        }
        if at == offset::CTRL_EXT && value & EXTENDED_VLAN != 0 {
            self.violation(format!(
                "CTRL_EXT {value:#x}: double VLAN tags are not modelled"
            ));
        }
        // Bits 16 to 30 of RAH are reserved and read-only.
        let is_rah = (offset::RAL..offset::MPSAR).contains(&at) && at & 4 != 0;
        let kept = if is_rah { value & 0x8000_ffff } else { value };
        self.registers.set(at, kept);
    }

    fn write_ctrl(&mut self, value: u32) {
        // LRST resets the link and, as far as the sources say, all else with it.
        if value & (ctrl::RST | ctrl::LRST) != 0 {
            self.judge_reset(value);
            self.begin_reset();
            return;
        }
        self.registers.set(offset::CTRL, value);
        self.settle_engine();
    }

    fn write_eec(&mut self, value: u32) {
        let before = self.registers.get(offset::EEC);
        let kept = nvm::write_eec(before, value, eec::WRITABLE);
        self.registers.set(offset::EEC, kept);
    }

    fn write_eerd(&mut self, value: u32) {
        if self.eerd.is_some() {
            self.violation("EERD written before the word asked for was there".into());
            return;
        }
        let (now, then) = nvm::write_eerd(value, |address| self.nvm.read(address));
        self.registers.set(offset::EERD, now);
        if let Some(then) = then {
            let deadline = self.delay(self.config.latitude.slow_nvm, LONGEST_EERD);
            self.eerd = Some((deadline, then));
            self.settle();
        }
    }

    /// The wires to the module are software's only while it has the PHY.
    fn write_i2c(&mut self, at: u32, value: u32) {
        let is_ours = self.registers.get(offset::SW_FW_SYNC) & SYNC_PHY != 0;
        if !is_ours && self.config.device == DeviceId::Sfp {
            self.violation(format!(
                "I2CCTL {value:#x} written without the PHY's bit in SW_FW_SYNC"
            ));
        }
        let outputs = value & (i2c::CLOCK_OUT | i2c::DATA_OUT);
        self.registers.set(at, outputs);
        let freedoms = self.config.latitude.slow_module.then_some(&mut self.random);
        self.cage.drive(outputs, &self.pace, freedoms);
    }

    /// SW_FW_SYNC of an X540 has a semaphore of its own: a read that finds it free takes it.
    fn take_sync(&mut self) -> u32 {
        let value = self.registers.get(offset::SW_FW_SYNC);
        if !self.firmware.has_passed(&self.pace) {
            return value | SYNC_REGISTER;
        }
        let taken = value | SYNC_REGISTER;
        self.registers.set(offset::SW_FW_SYNC, taken);
        value
    }

    /// SW_FW_SYNC is changed by whoever holds SWSM.SWESMBI, on an X540 its own semaphore.
    fn write_sync(&mut self, value: u32) {
        let (held, what) = if self.config.device == DeviceId::X540T {
            let own = self.registers.get(offset::SW_FW_SYNC);
            (own & SYNC_REGISTER != 0, "the register's own semaphore")
        } else {
            let own = self.registers.get(offset::SWSM);
            (own & swsm::SWESMBI != 0, "SWSM.SWESMBI")
        };
        if !held {
            self.violation(format!(
                "SW_FW_SYNC {value:#x} written without holding {what}"
            ));
        }
        self.registers.set(offset::SW_FW_SYNC, value);
    }

    fn write_arbitrated(&mut self, at: u32, value: u32) {
        let off = self.registers.get(offset::RTTDCS) & ARBDIS != 0;
        if !off && self.config.rules.beyond_linux {
            self.violation(format!(
                "write of {value:#x} to {at:#x} while the transmit arbiter is on (RTTDCS.ARBDIS)"
            ));
        }
        self.registers.set(at, value);
    }
}
