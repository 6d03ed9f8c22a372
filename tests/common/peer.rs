//! A receiver in the hands of the test: answers ARP, takes one connection, keeps what arrives in
//! order, and acknowledges when it is told to. Shares no code with the sender.

use super::packets::sum;

pub const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x99];
pub const PEER_IP: [u8; 4] = [10, 0, 0, 2];
pub const PEER_PORT: u16 = 7777;

/// A segment as it was seen.
#[derive(Clone, Debug)]
pub struct Segment {
    pub seq: u32,
    pub payload: Vec<u8>,
}

/// The receiver.
#[derive(Debug, Default)]
pub struct Peer {
    sender_mac: [u8; 6],
    sender_ip: [u8; 4],
    sender_port: u16,
    /// The sender's first sequence number.
    first: u32,
    /// Our next sequence number, and the next that we expect.
    next: u32,
    expected: u32,
    pub open: bool,
    pub fin: bool,
    pub reset: bool,
    /// Acknowledge each segment at once.
    pub acknowledge: bool,
    /// Do not answer the SYN.
    pub deaf: bool,
    /// Ignore so many segments with payload.
    pub lose: u32,
    pub data: Vec<u8>,
    /// Every segment with payload, repeated ones as well.
    pub seen: Vec<Segment>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

impl Peer {
    pub fn new() -> Self {
        Self {
            acknowledge: true,
            next: 1000,
            ..Self::default()
        }
    }

    /// Takes a frame and returns the answers.
    pub fn take(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        match frame[12..14] {
            [8, 6] => self.arp(frame),
            [8, 0] => self.segment(frame),
            _ => Vec::new(),
        }
    }

    fn arp(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        if frame[20..22] != [0, 1] || frame[38..42] != PEER_IP {
            return Vec::new();
        }
        let mut reply = frame[..42].to_vec();
        reply[..6].copy_from_slice(&frame[6..12]);
        reply[6..12].copy_from_slice(&PEER_MAC);
        reply[21] = 2;
        reply[22..28].copy_from_slice(&PEER_MAC);
        reply[28..32].copy_from_slice(&PEER_IP);
        reply[32..42].copy_from_slice(&frame[22..32]);
        vec![reply]
    }

    fn segment(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let packet = &frame[14..14 + total];
        assert_eq!(packet[0], 0x45, "IPv4 without options");
        assert_eq!(sum(&packet[..20]), 0xffff, "the IPv4 header checksum");
        let tcp = &packet[20..];
        let mut pseudo = packet[12..20].to_vec();
        pseudo.extend_from_slice(&[0, 6]);
        pseudo.extend_from_slice(&(tcp.len() as u16).to_be_bytes());
        pseudo.extend_from_slice(tcp);
        assert_eq!(sum(&pseudo), 0xffff, "the TCP checksum");
        assert_eq!(u16::from_be_bytes([tcp[2], tcp[3]]), PEER_PORT);
        let (seq, flags) = (word(tcp, 4), tcp[13]);
        let payload = &tcp[usize::from(tcp[12] >> 4) * 4..];
        if flags & 4 != 0 {
            self.reset = true;
            return Vec::new();
        }
        if flags & 2 != 0 {
            self.sender_mac.copy_from_slice(&frame[6..12]);
            self.sender_ip.copy_from_slice(&packet[12..16]);
            self.sender_port = u16::from_be_bytes([tcp[0], tcp[1]]);
            self.first = seq.wrapping_add(1);
            self.expected = self.first;
            if self.deaf {
                return Vec::new();
            }
            self.open = true;
            let answer = self.build(self.next, self.expected, 0x12, &[]);
            self.next = self.next.wrapping_add(1);
            return vec![answer];
        }
        if !payload.is_empty() {
            self.seen.push(Segment {
                seq,
                payload: payload.to_vec(),
            });
            if self.lose > 0 {
                self.lose -= 1;
                return Vec::new();
            }
        }
        if seq == self.expected {
            self.data.extend_from_slice(payload);
            self.expected = self.expected.wrapping_add(payload.len() as u32);
            if flags & 1 != 0 {
                self.fin = true;
                self.expected = self.expected.wrapping_add(1);
            }
        }
        let worth = !payload.is_empty() || flags & 1 != 0;
        if worth && self.acknowledge {
            vec![self.ack()]
        } else {
            Vec::new()
        }
    }

    /// An acknowledgement of all that arrived in order.
    pub fn ack(&self) -> Vec<u8> {
        self.build(self.next, self.expected, 0x10, &[])
    }

    /// An acknowledgement of nothing new that says by SACK that everything has arrived.
    pub fn sack(&self) -> Vec<u8> {
        let mut option = vec![1, 1, 5, 10];
        option.extend_from_slice(&self.first.wrapping_add(1).to_be_bytes());
        option.extend_from_slice(&self.expected.to_be_bytes());
        self.build(self.next, self.first, 0x10, &option)
    }

    /// A reset that is acceptable.
    pub fn rst(&self) -> Vec<u8> {
        self.build(self.next, self.expected, 0x14, &[])
    }

    /// A FIN.
    pub fn fin(&mut self) -> Vec<u8> {
        let frame = self.build(self.next, self.expected, 0x11, &[]);
        self.next = self.next.wrapping_add(1);
        frame
    }

    fn build(&self, seq: u32, ack: u32, flags: u8, options: &[u8]) -> Vec<u8> {
        // SACK-permitted is offered with the SYN.
        let options = if flags & 2 != 0 {
            &[2, 4, 5, 0xb4, 1, 1, 4, 2][..]
        } else {
            options
        };
        let mut tcp = PEER_PORT.to_be_bytes().to_vec();
        tcp.extend_from_slice(&self.sender_port.to_be_bytes());
        tcp.extend_from_slice(&seq.to_be_bytes());
        tcp.extend_from_slice(&ack.to_be_bytes());
        tcp.extend_from_slice(&[
            (5 + options.len() as u8 / 4) << 4,
            flags,
            0xff,
            0xff,
            0,
            0,
            0,
            0,
        ]);
        tcp.extend_from_slice(options);
        let mut pseudo = [PEER_IP, self.sender_ip].concat();
        pseudo.extend_from_slice(&[0, 6, 0, tcp.len() as u8]);
        pseudo.extend_from_slice(&tcp);
        let checksum = !sum(&pseudo);
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        let mut ip = vec![
            0x45,
            0,
            0,
            (20 + tcp.len()) as u8,
            0,
            1,
            0x40,
            0,
            64,
            6,
            0,
            0,
        ];
        ip.extend_from_slice(&PEER_IP);
        ip.extend_from_slice(&self.sender_ip);
        let checksum = !sum(&ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let mut frame = [self.sender_mac, PEER_MAC].concat();
        frame.extend_from_slice(&[8, 0]);
        frame.extend_from_slice(&ip);
        frame.extend_from_slice(&tcp);
        frame
    }
}
