//! Packets built byte by byte, and checksums computed the slow way: nothing here is shared with
//! the code under test.

/// Which packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub ipv6: bool,
    pub tcp: bool,
    /// Bytes of IPv4 options, a multiple of 4 up to 40.
    pub options: usize,
}

/// The ones' complement sum of 16-bit words, an odd last byte padded with zero (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u64;
    for pair in bytes.chunks(2) {
        total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

impl Kind {
    pub fn network_len(self) -> usize {
        if self.ipv6 { 40 } else { 20 + self.options }
    }

    pub fn transport_len(self) -> usize {
        if self.tcp { 20 } else { 8 }
    }

    pub fn header_len(self) -> usize {
        14 + self.network_len() + self.transport_len()
    }

    fn protocol(self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    /// Where the transport checksum is in the frame.
    pub fn checksum_at(self) -> usize {
        14 + self.network_len() + if self.tcp { 16 } else { 6 }
    }

    fn pseudo_header(self, transport_len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if self.ipv6 {
            bytes.extend_from_slice(&[0x20; 32]);
        } else {
            bytes.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        }
        bytes.extend_from_slice(&(transport_len as u32).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, self.protocol()]);
        bytes
    }

    /// A frame with `payload` and all its checksums right.
    pub fn frame(self, payload: &[u8]) -> Vec<u8> {
        let transport_len = self.transport_len() + payload.len();
        let mut frame = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1];
        frame.extend_from_slice(if self.ipv6 { &[0x86, 0xdd] } else { &[8, 0] });
        if self.ipv6 {
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&(transport_len as u16).to_be_bytes());
            frame.extend_from_slice(&[self.protocol(), 64]);
            frame.extend_from_slice(&[0x20; 32]);
        } else {
            let total = (self.network_len() + transport_len) as u16;
            frame.extend_from_slice(&[0x40 | (self.network_len() / 4) as u8, 0]);
            frame.extend_from_slice(&total.to_be_bytes());
            frame.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, self.protocol(), 0, 0]);
            frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            frame.extend(std::iter::repeat_n(1, self.options));
            let checksum = !sum(&frame[14..14 + self.network_len()]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        frame.extend_from_slice(&[0x1f, 0x90, 0x1f, 0x91]);
        if self.tcp {
            frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
        } else {
            frame.extend_from_slice(&(transport_len as u16).to_be_bytes());
            frame.extend_from_slice(&[0, 0]);
        }
        frame.extend_from_slice(payload);
        let mut all = self.pseudo_header(transport_len);
        all.extend_from_slice(&frame[14 + self.network_len()..]);
        let checksum = match !sum(&all) {
            0 if !self.tcp => 0xffff,
            sum => sum,
        };
        let at = self.checksum_at();
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// The same frame as it is handed to a device that fills in the checksums: the transport
    /// field holds the sum of the pseudo-header, that of IPv4 is zero.
    pub fn seeded(self, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.frame(payload);
        let seed = sum(&self.pseudo_header(self.transport_len() + payload.len()));
        let at = self.checksum_at();
        frame[at..at + 2].copy_from_slice(&seed.to_be_bytes());
        if !self.ipv6 {
            frame[24..26].copy_from_slice(&[0, 0]);
        }
        frame
    }
}
