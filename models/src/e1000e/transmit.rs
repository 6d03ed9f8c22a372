//! A transmit queue: doorbells, descriptor fetch, write-back.

use std::collections::VecDeque;

use super::assembly::{Assembly, Place};
use super::bits::{DD, DESCRIPTOR, cause, command, offset, offset::ring, tarc, tctl, txdctl};
use super::offload::Context;
use super::pace::Deadline;
use super::registers::Ring;
use super::tx_descriptor::{Format, TxDescriptor};
use super::violations::Violations;
use super::work::Work;
use super::write_back::WriteBack;
use crate::intel::engine::{Gate, distance};

/// Descriptors fetched at once.
const FETCH: usize = 64;
/// With `Latitude::partial_progress`, most descriptors handled in one step.
const LARGEST_STEP: u64 = 96;
/// TIDV counts in units of 1.024 µs (8254x SDM 13.4.41).
const TIDV_UNIT: u64 = 1024;

#[derive(Debug)]
pub(super) struct TxQueue {
    number: usize,
    /// Next descriptor to handle.
    head: u32,
    /// Next descriptor to fetch.
    fetched: u32,
    tail: u32,
    /// First descriptor that the driver cannot know to be done.
    unreported: u32,
    /// Descriptors fetched and not handled.
    cache: [u8; FETCH * DESCRIPTOR as usize],
    cached: usize,
    used: usize,
    /// Tails that were written and not reached.
    doorbells: VecDeque<u32>,
    assembly: Assembly,
    /// The last frame asked for a write-back; true before the first one.
    last_frame_asked: bool,
    write_back: WriteBack,
    /// When write-backs that wait for WTHRESH are flushed, if a descriptor had IDE.
    timer: Option<Deadline>,
    /// TIDV.FPD was written.
    flush_asked: bool,
    /// A descriptor could not be fetched: nothing more until a reset.
    halted: bool,
}

impl TxQueue {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            head: 0,
            fetched: 0,
            tail: 0,
            unreported: 0,
            cache: [0; FETCH * DESCRIPTOR as usize],
            cached: 0,
            used: 0,
            doorbells: VecDeque::new(),
            assembly: Assembly::default(),
            last_frame_asked: true,
            write_back: WriteBack::default(),
            timer: None,
            flush_asked: false,
            halted: false,
        }
    }

    /// Forgets everything; what was allocated stays for later.
    pub(super) fn reset(&mut self) {
        self.set_head(0);
        self.tail = 0;
        self.last_frame_asked = true;
        self.write_back.clear();
        self.timer = None;
        self.flush_asked = false;
        self.halted = false;
    }

    /// TDH is written: what was fetched and not sent is forgotten. Write-backs under way are not
    /// (nothing says that disabling the unit stops them).
    pub(super) fn set_head(&mut self, head: u32) {
        self.doorbells.clear();
        self.assembly.abandon();
        self.head = head;
        self.fetched = head;
        self.unreported = head;
        self.cached = 0;
        self.used = 0;
    }

    /// What TDH reads.
    pub(super) fn head(&self, runs_ahead: bool) -> u32 {
        if runs_ahead { self.fetched } else { self.head }
    }

    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// Whether a frame is partly fetched.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.assembly.open
    }

    pub(super) fn flush_partial_blocks(&mut self) {
        self.flush_asked = true;
    }

    /// TDT is written, with the ring of `entries` descriptors `enabled` or not.
    pub(super) fn ring_doorbell(
        &mut self,
        value: u32,
        entries: u32,
        enabled: bool,
        violations: &mut Violations,
    ) {
        let queue = self.number;
        if value >= entries && value != 0 {
            violations.report(format!(
                "transmit queue {queue}: tail {value} in a ring of {entries}; ignored"
            ));
            return;
        }
        if !enabled {
            if value != self.head && value != 0 {
                violations.report(format!(
                    "transmit queue {queue}: tail {value} while transmit is disabled (head {})",
                    self.head
                ));
            }
            self.tail = value;
            return;
        }
        if value == self.tail {
            return;
        }
        let before = distance(self.unreported, self.tail, entries);
        let after = distance(self.unreported, value, entries);
        if after < before {
            violations.report(format!(
                "transmit queue {queue}: tail {value} after {}: it went back, or past descriptor \
                 {}, the first that is not known to be done",
                self.tail, self.unreported
            ));
        }
        self.tail = value;
        self.doorbells.push_back(value);
    }

    /// Does a step's work; returns whether there was any.
    pub(super) fn step(
        &mut self,
        gate: Gate,
        link: bool,
        context: &mut Option<Context>,
        work: &mut Work<'_>,
    ) -> bool {
        if gate == Gate::Closed {
            return false;
        }
        let (base, entries) = work.registers.ring(Ring::Transmit(self.number));
        let tarc = if self.number == 0 {
            offset::TARC0
        } else {
            offset::TARC1
        };
        let enabled = work.registers.get(offset::TCTL) & tctl::EN != 0
            && work.registers.get(tarc) & tarc::ENABLE != 0
            && entries > 0;
        let mut busy = false;
        let link = link || work.latitude.qemu.sends_without_link;
        if enabled && link && !self.halted {
            let mut budget = if work.latitude.partial_progress {
                1 + work.random.below(LARGEST_STEP)
            } else {
                u64::MAX
            };
            while budget > 0 && (gate == Gate::Open || self.assembly.open) {
                if self.used == self.cached && !self.fetch(base, entries, work) {
                    break;
                }
                self.handle_next(entries, context, work);
                budget -= 1;
                busy = true;
            }
            if busy && self.head == self.tail {
                work.causes |= cause::TXQE;
            }
        }
        busy | self.flush(base, work)
    }

    /// Fills the cache with descriptors before the tail; false if there are none. Hardware never
    /// fetches beyond the tail (82583V datasheet 7.2.4.1).
    fn fetch(&mut self, base: u64, entries: u32, work: &mut Work<'_>) -> bool {
        let until = if self.tail >= self.fetched {
            self.tail
        } else {
            entries
        };
        let count = (until.saturating_sub(self.fetched) as usize).min(FETCH);
        // A tail beyond the ring (its length was changed later) is never reached.
        if count == 0 || self.tail >= entries {
            return false;
        }
        let address = base.wrapping_add(u64::from(self.fetched * DESCRIPTOR));
        let target = self.cache.get_mut(..count * DESCRIPTOR as usize);
        if let Err(fault) = work.bus.read(address, target.unwrap_or_default()) {
            let (queue, index) = (self.number, self.fetched);
            work.violations.report(format!(
                "transmit queue {queue}: descriptor {index} cannot be fetched, nothing to read at \
                 {:#x}; the queue stops",
                fault.address
            ));
            self.halted = true;
            return false;
        }
        self.used = 0;
        self.cached = count;
        self.fetched += count as u32;
        if self.fetched >= entries {
            self.fetched = 0;
        }
        true
    }

    fn handle_next(&mut self, entries: u32, context: &mut Option<Context>, work: &mut Work<'_>) {
        let (descriptors, _) = self.cache.as_chunks::<{ DESCRIPTOR as usize }>();
        let raw = descriptors.get(self.used).copied().unwrap_or_default();
        self.used += 1;
        let place = Place {
            queue: self.number,
            index: self.head,
        };
        self.head += 1;
        if self.head >= entries {
            self.head = 0;
        }
        let descriptor = TxDescriptor::parse(raw);
        match descriptor.format {
            Format::Context => {
                if self.assembly.open {
                    work.report_transmit(place, &raw, "a context descriptor inside a frame");
                }
                if descriptor.status != 0 || descriptor.has(command::RESERVED) {
                    work.report_transmit(place, &raw, "a reserved or status bit is set");
                }
                *context = Some(Context::parse(&raw));
            }
            Format::Unknown => work.report_transmit(place, &raw, "an unknown DTYP"),
            Format::Legacy | Format::Data => {
                self.assembly.take(descriptor, place, *context, work);
                if !self.assembly.open {
                    self.last_frame_asked = descriptor.has(command::RS);
                }
            }
        }
        self.complete(&descriptor, place, work);
        self.check_doorbell(place, &raw, work);
    }

    /// Queues the write-back of a descriptor that asks for one.
    fn complete(&mut self, descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) {
        let asked = descriptor.has(command::RS);
        let unasked = work.latitude.unasked_write_back && work.random.one_in(16);
        if !asked && !unasked {
            return;
        }
        let causes = match (asked, self.number) {
            (false, _) => 0,
            (true, 0) => work.write_back_causes(cause::TXQ0, cause::TXDW),
            (true, _) => work.write_back_causes(cause::TXQ1, cause::TXDW),
        };
        // Only the status byte is written (82583V datasheet 7.2.4.2).
        let status = [descriptor.status | DD];
        self.write_back.push(place.index, 12, &status, causes, work);
        if descriptor.has(command::IDE) {
            let nanos = u64::from(work.registers.get(offset::TIDV) & 0xffff) * TIDV_UNIT;
            self.timer = Some(Deadline::after(&work.pace, nanos));
        }
        if work.latitude.early_interrupts && work.random.one_in(8) {
            work.causes |= causes;
        }
    }

    /// Judges the doorbells that end behind the descriptor at `place`.
    fn check_doorbell(&mut self, place: Place, raw: &[u8; 16], work: &mut Work<'_>) {
        if self.doorbells.front() != Some(&self.head) {
            return;
        }
        self.doorbells.pop_front();
        if self.assembly.open {
            work.report_transmit(place, raw, "the tail was put into the middle of a frame");
        } else if !self.last_frame_asked {
            let text = "no completion asked for on the last frame before a doorbell \
                        (rule 2 of the design)";
            work.report_transmit(place, raw, text);
        }
    }

    /// Writes back what is due; whether anything was, or waits only for time.
    fn flush(&mut self, base: u64, work: &mut Work<'_>) -> bool {
        if work.hold || self.write_back.len() == 0 || !self.reaches_threshold(work) {
            return false;
        }
        let flushed = self.write_back.flush(base, "transmit", work);
        work.counters.write_backs += flushed.count;
        if let Some(last) = flushed.last {
            let (_, entries) = work.registers.ring(Ring::Transmit(self.number));
            self.unreported = if last + 1 >= entries { 0 } else { last + 1 };
        }
        if self.write_back.len() == 0 {
            self.timer = None;
            self.flush_asked = false;
        }
        flushed.last.is_some() || flushed.waits
    }

    /// WTHRESH: below it write-backs wait for more, for TIDV (if a descriptor had IDE) or for a
    /// flush (TIDV.FPD). 0 and 1 write at once. Without GRAN it counts cache lines of 64 bytes,
    /// four descriptors; the datasheet excerpts at hand do not name the size of a line.
    fn reaches_threshold(&self, work: &Work<'_>) -> bool {
        let control = Ring::Transmit(self.number).base() + ring::CONTROL;
        let control = work.registers.get(control);
        let threshold = control >> txdctl::WTHRESH_SHIFT & txdctl::WTHRESH_MASK;
        let unit = if control & txdctl::GRAN != 0 { 1 } else { 4 };
        threshold <= 1
            || self.write_back.len() >= (threshold * unit) as usize
            || self.flush_asked
            || self.timer.is_some_and(|timer| timer.has_passed(&work.pace))
    }
}
