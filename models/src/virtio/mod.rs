//! A software virtio-net device, virtio 1.x over PCI, without the legacy interface.
//!
//! Modelled: configuration space with the vendor capabilities (the window into the BARs too) and
//! MSI-X; negotiation, status, reset; split and packed rings with chains, indirect tables, event
//! index, in-order use and queue reset; transmission from gather lists with checksum and TCP
//! segmentation; reception into single or merged buffers with checksum verdicts and large
//! packets, joined from segments or longer than the MTU on the wire; the control queue with receive modes, the address table, the address and
//! several pairs of queues; link status, MTU. See [`Offers`].
//!
//! Not modelled, and not offered: NOTIFICATION_DATA, NOTIF_CONFIG_DATA, HOST_ECN and GUEST_ECN,
//! UFO and USO, VLAN filtering, announcement, RSS and hash reports, coalescing, statistics,
//! CTRL_GUEST_OFFLOADS, the administration queue, shared memory. Not modelled, and silent: INTx
//! beyond the ISR register, function level reset, power management. Frames without a buffer wait,
//! as in QEMU; they are not lost.
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
mod engine;
mod frame;
pub mod hostile;
mod join;
mod pace;
mod packed;
mod pci;
mod queue;
mod receive;
mod report;
mod ring;
mod split;
mod status;
mod steering;
#[cfg(test)]
mod tests;
mod transmit;

use std::fmt;

use pagewire_hal::Instant;

pub use config::{Latitude, ModelConfig, Offers};
pub use hostile::{Hostile, Lie, LieCounters, Lies};
pub use report::Counters;

use bits::feature;
use common::Common;
use control::Filter;
use hostile::{Liar, Request};
use pace::{Deadline, Pace};
use pci::ConfigSpace;
use queue::Queue;
use receive::Receiver;
use report::Violations;
use steering::Steering;

use crate::{Bus, Device, Wire};

/// A virtio-net device. See the [module](self) for what it does and does not do.
pub struct VirtioNet {
    config: ModelConfig,
    wire: Box<dyn Wire>,
    random: fastrand::Rng,
    pace: Pace,
    violations: Violations,
    /// What the driver should do, and does not.
    advice: Violations,
    counters: Counters,
    pci: ConfigSpace,
    common: Common,
    queues: Vec<Queue>,
    receiver: Receiver,
    filter: Filter,
    steering: Steering,
    link: bool,
    /// Interrupts that were asked for, and when they are sent.
    sending: Vec<(Deadline, u16)>,
    /// The device is being reset until then.
    reset: Option<Deadline>,
    hold: bool,
    stalled: bool,
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
            advice: Violations::default(),
            counters: Counters::default(),
            pci: ConfigSpace::new(count + 1, config.latitude.odd_capabilities),
            common: Common::new(random.u8(..)),
            queues: (0..count)
                .map(|index| Queue::new(index, config.queue_size))
                .collect(),
            receiver: Receiver::default(),
            filter: Filter::new(config.mac),
            steering: Steering::new(),
            sending: Vec::new(),
            reset: None,
            hold: false,
            stalled: false,
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

    /// A fault: while `on`, no step does anything: no ring is looked at, nothing is marked as used,
    /// no frame is taken from the wire, no interrupt is sent. Registers answer, and a reset ends.
    pub fn stall(&mut self, on: bool) {
        self.stalled = on;
    }

    /// A fault: the device has met an error that only a reset mends. It sets DEVICE_NEEDS_RESET,
    /// with a configuration interrupt, and goes on with its work.
    pub fn need_reset(&mut self) {
        self.interrupt_configuration();
        self.common.status |= bits::status::NEEDS_RESET;
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

    /// What the driver should do and does not, in words, since this was last asked. The
    /// specification says SHOULD there: a driver may have its reasons, so it is no violation.
    pub fn take_advice(&mut self) -> Vec<String> {
        self.advice.take()
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
