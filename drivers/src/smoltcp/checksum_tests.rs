#![allow(clippy::unwrap_used, reason = "for tests only")]

use std::vec;
use std::vec::Vec;

use ChecksumOffload as C;
use pagewire_hal::Capabilities;

use super::*;
use crate::smoltcp::Config;

/// The slow way, of another hand than smoltcp's (RFC 1071).
fn slow_sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// A frame as smoltcp leaves it: every checksum field zero.
#[derive(Clone, Copy, Debug)]
struct Kind {
    ipv6: bool,
    tcp: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        ipv6: false,
        tcp: true,
    },
    Kind {
        ipv6: false,
        tcp: false,
    },
    Kind {
        ipv6: true,
        tcp: true,
    },
    Kind {
        ipv6: true,
        tcp: false,
    },
];

impl Kind {
    fn network_len(self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    fn field(self) -> usize {
        14 + self.network_len() + if self.tcp { 16 } else { 6 }
    }

    fn vacant(self, payload: &[u8]) -> Vec<u8> {
        let protocol = if self.tcp { 6 } else { 17 };
        let header = if self.tcp { 20 } else { 8 };
        let len = (header + payload.len()) as u16;
        let mut frame = vec![2; 12];
        if self.ipv6 {
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&len.to_be_bytes());
            frame.extend_from_slice(&[protocol, 64]);
            frame.extend_from_slice(&[0xfe; 16]);
            frame.extend_from_slice(&[0xfd; 16]);
        } else {
            frame.extend_from_slice(&[8, 0, 0x45, 0]);
            frame.extend_from_slice(&(len + 20).to_be_bytes());
            frame.extend_from_slice(&[0, 1, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        }
        frame.extend_from_slice(&[0x1f, 0x90, 0x1f, 0x91]);
        if self.tcp {
            frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 9, 9, 0, 0, 0, 0]);
        } else {
            frame.extend_from_slice(&len.to_be_bytes());
            frame.extend_from_slice(&[0, 0]);
        }
        frame.extend_from_slice(payload);
        frame
    }

    /// The sum of the pseudo-header for `len` bytes of transport.
    fn seed(self, frame: &[u8], len: usize) -> u16 {
        let addresses = if self.ipv6 { 22..54 } else { 26..34 };
        let protocol = if self.tcp { 6 } else { 17 };
        let len = (len as u32).to_be_bytes();
        slow_sum(&[&frame[addresses], &len, &[0, protocol]])
    }

    /// What must stand in the field.
    fn right(self, frame: &[u8]) -> u16 {
        let mut frame = frame.to_vec();
        frame[self.field()..self.field() + 2].fill(0);
        let transport = &frame[14 + self.network_len()..];
        let seed = self.seed(&frame, transport.len()).to_be_bytes();
        match !slow_sum(&[&seed, transport]) {
            0 if !self.tcp => 0xffff,
            sum => sum,
        }
    }

    fn complete(self, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.vacant(payload);
        let right = self.right(&frame);
        put(&mut frame, self.field(), right);
        if !self.ipv6 {
            let header = !slow_sum(&[&frame[14..34]]);
            put(&mut frame, 24, header);
        }
        frame
    }
}

fn mapping(tx: C, rx: C) -> Mapping {
    let mut device = Capabilities::minimal();
    (device.tx_checksum, device.rx_checksum) = (tx, rx);
    Mapping::new(&device, &Config::default())
}

fn kinds() -> impl Iterator<Item = (Kind, C, Vec<u8>)> {
    KINDS.into_iter().flat_map(|kind| {
        let exact = match (kind.ipv6, kind.tcp) {
            (false, true) => C::TCP_IPV4,
            (false, false) => C::UDP_IPV4,
            (true, true) => C::TCP_IPV6,
            (true, false) => C::UDP_IPV6,
        };
        [0, 1, 2, 33, 1400].map(|len| {
            let payload = (0..len).map(|i| (i * 37) as u8).collect();
            (kind, exact, payload)
        })
    })
}

#[test]
fn for_the_device_the_field_holds_the_seed() {
    for (kind, exact, payload) in kinds() {
        let mapping = mapping(C::all(), C::empty());
        let before = kind.vacant(&payload);
        let mut frame = before.clone();
        let mut counters = Counters::default();
        let offload = prepare(&mut frame, &mapping, &mut counters).unwrap();
        let header = if kind.ipv6 {
            C::empty()
        } else {
            C::IPV4_HEADER
        };
        assert_eq!(offload.checksum, exact | header, "{kind:?}");
        assert_eq!(offload.l2_len, 14);
        assert_eq!(usize::from(offload.l3_len), kind.network_len());
        assert_eq!(offload.segment_len, 0);
        let seed = kind.seed(&before, before.len() - 14 - kind.network_len());
        assert_eq!(word(&frame, kind.field()), Some(seed), "{kind:?}");
        let mut rest = frame;
        put(&mut rest, kind.field(), 0);
        assert_eq!(rest, before, "{kind:?}");
        assert_eq!((counters.device_checksums, counters.cpu_checksums), (1, 0));
    }
}

#[test]
fn what_the_device_does_not_do_of_a_protocol_is_summed_here() {
    for (kind, exact, payload) in kinds() {
        // Only the other family: smoltcp leaves both out.
        let other = match exact {
            C::TCP_IPV4 => C::TCP_IPV6,
            C::TCP_IPV6 => C::TCP_IPV4,
            C::UDP_IPV4 => C::UDP_IPV6,
            _ => C::UDP_IPV4,
        };
        let mut frame = kind.vacant(&payload);
        let right = kind.right(&frame);
        let mut counters = Counters::default();
        let mapping = mapping(other, C::empty());
        let offload = prepare(&mut frame, &mapping, &mut counters).unwrap();
        assert_eq!(offload, Offload::NONE, "{kind:?}");
        assert_eq!(word(&frame, kind.field()), Some(right), "{kind:?}");
        assert_eq!((counters.device_checksums, counters.cpu_checksums), (0, 1));
    }
}

#[test]
fn a_generic_sum_does_for_tcp_and_not_for_udp() {
    for (kind, _, payload) in kinds() {
        let mut frame = kind.vacant(&payload);
        let mapping = mapping(C::GENERIC, C::empty());
        let offload = prepare(&mut frame, &mapping, &mut Counters::default()).unwrap();
        if kind.tcp {
            assert_eq!(
                (offload.checksum, offload.checksum_offset),
                (C::GENERIC, 16)
            );
        } else {
            assert_eq!(offload, Offload::NONE);
            assert_eq!(word(&frame, kind.field()), Some(0), "smoltcp sums");
        }
    }
}

#[test]
fn what_smoltcp_has_summed_is_left_alone() {
    for (kind, _, payload) in kinds() {
        let before = kind.complete(&payload);
        for tx in [C::empty(), C::all()] {
            let mut frame = before.clone();
            let mapping = mapping(tx, C::empty());
            let offload = prepare(&mut frame, &mapping, &mut Counters::default()).unwrap();
            assert_eq!(offload, Offload::NONE, "{kind:?}");
            assert_eq!(frame, before, "{kind:?}");
        }
    }
}

#[test]
fn a_udp_datagram_shorter_than_its_packet_is_summed_here() {
    for ipv6 in [false, true] {
        let kind = Kind { ipv6, tcp: false };
        let mut frame = kind.vacant(&[7; 60]);
        let start = 14 + kind.network_len();
        put(&mut frame, start + 4, 8 + 31);
        let mut short = kind.vacant(&[7; 31]);
        put(&mut short, start + 4, 8 + 31);
        let mapping = mapping(C::all() - C::IPV4_HEADER, C::all());
        let mut counters = Counters::default();
        let offload = prepare(&mut frame, &mapping, &mut counters).unwrap();
        assert_eq!(offload, Offload::NONE);
        assert_eq!(word(&frame, kind.field()), Some(kind.right(&short)));
        assert_eq!(counters.cpu_checksums, 1);
    }
}

#[test]
fn a_udp_sum_of_zero_is_written_as_all_ones() {
    for ipv6 in [false, true] {
        let kind = Kind { ipv6, tcp: false };
        let mut frame = kind.vacant(&[0, 0]);
        // What the sum lacks to all ones.
        let missing = kind.right(&frame);
        let len = frame.len();
        put(&mut frame, len - 2, missing);
        let only_other = if ipv6 { C::UDP_IPV4 } else { C::UDP_IPV6 };
        let mapping = mapping(only_other, C::empty());
        prepare(&mut frame, &mapping, &mut Counters::default()).unwrap();
        assert_eq!(word(&frame, kind.field()), Some(0xffff));
    }
}

#[test]
fn a_bad_checksum_is_accepted_by_nobody() {
    for (kind, exact, payload) in kinds() {
        let good = kind.complete(&payload);
        let other = match exact {
            C::TCP_IPV4 | C::TCP_IPV6 => C::TCP_IPV4 | C::TCP_IPV6,
            _ => C::UDP_IPV4 | C::UDP_IPV6,
        } - exact;
        // The device does all, or only the other family of this protocol.
        for rx in [C::all(), other] {
            let mapping = mapping(C::empty(), rx);
            let mut counters = Counters::default();
            let unknown = RxChecksum::default();
            assert!(accept(&good, unknown, &mapping, &mut counters), "{kind:?}");
            assert_eq!((counters.cpu_verified, counters.bad_checksums), (1, 0));
            let mut bad = good.clone();
            *bad.last_mut().unwrap() ^= 0x10;
            assert!(!accept(&bad, unknown, &mapping, &mut counters), "{kind:?}");
            assert_eq!((counters.cpu_verified, counters.bad_checksums), (2, 1));
        }
        // What the device says counts, whatever it said that it would verify.
        let mapping = mapping(C::empty(), C::empty());
        let mut counters = Counters::default();
        for bad in [
            RxChecksum {
                ipv4_header: Verdict::Bad,
                transport: Verdict::Good,
            },
            RxChecksum {
                ipv4_header: Verdict::Good,
                transport: Verdict::Bad,
            },
        ] {
            assert!(!accept(&good, bad, &mapping, &mut counters), "{kind:?}");
        }
        assert_eq!(counters.bad_checksums, 2);
    }
}

#[test]
fn an_ipv4_header_of_which_nothing_is_said_is_verified() {
    let mapping = mapping(C::empty(), C::IPV4_HEADER);
    let mut frame = KINDS[0].complete(&[1; 9]);
    let mut counters = Counters::default();
    assert!(accept(
        &frame,
        RxChecksum::default(),
        &mapping,
        &mut counters
    ));
    // Another time to live, the same length.
    frame[22] ^= 1;
    assert!(!accept(
        &frame,
        RxChecksum::default(),
        &mapping,
        &mut counters
    ));
    assert_eq!(counters.bad_checksums, 1);
}

#[test]
fn udp_without_a_checksum_is_for_ipv4_only() {
    let mapping = mapping(C::empty(), C::all());
    for ipv6 in [false, true] {
        let kind = Kind { ipv6, tcp: false };
        let mut frame = kind.complete(&[5; 20]);
        put(&mut frame, kind.field(), 0);
        let mut counters = Counters::default();
        let accepted = accept(&frame, RxChecksum::default(), &mapping, &mut counters);
        assert_eq!(accepted, !ipv6);
    }
}

#[test]
fn fragments_pass_if_they_may_and_never_both_unsummed_and_offloaded() {
    for fragments in [false, true] {
        let mut device = Capabilities::minimal();
        (device.tx_checksum, device.rx_checksum) = (C::all(), C::all());
        let config = Config {
            fragments,
            ..Config::default()
        };
        let mapping = Mapping::new(&device, &config);
        let mut frame = Kind {
            ipv6: false,
            tcp: false,
        }
        .vacant(&[3; 64]);
        frame[20] = 0x20;
        let before = frame.clone();
        let mut counters = Counters::default();
        let prepared = prepare(&mut frame, &mapping, &mut counters);
        assert_eq!(frame, before);
        if fragments {
            // Its header is the device's, its UDP header smoltcp's.
            assert_eq!(prepared.map(|o| o.checksum), Ok(C::IPV4_HEADER));
        } else {
            assert_eq!(prepared, Err(Unsendable::Fragment));
        }
        let verdict = RxChecksum {
            ipv4_header: Verdict::Good,
            transport: Verdict::Unknown,
        };
        assert_eq!(accept(&frame, verdict, &mapping, &mut counters), fragments);
        assert_eq!(counters.receive_fragments, u64::from(!fragments));
    }
}

#[test]
fn a_segment_for_the_device_to_cut_has_the_seed_that_it_wants() {
    let kind = KINDS[0];
    for seed_has_length in [false, true] {
        let mut device = Capabilities::minimal();
        device.tx_checksum = C::IPV4_HEADER | C::TCP_IPV4;
        device.max_fragment_len = 1 << 16;
        let mut limits = pagewire_hal::Segmentation::new(20_000, 240);
        limits.ipv4 = true;
        limits.seed_has_length = seed_has_length;
        device.segmentation = Some(limits);
        let mapping = Mapping::new(&device, &Config::default());
        let mut frame = kind.vacant(&[9; 5000]);
        put(&mut frame, 24, 0x1234);
        let segment_len = NonZeroU16::new(1448).unwrap();
        let offload = prepare_segmentation(&mut frame, segment_len, &mapping).unwrap();
        assert_eq!(offload.checksum, C::IPV4_HEADER | C::TCP_IPV4);
        let lengths = (offload.l2_len, offload.l3_len, offload.l4_len);
        assert_eq!((lengths, offload.segment_len), ((14, 20, 20), 1448));
        let len = if seed_has_length { 5020 } else { 0 };
        assert_eq!(word(&frame, kind.field()), Some(kind.seed(&frame, len)));
        assert_eq!(word(&frame, 24), Some(0));
        // What is not TCP over IPv4 is not cut.
        for kind in [KINDS[1], KINDS[2]] {
            let mut frame = kind.vacant(&[9; 5000]);
            let refused = prepare_segmentation(&mut frame, segment_len, &mapping);
            assert_eq!(refused, Err(Unsendable::NotSegmentable));
        }
    }
}
