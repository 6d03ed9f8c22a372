//! A software virtio-net device, virtio 1.x over PCI, without the legacy interface.
//!
//! Modelled: configuration space with the vendor capabilities (the window into the BARs too) and
//! MSI-X; negotiation, status, reset; split and packed rings with chains, indirect tables, event
//! index, in-order use and queue reset; transmission from gather lists with checksum and TCP
//! segmentation; reception into single or merged buffers with checksum verdicts and frames
//! longer than the MTU; the control queue with receive modes, the address table, the address and
//! several pairs of queues; link status, MTU. See [`Offers`].
//!
//! Not modelled, and not offered: NOTIFICATION_DATA, NOTIF_CONFIG_DATA, HOST_ECN and GUEST_ECN,
//! UFO and USO, VLAN filtering, announcement, RSS and hash reports, coalescing, statistics,
//! CTRL_GUEST_OFFLOADS, the administration queue, shared memory. Not modelled, and silent: INTx
//! beyond the ISR register, function level reset, power management. Segments are not coalesced
//! on reception: what is longer than the MTU has to come so from the wire. Frames without a
//! buffer wait, as in QEMU; they are not lost.
//!
//! It is written from the specification (OASIS virtio 1.3); where another source was used it is
//! named. What the specification leaves to the device is drawn from a seed: see [`Latitude`].
//!
//! A driver that breaks a ring (a loop, an index out of range, memory that is not there) is
//! reported, that queue stops, and the device sets DEVICE_NEEDS_RESET. The device can be made to
//! lie: see [`Hostile`].

mod bits;
mod common;
mod config;
mod control;
mod frame;
pub mod hostile;
mod pace;
mod packed;
mod pci;
mod queue;
mod receive;
mod report;
mod ring;
mod split;
mod status;
#[cfg(test)]
mod tests;
mod transmit;

use std::fmt;

use pagewire_hal::Instant;

pub use config::{Latitude, ModelConfig, Offers};
pub use hostile::{Hostile, Lie, LieCounters, Lies};
pub use report::Counters;

use bits::{NO_VECTOR, feature};
use common::Common;
use control::{Filter, Settings};
use hostile::{Liar, Request};
use pace::{Deadline, Pace};
use pci::ConfigSpace;
use queue::{Queue, Work};
use receive::Receiver;
use report::Violations;

use crate::{Bus, Device, Wire};

/// A virtio-net device. See the [module](self) for what it does and does not do.
pub struct VirtioNet {
    config: ModelConfig,
    wire: Box<dyn Wire>,
    random: fastrand::Rng,
    pace: Pace,
    violations: Violations,
    counters: Counters,
    pci: ConfigSpace,
    common: Common,
    queues: Vec<Queue>,
    receiver: Receiver,
    filter: Filter,
    /// Pairs of queues in use.
    pairs: u16,
    link: bool,
    /// Interrupts that were asked for, and when they are sent.
    sending: Vec<(Deadline, u16)>,
    /// The device is being reset until then.
    reset: Option<Deadline>,
    hold: bool,
    never_quiet: bool,
    gone: bool,
    /// The device is hostile.
    liar: Option<Box<Liar>>,
    /// What was told before.
    lies_told: LieCounters,
}

impl VirtioNet {
    /// A device that has been powered up and plugged into `wire`.
    #[must_use]
    pub fn new(config: ModelConfig, wire: Box<dyn Wire>) -> Self {
        let config = config.in_range();
        let pairs = if config.offers.multiqueue {
            config.pairs
        } else {
            1
        };
        let count = 2 * pairs + u16::from(config.offers.control_queue);
        let mut random = fastrand::Rng::with_seed(config.seed);
        Self {
            link: wire.carrier(),
            wire,
            pace: Pace::default(),
            violations: Violations::default(),
            counters: Counters::default(),
            pci: ConfigSpace::new(count + 1, config.latitude.odd_capabilities),
            common: Common::new(random.u8(..)),
            queues: (0..count)
                .map(|index| Queue::new(index, config.queue_size))
                .collect(),
            receiver: Receiver::default(),
            filter: Filter::new(config.mac),
            pairs: 1,
            sending: Vec::new(),
            reset: None,
            hold: false,
            never_quiet: false,
            gone: false,
            liar: None,
            lies_told: LieCounters::default(),
            random,
            config,
        }
    }

    /// Holds transmit completions back: while `on`, no transmit buffer is marked as used. Frames
    /// are sent, received and reported as ever.
    pub fn hold_completions(&mut self, on: bool) {
        self.hold = on;
    }

    /// A fault: while `on`, no reset ends. The status does not read 0 after one was asked for,
    /// and queue_reset goes on reading 1.
    pub fn never_quiet(&mut self, on: bool) {
        self.never_quiet = on;
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

    /// The feature bits that it offers.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.config.offers.bits()
    }

    /// The feature bits that were negotiated; 0 if none are in force.
    #[must_use]
    pub fn negotiated(&self) -> u64 {
        if self.common.status & bits::status::FEATURES_OK != 0 {
            self.common.driver_features
        } else {
            0
        }
    }

    fn report(&mut self, text: &str) {
        self.violations.report(text.to_owned());
    }

    /// Pairs of queues that the negotiated features allow.
    fn most_pairs(&self) -> u16 {
        if self.common.driver_features & feature::MQ != 0 {
            self.config.pairs
        } else {
            1
        }
    }

    /// Whether the negotiated features use queue `index`.
    fn has_role(&self, index: u16) -> bool {
        let data = 2 * self.most_pairs();
        let control = self.common.driver_features & feature::CTRL_VQ != 0;
        index < data || index == data && control
    }

    /// Follows the carrier.
    fn follow_link(&mut self) -> bool {
        let link = self.wire.carrier();
        let changed = link != self.link;
        self.link = link;
        changed
    }

    /// The device configuration has changed, or the device needs a reset.
    fn interrupt_configuration(&mut self) {
        if self.common.status & bits::status::DRIVER_OK != 0 {
            self.common.isr |= 2;
            self.send(self.common.config_vector);
        }
    }

    /// Sends `vector`, at once or later.
    fn send(&mut self, vector: u16) {
        let pending = self.sending.iter().any(|(_, other)| *other == vector);
        if vector != NO_VECTOR && !pending {
            let slow = self.config.latitude.late_interrupts;
            let when = self.pace.delay(slow, &mut self.random, 200_000);
            self.sending.push((when, vector));
        }
    }

    /// Sends the interrupts that are due.
    fn send_due(&mut self, bus: &mut dyn Bus) -> bool {
        let pace = self.pace;
        let mut due = Vec::new();
        self.sending.retain(|(when, vector)| {
            let now = when.has_passed(&pace);
            if now {
                due.push(*vector);
            }
            !now
        });
        let mut any = false;
        let mut liar = self.liar.as_deref_mut();
        while self.pci.has_msix()
            && let Some(vector) = self.pci.take_unmasked()
        {
            due.push(vector);
        }
        for vector in due {
            if self.pci.has_msix() && self.pci.offer(vector) {
                any = true;
                if liar.as_mut().is_some_and(|liar| liar.swallows_interrupt()) {
                    continue;
                }
                self.counters.interrupts += 1;
                bus.interrupt(vector);
            }
        }
        any
    }

    /// Lets the queues work.
    fn run_queues(&mut self, bus: &mut dyn Bus) -> bool {
        let most_pairs = self.most_pairs();
        let control = usize::from(2 * most_pairs);
        let running = self.reset.is_none() && self.common.status & bits::status::DRIVER_OK != 0;
        let mut interrupts = Vec::new();
        let mut needs_reset = false;
        let mut work = Work {
            bus,
            features: self.common.driver_features,
            violations: &mut self.violations,
            counters: &mut self.counters,
            random: &mut self.random,
            latitude: self.config.latitude,
            pace: self.pace,
            interrupts: &mut interrupts,
            liar: self.liar.as_deref_mut(),
            needs_reset: &mut needs_reset,
        };
        let mut busy = false;
        if running {
            for (index, queue) in self.queues.iter_mut().enumerate() {
                let fetched = queue.fetch(&mut work);
                busy |= fetched;
                if index == control {
                    let mut settings = Settings {
                        filter: &mut self.filter,
                        pairs: &mut self.pairs,
                        most_pairs,
                    };
                    busy |= control::execute(queue, &mut settings, &mut work);
                } else if index % 2 == 1 {
                    if fetched && index >= usize::from(2 * self.pairs) {
                        work.report(queue.index, "used for transmission, but its pair is off");
                    }
                    busy |= transmit::transmit(queue, &mut *self.wire, self.config.mtu, &mut work);
                }
            }
            let (queues, wire) = (&mut self.queues, &mut *self.wire);
            let (pairs, mtu) = (self.pairs, self.config.mtu);
            busy |= self
                .receiver
                .receive(queues, pairs, wire, &self.filter, mtu, &mut work);
        } else {
            self.receiver.lose(&mut *self.wire, &mut work);
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            if !(self.hold && index != control && queue.has_done()) {
                busy |= queue.flush(&mut work);
            }
        }
        self.after(&interrupts, needs_reset);
        busy
    }

    /// What follows from the work of the queues.
    fn after(&mut self, interrupts: &[u16], needs_reset: bool) {
        if !interrupts.is_empty() && !self.pci.has_msix() {
            self.common.isr |= 1;
        }
        for vector in interrupts {
            self.send(*vector);
        }
        if needs_reset {
            self.interrupt_configuration();
            self.common.status |= bits::status::NEEDS_RESET;
        }
    }

    /// Interrupts that mean nothing.
    fn send_spurious(&mut self) {
        let latitude = self.config.latitude;
        if latitude.spurious_interrupts && self.random.u8(..) == 0 {
            let index = self.random.usize(..self.queues.len().max(1));
            if let Some(queue) = self.queues.get(index) {
                self.send(queue.vector);
            }
        }
        if latitude.spurious_configuration && self.random.u16(..512) == 0 {
            self.common.changed = true;
            self.interrupt_configuration();
        }
    }

    /// An access of `width` bytes to BAR 4, or to 32-bit words of BAR 1.
    fn read_bar(&mut self, bar: u8, offset: u32, width: u32) -> Option<u32> {
        let value = match bar {
            1 if width == 4 => self.pci.table_read(offset),
            4 => self.read_register(offset, width)?,
            _ => return None,
        };
        match &mut self.liar {
            Some(liar) => Some(liar.register(bar, offset, width, value)),
            None => Some(value),
        }
    }

    fn write_bar(&mut self, bar: u8, offset: u32, width: u32, value: u32) -> bool {
        let request = match common::field(offset) {
            Some((common::Field::Status, _)) if bar == 4 && value == 0 => Request::Reset,
            Some((common::Field::Status, _)) if bar == 4 => Request::Status,
            Some((common::Field::QueueReset, _)) if bar == 4 => Request::QueueReset,
            _ => Request::Other,
        };
        if self.lies_about_write(request) {
            return true;
        }
        match bar {
            1 if width == 4 => self.pci.table_write(offset, value),
            4 => return self.write_register(offset, width, value),
            _ => return false,
        }
        true
    }

    /// Takes note of an access; whether the device answers.
    fn hears(&mut self, now: Instant) -> bool {
        self.pace.tick(now);
        if self.gone || !self.pci.answers() {
            return false;
        }
        if let Some(liar) = &mut self.liar
            && liar.is_gone()
        {
            liar.tick();
            return false;
        }
        self.settle();
        true
    }

    /// Configuration space as an honest device has it.
    fn honest_config(&mut self, offset: u16) -> u32 {
        if offset == pci::WINDOW_DATA
            && let Some(window) = self.pci.window()
        {
            let now = self.pace.now;
            if self.hears(now) {
                let value = self.read_bar(window.bar, window.offset, window.width);
                return value.unwrap_or(u32::MAX);
            }
        }
        self.pci.word(offset)
    }

    /// A step of an honest device.
    fn honest_step(&mut self, bus: &mut dyn Bus) -> bool {
        if self.follow_link() {
            self.common.changed = true;
            if self.common.driver_features & feature::STATUS != 0 {
                self.interrupt_configuration();
            }
        }
        if !self.pci.is_bus_master() {
            return false;
        }
        let mut busy = self.run_queues(bus);
        if self.common.status & bits::status::DRIVER_OK != 0 && self.reset.is_none() {
            self.send_spurious();
        }
        busy |= self.send_due(bus);
        busy
    }
}

impl Device for VirtioNet {
    fn config_read(&mut self, offset: u16) -> u32 {
        if self.gone || offset >= 0x1000 {
            return u32::MAX;
        }
        let value = self.honest_config(offset);
        self.lying_config(offset, value)
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        if self.gone || self.liar.as_ref().is_some_and(|liar| liar.is_gone()) {
            return;
        }
        if offset == pci::WINDOW_DATA
            && let Some(window) = self.pci.window()
        {
            let now = self.pace.now;
            let value = match window.width {
                1 => value & 0xff,
                2 => value & 0xffff,
                _ => value,
            };
            if self.hears(now) {
                self.write_bar(window.bar, window.offset, window.width, value);
            }
            return;
        }
        self.pci.write(offset, value);
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        match index {
            1 => Some(pci::BAR1_LEN),
            4 => Some(pci::BAR4_LEN),
            _ => None,
        }
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        if !self.hears(now) {
            return u32::MAX;
        }
        self.read_bar(bar, offset, 4).unwrap_or_else(|| {
            self.report(&format!("32-bit register read at {offset:#x} of BAR {bar}"));
            u32::MAX
        })
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        if self.hears(now) && !self.write_bar(bar, offset, 4, value) {
            self.report(&format!(
                "32-bit register written at {offset:#x} of BAR {bar}"
            ));
        }
    }

    fn read_narrow(&mut self, bar: u8, offset: u32, width: u32, now: Instant) -> Option<u16> {
        if !self.hears(now) {
            return Some(u16::MAX);
        }
        self.read_bar(bar, offset, width).map(|value| value as u16)
    }

    fn write_narrow(&mut self, bar: u8, offset: u32, width: u32, value: u16, now: Instant) -> bool {
        !self.hears(now) || self.write_bar(bar, offset, width, value.into())
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        bar == 4 && self.is_notify(offset)
    }

    fn vectors(&self) -> u16 {
        self.pci.vectors()
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        if !self.hears(now) {
            return false;
        }
        self.lying_step(bus)
    }

    fn take_violations(&mut self) -> Vec<String> {
        self.violations.take()
    }
}

impl fmt::Debug for VirtioNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioNet")
            .field("config", &self.config)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
