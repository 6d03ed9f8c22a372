//! Wire formats: known packets, round trips, and bytes from a stranger.

use core::net::Ipv4Addr;
use std::vec;
use std::vec::Vec;

use pagewire_hal::MacAddress;
use proptest::prelude::*;

use super::*;
use crate::checksum::{Sum, pseudo_header};
use crate::seq::SeqNumber;
use crate::test_support::{config, seed};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn ipv4() -> Ipv4Header {
    Ipv4Header {
        source: Ipv4Addr::new(192, 168, 0, 1),
        destination: Ipv4Addr::new(192, 168, 0, 199),
        protocol: 17,
        total_len: 0x73,
        identification: 0,
        ttl: 64,
        dont_fragment: true,
    }
}

/// A packet of `ipv4()` with its payload.
fn ipv4_packet() -> Vec<u8> {
    let mut packet = vec![0x55; 0x73];
    assert_eq!(ipv4().emit(&mut packet, ChecksumBy::Cpu), Some(20));
    packet
}

/// Corrects the header checksum after a test has changed the header.
fn seal(packet: &mut [u8]) {
    let header_len = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let mut sum = Sum::default();
    sum.add(&packet[..header_len]);
    packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
}

/// The SYN that Linux sends on Ethernet.
fn syn() -> TcpHeader {
    TcpHeader {
        source_port: 40000,
        destination_port: 80,
        seq: SeqNumber(0x0102_0304),
        flags: TcpFlags::SYN,
        window: 64240,
        options: TcpOptions {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 9, echo: 0 }),
            ..TcpOptions::default()
        },
        ..TcpHeader::default()
    }
}

fn blocks(list: &[(u32, u32)]) -> SackBlocks {
    let mut blocks = SackBlocks::new();
    for &(start, end) in list {
        assert!(blocks.push(SeqNumber(start), SeqNumber(end)));
    }
    blocks
}

/// A header with these bytes of options, padded with the end of the list.
fn segment_with_options(options: &[u8]) -> Vec<u8> {
    let mut segment = vec![0; 20];
    TcpHeader::default().emit(&mut segment).unwrap();
    segment.extend_from_slice(options);
    segment.resize(segment.len().next_multiple_of(4), 0);
    segment[12] = ((segment.len() / 4) << 4) as u8;
    segment
}

fn parse_options(options: &[u8]) -> Result<TcpOptions, WireError> {
    TcpHeader::parse(&segment_with_options(options)).map(|(header, _)| header.options)
}

#[test]
fn ethernet_header_is_as_on_the_wire() {
    let header = EthernetHeader {
        destination: MacAddress::BROADCAST,
        source: MacAddress([2, 0, 0, 0, 0, 9]),
        ethertype: ETHERTYPE_ARP,
    };
    let mut frame = [7; 16];
    assert_eq!(header.emit(&mut frame), Some(14));
    assert_eq!(
        frame,
        [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 6, 7, 7]
    );
    assert_eq!(EthernetHeader::parse(&frame), Ok((header, &[7, 7][..])));
    assert_eq!(
        EthernetHeader::parse(&frame[..13]),
        Err(WireError::Truncated)
    );
    assert_eq!(header.emit(&mut frame[..13]), None);
}

#[test]
fn arp_request_is_as_on_the_wire() {
    let packet = ArpPacket {
        operation: ArpOperation::Request,
        sender_mac: MacAddress([2, 0, 0, 0, 0, 9]),
        sender_ip: HERE,
        target_mac: MacAddress([0; 6]),
        target_ip: THERE,
    };
    let mut bytes = [0xee; 46];
    assert_eq!(packet.emit(&mut bytes), Some(28));
    assert_eq!(
        bytes[..28],
        [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2
        ]
    );
    assert_eq!(ArpPacket::parse(&bytes), Ok(packet));
    assert_eq!(packet.emit(&mut bytes[..27]), None);
    assert_eq!(ArpPacket::parse(&bytes[..27]), Err(WireError::Truncated));
    for (offset, value) in [(1, 6), (3, 6), (4, 8), (5, 16)] {
        let mut other = bytes;
        other[offset] = value;
        let parsed = ArpPacket::parse(&other);
        assert_eq!(parsed, Err(WireError::NotIpv4OverEthernet), "at {offset}");
    }
    bytes[7] = 3;
    assert_eq!(ArpPacket::parse(&bytes), Err(WireError::Operation(3)));
}

#[test]
fn ipv4_header_has_the_checksum_of_a_captured_packet() {
    // The example of many textbooks: 4500 0073 0000 4000 4011 b861 c0a8 0001 c0a8 00c7.
    let packet = ipv4_packet();
    assert_eq!(packet[10..12], [0xb8, 0x61]);
    assert_eq!(
        Ipv4Header::parse(&packet, false),
        Ok((ipv4(), &packet[20..]))
    );
}

#[test]
fn ipv4_header_leaves_the_checksum_to_the_device() {
    let mut packet = vec![0x55; 0x73];
    assert_eq!(ipv4().emit(&mut packet, ChecksumBy::Device), Some(20));
    assert_eq!(packet[10..12], [0, 0]);
    assert_eq!(Ipv4Header::parse(&packet, false), Err(WireError::Checksum));
    assert_eq!(
        Ipv4Header::parse(&packet, true),
        Ok((ipv4(), &packet[20..]))
    );
    assert_eq!(ipv4().emit(&mut packet[..19], ChecksumBy::Cpu), None);
}

#[test]
fn ipv4_payload_ends_before_the_padding() {
    let mut packet = ipv4_packet();
    packet.extend_from_slice(&[0; 30]);
    let (_, payload) = Ipv4Header::parse(&packet, false).unwrap();
    assert_eq!(payload.len(), 0x73 - 20);
}

#[test]
fn ipv4_options_are_skipped() {
    let mut packet = ipv4_packet();
    packet.splice(20..20, [1, 1, 1, 0]);
    packet[0] = 0x46;
    packet[3] += 4;
    seal(&mut packet);
    let (header, payload) = Ipv4Header::parse(&packet, false).unwrap();
    assert_eq!(header.total_len, 0x77);
    assert_eq!(payload, &packet[24..]);
}

#[test]
fn ipv4_refuses_what_it_cannot_use() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change, WireError); 9] = [
        ("no byte", |p| p.clear(), WireError::Truncated),
        ("19 bytes", |p| p.truncate(19), WireError::Truncated),
        ("IPv6", |p| p[0] = 0x65, WireError::Version),
        ("short header", |p| p[0] = 0x44, WireError::HeaderLength),
        (
            "long header",
            |p| (p[0] = 0x4f, p.truncate(59)).1,
            WireError::Truncated,
        ),
        ("total length 19", |p| p[3] = 19, WireError::TotalLength),
        ("one byte missing", |p| p[3] += 1, WireError::Truncated),
        ("more fragments", |p| p[6] = 0x20, WireError::Fragment),
        ("offset", |p| p[7] = 1, WireError::Fragment),
    ];
    for (name, change, error) in cases {
        let mut packet = ipv4_packet();
        change(&mut packet);
        if packet.len() >= 60 && packet[0] & 0xf >= 5 {
            seal(&mut packet);
        }
        assert_eq!(Ipv4Header::parse(&packet, false), Err(error), "{name}");
    }
}

#[test]
fn tcp_syn_is_as_linux_sends_it() {
    let mut segment = vec![0xee; 44];
    assert_eq!(syn().header_len(), 40);
    assert_eq!(syn().emit(&mut segment), Some(40));
    assert_eq!(
        segment[..20],
        [
            0x9c, 0x40, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0xa0, 2, 0xfa, 0xf0, 0, 0, 0, 0
        ]
    );
    assert_eq!(
        segment[20..40],
        [
            2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0
        ]
    );
    let (header, payload) = TcpHeader::parse(&segment).unwrap();
    assert_eq!(header, syn());
    assert_eq!(payload, [0xee; 4]);
    assert_eq!(syn().emit(&mut segment[..39]), None);
}

#[test]
fn tcp_options_need_no_order_and_no_alignment() {
    let options = parse_options(&[3, 3, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 2, 4, 2, 24, 4, 2]);
    assert_eq!(
        options,
        Ok(TcpOptions {
            mss: Some(536),
            window_scale: Some(2),
            sack_permitted: true,
            timestamps: Some(Timestamps { value: 1, echo: 2 }),
            sack: SackBlocks::new(),
        })
    );
}

#[test]
fn tcp_options_end_at_the_end_of_the_list() {
    assert_eq!(parse_options(&[0, 2, 4, 5, 180]), Ok(TcpOptions::default()));
    // What follows the end may be anything, even what would be an error before it.
    assert_eq!(parse_options(&[1, 0, 9, 0]), Ok(TcpOptions::default()));
}

#[test]
fn tcp_skips_options_that_it_does_not_know() {
    let options = parse_options(&[254, 6, 1, 2, 3, 4, 30, 2, 2, 4, 0, 99]).unwrap();
    assert_eq!(options.mss, Some(99));
    // Known kinds of a length that is not theirs.
    let odd = [2, 3, 1, 3, 2, 4, 3, 0, 8, 4, 0, 0, 5, 10];
    let mut odd = odd.to_vec();
    odd.extend_from_slice(&[0; 8]);
    let options = parse_options(&odd).unwrap();
    assert_eq!(
        (options.mss, options.window_scale, options.timestamps),
        (None, None, None)
    );
    assert!(!options.sack_permitted);
    assert_eq!(options.sack.as_slice(), [(SeqNumber(0), SeqNumber(0))]);
    assert!(
        parse_options(&[5, 2, 5, 6, 0, 0, 0, 0])
            .unwrap()
            .sack
            .is_empty()
    );
}

#[test]
fn tcp_refuses_impossible_option_lengths() {
    let impossible: [&[u8]; 6] = [
        &[2, 0, 0, 0],
        &[2, 1, 0, 0],
        &[1, 1, 1, 2],
        &[1, 1, 2, 4],
        &[2, 5, 0, 0],
        &[77, 255, 0, 0],
    ];
    for options in impossible {
        let error = Err(WireError::OptionLength);
        assert_eq!(parse_options(options), error, "{options:?}");
    }
}

#[test]
fn window_scale_is_at_most_14() {
    assert_eq!(parse_options(&[3, 3, 14]).unwrap().window_scale, Some(14));
    assert_eq!(parse_options(&[3, 3, 15]).unwrap().window_scale, Some(14));
    assert_eq!(parse_options(&[3, 3, 255]).unwrap().window_scale, Some(14));
}

#[test]
fn sack_blocks_that_do_not_fit_are_left_out() {
    let four = blocks(&[(1, 2), (3, 4), (5, 6), (7, 8)]);
    let cases = [
        (false, false, 4, 56),
        (true, false, 3, 60),
        (true, true, 2, 60),
    ];
    for (timestamps, syn_options, fit, header_len) in cases {
        let header = TcpHeader {
            options: TcpOptions {
                mss: syn_options.then_some(1460),
                window_scale: syn_options.then_some(7),
                sack_permitted: syn_options,
                timestamps: timestamps.then(Timestamps::default),
                sack: four,
            },
            ..TcpHeader::default()
        };
        let mut bytes = [0; 60];
        assert_eq!(header.header_len(), header_len);
        assert_eq!(header.emit(&mut bytes), Some(header_len));
        let (parsed, _) = TcpHeader::parse(&bytes[..header_len]).unwrap();
        assert_eq!(parsed.options.sack.as_slice(), &four.as_slice()[..fit]);
    }
    let mut full = four;
    assert!(!full.push(SeqNumber(9), SeqNumber(10)));
    assert_eq!(full, four);
}

#[test]
fn tcp_refuses_a_header_that_is_not_there() {
    let mut segment = vec![0; 40];
    syn().emit(&mut segment).unwrap();
    let error = |s: &[u8]| TcpHeader::parse(s).map(|_| ()).unwrap_err();
    assert_eq!(error(&segment[..19]), WireError::Truncated);
    assert_eq!(error(&segment[..39]), WireError::Truncated);
    segment[12] = 0x40;
    assert_eq!(error(&segment), WireError::HeaderLength);
}

#[test]
fn tcp_checksum_is_verified_with_the_pseudo_header() {
    let mut segment = vec![0; 43];
    syn().emit(&mut segment).unwrap();
    segment[40..].copy_from_slice(b"odd");
    let mut sum = pseudo_header(HERE, THERE, PROTOCOL_TCP, 43);
    sum.add(&segment);
    let at = TcpHeader::CHECKSUM_OFFSET;
    segment[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
    assert!(verify_tcp(HERE, THERE, &segment));
    assert!(verify_tcp(THERE, HERE, &segment), "the sum is symmetric");
    assert!(!verify_tcp(HERE, Ipv4Addr::new(10, 0, 0, 3), &segment));
    assert!(!verify_tcp(HERE, THERE, &segment[..42]));
    for index in 0..segment.len() {
        segment[index] ^= 0x10;
        assert!(!verify_tcp(HERE, THERE, &segment), "byte {index} changed");
        segment[index] ^= 0x10;
    }
    // Two bytes that sum up are no segment.
    let two = pseudo_header(HERE, THERE, PROTOCOL_TCP, 2).finish();
    assert!(!verify_tcp(HERE, THERE, &two.to_be_bytes()));
    assert!(!verify_tcp(HERE, THERE, &[]));
    assert!(!verify_tcp(HERE, THERE, &vec![0; 65536]));
}

fn any_header() -> impl Strategy<Value = TcpHeader> {
    let options = (
        any::<Option<u16>>(),
        proptest::option::of(0u8..=14),
        any::<bool>(),
        any::<Option<(u32, u32)>>(),
        prop::collection::vec(any::<(u32, u32)>(), 0..=4),
    )
        .prop_map(
            |(mss, window_scale, sack_permitted, stamps, list)| TcpOptions {
                mss,
                window_scale,
                sack_permitted,
                timestamps: stamps.map(|(value, echo)| Timestamps { value, echo }),
                sack: blocks(&list),
            },
        );
    (any::<(u16, u16, u32, u32, u8, u16)>(), options).prop_map(
        |((source_port, destination_port, seq, ack, flags, window), options)| TcpHeader {
            source_port,
            destination_port,
            seq: SeqNumber(seq),
            ack: SeqNumber(ack),
            flags: TcpFlags::from_bits_retain(flags),
            window,
            options,
        },
    )
}

/// Hands `bytes` to every parser. What a parser accepts lies within the bytes.
fn feed(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok((_, payload)) = EthernetHeader::parse(bytes) {
        prop_assert_eq!(payload, &bytes[14..], "seed {}", seed());
    }
    let _ = ArpPacket::parse(bytes);
    for verified in [false, true] {
        if let Ok((header, payload)) = Ipv4Header::parse(bytes, verified) {
            let header_len = usize::from(header.total_len) - payload.len();
            prop_assert!((20..=60).contains(&header_len), "seed {}", seed());
            let end = usize::from(header.total_len);
            prop_assert_eq!(payload, &bytes[header_len..end], "seed {}", seed());
        }
    }
    if let Ok((header, payload)) = TcpHeader::parse(bytes) {
        prop_assert!(bytes.ends_with(payload), "seed {}", seed());
        prop_assert!(header.header_len() <= TcpHeader::MAX_LEN, "seed {}", seed());
        prop_assert!(header.options.window_scale <= Some(14), "seed {}", seed());
    }
    let _ = verify_tcp(HERE, THERE, bytes);
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        feed(&bytes)?;
    }

    #[test]
    fn any_options_are_parsed_or_refused(bytes in prop::collection::vec(0u8..12, 0..=40)) {
        feed(&segment_with_options(&bytes))?;
    }

    #[test]
    fn mutated_packets_are_parsed_or_refused(
        header in any_header(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packet = vec![0; 80];
        let len = 20 + header.emit(&mut packet[20..]).unwrap();
        let ip = Ipv4Header { total_len: len as u16, ..ipv4() };
        ip.emit(&mut packet, ChecksumBy::Cpu).unwrap();
        for (index, value) in changes {
            let index = index.index(len);
            packet[index] = value;
        }
        let end = cut.index(len + 1);
        feed(&packet[..end])?;
        feed(packet.get(20..end).unwrap_or_default())?;
    }

    #[test]
    fn tcp_headers_survive_the_wire(header in any_header(), payload in any::<[u8; 3]>()) {
        let mut segment = vec![0xaa; 80];
        let len = header.emit(&mut segment).unwrap();
        prop_assert_eq!(len, header.header_len(), "seed {}", seed());
        prop_assert_eq!(&segment[len..], &[0xaa; 80][len..], "seed {}", seed());
        segment.truncate(len);
        segment.extend_from_slice(&payload);
        let (parsed, rest) = TcpHeader::parse(&segment).unwrap();
        prop_assert_eq!(rest, &payload, "seed {}", seed());
        // SACK blocks may have been left out; everything else is there.
        let kept = parsed.options.sack;
        let all = header.options.sack;
        prop_assert!(all.as_slice().starts_with(kept.as_slice()), "seed {}", seed());
        prop_assert!(kept == all || len + 8 > 60, "seed {}", seed());
        let mut expected = header;
        expected.options.sack = kept;
        prop_assert_eq!(parsed, expected, "seed {}", seed());
    }

    #[test]
    fn ipv4_headers_survive_the_wire(
        source: u32,
        destination: u32,
        protocol: u8,
        len in 20u16..90,
        identification: u16,
        ttl: u8,
        dont_fragment: bool,
    ) {
        let header = Ipv4Header {
            source: source.into(),
            destination: destination.into(),
            protocol,
            total_len: len,
            identification,
            ttl,
            dont_fragment,
        };
        let mut packet = [0x77; 90];
        header.emit(&mut packet, ChecksumBy::Cpu).unwrap();
        let payload = &packet[20..usize::from(len)];
        prop_assert_eq!(Ipv4Header::parse(&packet, false), Ok((header, payload)), "seed {}", seed());
    }
}
