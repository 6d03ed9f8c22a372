//! A software Intel 82574L.
//!
//! Modelled: configuration space (power management, PCIe, MSI-X), reset, GIO master disable, the
//! EEPROM behind EERD, the PHY behind MDIC, semaphores, the link; two transmit queues with legacy
//! and data descriptors, gather, checksum insertion, TCP segmentation and VLAN tags; one receive
//! queue with legacy, extended and packet split descriptors, the filters by address and VLAN,
//! checksum verification, and VLAN tags taken off; MSI-X and legacy interrupts; statistics; loopback
//! by the MAC and the PHY.
//!
//! Not modelled, and reported if used: segmentation of anything but TCP, receive side scaling, frames
//! without IFCS. Not modelled, and silent: MSI, flow control, half duplex, management, wake-up,
//! flash, time stamps, interrupt delay timers. Their registers store what is written.
//!
//! It is written from the specification; the sources are named where a fact stands. What the
//! specification leaves to the hardware is drawn from a seed: see [`Latitude`]. It can be made to
//! lie: see [`hostile`].

mod assembly;
mod bits;
mod control;
mod deviations;
mod filter;
pub mod hostile;
mod interrupts;
mod latitude;
mod nvm;
mod offload;
mod parse;
mod pci;
mod phy;
mod receive;
mod receive_control;
mod registers;
mod rx_descriptor;
mod segment;
mod statistics;
#[cfg(test)]
mod tests;
mod transmit;
mod tx_descriptor;
mod violations;
mod work;
mod write_back;

use std::collections::VecDeque;
use std::fmt;

use pagewire_hal::Instant;

pub use deviations::QemuDeviations;
pub use hostile::{Hostile, Lie, LieCounters, Lies};
pub use latitude::{Latitude, ModelConfig};
pub use statistics::{Counters, HISTOGRAM};

use bits::{cause, ctrl, offset, rctl, status};
use hostile::Liar;
use interrupts::{Interrupts, Sending};
use nvm::Nvm;
use offload::Context;
use pace::{Deadline, Pace, Random};
use phy::Phy;
use receive::RxQueue;
use registers::RegisterFile;
use statistics::Statistics;
use transmit::TxQueue;
use violations::Violations;
use work::Work;

use crate::intel::engine::{Engine, Gate};
use crate::intel::pci::{ConfigSpace, Effect, TABLE_BAR_LEN};
use crate::{Bus, Device, Wire, checksum, pace};

/// Nanoseconds that requests may be under way after bus mastering was stopped.
const LATEST_DRAIN: u64 = 50_000;
/// Tells the second generator from the first.
const LATE: u64 = 0x6c61_7465;

/// An Intel 82574L. See the [module](self) for what it does and does not do.
pub struct E1000e82574 {
    config: ModelConfig,
    wire: Box<dyn Wire>,
    random: Random,
    /// For freedoms that were added later: they leave the draws of `random` as they were.
    late_random: Random,
    pace: Pace,
    violations: Violations,
    pci: ConfigSpace,
    registers: RegisterFile,
    nvm: Nvm,
    phy: Phy,
    /// STATUS.LU.
    link: bool,
    /// How long the next auto-negotiation takes.
    negotiation: u64,
    interrupts: Interrupts,
    statistics: Statistics,
    counters: Counters,
    transmit: [TxQueue; 2],
    receive: RxQueue,
    /// Frames on the way from the transmitter to the receiver (RCTL.LBM, or loopback in the PHY).
    looped: VecDeque<Vec<u8>>,
    context: Option<Context>,
    engine: Engine,
    /// CTRL.RST is set until then.
    reset: Option<Deadline>,
    /// The EEPROM is being loaded until then.
    loading: Option<Deadline>,
    /// What EERD and MDIC will read when their access is done.
    eerd: Option<(Deadline, u32)>,
    mdic: Option<(Deadline, u32)>,
    /// Firmware holds the semaphores until then.
    firmware: Deadline,
    /// The PBA of the last reset, which is the one in force.
    allocation: u32,
    /// Ring bases that were written since power-up, by queue: transmit, then receive.
    based: [bool; 4],
    hold: bool,
    never_quiet: bool,
    gone: bool,
    icr_survives: bool,
    /// What Linux's e1000e does is no violation.
    permits_linux: bool,
    /// The device is hostile.
    liar: Option<Box<Liar>>,
    /// What was told before.
    lies_told: LieCounters,
}

impl E1000e82574 {
    /// A device that has been powered up and plugged into `wire`.
    #[must_use]
    pub fn new(config: ModelConfig, wire: Box<dyn Wire>) -> Self {
        let mut random = Random::new(config.seed);
        let latitude = config.latitude;
        let rubbish = latitude.undefined_defaults.then_some(&mut random);
        let registers = RegisterFile::new(rubbish);
        let icr_survives = latitude.icr_survives_read && random.one_in(2);
        let pace = Pace::default();
        let mut device = Self {
            wire,
            pace,
            violations: Violations::default(),
            pci: pci::config_space(),
            allocation: registers.get(offset::PBA),
            registers,
            nvm: Nvm::new(config.mac),
            phy: Phy::new(),
            link: false,
            negotiation: Phy::patience(latitude.slow_link, &mut random),
            interrupts: Interrupts::default(),
            statistics: Statistics::new(),
            counters: Counters::default(),
            transmit: [TxQueue::new(0), TxQueue::new(1)],
            receive: RxQueue::new(),
            looped: VecDeque::new(),
            context: None,
            engine: Engine::Running,
            reset: None,
            loading: None,
            eerd: None,
            mdic: None,
            firmware: Deadline::after(&pace, 0),
            based: [false; 4],
            hold: false,
            never_quiet: false,
            gone: false,
            icr_survives,
            permits_linux: false,
            late_random: Random::new(config.seed ^ LATE),
            liar: None,
            lies_told: LieCounters::default(),
            random,
            config,
        };
        device.clear();
        device.load_nvm();
        let smbi = u32::from(latitude.slow_semaphores);
        device.registers.set(offset::SWSM, smbi);
        device
    }

    /// Holds transmit completions back: while `on`, no DD of a transmit descriptor is written.
    /// Frames are sent, received and reported as ever.
    pub fn hold_completions(&mut self, on: bool) {
        self.hold = on;
    }

    /// A fault: while `on`, requests of the device do not end. A GIO master disable that comes now
    /// leaves STATUS.GIO_MASTER_ENABLE set, and Transactions Pending is set whatever is done.
    pub fn never_quiet(&mut self, on: bool) {
        self.never_quiet = on;
    }

    /// From now on it is no violation what Linux's e1000e does with an 82574 (and what works, as the
    /// driver was written on silicon): it sets RCTL.EN before the receive ring has a place, since
    /// the receiver must not be switched off again (`FLAG2_NO_DISABLE_RX`), and TCTL.EN before the
    /// transmit ring has one; and `ethtool -d` reads what is no register.
    pub fn permit_linux(&mut self) {
        self.permits_linux = true;
    }

    /// Surprise removal: from now on registers and configuration space read all ones, writes do
    /// nothing, and no step does anything.
    pub fn remove(&mut self) {
        self.gone = true;
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How it was built.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// A duration below `bound` nanoseconds if `slow`, else none.
    fn delay(&mut self, slow: bool, bound: u64) -> Deadline {
        let nanos = if slow { self.random.below(bound) } else { 0 };
        Deadline::after(&self.pace, nanos)
    }

    /// Brings to an end what has been under way long enough.
    fn settle(&mut self) {
        let pace = self.pace;
        let over = |deadline: &Deadline| deadline.has_passed(&pace);
        if self.reset.is_some_and(|deadline| over(&deadline)) {
            self.reset = None;
            self.loading = Some(self.delay(self.config.latitude.slow_nvm, 500_000));
        }
        if self.reset.is_none() && self.loading.is_some_and(|deadline| over(&deadline)) {
            self.loading = None;
            self.load_nvm();
        }
        if let Some((deadline, value)) = self.eerd
            && over(&deadline)
        {
            self.eerd = None;
            self.registers.set(offset::EERD, value);
        }
        if let Some((deadline, value)) = self.mdic
            && over(&deadline)
        {
            self.finish_mdic(value);
        }
        self.settle_engine();
    }

    /// Follows CTRL.GIO_MASTER_DISABLE and the bus master bit of the command register.
    fn settle_engine(&mut self) {
        let stop = self.registers.get(offset::CTRL) & ctrl::GIO_MASTER_DISABLE != 0
            || !self.pci.is_bus_master();
        let (pace, never) = (self.pace, self.never_quiet);
        let slow = self.config.latitude.late_master_disable;
        self.engine = self
            .engine
            .settle(stop, &pace, never, || self.delay(slow, LATEST_DRAIN));
    }

    /// Whether requests of the device have not been answered yet.
    fn has_requests(&self) -> bool {
        let inside_frame =
            || self.transmit.iter().any(TxQueue::is_inside_frame) || self.receive.is_inside_frame();
        self.never_quiet || self.engine.has_requests(inside_frame)
    }

    fn gate(&self) -> Gate {
        self.engine.gate(self.pci.is_bus_master())
    }

    /// What STATUS reads.
    fn status(&self) -> u32 {
        let control = self.registers.get(offset::CTRL);
        let mut value = self.registers.get(offset::STATUS) & status::PHYRA | status::ASDV_1000;
        if control & ctrl::FRCDPX == 0 || control & ctrl::FD != 0 {
            value |= status::FD;
        }
        let speed = match control & ctrl::FRCSPD {
            0 => 0b10,
            _ => (control & ctrl::SPEED_MASK) >> ctrl::SPEED_MASK.trailing_zeros(),
        };
        value |= speed << status::SPEED_SHIFT;
        if self.link {
            value |= status::LU;
        }
        if !self.is_master_disabled() {
            value |= status::GIO_MASTER_ENABLE;
        }
        value
    }

    /// GIO master disable was asked for and has happened. The bus master bit alone does not
    /// change the status.
    fn is_master_disabled(&self) -> bool {
        self.registers.get(offset::CTRL) & ctrl::GIO_MASTER_DISABLE != 0
            && matches!(self.engine, Engine::Quiet)
    }

    /// Follows the carrier; a change of the link is an interrupt cause. MAC link needs SLU.
    fn follow_link(&mut self) {
        let held = self.registers.get(offset::CTRL) & ctrl::PHY_RST != 0;
        let had = self.phy.has_link();
        self.phy
            .follow(self.wire.carrier(), held, &self.pace, self.negotiation);
        if had && !self.phy.has_link() {
            self.negotiation = Phy::patience(self.config.latitude.slow_link, &mut self.random);
        }
        let set_up = self.registers.get(offset::CTRL) & ctrl::SLU != 0;
        let link = self.phy.has_link() && set_up && self.reset.is_none();
        if link != self.link {
            self.link = link;
            self.interrupts.raise(cause::LSC);
        }
    }

    /// Lets both halves of the DMA engine work.
    fn run_queues(&mut self, bus: &mut dyn Bus) -> bool {
        let gate = self.gate();
        let in_mac = self.registers.get(offset::RCTL) & rctl::LBM == rctl::LBM_MAC;
        let loops = in_mac || self.phy.loops_back();
        let link = self.link || loops;
        let mut work = Work {
            bus,
            wire: &mut *self.wire,
            looped: loops.then_some(&mut self.looped),
            pace: self.pace,
            latitude: self.config.latitude,
            registers: &self.registers,
            random: &mut self.random,
            late_random: &mut self.late_random,
            msix: self.pci.has_msix(),
            violations: &mut self.violations,
            statistics: &mut self.statistics,
            counters: &mut self.counters,
            hold: self.hold,
            causes: 0,
        };
        let mut busy = false;
        for queue in &mut self.transmit {
            busy |= queue.step(gate, link, &mut self.context, &mut work);
        }
        busy |= self.receive.step(gate, link, &mut work);
        let causes = work.causes;
        self.interrupts.raise(causes);
        busy
    }
}

/// The device as it is when it does not lie.
impl E1000e82574 {
    /// Whether it may lie: not any more once it has been removed.
    fn lies(&self) -> bool {
        self.liar.is_some() && !self.gone
    }

    fn honest_config_read(&mut self, offset: u16) -> u32 {
        if self.gone || offset >= 0x1000 {
            return u32::MAX;
        }
        self.settle();
        self.pci.read(offset, self.has_requests())
    }

    fn honest_read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        self.pace.tick(now);
        if self.gone || !self.pci.answers() {
            return u32::MAX;
        }
        self.settle();
        match bar {
            0 => self.read_register(offset),
            3 => self.pci.table_read(offset),
            _ => u32::MAX,
        }
    }

    fn honest_write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        self.pace.tick(now);
        if self.gone || !self.pci.answers() {
            return;
        }
        self.settle();
        match bar {
            0 => self.write_register(offset, value),
            3 => self.pci.table_write(offset, value),
            _ => {}
        }
    }

    fn honest_step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        if self.gone {
            return false;
        }
        self.pace.tick(now);
        self.settle();
        self.follow_link();
        let mut busy = self.reset.is_none() && self.run_queues(bus);
        if self.gate() != Gate::Closed {
            let spurious = self.config.latitude.spurious_interrupts;
            if busy && spurious && self.random.one_in(64) {
                Interrupts::fire_spurious(&self.registers, &mut self.pci, bus, &mut self.random);
            }
            let late = self.config.latitude.late_interrupts;
            let mut sending = Sending {
                registers: &self.registers,
                pci: &mut self.pci,
                bus,
                pace: &self.pace,
                late: late.then_some(&mut self.late_random),
            };
            busy |= self.interrupts.fire(&mut sending);
        }
        busy
    }
}

impl Device for E1000e82574 {
    fn config_read(&mut self, offset: u16) -> u32 {
        if self.lies() {
            return self.lying_config_read(offset);
        }
        self.honest_config_read(offset)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        if self.gone || self.liar.as_ref().is_some_and(|liar| liar.is_gone()) {
            return;
        }
        if self.pci.write(offset, value) == Effect::Reset {
            self.begin_reset();
        }
        self.settle();
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        match index {
            0 => Some(registers::BAR0_LEN),
            3 => Some(TABLE_BAR_LEN),
            _ => None,
        }
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        if self.lies() {
            return self.lying_read(bar, offset, now);
        }
        self.honest_read(bar, offset, now)
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        if self.lies() {
            return self.lying_write(bar, offset, value, now);
        }
        self.honest_write(bar, offset, value, now);
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        // The tails RDT0, RDT1, TDT0, TDT1. Before it is a bus master they are part of the setup.
        let is_tail = matches!(offset, 0x2818 | 0x2918 | 0x3818 | 0x3918);
        bar == 0 && is_tail && self.pci.is_bus_master()
    }

    fn vectors(&self) -> u16 {
        pci::VECTORS
    }

    fn interrupt_pin(&self) -> bool {
        !self.gone && self.pci.has_pin() && self.interrupts.is_asserted()
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        if self.lies() {
            return self.lying_step(bus, now);
        }
        self.honest_step(bus, now)
    }

    fn take_violations(&mut self) -> Vec<String> {
        self.violations.take()
    }
}

impl fmt::Debug for E1000e82574 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E1000e82574")
            .field("config", &self.config)
            .field("link", &self.link)
            .field("engine", &self.engine)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
