//! The model of the 82599, with an ear on the transmit doorbell, and with fewer vectors if the
//! system grants no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewire::hal::Instant;
use pagewire_models::ixgbe::Ixgbe82599;
use pagewire_models::{Bus, Device};

/// TDT of the first queue, and the distance to the next (Linux ixgbe, `ixgbe_type.h`).
const TDT: u32 = 0x6018;
const STRIDE: u32 = 0x40;
/// RXDCTL and TXDCTL of the first queue, and the bit by which a queue says that it is on.
const RXDCTL: u32 = 0x1028;
const TXDCTL: u32 = 0x6028;
const ENABLE: u32 = 1 << 25;
/// Queues whose registers lie in these two rows.
const QUEUES: u32 = 64;
/// Command and status in configuration space, and the bus master bit (Linux, `pci_regs.h`).
const COMMAND: u16 = 4;
const BUS_MASTER: u32 = 1 << 2;
/// The word of device control and status in the model's PCI Express capability, and Transactions
/// Pending in it.
const PCIE_DEVICE: u16 = 0xa8;
const PENDING: u32 = 1 << (16 + 5);
/// STATUS, and its bit "GIO master enable status".
const STATUS: u32 = 8;
const MASTER_ENABLE: u32 = 1 << 19;

/// How a device shows that its requests do not end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stuck {
    /// It does not.
    No,
    /// In STATUS: it remains a master.
    Master,
    /// In PCI Express: transactions are pending.
    Pending,
}

/// See the [module](self).
pub(crate) struct Listener {
    pub(crate) inner: Ixgbe82599,
    pub(crate) stuck: Stuck,
    /// Until then no queue says that it is on, and a tail is lost, as it may be in a queue that is
    /// off. For a driver that only looks, and does not wait, this is longer than any patience.
    pub(crate) queues_are_off_until: Instant,
    violations: Vec<String>,
    vectors: u16,
    doorbells: Arc<AtomicU64>,
}

impl Listener {
    /// A model of which at most `vectors` are granted, and the count of the doorbells of the first
    /// transmit queue.
    pub(crate) fn new(inner: Ixgbe82599, vectors: u16) -> (Self, Arc<AtomicU64>) {
        let doorbells = Arc::new(AtomicU64::new(0));
        let listener = Self {
            inner,
            stuck: Stuck::No,
            queues_are_off_until: Instant::ZERO,
            violations: Vec::new(),
            vectors,
            doorbells: Arc::clone(&doorbells),
        };
        (listener, doorbells)
    }
}

/// Whether `offset` is the register of some queue whose first one is at `first`.
fn is_of_queue(offset: u32, first: u32) -> bool {
    let distance = offset.wrapping_sub(first);
    distance < QUEUES * STRIDE && distance.is_multiple_of(STRIDE)
}

impl Device for Listener {
    fn config_read(&mut self, offset: u16) -> u32 {
        let value = self.inner.config_read(offset);
        match self.stuck {
            Stuck::Pending if offset == PCIE_DEVICE => value | PENDING,
            _ => value,
        }
    }

    fn config_write(&mut self, offset: u16, value: u32) {
        self.inner.config_write(offset, value);
    }

    fn bar_len(&self, index: u8) -> Option<u32> {
        self.inner.bar_len(index)
    }

    fn read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        let value = self.inner.read(bar, offset, now);
        match self.stuck {
            Stuck::Master if bar == 0 && offset == STATUS => value | MASTER_ENABLE,
            _ if bar == 0
                && now < self.queues_are_off_until
                && (is_of_queue(offset, TXDCTL) || is_of_queue(offset, RXDCTL)) =>
            {
                value & !ENABLE
            }
            _ => value,
        }
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        // What is written before the device is a bus master is part of its setup.
        let is_master = self.inner.config_read(COMMAND) & BUS_MASTER != 0;
        if bar == 0 && offset == TDT && is_master {
            self.doorbells.fetch_add(1, Ordering::Relaxed);
        }
        if bar == 0 && now < self.queues_are_off_until && is_of_queue(offset, TDT) && value != 0 {
            let text = format!("tail at {offset:#x} written before the queue was on");
            self.violations.push(text);
            return;
        }
        self.inner.write(bar, offset, value, now);
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        self.inner.is_doorbell(bar, offset)
    }

    fn vectors(&self) -> u16 {
        self.vectors.min(self.inner.vectors())
    }

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        self.inner.step(bus, now)
    }

    fn take_violations(&mut self) -> Vec<String> {
        let mut violations = self.inner.take_violations();
        violations.append(&mut self.violations);
        violations
    }
}
