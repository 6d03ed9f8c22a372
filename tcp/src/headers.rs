//! The headers of a frame as bytes, from Ethernet to TCP: built once per connection, after which
//! only what differs from segment to segment is written.

use core::net::Ipv4Addr;

use pagewire_hal::MacAddress;
use pagewire_hal::sum::fold;

use crate::seq::SeqNumber;
use crate::wire::{
    ChecksumBy, ETHERTYPE_IPV4, EthernetHeader, Ipv4Header, PROTOCOL_TCP, TcpFlags, TcpHeader,
    Timestamps,
};

/// RFC 1700 and its successors at IANA recommend 64.
const TTL: u8 = 64;
/// Where the TCP header begins in a frame.
pub(crate) const NETWORK_END: usize = EthernetHeader::LEN + Ipv4Header::LEN;
/// Bytes of a frame up to the options of TCP.
const FIXED_END: usize = NETWORK_END + TcpHeader::LEN;
/// Room for the longest headers, rounded up to a multiple of 32: copied as a whole, as a copy of a
/// length known to the compiler is a few instructions.
pub(crate) const HEADERS_ROOM: usize = (NETWORK_END + TcpHeader::MAX_LEN).next_multiple_of(32);

// Places in a frame whose IPv4 header has no options (RFC 791 section 3.1, RFC 9293 section 3.1).
const TOTAL_LEN: usize = EthernetHeader::LEN + 2;
const IDENTIFICATION: usize = EthernetHeader::LEN + 4;
const IPV4_CHECKSUM: usize = EthernetHeader::LEN + 10;
const SEQ: usize = NETWORK_END + 4;
const ACK: usize = NETWORK_END + 8;
const FLAGS: usize = NETWORK_END + 13;
const WINDOW: usize = NETWORK_END + 14;
const TCP_CHECKSUM: usize = NETWORK_END + TcpHeader::CHECKSUM_OFFSET;
/// The two values of the timestamps option, where it is the only one: two NOPs, kind and length
/// are before them.
const TIMESTAMPS: usize = FIXED_END + 4;

/// The addresses of the headers below TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope {
    pub(crate) source_mac: MacAddress,
    pub(crate) destination_mac: MacAddress,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
}

/// Lengths that the headers tell: of the IP packet, and of TCP header and payload, for the
/// pseudo-header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    pub(crate) packet: u16,
    pub(crate) tcp: u16,
}

/// Headers, complete but for lengths, identification and checksums.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    bytes: [u8; HEADERS_ROOM],
    len: usize,
    /// The neighbour for which they are a template, see [`is_template_for`](Self::is_template_for).
    template_for: Option<MacAddress>,
    /// The sum of the IPv4 header's words as they are, not folded.
    network_sum: u32,
    /// That of the pseudo-header's words but for the length.
    pseudo_sum: u32,
}

impl Headers {
    /// No headers yet.
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; HEADERS_ROOM],
        len: 0,
        template_for: None,
        network_sum: 0,
        pseudo_sum: 0,
    };

    /// Headers of a segment with payload can be made of them by [`set`](Self::set) if
    /// `is_template`: they have no options besides timestamps.
    pub(crate) fn new(envelope: &Envelope, header: &TcpHeader, is_template: bool) -> Self {
        let mut headers = Self::EMPTY;
        let ethernet = EthernetHeader {
            destination: envelope.destination_mac,
            source: envelope.source_mac,
            ethertype: ETHERTYPE_IPV4,
        };
        let ip = Ipv4Header {
            source: envelope.source,
            destination: envelope.destination,
            protocol: PROTOCOL_TCP,
            total_len: 0,
            identification: 0,
            ttl: TTL,
            dont_fragment: true,
        };
        let (network, tcp) = headers.bytes.split_at_mut(NETWORK_END);
        ethernet.emit(network);
        // There is room for the longest of each.
        if let Some(ip_bytes) = network.get_mut(EthernetHeader::LEN..) {
            ip.emit(ip_bytes, ChecksumBy::Device);
            headers.network_sum = words(ip_bytes);
            // Both addresses are the last 8 bytes.
            headers.pseudo_sum =
                words(ip_bytes.get(12..).unwrap_or_default()) + u32::from(PROTOCOL_TCP);
        }
        headers.len = NETWORK_END + header.emit(tcp).unwrap_or_default();
        headers.template_for = is_template.then_some(envelope.destination_mac);
        headers
    }

    /// Whether [`set`](Self::set) makes them those of another segment to this neighbour.
    #[inline]
    pub(crate) fn is_template_for(&self, neighbour: MacAddress) -> bool {
        self.template_for == Some(neighbour)
    }

    /// Writes what differs from segment to segment of a connection, …
    #[inline]
    pub(crate) fn set(&mut self, seq: SeqNumber, flags: TcpFlags) {
        put(&mut self.bytes, SEQ, seq.0.to_be_bytes());
        put(&mut self.bytes, FLAGS, [flags.bits()]);
    }

    /// … and what differs from turn to turn. Timestamps are left out if the template has none.
    #[inline]
    pub(crate) fn set_turn(&mut self, ack: SeqNumber, window: u16, timestamps: Option<Timestamps>) {
        put(&mut self.bytes, ACK, ack.0.to_be_bytes());
        put(&mut self.bytes, WINDOW, window.to_be_bytes());
        if let Some(Timestamps { value, echo }) = timestamps
            && self.len > FIXED_END
        {
            put(&mut self.bytes, TIMESTAMPS, value.to_be_bytes());
            put(&mut self.bytes, TIMESTAMPS + 4, echo.to_be_bytes());
        }
    }

    /// Bytes of all headers.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the TCP header.
    #[inline]
    pub(crate) const fn tcp_len(&self) -> usize {
        self.len.saturating_sub(NETWORK_END)
    }

    /// Writes them to the front of `frame`, with what is told of lengths, the identification and
    /// the checksum of the IPv4 header where the CPU computes it. The TCP checksum is left zero.
    /// Up to [`HEADERS_ROOM`] bytes of `frame` may be overwritten. `None` if it is too short.
    #[inline]
    pub(crate) fn write(
        &self,
        frame: &mut [u8],
        told: Told,
        identification: u16,
        checksum: ChecksumBy,
    ) -> Option<()> {
        match frame.first_chunk_mut::<HEADERS_ROOM>() {
            Some(front) => *front = self.bytes,
            None => frame
                .get_mut(..self.len)?
                .copy_from_slice(self.bytes.get(..self.len)?),
        }
        let fixed = frame.first_chunk_mut::<FIXED_END>()?;
        put(fixed, TOTAL_LEN, told.packet.to_be_bytes());
        put(fixed, IDENTIFICATION, identification.to_be_bytes());
        if checksum == ChecksumBy::Cpu {
            let sum = self.network_sum + u32::from(told.packet) + u32::from(identification);
            put(fixed, IPV4_CHECKSUM, (!fold(sum.into())).to_be_bytes());
        }
        Some(())
    }

    /// The sum of the pseudo-header (RFC 9293 section 3.1), not complemented.
    #[inline]
    pub(crate) const fn pseudo_header(&self, told: Told) -> u16 {
        fold((self.pseudo_sum + told.tcp as u32) as u64)
    }
}

/// Writes the TCP checksum of a frame whose IPv4 header has no options.
#[inline]
pub(crate) fn put_tcp_checksum(frame: &mut [u8], checksum: u16) -> Option<()> {
    let fixed = frame.first_chunk_mut::<FIXED_END>()?;
    put(fixed, TCP_CHECKSUM, checksum.to_be_bytes());
    Some(())
}

/// Writes bytes at a place that the compiler knows to be there.
#[inline(always)]
fn put<const ALL: usize, const N: usize>(bytes: &mut [u8; ALL], at: usize, value: [u8; N]) {
    if let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) {
        *place = value;
    }
}

/// The sum of the words of a few bytes, an even number, in network byte order.
fn words(bytes: &[u8]) -> u32 {
    let (words, _) = bytes.as_chunks::<2>();
    words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::pseudo_header;
    use crate::test_support::{config, seed};
    use crate::wire::TcpOptions;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn envelope(source: u32, destination: u32) -> Envelope {
        Envelope {
            source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            source: source.into(),
            destination: destination.into(),
        }
    }

    /// The headers as the parts of `wire` write them.
    fn emitted(
        envelope: &Envelope,
        header: &TcpHeader,
        told: Told,
        identification: u16,
        by: ChecksumBy,
    ) -> Vec<u8> {
        let mut frame = vec![0; NETWORK_END + header.header_len()];
        let ethernet = EthernetHeader {
            destination: envelope.destination_mac,
            source: envelope.source_mac,
            ethertype: ETHERTYPE_IPV4,
        };
        let ip = Ipv4Header {
            source: envelope.source,
            destination: envelope.destination,
            protocol: PROTOCOL_TCP,
            total_len: told.packet,
            identification,
            ttl: TTL,
            dont_fragment: true,
        };
        ethernet.emit(&mut frame).unwrap();
        ip.emit(&mut frame[14..], by).unwrap();
        header.emit(&mut frame[NETWORK_END..]).unwrap();
        frame
    }

    #[test]
    fn a_template_is_for_one_neighbour() {
        let envelope = envelope(1, 2);
        let header = TcpHeader::default();
        let template = Headers::new(&envelope, &header, true);
        assert!(template.is_template_for(envelope.destination_mac));
        assert!(!template.is_template_for(envelope.source_mac));
        let syn = Headers::new(&envelope, &header, false);
        assert!(!syn.is_template_for(envelope.destination_mac));
        assert!(!Headers::EMPTY.is_template_for(MacAddress([0; 6])));
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn a_template_gives_what_the_parts_write(
            addresses in any::<(u32, u32)>(),
            ports in any::<(u16, u16)>(),
            numbers in any::<[(u32, u32, u8, u16, u16, u16); 2]>(),
            stamps in prop::option::of(any::<[(u32, u32); 2]>()),
            room in prop::sample::select(vec![66usize, 95, 96, 128]),
            by_cpu in any::<bool>(),
        ) {
            let envelope = envelope(addresses.0, addresses.1);
            let by = if by_cpu { ChecksumBy::Cpu } else { ChecksumBy::Device };
            let header = |index: usize| {
                let (seq, ack, flags, window, ..) = numbers[index];
                let timestamps = stamps.map(|stamps| Timestamps {
                    value: stamps[index].0,
                    echo: stamps[index].1,
                });
                TcpHeader {
                    source_port: ports.0,
                    destination_port: ports.1,
                    seq: SeqNumber(seq),
                    ack: SeqNumber(ack),
                    flags: TcpFlags::from_bits_retain(flags),
                    window,
                    options: TcpOptions { timestamps, ..TcpOptions::default() },
                }
            };
            let mut headers = Headers::new(&envelope, &header(0), true);
            let second = header(1);
            headers.set(second.seq, second.flags);
            headers.set_turn(second.ack, second.window, second.options.timestamps);
            prop_assert_eq!(headers.tcp_len(), second.header_len());
            let (.., identification, len) = numbers[1];
            let told = Told { packet: len, tcp: len.wrapping_sub(20) };
            let wanted = emitted(&envelope, &second, told, identification, by);
            let mut frame = vec![0xaa; room.max(wanted.len())];
            prop_assert!(headers.write(&mut frame, told, identification, by).is_some());
            prop_assert_eq!(&frame[..headers.len()], &wanted[..], "seed {}", seed());
            let sum = pseudo_header(envelope.source, envelope.destination, PROTOCOL_TCP, told.tcp);
            prop_assert_eq!(headers.pseudo_header(told), sum.fold());
            prop_assert!(headers.write(&mut [0; 53], told, identification, by).is_none());
        }
    }
}
