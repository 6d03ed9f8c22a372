//! The receive queue: descriptor fetch, storing frames, write-back.
//!
//! Queue 1 is reached by receive side scaling only, which is not modelled: its registers store.

use std::collections::VecDeque;

use super::bits::{DESCRIPTOR, cause, ctrl, offset, rctl, rx_status, statistic};
use super::checksum::frame_check_sequence;
use super::filter::{self, Passed};
use super::registers::Ring;
use super::rx_descriptor::{Facts, Filled, Format, Free, Layout};
use super::violations::Violations;
use super::work::Work;
use super::write_back::WriteBack;
use crate::intel::engine::{Gate, distance};

/// Least length of a frame without check sequence; the wire pads what is shorter.
const SHORTEST: usize = 60;
/// Where the VLAN tag of a frame is.
const TAG: core::ops::Range<usize> = 12..16;
/// With `Latitude::partial_progress`, most buffers filled in one step.
const LARGEST_STEP: u64 = 24;
/// Descriptors fetched at once, or half as many of twice their length.
const FETCH: usize = 32;

/// The frame that is being stored.
#[derive(Clone, Copy, Debug)]
struct Current {
    /// Bytes stored.
    stored: usize,
    facts: Facts,
}

#[derive(Debug)]
pub(super) struct RxQueue {
    /// Next descriptor to use.
    head: u32,
    /// Next descriptor to fetch.
    fetched: u32,
    tail: u32,
    /// What was written to the tail and is in no ring.
    odd_tail: Option<u32>,
    /// First descriptor that the driver cannot know to be done.
    unreported: u32,
    /// How the descriptors in `free` were read.
    layout: Option<Layout>,
    free: VecDeque<Free>,
    write_back: WriteBack,
    frame: Vec<u8>,
    current: Option<Current>,
    poison: Vec<u8>,
    /// `frame` has come and waits for descriptors (`QemuDeviations::frames_wait`).
    waiting: bool,
    /// The interrupt for few free descriptors was given.
    low: bool,
    halted: bool,
}

impl RxQueue {
    pub(super) fn new() -> Self {
        Self {
            head: 0,
            fetched: 0,
            tail: 0,
            odd_tail: None,
            unreported: 0,
            layout: None,
            free: VecDeque::new(),
            write_back: WriteBack::default(),
            frame: Vec::new(),
            current: None,
            poison: Vec::new(),
            waiting: false,
            low: true,
            halted: false,
        }
    }

    pub(super) fn reset(&mut self) {
        self.set_head(0);
        self.tail = 0;
        self.odd_tail = None;
        self.write_back.clear();
        self.low = true;
        self.halted = false;
    }

    /// RDH is written: what was fetched, and a frame that is half stored, are forgotten.
    pub(super) fn set_head(&mut self, head: u32) {
        self.current = None;
        self.head = head;
        self.fetched = head;
        self.unreported = head;
        self.free.clear();
    }

    /// What RDH reads.
    pub(super) fn head(&self, runs_ahead: bool) -> u32 {
        if runs_ahead { self.fetched } else { self.head }
    }

    /// Whether the device has no descriptor.
    pub(super) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    pub(super) fn tail(&self) -> u32 {
        self.odd_tail.unwrap_or(self.tail)
    }

    /// Addresses of the buffers that were fetched and are free.
    pub(super) fn buffers(&self) -> impl Iterator<Item = u64> {
        let buffers = self.free.iter().flat_map(Free::buffers);
        buffers.map(|(address, _)| address)
    }

    /// Whether a frame is partly stored.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.current.is_some()
    }

    /// RDT is written, where a descriptor has so many `units`. (Before the receiver is enabled as
    /// well: the sources differ on the order.)
    pub(super) fn give(
        &mut self,
        value: u32,
        entries: u32,
        units: u32,
        violations: &mut Violations,
    ) {
        self.odd_tail = None;
        if value >= entries && value != 0 {
            // It reads back, as Linux's register test wants it, which runs before there is a ring.
            self.odd_tail = Some(value & 0xffff);
            if entries > 0 {
                violations.report(format!(
                    "receive queue 0: tail {value} in a ring of {entries}; ignored"
                ));
            }
            return;
        }
        let before = distance(self.unreported, self.tail, entries);
        let after = distance(self.unreported, value, entries);
        if after < before {
            violations.report(format!(
                "receive queue 0: tail {value} after {}: it went back, or past descriptor {}, the \
                 first that is not known to be done",
                self.tail, self.unreported
            ));
        }
        if !value.is_multiple_of(units) {
            violations.report(format!(
                "receive queue 0: tail {value} is in the middle of a packet split descriptor"
            ));
        }
        self.tail = value;
    }

    /// Does a step's work; returns whether there was any.
    pub(super) fn step(&mut self, gate: Gate, link: bool, work: &mut Work<'_>) -> bool {
        let control = work.registers.get(offset::RCTL);
        let (base, entries) = work.registers.ring(Ring::Receive(0));
        let layout = Layout::of(work.registers);
        let enabled = control & rctl::EN != 0;
        let usable =
            enabled && entries > 0 && layout.is_usable() && gate != Gate::Closed && !self.halted;
        if usable {
            self.follow(layout);
        }
        if usable && gate == Gate::Open {
            self.fetch(base, entries, layout, work);
        }
        let mut budget = if work.latitude.partial_progress {
            1 + work.random.below(LARGEST_STEP)
        } else {
            u64::MAX
        };
        let mut busy = false;
        while budget > 0 {
            budget -= 1;
            if self.current.is_some() {
                if !usable || !self.store_part(layout, work) {
                    break;
                }
            } else if !link || gate == Gate::Finish || !self.is_open(usable, layout, work) {
                break;
            } else if self.waiting || work.next_frame(&mut self.frame) {
                self.accept(enabled, usable, layout, work);
                if self.waiting {
                    break;
                }
            } else {
                break;
            }
            busy = true;
        }
        if usable && busy {
            self.warn_of_low(entries, control, work);
        }
        busy | (gate != Gate::Closed && self.flush(base, entries, work))
    }

    /// What was fetched in another layout is fetched again.
    fn follow(&mut self, layout: Layout) {
        if self.layout != Some(layout) {
            self.layout = Some(layout);
            self.free.clear();
            self.fetched = self.head;
        }
    }

    /// Fetches the descriptors before the tail, and spoils their buffers.
    fn fetch(&mut self, base: u64, entries: u32, layout: Layout, work: &mut Work<'_>) {
        let units = layout.units();
        let mut bytes = [0; FETCH * DESCRIPTOR as usize];
        // A tail beyond the ring (its length was changed later) is never reached.
        while self.fetched != self.tail && self.tail < entries {
            let until = if self.tail > self.fetched {
                self.tail
            } else {
                entries
            };
            // Half a packet split descriptor is not fetched.
            let count = until.saturating_sub(self.fetched).min(FETCH as u32) / units;
            let target = bytes.get_mut(..count as usize * layout.descriptor());
            let target = target.unwrap_or_default();
            let address = base.wrapping_add(u64::from(self.fetched * DESCRIPTOR));
            if count == 0 {
                return;
            }
            if let Err(fault) = work.bus.read(address, target) {
                let index = self.fetched;
                work.violations.report(format!(
                    "receive queue 0: descriptor {index} cannot be fetched, nothing to read at \
                     {:#x}; the queue stops",
                    fault.address
                ));
                self.halted = true;
                return;
            }
            let descriptors = target.chunks_exact(layout.descriptor());
            for (index, raw) in (self.fetched..).step_by(units as usize).zip(descriptors) {
                let free = Free::new(index, raw, layout);
                self.inspect(&free, work);
                self.free.push_back(free);
            }
            self.fetched += count * units;
            if self.fetched >= entries {
                self.fetched = 0;
            }
        }
    }

    fn inspect(&mut self, free: &Free, work: &mut Work<'_>) {
        if let Some(misuse) = free.misuse() {
            report(free, misuse, work);
        }
        if !work.latitude.poison_receive_buffers {
            return;
        }
        for (address, size) in free.buffers().filter(|(address, _)| *address != 0) {
            self.poison.clear();
            self.poison.resize(size, work.random.next() as u8 | 1);
            if let Err(fault) = work.bus.write(address, &self.poison) {
                report_buffer(free, fault.address, work);
            }
        }
    }

    /// Whether a frame is taken from the wire: always, but on QEMU, where it stays outside while
    /// there is no descriptor at all.
    fn is_open(&self, usable: bool, layout: Layout, work: &Work<'_>) -> bool {
        !work.latitude.qemu.frames_wait || usable && self.room(layout, 0) > 0
    }

    /// A frame has come: is it for us, and is there room?
    fn accept(&mut self, enabled: bool, usable: bool, layout: Layout, work: &mut Work<'_>) {
        if !enabled {
            return;
        }
        let control = work.registers.get(offset::RCTL);
        let Some(destination) = self.frame.first_chunk::<6>().copied() else {
            work.statistics.count(statistic::RUC);
            return;
        };
        if self.frame.len() < SHORTEST {
            self.frame.resize(SHORTEST, 0);
            if work.latitude.qemu.short_frames_in_ruc {
                work.statistics.count(statistic::RUC);
            }
        }
        let octets = self.frame.len() + 4;
        let oversized = filter::is_oversized(self.frame.len(), control);
        let passed = filter::pass(destination, work.registers);
        let passed = passed.filter(|_| filter::wants_vlan(&self.frame, work.registers));
        let tag = filter::vlan(&self.frame, work.registers)
            .filter(|_| work.registers.get(offset::CTRL) & ctrl::VME != 0);
        let gone = if tag.is_some() { TAG.len() } else { 0 };
        let stored = octets - gone - if control & rctl::SECRC != 0 { 4 } else { 0 };
        let header = self.header(layout, gone, work);
        let fits = usable && self.room(layout, header) >= stored;
        if self.must_wait(fits, !oversized && passed.is_some(), work) {
            return;
        }
        if oversized && work.latitude.qemu.oversize_in_roc_alone {
            work.statistics.count(statistic::ROC);
            return;
        }
        work.statistics.count(statistic::TPR);
        work.statistics.add(statistic::TOR, octets as u64);
        let Some(passed) = passed else {
            return;
        };
        if oversized {
            // 8254x SDM 13.7.15 and 13.7.36: both, of frames that passed the filter.
            work.statistics.count(statistic::ROC);
            work.statistics.count(statistic::RLEC);
            return;
        }
        if !fits {
            work.counters.frames_missed += 1;
            work.statistics.count(statistic::RNBC);
            work.statistics.count(statistic::MPC);
            work.causes |= cause::RXO;
            return;
        }
        count(destination, octets, work);
        self.begin(passed, tag, header, work);
    }

    /// Bytes of the frame that are stored apart, as its header, without the `gone` ones of its tag; 0
    /// if none are.
    fn header(&self, layout: Layout, gone: usize, work: &mut Work<'_>) -> usize {
        if layout.format != Format::Split {
            return 0;
        }
        let [size, ..] = layout.sizes;
        let header = filter::header_len(&self.frame, work.registers).map(|len| len - gone);
        let spared = work.latitude.unsplit_packets && work.late_random.one_in(8);
        header.filter(|len| *len <= size && !spared).unwrap_or(0)
    }

    /// Whether the frame, wanted or not, waits for descriptors.
    fn must_wait(&mut self, fits: bool, wanted: bool, work: &mut Work<'_>) -> bool {
        let waits = work.latitude.qemu.frames_wait && wanted && !fits;
        if waits && !self.waiting {
            work.causes |= cause::RXO;
        }
        self.waiting = waits;
        waits
    }

    /// Bytes that fit the free descriptors, with a header of so many.
    fn room(&self, layout: Layout, header: usize) -> usize {
        let count = self.free.iter().filter(|free| !free.is_null()).count();
        layout.room(count, header)
    }

    /// The frame is kept: takes its tag off, and notes what its descriptors will say.
    fn begin(&mut self, passed: Passed, tag: Option<u16>, header: usize, work: &mut Work<'_>) {
        let qemu = work.latitude.qemu;
        let strips_check = work.registers.get(offset::RCTL) & rctl::SECRC != 0;
        // That of the frame as it came: what becomes of it where the tag is taken off is not said.
        let check = match (strips_check, qemu.zero_check_sequence) {
            (true, _) => None,
            (false, true) => Some([0; 4]),
            (false, false) => Some(frame_check_sequence(&self.frame)),
        };
        if tag.is_some() {
            self.frame.drain(TAG);
            work.counters.tags_stripped += 1;
        }
        let mut status = filter::checksum_status(&self.frame, work.registers);
        if qemu.never_ixsm {
            status &= !rx_status::IXSM;
        } else if work.latitude.rubbish_with_ixsm && status & rx_status::IXSM != 0 {
            status |= work.late_random.next() as u32 & rx_status::CHECKED;
        }
        if passed == Passed::Inexact {
            status |= rx_status::PIF;
        }
        let identification = filter::ip_identification(&self.frame);
        self.frame.extend(check.into_iter().flatten());
        if tag.is_some() {
            status |= rx_status::VP;
        }
        let facts = Facts {
            status,
            checksum: if qemu.no_packet_checksum {
                0
            } else {
                filter::packet_checksum(&self.frame, work.registers)
            },
            identification,
            header,
            tag,
        };
        self.current = Some(Current { stored: 0, facts });
    }

    /// Fills the buffers of one descriptor; false if there was none.
    fn store_part(&mut self, layout: Layout, work: &mut Work<'_>) -> bool {
        let Some(current) = self.current else {
            return false;
        };
        let Some(free) = self.free.pop_front() else {
            // The ring was taken away in the middle of the frame.
            self.current = None;
            return false;
        };
        let (_, entries) = work.registers.ring(Ring::Receive(0));
        self.head = behind(free.index, layout, entries);
        if free.is_null() {
            self.write_back
                .push(free.index, 8, &free.passed_over(), 0, work);
            return true;
        }
        let rest = self.frame.get(current.stored..).unwrap_or_default();
        let is_first = current.stored == 0;
        let lens = layout.fill(rest.len(), current.facts.header, is_first);
        let mut from = current.stored;
        let sized = lens.iter().zip(layout.sizes).filter(|(_, size)| *size > 0);
        for ((len, _), (address, _)) in sized.zip(free.buffers()) {
            let part = self.frame.get(from..from + len).unwrap_or_default();
            from += part.len();
            if !part.is_empty()
                && let Err(fault) = work.bus.write(address, part)
            {
                report_buffer(&free, fault.address, work);
            }
        }
        let is_last = from == self.frame.len();
        let filled = Filled {
            lens,
            is_first,
            is_last,
        };
        self.done(&free, &filled, &current.facts, layout, work);
        self.current = (!is_last).then_some(Current {
            stored: from,
            ..current
        });
        true
    }

    /// Queues the write-back of a filled descriptor.
    fn done(
        &mut self,
        free: &Free,
        filled: &Filled,
        facts: &Facts,
        layout: Layout,
        work: &mut Work<'_>,
    ) {
        let causes = match filled.is_last {
            true => work.write_back_causes(cause::RXQ0, cause::RXT0),
            false => 0,
        };
        let (from, bytes, len) = filled.write_back(facts, layout.format, work.registers);
        let bytes = bytes.get(..len).unwrap_or_default();
        self.write_back.push(free.index, from, bytes, causes, work);
        if work.latitude.early_interrupts && work.random.one_in(8) {
            work.causes |= causes;
        }
    }

    /// The interrupt for few free descriptors: a half, a quarter or an eighth of the ring.
    fn warn_of_low(&mut self, entries: u32, control: u32, work: &mut Work<'_>) {
        let threshold = entries >> (1 + (control >> rctl::RDMTS_SHIFT & 0b11));
        let low = distance(self.head, self.tail, entries) <= threshold;
        let silent = work.latitude.qemu.queue_causes_alone && work.msix;
        if low && !self.low && !silent {
            work.causes |= cause::RXDMT0;
        }
        self.low = low;
    }

    /// Writes back what is due; whether anything was, or waits only for time.
    fn flush(&mut self, base: u64, entries: u32, work: &mut Work<'_>) -> bool {
        if self.write_back.len() == 0 {
            return false;
        }
        let flushed = self.write_back.flush(base, "receive", work);
        if let Some(last) = flushed.last {
            self.unreported = behind(last, Layout::of(work.registers), entries);
        }
        flushed.last.is_some() || flushed.waits
    }
}

/// The place behind the descriptor at `index`.
fn behind(index: u32, layout: Layout, entries: u32) -> u32 {
    let next = index + layout.units();
    if next >= entries { 0 } else { next }
}

#[cold]
fn report(free: &Free, text: &str, work: &mut Work<'_>) {
    let (index, content) = (free.index, free.content());
    work.violations.report(format!(
        "receive queue 0, descriptor {index} [{content}]: {text}"
    ));
}

#[cold]
fn report_buffer(free: &Free, address: u64, work: &mut Work<'_>) {
    let text = format!("its buffer cannot be written at {address:#x}");
    report(free, &text, work);
}

/// Counts a frame that is kept. Octets include the check sequence.
fn count(destination: [u8; 6], octets: usize, work: &mut Work<'_>) {
    work.counters.frames_received += 1;
    work.counters.bytes_received += octets as u64 - 4;
    let statistics = &mut *work.statistics;
    statistics.count(statistic::GPRC);
    statistics.add(statistic::GORC, octets as u64);
    statistics.count_size(statistic::PRC64, octets);
    if destination == [0xff; 6] {
        statistics.count(statistic::BPRC);
    } else if destination[0] & 1 != 0 {
        statistics.count(statistic::MPRC);
    }
}
