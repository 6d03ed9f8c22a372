//! Interrupt causes, masks, and which MSI-X vectors they fire.
//!
//! Only MSI-X is modelled: with it off in configuration space, causes are collected and nothing
//! is sent. The delay timers (RDTR, RADV, TIDV, TADV) store their values and delay nothing,
//! which a device without latitude would be free to do as well: they bound a delay.

use core::time::Duration;

use pagewire_hal::Instant;

use super::bits::{cause, ctrl_ext, offset};
use super::pace::Random;
use super::pci::{ConfigSpace, VECTORS};
use super::registers::RegisterFile;
use crate::Bus;

/// EITR counts in units of 256 ns (QEMU `e1000e_core.c`).
const EITR_UNIT: u64 = 256;

/// Causes that have a vector, and where IVAR says which.
const ROUTES: [(u32, u32); 5] = [
    (cause::RXQ0, 0),
    (cause::RXQ1, 4),
    (cause::TXQ0, 8),
    (cause::TXQ1, 12),
    (cause::OTHER, 16),
];

#[derive(Default)]
pub(super) struct Interrupts {
    causes: u32,
    mask: u32,
    /// Causes that are enabled and for which a message was sent.
    signalled: u32,
    /// Vectors that wait for their EITR interval to end.
    throttled: u32,
    next_allowed: [Instant; VECTORS as usize],
}

impl Interrupts {
    /// Sets causes; those of no queue set OTHER too.
    pub(super) fn raise(&mut self, causes: u32) {
        self.causes |= causes & cause::ALL;
        if causes & cause::OTHERS != 0 {
            self.causes |= cause::OTHER;
        }
    }

    fn value(&self) -> u32 {
        if self.causes & self.mask != 0 {
            self.causes | cause::INT_ASSERTED
        } else {
            self.causes
        }
    }

    /// Reads ICR. It clears itself if the mask is empty or an interrupt is asserted, and then
    /// masks what IAM says if CTRL_EXT.IAME is set; else it stays (QEMU `e1000e_core.c`; Linux
    /// e1000e, comment in `e1000_intr`). `survives`: see `Latitude::icr_survives_read`.
    pub(super) fn read(&mut self, registers: &RegisterFile, survives: bool) -> u32 {
        let value = self.value();
        let auto_mask = registers.get(offset::CTRL_EXT) & ctrl_ext::IAME != 0;
        if self.mask == 0 {
            self.causes = 0;
        } else if value & cause::INT_ASSERTED != 0 && (auto_mask || !survives) {
            self.causes = 0;
            if auto_mask {
                self.mask &= !registers.get(offset::IAM);
            }
        }
        self.settle();
        value
    }

    /// Reads ICS: the causes, without clearing them (QEMU: drivers rely on it, though the
    /// register is called write-only).
    pub(super) fn peek(&self) -> u32 {
        self.value()
    }

    /// Writes ICR: ones clear.
    pub(super) fn acknowledge(&mut self, bits: u32, registers: &RegisterFile) {
        if self.value() & cause::INT_ASSERTED != 0
            && registers.get(offset::CTRL_EXT) & ctrl_ext::IAME != 0
        {
            self.mask &= !registers.get(offset::IAM);
        }
        self.causes &= !bits;
        self.settle();
    }

    pub(super) fn mask(&self) -> u32 {
        self.mask
    }

    pub(super) fn enable(&mut self, bits: u32) {
        self.mask |= bits & cause::ALL;
    }

    pub(super) fn disable(&mut self, bits: u32) {
        self.mask &= !bits;
        self.settle();
    }

    /// A cause that is gone or masked may fire again.
    fn settle(&mut self) {
        self.signalled &= self.causes & self.mask;
    }

    /// Sends what is due; returns whether anything was.
    pub(super) fn fire(
        &mut self,
        registers: &RegisterFile,
        pci: &mut ConfigSpace,
        bus: &mut dyn Bus,
        now: Instant,
    ) -> bool {
        if !pci.has_msix() || !pci.is_bus_master() {
            return false;
        }
        let mut sent = false;
        while let Some(vector) = pci.take_unmasked() {
            bus.interrupt(vector);
            sent = true;
        }
        sent |= self.release(registers, pci, bus, now);
        let fresh = self.causes & self.mask & !self.signalled;
        if fresh == 0 {
            return sent;
        }
        self.signalled |= fresh;
        for (bit, shift) in ROUTES {
            if fresh & bit == 0 {
                continue;
            }
            if let Some(vector) = routed(registers, shift) {
                sent |= self.send(vector, registers, pci, bus, now);
            }
            // The cause and its mask are cleared by the message, if EIAC says so (82583V
            // datasheet 7.4.3), also where the system has masked the vector.
            let cleared = bit & registers.get(offset::EIAC);
            self.causes &= !cleared;
            self.mask &= !cleared;
        }
        self.settle();
        sent
    }

    /// Sends `vector`, or keeps it until its interval has passed.
    fn send(
        &mut self,
        vector: u16,
        registers: &RegisterFile,
        pci: &mut ConfigSpace,
        bus: &mut dyn Bus,
        now: Instant,
    ) -> bool {
        let Some(next_allowed) = self.next_allowed.get_mut(usize::from(vector)) else {
            return false;
        };
        if now < *next_allowed {
            self.throttled |= 1 << vector;
            return false;
        }
        let interval = registers.get(offset::EITR + 4 * u32::from(vector)) & 0xffff;
        *next_allowed = now + Duration::from_nanos(u64::from(interval) * EITR_UNIT);
        if !pci.offer(vector) {
            return false;
        }
        bus.interrupt(vector);
        true
    }

    /// Sends the vectors whose interval has passed.
    fn release(
        &mut self,
        registers: &RegisterFile,
        pci: &mut ConfigSpace,
        bus: &mut dyn Bus,
        now: Instant,
    ) -> bool {
        let mut sent = false;
        for vector in 0..VECTORS {
            let ready = self.next_allowed.get(usize::from(vector)).copied() <= Some(now);
            if self.throttled & 1 << vector != 0 && ready {
                self.throttled &= !(1 << vector);
                sent |= self.send(vector, registers, pci, bus, now);
            }
        }
        sent
    }

    /// Sends a vector that some cause is routed to, without a cause.
    pub(super) fn fire_spurious(
        registers: &RegisterFile,
        pci: &mut ConfigSpace,
        bus: &mut dyn Bus,
        random: &mut Random,
    ) {
        let (_, shift) = ROUTES
            .get(random.below(ROUTES.len() as u64) as usize)
            .copied()
            .unwrap_or_default();
        if let Some(vector) = routed(registers, shift)
            && pci.has_msix()
            && pci.is_bus_master()
            && pci.offer(vector)
        {
            bus.interrupt(vector);
        }
    }
}

/// The vector of the entry of IVAR at `shift`; `None` if it is not valid.
fn routed(registers: &RegisterFile, shift: u32) -> Option<u16> {
    let entry = registers.get(offset::IVAR) >> shift;
    let vector = (entry & 0b111) as u16;
    (entry & 0b1000 != 0 && vector < VECTORS).then_some(vector)
}

/// Whether a valid entry of `ivar` names a vector that is not there.
pub(super) fn has_wrong_vector(ivar: u32) -> bool {
    ROUTES.iter().any(|(_, shift)| {
        let entry = ivar >> shift;
        entry & 0b1000 != 0 && (entry & 0b111) as u16 >= VECTORS
    })
}
