//! Frames: where the headers are, checksums, segmentation.

use crate::checksum::{combine, sum};

const VLAN: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN_PSH: u8 = 0x01 | 0x08;
const CWR: u8 = 0x80;

/// What the packets of a flow have in common, in both directions: the protocol, and addresses and
/// ports of both ends, the lower end first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flow {
    protocol: u8,
    ends: [Vec<u8>; 2],
}

impl Flow {
    /// A number that any device could compute.
    pub(super) fn number(&self) -> u16 {
        self.ends.iter().fold(0, |all, end| combine(all, sum(end)))
    }
}

/// Where the headers of a TCP or UDP packet are that is not a fragment and has no IPv6 extension
/// headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    ip: usize,
    pub(super) is_ipv6: bool,
    pub(super) protocol: u8,
    pub(super) transport: usize,
    /// Offset of the payload.
    pub(super) payload: usize,
    /// Where the packet ends; padding may follow.
    end: usize,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_be_bytes(*pair))
}

fn put_half(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(target) = bytes.get_mut(at..).and_then(|b| b.first_chunk_mut::<2>()) {
        *target = value.to_be_bytes();
    }
}

impl Packet {
    /// Finds the headers. With `whole`, the length in the IP header is believed; else the packet
    /// runs to the end of the frame (it may be longer than that field can say).
    pub(super) fn parse(frame: &[u8], whole: bool) -> Option<Self> {
        let tagged = half(frame, 12)? == VLAN;
        let ip = if tagged { 18 } else { 14 };
        let (is_ipv6, protocol, transport, len) = match half(frame, ip - 2)? {
            IPV4 => {
                let header = frame.get(ip..)?.first_chunk::<20>()?;
                let len = usize::from(header[0] & 0xf) * 4;
                let is_fragment = half(header, 6)? & 0x3fff != 0;
                if header[0] >> 4 != 4 || len < 20 || is_fragment {
                    return None;
                }
                (false, header[9], ip + len, usize::from(half(header, 2)?))
            }
            IPV6 => {
                let header = frame.get(ip..)?.first_chunk::<40>()?;
                (true, header[6], ip + 40, 40 + usize::from(half(header, 4)?))
            }
            _ => return None,
        };
        let payload = match protocol {
            TCP => transport + usize::from(frame.get(transport + 12)? >> 4) * 4,
            UDP => transport + 8,
            _ => return None,
        };
        let least = transport + if protocol == TCP { 20 } else { 8 };
        let end = if whole { ip + len } else { frame.len() };
        if payload < least || payload > end || end > frame.len() {
            return None;
        }
        Some(Self {
            ip,
            is_ipv6,
            protocol,
            transport,
            payload,
            end,
        })
    }

    /// Offset of the checksum from the transport header.
    pub(super) fn checksum_offset(&self) -> usize {
        if self.protocol == TCP { 16 } else { 6 }
    }

    /// Source and destination address.
    fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        let range = if self.is_ipv6 {
            self.ip + 8..self.ip + 40
        } else {
            self.ip + 12..self.ip + 20
        };
        frame.get(range).unwrap_or_default()
    }

    /// The sum of the pseudo-header.
    pub(super) fn pseudo_sum(&self, frame: &[u8]) -> u16 {
        let len = (self.end - self.transport) as u32;
        let len = combine((len >> 16) as u16, len as u16);
        let rest = combine(len, u16::from(self.protocol));
        combine(sum(self.addresses(frame)), rest)
    }

    /// The value of the checksum field.
    pub(super) fn checksum(&self, frame: &[u8]) -> u16 {
        half(frame, self.transport + self.checksum_offset()).unwrap_or(0)
    }

    /// Whether the transport checksum (and that of an IPv4 header) is right.
    pub(super) fn verifies(&self, frame: &[u8]) -> bool {
        let header = frame.get(self.ip..self.transport).unwrap_or_default();
        if !self.is_ipv6 && sum(header) != 0xffff {
            return false;
        }
        if self.protocol == UDP && self.checksum(frame) == 0 {
            return false;
        }
        let body = frame.get(self.transport..self.end).unwrap_or_default();
        combine(self.pseudo_sum(frame), sum(body)) == 0xffff
    }

    /// Puts the pseudo-header sum where the checksum is, for whoever computes the rest.
    pub(super) fn make_partial(&self, frame: &mut [u8]) {
        let value = self.pseudo_sum(frame);
        put_half(frame, self.transport + self.checksum_offset(), value);
    }

    /// The flow that it belongs to.
    pub(super) fn flow(&self, frame: &[u8]) -> Option<Flow> {
        let addresses = self.addresses(frame);
        let (source, target) = addresses.split_at_checked(addresses.len() / 2)?;
        let ports = frame.get(self.transport..)?.first_chunk::<4>()?;
        let [a, b, c, d] = *ports;
        let mut ends = [[source, &[a, b]].concat(), [target, &[c, d]].concat()];
        ends.sort();
        Some(Flow {
            protocol: self.protocol,
            ends,
        })
    }

    /// Where the packet ends.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Whether there is a VLAN tag.
    pub(super) fn is_tagged(&self) -> bool {
        self.ip != 14
    }

    /// The flags of a TCP packet.
    pub(super) fn tcp_flags(&self, frame: &[u8]) -> Option<u8> {
        frame.get(self.transport + 13).copied()
    }

    /// The sequence number of a TCP packet.
    pub(super) fn sequence(&self, frame: &[u8]) -> u32 {
        let field = frame.get(self.transport + 4..);
        let field = field.and_then(|rest| rest.first_chunk::<4>());
        field.map_or(0, |number| u32::from_be_bytes(*number))
    }

    /// The identification of an IPv4 packet.
    pub(super) fn identification(&self, frame: &[u8]) -> u16 {
        half(frame, self.ip + 4).unwrap_or(0)
    }

    /// Whether DF is set in an IPv4 packet.
    pub(super) fn may_not_fragment(&self, frame: &[u8]) -> bool {
        half(frame, self.ip + 6).is_some_and(|flags| flags & 0x4000 != 0)
    }

    /// Takes flags and window over from the `last` segment, whose headers are in the same places.
    pub(super) fn merge_last(&self, frame: &mut [u8], last: &[u8]) {
        let at = self.transport + 13;
        if let (Some(target), Some(source)) = (frame.get_mut(at..at + 3), last.get(at..at + 3)) {
            target.copy_from_slice(source);
        }
    }

    /// Brings the lengths, and all checksums, in line with a frame that has grown.
    pub(super) fn complete(&self, frame: &mut [u8]) {
        let whole = Self {
            end: frame.len(),
            ..*self
        };
        self.set_length(frame);
        whole.make_partial(frame);
        insert(frame, self.transport, self.checksum_offset());
    }

    /// Whether padding follows the packet.
    pub(super) fn is_padded(&self, frame: &[u8]) -> bool {
        self.end != frame.len()
    }

    /// Bytes of IP and transport header.
    pub(super) fn header_len(&self) -> usize {
        self.payload - self.ip
    }

    /// Whether it is TCP with CWR, which tells of congestion.
    pub(super) fn has_cwr(&self, frame: &[u8]) -> bool {
        let flags = frame.get(self.transport + 13);
        self.protocol == TCP && flags.is_some_and(|flags| flags & CWR != 0)
    }

    /// Cuts a TCP packet into segments of `size` bytes of payload; each is handed to `each`.
    ///
    /// IPv4: total length, identification (counting up) and header checksum; IPv6: payload
    /// length; TCP: sequence number, checksum; FIN and PSH in the last segment only, CWR in the
    /// first.
    pub(super) fn segment(&self, frame: &[u8], size: usize, mut each: impl FnMut(Vec<u8>)) {
        let (Some(headers), Some(payload)) =
            (frame.get(..self.payload), frame.get(self.payload..self.end))
        else {
            return;
        };
        let size = size.max(1);
        let count = payload.len().div_ceil(size).max(1);
        for index in 0..count {
            let from = index * size;
            let to = payload.len().min(from + size);
            let mut segment = headers.to_vec();
            segment.extend_from_slice(payload.get(from..to).unwrap_or_default());
            self.number(&mut segment, index, from);
            let flags = self.transport + 13;
            if let Some(flags) = segment.get_mut(flags) {
                if index + 1 < count {
                    *flags &= !FIN_PSH;
                }
                if index > 0 {
                    *flags &= !CWR;
                }
            }
            let part = Self {
                end: segment.len(),
                ..*self
            };
            part.make_partial(&mut segment);
            insert(&mut segment, self.transport, 16);
            each(segment);
        }
    }

    /// Writes the length of the packet, which is that of the frame, and IPv4's header checksum.
    fn set_length(&self, frame: &mut [u8]) {
        let len = frame.len() - self.ip;
        if self.is_ipv6 {
            put_half(frame, self.ip + 4, (len - 40) as u16);
        } else {
            put_half(frame, self.ip + 2, len as u16);
            put_half(frame, self.ip + 10, 0);
            let checksum = !sum(frame.get(self.ip..self.transport).unwrap_or_default());
            put_half(frame, self.ip + 10, checksum);
        }
    }

    /// Writes lengths, identification and sequence number of segment `index`, whose payload
    /// begins at `from`.
    fn number(&self, segment: &mut [u8], index: usize, from: usize) {
        if !self.is_ipv6 {
            let number = self.identification(segment).wrapping_add(index as u16);
            put_half(segment, self.ip + 4, number);
        }
        self.set_length(segment);
        let field = segment.get_mut(self.transport + 4..);
        if let Some(sequence) = field.and_then(|b| b.first_chunk_mut::<4>()) {
            let number = u32::from_be_bytes(*sequence).wrapping_add(from as u32);
            *sequence = number.to_be_bytes();
        }
    }
}

/// Sums from `start` to the end and puts the complement at `offset` from there; whether that is
/// in the frame. Zero, which means "none" in UDP, goes as its equal 0xffff.
pub(super) fn insert(frame: &mut [u8], start: usize, offset: usize) -> bool {
    if start + offset + 2 > frame.len() {
        return false;
    }
    let value = match !sum(frame.get(start..).unwrap_or_default()) {
        0 if offset == 6 => 0xffff,
        value => value,
    };
    put_half(frame, start + offset, value);
    true
}
