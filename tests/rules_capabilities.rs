//! Rule 8 of the design: nothing is advertised that is not done. Each capability is looked for on
//! the wire.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use common::frames::{config, post, region};
use common::packets::Kind;
use common::{Lab, Port, granule};
use pagewire::hal::{
    Capabilities, ChecksumOffload, Granule, Nic, Offload, PortError, Region, RxQueue,
};

/// What the capabilities offer, as requests.
fn offered(capabilities: &Capabilities) -> Vec<(Kind, ChecksumOffload)> {
    let mut requests = Vec::new();
    for options in [0, 4, 40] {
        for (bit, tcp) in [
            (ChecksumOffload::TCP_IPV4, true),
            (ChecksumOffload::UDP_IPV4, false),
        ] {
            let kind = Kind {
                ipv6: false,
                tcp,
                options,
            };
            requests.push((kind, bit));
            requests.push((kind, bit | ChecksumOffload::IPV4_HEADER));
            requests.push((kind, ChecksumOffload::IPV4_HEADER));
            requests.push((kind, ChecksumOffload::GENERIC));
        }
    }
    for (bit, tcp) in [
        (ChecksumOffload::TCP_IPV6, true),
        (ChecksumOffload::UDP_IPV6, false),
    ] {
        requests.push((
            Kind {
                ipv6: true,
                tcp,
                options: 0,
            },
            bit,
        ));
        requests.push((
            Kind {
                ipv6: true,
                tcp,
                options: 0,
            },
            ChecksumOffload::GENERIC,
        ));
    }
    requests.retain(|(_, bits)| capabilities.tx_checksum.contains(*bits));
    requests
}

/// Sends one packet, cut into a header buffer and pieces of a region, and returns what arrived.
fn over_the_wire(
    lab: &mut Lab,
    port: &mut Port,
    kind: Kind,
    bits: ChecksumOffload,
    payload: &[u8],
    cuts: usize,
) -> Vec<u8> {
    let region = lab.host.register(payload.to_vec()).unwrap();
    let id = port
        .ledger_mut()
        .register(region as Arc<dyn Region>)
        .unwrap();
    let loan = port.ledger_mut().lend(id, 0, payload.len()).unwrap();
    let (seeded, whole) = (kind.seeded(payload), kind.frame(payload));
    let mut header = whole[..kind.header_len()].to_vec();
    let fill = |header: &mut Vec<u8>, range: std::ops::Range<usize>| {
        header[range.clone()].copy_from_slice(&seeded[range]);
    };
    if bits.contains(ChecksumOffload::IPV4_HEADER) {
        fill(&mut header, 24..26);
    }
    if bits.intersects(ChecksumOffload::TRANSPORT) {
        fill(&mut header, kind.checksum_at()..kind.checksum_at() + 2);
    }
    let mut buffer = port.buffer(header.len()).unwrap();
    port.bytes_mut(&mut buffer)[..header.len()].copy_from_slice(&header);
    let mut frame = port.frame(buffer, header.len());
    let step = payload.len().div_ceil(cuts).max(1);
    for start in (0..payload.len()).step_by(step) {
        frame.attach(&loan, start, step.min(payload.len() - start));
    }
    let offload = Offload {
        checksum: bits,
        l2_len: 14,
        l3_len: kind.network_len() as u16,
        l4_len: kind.transport_len() as u8,
        checksum_offset: if kind.tcp { 16 } else { 6 },
        segment_len: 0,
    };
    frame
        .post(offload)
        .unwrap_or_else(|error| panic!("{kind:?} {bits:?}: {error}"));
    port.doorbell();
    lab.run(300);
    port.reclaim(&mut |_| {}).unwrap();
    port.ledger_mut().give_back(loan);
    port.ledger_mut().release(id).unwrap();
    let mut frames = lab.arrived();
    assert_eq!(frames.len(), 1, "seed {}: {kind:?} {bits:?}", lab.seed);
    frames.remove(0)
}

#[test]
fn rule_8_every_checksum_that_is_offered_is_on_the_wire() {
    for seed in 0..10 {
        let mut driver = config(256);
        driver.generic_checksum = seed % 2 == 0;
        let (mut lab, mut port) = Lab::with_port(seed, granule(4096), &driver);
        let capabilities = *port.capabilities();
        let requests = offered(&capabilities);
        let all = requests
            .iter()
            .fold(ChecksumOffload::empty(), |all, (_, bits)| all | *bits);
        assert_eq!(
            all, capabilities.tx_checksum,
            "each bit that is offered is tried"
        );
        assert!(all.contains(ChecksumOffload::TCP_IPV4 | ChecksumOffload::UDP_IPV6));
        for (kind, bits) in requests {
            for (len, cuts) in [(1, 1), (2, 2), (17, 3), (1001, 2), (1400, 7)] {
                let payload: Vec<u8> = (0..len).map(|i| (i * 17 + seed as usize) as u8).collect();
                let arrived = over_the_wire(&mut lab, &mut port, kind, bits, &payload, cuts);
                let expected = kind.frame(&payload);
                let text = format!("seed {seed}: {kind:?} {bits:?} {len} bytes in {cuts}");
                assert_eq!(&arrived[..expected.len()], expected, "{text}");
                assert!(
                    arrived[expected.len()..].iter().all(|b| *b == 0),
                    "{text}: padding"
                );
            }
        }
        lab.assert_clean();
    }
}

#[test]
fn rule_8_every_fragment_count_that_is_offered_is_on_the_wire() {
    for (seed, granule) in [
        (1, granule(4096)),
        (2, granule(1 << 16)),
        (3, Granule::CONTIGUOUS),
    ] {
        let (mut lab, mut port) = Lab::with_port(seed, granule, &config(256));
        let max = port.max_fragments();
        assert_eq!(max, 64);
        assert!(port.has_room(max) && !port.has_room(max + 1), "seed {seed}");
        let (region, id) = region(&lab.host, &mut port, 1 << 16);
        let loan = port.ledger_mut().lend(id, 0, 1 << 16).unwrap();
        for count in 1..=max + 1 {
            // Pieces of 20 bytes, each far from the last, and none across a page, wherever the
            // allocator has put the region.
            let lead = region.base().addr().get().wrapping_neg() % 32;
            let pieces: Vec<_> = (0..count - 1).map(|i| (lead + i * 512, 20)).collect();
            let posted = post(&mut port, &loan, &pieces);
            if count > max {
                assert_eq!(posted, Err(PortError::TooManyPieces), "seed {seed}");
                continue;
            }
            if count == 1 {
                // A header alone is shorter than the device takes.
                continue;
            }
            posted.unwrap();
            port.doorbell();
            lab.run(300);
            port.reclaim(&mut |_| {}).unwrap();
            let frames = lab.arrived();
            assert_eq!(frames.len(), 1, "seed {seed}: {count} fragments");
            let expected: Vec<u8> = pieces
                .iter()
                .flat_map(|(start, len)| region.bytes()[*start..start + len].to_vec())
                .collect();
            assert_eq!(
                &frames[0][14..14 + expected.len()],
                expected,
                "seed {seed}: {count}"
            );
        }
        port.ledger_mut().give_back(loan);
        lab.assert_clean();
    }
}

#[test]
fn rule_8_checksums_that_are_verified_on_receive_are_judged_rightly() {
    use pagewire::hal::Verdict;
    for seed in 0..10 {
        let (mut lab, _port) = Lab::with_port(seed, granule(4096), &config(256));
        let offered = lab.nic.capabilities().rx_checksum;
        let mac = lab.nic.mac_address().0;
        let mut seen = ChecksumOffload::empty();
        for (ipv6, tcp, bit) in [
            (false, true, ChecksumOffload::TCP_IPV4),
            (false, false, ChecksumOffload::UDP_IPV4),
            (true, true, ChecksumOffload::TCP_IPV6),
            (true, false, ChecksumOffload::UDP_IPV6),
        ] {
            let kind = Kind {
                ipv6,
                tcp,
                options: 0,
            };
            for broken in [false, true] {
                let mut frame = kind.frame(&[0xa5; 333]);
                frame[..6].copy_from_slice(&mac);
                if broken {
                    frame[200] ^= 1;
                }
                lab.deliver(&frame);
                let mut got = Vec::new();
                for _ in 0..400 {
                    lab.run(1);
                    let mut scratch = [0; 2048];
                    lab.rx
                        .receive(8, &mut |f| {
                            got.push((f.copy_to(&mut scratch).to_vec(), f.checksum()))
                        })
                        .unwrap();
                }
                assert_eq!(got.len(), 1, "seed {seed} {kind:?} broken {broken}");
                assert_eq!(got[0].0, frame, "seed {seed} {kind:?}");
                let verdict = got[0].1.transport;
                let wrong = if broken { Verdict::Good } else { Verdict::Bad };
                assert_ne!(verdict, wrong, "seed {seed} {kind:?} broken {broken}");
                if verdict != Verdict::Unknown {
                    seen |= bit;
                }
                if !ipv6 && got[0].1.ipv4_header == Verdict::Good {
                    seen |= ChecksumOffload::IPV4_HEADER;
                }
            }
        }
        assert!(
            seen.contains(offered),
            "seed {seed}: offered {offered:?}, seen {seen:?}"
        );
    }
}
