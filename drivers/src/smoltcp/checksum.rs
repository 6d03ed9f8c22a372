//! The checksums that smoltcp leaves out: asked for from the device, or summed here.

use core::num::NonZeroU16;
use core::ops::Range;

use ::smoltcp::wire::{IpAddress, IpProtocol, checksum};
use pagewire_hal::{ChecksumOffload, Offload, RxChecksum, Verdict};

use super::Counters;
use super::mapping::{Checksums, Mapping};
use super::packet::{Content, ETHERNET_HEADER, Packet, Payload, parse, word};

/// Where the fields are, in bytes from the start of their header (RFC 791, 9293, 768).
const IPV4_CHECKSUM: usize = 10;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const UDP_LENGTH: usize = 4;
/// Bytes of the headers without options.
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// Why a frame is not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unsendable {
    /// It is a fragment, which [`Config::fragments`](super::Config::fragments) excludes.
    Fragment,
    /// It cannot be segmented, though smoltcp wants it to be.
    NotSegmentable,
}

/// Completes the checksums that smoltcp has left at zero, or returns what the device is to do:
/// then the seed is in the field. A field that is not zero was written by somebody who knew why
/// (a raw socket) and stays.
pub(super) fn prepare(
    frame: &mut [u8],
    mapping: &Mapping,
    counters: &mut Counters,
) -> Result<Offload, Unsendable> {
    let Content::Ip(packet) = parse(frame) else {
        return Ok(Offload::NONE);
    };
    if packet.payload == Payload::Fragment && !mapping.fragments {
        return Err(Unsendable::Fragment);
    }
    let mut offload = Offload::NONE;
    let header_field = packet.network.start + IPV4_CHECKSUM;
    if packet.is_ipv4() && mapping.transmit.ipv4_header && word(frame, header_field) == Some(0) {
        offload.checksum |= ChecksumOffload::IPV4_HEADER;
    }
    if let Some(sum) = Sum::find(frame, &packet, mapping.transmit)
        && sum.is_vacant(frame)
    {
        match sum.request(frame, &packet, mapping.offered) {
            Some(request) => {
                offload.checksum |= request;
                offload.checksum_offset = sum.offset as u8;
                sum.store(frame, sum.seed(&packet));
                counters.device_checksums += 1;
            }
            None => {
                let complete = sum.complete(frame, &packet);
                sum.store(frame, complete);
                counters.cpu_checksums += 1;
            }
        }
    }
    Ok(with_lengths(offload, &packet))
}

/// Prepares a TCP segment longer than the MTU for the device to cut into pieces of
/// `segment_len` bytes.
pub(super) fn prepare_segmentation(
    frame: &mut [u8],
    segment_len: NonZeroU16,
    mapping: &Mapping,
) -> Result<Offload, Unsendable> {
    const WRONG: Unsendable = Unsendable::NotSegmentable;
    let segmentation = mapping.segmentation.ok_or(WRONG)?;
    let Content::Ip(packet) = parse(frame) else {
        return Err(WRONG);
    };
    let sum = Sum::find(frame, &packet, mapping.transmit).ok_or(WRONG)?;
    if packet.payload != Payload::Tcp || !packet.is_ipv4() {
        return Err(WRONG);
    }
    let data_offset = frame.get(packet.transport.start + 12).ok_or(WRONG)?;
    let l4_len = (data_offset >> 4) * 4;
    let seed = if segmentation.seed_has_length {
        sum.seed(&packet)
    } else {
        pseudo_header(&packet, sum.protocol, 0)
    };
    sum.store(frame, seed);
    put(frame, packet.network.start + IPV4_CHECKSUM, 0);
    let offload = Offload {
        checksum: ChecksumOffload::IPV4_HEADER | ChecksumOffload::TCP_IPV4,
        l4_len,
        segment_len: segment_len.get(),
        ..Offload::NONE
    };
    Ok(with_lengths(offload, &packet))
}

fn with_lengths(mut offload: Offload, packet: &Packet) -> Offload {
    if !offload.checksum.is_empty() {
        offload.l2_len = ETHERNET_HEADER as u8;
        // The header lies within a frame.
        offload.l3_len = u16::try_from(packet.network.len()).unwrap_or(u16::MAX);
    }
    offload
}

/// A transport checksum in a frame.
struct Sum {
    protocol: IpProtocol,
    /// What it covers besides the pseudo-header.
    range: Range<usize>,
    /// Offset of its field in the transport header.
    offset: usize,
}

impl Sum {
    /// The checksum of a whole TCP or UDP packet, if it is among `wanted` and its header is
    /// sound.
    fn find(frame: &[u8], packet: &Packet, wanted: Checksums) -> Option<Self> {
        let start = packet.transport.start;
        let (protocol, end, offset, header) = match packet.payload {
            Payload::Tcp if wanted.tcp => (
                IpProtocol::Tcp,
                packet.transport.end,
                TCP_CHECKSUM,
                TCP_HEADER,
            ),
            Payload::Udp if wanted.udp => {
                let len = usize::from(word(frame, start + UDP_LENGTH)?);
                (IpProtocol::Udp, start + len, UDP_CHECKSUM, UDP_HEADER)
            }
            _ => return None,
        };
        let is_sound = end >= start + header && end <= packet.transport.end;
        is_sound.then_some(Self {
            protocol,
            range: start..end,
            offset,
        })
    }

    fn field(&self) -> usize {
        self.range.start + self.offset
    }

    fn is_vacant(&self, frame: &[u8]) -> bool {
        word(frame, self.field()) == Some(0)
    }

    fn store(&self, frame: &mut [u8], value: u16) {
        put(frame, self.field(), value);
    }

    /// What the device is asked for; `None` if it does not do this one. It sums to the end of
    /// the frame, so there must be nothing behind.
    fn request(
        &self,
        frame: &[u8],
        packet: &Packet,
        offered: ChecksumOffload,
    ) -> Option<ChecksumOffload> {
        use ChecksumOffload as C;
        let (exact, generic) = match (self.protocol, packet.is_ipv4()) {
            (IpProtocol::Tcp, true) => (C::TCP_IPV4, C::GENERIC),
            (IpProtocol::Tcp, false) => (C::TCP_IPV6, C::GENERIC),
            // A generic sum may be stored as zero, which says that there is none (RFC 768).
            (_, true) => (C::UDP_IPV4, C::empty()),
            (_, false) => (C::UDP_IPV6, C::empty()),
        };
        let choice = if offered.contains(exact) {
            exact
        } else {
            generic
        };
        let is_last = self.range.end == frame.len();
        (is_last && !choice.is_empty() && offered.contains(choice)).then_some(choice)
    }

    /// The sum of the pseudo-header, not complemented.
    fn seed(&self, packet: &Packet) -> u16 {
        // The packet lies within a frame of which the length fits.
        let len = u32::try_from(self.range.len()).unwrap_or(u32::MAX);
        pseudo_header(packet, self.protocol, len)
    }

    /// The sum over everything, the field included: all ones if that is right.
    fn total(&self, frame: &[u8], packet: &Packet) -> u16 {
        let bytes = frame.get(self.range.clone()).unwrap_or_default();
        checksum::combine(&[self.seed(packet), checksum::data(bytes)])
    }

    /// The checksum, of a frame whose field is zero.
    fn complete(&self, frame: &[u8], packet: &Packet) -> u16 {
        match !self.total(frame, packet) {
            0 if self.protocol == IpProtocol::Udp => u16::MAX,
            sum => sum,
        }
    }
}

fn pseudo_header(packet: &Packet, protocol: IpProtocol, len: u32) -> u16 {
    // smoltcp panics on addresses of two families.
    match (packet.source, packet.destination) {
        (IpAddress::Ipv4(source), IpAddress::Ipv4(destination)) => {
            checksum::pseudo_header_v4(&source, &destination, protocol, len)
        }
        (IpAddress::Ipv6(source), IpAddress::Ipv6(destination)) => {
            checksum::pseudo_header_v6(&source, &destination, protocol, len)
        }
        _ => 0,
    }
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    if let Some(field) = frame.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = value.to_be_bytes();
    }
}

/// Whether smoltcp may have a received frame: what it was told not to verify is verified by
/// then, by the device or here. Counts why not.
pub(super) fn accept(
    frame: &[u8],
    verdict: RxChecksum,
    mapping: &Mapping,
    counters: &mut Counters,
) -> bool {
    if verdict.ipv4_header == Verdict::Bad || verdict.transport == Verdict::Bad {
        counters.bad_checksums += 1;
        return false;
    }
    let packet = match parse(frame) {
        Content::Other => return true,
        Content::Malformed => {
            counters.malformed += 1;
            return false;
        }
        Content::Ip(packet) => packet,
    };
    if packet.payload == Payload::Fragment && !mapping.fragments {
        counters.receive_fragments += 1;
        return false;
    }
    let wanted = mapping.receive;
    let header_ok = !(packet.is_ipv4() && wanted.ipv4_header)
        || verdict.ipv4_header == Verdict::Good
        || checksum::data(frame.get(packet.network.clone()).unwrap_or_default()) == u16::MAX;
    let transport_ok = match packet.payload {
        Payload::Tcp if wanted.tcp => transport(frame, &packet, verdict, mapping, counters),
        Payload::Udp if wanted.udp => transport(frame, &packet, verdict, mapping, counters),
        _ => true,
    };
    if !(header_ok && transport_ok) {
        counters.bad_checksums += 1;
    }
    header_ok && transport_ok
}

fn transport(
    frame: &[u8],
    packet: &Packet,
    verdict: RxChecksum,
    mapping: &Mapping,
    counters: &mut Counters,
) -> bool {
    if verdict.transport == Verdict::Good {
        counters.device_verified += 1;
        return true;
    }
    counters.cpu_verified += 1;
    let Some(sum) = Sum::find(frame, packet, mapping.receive) else {
        return false;
    };
    // Over IPv4, UDP may do without; over IPv6 it may not (RFC 8200, section 8.1).
    if sum.protocol == IpProtocol::Udp && sum.is_vacant(frame) {
        return packet.is_ipv4();
    }
    sum.total(frame, packet) == u16::MAX
}

#[cfg(test)]
#[path = "checksum_tests.rs"]
mod tests;
