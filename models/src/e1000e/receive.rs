//! The receive queue: descriptor fetch, storing frames, write-back.
//!
//! Queue 1 is reached by receive side scaling only, which is not modelled: its registers store.
//! Packet split is not modelled.

use std::collections::VecDeque;

use super::bits::{DESCRIPTOR, cause, ctrl, offset, rctl, rfctl, rx_status, rxcsum, statistic};
use super::checksum::frame_check_sequence;
use super::filter::{self, Passed};
use super::registers::Ring;
use super::violations::Violations;
use super::work::Work;
use super::write_back::WriteBack;
use crate::intel::engine::{Gate, distance};

/// Least length of a frame without check sequence; the wire pads what is shorter.
const SHORTEST: usize = 60;
/// With `Latitude::partial_progress`, most buffers filled in one step.
const LARGEST_STEP: u64 = 24;
/// Descriptors fetched at once.
const FETCH: usize = 32;

/// A descriptor that was fetched and is free.
#[derive(Clone, Copy, Debug)]
struct Free {
    index: u32,
    raw: [u8; 16],
    address: u64,
}

/// The frame that is being stored.
#[derive(Clone, Copy, Debug)]
struct Current {
    /// Bytes stored.
    stored: usize,
    status: u32,
    checksum: u16,
    identification: [u8; 2],
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
        self.free.iter().map(|free| free.address)
    }

    /// Whether a frame is partly stored.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.current.is_some()
    }

    /// RDT is written. (Before the receiver is enabled as well: the sources differ on the order.)
    pub(super) fn give(&mut self, value: u32, entries: u32, violations: &mut Violations) {
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
        self.tail = value;
    }

    /// Does a step's work; returns whether there was any.
    pub(super) fn step(&mut self, gate: Gate, link: bool, work: &mut Work<'_>) -> bool {
        let control = work.registers.get(offset::RCTL);
        let (base, entries) = work.registers.ring(Ring::Receive(0));
        let size = filter::buffer_size(control).unwrap_or(0);
        let enabled = control & rctl::EN != 0;
        let usable = enabled && entries > 0 && size > 0 && gate != Gate::Closed && !self.halted;
        if usable && gate == Gate::Open {
            self.fetch(base, entries, size, work);
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
                if !usable || !self.store_part(size, work) {
                    break;
                }
            } else if !link || gate == Gate::Finish || !self.is_open(usable, size, work) {
                break;
            } else if self.waiting || work.next_frame(&mut self.frame) {
                self.accept(enabled, usable, size, work);
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

    /// Fetches the descriptors before the tail, and spoils their buffers.
    fn fetch(&mut self, base: u64, entries: u32, size: usize, work: &mut Work<'_>) {
        let mut bytes = [0; FETCH * DESCRIPTOR as usize];
        // A tail beyond the ring (its length was changed later) is never reached.
        while self.fetched != self.tail && self.tail < entries {
            let until = if self.tail > self.fetched {
                self.tail
            } else {
                entries
            };
            let count = (until.saturating_sub(self.fetched) as usize).min(FETCH);
            let target = bytes.get_mut(..count * DESCRIPTOR as usize);
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
            let (descriptors, _) = bytes.as_chunks::<{ DESCRIPTOR as usize }>();
            for (index, raw) in (self.fetched..).zip(descriptors.iter().take(count)) {
                let free = self.inspect(index, *raw, size, work);
                self.free.push_back(free);
            }
            self.fetched += count as u32;
            if self.fetched >= entries {
                self.fetched = 0;
            }
        }
    }

    fn inspect(&mut self, index: u32, raw: [u8; 16], size: usize, work: &mut Work<'_>) -> Free {
        let [a, b, c, d, e, f, g, h, upper @ ..] = raw;
        let address = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        // Where DD is in each format; what else was written back may stay there (Linux e1000e clears
        // these eight bits, writes the address, and leaves the rest).
        let [extended_status, _, _, _, status, ..] = upper;
        let extended = work.registers.get(offset::RFCTL) & rfctl::EXSTEN != 0;
        let status = if extended { extended_status } else { status };
        if u32::from(status) & rx_status::DD != 0 {
            let content = u128::from_be_bytes(raw);
            work.violations.report(format!(
                "receive queue 0, descriptor {index} [{content:032x}]: its status is not clear: \
                 DD would be seen before it is written"
            ));
        }
        if work.latitude.poison_receive_buffers && address != 0 {
            self.poison.clear();
            self.poison.resize(size, work.random.next() as u8 | 1);
            if let Err(fault) = work.bus.write(address, &self.poison) {
                report_buffer(index, &raw, fault.address, work);
            }
        }
        Free {
            index,
            raw,
            address,
        }
    }

    /// Whether a frame is taken from the wire: always, but on QEMU, where it stays outside while
    /// there is no descriptor at all.
    fn is_open(&self, usable: bool, size: usize, work: &Work<'_>) -> bool {
        !work.latitude.qemu.frames_wait || usable && self.room(size) > 0
    }

    /// A frame has come: is it for us, and is there room?
    fn accept(&mut self, enabled: bool, usable: bool, size: usize, work: &mut Work<'_>) {
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
        let stored = octets - if control & rctl::SECRC != 0 { 4 } else { 0 };
        let fits = usable && self.room(size) >= stored;
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
        let strips = work.registers.get(offset::CTRL) & ctrl::VME != 0;
        if strips && filter::vlan(&self.frame, work.registers).is_some() {
            let text = "a tag was to be taken off: VLAN stripping (CTRL.VME) is not modelled";
            work.violations.report(text.into());
        }
        self.begin(passed, control, work);
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

    /// Bytes that fit the free descriptors.
    fn room(&self, size: usize) -> usize {
        self.free.iter().filter(|free| free.address != 0).count() * size
    }

    fn begin(&mut self, passed: Passed, control: u32, work: &mut Work<'_>) {
        let qemu = work.latitude.qemu;
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
        if control & rctl::SECRC == 0 {
            let check = if qemu.zero_check_sequence {
                [0; 4]
            } else {
                frame_check_sequence(&self.frame)
            };
            self.frame.extend_from_slice(&check);
        }
        self.current = Some(Current {
            stored: 0,
            status,
            checksum: if qemu.no_packet_checksum {
                0
            } else {
                filter::packet_checksum(&self.frame, work.registers)
            },
            identification,
        });
    }

    /// Fills one buffer; false if there was none.
    fn store_part(&mut self, size: usize, work: &mut Work<'_>) -> bool {
        let Some(current) = self.current else {
            return false;
        };
        let Some(free) = self.free.pop_front() else {
            // The ring was taken away in the middle of the frame.
            self.current = None;
            return false;
        };
        let (_, entries) = work.registers.ring(Ring::Receive(0));
        self.head = if free.index + 1 >= entries {
            0
        } else {
            free.index + 1
        };
        if free.address == 0 {
            // A null descriptor takes no data; DD is set and the rest stays (82574 datasheet
            // 7.1.7.2).
            let [.., a, b, c, d, status, e, f, g] = free.raw;
            let upper = [a, b, c, d, status | super::bits::DD, e, f, g];
            self.write_back.push(free.index, 8, &upper, 0, work);
            return true;
        }
        let rest = self.frame.get(current.stored..).unwrap_or_default();
        let part = rest.get(..size).unwrap_or(rest);
        if let Err(fault) = work.bus.write(free.address, part) {
            report_buffer(free.index, &free.raw, fault.address, work);
        }
        let is_first = current.stored == 0;
        let is_last = part.len() == rest.len();
        let len = part.len();
        self.done(&free, current, len, is_first, is_last, work);
        self.current = (!is_last).then_some(Current {
            stored: current.stored + len,
            ..current
        });
        true
    }

    /// Queues the write-back of a filled descriptor.
    fn done(
        &mut self,
        free: &Free,
        current: Current,
        len: usize,
        is_first: bool,
        is_last: bool,
        work: &mut Work<'_>,
    ) {
        let status = match is_last {
            true => current.status | rx_status::EOP | rx_status::DD,
            false => rx_status::DD,
        };
        let causes = match is_last {
            true => work.write_back_causes(cause::RXQ0, cause::RXT0),
            false => 0,
        };
        let len = (len as u16).to_le_bytes();
        // The packet checksum is in the first descriptor (82583V datasheet 7.1.3).
        let checksum = if is_first { current.checksum } else { 0 };
        let [c0, c1] = checksum.to_le_bytes();
        if work.registers.get(offset::RFCTL) & rfctl::EXSTEN == 0 {
            let [s0, _, _, errors] = status.to_le_bytes();
            let [l0, l1] = len;
            let upper = [l0, l1, c0, c1, s0, errors, 0, 0];
            self.write_back.push(free.index, 8, &upper, causes, work);
        } else {
            let [i0, i1] = current.identification;
            let hash = match work.registers.get(offset::RXCSUM) & rxcsum::PCSD {
                0 => [i0, i1, c0, c1],
                // The place belongs to the RSS hash, which there is none of.
                _ => [0; 4],
            };
            let mut whole = [0; 16];
            let status = status.to_le_bytes();
            let fields = hash.iter().chain(&status).chain(&len);
            for (target, byte) in whole.iter_mut().skip(4).zip(fields) {
                *target = *byte;
            }
            self.write_back.push(free.index, 0, &whole, causes, work);
        }
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
            self.unreported = if last + 1 >= entries { 0 } else { last + 1 };
        }
        flushed.last.is_some() || flushed.waits
    }
}

#[cold]
fn report_buffer(index: u32, raw: &[u8; 16], address: u64, work: &mut Work<'_>) {
    let content = u128::from_be_bytes(*raw);
    work.violations.report(format!(
        "receive queue 0, descriptor {index} [{content:032x}]: its buffer cannot be written at \
         {address:#x}"
    ));
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
