//! The device as its bus sees it.

use pagewire_hal::Instant;

use super::{Ixgbe82599, bits, pci, registers};
use crate::intel::engine::Gate;
use crate::intel::pci::{Effect, TABLE_BAR_LEN};
use crate::{Bus, Device};

/// The device as it is when it does not lie.
impl Ixgbe82599 {
    pub(super) fn honest_config_read(&mut self, offset: u16) -> u32 {
        if self.gone || offset >= 0x1000 {
            return u32::MAX;
        }
        self.settle();
        self.pci.read(offset, self.has_requests())
    }

    pub(super) fn honest_read(&mut self, bar: u8, offset: u32, now: Instant) -> u32 {
        self.pace.tick(now);
        if self.gone || !self.pci.answers() {
            return u32::MAX;
        }
        self.settle();
        match bar {
            0 => self.read_register(offset),
            4 => self.pci.table_read(offset),
            _ => u32::MAX,
        }
    }

    pub(super) fn honest_write(&mut self, bar: u8, offset: u32, value: u32, now: Instant) {
        self.pace.tick(now);
        if self.gone || !self.pci.answers() {
            return;
        }
        self.settle();
        match bar {
            0 => self.write_register(offset, value),
            4 => self.pci.table_write(offset, value),
            _ => {}
        }
    }

    pub(super) fn honest_step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        if self.gone {
            return false;
        }
        self.pace.tick(now);
        self.settle();
        if self.stalled {
            return false;
        }
        self.follow_link();
        let busy = self.reset.is_none() && self.run_queues(bus);
        if self.gate() == Gate::Closed {
            return busy;
        }
        busy | self.send_interrupts(busy, bus)
    }
}

impl Device for Ixgbe82599 {
    fn config_read(&mut self, offset: u16) -> u32 {
        if self.lies() {
            return self.lying_config_read(offset);
        }
        self.honest_config_read(offset)
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

    fn step(&mut self, bus: &mut dyn Bus, now: Instant) -> bool {
        if self.lies() {
            return self.lying_step(bus, now);
        }
        self.honest_step(bus, now)
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
            4 => Some(TABLE_BAR_LEN),
            _ => None,
        }
    }

    fn is_doorbell(&self, bar: u8, offset: u32) -> bool {
        // Before it is a bus master, writes to the tails are part of the setup.
        let is_ring = matches!(offset, 0x1000..=0x1fff | 0xd000..=0xdfff | 0x6000..=0x7fff);
        bar == 0 && is_ring && offset & 0x3f == bits::offset::ring::TAIL && self.pci.is_bus_master()
    }

    fn vectors(&self) -> u16 {
        pci::VECTORS
    }

    fn take_violations(&mut self) -> Vec<String> {
        self.violations.take()
    }
}
