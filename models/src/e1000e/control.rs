//! What reading and writing the registers of BAR 0 does.

use super::bits::{cause, txdctl};
use super::bits::{ctrl, ctrl_ext, eecd, eerd, mdic, offset, offset::ring, rctl, status, tctl};
use super::interrupts;
use super::registers::{PACKET_BUFFER_KB, Register, Ring, RingRegister, implemented};
use super::rx_descriptor::Layout;
use super::statistics::Statistics;
use super::{E1000e82574, Engine};
use crate::intel::nvm;

/// EXTCNF_CTRL.MDIO_SW_OWNERSHIP.
pub(super) const MDIO_SW_OWNERSHIP: u32 = 1 << 5;
/// SWSM.SMBI and SWSM.SWESMBI.
const SMBI: u32 = 1 << 0;
pub(super) const SWESMBI: u32 = 1 << 1;
/// EEMNGCTL: configuration of the port is done.
pub(super) const CFG_DONE: u32 = 1 << 18 | 1 << 31;
/// TIDV.FPD and RDTR.FPD.
const FPD: u32 = 1 << 31;

/// Nanoseconds that a reset, a word of the EEPROM, an MDI access and the firmware may take.
const LONGEST_RESET: u64 = 1_000_000;
const LONGEST_EERD: u64 = 50_000;
const LONGEST_MDIC: u64 = 100_000;
const LONGEST_FIRMWARE: u64 = 300_000;

impl E1000e82574 {
    pub(super) fn violation(&mut self, text: String) {
        self.violations.report(text);
    }

    /// Everything that CTRL.RST resets, at once.
    pub(super) fn clear(&mut self) {
        self.registers.reset();
        self.allocation = self.registers.get(offset::PBA);
        self.interrupts = interrupts::Interrupts::default();
        self.statistics = Statistics::new();
        for queue in &mut self.transmit {
            queue.reset();
        }
        self.receive.reset();
        self.looped.clear();
        self.context = None;
        self.eerd = None;
        self.mdic = None;
        self.loading = None;
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
        let control = self.registers.get(offset::EECD);
        self.registers.set(offset::EECD, control | eecd::AUTO_RD);
        self.registers.set(offset::EEMNGCTL, CFG_DONE);
        self.registers.set(offset::EERD, eerd::DONE);
    }

    fn transmits(&self) -> bool {
        self.registers.get(offset::TCTL) & tctl::EN != 0
    }

    pub(super) fn receives(&self) -> bool {
        self.registers.get(offset::RCTL) & rctl::EN != 0
    }

    pub(super) fn read_register(&mut self, at: u32) -> u32 {
        let Some(register) = Register::at(at) else {
            if !self.permits_linux {
                self.violation(format!("read of {at:#x}, where no register is"));
            }
            return 0;
        };
        match register {
            Register::Ctrl => {
                let value = self.registers.get(offset::CTRL);
                if self.reset.is_some() {
                    value | ctrl::RST
                } else {
                    value
                }
            }
            Register::Status => self.status(),
            Register::Icr => {
                let survives = self.icr_survives && self.pci.has_msix();
                self.interrupts.read(&self.registers, survives)
            }
            Register::Ics => self.interrupts.peek(),
            Register::Ims => self.interrupts.mask(),
            // Write-only.
            Register::Imc => 0,
            Register::Statistic => {
                let forgets = self.config.latitude.forgets_octets;
                self.statistics.read(at, forgets)
            }
            Register::Swsm => {
                let value = self.registers.get(offset::SWSM);
                self.registers.set(offset::SWSM, value | SMBI);
                value
            }
            Register::Ring(ring, RingRegister::Head) => self.ring_head(ring, at),
            Register::Ring(ring, RingRegister::Tail) => self.ring_tail(ring, at),
            _ => self.registers.get(at),
        }
    }

    fn ring_head(&self, ring: Ring, at: u32) -> u32 {
        let ahead = self.config.latitude.head_runs_ahead;
        match ring {
            Ring::Transmit(queue) => self.transmit.get(queue).map_or(0, |q| q.head(ahead)),
            Ring::Receive(0) => self.receive.head(ahead),
            Ring::Receive(_) => self.registers.get(at),
        }
    }

    fn ring_tail(&self, ring: Ring, at: u32) -> u32 {
        match ring {
            Ring::Transmit(queue) => self.transmit.get(queue).map_or(0, |q| q.tail()),
            Ring::Receive(0) => self.receive.tail(),
            Ring::Receive(_) => self.registers.get(at),
        }
    }

    pub(super) fn write_register(&mut self, at: u32, value: u32) {
        let Some(register) = Register::at(at) else {
            self.violation(format!(
                "write of {value:#x} to {at:#x}, where no register is"
            ));
            return;
        };
        // Linux gives the MDIO back right after it has set RST, so that is no offence.
        if self.reset.is_some() && register != Register::ExtcnfCtrl {
            self.violation(format!(
                "write of {value:#x} to {at:#x} during a reset: lost"
            ));
            return;
        }
        match register {
            Register::Ctrl => self.write_ctrl(value),
            Register::Status => {
                let kept = self.registers.get(offset::STATUS) & (value | !status::PHYRA);
                self.registers.set(offset::STATUS, kept);
            }
            Register::Eecd => self.write_eecd(value),
            Register::Eerd => self.write_eerd(value),
            Register::CtrlExt => {
                let kept = value & !(ctrl_ext::ASDCHK | ctrl_ext::EE_RST);
                self.registers.set(offset::CTRL_EXT, kept);
                if value & ctrl_ext::EE_RST != 0 {
                    self.load_nvm();
                }
            }
            Register::Mdic => self.write_mdic(value),
            Register::Icr => {
                let whole = self.config.latitude.qemu.other_clears_its_causes;
                let more = whole && value & cause::OTHER != 0;
                let bits = if more { value | cause::OTHERS } else { value };
                self.interrupts.acknowledge(bits, &self.registers);
            }
            Register::Ics => self.interrupts.raise(value),
            Register::Ims => self.interrupts.enable(value),
            Register::Imc => self.interrupts.disable(value),
            Register::Eiac => self.registers.set(at, value & cause::AUTO_CLEAR),
            Register::Ivar => {
                if interrupts::has_wrong_vector(value) {
                    self.violation(format!(
                        "IVAR {value:#x} names a vector beyond the last one"
                    ));
                }
                self.registers.set(at, value);
            }
            Register::Eitr => self.registers.set(at, value & 0xffff),
            Register::Rctl => self.write_rctl(value),
            Register::Tctl => self.write_tctl(value),
            Register::ExtcnfCtrl => {
                let granted = self.firmware.has_passed(&self.pace);
                let kept = if granted {
                    value
                } else {
                    value & !MDIO_SW_OWNERSHIP
                };
                self.registers.set(at, kept);
            }
            Register::Pba => self.write_pba(value),
            Register::Tidv => {
                self.registers.set(at, value & 0xffff);
                if value & FPD != 0 {
                    for queue in &mut self.transmit {
                        queue.flush_partial_blocks();
                    }
                }
            }
            Register::Mrqc => {
                if value & 0b11 != 0 {
                    self.violation("receive side scaling is not modelled".into());
                }
                self.registers.set(at, value);
            }
            Register::Swsm => {
                let granted = self.firmware.has_passed(&self.pace);
                let kept = if granted { value } else { value & !SWESMBI };
                self.registers.set(at, kept);
            }
            Register::Ring(ring, register) => self.write_ring(ring, register, at, value),
            // A statistic is cleared by reading alone.
            Register::Statistic | Register::ReadOnly => {}
            Register::Storage => self.store(at, value),
        }
    }

    fn store(&mut self, at: u32, value: u32) {
        match at {
            offset::PBACLR => self.pci.clear_pending(value),
            offset::RFCTL | offset::PSRCTL => self.judge_layout(at, value),
            _ => {}
        }
        self.registers.set(at, value & implemented(at));
    }

    fn write_ctrl(&mut self, value: u32) {
        if value & ctrl::RST != 0 {
            self.begin_reset();
            return;
        }
        let before = self.registers.get(offset::CTRL);
        if value & ctrl::PHY_RST != 0 && before & ctrl::PHY_RST == 0 {
            self.phy.reset();
            let status = self.registers.get(offset::STATUS);
            self.registers.set(offset::STATUS, status | status::PHYRA);
        }
        self.registers.set(offset::CTRL, value);
        self.settle_engine();
    }

    fn write_eecd(&mut self, value: u32) {
        let before = self.registers.get(offset::EECD);
        let kept = nvm::write_eec(before, value, eecd::WRITABLE);
        self.registers.set(offset::EECD, kept);
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

    fn write_mdic(&mut self, value: u32) {
        if self.mdic.is_some() {
            self.violation("MDIC written before the access under way was ready".into());
            return;
        }
        let operation = value >> mdic::OP_SHIFT & 0b11;
        if operation != mdic::OP_READ && operation != mdic::OP_WRITE {
            self.violation(format!("MDIC {value:#x}: no operation"));
            return;
        }
        let command = value & !(mdic::READY | mdic::ERROR);
        let deadline = self.delay(self.config.latitude.slow_mdic, LONGEST_MDIC);
        self.registers.set(offset::MDIC, command);
        self.mdic = Some((deadline, command));
        self.settle();
    }

    /// The MDI access `command` ends.
    pub(super) fn finish_mdic(&mut self, command: u32) {
        self.mdic = None;
        let value = self.phy.access(command);
        self.registers.set(offset::MDIC, value);
        if command & mdic::INTERRUPT != 0 {
            self.interrupts.raise(cause::MDAC);
        }
    }

    fn write_pba(&mut self, value: u32) {
        let receive = value & 0xffff;
        if receive == 0 || receive >= PACKET_BUFFER_KB {
            self.violation(format!(
                "PBA: {receive} KB of {PACKET_BUFFER_KB} KB for receiving"
            ));
            return;
        }
        // The transmit part is what is left (8254x SDM 13.4.16).
        let value = receive | (PACKET_BUFFER_KB - receive) << 16;
        self.registers.set(offset::PBA, value);
    }

    fn write_tctl(&mut self, value: u32) {
        if value & tctl::RESERVED != 0 {
            self.violation(format!("TCTL {value:#x}: a reserved bit is set"));
        }
        let starts = value & tctl::EN != 0 && !self.transmits();
        self.registers.set(offset::TCTL, value);
        if !starts {
            return;
        }
        self.check_ring(Ring::Transmit(0), "transmit");
        let control = |queue| {
            let at = Ring::Transmit(queue).base() + ring::CONTROL;
            self.registers.get(at)
        };
        let (first, second) = (control(0), control(1));
        let (_, entries) = self.registers.ring(Ring::Transmit(0));
        if self.permits_linux && entries == 0 {
            // There is nothing to send yet.
            return;
        }
        if first & second & txdctl::BIT_22 == 0 {
            self.violation(format!(
                "transmit enabled with TXDCTL {first:#x} and {second:#x}: bit 22 must be set"
            ));
        }
        if first != second {
            self.violation(format!(
                "transmit enabled with TXDCTL(0) {first:#x} unequal to TXDCTL(1) {second:#x}"
            ));
        }
        if self.allocation != self.registers.get(offset::PBA) {
            self.violation("transmit enabled with a PBA that no reset has put into force".into());
        }
    }

    /// A ring must have a place and a length before it is used.
    pub(super) fn check_ring(&mut self, which: Ring, what: &str) {
        let (_, entries) = self.registers.ring(which);
        let based = self.based.get(slot(which)).copied().unwrap_or(false);
        let is_unset = entries == 0 || !based;
        if is_unset && !self.permits_linux {
            self.violation(format!(
                "{what} enabled before the base and the length of its ring were set"
            ));
        }
    }

    fn write_ring(&mut self, which: Ring, register: RingRegister, at: u32, value: u32) {
        let enabled = match which {
            Ring::Transmit(_) => self.transmits(),
            Ring::Receive(_) => self.receives(),
        };
        let moves = !matches!(register, RingRegister::Tail | RingRegister::Control);
        // Linux gives the receive ring its place while the receiver is on and has no descriptor.
        let is_set_up = self.permits_linux && which == Ring::Receive(0) && self.receive.is_empty();
        if enabled && moves && !is_set_up {
            self.violation(format!(
                "{at:#x} ({which:?}, {register:?}) written while enabled"
            ));
        }
        match register {
            RingRegister::BaseLow => {
                if value & 0xf != 0 {
                    self.violation(format!("{which:?}: base {value:#x} is not 16-byte aligned"));
                }
                self.registers.set(at, value & !0xf);
                if let Some(based) = self.based.get_mut(slot(which)) {
                    *based = true;
                }
            }
            RingRegister::BaseHigh | RingRegister::Control => self.registers.set(at, value),
            RingRegister::Length => {
                if value & !0xf_ff80 != 0 {
                    self.violation(format!(
                        "{which:?}: length {value:#x} is no multiple of 128, or too long"
                    ));
                }
                self.registers.set(at, value & 0xf_ff80);
            }
            RingRegister::Head => self.write_head(which, at, value & 0xffff),
            RingRegister::Tail => self.write_tail(which, at, value),
        }
    }

    fn write_head(&mut self, which: Ring, at: u32, value: u32) {
        match which {
            Ring::Transmit(queue) => {
                if let Some(queue) = self.transmit.get_mut(queue) {
                    queue.set_head(value);
                }
            }
            Ring::Receive(0) => self.receive.set_head(value),
            Ring::Receive(_) => self.registers.set(at, value),
        }
    }

    fn write_tail(&mut self, which: Ring, at: u32, value: u32) {
        let (_, entries) = self.registers.ring(which);
        let enabled = self.transmits();
        match which {
            Ring::Transmit(number) => {
                if enabled && !self.pci.is_bus_master() {
                    self.violation(format!(
                        "transmit queue {number}: a doorbell while bus mastering is off"
                    ));
                }
                if let Some(queue) = self.transmit.get_mut(number) {
                    queue.ring_doorbell(value, entries, enabled, &mut self.violations);
                }
            }
            Ring::Receive(0) => {
                let units = Layout::of(&self.registers).units();
                self.receive
                    .give(value, entries, units, &mut self.violations);
            }
            Ring::Receive(_) => self.registers.set(at, value),
        }
    }
}

/// Where `E1000e82574::based` keeps a ring.
fn slot(ring: Ring) -> usize {
    match ring {
        Ring::Transmit(queue) => queue,
        Ring::Receive(queue) => 2 + queue,
    }
}
