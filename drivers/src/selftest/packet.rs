//! Frames for the tests, and sums of them computed the plain way: no code is shared with what is
//! tested.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pagewire_hal::{ChecksumOffload, MacAddress, Offload};

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Hosts 1 and 2 of networks for documentation (RFC 5737, RFC 3849).
const IPV4: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const IPV6: [[u8; 16]; 2] = [ipv6(1), ipv6(2)];

const fn ipv6(host: u8) -> [u8; 16] {
    [
        0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host,
    ]
}

/// The folded ones' complement sum of 16-bit words in network order, an odd last byte padded with
/// zero (RFC 1071).
pub(super) fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            total += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([*field.first()?, *field.get(1)?]))
}

/// Whether `frame` is between the two hosts, as far as its type and addresses say.
pub(super) fn is_between_hosts(frame: &[u8]) -> bool {
    let [near, far] = IPV4;
    let [near6, far6] = IPV6;
    let has = |at: usize, addresses: [&[u8]; 2]| {
        let rest = frame.get(at..).unwrap_or_default();
        let [one, other] = addresses;
        let behind = rest.get(one.len()..).unwrap_or_default();
        (rest.starts_with(one) && behind.starts_with(other))
            || (rest.starts_with(other) && behind.starts_with(one))
    };
    match frame.get(12..14) {
        Some([0x08, 0x00]) => has(ETHERNET + 12, [&near, &far]),
        Some([0x86, 0xdd]) => has(ETHERNET + 8, [&near6, &far6]),
        _ => false,
    }
}

/// A packet of TCP or UDP over IP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) destination: MacAddress,
    pub(super) source: MacAddress,
    pub(super) is_ipv6: bool,
    pub(super) is_tcp: bool,
    /// Whether it goes from host 2 to host 1, and its ports are exchanged.
    pub(super) is_reply: bool,
    /// Of host 1.
    pub(super) port: u16,
    /// TCP's number of the first byte of payload.
    pub(super) sequence: u32,
}

/// The port of host 2.
pub(super) const SERVICE: u16 = 9;

impl Packet {
    pub(super) const fn network_len(&self) -> usize {
        if self.is_ipv6 { 40 } else { 20 }
    }

    pub(super) const fn transport_len(&self) -> usize {
        if self.is_tcp { 20 } else { 8 }
    }

    pub(super) const fn header_len(&self) -> usize {
        ETHERNET + self.network_len() + self.transport_len()
    }

    const fn checksum_at(&self) -> usize {
        ETHERNET + self.network_len() + if self.is_tcp { 16 } else { 6 }
    }

    const fn protocol(&self) -> u8 {
        if self.is_tcp { TCP } else { UDP }
    }

    /// What inserts the transport checksum.
    pub(super) const fn transport_request(&self) -> ChecksumOffload {
        match (self.is_tcp, self.is_ipv6) {
            (true, false) => ChecksumOffload::TCP_IPV4,
            (true, true) => ChecksumOffload::TCP_IPV6,
            (false, false) => ChecksumOffload::UDP_IPV4,
            (false, true) => ChecksumOffload::UDP_IPV6,
        }
    }

    /// The request of `checksum`, of segments of `segment_len` bytes or of one packet (0).
    pub(super) fn offload(&self, checksum: ChecksumOffload, segment_len: u16) -> Offload {
        Offload {
            checksum,
            l2_len: ETHERNET as u8,
            l3_len: self.network_len() as u16,
            l4_len: self.transport_len() as u8,
            checksum_offset: if self.is_tcp { 16 } else { 6 },
            segment_len,
        }
    }

    /// All headers, for `len` bytes of payload. Both checksums are 0.
    pub(super) fn header(&self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_len());
        bytes.extend_from_slice(&self.destination.0);
        bytes.extend_from_slice(&self.source.0);
        let transport = (self.transport_len() + len) as u16;
        let order = if self.is_reply { [1, 0] } else { [0, 1] };
        if self.is_ipv6 {
            bytes.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            bytes.extend_from_slice(&transport.to_be_bytes());
            bytes.extend_from_slice(&[self.protocol(), 64]);
            for host in order {
                bytes.extend_from_slice(IPV6.get(host).unwrap_or(&[0; 16]));
            }
        } else {
            bytes.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
            bytes.extend_from_slice(&(20u16.wrapping_add(transport)).to_be_bytes());
            // Identification 1, do not fragment, 64 hops, no checksum yet.
            bytes.extend_from_slice(&[0, 1, 0x40, 0, 64, self.protocol(), 0, 0]);
            for host in order {
                bytes.extend_from_slice(IPV4.get(host).unwrap_or(&[0; 4]));
            }
        }
        let (from, to) = match self.is_reply {
            true => (SERVICE, self.port),
            false => (self.port, SERVICE),
        };
        bytes.extend_from_slice(&from.to_be_bytes());
        bytes.extend_from_slice(&to.to_be_bytes());
        if self.is_tcp {
            bytes.extend_from_slice(&self.sequence.to_be_bytes());
            // Acknowledges 1; five words of header, ACK and PSH, a window, no checksum yet.
            bytes.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x18, 0x20, 0, 0, 0, 0, 0]);
        } else {
            bytes.extend_from_slice(&transport.to_be_bytes());
            bytes.extend_from_slice(&[0, 0]);
        }
        bytes
    }

    /// The sum of the pseudo-header for `len` bytes of transport header and payload.
    fn pseudo_sum(&self, len: usize) -> u16 {
        let [from, to] = IPV4;
        let [from6, to6] = IPV6;
        let len = (len as u32).to_be_bytes();
        let protocol = [0, self.protocol()];
        if self.is_ipv6 {
            sum(&[&from6, &to6, &len, &protocol])
        } else {
            sum(&[&from, &to, &len, &protocol])
        }
    }

    /// Puts in what a device wants that completes the transport checksum: the sum of the
    /// pseudo-header for `len` bytes of payload, or without the length (`None`).
    pub(super) fn seed(&self, header: &mut [u8], len: Option<usize>) {
        let len = len.map_or(0, |len| self.transport_len() + len);
        put(header, self.checksum_at(), self.pseudo_sum(len));
    }

    /// Takes the lengths out of the IP header.
    pub(super) fn clear_lengths(&self, header: &mut [u8]) {
        put(header, ETHERNET + if self.is_ipv6 { 4 } else { 2 }, 0);
    }

    /// The right IPv4 header checksum into `header`.
    pub(super) fn fill_network(&self, header: &mut [u8]) {
        if self.is_ipv6 {
            return;
        }
        put(header, ETHERNET + 10, 0);
        let value = !sum(&[header.get(ETHERNET..ETHERNET + 20).unwrap_or_default()]);
        put(header, ETHERNET + 10, value);
    }

    /// The right transport checksum into the header of a packet with `payload`.
    pub(super) fn fill_transport(&self, header: &mut [u8], payload: &[u8]) {
        put(header, self.checksum_at(), 0);
        let start = ETHERNET + self.network_len();
        let pseudo = self.pseudo_sum(self.transport_len() + payload.len());
        let transport = header.get(start..).unwrap_or_default();
        // Headers have an even length, so the payload begins a word.
        let value = match !sum(&[&pseudo.to_be_bytes(), transport, payload]) {
            // 0 would say that there is none (RFC 768).
            0 if !self.is_tcp => 0xffff,
            value => value,
        };
        put(header, self.checksum_at(), value);
    }

    /// Turns bits of a checksum around: of the transport's, or of the IPv4 header's.
    pub(super) fn spoil(&self, frame: &mut [u8], network: bool) {
        let at = if network {
            ETHERNET + 10
        } else {
            self.checksum_at()
        };
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= 0x5a;
        }
    }

    /// Whether `frame` is one of this flow, as far as its addresses and ports say.
    pub(super) fn is_of(&self, frame: &[u8]) -> bool {
        let header = self.header(0);
        let same = |from: usize, to: usize| {
            frame.get(from..to).is_some() && frame.get(from..to) == header.get(from..to)
        };
        let network = ETHERNET + if self.is_ipv6 { 8 } else { 12 };
        let ports = ETHERNET + self.network_len();
        same(0, ETHERNET) && same(network, ports + 4)
    }

    /// The two checksums of `frame`, which is [of this flow](Self::is_of), summed anew: what is
    /// wrong with them, in words.
    pub(super) fn verify(&self, frame: &[u8]) -> Result<(), String> {
        let short = || String::from("it is shorter than its headers");
        let start = ETHERNET + self.network_len();
        let network = frame.get(ETHERNET..start).ok_or_else(short)?;
        if !self.is_ipv6 && sum(&[network]) != 0xffff {
            let found = word(network, 10).unwrap_or(0);
            return Err(format!("its IPv4 header checksum {found:#06x} is wrong"));
        }
        let len = match self.is_ipv6 {
            true => usize::from(word(network, 4).ok_or_else(short)?),
            false => usize::from(word(network, 2).ok_or_else(short)?).saturating_sub(20),
        };
        let transport = frame.get(start..start + len).ok_or_else(short)?;
        let name = if self.is_tcp { "TCP" } else { "UDP" };
        let found = word(frame, self.checksum_at()).ok_or_else(short)?;
        let pseudo = self.pseudo_sum(len).to_be_bytes();
        let wrong = sum(&[&pseudo, transport]) != 0xffff || (found == 0 && !self.is_tcp);
        if wrong {
            let version = if self.is_ipv6 { 6 } else { 4 };
            return Err(format!(
                "its {name} checksum {found:#06x} over IPv{version} is wrong"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::vec;

    use super::*;

    fn packet(is_ipv6: bool, is_tcp: bool, is_reply: bool) -> Packet {
        Packet {
            destination: MacAddress([2, 0, 0, 0, 0, 1]),
            source: MacAddress([2, 0, 0, 0, 0, 2]),
            is_ipv6,
            is_tcp,
            is_reply,
            port: 40_000,
            sequence: 7,
        }
    }

    /// RFC 1071, section 3: the example's words sum to ddf2.
    #[test]
    fn the_sum_is_that_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(&[&bytes]), 0xddf2);
        assert_eq!(sum(&[&bytes[..4], &bytes[4..]]), 0xddf2);
    }

    #[test]
    fn what_is_filled_verifies_and_what_is_spoilt_does_not() {
        for (v6, tcp, reply) in [
            (false, false, false),
            (false, true, true),
            (true, false, true),
            (true, true, false),
        ] {
            let packet = packet(v6, tcp, reply);
            let payload = vec![0x5a; 101];
            let mut frame = packet.header(payload.len());
            assert_eq!(frame.len(), packet.header_len());
            packet.fill_network(&mut frame);
            packet.fill_transport(&mut frame, &payload);
            frame.extend_from_slice(&payload);
            assert!(packet.is_of(&frame) && is_between_hosts(&frame));
            assert_eq!(packet.verify(&frame), Ok(()));
            // Padding does not count.
            frame.extend_from_slice(&[0; 5]);
            assert_eq!(packet.verify(&frame), Ok(()));
            packet.spoil(&mut frame, false);
            assert!(packet.verify(&frame).unwrap_err().contains("over IPv"));
            packet.spoil(&mut frame, false);
            frame.truncate(30);
            assert!(packet.verify(&frame).is_err());
            assert!(!Packet { port: 1, ..packet }.is_of(&frame));
            frame[27] ^= 1;
            assert!(!is_between_hosts(&frame));
        }
    }
}
