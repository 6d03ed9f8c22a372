//! Segments as the peer writes and reads them, byte by byte.

pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const OUR_IP: [u8; 4] = [10, 0, 0, 1];
pub(crate) const PEER_IP: [u8; 4] = [10, 0, 0, 2];
pub(crate) const PEER_PORT: u16 = 80;
pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// Kinds of the options that are used: maximum segment size, SACK permitted, SACK.
const MSS: u8 = 2;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;

/// A segment of ours, as the peer reads it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) from: u16,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
}

/// The ones' complement sum of 16-bit words, an odd last byte padded with zero (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    let mut total = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

impl Seen {
    /// Reads a frame; an error for a wrong checksum, `None` if it is no TCP.
    pub(crate) fn parse(frame: &[u8]) -> Result<Option<Self>, String> {
        if frame[12..14] != [8, 0] {
            return Ok(None);
        }
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let (ip, tcp) = frame[14..14 + total].split_at(20);
        let pseudo = [&ip[12..20], &[0, 6], &(tcp.len() as u16).to_be_bytes()].concat();
        let transport = sum(&[pseudo.as_slice(), tcp].concat());
        if (sum(ip), transport) != (0xffff, 0xffff) {
            return Err(format!("a wrong checksum: {frame:02x?}"));
        }
        let header = usize::from(tcp[12] >> 4) * 4;
        Ok(Some(Self {
            from: u16::from_be_bytes([tcp[0], tcp[1]]),
            seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            flags: tcp[13],
            payload: tcp[header..].to_vec(),
        }))
    }
}

/// A segment of the peer's, without payload. Its checksums are zero: the device vouches for it.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) to: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// A block that the peer says to hold.
    pub(crate) sack: Option<(u32, u32)>,
}

impl Told {
    fn options(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if self.flags & SYN != 0 {
            // Segments of 64 bytes, the smallest that are taken from a peer.
            options.extend([MSS, 4, 0, 64, SACK_PERMITTED, 2]);
        }
        if let Some((start, end)) = self.sack {
            options.extend([SACK, 10]);
            options.extend(start.to_be_bytes());
            options.extend(end.to_be_bytes());
        }
        options.resize(options.len().next_multiple_of(4), 0);
        options
    }

    pub(crate) fn frame(&self) -> Vec<u8> {
        let options = self.options();
        let mut frame = [OUR_MAC, PEER_MAC].concat();
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(((40 + options.len()) as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(PEER_IP);
        frame.extend(OUR_IP);
        frame.extend(PEER_PORT.to_be_bytes());
        frame.extend(self.to.to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(self.ack.to_be_bytes());
        frame.extend([(((20 + options.len()) / 4) << 4) as u8, self.flags]);
        frame.extend(self.window.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(options);
        frame
    }
}

/// The peer's answer to our ARP request.
pub(crate) fn arp_reply() -> Vec<u8> {
    let mut frame = [OUR_MAC, PEER_MAC].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(PEER_MAC);
    frame.extend(PEER_IP);
    frame.extend(OUR_MAC);
    frame.extend(OUR_IP);
    frame
}
