//! What the peers say: frames that are made before they are needed.

use std::net::{Ipv4Addr, SocketAddrV4};

use pagewire_hal::MacAddress;
use pagewire_tcp::seq::SeqNumber;
use pagewire_tcp::wire::{
    ArpOperation, ArpPacket, ChecksumBy, ETHERTYPE_ARP, ETHERTYPE_IPV4, EthernetHeader, Ipv4Header,
    PROTOCOL_TCP, TcpFlags, TcpHeader, TcpOptions, Timestamps,
};

/// Our addresses.
pub const OUR_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Our addresses.
pub const OUR_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Those of all peers.
pub const PEER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
/// Those of all peers.
pub const PEER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The port that they listen on.
pub const PEER_PORT: u16 = 80;

/// Shift of the peers' windows.
const SCALE: u8 = 8;
/// Their initial sequence number.
const ISS: SeqNumber = SeqNumber(1);

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Our port.
    port: u16,
    /// Our number of the next byte that it expects.
    ack: SeqNumber,
    /// Our clock, as it saw it last.
    clock: u32,
    /// The window field, not scaled in the SYN, …
    first_window: u16,
    /// … and scaled.
    window: u16,
}

impl Peer {
    /// The peer of our `port`, to which our first byte is number `first`, with a window of
    /// `window` bytes or a little more.
    #[must_use]
    pub fn new(port: u16, first: SeqNumber, window: usize) -> Self {
        let first_window = u16::try_from(window).unwrap_or(u16::MAX);
        // Rounded up, by less than a segment.
        let window = u16::try_from(window.div_ceil(1 << SCALE)).unwrap_or(u16::MAX);
        Self {
            first_window,
            port,
            ack: first,
            clock: 0,
            window,
        }
    }

    /// Its answer to our SYN, for segments with a payload of `mss` bytes less timestamps.
    #[must_use]
    pub fn syn(&self, mss: u16) -> Vec<u8> {
        self.frame(TcpHeader {
            seq: ISS,
            flags: TcpFlags::SYN | TcpFlags::ACK,
            // Not scaled.
            window: self.first_window,
            options: TcpOptions {
                mss: Some(mss),
                window_scale: Some(SCALE),
                sack_permitted: true,
                timestamps: Some(self.timestamps()),
                ..TcpOptions::default()
            },
            ..TcpHeader::default()
        })
    }

    /// Its ACK of `more` bytes.
    #[must_use]
    pub fn ack(&mut self, more: usize) -> Vec<u8> {
        self.ack = self.ack.add(more as u32);
        self.clock = self.clock.wrapping_add(1);
        self.frame(TcpHeader {
            seq: ISS.add(1),
            flags: TcpFlags::ACK,
            window: self.window,
            options: TcpOptions {
                timestamps: Some(self.timestamps()),
                ..TcpOptions::default()
            },
            ..TcpHeader::default()
        })
    }

    fn timestamps(&self) -> Timestamps {
        Timestamps {
            value: self.clock,
            echo: 0,
        }
    }

    fn frame(&self, header: TcpHeader) -> Vec<u8> {
        let header = TcpHeader {
            source_port: PEER_PORT,
            destination_port: self.port,
            ack: self.ack,
            ..header
        };
        let mut frame = vec![0; EthernetHeader::LEN + Ipv4Header::LEN + header.header_len()];
        let ethernet = EthernetHeader {
            destination: OUR_MAC,
            source: PEER_MAC,
            ethertype: ETHERTYPE_IPV4,
        };
        let ip = Ipv4Header {
            source: PEER_IP,
            destination: OUR_IP,
            protocol: PROTOCOL_TCP,
            total_len: (Ipv4Header::LEN + header.header_len()) as u16,
            identification: 0,
            ttl: 64,
            dont_fragment: true,
        };
        // The device vouches for the sums.
        ethernet.emit(&mut frame);
        ip.emit(&mut frame[EthernetHeader::LEN..], ChecksumBy::Cpu);
        header.emit(&mut frame[EthernetHeader::LEN + Ipv4Header::LEN..]);
        frame
    }
}

/// Our end of a connection to the peers.
#[must_use]
pub const fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(OUR_IP, port)
}

/// The peers' end.
#[must_use]
pub const fn remote() -> SocketAddrV4 {
    SocketAddrV4::new(PEER_IP, PEER_PORT)
}

/// The answer to our ARP request.
#[must_use]
pub fn arp_reply() -> Vec<u8> {
    let mut frame = vec![0; EthernetHeader::LEN + ArpPacket::LEN];
    let ethernet = EthernetHeader {
        destination: OUR_MAC,
        source: PEER_MAC,
        ethertype: ETHERTYPE_ARP,
    };
    let packet = ArpPacket {
        operation: ArpOperation::Reply,
        sender_mac: PEER_MAC,
        sender_ip: PEER_IP,
        target_mac: OUR_MAC,
        target_ip: OUR_IP,
    };
    ethernet.emit(&mut frame);
    packet.emit(&mut frame[EthernetHeader::LEN..]);
    frame
}
