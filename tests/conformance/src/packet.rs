//! Packets built byte by byte, and checksums computed the plain way: nothing here is shared
//! with the code under test.

use pagewire_hal::{ChecksumOffload, Offload};

/// The protocol behind the network header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Transport {
    /// With so many bytes of options, a multiple of 4.
    Tcp(usize),
    Udp,
    /// An echo request: checked by a generic sum only.
    Icmpv6,
}

/// Which packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub(crate) vlan: bool,
    pub(crate) ipv6: bool,
    /// Bytes of IPv4 options (a multiple of 4 up to 40), or of IPv6 extension headers (a
    /// multiple of 8).
    pub(crate) extra: usize,
    pub(crate) transport: Transport,
}

/// The ones' complement sum of 16-bit words, an odd last byte padded with zero (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u64;
    for pair in bytes.chunks(2) {
        let high = pair.first().copied().unwrap_or(0);
        let low = pair.get(1).copied().unwrap_or(0);
        total += u64::from(u16::from_be_bytes([high, low]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Puts a 16-bit word into `bytes` at `at`, in network order.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

const IPV4_ADDRESSES: [u8; 8] = [10, 0, 0, 1, 10, 0, 0, 2];

fn ipv6_addresses() -> [u8; 32] {
    let mut addresses = [0; 32];
    // fe80::1 and fe80::2.
    for (at, byte) in [
        (0, 0xfe),
        (1, 0x80),
        (15, 1),
        (16, 0xfe),
        (17, 0x80),
        (31, 2),
    ] {
        if let Some(target) = addresses.get_mut(at) {
            *target = byte;
        }
    }
    addresses
}

impl Kind {
    pub(crate) const fn new(ipv6: bool, extra: usize, transport: Transport) -> Self {
        Self {
            vlan: false,
            ipv6,
            extra,
            transport,
        }
    }

    pub(crate) const fn l2_len(self) -> usize {
        if self.vlan { 18 } else { 14 }
    }

    pub(crate) const fn l3_len(self) -> usize {
        self.extra + if self.ipv6 { 40 } else { 20 }
    }

    pub(crate) const fn l4_len(self) -> usize {
        match self.transport {
            Transport::Tcp(options) => 20 + options,
            Transport::Udp | Transport::Icmpv6 => 8,
        }
    }

    pub(crate) const fn header_len(self) -> usize {
        self.l2_len() + self.l3_len() + self.l4_len()
    }

    const fn protocol(self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => 6,
            Transport::Udp => 17,
            Transport::Icmpv6 => 58,
        }
    }

    /// Where the checksum is, from the start of the transport header.
    pub(crate) const fn checksum_offset(self) -> usize {
        match self.transport {
            Transport::Tcp(_) => 16,
            Transport::Udp => 6,
            Transport::Icmpv6 => 2,
        }
    }

    /// The request that is made for this protocol in particular, if there is one.
    pub(crate) const fn request(self) -> Option<ChecksumOffload> {
        Some(match (self.transport, self.ipv6) {
            (Transport::Tcp(_), false) => ChecksumOffload::TCP_IPV4,
            (Transport::Tcp(_), true) => ChecksumOffload::TCP_IPV6,
            (Transport::Udp, false) => ChecksumOffload::UDP_IPV4,
            (Transport::Udp, true) => ChecksumOffload::UDP_IPV6,
            (Transport::Icmpv6, _) => return None,
        })
    }

    /// The request that asks for `checksum` in this packet.
    pub(crate) fn offload(self, checksum: ChecksumOffload) -> Offload {
        Offload {
            checksum,
            l2_len: self.l2_len() as u8,
            l3_len: self.l3_len() as u16,
            l4_len: self.l4_len() as u8,
            checksum_offset: self.checksum_offset() as u8,
            segment_len: 0,
        }
    }

    /// The pseudo-header (RFC 9293 3.1, RFC 8200 8.1) for `transport_len` bytes.
    pub(crate) fn pseudo_header(self, transport_len: usize) -> Vec<u8> {
        let mut bytes = if self.ipv6 {
            ipv6_addresses().to_vec()
        } else {
            IPV4_ADDRESSES.to_vec()
        };
        bytes.extend_from_slice(&(transport_len as u32).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, self.protocol()]);
        bytes
    }

    /// A frame from `source` to `destination` with `payload`, all its checksums right.
    pub(crate) fn frame(self, destination: [u8; 6], source: [u8; 6], payload: &[u8]) -> Vec<u8> {
        let mut frame = [destination, source].concat();
        if self.vlan {
            frame.extend_from_slice(&[0x81, 0, 0, 5]);
        }
        frame.extend_from_slice(if self.ipv6 { &[0x86, 0xdd] } else { &[8, 0] });
        if self.ipv6 {
            self.write_ipv6(&mut frame, payload.len());
        } else {
            self.write_ipv4(&mut frame, payload.len());
        }
        self.write_transport(&mut frame, payload.len());
        frame.extend_from_slice(payload);
        self.fill_checksums(&mut frame);
        frame
    }

    /// Computes the checksums of a frame of this kind, whatever was in their fields.
    pub(crate) fn fill_checksums(self, frame: &mut [u8]) {
        let (l3, l4) = (self.l2_len(), self.l2_len() + self.l3_len());
        if !self.ipv6 {
            put(frame, l3 + 10, 0);
            let checksum = !sum(frame.get(l3..l4).unwrap_or_default());
            put(frame, l3 + 10, checksum);
        }
        let at = l4 + self.checksum_offset();
        put(frame, at, 0);
        let transport = frame.get(l4..).unwrap_or_default();
        let mut all = self.pseudo_header(transport.len());
        all.extend_from_slice(transport);
        let checksum = match !sum(&all) {
            // Zero would say that there is none (RFC 768).
            0 if self.transport == Transport::Udp => 0xffff,
            checksum => checksum,
        };
        put(frame, at, checksum);
    }

    /// Makes of a whole frame what is handed to a device that is to fill in `checksum`.
    pub(crate) fn seed(self, frame: &mut [u8], checksum: ChecksumOffload) {
        let l4 = self.l2_len() + self.l3_len();
        if checksum.intersects(ChecksumOffload::TRANSPORT) {
            let seed = sum(&self.pseudo_header(frame.len() - l4));
            put(frame, l4 + self.checksum_offset(), seed);
        }
        if checksum.contains(ChecksumOffload::IPV4_HEADER) {
            put(frame, self.l2_len() + 10, 0);
        }
    }

    fn write_ipv4(self, frame: &mut Vec<u8>, payload_len: usize) {
        let total = (self.l3_len() + self.l4_len() + payload_len) as u16;
        frame.extend_from_slice(&[0x40 | (self.l3_len() / 4) as u8, 0]);
        frame.extend_from_slice(&total.to_be_bytes());
        frame.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, self.protocol(), 0, 0]);
        frame.extend_from_slice(&IPV4_ADDRESSES);
        // Option 1 is "no operation".
        frame.extend(std::iter::repeat_n(1, self.extra));
    }

    fn write_ipv6(self, frame: &mut Vec<u8>, payload_len: usize) {
        let rest = (self.extra + self.l4_len() + payload_len) as u16;
        // Destination options (60), if any, before the transport header.
        let first = if self.extra > 0 { 60 } else { self.protocol() };
        frame.extend_from_slice(&[0x60, 0, 0, 0]);
        frame.extend_from_slice(&rest.to_be_bytes());
        frame.extend_from_slice(&[first, 64]);
        frame.extend_from_slice(&ipv6_addresses());
        if let Some(padding) = self.extra.checked_sub(4) {
            let units = (self.extra / 8 - 1) as u8;
            // One PadN option that fills the header (RFC 8200 4.2).
            frame.extend_from_slice(&[self.protocol(), units, 1, padding as u8]);
            frame.extend(std::iter::repeat_n(0, padding));
        }
    }

    fn write_transport(self, frame: &mut Vec<u8>, payload_len: usize) {
        match self.transport {
            Transport::Tcp(options) => {
                let offset = ((5 + options / 4) << 4) as u8;
                frame.extend_from_slice(&[0x1f, 0x90, 0x1f, 0x91, 0, 0, 0x10, 0, 0, 0, 0, 2]);
                frame.extend_from_slice(&[offset, 0x18, 0x20, 0, 0, 0, 0, 0]);
                frame.extend(std::iter::repeat_n(1, options));
            }
            Transport::Udp => {
                frame.extend_from_slice(&[0x1f, 0x90, 0x1f, 0x91]);
                frame.extend_from_slice(&((8 + payload_len) as u16).to_be_bytes());
                frame.extend_from_slice(&[0, 0]);
            }
            Transport::Icmpv6 => frame.extend_from_slice(&[128, 0, 0, 0, 1, 2, 0, 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_the_usual_example() {
        // The example of RFC 1071, section 3.
        assert_eq!(
            sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            0xddf2
        );
        assert_eq!(sum(&[0x12]), 0x1200);
        assert_eq!(sum(&[]), 0);
    }

    #[test]
    fn a_known_packet_has_its_known_checksums() {
        // A header with its checksum sums to all ones.
        let kind = Kind::new(false, 0, Transport::Udp);
        let frame = kind.frame([2; 6], [4; 6], b"abc");
        assert_eq!(frame.len(), 14 + 20 + 8 + 3);
        assert_eq!(sum(&frame[14..34]), 0xffff);
        // Words by hand: addresses 0a00 0001 0a00 0002, protocol 0011, length 000b, ports 1f90
        // 1f91, length 000b, data 6162 6300: 1_176c3 in all, 176c4 folded.
        let total = 0x0a00 + 1 + 0x0a00 + 2 + 0x11 + 0xb + 0x1f90 + 0x1f91 + 0xb + 0x6162 + 0x6300;
        let folded = (total & 0xffff) + (total >> 16);
        assert_eq!(frame[40..42], (!(folded as u16)).to_be_bytes());
    }

    #[test]
    fn every_kind_sums_to_all_ones_and_its_seed_leads_there() {
        for vlan in [false, true] {
            for (ipv6, extra) in [(false, 0), (false, 40), (true, 0), (true, 8), (true, 64)] {
                for transport in [Transport::Tcp(0), Transport::Tcp(40), Transport::Udp] {
                    let kind = Kind {
                        vlan,
                        ..Kind::new(ipv6, extra, transport)
                    };
                    let whole = kind.frame([2; 6], [4; 6], &[9; 77]);
                    assert_eq!(whole.len(), kind.header_len() + 77, "{kind:?}");
                    let mut seeded = whole.clone();
                    kind.seed(&mut seeded, kind.request().unwrap());
                    let l4 = kind.l2_len() + kind.l3_len();
                    // What a device does: sum from the transport header, complement, store.
                    let stored = !sum(&seeded[l4..]);
                    put(&mut seeded, l4 + kind.checksum_offset(), stored);
                    assert_eq!(seeded, whole, "{kind:?}");
                }
            }
        }
    }
}
