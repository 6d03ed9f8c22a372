//! Reception: frames from the wire into one buffer, or several merged ones.

use std::collections::VecDeque;

use super::bits::{feature, header};
use super::control::Filter;
use super::frame::{Packet, TCP};
use super::join::Join;
use super::queue::{Queue, Work};
use super::ring::{Chain, Used, unreachable};
use super::steering::Steering;
use crate::Wire;

/// Frames taken from the wire, and frames delivered, in one step.
const MOST: usize = 256;
/// Frames that wait inside the device while only some of the receive queues have no buffers.
const MOST_WAITING: usize = 64;
/// Segments that are joined at most. (A large packet of the smallest ones.)
const MOST_JOINED: u16 = 128;
/// Bytes of a buffer for what GUEST_TSO may bring, header included (virtio 1.3, "Setting Up
/// Receive Buffers": 65589 and 12).
const LARGE_BUFFER: usize = 65_601;

/// A frame that is on its way into a buffer.
#[derive(Debug)]
struct Incoming {
    frame: Vec<u8>,
    /// gso_type and gso_size of a large one.
    large: Option<(u8, u16)>,
    /// The pair of queues that it is for.
    pair: u16,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Gone,
    /// There is no room yet.
    Waits,
}

/// What the receiver goes by.
pub(super) struct Settings<'a> {
    pub(super) filter: &'a Filter,
    pub(super) steering: &'a Steering,
    pub(super) mtu: u16,
}

/// The receiver: what was taken from the wire, and has no buffer yet.
#[derive(Debug, Default)]
pub(super) struct Receiver {
    waiting: VecDeque<Incoming>,
}

impl Receiver {
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes frames from the wire and loses them, as nobody drives the device.
    pub(super) fn lose(&mut self, wire: &mut dyn Wire, work: &mut Work<'_>) {
        let mut frame = Vec::new();
        for _ in 0..MOST {
            if !wire.receive(&mut frame, work.pace.now) {
                return;
            }
            work.counters.frames_missed += 1;
        }
    }

    /// Moves frames into the receive queues. A queue without buffers holds up its own frames.
    pub(super) fn receive(
        &mut self,
        queues: &mut [Queue],
        wire: &mut dyn Wire,
        settings: &Settings<'_>,
        work: &mut Work<'_>,
    ) -> bool {
        let pairs = settings.steering.pairs;
        let mut blocked = vec![false; usize::from(pairs)];
        let is_free = |blocked: &[bool], pair: u16| blocked.get(usize::from(pair)) != Some(&true);
        let mut any = false;
        for _ in 0..MOST {
            let mut ready = self.waiting.iter();
            let Some(at) = ready.position(|incoming| is_free(&blocked, incoming.pair)) else {
                let full = self.waiting.len() >= MOST_WAITING || blocked.iter().all(|b| *b);
                if !self.waiting.is_empty() && full || !self.take(queues, wire, settings, work) {
                    break;
                }
                any = true;
                continue;
            };
            let Some(incoming) = self.waiting.get_mut(at) else {
                break;
            };
            let Some(pair) = settings.steering.usable(incoming.pair, queues) else {
                work.counters.frames_missed += 1;
                self.waiting.remove(at);
                continue;
            };
            incoming.pair = pair;
            let Some(queue) = queues.get_mut(usize::from(2 * pair)) else {
                break;
            };
            if !is_free(&blocked, pair)
                || deliver(queue, incoming, settings.mtu, work) == Outcome::Waits
            {
                if let Some(blocked) = blocked.get_mut(usize::from(pair)) {
                    *blocked = true;
                }
                continue;
            }
            any = true;
            self.waiting.remove(at);
        }
        any
    }

    /// The next frame from the wire that the filter lets through.
    fn next(wire: &mut dyn Wire, filter: &Filter, work: &mut Work<'_>) -> Option<Vec<u8>> {
        for _ in 0..MOST {
            let mut frame = Vec::new();
            if !wire.receive(&mut frame, work.pace.now) {
                return None;
            }
            if filter.wants(&frame) {
                return Some(frame);
            }
            work.counters.frames_filtered += 1;
        }
        None
    }

    /// Takes a frame from the wire, or more if segments are joined; whether there was one.
    fn take(
        &mut self,
        queues: &mut [Queue],
        wire: &mut dyn Wire,
        settings: &Settings<'_>,
        work: &mut Work<'_>,
    ) -> bool {
        let mut held = Self::next(wire, settings.filter, work);
        let any = held.is_some();
        while let Some(frame) = held.take() {
            let pair = settings.steering.choose(&frame, work);
            let is_long = exceeds(&frame, settings.mtu);
            let Some(mut join) = Join::start(&frame, work).filter(|_| !is_long) else {
                self.accept(frame, pair, settings.mtu, work);
                continue;
            };
            let queue = queues.get_mut(usize::from(2 * pair));
            let room = queue.map_or(0, |queue| room(queue, work));
            let most = if work.random.bool() {
                MOST_JOINED
            } else {
                work.random.u16(1..=MOST_JOINED)
            };
            let is_full = self.waiting.len() >= MOST_WAITING;
            while join.segments() < most && !is_full {
                match Self::next(wire, settings.filter, work) {
                    Some(next) if join.takes(&next, room) => {}
                    other => {
                        held = other;
                        break;
                    }
                }
            }
            if join.segments() == 1 {
                self.accept(frame, pair, settings.mtu, work);
                continue;
            }
            work.counters.frames_joined += u64::from(join.segments());
            let (frame, large) = join.finish();
            self.waiting.push_back(Incoming { frame, large, pair });
        }
        any
    }

    /// Decides what to do with a frame that is longer than the MTU.
    fn accept(&mut self, frame: Vec<u8>, pair: u16, mtu: u16, work: &mut Work<'_>) {
        if !exceeds(&frame, mtu) {
            let large = None;
            self.waiting.push_back(Incoming { frame, large, pair });
            return;
        }
        let packet = Packet::parse(&frame, true)
            .filter(|p| p.protocol == TCP && p.verifies(&frame) && !p.is_padded(&frame));
        let size = packet.map_or(0, |p| usize::from(mtu).saturating_sub(p.header_len()));
        let Some(packet) = packet.filter(|_| size > 0) else {
            work.counters.frames_missed += 1;
            return;
        };
        let (wanted, kind) = if packet.is_ipv6 {
            (feature::GUEST_TSO6, header::GSO_TCPV6)
        } else {
            (feature::GUEST_TSO4, header::GSO_TCPV4)
        };
        if work.has(wanted) && !packet.has_cwr(&frame) {
            let large = Some((kind, size as u16));
            self.waiting.push_back(Incoming { frame, large, pair });
        } else {
            packet.segment(&frame, size, |frame| {
                let large = None;
                self.waiting.push_back(Incoming { frame, large, pair });
            });
        }
    }
}

/// Whether a frame is longer than the MTU allows.
fn exceeds(frame: &[u8], mtu: u16) -> bool {
    let tagged = frame.get(12..14) == Some(&[0x81, 0]);
    frame.len() > usize::from(mtu) + 14 + if tagged { 4 } else { 0 }
}

/// Bytes of a frame that the buffers of `queue` have room for now: of all of them if they are
/// merged, else of the smallest.
fn room(queue: &mut Queue, work: &mut Work<'_>) -> usize {
    queue.collect(work);
    let capacities = queue.stock.iter().map(Chain::capacity);
    let room = if work.has(feature::MRG_RXBUF) {
        capacities.sum()
    } else {
        capacities.min().unwrap_or(0)
    };
    room.saturating_sub(header::LEN)
}

/// Puts a frame into buffers of `queue`.
fn deliver(queue: &mut Queue, incoming: &mut Incoming, mtu: u16, work: &mut Work<'_>) -> Outcome {
    let len = header::LEN + incoming.frame.len();
    let mut chains = Vec::new();
    let mut room = 0;
    while room < len {
        let Some(chain) = pick(queue, work) else {
            for chain in chains.into_iter().rev() {
                queue.stock.push_front(chain);
            }
            return Outcome::Waits;
        };
        check_capacity(queue.index, &chain, mtu, work);
        if !chain.readable.is_empty() {
            queue.refuse("a device-readable descriptor in a receive buffer", work);
            return Outcome::Waits;
        }
        let capacity = chain.capacity();
        room += capacity;
        chains.push(chain);
        if !work.has(feature::MRG_RXBUF) && capacity < len {
            work.counters.frames_missed += 1;
            queue.stock.extend(chains);
            return Outcome::Gone;
        }
    }
    let mut bytes = describe(incoming, chains.len() as u16, work);
    if let Some(liar) = &mut work.liar {
        let (len, buffers) = (incoming.frame.len(), chains.len() as u16);
        liar.header(&mut bytes, len, buffers, queue.size);
    }
    bytes.append(&mut incoming.frame);
    work.counters.large_received += u64::from(incoming.large.is_some());
    store(queue, &chains, &bytes, work);
    Outcome::Gone
}

/// The next buffer, not always the oldest.
fn pick(queue: &mut Queue, work: &mut Work<'_>) -> Option<Chain> {
    if queue.stock.is_empty() {
        queue.forage(work);
    }
    let any = work.latitude.out_of_order && !work.has(feature::IN_ORDER);
    if any && !queue.stock.is_empty() {
        let index = work.random.usize(..queue.stock.len().min(4));
        return queue.stock.remove(index);
    }
    queue.stock.pop_front()
}

/// Whether a buffer is as large as it must be (merged, or with MTU), and as it should be.
fn check_capacity(queue: u16, chain: &Chain, mtu: u16, work: &mut Work<'_>) {
    let capacity = chain.capacity();
    let merged = work.has(feature::MRG_RXBUF);
    let must = if merged {
        header::LEN
    } else if work.has(feature::MTU) {
        header::LEN + 14 + usize::from(mtu)
    } else {
        0
    };
    let should = if work.has(feature::GUEST_TSO4 | feature::GUEST_TSO6) {
        LARGE_BUFFER
    } else {
        header::LEN + 1514
    };
    if capacity < must {
        let text = format!("a receive buffer of {capacity} bytes, {must} are due");
        work.report(queue, &text);
    } else if !merged && capacity < should {
        let text = format!("a receive buffer of {capacity} bytes, {should} are advised");
        work.advise(queue, &text);
    }
}

/// The header of a frame; its checksum may be made partial.
fn describe(incoming: &mut Incoming, buffers: u16, work: &mut Work<'_>) -> Vec<u8> {
    let frame = &mut incoming.frame;
    let mut flags = 0;
    let (mut start, mut offset, mut headers) = (0, 0, 0);
    let packet = Packet::parse(frame, true).filter(|packet| packet.verifies(frame));
    if let Some(packet) = packet.filter(|_| work.has(feature::GUEST_CSUM)) {
        let partial = work.latitude.partial_checksums;
        let choice = if partial { work.random.u8(..3) } else { 0 };
        if incoming.large.is_some() || choice == 1 && !packet.is_padded(frame) {
            packet.make_partial(frame);
            flags = header::NEEDS_CSUM;
            start = packet.transport as u16;
            offset = packet.checksum_offset() as u16;
            headers = packet.payload as u16;
        } else if choice == 0 {
            flags = header::DATA_VALID;
        }
    }
    let (kind, size) = incoming.large.unwrap_or((header::GSO_NONE, 0));
    let mut bytes = vec![flags, kind];
    for value in [headers, size, start, offset, buffers] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Writes `bytes` into `chains` and marks them as used.
fn store(queue: &mut Queue, chains: &[Chain], bytes: &[u8], work: &mut Work<'_>) {
    let mut left = bytes;
    let mut used = Vec::new();
    for chain in chains {
        let before = left.len();
        for element in &chain.writable {
            let (now, later) = left.split_at(left.len().min(element.len as usize));
            let mut written = work.bus.write(element.address, now);
            let behind = (element.len as usize - now.len()).min(64);
            if written.is_ok() && behind > 0 && work.latitude.poisons_memory {
                let address = element.address.wrapping_add(now.len() as u64);
                written = work.bus.write(address, &vec![0xa5; behind]);
            }
            if let Err(fault) = written {
                queue.refuse(&unreachable("receive buffer", fault), work);
                return;
            }
            left = later;
        }
        used.push(Used {
            id: chain.id,
            slots: chain.slots,
            len: (before - left.len()) as u32,
            room: chain.capacity() as u32,
        });
    }
    work.counters.frames_received += 1;
    work.counters.bytes_received += (bytes.len() - header::LEN) as u64;
    work.counters.frames_merged += u64::from(used.len() > 1);
    queue.put(&used, false, work);
}
