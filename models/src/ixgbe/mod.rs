//! A software Intel 82599 (and, by its id, an X540).
//!
//! Modelled: configuration space (power management, MSI-X, PCI Express with function level
//! reset), reset, master disable, the EEPROM behind EERD, semaphores, the link of a backplane, an
//! SFP+ module behind I2CCTL;
//! 128 transmit queues with advanced descriptors, two contexts each, gather, checksum insertion,
//! TCP segmentation and VLAN tags, write-back of descriptors or of the head; 128 receive queues
//! with advanced descriptors, one buffer or several for a frame, the filters of addresses and VLANs,
//! tags taken off, checksum verdicts, receive side scaling; MSI-X interrupts with moderation;
//! statistics; loopback.
//!
//! Not modelled, and reported if used: legacy descriptors, double VLAN tags, segmentation of UDP,
//! SCTP, security, header splitting, queues chosen by traffic class or pool. Not modelled, and
//! silent: legacy interrupts and MSI, flow control, receive side coalescing, the flow director,
//! virtualisation (with the tags of pools), management, wake-up, PHYs (but for what
//! an X540's calls itself), flash, time stamps. Their
//! registers store what is written.
//!
//! It is written from what is known of the specification; the sources are named where a fact
//! stands. What the specification leaves to the hardware is drawn from a seed: see [`Latitude`].
//! Where sources differ about what a driver must do: see [`Rules`]. It can be made to lie: see
//! [`hostile`].

mod assembly;
mod bits;
mod control;
mod descriptor;
mod device;
mod filter;
pub mod hostile;
mod interrupts;
mod latitude;
mod module;
mod nvm;
mod offload;
mod order;
mod packet;
mod pci;
mod phy;
mod receive;
mod registers;
mod rings;
mod rss;
mod rx_queue;
mod segment;
mod statistics;
#[cfg(test)]
mod tests;
mod transmit;
mod violations;
mod work;
mod write_back;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

pub use hostile::{Hostile, Lie, LieCounters, Lies};
pub use latitude::{DeviceId, Latitude, ModelConfig, Rules};
pub use module::Module;
pub use statistics::{Counters, HISTOGRAM};

use bits::{TE, autoc, cause, ctrl, esdp, hlreg0, links, offset, status};
use hostile::Liar;
use interrupts::{Interrupts, Sending};
use module::Cage;
use nvm::Nvm;
use pace::{Deadline, Pace, Random};
use phy::Phy;
use receive::Receiver;
use registers::{QUEUES, RegisterFile};
use transmit::TxQueue;
use violations::Violations;
use work::Work;

use crate::intel::engine::{Engine, Gate};
use crate::intel::pci::ConfigSpace;
use crate::{Bus, Wire, checksum, pace};

/// Nanoseconds that requests may be under way after bus mastering was stopped.
const LATEST_DRAIN: u64 = 50_000;
/// Nanoseconds that the link may take. (Seconds in truth: simulations have no patience.)
const LONGEST_NEGOTIATION: u64 = 5_000_000;

/// An Intel 82599. See the [module](self) for what it does and does not do.
pub struct Ixgbe82599 {
    config: ModelConfig,
    wire: Box<dyn Wire>,
    random: Random,
    pace: Pace,
    violations: Violations,
    pci: ConfigSpace,
    registers: RegisterFile,
    nvm: Nvm,
    cage: Cage,
    phy: Phy,
    link: bool,
    /// The link comes up then, if nothing happens before.
    negotiation: Option<Deadline>,
    interrupts: Interrupts,
    counters: Counters,
    transmit: Vec<TxQueue>,
    receiver: Receiver,
    looped: VecDeque<Vec<u8>>,
    engine: Engine,
    /// Some queue's ENABLE is about to change.
    changing: bool,
    /// CTRL.RST is set until then.
    reset: Option<Deadline>,
    /// The EEPROM is being loaded until then.
    loading: Option<Deadline>,
    /// What EERD will read when its access is done.
    eerd: Option<(Deadline, u32)>,
    /// The receive data path is empty then.
    drained: Deadline,
    /// Firmware holds the semaphores until then.
    firmware: Deadline,
    /// The first queue that is served in the next step.
    turn: usize,
    /// Queues up to the last one that was ever switched on, at least 1: nobody need look at others.
    used: usize,
    /// GPIE.Multiple_MSIX was missed already.
    judged_msix: bool,
    /// The long counter whose lower half was read last, and what it was.
    long_read: BTreeMap<u32, u64>,
    hold: bool,
    stalled: bool,
    never_quiet: bool,
    gone: bool,
    /// The device is hostile.
    liar: Option<Box<Liar>>,
    /// What was told before.
    lies_told: LieCounters,
}

impl Ixgbe82599 {
    /// A device that has been powered up and plugged into `wire`.
    #[must_use]
    pub fn new(mut config: ModelConfig, wire: Box<dyn Wire>) -> Self {
        // An erratum of the 82599 alone (Linux ixgbe).
        config.latitude.udp_without_checksum_fails &= config.device != DeviceId::X540T;
        let mut random = Random::new(config.seed);
        let latitude = config.latitude;
        let rubbish = latitude.undefined_defaults.then_some(&mut random);
        let registers = RegisterFile::new(rubbish);
        let pace = Pace::default();
        let sections = latitude.eeprom_sections;
        let mut nvm = Nvm::new(config.mac, config.device.id(), sections);
        if config.bad_eeprom {
            nvm.corrupt();
        }
        let module = match config.device {
            DeviceId::Sfp => config.module,
            _ => Module::None,
        };
        let mut device = Self {
            cage: Cage::new(module, &pace),
            phy: Phy::default(),
            wire,
            pace,
            violations: Violations::default(),
            pci: pci::config_space(config.device.id()),
            registers,
            nvm,
            link: false,
            negotiation: None,
            interrupts: Interrupts::new(),
            counters: Counters::default(),
            transmit: (0..QUEUES).map(TxQueue::new).collect(),
            receiver: Receiver::new(),
            looped: VecDeque::new(),
            engine: Engine::Running,
            changing: false,
            reset: None,
            loading: None,
            eerd: None,
            drained: Deadline::after(&pace, 0),
            firmware: Deadline::after(&pace, 0),
            turn: 0,
            used: 1,
            judged_msix: false,
            long_read: BTreeMap::new(),
            hold: false,
            stalled: false,
            never_quiet: false,
            gone: false,
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

    /// Holds transmit completions back: while `on`, no DD and no head of a transmit queue is
    /// written. Frames are sent, received and reported as ever.
    pub fn hold_completions(&mut self, on: bool) {
        self.hold = on;
    }

    /// A fault: while `on`, requests of the device do not end. A master disable that comes now
    /// leaves STATUS's master enable bit set, and Transactions Pending is set whatever is done.
    pub fn never_quiet(&mut self, on: bool) {
        self.never_quiet = on;
    }

    /// A fault: while `on`, no step does anything: no ring is looked at, nothing is written back,
    /// no frame is taken from the wire, no interrupt is sent. Registers answer, and a reset ends.
    pub fn stall(&mut self, on: bool) {
        self.stalled = on;
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
        if self.changing {
            self.settle_queues();
        }
        self.settle_engine();
    }

    /// Brings changes of ENABLE into force.
    fn settle_queues(&mut self) {
        self.changing = false;
        for queue in self.transmit.iter_mut().take(self.used) {
            if queue.enable.settle(&self.pace) {
                queue.stop();
            }
            self.changing |= queue.enable.is_changing();
        }
        for queue in self.receiver.queues.iter_mut().take(self.used) {
            if queue.enable.settle(&self.pace) {
                queue.stop();
            }
            self.changing |= queue.enable.is_changing();
        }
    }

    /// Follows CTRL's master disable and the bus master bit of the command register.
    fn settle_engine(&mut self) {
        let stop = self.registers.get(offset::CTRL) & ctrl::MASTER_DISABLE != 0
            || !self.pci.is_bus_master();
        let (pace, never) = (self.pace, self.never_quiet);
        let slow = self.config.latitude.late_master_disable;
        self.engine = self
            .engine
            .settle(stop, &pace, never, || self.delay(slow, LATEST_DRAIN));
    }

    /// Whether requests of the device have not been answered yet.
    fn has_requests(&self) -> bool {
        let inside_frame = || {
            let mut used = self.transmit.iter().take(self.used);
            used.any(TxQueue::is_inside_frame) || self.receiver.is_inside_frame()
        };
        self.never_quiet || self.engine.has_requests(inside_frame)
    }

    fn gate(&self) -> Gate {
        self.engine.gate(self.pci.is_bus_master())
    }

    /// What STATUS reads.
    fn status(&self) -> u32 {
        let mut value = 0;
        if self.link {
            value |= status::LINK_UP;
        }
        if !self.is_master_disabled() {
            value |= status::MASTER_ENABLE;
        }
        value
    }

    /// Master disable was asked for and has happened. The bus master bit alone does not change
    /// the status.
    fn is_master_disabled(&self) -> bool {
        self.registers.get(offset::CTRL) & ctrl::MASTER_DISABLE != 0
            && matches!(self.engine, Engine::Quiet)
    }

    /// What LINKS reads: the speed is that of AUTOC's link mode.
    fn links(&self) -> u32 {
        if !self.link {
            return 0;
        }
        let mode = self.registers.get(offset::AUTOC) >> autoc::LMS_SHIFT & 0b111;
        let speed = if matches!(mode, 0 | 2) {
            links::SPEED_1G
        } else {
            links::SPEED_10G
        };
        links::UP | speed
    }

    /// Follows the carrier; a change of the link is an interrupt cause.
    fn follow_link(&mut self) {
        let forced = self.registers.get(offset::AUTOC) & autoc::FLU != 0;
        let dark = self.config.device == DeviceId::Sfp
            && self.registers.get(offset::ESDP) & esdp::LASER_OFF != 0;
        let wanted = (self.wire.carrier() || forced) && self.reset.is_none() && !dark;
        if !wanted {
            self.negotiation = None;
        } else if !self.link && self.negotiation.is_none() {
            let slow = self.config.latitude.slow_link;
            self.negotiation = Some(self.delay(slow, LONGEST_NEGOTIATION));
        }
        let ready = self.negotiation.as_ref();
        let link = wanted && (self.link || ready.is_some_and(|at| at.has_passed(&self.pace)));
        if link != self.link {
            self.link = link;
            self.negotiation = None;
            self.interrupts.raise(cause::LSC);
        }
    }

    /// Lets both halves of the DMA engine work.
    fn run_queues(&mut self, bus: &mut dyn Bus) -> bool {
        let gate = self.gate();
        let looped = self.registers.get(offset::HLREG0) & hlreg0::LPBK != 0;
        let sends = (self.link || looped) && self.registers.get(offset::DMATXCTL) & TE != 0;
        if self.config.latitude.queues_in_any_order {
            self.turn = self.random.below(QUEUES as u64) as usize;
        }
        let mut work = Work {
            bus,
            wire: &mut *self.wire,
            pace: self.pace,
            latitude: self.config.latitude,
            rules: self.config.rules,
            registers: &mut self.registers,
            random: &mut self.random,
            violations: &mut self.violations,
            counters: &mut self.counters,
            looped: &mut self.looped,
            hold: self.hold,
            used: self.used,
            vectors: 0,
            causes: 0,
        };
        let mut busy = false;
        let used = self.transmit.get_mut(..self.used).unwrap_or_default();
        let (first, second) = used.split_at_mut(self.turn % self.used);
        for queue in second.iter_mut().chain(first) {
            busy |= queue.step(gate, sends, &mut work);
        }
        busy |= self.receiver.step(gate, self.link, &mut work);
        let (vectors, causes) = (work.vectors, work.causes);
        self.interrupts.raise_vectors(vectors);
        self.interrupts.raise(causes);
        busy
    }

    /// Sends the interrupts that are due.
    fn send_interrupts(&mut self, busy: bool, bus: &mut dyn Bus) -> bool {
        self.judge_msix();
        let latitude = self.config.latitude;
        let mut sending = Sending {
            registers: &self.registers,
            pci: &mut self.pci,
            bus,
            pace: &self.pace,
            random: &mut self.random,
            late: latitude.late_interrupts,
            sent: 0,
        };
        if busy && latitude.spurious_interrupts && sending.random.one_in(64) {
            Interrupts::fire_spurious(&mut sending);
        }
        let fired = self.interrupts.fire(&mut sending);
        self.counters.interrupts += sending.sent;
        fired
    }
}

impl fmt::Debug for Ixgbe82599 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ixgbe82599")
            .field("config", &self.config)
            .field("link", &self.link)
            .field("engine", &self.engine)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
