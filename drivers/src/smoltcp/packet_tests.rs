#![allow(clippy::unwrap_used, reason = "for tests only")]

use std::vec;
use std::vec::Vec;

use super::*;

fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

/// An IPv4 packet with `options` bytes of options and `payload` bytes behind.
fn ipv4_frame(options: usize, flags: u16, protocol: u8, payload: usize) -> Vec<u8> {
    let header_len = 20 + options;
    let mut frame = ethernet(0x0800);
    frame.extend_from_slice(&[0x40 | (header_len / 4) as u8, 0]);
    frame.extend_from_slice(&((header_len + payload) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 1]);
    frame.extend_from_slice(&flags.to_be_bytes());
    frame.extend_from_slice(&[64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.resize(14 + header_len + payload, 1);
    frame
}

/// An IPv6 packet with the extension headers `chain` (each a type and its bytes but the first).
fn ipv6_frame(chain: &[(u8, &[u8])], protocol: u8, payload: usize) -> Vec<u8> {
    let kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).collect();
    let nexts = kinds.iter().copied().chain([protocol]);
    let mut nexts = nexts.collect::<Vec<_>>().into_iter();
    let mut body = Vec::new();
    let first = nexts.next().unwrap();
    for (_, bytes) in chain {
        body.push(nexts.next().unwrap());
        body.extend_from_slice(bytes);
    }
    body.resize(body.len() + payload, 1);
    let mut frame = ethernet(0x86dd);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[first, 64]);
    frame.extend_from_slice(&[0x20; 16]);
    frame.extend_from_slice(&[0x21; 16]);
    frame.extend_from_slice(&body);
    frame
}

fn ip(frame: &[u8]) -> Packet {
    match parse(frame) {
        Content::Ip(packet) => packet,
        other => panic!("{other:?}: {frame:02x?}"),
    }
}

#[test]
fn ipv4_ends_where_it_says_and_options_belong_to_the_header() {
    for options in [0, 4, 40] {
        for (protocol, payload) in [(6, Payload::Tcp), (17, Payload::Udp), (1, Payload::Other)] {
            let mut frame = ipv4_frame(options, 0x4000, protocol, 30);
            frame.resize(frame.len() + 9, 0);
            let packet = ip(&frame);
            let end = 14 + 20 + options;
            assert_eq!(packet.network, 14..end);
            assert_eq!(packet.transport, end..end + 30);
            assert_eq!(packet.payload, payload);
            assert!(packet.is_ipv4());
            assert_eq!(packet.source, IpAddress::v4(10, 0, 0, 1));
            assert_eq!(packet.destination, IpAddress::v4(10, 0, 0, 2));
        }
    }
}

#[test]
fn every_fragment_is_one() {
    for flags in [0x2000, 0x0001, 0x1fff, 0x2005, 0x6000] {
        let packet = ip(&ipv4_frame(0, flags, 17, 64));
        assert_eq!(packet.payload, Payload::Fragment, "{flags:04x}");
    }
    for flags in [0, 0x4000, 0x8000] {
        let packet = ip(&ipv4_frame(0, flags, 17, 64));
        assert_eq!(packet.payload, Payload::Udp, "{flags:04x}");
    }
    let fragment = [0, 0, 1, 0, 0, 0, 7];
    let packet = ip(&ipv6_frame(&[(44, &fragment)], 17, 64));
    assert_eq!(packet.payload, Payload::Fragment);
}

#[test]
fn extension_headers_belong_to_the_header() {
    let short = [0; 7];
    let mut long = [0; 23];
    long[0] = 2;
    let routed = [0, 0, 0, 0, 0, 0, 0];
    let chain: [(u8, &[u8]); 3] = [(0, &short), (60, &long), (43, &routed)];
    for (protocol, payload) in [(6, Payload::Tcp), (17, Payload::Udp), (58, Payload::Other)] {
        let packet = ip(&ipv6_frame(&chain, protocol, 50));
        assert_eq!(packet.network, 14..14 + 40 + 8 + 24 + 8);
        assert_eq!(packet.transport.len(), 50);
        assert_eq!(packet.payload, payload);
        assert!(!packet.is_ipv4());
    }
    // Segments left: the destination is not the last one.
    let mut under_way = routed;
    under_way[2] = 1;
    let frame = ipv6_frame(&[(43, &under_way)], 6, 50);
    assert_eq!(parse(&frame), Content::Malformed);
    // A header that is longer than the packet.
    let mut endless = short;
    endless[0] = 200;
    let frame = ipv6_frame(&[(0, &endless)], 6, 50);
    assert_eq!(parse(&frame), Content::Malformed);
}

#[test]
fn lengths_that_contradict_each_other_are_malformed() {
    let good = ipv4_frame(4, 0, 6, 20);
    for (at, value) in [
        (14, 0x44),
        (14, 0x55),
        (14, 0x4f),
        (17, 10),
        (16, 200),
        (17, 45),
    ] {
        let mut frame = good.clone();
        frame[at] = value;
        assert_eq!(parse(&frame), Content::Malformed, "byte {at} = {value}");
    }
    let good = ipv6_frame(&[], 6, 20);
    for (at, value) in [(14, 0x40), (19, 21), (18, 1)] {
        let mut frame = good.clone();
        frame[at] = value;
        assert_eq!(parse(&frame), Content::Malformed, "byte {at} = {value}");
    }
    assert_eq!(parse(&ethernet(0x0800)), Content::Malformed);
    assert_eq!(parse(&ethernet(0x0806)), Content::Other);
    assert_eq!(parse(&ethernet(0x8100)), Content::Other);
    assert_eq!(parse(&[]), Content::Other);
}

#[test]
fn no_bytes_make_it_panic_or_point_outside() {
    // A linear congruential generator (Knuth's): seeded, and no dependency.
    let mut state = 1u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let extension = [0, 0, 0, 0, 0, 0, 0];
    let mut found = 0;
    for round in 0..200_000 {
        let mut frame = match random() % 2 {
            0 => ipv4_frame(random() % 11 * 4, 0, 6, 20),
            _ => ipv6_frame(&[(0, &extension), (43, &extension)], 17, 20),
        };
        for _ in 0..random() % 6 {
            let at = 12 + random() % (frame.len() - 12);
            frame[at] = random() as u8;
        }
        frame.truncate(random() % (frame.len() + 40));
        if let Content::Ip(packet) = parse(&frame) {
            found += 1;
            assert!(
                packet.network.start == 14
                    && packet.network.end == packet.transport.start
                    && packet.transport.start <= packet.transport.end
                    && packet.transport.end <= frame.len(),
                "seed 1, round {round}: {packet:?} of {frame:02x?}"
            );
        }
    }
    assert!(found > 1000, "seed 1: {found}");
}
