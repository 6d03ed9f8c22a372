//! Reception: frames from the wire into one buffer, or several merged ones.

use std::collections::VecDeque;

use super::bits::{feature, header};
use super::control::Filter;
use super::frame::{Packet, TCP};
use super::queue::{Queue, Work};
use super::ring::{Chain, Used, unreachable};
use crate::Wire;

/// Frames taken from the wire in one step.
const MOST: usize = 256;
/// Bytes of a buffer for what GUEST_TSO may bring, header included (virtio 1.3, "Setting Up
/// Receive Buffers": 65589 and 12).
const LARGE_BUFFER: usize = 65_601;

/// A frame that is on its way into a buffer.
#[derive(Debug)]
struct Incoming {
    frame: Vec<u8>,
    /// gso_type and gso_size of a frame that is longer than the MTU.
    large: Option<(u8, u16)>,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Gone,
    /// There is no room yet.
    Waits,
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

    /// Moves frames into the receive queues of the first `pairs` pairs.
    pub(super) fn receive(
        &mut self,
        queues: &mut [Queue],
        pairs: u16,
        wire: &mut dyn Wire,
        filter: &Filter,
        mtu: u16,
        work: &mut Work<'_>,
    ) -> bool {
        let mut any = false;
        for _ in 0..MOST {
            if self.waiting.is_empty() {
                let mut frame = Vec::new();
                if !wire.receive(&mut frame, work.pace.now) {
                    break;
                }
                any = true;
                if filter.wants(&frame) {
                    self.accept(frame, mtu, work);
                } else {
                    work.counters.frames_filtered += 1;
                }
            }
            let Some(incoming) = self.waiting.front_mut() else {
                continue;
            };
            let flow = Packet::parse(&incoming.frame, false).map_or(0, |p| p.flow(&incoming.frame));
            let index = 2 * (flow % pairs.max(1));
            let Some(queue) = queues.get_mut(usize::from(index)) else {
                break;
            };
            if deliver(queue, incoming, mtu, work) == Outcome::Waits {
                break;
            }
            any = true;
            self.waiting.pop_front();
        }
        any
    }

    /// Decides what to do with a frame that is longer than the MTU.
    fn accept(&mut self, frame: Vec<u8>, mtu: u16, work: &mut Work<'_>) {
        let tag = if frame.get(12..14) == Some(&[0x81, 0]) {
            4
        } else {
            0
        };
        if frame.len() <= usize::from(mtu) + 14 + tag {
            self.waiting.push_back(Incoming { frame, large: None });
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
            self.waiting.push_back(Incoming { frame, large });
        } else {
            packet.segment(&frame, size, |frame| {
                self.waiting.push_back(Incoming { frame, large: None });
            });
        }
    }
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
        if let Some(text) = unfit(&chain, mtu, work) {
            work.report(queue.index, &text);
        }
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

/// What is wrong with the size of a buffer, in words.
fn unfit(chain: &Chain, mtu: u16, work: &Work<'_>) -> Option<String> {
    let capacity = chain.capacity();
    let least = if work.has(feature::MRG_RXBUF) {
        header::LEN
    } else if work.has(feature::GUEST_TSO4 | feature::GUEST_TSO6) {
        LARGE_BUFFER
    } else if work.has(feature::MTU) {
        header::LEN + 14 + usize::from(mtu)
    } else {
        header::LEN + 1514
    };
    (capacity < least).then(|| format!("a receive buffer of {capacity} bytes, {least} are due"))
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
