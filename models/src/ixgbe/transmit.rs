//! A transmit queue: doorbells, descriptor fetch, write-back.

use std::collections::VecDeque;

use super::assembly::{Assembly, Place};
use super::bits::{DESCRIPTOR, HEAD_WRITE_BACK, command, dctl, offset::ring, option};
use super::descriptor::{Context, Format, TxDescriptor};
use super::pace::Deadline;
use super::registers::Ring;
use super::violations::Violations;
use super::work::{Enable, Work};
use super::write_back::WriteBack;
use crate::intel::engine::{Gate, distance};

/// Descriptors fetched at once.
const FETCH: usize = 64;
/// With `Latitude::partial_progress`, most descriptors handled in one step.
const LARGEST_STEP: u64 = 96;
/// With WTHRESH, write-backs that are too few wait this long: the expiration of EITR flushes them
/// (X550 datasheet 7.2.3.5); a fixed time stands for it.
const THRESHOLD_WAIT: u64 = 20_000;
/// RS at least once in so many descriptors (82599 datasheet 8.2.3.9.10).
const LONGEST_SILENCE: u32 = 40;

pub(super) struct TxQueue {
    number: usize,
    pub(super) enable: Enable,
    /// Next descriptor to handle.
    head: u32,
    /// Next descriptor to fetch.
    fetched: u32,
    tail: u32,
    /// First descriptor that the driver cannot know to be done.
    unreported: u32,
    /// Descriptors fetched and not handled.
    cache: VecDeque<[u8; 16]>,
    /// Tails that were written and not reached.
    doorbells: VecDeque<u32>,
    assembly: Assembly,
    contexts: [Option<Context>; 2],
    /// The last frame asked for a write-back; true before the first one.
    last_frame_asked: bool,
    /// Descriptors since one with RS.
    silence: u32,
    write_back: WriteBack,
    /// When write-backs that wait for WTHRESH are flushed.
    timer: Option<Deadline>,
    flush_asked: bool,
    /// A descriptor could not be fetched: nothing more until a reset.
    halted: bool,
}

impl TxQueue {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            enable: Enable::default(),
            head: 0,
            fetched: 0,
            tail: 0,
            unreported: 0,
            cache: VecDeque::new(),
            doorbells: VecDeque::new(),
            assembly: Assembly::default(),
            contexts: [None; 2],
            last_frame_asked: true,
            silence: 0,
            write_back: WriteBack::default(),
            timer: None,
            flush_asked: false,
            halted: false,
        }
    }

    /// Forgets everything; what was allocated stays for later.
    pub(super) fn reset(&mut self) {
        self.set_head(0);
        self.enable = Enable::default();
        self.tail = 0;
        self.write_back.clear();
        self.timer = None;
        self.flush_asked = false;
        self.halted = false;
    }

    /// The queue was disabled: what was fetched and not sent is forgotten, and so are the
    /// contexts (nothing says that they are kept). The ring is not touched any more.
    pub(super) fn stop(&mut self) {
        self.write_back.clear();
        self.set_head(self.head);
        self.tail = self.head;
    }

    /// TDH is written.
    pub(super) fn set_head(&mut self, head: u32) {
        self.doorbells.clear();
        self.assembly.abandon();
        self.contexts = [None; 2];
        self.last_frame_asked = true;
        self.silence = 0;
        self.head = head;
        self.fetched = head;
        self.unreported = head;
        self.cache.clear();
    }

    /// What TDH reads.
    pub(super) fn head(&self, runs_ahead: bool) -> u32 {
        if runs_ahead { self.fetched } else { self.head }
    }

    pub(super) fn tail(&self) -> u32 {
        self.tail
    }

    /// The tail is written while the queue is off and the device is stopped.
    pub(super) fn keep_tail(&mut self, value: u32) {
        self.tail = value;
    }

    /// Whether a frame is partly fetched.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.assembly.open
    }

    /// TXDCTL.SWFLSH.
    pub(super) fn flush_asked(&mut self) {
        self.flush_asked = true;
    }

    /// Whether there is nothing to do, at a glance.
    pub(super) fn is_idle(&self) -> bool {
        self.fetched == self.tail && self.cache.is_empty() && self.write_back.len() == 0
    }

    /// TDT is written; whether it moved.
    pub(super) fn ring_doorbell(
        &mut self,
        value: u32,
        entries: u32,
        violations: &mut Violations,
    ) -> bool {
        let queue = self.number;
        if value >= entries && value != 0 {
            violations.report(format!(
                "transmit queue {queue}: tail {value} in a ring of {entries}; ignored"
            ));
            return false;
        }
        if !self.enable.is_running() {
            if value != self.head && value != 0 {
                violations.report(format!(
                    "transmit queue {queue}: tail {value} while it is disabled (head {})",
                    self.head
                ));
            }
            self.tail = value;
            return false;
        }
        if value == self.tail {
            return false;
        }
        if !self.enable.was_seen() {
            violations.report(format!(
                "transmit queue {queue}: tail {value} before TXDCTL.ENABLE was read as set"
            ));
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
        true
    }

    /// Does a step's work; returns whether there was any. `sends`: the transmitter is enabled
    /// and there is a link.
    pub(super) fn step(&mut self, gate: Gate, sends: bool, work: &mut Work<'_>) -> bool {
        if gate == Gate::Closed || self.is_idle() {
            return false;
        }
        let (base, entries) = work.registers.ring(Ring::Transmit(self.number));
        let mut busy = false;
        if sends && self.enable.is_on() && entries > 0 && !self.halted {
            let mut budget = if work.latitude.partial_progress {
                1 + work.random.below(LARGEST_STEP)
            } else {
                u64::MAX
            };
            let begins = gate == Gate::Open && self.enable.is_running();
            while budget > 0 && (begins || self.assembly.open) {
                if self.cache.is_empty() {
                    self.fetch(base, entries, work);
                }
                let Some(raw) = self.cache.pop_front() else {
                    break;
                };
                self.handle(raw, entries, work);
                budget -= 1;
                busy = true;
            }
        }
        busy | self.flush(base, entries, work)
    }

    /// Fills the cache with descriptors before the tail. Hardware never fetches beyond it.
    fn fetch(&mut self, base: u64, entries: u32, work: &mut Work<'_>) {
        let until = if self.tail >= self.fetched {
            self.tail
        } else {
            entries
        };
        let count = (until.saturating_sub(self.fetched) as usize).min(FETCH);
        // A tail beyond the ring (its length was changed later) is never reached.
        if count == 0 || self.tail >= entries {
            return;
        }
        let mut bytes = [0; FETCH * DESCRIPTOR as usize];
        let address = base.wrapping_add(u64::from(self.fetched * DESCRIPTOR));
        let target = bytes.get_mut(..count * DESCRIPTOR as usize);
        let target = target.unwrap_or_default();
        if let Err(fault) = work.bus.read(address, target) {
            let (queue, index) = (self.number, self.fetched);
            work.violations.report(format!(
                "transmit queue {queue}: descriptor {index} cannot be fetched, nothing to read at \
                 {:#x}; the queue stops",
                fault.address
            ));
            self.halted = true;
            return;
        }
        let (descriptors, _) = bytes.as_chunks::<{ DESCRIPTOR as usize }>();
        self.cache.extend(descriptors.iter().take(count));
        self.fetched += count as u32;
        if self.fetched >= entries {
            self.fetched = 0;
        }
    }

    fn handle(&mut self, raw: [u8; 16], entries: u32, work: &mut Work<'_>) {
        let place = Place {
            queue: self.number,
            index: self.head,
        };
        self.head += 1;
        if self.head >= entries {
            self.head = 0;
        }
        let descriptor = TxDescriptor::parse(raw);
        match descriptor.format() {
            Format::Context => self.take_context(&descriptor, place, work),
            Format::Unknown => work.report_transmit(place, &raw, "an unknown DTYP"),
            Format::Legacy => {
                work.report_transmit(place, &raw, "legacy descriptors are not modelled");
            }
            Format::Data => {
                self.judge_report(&descriptor, place, work);
                self.assembly.take(descriptor, place, &self.contexts, work);
                if !self.assembly.open {
                    self.last_frame_asked = descriptor.has(command::RS);
                }
                self.complete(&descriptor, place, work);
            }
        }
        self.check_doorbell(place, &raw, work);
    }

    fn take_context(&mut self, descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) {
        if self.assembly.open {
            let text = "a context descriptor inside a frame";
            work.report_transmit(place, &descriptor.raw, text);
        }
        if let Some(misuse) = Context::misuse(descriptor) {
            work.report_transmit(place, &descriptor.raw, misuse);
        }
        work.counters.contexts += 1;
        let context = Some(Context::parse(descriptor));
        if let Some(slot) = self.contexts.get_mut(descriptor.slot()) {
            work.counters.contexts_repeated += u64::from(*slot == context);
            *slot = context;
        }
    }

    /// WTHRESH of the queue.
    fn threshold(&self, work: &Work<'_>) -> u32 {
        let at = Ring::Transmit(self.number).base() + ring::CONTROL;
        work.registers.get(at) >> dctl::WTHRESH_SHIFT & dctl::PTHRESH
    }

    /// The rules for RS (82599 datasheet 8.2.3.9.10).
    fn judge_report(&mut self, descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) {
        let (ends, asks) = (descriptor.has(command::EOP), descriptor.has(command::RS));
        self.silence = if asks { 0 } else { self.silence + 1 };
        let threshold = self.threshold(work);
        let fault = if asks && !ends {
            "RS without EOP"
        } else if asks && threshold > 0 && work.rules.beyond_linux {
            "RS, and WTHRESH is not zero"
        } else if threshold == 0 && ends && !asks && work.rules.every_frame_reports {
            "no RS on the last descriptor of a frame, and WTHRESH is zero"
        } else if threshold == 0 && ends && self.silence >= 2 * LONGEST_SILENCE {
            // RS belongs to a last descriptor, and a frame may have 38: so it can be late by one.
            self.silence = 0;
            "no RS in 80 descriptors, and WTHRESH is zero"
        } else {
            return;
        };
        work.report_transmit(place, &descriptor.raw, fault);
    }

    /// Queues the write-back of a descriptor that is done: those with RS, and with WTHRESH the
    /// last one of every frame.
    fn complete(&mut self, descriptor: &TxDescriptor, place: Place, work: &mut Work<'_>) {
        let threshold = self.threshold(work);
        let asked = descriptor.has(command::RS);
        if !asked && (threshold == 0 || !descriptor.has(command::EOP)) {
            return;
        }
        let mut bytes = descriptor.raw;
        if work.latitude.write_back_clobbers {
            let (words, _) = bytes.as_chunks_mut::<8>();
            for word in words {
                *word = work.random.next().to_le_bytes();
            }
        }
        let [.., a, b, c, d] = &mut bytes;
        [*a, *b, *c, *d] = option::DD.to_le_bytes();
        self.write_back.push(place.index, bytes, work);
        if threshold > 0 && self.timer.is_none() {
            self.timer = Some(Deadline::after(&work.pace, THRESHOLD_WAIT));
        }
        if work.latitude.early_interrupts && work.random.one_in(8) {
            work.raise_transmit(self.number);
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
        } else if !self.last_frame_asked && self.threshold(work) == 0 && work.rules.beyond_dpdk {
            let text = "no completion asked for on the last frame before a doorbell \
                        (rule 2 of the design)";
            work.report_transmit(place, raw, text);
        }
    }

    /// Writes back what is due; whether anything was, or waits only for time.
    fn flush(&mut self, base: u64, entries: u32, work: &mut Work<'_>) -> bool {
        if work.hold || self.write_back.len() == 0 {
            return false;
        }
        let threshold = self.threshold(work) as usize;
        let flushes = threshold == 0
            || self.write_back.len() >= threshold
            || self.flush_asked
            || self.timer.is_some_and(|timer| timer.has_passed(&work.pace));
        if !flushes {
            return true;
        }
        let at = Ring::Transmit(self.number).base();
        let low = work.registers.get(at + ring::HEAD_LOW);
        let mut done = 0;
        while let Some(next) = self.write_back.next(&mut done, work) {
            let behind = if next.index + 1 >= entries {
                0
            } else {
                next.index + 1
            };
            let written = if low & HEAD_WRITE_BACK != 0 {
                let high = u64::from(work.registers.get(at + ring::HEAD_HIGH));
                let place = high << 32 | u64::from(low & !0b11);
                work.bus.write(place, &behind.to_le_bytes())
            } else {
                let place = base.wrapping_add(u64::from(next.index * DESCRIPTOR));
                work.bus.write(place, &next.bytes)
            };
            if let Err(fault) = written {
                let (queue, index) = (self.number, next.index);
                work.violations.report(format!(
                    "transmit queue {queue}, descriptor {index}: its write-back to {:#x} is \
                     outside every mapping",
                    fault.address
                ));
            }
            work.raise_transmit(self.number);
            work.counters.write_backs += 1;
            self.unreported = behind;
        }
        if self.write_back.len() == 0 {
            self.timer = None;
            self.flush_asked = false;
        }
        true
    }
}
