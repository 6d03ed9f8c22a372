//! Interrupt causes, masks, and the MSI-X vectors that they fire.
//!
//! Only MSI-X is modelled: with it off in configuration space, causes are collected and nothing
//! is sent. A queue's cause *is* its vector: the bits RTxQ of EICR and EIMS are vectors 0 to 15,
//! EIMS_EX has all 64. Without GPIE.Multiple_MSIX there is one message for all causes of EICR, that of
//! vector 0. Not modelled: low latency interrupts, EITR's counter, the TCP timer.

use core::time::Duration;
use std::collections::VecDeque;

use pagewire_hal::Instant;

use super::bits::{cause, gpie, ivar, offset};
use super::pace::{Deadline, Pace, Random};
use super::pci::VECTORS;
use super::registers::RegisterFile;
use crate::Bus;
use crate::intel::pci::ConfigSpace;

/// EITR, bits 3 to 11, counts in units of 2.048 µs at 1 and 10 Gb/s (X550 datasheet 8.2.2.6.4).
const EITR_UNIT: u64 = 2048;

/// Of this many messages one is late, by so many nanoseconds at most.
const LATE_ONE_IN: u64 = 4;
const LATEST: u64 = 500_000;

/// What sending messages takes.
pub(super) struct Sending<'a> {
    pub(super) registers: &'a RegisterFile,
    pub(super) pci: &'a mut ConfigSpace,
    pub(super) bus: &'a mut dyn Bus,
    pub(super) pace: &'a Pace,
    pub(super) random: &'a mut Random,
    /// Messages may be late.
    pub(super) late: bool,
    /// Messages sent.
    pub(super) sent: u64,
}

impl Sending<'_> {
    /// Sends a message, unless the vector is masked.
    fn send(&mut self, vector: u16) {
        if self.pci.offer(vector) {
            self.bus.interrupt(vector);
            self.sent += 1;
        }
    }
}

pub(super) struct Interrupts {
    /// Causes of queues, by vector.
    vectors: u64,
    /// EIMS_EX.
    mask: u64,
    /// EIAM_EX.
    auto_mask: u64,
    /// Vectors whose cause is there and for which a message was sent.
    signalled: u64,
    /// Causes without a queue, and the same about them.
    others: u32,
    others_mask: u32,
    others_auto_mask: u32,
    others_signalled: u32,
    next_allowed: [Instant; VECTORS as usize],
    /// Messages under way, and when they arrive.
    late: VecDeque<(Deadline, u16)>,
}

/// The vectors that are bits of EICR.
const LOW: u64 = cause::QUEUES as u64;

impl Interrupts {
    pub(super) fn new() -> Self {
        Self {
            vectors: 0,
            mask: 0,
            auto_mask: 0,
            signalled: 0,
            others: 0,
            others_mask: 0,
            others_auto_mask: 0,
            others_signalled: 0,
            next_allowed: [Instant::from_nanos(0); VECTORS as usize],
            late: VecDeque::new(),
        }
    }

    /// Sets the causes of queues. A cause that is set again is a new one.
    pub(super) fn raise_vectors(&mut self, vectors: u64) {
        self.vectors |= vectors;
    }

    /// Sets causes without a queue.
    pub(super) fn raise(&mut self, causes: u32) {
        self.others |= causes & cause::OTHERS;
    }

    /// Writes EICS.
    pub(super) fn set(&mut self, bits: u32) {
        self.raise_vectors(u64::from(bits) & LOW);
        self.raise(bits);
    }

    /// EICR without clearing it. (EICS reads so: Linux ixgbe works around an erratum of the
    /// clearing read that way.)
    pub(super) fn peek(&self) -> u32 {
        (self.vectors & LOW) as u32 | self.others
    }

    /// Reads EICR: it is cleared, with GPIE.OCD only the causes without a queue; without
    /// GPIE.EIAME what EIAM says is masked.
    pub(super) fn read(&mut self, registers: &RegisterFile) -> u32 {
        let value = self.peek();
        let control = registers.get(offset::GPIE);
        if control & gpie::EIAME == 0 {
            self.mask &= !(self.auto_mask & LOW & self.vectors);
            self.others_mask &= !(self.others_auto_mask & self.others);
        }
        if control & gpie::OCD == 0 {
            self.vectors &= !LOW;
        }
        self.others = 0;
        self.settle();
        value
    }

    /// Writes EICR: ones clear.
    pub(super) fn acknowledge(&mut self, bits: u32) {
        self.vectors &= !(u64::from(bits) & LOW);
        self.others &= !bits;
        self.settle();
    }

    /// What EIMS reads.
    pub(super) fn mask(&self) -> u32 {
        (self.mask & LOW) as u32 | self.others_mask
    }

    /// What EIMS_EX reads.
    pub(super) fn mask_half(&self, half: u32) -> u32 {
        (self.mask >> (half * 32)) as u32
    }

    /// Writes EIMS.
    pub(super) fn enable(&mut self, bits: u32) {
        self.mask |= u64::from(bits) & LOW;
        self.others_mask |= bits & cause::OTHERS;
    }

    /// Writes EIMC.
    pub(super) fn disable(&mut self, bits: u32) {
        self.mask &= !(u64::from(bits) & LOW);
        self.others_mask &= !bits;
        self.settle();
    }

    /// Writes EIMS_EX, EIMC_EX or EICS_EX.
    pub(super) fn enable_half(&mut self, half: u32, bits: u32) {
        self.mask |= u64::from(bits) << (half * 32);
    }

    pub(super) fn disable_half(&mut self, half: u32, bits: u32) {
        self.mask &= !(u64::from(bits) << (half * 32));
        self.settle();
    }

    pub(super) fn set_half(&mut self, half: u32, bits: u32) {
        self.raise_vectors(u64::from(bits) << (half * 32));
    }

    /// Writes EIAM, EIAM_EX.
    pub(super) fn set_auto_mask(&mut self, bits: u32) {
        self.auto_mask = self.auto_mask & !LOW | u64::from(bits) & LOW;
        self.others_auto_mask = bits & cause::OTHERS;
    }

    pub(super) fn set_auto_mask_half(&mut self, half: u32, bits: u32) {
        let field = u64::from(u32::MAX) << (half * 32);
        self.auto_mask = self.auto_mask & !field | u64::from(bits) << (half * 32);
    }

    /// What EIAM and EIAM_EX read.
    pub(super) fn auto_mask(&self) -> u32 {
        (self.auto_mask & LOW) as u32 | self.others_auto_mask
    }

    pub(super) fn auto_mask_half(&self, half: u32) -> u32 {
        (self.auto_mask >> (half * 32)) as u32
    }

    /// A cause that is gone or masked may fire again.
    fn settle(&mut self) {
        self.signalled &= self.vectors & self.mask;
        self.others_signalled &= self.others & self.others_mask;
    }

    /// Sends what is due; returns whether anything was, or waits only for a short time.
    pub(super) fn fire(&mut self, sending: &mut Sending<'_>) -> bool {
        if !sending.pci.has_msix() || !sending.pci.is_bus_master() {
            return false;
        }
        let before = sending.sent;
        while let Some(vector) = sending.pci.take_unmasked() {
            sending.bus.interrupt(vector);
            sending.sent += 1;
        }
        let late = !self.late.is_empty();
        self.deliver(sending);
        if sending.registers.get(offset::GPIE) & gpie::MSIX == 0 {
            self.fire_single(sending);
            return late || sending.sent != before;
        }
        let mut fresh = self.vectors & self.mask & !self.signalled;
        while fresh != 0 {
            let vector = fresh.trailing_zeros() as u16;
            fresh &= fresh - 1;
            if self.send(vector, sending) {
                self.vector_sent(vector, sending.registers);
            }
        }
        self.fire_others(sending);
        late || sending.sent != before
    }

    /// The message of `vector` is sent: EIAC clears its cause, EIAM its mask.
    fn vector_sent(&mut self, vector: u16, registers: &RegisterFile) {
        let bit = 1u64 << vector;
        self.signalled |= bit;
        // EIAC has vectors 0 to 15. The others have no bit that software could clear, so their
        // cause goes with the message; the sources at hand do not say it.
        if u64::from(registers.get(offset::EIAC)) & bit & LOW != 0 || bit & LOW == 0 {
            self.vectors &= !bit;
        }
        if registers.get(offset::GPIE) & gpie::EIAME != 0 {
            self.mask &= !(bit & self.auto_mask);
        }
        self.settle();
    }

    /// Sends vector 0 for whatever is new in EICR. EIAC is not for this mode: the driver reads EICR.
    fn fire_single(&mut self, sending: &mut Sending<'_>) {
        let queues = self.vectors & self.mask & LOW & !self.signalled;
        let others = self.others & self.others_mask & !self.others_signalled;
        if queues == 0 && others == 0 || !self.send(0, sending) {
            return;
        }
        self.signalled |= queues;
        self.others_signalled |= others;
        if sending.registers.get(offset::GPIE) & gpie::EIAME != 0 {
            self.mask &= !(queues & self.auto_mask);
            self.others_mask &= !(others & self.others_auto_mask);
        }
        self.settle();
    }

    fn fire_others(&mut self, sending: &mut Sending<'_>) {
        let fresh = self.others & self.others_mask & !self.others_signalled;
        // The second entry of IVAR_MISC is for all of them.
        let entry = sending.registers.get(offset::IVAR_MISC).to_le_bytes()[1];
        if fresh == 0 || entry & ivar::VALID == 0 {
            return;
        }
        if !self.send(u16::from(entry & ivar::VECTOR), sending) {
            return;
        }
        self.others_signalled |= fresh;
        self.others &= !(fresh & sending.registers.get(offset::EIAC));
        if sending.registers.get(offset::GPIE) & gpie::EIAME != 0 {
            self.others_mask &= !(fresh & self.others_auto_mask);
        }
        self.settle();
    }

    /// Sends `vector`, unless its interval has not passed.
    fn send(&mut self, vector: u16, sending: &mut Sending<'_>) -> bool {
        let now = sending.pace.now;
        let Some(next_allowed) = self.next_allowed.get_mut(usize::from(vector)) else {
            return false;
        };
        if now < *next_allowed {
            return false;
        }
        let at = match u32::from(vector) {
            low @ 0..24 => offset::EITR + 4 * low,
            high => offset::EITR_HIGH + 4 * (high - 24),
        };
        let interval = u64::from(sending.registers.get(at) >> 3 & 0x1ff);
        *next_allowed = now + Duration::from_nanos(interval * EITR_UNIT);
        if sending.late && sending.random.one_in(LATE_ONE_IN) {
            let deadline = Deadline::after(sending.pace, sending.random.below(LATEST));
            self.late.push_back((deadline, vector));
        } else {
            sending.send(vector);
        }
        true
    }

    /// Sends the messages that were late.
    fn deliver(&mut self, sending: &mut Sending<'_>) {
        self.late.retain(|(deadline, vector)| {
            let due = deadline.has_passed(sending.pace);
            if due {
                sending.send(*vector);
            }
            !due
        });
    }

    /// Sends a vector that some queue is routed to, without a cause.
    pub(super) fn fire_spurious(sending: &mut Sending<'_>) {
        let at = offset::IVAR + 4 * sending.random.below(8) as u32;
        let entry = sending.registers.get(at).to_le_bytes()[sending.random.below(4) as usize];
        if entry & ivar::VALID != 0 && sending.pci.has_msix() && sending.pci.is_bus_master() {
            let is_single = sending.registers.get(offset::GPIE) & gpie::MSIX == 0;
            let vector = if is_single { 0 } else { entry & ivar::VECTOR };
            sending.send(u16::from(vector));
        }
    }
}
