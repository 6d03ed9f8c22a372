//! What the receiver sees in a frame: packet type, checksum verdicts, the input of the hash.

use super::bits::{packet_type, rx_status};
use super::checksum::{combine, sum};

const VLAN: [u8; 2] = [0x81, 0x00];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// The IP packet in a frame.
pub(super) struct Packet<'a> {
    pub(super) is_ipv6: bool,
    header: &'a [u8],
    /// Behind the header, up to the length that the header gives.
    payload: &'a [u8],
    pub(super) protocol: u8,
    is_fragment: bool,
}

impl<'a> Packet<'a> {
    pub(super) fn parse(frame: &'a [u8]) -> Option<Self> {
        let kind = |at: usize| frame.get(at..)?.first_chunk::<2>().copied();
        let (kind, at) = match kind(12)? {
            VLAN => (kind(16)?, 18),
            other => (other, 14),
        };
        match kind {
            IPV4 => Self::parse_ipv4(frame.get(at..)?),
            IPV6 => Self::parse_ipv6(frame.get(at..)?),
            _ => None,
        }
    }

    fn parse_ipv4(packet: &'a [u8]) -> Option<Self> {
        let [first, _, l0, l1, _, _, f0, f1, _, protocol, ..] = *packet.first_chunk::<20>()?;
        let header_len = usize::from(first & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([l0, l1]));
        if first >> 4 != 4 || header_len < 20 || total < header_len {
            return None;
        }
        let (header, payload) = packet.get(..total)?.split_at_checked(header_len)?;
        Some(Self {
            is_ipv6: false,
            header,
            payload,
            protocol,
            // More fragments, or an offset.
            is_fragment: u16::from_be_bytes([f0, f1]) & 0x3fff != 0,
        })
    }

    /// Extension headers are not followed: such a packet has no transport verdict here.
    fn parse_ipv6(packet: &'a [u8]) -> Option<Self> {
        let [first, _, _, _, l0, l1, protocol, ..] = *packet.first_chunk::<40>()?;
        if first >> 4 != 6 {
            return None;
        }
        let (header, rest) = packet.split_at_checked(40)?;
        Some(Self {
            is_ipv6: true,
            header,
            payload: rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?,
            protocol,
            is_fragment: false,
        })
    }

    /// TCP or UDP with its ports at hand.
    pub(super) fn is_transport(&self, protocol: u8) -> bool {
        let least = if protocol == TCP { 20 } else { 8 };
        self.protocol == protocol && !self.is_fragment && self.payload.len() >= least
    }

    /// The packet type of the descriptor.
    pub(super) fn kind(&self) -> u32 {
        let mut kind = match (self.is_ipv6, self.header.len()) {
            (true, _) => packet_type::IPV6,
            (false, 20) => packet_type::IPV4,
            (false, _) => packet_type::IPV4 | packet_type::IPV4_OPTIONS,
        };
        if self.is_transport(TCP) {
            kind |= packet_type::TCP;
        } else if self.is_transport(UDP) {
            kind |= packet_type::UDP;
        }
        kind
    }

    /// A UDP packet over IPv4 without checksum (RFC 768).
    pub(super) fn lacks_checksum(&self) -> bool {
        !self.is_ipv6 && self.is_transport(UDP) && self.payload.get(6..8) == Some(&[0, 0])
    }

    /// Status and error bits about the checksums.
    pub(super) fn verdict(&self) -> u32 {
        let mut status = 0;
        if !self.is_ipv6 {
            status |= rx_status::IPCS;
            if sum(self.header) != 0xffff {
                status |= rx_status::IPE;
            }
        }
        status |= match self.protocol {
            TCP if self.is_transport(TCP) => rx_status::L4CS,
            UDP if self.is_transport(UDP) && !self.lacks_checksum() => {
                rx_status::L4CS | rx_status::UDPCS
            }
            _ => return status,
        };
        if combine(self.pseudo_header(), sum(self.payload)) != 0xffff {
            status |= rx_status::TCPE;
        }
        status
    }

    /// Source and destination address, as they lie in the header.
    pub(super) fn addresses(&self) -> &'a [u8] {
        let range = if self.is_ipv6 { 8..40 } else { 12..20 };
        self.header.get(range).unwrap_or_default()
    }

    /// Source and destination port.
    pub(super) fn ports(&self) -> &'a [u8] {
        self.payload.get(..4).unwrap_or_default()
    }

    fn pseudo_header(&self) -> u16 {
        let len = self.payload.len() as u16;
        combine(
            sum(self.addresses()),
            combine(len, u16::from(self.protocol)),
        )
    }

    /// The identification of an IPv4 packet.
    pub(super) fn identification(&self) -> u16 {
        let field = self.header.get(4..6).filter(|_| !self.is_ipv6);
        let field = field.and_then(|field| field.first_chunk::<2>());
        field.map_or(0, |field| u16::from_be_bytes(*field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_packets_do_not_panic() {
        let mut random = super::super::pace::Random::new(3);
        for round in 0..20_000 {
            let len = random.below(120) as usize;
            let mut frame: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            if let Some(kind) = frame.get_mut(12..14) {
                kind.copy_from_slice(&[IPV4, IPV6, VLAN][random.below(3) as usize]);
            }
            if let Some(packet) = Packet::parse(&frame) {
                let known = rx_status::IPCS
                    | rx_status::IPE
                    | rx_status::L4CS
                    | rx_status::UDPCS
                    | rx_status::TCPE;
                assert_eq!(packet.verdict() & !known, 0, "seed 3, round {round}");
                assert_ne!(packet.kind(), 0, "seed 3, round {round}");
            }
        }
    }
}
