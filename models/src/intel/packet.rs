//! What a receiver sees of the IP packet in a frame.

use crate::checksum::{combine, sum};

const VLAN: u16 = 0x8100;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// The IP packet in a frame.
pub(crate) struct Packet<'a> {
    /// Where its header begins in the frame.
    start: usize,
    pub(crate) is_ipv6: bool,
    header: &'a [u8],
    /// Behind the header, up to the length that the header gives.
    payload: &'a [u8],
    pub(crate) protocol: u8,
    is_fragment: bool,
}

impl<'a> Packet<'a> {
    pub(crate) fn parse(frame: &'a [u8]) -> Option<Self> {
        Self::parse_behind(VLAN, frame)
    }

    /// The packet in a frame that may have a tag of this type.
    pub(crate) fn parse_behind(tag: u16, frame: &'a [u8]) -> Option<Self> {
        let kind = |at: usize| frame.get(at..)?.first_chunk::<2>().copied();
        let (kind, at) = match kind(12)? {
            first if first == tag.to_be_bytes() => (kind(16)?, 18),
            other => (other, 14),
        };
        match kind {
            IPV4 => Self::parse_ipv4(at, frame.get(at..)?),
            IPV6 => Self::parse_ipv6(at, frame.get(at..)?),
            _ => None,
        }
    }

    fn parse_ipv4(start: usize, packet: &'a [u8]) -> Option<Self> {
        let [first, _, l0, l1, _, _, f0, f1, _, protocol, ..] = *packet.first_chunk::<20>()?;
        let header_len = usize::from(first & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([l0, l1]));
        if first >> 4 != 4 || header_len < 20 || total < header_len {
            return None;
        }
        let (header, payload) = packet.get(..total)?.split_at_checked(header_len)?;
        Some(Self {
            start,
            is_ipv6: false,
            header,
            payload,
            protocol,
            // More fragments, or an offset.
            is_fragment: u16::from_be_bytes([f0, f1]) & 0x3fff != 0,
        })
    }

    /// Extension headers are not followed: such a packet has no transport verdict here.
    fn parse_ipv6(start: usize, packet: &'a [u8]) -> Option<Self> {
        let [first, _, _, _, l0, l1, protocol, ..] = *packet.first_chunk::<40>()?;
        if first >> 4 != 6 {
            return None;
        }
        let (header, rest) = packet.split_at_checked(40)?;
        Some(Self {
            start,
            is_ipv6: true,
            header,
            payload: rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?,
            protocol,
            is_fragment: false,
        })
    }

    /// Bytes of the IP header.
    pub(crate) fn header_len(&self) -> usize {
        self.header.len()
    }

    /// Bytes of the frame before what the packet carries: behind TCP or UDP, or, in a fragment,
    /// behind IP. `None` with any other protocol, or without the whole header.
    pub(crate) fn headers_len(&self) -> Option<usize> {
        let behind_ip = self.start + self.header.len();
        let transport = match self.protocol {
            _ if self.is_fragment => 0,
            TCP if self.is_transport(TCP) => usize::from(self.payload.get(12)? >> 4) * 4,
            UDP if self.is_transport(UDP) => 8,
            _ => return None,
        };
        (transport <= self.payload.len()).then_some(behind_ip + transport)
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.is_fragment
    }

    /// TCP or UDP with all of its header at hand.
    pub(crate) fn is_transport(&self, protocol: u8) -> bool {
        let least = if protocol == TCP { 20 } else { 8 };
        self.protocol == protocol && !self.is_fragment && self.payload.len() >= least
    }

    /// A UDP packet whose checksum is zero: over IPv4 it has none (RFC 768).
    pub(crate) fn has_zero_checksum(&self) -> bool {
        self.is_transport(UDP) && self.payload.get(6..8) == Some(&[0, 0])
    }

    /// Whether the checksum of the IPv4 header is right.
    pub(crate) fn is_header_right(&self) -> bool {
        sum(self.header) == 0xffff
    }

    /// Whether the checksum of TCP or UDP is right.
    pub(crate) fn is_transport_right(&self) -> bool {
        combine(self.pseudo_header(), sum(self.payload)) == 0xffff
    }

    /// Source and destination address, as they lie in the header.
    pub(crate) fn addresses(&self) -> &'a [u8] {
        let range = if self.is_ipv6 { 8..40 } else { 12..20 };
        self.header.get(range).unwrap_or_default()
    }

    /// Source and destination port.
    pub(crate) fn ports(&self) -> &'a [u8] {
        self.payload.get(..4).unwrap_or_default()
    }

    fn pseudo_header(&self) -> u16 {
        let len = self.payload.len() as u16;
        combine(
            sum(self.addresses()),
            combine(len, u16::from(self.protocol)),
        )
    }

    /// The identification of an IPv4 packet; 0 of another.
    pub(crate) fn identification(&self) -> u16 {
        let field = self.header.get(4..6).filter(|_| !self.is_ipv6);
        let field = field.and_then(|field| field.first_chunk::<2>());
        field.map_or(0, |field| u16::from_be_bytes(*field))
    }
}

/// A frame of random bytes that often looks like one of IP.
#[cfg(test)]
pub(crate) fn random_frame(random: &mut crate::pace::Random) -> Vec<u8> {
    let len = random.below(120) as usize;
    let mut frame: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
    if let Some(kind) = frame.get_mut(12..14) {
        kind.copy_from_slice(&[IPV4, IPV6, VLAN.to_be_bytes()][random.below(3) as usize]);
    }
    frame
}
