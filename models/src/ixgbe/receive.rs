//! The receiver: address filter, packet buffer, the choice of a queue, storing frames.
//!
//! Not modelled: header splitting (the 82599 datasheet 7.1.10 warns of it), receive side
//! coalescing, double VLAN tags, filters that choose a queue otherwise than by hash.

use std::collections::VecDeque;

use super::bits::{
    DCA_RX_RESERVED, NO_SNOOP_DISABLE, PATH_DISABLE, PCSD, RXEN, cause, dctl, hlreg0, offset,
    offset::ring, rx_status, statistic,
};
use super::checksum::frame_check_sequence;
use super::filter::{self, Passed};
use super::packet::{self, lacks_checksum};
use super::registers::{QUEUES, Ring};
use super::rss::Hash;
use super::rx_queue::RxQueue;
use super::work::Work;
use crate::intel::engine::Gate;
use crate::intel::packet::Packet;

/// Least length of a frame without check sequence; the wire pads what is shorter.
const SHORTEST: usize = 60;
/// Where the tag of a frame is.
const TAG: core::ops::Range<usize> = 12..16;
/// With `Latitude::partial_progress`, most buffers filled in one step.
const LARGEST_STEP: u64 = 24;
/// Frames taken from the wire in one step.
const MOST_TAKEN: usize = 256;

/// A frame in the packet buffer.
#[derive(Debug)]
struct Arrived {
    bytes: Vec<u8>,
    queue: usize,
    status: u32,
    /// RSS type and packet type.
    kind: u32,
    /// The hash, or what takes its place.
    hash: u32,
    /// The VLAN tag that was taken off.
    tag: Option<u16>,
    /// Bytes stored, and in how many buffers.
    stored: usize,
    buffers: u32,
}

impl Arrived {
    /// Bytes before the tag was taken off.
    fn received_len(&self) -> usize {
        self.bytes.len() + self.tag.map_or(0, |_| TAG.len())
    }
}

/// The receive half of the device.
pub(super) struct Receiver {
    pub(super) queues: Vec<RxQueue>,
    waiting: VecDeque<Arrived>,
    /// Bytes in it.
    occupied: usize,
    frame: Vec<u8>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            queues: (0..QUEUES).map(RxQueue::new).collect(),
            waiting: VecDeque::new(),
            occupied: 0,
            frame: Vec::new(),
        }
    }

    pub(super) fn reset(&mut self) {
        for queue in &mut self.queues {
            queue.reset();
        }
        self.waiting.clear();
        self.occupied = 0;
    }

    /// Whether a frame is partly stored.
    pub(super) fn is_inside_frame(&self) -> bool {
        self.waiting.front().is_some_and(|frame| frame.stored > 0)
    }

    /// Does a step's work; returns whether there was any.
    pub(super) fn step(&mut self, gate: Gate, link: bool, work: &mut Work<'_>) -> bool {
        let enabled = work.registers.get(offset::RXCTRL) & RXEN != 0;
        let halted = work.registers.get(offset::SECRXCTRL) & PATH_DISABLE != 0;
        let mut busy = false;
        if gate == Gate::Open && enabled {
            for queue in self.queues.iter_mut().take(work.used) {
                if queue.enable.is_running() {
                    queue.fetch(work);
                }
            }
        }
        if gate != Gate::Finish && !halted {
            busy |= self.take_all(enabled, link, work);
        }
        let mut budget = if work.latitude.partial_progress {
            1 + work.random.below(LARGEST_STEP)
        } else {
            u64::MAX
        };
        while budget > 0 && enabled && gate != Gate::Closed {
            if gate == Gate::Finish && !self.is_inside_frame() || !self.store_part(work) {
                break;
            }
            budget -= 1;
            busy = true;
        }
        if gate != Gate::Closed {
            for queue in self.queues.iter_mut().take(work.used) {
                busy |= queue.flush(work);
            }
        }
        busy
    }

    /// Takes frames from the wire, or those looped back; whether there were any.
    fn take_all(&mut self, enabled: bool, link: bool, work: &mut Work<'_>) -> bool {
        let mut busy = false;
        for _ in 0..MOST_TAKEN {
            let looped = match work.looped.pop_front() {
                Some(frame) => {
                    self.frame = frame;
                    true
                }
                None if work.registers.get(offset::HLREG0) & hlreg0::LPBK != 0 => break,
                None if link && work.wire.receive(&mut self.frame, work.pace.now) => false,
                None => break,
            };
            busy = true;
            if enabled {
                self.accept(looped, work);
            }
        }
        busy
    }

    /// A frame has come: is it for us, and is there room?
    fn accept(&mut self, looped: bool, work: &mut Work<'_>) {
        let Some(destination) = self.frame.first_chunk::<6>().copied() else {
            work.registers.count(statistic::RUC);
            return;
        };
        if self.frame.len() < SHORTEST {
            self.frame.resize(SHORTEST, 0);
        }
        let octets = self.frame.len() + 4;
        work.registers.count(statistic::TPR);
        work.registers.add(statistic::TOR, octets as u64);
        // Whether the filter wants it or not. RLEC is for the length field of 802.3 (X550 datasheet
        // 8.2.2.17.48 and 31).
        let oversized = filter::is_oversized(&self.frame, work.registers);
        if oversized {
            work.registers.count(statistic::ROC);
        }
        let passed = filter::pass(destination, work.registers)
            .filter(|_| filter::wants_vlan(&self.frame, work.registers));
        let Some(passed) = passed else {
            work.counters.frames_filtered += 1;
            return;
        };
        if oversized {
            return;
        }
        // The filter counts what is lost behind it as well (X550 datasheet 8.2.2.17: "might").
        count(destination, octets, work);
        if self.occupied + octets > work.registers.receive_buffer() {
            work.counters.frames_missed += 1;
            work.registers.count(statistic::MPC);
            work.causes |= cause::RX_MISS;
            return;
        }
        self.occupied += octets;
        let arrived = self.examine(passed, looped, work);
        self.waiting.push_back(arrived);
    }

    /// Status, types and hash of the frame, and its queue.
    fn examine(&mut self, passed: Passed, looped: bool, work: &mut Work<'_>) -> Arrived {
        let packet = Packet::parse_behind(filter::tag_type(work.registers), &self.frame);
        let mut status = 0;
        let mut hash = Hash::default();
        let mut kind = 0;
        let mut identification = 0;
        if let Some(packet) = &packet {
            status = packet::verdict(packet);
            let fails = work.latitude.udp_without_checksum_fails;
            if lacks_checksum(packet) && fails && work.random.one_in(2) {
                status |= rx_status::L4CS | rx_status::TCPE;
            }
            hash = Hash::new(packet, work.registers);
            kind = hash.kind | packet::kind(packet);
            identification = u32::from(packet.identification());
        }
        if passed == Passed::Inexact {
            status |= rx_status::PIF;
        }
        if looped {
            status |= rx_status::LOOPED;
        }
        let queue = hash.queue(work.registers);
        let control = work
            .registers
            .get(Ring::Receive(queue).base() + ring::CONTROL);
        // Without VME there is no VP either (X550 datasheet 7.4.3.2; 7.4.5.3.2 has VP say that there
        // is a tag. Linux ixgbe asks for both, VP and that it wanted tags taken off).
        let tag = filter::vlan(&self.frame, work.registers).filter(|_| control & dctl::VME != 0);
        if tag.is_some() {
            status |= rx_status::VP;
            work.counters.tags_stripped += 1;
        }
        // Without PCSD: identification, and a fragment checksum, which is not modelled (IPPCSE).
        let hash = if work.registers.get(offset::RXCSUM) & PCSD != 0 {
            hash.value
        } else {
            kind &= !0xf;
            identification
        };
        let mut bytes = core::mem::take(&mut self.frame);
        if work.registers.get(offset::HLREG0) & hlreg0::RXCRCSTRP == 0 {
            let check = frame_check_sequence(&bytes);
            bytes.extend_from_slice(&check);
        }
        if tag.is_some() {
            bytes.drain(TAG);
        }
        Arrived {
            bytes,
            queue,
            status,
            kind,
            hash,
            tag,
            stored: 0,
            buffers: 0,
        }
    }

    /// Does something about the first frame in the packet buffer; false if nothing can be done.
    fn store_part(&mut self, work: &mut Work<'_>) -> bool {
        let Some(frame) = self.waiting.front_mut() else {
            return false;
        };
        let Some(queue) = self.queues.get_mut(frame.queue) else {
            return false;
        };
        // Packets for a disabled queue are dropped (82599 datasheet 4.6.7), and counted as those
        // for which there is no descriptor are (X550 datasheet 8.2.2.17.4).
        let lost = !queue.enable.is_on()
            || frame.stored == 0
                && queue.drops(work.registers)
                && !queue.has_room(frame.bytes.len(), work.registers);
        if lost {
            work.count_dropped(frame.queue);
            self.give_up(work);
            return true;
        }
        // Without a buffer it waits, and all others with it.
        let Some(free) = queue.take(work.registers) else {
            return false;
        };
        judge(queue, work);
        let size = queue.buffer_size(work.registers);
        let rest = frame.bytes.get(frame.stored..).unwrap_or_default();
        let part = rest.get(..size).unwrap_or(rest);
        queue.store(&free, part, work);
        let is_last = part.len() == rest.len();
        let bytes = descriptor(frame, part.len() as u16, is_last, work);
        queue.write_back.push(free.index, bytes, work);
        if work.latitude.early_interrupts && work.random.one_in(8) {
            work.raise_receive(frame.queue);
        }
        frame.stored += part.len();
        frame.buffers += 1;
        if is_last {
            self.finish(work);
        }
        true
    }

    /// The first frame is stored.
    fn finish(&mut self, work: &mut Work<'_>) {
        let Some(frame) = self.leave(work) else {
            return;
        };
        let stripped = work.registers.get(offset::HLREG0) & hlreg0::RXCRCSTRP != 0;
        let len = frame.received_len() - if stripped { 0 } else { 4 };
        work.counters.frames_received += 1;
        work.counters.bytes_received += len as u64;
        work.counters.frames_scattered += u64::from(frame.buffers > 1);
        // Before the tag is taken off (X550 datasheet 8.2.2.17.2).
        work.count_received(frame.queue, frame.received_len() as u64);
        self.recycle(frame);
    }

    /// The first frame is lost.
    fn give_up(&mut self, work: &mut Work<'_>) {
        if let Some(frame) = self.leave(work) {
            work.counters.frames_missed += 1;
            self.recycle(frame);
        }
    }

    /// Takes the first frame out of the packet buffer.
    fn leave(&mut self, work: &mut Work<'_>) -> Option<Arrived> {
        let frame = self.waiting.pop_front()?;
        let stripped = work.registers.get(offset::HLREG0) & hlreg0::RXCRCSTRP != 0;
        let octets = frame.received_len() + if stripped { 4 } else { 0 };
        self.occupied = self.occupied.saturating_sub(octets);
        if self.waiting.is_empty() {
            self.occupied = 0;
        }
        Some(frame)
    }

    /// Keeps the memory of a frame for the next one.
    fn recycle(&mut self, frame: Arrived) {
        if self.frame.capacity() < frame.bytes.capacity() {
            self.frame = frame.bytes;
        }
    }
}

/// The rules that count as soon as a frame is stored in a queue, reported once.
fn judge(queue: &mut RxQueue, work: &mut Work<'_>) {
    if queue.judged {
        return;
    }
    queue.judged = true;
    let number = queue.number;
    if work.registers.get(offset::CTRL_EXT) & NO_SNOOP_DISABLE == 0 {
        work.violations.report(format!(
            "receive queue {number}: a frame is stored, and CTRL_EXT.NS_DIS was not set"
        ));
    }
    let dca = work.registers.get(Ring::Receive(number).base() + ring::DCA);
    if dca & DCA_RX_RESERVED != 0 && work.rules.beyond_linux {
        work.violations.report(format!(
            "receive queue {number}: a frame is stored, and bit 12 of DCA_RXCTRL was not cleared"
        ));
    }
}

/// A descriptor as it is written back.
fn descriptor(frame: &Arrived, len: u16, is_last: bool, work: &mut Work<'_>) -> [u8; 16] {
    let mut status = rx_status::DD;
    let (mut kind, mut hash) = (frame.kind, frame.hash);
    let mut tag = frame.tag.unwrap_or(0);
    if is_last {
        status |= rx_status::EOP | frame.status;
    } else if work.latitude.rubbish_before_eop {
        kind = work.random.next() as u32;
        hash = work.random.next() as u32;
        tag = work.random.next() as u16;
        status |= work.random.next() as u32 & !rx_status::EOP;
    } else {
        (kind, hash, tag) = (0, 0, 0);
    }
    let words = [
        u64::from(hash) << 32 | u64::from(kind),
        u64::from(tag) << 48 | u64::from(len) << 32 | u64::from(status),
    ];
    let mut bytes = [0; 16];
    for (target, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
        *target = word.to_le_bytes();
    }
    bytes
}

/// Counts a frame that passed. Octets include the check sequence.
fn count(destination: [u8; 6], octets: usize, work: &mut Work<'_>) {
    let registers = &mut *work.registers;
    registers.count(statistic::GPRC);
    registers.add(statistic::GORC, octets as u64);
    registers.count_size(statistic::PRC64, octets);
    if destination == [0xff; 6] {
        registers.count(statistic::BPRC);
    } else if destination[0] & 1 != 0 {
        registers.count(statistic::MPRC);
    }
}
