//! Joining received segments: consecutive ones of a TCP flow become one large packet, for
//! a driver that negotiated GUEST_TSO4 or GUEST_TSO6.
//!
//! The specification does not say when a device may do so, only what the packet must look like
//! ("Processing of Incoming Packets"). Joined is what segmentation would take apart again, as in
//! Linux's generic receive offload: equal headers but for length, identification, sequence number,
//! window and the flags of the last; full segments but for the last.

use super::bits::{feature, header};
use super::frame::{Packet, TCP};
use super::queue::Work;

/// Longest IPv4 packet, and longest payload of IPv6 (without jumbograms).
const LONGEST: usize = 65_535;
/// TCP flags: those that any segment may have, and those that end a packet.
const ACK: u8 = 0x10;
const LAST: u8 = 0x01 | 0x08;

/// A large packet in the making.
#[derive(Debug)]
pub(super) struct Join {
    frame: Vec<u8>,
    packet: Packet,
    /// Payload of the first segment.
    size: usize,
    segments: u16,
    /// Nothing more can follow.
    ended: bool,
}

/// A segment that may become a part of a large packet.
fn segment(frame: &[u8]) -> Option<Packet> {
    let packet = Packet::parse(frame, true)?;
    let flags = packet.tcp_flags(frame)?;
    let fits = packet.protocol == TCP
        && !packet.is_tagged()
        && packet.payload < packet.end()
        && flags & ACK != 0
        && flags & !(ACK | LAST) == 0
        && packet.verifies(frame);
    fits.then_some(packet)
}

impl Join {
    /// Begins with `frame`, if it can be a first segment and was negotiated.
    pub(super) fn start(frame: &[u8], work: &Work<'_>) -> Option<Self> {
        let tso = feature::GUEST_TSO4 | feature::GUEST_TSO6;
        if !work.latitude.joins_segments || work.features & tso == 0 {
            return None;
        }
        let packet = segment(frame)?;
        let wanted = if packet.is_ipv6 {
            feature::GUEST_TSO6
        } else {
            feature::GUEST_TSO4
        };
        if !work.has(wanted) {
            return None;
        }
        Some(Self {
            frame: frame.get(..packet.end())?.to_vec(),
            size: packet.end() - packet.payload,
            ended: packet.tcp_flags(frame)? & LAST != 0,
            packet,
            segments: 1,
        })
    }

    /// Appends `frame` if it is the next segment and the whole has `room` bytes at most.
    pub(super) fn takes(&mut self, frame: &[u8], room: usize) -> bool {
        if self.ended {
            return false;
        }
        let Some(next) = segment(frame) else {
            return false;
        };
        let len = next.end() - next.payload;
        let headers = if self.packet.is_ipv6 { 54 } else { 14 };
        if len > self.size
            || self.frame.len() + len > room.min(LONGEST + headers)
            || !self.is_next(&next, frame)
        {
            return false;
        }
        let Some(payload) = frame.get(next.payload..next.end()) else {
            return false;
        };
        self.frame.extend_from_slice(payload);
        let flags = next.tcp_flags(frame).unwrap_or(0);
        self.packet.merge_last(&mut self.frame, frame);
        self.segments += 1;
        self.ended = len < self.size || flags & LAST != 0;
        true
    }

    /// Whether the headers are those of the next segment.
    fn is_next(&self, next: &Packet, frame: &[u8]) -> bool {
        let same = |from: usize, to: usize| self.frame.get(from..to) == frame.get(from..to);
        let transport = self.packet.transport;
        let ip = if self.packet.is_ipv6 {
            // Version, class and label; next header, hop limit, addresses.
            same(14, 18) && same(20, 54)
        } else {
            // Version, length, type of service; fragment, time to live, protocol; the rest.
            let follows = self.packet.identification(frame)
                == self
                    .packet
                    .identification(&self.frame)
                    .wrapping_add(self.segments);
            same(14, 16)
                && same(20, 24)
                && same(26, transport)
                && (follows || self.packet.may_not_fragment(frame))
        };
        let payload = (self.frame.len() - self.packet.payload) as u32;
        let sequence = self.packet.sequence(&self.frame).wrapping_add(payload);
        // Ports; acknowledgement and length of the header; options.
        (next.transport, next.payload) == (transport, self.packet.payload)
            && same(0, 14)
            && ip
            && same(transport, transport + 4)
            && self.packet.sequence(frame) == sequence
            && same(transport + 8, transport + 13)
            && same(transport + 20, self.packet.payload)
    }

    /// Segments so far.
    pub(super) fn segments(&self) -> u16 {
        self.segments
    }

    /// The packet with lengths and checksums in order, and its gso_type and gso_size if it is
    /// more than one segment.
    pub(super) fn finish(mut self) -> (Vec<u8>, Option<(u8, u16)>) {
        if self.segments < 2 {
            return (self.frame, None);
        }
        self.packet.complete(&mut self.frame);
        let kind = if self.packet.is_ipv6 {
            header::GSO_TCPV6
        } else {
            header::GSO_TCPV4
        };
        (self.frame, Some((kind, self.size as u16)))
    }
}
