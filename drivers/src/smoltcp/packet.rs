//! Finds the transport header of an Ethernet frame: IPv4 with options, IPv6 with extension
//! headers.

use core::ops::Range;

use ::smoltcp::wire::{IpAddress, IpProtocol, Ipv4Address, Ipv6Address};

/// Bytes of an Ethernet header. smoltcp knows no VLAN tags, so there are none.
pub(super) const ETHERNET_HEADER: usize = 14;
/// Bytes of an IPv4 header without options (RFC 791).
pub(super) const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header without extensions (RFC 8200).
const IPV6_HEADER: usize = 40;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// What a frame is, for those who care for checksums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// No IP at all.
    Other,
    /// IP with lengths that contradict each other, or whose transport header cannot be found or
    /// judged from here.
    Malformed,
    /// An IP packet.
    Ip(Packet),
}

/// An IP packet within a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Packet {
    /// Of IPv4 the header with its options, of IPv6 that with all extension headers, as offsets
    /// in the frame.
    pub(super) network: Range<usize>,
    /// What follows up to the end of the packet, as offsets in the frame; the frame may be
    /// longer.
    pub(super) transport: Range<usize>,
    pub(super) source: IpAddress,
    pub(super) destination: IpAddress,
    pub(super) payload: Payload,
}

/// What the transport part of a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Payload {
    /// A whole TCP segment.
    Tcp,
    /// A whole UDP datagram.
    Udp,
    /// A fragment of a packet.
    Fragment,
    /// Another protocol.
    Other,
}

impl Packet {
    pub(super) const fn is_ipv4(&self) -> bool {
        matches!(self.source, IpAddress::Ipv4(_))
    }
}

/// Looks into a frame.
pub(super) fn parse(frame: &[u8]) -> Content {
    let packet = match word(frame, 12) {
        Some(ETHERTYPE_IPV4) => ipv4(frame),
        Some(ETHERTYPE_IPV6) => ipv6(frame),
        _ => return Content::Other,
    };
    packet.map_or(Content::Malformed, Content::Ip)
}

/// The big-endian 16 bits at `at`.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

const fn payload(protocol: u8) -> Payload {
    match protocol {
        6 => Payload::Tcp,
        17 => Payload::Udp,
        _ => Payload::Other,
    }
}

fn ipv4(frame: &[u8]) -> Option<Packet> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let header: &[u8; IPV4_HEADER] = packet.first_chunk()?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(word(header, 2)?);
    let is_sound = header[0] >> 4 == 4
        && header_len >= IPV4_HEADER
        && header_len <= total_len
        && total_len <= packet.len();
    if !is_sound {
        return None;
    }
    // More fragments, or an offset.
    let is_fragment = word(header, 6)? & 0x3fff != 0;
    let network_end = ETHERNET_HEADER + header_len;
    Some(Packet {
        network: ETHERNET_HEADER..network_end,
        transport: network_end..ETHERNET_HEADER + total_len,
        source: Ipv4Address::from_octets(*header.get(12..)?.first_chunk()?).into(),
        destination: Ipv4Address::from_octets(*header.get(16..)?.first_chunk()?).into(),
        payload: if is_fragment {
            Payload::Fragment
        } else {
            payload(header[9])
        },
    })
}

fn ipv6(frame: &[u8]) -> Option<Packet> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    let header: &[u8; IPV6_HEADER] = packet.first_chunk()?;
    let packet_len = IPV6_HEADER + usize::from(word(header, 4)?);
    if header[0] >> 4 != 6 || packet_len > packet.len() {
        return None;
    }
    let (header_len, payload) = extensions(packet.get(..packet_len)?, header[6])?;
    let network_end = ETHERNET_HEADER + header_len;
    Some(Packet {
        network: ETHERNET_HEADER..network_end,
        transport: network_end..ETHERNET_HEADER + packet_len,
        source: Ipv6Address::from_octets(*header.get(8..)?.first_chunk()?).into(),
        destination: Ipv6Address::from_octets(*header.get(24..)?.first_chunk()?).into(),
        payload,
    })
}

/// Where the extension headers of an IPv6 packet end, and what follows; `None` if they do not
/// end within it.
fn extensions(packet: &[u8], first: u8) -> Option<(usize, Payload)> {
    let mut at = IPV6_HEADER;
    let mut next = first;
    // Each round moves on by 8 bytes at least.
    loop {
        let header: Option<&[u8; 8]> = packet.get(at..).and_then(<[u8]>::first_chunk);
        let len = match IpProtocol::from(next) {
            // RFC 8200, section 8.1: with segments left, the checksum is made with another
            // destination, the last one of the route. Nobody sends that to smoltcp (RFC 5095).
            IpProtocol::Ipv6Route if header?[3] != 0 => return None,
            IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                (usize::from(header?[1]) + 1) * 8
            }
            IpProtocol::Ipv6Frag => return Some((at, Payload::Fragment)),
            _ => return Some((at, payload(next))),
        };
        next = header?[0];
        at += len;
        if at > packet.len() {
            return None;
        }
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
