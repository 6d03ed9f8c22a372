//! What is done with a received frame: ARP, IPv4, TCP, and the connection that it is for.

use core::net::{Ipv4Addr, SocketAddrV4};

use pagewire_hal::{DmaMemory, Instant, MacAddress, RxChecksum, TxQueue, Verdict};

use crate::connection::{Connection, State};
use crate::connection_input::{Arrival, Reply};
use crate::stack::{PendingReset, Stack, key};
use crate::wire::{
    ArpOperation, ArpPacket, ETHERTYPE_ARP, ETHERTYPE_IPV4, EthernetHeader, Ipv4Header,
    PROTOCOL_TCP, TcpFlags, TcpHeader, WireError, verify_tcp,
};

/// The protocol number of ICMP (RFC 792).
const PROTOCOL_ICMP: u8 = 1;

/// A segment and where it came from.
struct Received<'a> {
    mac: MacAddress,
    source: Ipv4Addr,
    header: &'a TcpHeader,
    payload: &'a [u8],
}

impl Received<'_> {
    fn remote(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.source, self.header.source_port)
    }
}

impl<Q: TxQueue, M: DmaMemory> Stack<Q, M> {
    /// Takes a received frame, from its Ethernet header on, without the frame check sequence.
    /// `checksum` is what the device says of it; what the device does not vouch for is summed
    /// here. Answers go with the next [`poll`](Self::poll).
    ///
    /// Whatever the frame holds, it does not fail: what is of no use is counted.
    pub fn input(&mut self, now: Instant, frame: &[u8], checksum: RxChecksum) {
        self.stats.frames_received += 1;
        let Ok((ethernet, packet)) = EthernetHeader::parse(frame) else {
            self.stats.dropped.not_ours += 1;
            return;
        };
        if ethernet.destination != self.config.mac && ethernet.destination != MacAddress::BROADCAST
        {
            self.stats.dropped.other_destination += 1;
            return;
        }
        match ethernet.ethertype {
            ETHERTYPE_ARP => self.arp_arrives(now, packet),
            ETHERTYPE_IPV4 if ethernet.destination == self.config.mac => {
                self.packet_arrives(now, ethernet.source, packet, checksum);
            }
            _ => self.stats.dropped.not_ours += 1,
        }
    }

    fn arp_arrives(&mut self, now: Instant, packet: &[u8]) {
        let Ok(arp) = ArpPacket::parse(packet) else {
            self.stats.dropped.malformed += 1;
            return;
        };
        if arp.sender_ip != self.config.address
            && self.neighbours.learn(now, arp.sender_ip, arp.sender_mac)
        {
            self.wake_awaiting();
        }
        if arp.target_ip != self.config.address {
            self.stats.dropped.other_destination += 1;
        } else if arp.operation == ArpOperation::Request {
            let reply = ArpPacket {
                operation: ArpOperation::Reply,
                sender_mac: self.config.mac,
                sender_ip: self.config.address,
                target_mac: arp.sender_mac,
                target_ip: arp.sender_ip,
            };
            self.send_arp(arp.sender_mac, &reply);
        }
    }

    fn packet_arrives(
        &mut self,
        now: Instant,
        mac: MacAddress,
        packet: &[u8],
        checksum: RxChecksum,
    ) {
        let dropped = &mut self.stats.dropped;
        if checksum.ipv4_header == Verdict::Bad || checksum.transport == Verdict::Bad {
            dropped.checksum += 1;
            return;
        }
        let verified = checksum.ipv4_header == Verdict::Good;
        let (ip, segment) = match Ipv4Header::parse(packet, verified) {
            Ok(parsed) => parsed,
            Err(error) => {
                match error {
                    WireError::Checksum => dropped.checksum += 1,
                    WireError::Fragment => dropped.fragments += 1,
                    _ => dropped.malformed += 1,
                }
                return;
            }
        };
        if ip.destination != self.config.address {
            dropped.other_destination += 1;
            return;
        }
        match ip.protocol {
            PROTOCOL_TCP => {}
            PROTOCOL_ICMP => {
                dropped.icmp += 1;
                return;
            }
            _ => {
                dropped.protocol += 1;
                return;
            }
        }
        if checksum.transport != Verdict::Good && !verify_tcp(ip.source, ip.destination, segment) {
            dropped.checksum += 1;
            return;
        }
        // An answer to such a source would go to many, or to ourselves.
        let source = ip.source;
        if source.is_multicast()
            || source.is_broadcast()
            || source.is_unspecified()
            || source == self.config.address
        {
            dropped.malformed += 1;
            return;
        }
        let Ok((header, payload)) = TcpHeader::parse(segment) else {
            dropped.malformed += 1;
            return;
        };
        self.segment_arrives(
            now,
            &Received {
                mac,
                source,
                header: &header,
                payload,
            },
        );
    }

    fn segment_arrives(&mut self, now: Instant, received: &Received<'_>) {
        let tuple = key(received.remote(), received.header.destination_port);
        match self.tuples.get(&tuple).copied() {
            Some(index) => self.deliver(now, index, received),
            None => self.arrives_without_connection(now, received),
        }
    }

    fn deliver(&mut self, now: Instant, index: u32, received: &Received<'_>) {
        if received.header.flags.contains(TcpFlags::ACK) && self.port.outstanding() > 0 {
            // Completions may be late; an ACK is a good time to look, as what it acknowledges
            // has been read by then. An error will be seen again by the next poll.
            let _ = self.port.reclaim(&mut |_| {});
        }
        let Self {
            places,
            port,
            config,
            limits,
            ..
        } = self;
        let Some(connection) = places
            .get_mut(index as usize)
            .and_then(|place| place.connection.as_deref_mut())
        else {
            return;
        };
        let before = connection.state;
        let reply = connection.segment_arrives(&mut Arrival {
            now,
            config,
            limits,
            port,
            header: received.header,
            payload: received.payload,
        });
        if before == State::SynReceived && connection.is_synchronised() && connection.pending {
            self.established(index, received.header.destination_port);
        }
        if reply == Reply::Reset {
            self.answer_with_reset(received);
        }
        self.enqueue(index);
        self.after_change(index);
    }

    /// A connection of a listener is ready to be accepted.
    fn established(&mut self, index: u32, port: u16) {
        if let (Some(id), Some(listener)) = (self.id_of(index), self.listeners.get_mut(&port)) {
            listener.ready.push_back(id);
        }
    }

    /// RFC 9293 section 3.10.7.1 and 3.10.7.2: nobody is there, or a listener.
    fn arrives_without_connection(&mut self, now: Instant, received: &Received<'_>) {
        let flags = received.header.flags;
        let port = received.header.destination_port;
        let opens = flags & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST) == TcpFlags::SYN;
        if !opens || !self.listeners.contains_key(&port) || received.header.source_port == 0 {
            self.stats.dropped.no_connection += 1;
            if !flags.contains(TcpFlags::RST) {
                self.answer_with_reset(received);
            }
            return;
        }
        self.open_passively(now, received, port);
    }

    fn open_passively(&mut self, now: Instant, received: &Received<'_>, port: u16) {
        let backlog = self.config.backlog;
        let Some(next_hop) = self.route(received.source) else {
            self.stats.dropped.no_connection += 1;
            return;
        };
        match self.listeners.get_mut(&port) {
            Some(listener) if listener.waiting < backlog => listener.waiting += 1,
            _ => {
                self.stats.dropped.backlog += 1;
                return;
            }
        }
        let endpoints = self.endpoints(now, received.remote(), port, next_hop);
        let mut connection = Connection::new(endpoints, State::SynReceived, &self.config);
        connection.take_syn(now, received.header, &self.limits);
        match self.insert(connection) {
            Some(id) => self.enqueue(id.index),
            None => self.stats.dropped.backlog += 1,
        }
    }

    /// RFC 9293 section 3.10.7.1: the RST takes its number from the segment that it answers.
    fn answer_with_reset(&mut self, received: &Received<'_>) {
        let theirs = received.header;
        let mut header = TcpHeader {
            source_port: theirs.destination_port,
            destination_port: theirs.source_port,
            flags: TcpFlags::RST,
            ..TcpHeader::default()
        };
        if theirs.flags.contains(TcpFlags::ACK) {
            header.seq = theirs.ack;
        } else {
            let len = received.payload.len() as u32
                + u32::from(theirs.flags.contains(TcpFlags::SYN))
                + u32::from(theirs.flags.contains(TcpFlags::FIN));
            header.flags |= TcpFlags::ACK;
            header.ack = theirs.seq.add(len);
        }
        self.owe_reset(PendingReset {
            header,
            destination: received.source,
            mac: Some(received.mac),
        });
    }
}
