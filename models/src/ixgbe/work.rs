//! What the queues share for the time of a step.

use std::collections::VecDeque;

use super::bits::{ivar, offset, statistic};
use super::latitude::{Latitude, Rules};
use super::pace::{Deadline, Pace, Random};
use super::registers::RegisterFile;
use super::statistics::Counters;
use super::violations::Violations;
use crate::{Bus, Wire};

/// The rest of the device and its surroundings, as a queue sees it while it works.
pub(super) struct Work<'a> {
    pub(super) bus: &'a mut dyn Bus,
    pub(super) wire: &'a mut dyn Wire,
    pub(super) pace: Pace,
    pub(super) latitude: Latitude,
    pub(super) rules: Rules,
    pub(super) registers: &'a mut RegisterFile,
    pub(super) random: &'a mut Random,
    pub(super) violations: &'a mut Violations,
    pub(super) counters: &'a mut Counters,
    /// Frames that the MAC sends back to itself (HLREG0.LPBK).
    pub(super) looped: &'a mut VecDeque<Vec<u8>>,
    /// Transmit completions are held back.
    pub(super) hold: bool,
    /// Queues up to the last one that was ever switched on.
    pub(super) used: usize,
    /// Vectors whose cause is to be set when the step ends.
    pub(super) vectors: u64,
    /// Causes without a queue, likewise.
    pub(super) causes: u32,
}

impl Work<'_> {
    /// Sets the cause of a receive queue.
    pub(super) fn raise_receive(&mut self, queue: usize) {
        self.vectors |= self.vector(queue, 0);
    }

    /// Sets the cause of a transmit queue.
    pub(super) fn raise_transmit(&mut self, queue: usize) {
        self.vectors |= self.vector(queue, 1);
    }

    /// The vector of a queue as a bit; none if IVAR has no valid entry. A register has the receive
    /// and the transmit entry of an even queue, then those of the odd one (Linux ixgbe
    /// `ixgbe_set_ivar`).
    fn vector(&self, queue: usize, transmit: usize) -> u64 {
        let word = self.registers.get(offset::IVAR + (queue as u32 / 2) * 4);
        let entry = word.to_le_bytes().get(queue % 2 * 2 + transmit).copied();
        match entry {
            Some(entry) if entry & ivar::VALID != 0 => 1 << (entry & ivar::VECTOR),
            _ => 0,
        }
    }

    /// Counts a frame of `len` bytes with its check sequence in the counters of a transmit queue.
    pub(super) fn count_sent(&mut self, queue: usize, len: u64) {
        let set = self.registers.counter_set(offset::TQSM, queue);
        self.registers.count(statistic::QPTC + 4 * set);
        self.registers.add(statistic::QBTC + 8 * set, len);
    }

    /// Likewise, of a receive queue.
    pub(super) fn count_received(&mut self, queue: usize, len: u64) {
        let set = self.registers.counter_set(offset::RQSMR, queue) * statistic::RX_STRIDE;
        self.registers.count(statistic::QPRC + set);
        self.registers.add(statistic::QBRC + set, len);
    }

    /// Counts a frame that was dropped for want of descriptors.
    pub(super) fn count_dropped(&mut self, queue: usize) {
        let set = self.registers.counter_set(offset::RQSMR, queue) * statistic::RX_STRIDE;
        self.registers.count(statistic::QPRDC + set);
    }
}

/// The ENABLE bit of a queue: it reads as it is, which is not always as it was written.
#[derive(Debug, Default)]
pub(super) struct Enable {
    on: bool,
    pending: Option<(Deadline, bool)>,
    seen: bool,
}

impl Enable {
    /// It is written; it is so from `deadline` on.
    pub(super) fn request(&mut self, on: bool, deadline: Deadline) {
        let last = self.pending.map_or(self.on, |(_, on)| on);
        if last != on {
            self.pending = Some((deadline, on));
        }
    }

    /// Brings a change into force; whether the queue has just been disabled.
    pub(super) fn settle(&mut self, pace: &Pace) -> bool {
        let Some((deadline, on)) = self.pending else {
            return false;
        };
        if !deadline.has_passed(pace) {
            return false;
        }
        self.pending = None;
        let disabled = self.on && !on;
        self.on = on;
        self.seen &= on;
        disabled
    }

    /// The bit is read.
    pub(super) fn read(&mut self) -> bool {
        self.seen |= self.on;
        self.on
    }

    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// On, or on its way there.
    pub(super) fn is_wanted(&self) -> bool {
        self.pending.map_or(self.on, |(_, on)| on)
    }

    /// About to change.
    pub(super) fn is_changing(&self) -> bool {
        self.pending.is_some()
    }

    /// On, and staying so: whether work may be begun.
    pub(super) fn is_running(&self) -> bool {
        self.on && self.is_wanted()
    }

    /// The driver has read it as set since it was set.
    pub(super) fn was_seen(&self) -> bool {
        self.seen
    }
}
