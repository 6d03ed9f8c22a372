//! Transmission: a buffer becomes a frame, or several.

use super::bits::{feature, header};
use super::frame::{Packet, TCP, insert};
use super::queue::{Queue, Work};
use super::ring::{Chain, Used, unreachable};
use super::steering::Steering;
use crate::Wire;

/// `virtio_net_hdr` as the driver wrote it.
#[derive(Clone, Copy, Debug)]
struct Header {
    flags: u8,
    kind: u8,
    header_len: u16,
    size: u16,
    start: u16,
    offset: u16,
    buffers: u16,
}

impl Header {
    fn parse(frame: &[u8]) -> Option<Self> {
        let [flags, kind, a, b, c, d, e, f, g, h, i, j] =
            *frame.first_chunk::<{ header::LEN }>()?;
        Some(Self {
            flags,
            kind,
            header_len: u16::from_le_bytes([a, b]),
            size: u16::from_le_bytes([c, d]),
            start: u16::from_le_bytes([e, f]),
            offset: u16::from_le_bytes([g, h]),
            buffers: u16::from_le_bytes([i, j]),
        })
    }

    fn needs_checksum(&self) -> bool {
        self.flags & header::NEEDS_CSUM != 0
    }
}

/// Sends what was fetched; returns whether there was anything.
pub(super) fn transmit(
    queue: &mut Queue,
    wire: &mut dyn Wire,
    steering: &mut Steering,
    mtu: u16,
    work: &mut Work<'_>,
) -> bool {
    let mut any = false;
    while let Some(chain) = queue.stock.pop_front() {
        any = true;
        work.counters.buffers_sent += 1;
        let fragments = chain.fragments() as u32;
        work.counters.fragments += u64::from(fragments);
        work.counters.most_fragments = work.counters.most_fragments.max(fragments);
        let sent = fetch(&chain, work)
            .inspect(|(_, frame)| steering.note(frame, queue.index / 2))
            .and_then(|(header, frame)| send(queue.index, &header, frame, wire, mtu, work));
        if let Err(text) = sent {
            work.counters.buffers_dropped += 1;
            work.report(queue.index, &text);
        }
        let used = Used {
            id: chain.id,
            slots: chain.slots,
            len: 0,
            room: 0,
        };
        queue.finish(used, work);
    }
    any
}

/// Reads a buffer: the header of virtio, and the frame.
fn fetch(chain: &Chain, work: &mut Work<'_>) -> Result<(Header, Vec<u8>), String> {
    if !chain.writable.is_empty() {
        return Err("a device-writable descriptor in a transmit buffer".to_owned());
    }
    let mut frame = Vec::new();
    for element in &chain.readable {
        work.bus
            .append(element.address, element.len as usize, &mut frame)
            .map_err(|fault| unreachable("transmit buffer", fault))?;
    }
    let header = Header::parse(&frame).ok_or_else(|| {
        format!(
            "a transmit buffer of {} bytes, less than its header",
            frame.len()
        )
    })?;
    frame.drain(..header::LEN);
    if frame.len() < 14 {
        return Err(format!("a frame of {} bytes", frame.len()));
    }
    let len = frame.len() as u32;
    work.counters.bytes_requested += u64::from(len);
    work.counters.most_bytes = work.counters.most_bytes.max(len);
    Ok((header, frame))
}

fn send(
    queue: u16,
    header: &Header,
    frame: Vec<u8>,
    wire: &mut dyn Wire,
    mtu: u16,
    work: &mut Work<'_>,
) -> Result<(), String> {
    if header.flags & !header::NEEDS_CSUM != 0 {
        work.report(
            queue,
            &format!("header flags {:#x} in transmission", header.flags),
        );
    }
    if header.buffers != 0 && work.beyond_dpdk {
        work.report(
            queue,
            &format!("num_buffers {} in transmission", header.buffers),
        );
    }
    if header.needs_checksum() {
        check_partial(queue, header, &frame, work)?;
    }
    if header.kind == header::GSO_NONE {
        return send_one(header, frame, wire, mtu, work);
    }
    let packet = check_segmentation(queue, header, &frame, work)?;
    work.counters.segmented += 1;
    work.counters.segmented_payload += (packet.end() - packet.payload) as u64;
    work.counters.checksums_inserted += 1;
    let mut segments = Vec::new();
    packet.segment(&frame, usize::from(header.size), |segment| {
        segments.push(segment)
    });
    work.counters.segments_made += segments.len() as u64;
    for segment in segments {
        put(segment, wire, work);
    }
    Ok(())
}

/// A frame that goes as it is, but for its checksum.
fn send_one(
    header: &Header,
    mut frame: Vec<u8>,
    wire: &mut dyn Wire,
    mtu: u16,
    work: &mut Work<'_>,
) -> Result<(), String> {
    let tag = if frame.get(12..14) == Some(&[0x81, 0]) {
        4
    } else {
        0
    };
    let longest = usize::from(mtu) + 14 + tag;
    if frame.len() > longest && work.has(feature::MTU) {
        return Err(format!(
            "a frame of {} bytes with an MTU of {mtu}",
            frame.len()
        ));
    }
    if header.needs_checksum() {
        insert(&mut frame, header.start.into(), header.offset.into());
        work.counters.checksums_inserted += 1;
    }
    put(frame, wire, work);
    Ok(())
}

fn put(mut frame: Vec<u8>, wire: &mut dyn Wire, work: &mut Work<'_>) {
    work.counters.frames_sent += 1;
    work.counters.bytes_sent += frame.len() as u64;
    wire.transmit(&mut frame, work.pace.now);
}

/// The fields about the checksum.
fn check_partial(
    queue: u16,
    header: &Header,
    frame: &[u8],
    work: &mut Work<'_>,
) -> Result<(), String> {
    if !work.has(feature::CSUM) {
        return Err("NEEDS_CSUM without CSUM".to_owned());
    }
    let (start, offset) = (usize::from(header.start), usize::from(header.offset));
    if start + offset + 2 > frame.len() {
        let len = frame.len();
        return Err(format!(
            "csum_start {start} and csum_offset {offset} in a frame of {len} bytes"
        ));
    }
    // What the field must hold can be said of TCP and UDP only. A frame that is not segmented may
    // be padded, which the pseudo-header does not count.
    let whole = header.kind == header::GSO_NONE;
    if let Some(packet) = Packet::parse(frame, whole)
        && (packet.transport, packet.checksum_offset()) == (start, offset)
    {
        let (seed, due) = (packet.checksum(frame), packet.pseudo_sum(frame));
        // Zero has two forms.
        if seed != due && !(matches!(seed, 0 | 0xffff) && matches!(due, 0 | 0xffff)) {
            let text =
                format!("the checksum field is {seed:#06x}, the pseudo-header sum {due:#06x}");
            work.report(queue, &text);
        }
    }
    Ok(())
}

/// The fields about segmentation, and whether the frame is what they say.
fn check_segmentation(
    queue: u16,
    header: &Header,
    frame: &[u8],
    work: &mut Work<'_>,
) -> Result<Packet, String> {
    let kind = header.kind;
    if kind & header::GSO_ECN != 0 {
        return Err(format!("gso_type {kind:#x} without HOST_ECN"));
    }
    let (wanted, is_ipv6) = match kind {
        header::GSO_TCPV4 => (feature::HOST_TSO4, false),
        header::GSO_TCPV6 => (feature::HOST_TSO6, true),
        _ => return Err(format!("gso_type {kind:#x}")),
    };
    if !work.has(wanted) {
        return Err(format!("gso_type {kind:#x} that was not negotiated"));
    }
    if !header.needs_checksum() {
        return Err("segmentation without NEEDS_CSUM".to_owned());
    }
    if header.size == 0 {
        return Err("gso_size 0".to_owned());
    }
    let packet = Packet::parse(frame, false)
        .filter(|packet| packet.protocol == TCP && packet.is_ipv6 == is_ipv6)
        .ok_or_else(|| format!("gso_type {kind:#x} and another packet"))?;
    if usize::from(header.start) != packet.transport || header.offset != 16 {
        return Err(format!(
            "csum_start {} and csum_offset {} with a TCP header at {}",
            header.start, header.offset, packet.transport
        ));
    }
    // A hint, as GUEST_HDRLEN is not offered: SHOULD be no less. QEMU and Linux look at it.
    let len = usize::from(header.header_len);
    if len < packet.payload || len > frame.len() {
        let is = packet.payload;
        work.advise(queue, &format!("hdr_len {len}, and {is} bytes of headers"));
    }
    if packet.has_cwr(frame) {
        work.advise(queue, "segmentation of a packet with CWR, without HOST_ECN");
    }
    Ok(packet)
}
