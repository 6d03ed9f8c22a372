//! TCP segments in Ethernet frames, read and written plainly, one byte after the other.

use super::{OUR_IP, OUR_MAC, PEER_IP, PEER_MAC};

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const PSH: u8 = 8;
pub(crate) const ACK: u8 = 16;

/// A segment, from us to the peer when parsed, from the peer to us when written.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Segment {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack_permitted: bool,
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) sack: Vec<(u32, u32)>,
    pub(crate) payload: Vec<u8>,
    pub(crate) identification: u16,
}

pub(crate) fn u16_of(bytes: &[u8], at: usize) -> u16 {
    u16::from(bytes[at]) << 8 | u16::from(bytes[at + 1])
}

pub(crate) fn u32_of(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_of(bytes, at)) << 16 | u32::from(u16_of(bytes, at + 2))
}

/// The ones' complement sum, two bytes at a time.
pub(crate) fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(pair[0]) << 8 | u32::from(low);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn pseudo(source: &[u8], destination: &[u8], len: usize) -> u32 {
    let mut bytes = [source, destination].concat();
    bytes.extend_from_slice(&[0, 6, (len >> 8) as u8, len as u8]);
    u32::from(sum(&bytes, 0))
}

impl Segment {
    /// Sequence number behind the segment.
    pub(crate) fn end(&self) -> u32 {
        let flags = u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0);
        self.seq.wrapping_add(self.payload.len() as u32 + flags)
    }

    /// Reads a frame that the stack has sent, and checks all that a router and a receiver check.
    pub(crate) fn parse(frame: &[u8]) -> Self {
        assert_eq!(frame[..6], PEER_MAC, "destination station");
        assert_eq!(frame[6..12], OUR_MAC, "source station");
        assert_eq!(frame[12..14], [8, 0], "type IPv4");
        let ip = &frame[14..];
        assert_eq!(ip[0], 0x45);
        let total = usize::from(u16_of(ip, 2));
        assert!(total <= ip.len(), "total length {total} of {}", ip.len());
        assert!(
            ip[total..].iter().all(|byte| *byte == 0),
            "padding is not zero"
        );
        assert_eq!(ip[6..8], [0x40, 0], "DF, no fragment");
        assert_eq!((ip[8], ip[9]), (64, 6), "TTL and protocol");
        assert_eq!(ip[12..16], OUR_IP);
        assert_eq!(ip[16..20], PEER_IP);
        assert_eq!(sum(&ip[..20], 0), 0xffff, "IPv4 header checksum");
        let tcp = &ip[20..total];
        let start = pseudo(&ip[12..16], &ip[16..20], tcp.len());
        assert_eq!(sum(tcp, start), 0xffff, "TCP checksum");
        let header = usize::from(tcp[12] >> 4) * 4;
        let mut segment = Self {
            source_port: u16_of(tcp, 0),
            destination_port: u16_of(tcp, 2),
            seq: u32_of(tcp, 4),
            ack: u32_of(tcp, 8),
            flags: tcp[13],
            window: u16_of(tcp, 14),
            payload: tcp[header..].to_vec(),
            identification: u16_of(ip, 4),
            ..Self::default()
        };
        segment.parse_options(&tcp[20..header]);
        segment
    }

    fn parse_options(&mut self, mut options: &[u8]) {
        while let [kind, rest @ ..] = options {
            if *kind < 2 {
                options = rest;
                continue;
            }
            let len = usize::from(rest[0]);
            let data = &options[2..len];
            match kind {
                2 => self.mss = Some(u16_of(data, 0)),
                3 => self.scale = Some(data[0]),
                4 => self.sack_permitted = true,
                8 => self.timestamps = Some((u32_of(data, 0), u32_of(data, 4))),
                other => panic!("option {other} is not expected"),
            }
            options = &options[len..];
        }
    }

    /// The frame, from the peer to us.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let options = self.options();
        let mut tcp = Vec::new();
        tcp.extend_from_slice(&self.source_port.to_be_bytes());
        tcp.extend_from_slice(&self.destination_port.to_be_bytes());
        tcp.extend_from_slice(&self.seq.to_be_bytes());
        tcp.extend_from_slice(&self.ack.to_be_bytes());
        tcp.push((((20 + options.len()) / 4) << 4) as u8);
        tcp.push(self.flags);
        tcp.extend_from_slice(&self.window.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        tcp.extend_from_slice(&options);
        tcp.extend_from_slice(&self.payload);
        let checksum = !sum(&tcp, pseudo(&PEER_IP, &OUR_IP, tcp.len()));
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());

        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&((20 + tcp.len()) as u16).to_be_bytes());
        ip.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        ip.extend_from_slice(&PEER_IP);
        ip.extend_from_slice(&OUR_IP);
        let checksum = !sum(&ip, 0);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = [OUR_MAC, PEER_MAC].concat();
        frame.extend_from_slice(&[8, 0]);
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&tcp);
        frame
    }

    fn options(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(mss) = self.mss {
            options.extend_from_slice(&[2, 4]);
            options.extend_from_slice(&mss.to_be_bytes());
        }
        if let Some(scale) = self.scale {
            options.extend_from_slice(&[3, 3, scale]);
        }
        if self.sack_permitted {
            options.extend_from_slice(&[4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            options.extend_from_slice(&[8, 10]);
            options.extend_from_slice(&value.to_be_bytes());
            options.extend_from_slice(&echo.to_be_bytes());
        }
        if !self.sack.is_empty() {
            options.extend_from_slice(&[5, (2 + 8 * self.sack.len()) as u8]);
            for (start, end) in &self.sack {
                options.extend_from_slice(&start.to_be_bytes());
                options.extend_from_slice(&end.to_be_bytes());
            }
        }
        options.resize(options.len().next_multiple_of(4), 0);
        options
    }
}

/// The address asked for, if the frame is an ARP request.
pub(crate) fn parse_arp_request(frame: &[u8]) -> Option<[u8; 4]> {
    let is_request = frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 1]);
    is_request.then(|| frame[38..42].try_into().unwrap())
}

/// The peer's answer to an ARP request of ours.
pub(crate) fn arp_reply() -> Vec<u8> {
    arp(2, OUR_MAC, OUR_MAC)
}

/// The peer asks for us.
pub(crate) fn arp_request() -> Vec<u8> {
    arp(1, [0xff; 6], [0; 6])
}

fn arp(operation: u8, destination: [u8; 6], target: [u8; 6]) -> Vec<u8> {
    let mut frame = [destination, PEER_MAC].concat();
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend_from_slice(&PEER_MAC);
    frame.extend_from_slice(&PEER_IP);
    frame.extend_from_slice(&target);
    frame.extend_from_slice(&OUR_IP);
    frame
}
