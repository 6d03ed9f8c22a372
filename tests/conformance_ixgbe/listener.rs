//! The model of the 82599, with an ear on the transmit doorbell, and with fewer vectors if the
//! system grants no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewire::hal::Instant;
use pagewire_models::ixgbe::Ixgbe82599;
use pagewire_models::{Bus, Device};

/// TDT of the first queue (Linux ixgbe, `ixgbe_type.h`).
const TDT: u32 = 0x6018;
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
            vectors,
            doorbells: Arc::clone(&doorbells),
        };
        (listener, doorbells)
    }
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
            _ => value,
        }
    }

    fn write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        // What is written before the device is a bus master is part of its setup.
        let is_master = self.inner.config_read(COMMAND) & BUS_MASTER != 0;
        if bar == 0 && offset == TDT && is_master {
            self.doorbells.fetch_add(1, Ordering::Relaxed);
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
        self.inner.take_violations()
    }
}
