//! What the receiver says of a frame: packet type, checksum verdicts.

use super::bits::{packet_type, rx_status};
use crate::intel::packet::{Packet, TCP, UDP};

/// The packet type of the descriptor.
pub(super) fn kind(packet: &Packet<'_>) -> u32 {
    let mut kind = match (packet.is_ipv6, packet.header_len()) {
        (true, _) => packet_type::IPV6,
        (false, 20) => packet_type::IPV4,
        (false, _) => packet_type::IPV4 | packet_type::IPV4_OPTIONS,
    };
    if packet.is_transport(TCP) {
        kind |= packet_type::TCP;
    } else if packet.is_transport(UDP) {
        kind |= packet_type::UDP;
    }
    kind
}

/// A UDP packet over IPv4 without checksum (RFC 768).
pub(super) fn lacks_checksum(packet: &Packet<'_>) -> bool {
    !packet.is_ipv6 && packet.has_zero_checksum()
}

/// Status and error bits about the checksums.
pub(super) fn verdict(packet: &Packet<'_>) -> u32 {
    let mut status = 0;
    if !packet.is_ipv6 {
        status |= rx_status::IPCS;
        if !packet.is_header_right() {
            status |= rx_status::IPE;
        }
    }
    status |= match packet.protocol {
        TCP if packet.is_transport(TCP) => rx_status::L4CS,
        UDP if packet.is_transport(UDP) && !lacks_checksum(packet) => {
            rx_status::L4CS | rx_status::UDPCS
        }
        _ => return status,
    };
    if !packet.is_transport_right() {
        status |= rx_status::TCPE;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intel::packet::random_frame;

    #[test]
    fn hostile_packets_do_not_panic() {
        let mut random = super::super::pace::Random::new(3);
        for round in 0..20_000 {
            let frame = random_frame(&mut random);
            if let Some(packet) = Packet::parse(&frame) {
                let known = rx_status::IPCS
                    | rx_status::IPE
                    | rx_status::L4CS
                    | rx_status::UDPCS
                    | rx_status::TCPE;
                assert_eq!(verdict(&packet) & !known, 0, "seed 3, round {round}");
                assert_ne!(kind(&packet), 0, "seed 3, round {round}");
            }
        }
    }
}
