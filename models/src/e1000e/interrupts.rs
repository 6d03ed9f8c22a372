//! Interrupt causes, masks, and which MSI-X vectors they fire.
//!
//! MSI-X and the interrupt pin are modelled, MSI is not. The pin is asserted as long as there is an
//! enabled cause and MSI-X is off (8254x SDM 13.4.17: ICR clears it); ITR does not delay it. The delay timers (RDTR, RADV, TIDV, TADV) store their values and delay nothing,
//! which a device without latitude would be free to do as well: they bound a delay.

use core::time::Duration;
use std::collections::VecDeque;

use pagewire_hal::Instant;

use super::bits::{cause, ctrl_ext, offset};
use super::pace::{Deadline, Pace, Random};
use super::pci::VECTORS;
use super::registers::RegisterFile;
use crate::Bus;
use crate::intel::pci::ConfigSpace;

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

/// Of this many messages one is late, by so many nanoseconds at most.
const LATE_ONE_IN: u64 = 4;
const LATEST: u64 = 500_000;

/// What sending a message takes.
pub(super) struct Sending<'a> {
    pub(super) registers: &'a RegisterFile,
    pub(super) pci: &'a mut ConfigSpace,
    pub(super) bus: &'a mut dyn Bus,
    pub(super) pace: &'a Pace,
    /// Messages may be late, and this says by how much.
    pub(super) late: Option<&'a mut Random>,
}

impl Sending<'_> {
    /// Sends a message, unless the vector is masked.
    fn send(&mut self, vector: u16) -> bool {
        let offered = self.pci.offer(vector);
        if offered {
            self.bus.interrupt(vector);
        }
        offered
    }

    /// How late the next message is.
    fn lateness(&mut self) -> Option<u64> {
        let random = self.late.as_mut()?;
        random.one_in(LATE_ONE_IN).then(|| random.below(LATEST))
    }
}

#[derive(Default)]
pub(super) struct Interrupts {
    causes: u32,
    mask: u32,
    /// Causes that are enabled and for which a message was sent.
    signalled: u32,
    /// Vectors that wait for their EITR interval to end.
    throttled: u32,
    next_allowed: [Instant; VECTORS as usize],
    /// Messages under way, and when they arrive.
    late: VecDeque<(Deadline, u16)>,
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

    /// Whether an interrupt is asserted: with MSI-X off, by the pin.
    pub(super) fn is_asserted(&self) -> bool {
        self.causes & self.mask != 0
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

    /// Sends what is due; returns whether anything was, or waits only for time.
    pub(super) fn fire(&mut self, sending: &mut Sending<'_>) -> bool {
        if !sending.pci.has_msix() || !sending.pci.is_bus_master() {
            return false;
        }
        let mut sent = false;
        while let Some(vector) = sending.pci.take_unmasked() {
            sending.bus.interrupt(vector);
            sent = true;
        }
        sent |= self.deliver(sending);
        sent |= self.release(sending);
        let fresh = self.causes & self.mask & !self.signalled;
        if fresh == 0 {
            return sent;
        }
        self.signalled |= fresh;
        for (bit, shift) in ROUTES {
            if fresh & bit == 0 {
                continue;
            }
            if let Some(vector) = routed(sending.registers, shift) {
                sent |= self.send(vector, sending);
            }
            // The cause and its mask are cleared by the message, if EIAC says so (82583V
            // datasheet 7.4.3), also where the system has masked the vector.
            let cleared = bit & sending.registers.get(offset::EIAC);
            self.causes &= !cleared;
            self.mask &= !cleared;
        }
        self.settle();
        sent
    }

    /// Sends `vector`, or keeps it until its interval has passed.
    fn send(&mut self, vector: u16, sending: &mut Sending<'_>) -> bool {
        let now = sending.pace.now;
        let Some(next_allowed) = self.next_allowed.get_mut(usize::from(vector)) else {
            return false;
        };
        if now < *next_allowed {
            self.throttled |= 1 << vector;
            return false;
        }
        let at = offset::EITR + 4 * u32::from(vector);
        let interval = sending.registers.get(at) & 0xffff;
        *next_allowed = now + Duration::from_nanos(u64::from(interval) * EITR_UNIT);
        if let Some(nanos) = sending.lateness() {
            let deadline = Deadline::after(sending.pace, nanos);
            self.late.push_back((deadline, vector));
            return true;
        }
        sending.send(vector)
    }

    /// Sends the messages that were late; whether any was, or still is.
    fn deliver(&mut self, sending: &mut Sending<'_>) -> bool {
        let busy = !self.late.is_empty();
        self.late.retain(|(deadline, vector)| {
            let due = deadline.has_passed(sending.pace);
            if due {
                sending.send(*vector);
            }
            !due
        });
        busy
    }

    /// Sends the vectors whose interval has passed.
    fn release(&mut self, sending: &mut Sending<'_>) -> bool {
        let mut sent = false;
        for vector in 0..VECTORS {
            let next_allowed = self.next_allowed.get(usize::from(vector)).copied();
            let ready = next_allowed <= Some(sending.pace.now);
            if self.throttled & 1 << vector != 0 && ready {
                self.throttled &= !(1 << vector);
                sent |= self.send(vector, sending);
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
