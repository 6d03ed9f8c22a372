//! Requests for segmentation: how long they are and what is in them. `segmentation_loss.rs` has what
//! is sent again of them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::time::Duration;

use common::flow::{Flow, LONGEST, MSS, numbers, setup, wide};
use common::{ACK, FIN, PSH, PeerOptions, Setup, World, pattern, segmentation};
use pagewire_hal::{ChecksumOffload, Granule};
use pagewire_tcp::Slice;

/// The template is checked by the queue, the segments as they are parsed.
#[test]
fn a_request_takes_64_kib_in_18_fragments() {
    for (seed_has_length, checksum) in [
        (true, ChecksumOffload::TCP_IPV4),
        (false, ChecksumOffload::TCP_IPV4),
        (
            false,
            ChecksumOffload::TCP_IPV4 | ChecksumOffload::IPV4_HEADER,
        ),
    ] {
        let setup = Setup {
            max_fragments: 18,
            checksum,
            segmentation: Some(segmentation(seed_has_length)),
            ..setup()
        };
        let mut flow = Flow::open(&setup, wide());
        flow.send(4 * LONGEST * MSS);
        assert!(flow.deliver() == flow.bytes[..4 * LONGEST * MSS]);
        let requests = flow.w.handle.take_requests();
        assert_eq!(requests.len(), 4, "{requests:?}");
        for request in &requests {
            assert_eq!(request.segments, LONGEST);
            assert_eq!(request.payload, LONGEST * MSS);
            assert!(request.fragments <= 18, "{request:?}");
        }
        let stats = flow.stats();
        assert_eq!(stats.segmented.ended_by_budget, 0, "18 are enough");
        assert_eq!(stats.copied.total().segments, 0);
        assert_eq!(stats.checksums.tcp_cpu, 0);
        assert!(stats.segmented.mean_payload().unwrap() > 30_000);
    }
}

#[test]
fn identifications_count_on_over_all_segments() {
    let mut flow = Flow::new(&setup(), wide());
    flow.send(300 * MSS);
    let mut last = None;
    loop {
        let sent = flow.w.pump();
        if sent.is_empty() {
            break;
        }
        for segment in sent {
            let id = segment.identification;
            assert!(last.is_none_or(|last: u16| last.wrapping_add(1) == id));
            last = Some(id);
            flow.peer.take(&[segment]);
            let ack = flow.peer.ack();
            flow.w.give(&ack);
        }
    }
    assert!(flow.stats().segmented.segments > 290);
}

#[test]
fn push_and_fin_are_the_last_segments() {
    let mut flow = Flow::open(&setup(), wide());
    flow.send(10_000);
    flow.w.stack.close(flow.w.now, flow.id);
    let sent = flow.w.pump();
    assert_eq!(sent.len(), 7);
    let (last, others) = sent.split_last().unwrap();
    assert!(others.iter().all(|s| s.flags & (FIN | PSH) == 0));
    assert_eq!(last.flags & (FIN | PSH), FIN | PSH);
    assert_eq!(last.payload.len(), 10_000 - 6 * MSS);
    let requests = flow.w.handle.take_requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(flow.peer.take(&sent) == flow.bytes[..10_000]);
    let ack = flow.peer.ack();
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty());
    assert!(flow.w.stack.completion(flow.w.now, flow.id).is_some());
}

#[test]
fn a_short_last_segment_goes_as_it_would_by_itself() {
    for nagle in [false, true] {
        let mut setup = setup();
        setup.config.nagle = nagle;
        let mut flow = Flow::open(&setup, wide());
        flow.send(5 * MSS + 100);
        let sent = flow.w.pump();
        let requests = flow.w.handle.take_requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        let held = usize::from(nagle);
        assert_eq!(sent.len(), 6 - held, "nagle: {nagle}");
        assert_eq!(sent.last().unwrap().flags & PSH == 0, nagle);
        let bytes = [flow.peer.take(&sent), Vec::new()].concat();
        let ack = flow.peer.ack();
        flow.w.give(&ack);
        let rest = flow.deliver();
        assert_eq!(rest.len(), held * 100);
        assert!([bytes, rest].concat() == flow.bytes[..5 * MSS + 100]);
    }
}

/// More data is unsent than a request takes: none ends in a short segment but the last.
#[test]
fn requests_are_of_full_segments() {
    let mut flow = Flow::new(&setup(), wide());
    flow.send(500_001);
    flow.deliver();
    let requests = flow.w.handle.take_requests();
    let (last, others) = requests.split_last().unwrap();
    assert!(others.iter().all(|r| r.payload == r.segments * MSS));
    assert!(last.payload <= last.segments * MSS);
    assert_eq!(flow.stats().data.bytes, 500_001);
}

#[test]
fn rule_1_the_page_budget_ends_requests_and_copies_nothing() {
    // 63 slices of 700 bytes are 44,100: 30 segments.
    for (max_fragments, longest) in [(64, 30), (256, LONGEST)] {
        let setup = Setup {
            max_fragments,
            granule: Granule::CONTIGUOUS,
            ..setup()
        };
        let mut flow = Flow::open(&setup, wide());
        let slices: Vec<Slice> = (0..600)
            .map(|n| Slice {
                region: flow.region,
                start: n * 764,
                len: 700,
            })
            .collect();
        let wanted: Vec<u8> = slices
            .iter()
            .flat_map(|s| flow.bytes[s.start..s.start + s.len].to_vec())
            .collect();
        assert_eq!(flow.w.stack.send(flow.id, &slices, 1), Ok(420_000));
        assert!(flow.deliver() == wanted);
        let requests = flow.w.handle.take_requests();
        let most = requests.iter().map(|r| r.segments).max();
        assert_eq!(most, Some(longest), "{requests:?}");
        let stats = flow.stats();
        assert_eq!(stats.segmented.ended_by_budget > 0, max_fragments == 64);
        assert_eq!(stats.copied.total().bytes + stats.rescued.bytes, 0);
    }
}

#[test]
fn rule_1_a_request_of_which_no_segment_fits_is_one_segment_rescued() {
    let setup = Setup {
        max_fragments: 4,
        granule: Granule::CONTIGUOUS,
        ..setup()
    };
    let mut flow = Flow::open(&setup, wide());
    let before = flow.stats();
    let slices: Vec<Slice> = (0..50)
        .map(|n| Slice {
            region: flow.region,
            start: n * 400,
            len: 292,
        })
        .collect();
    assert_eq!(flow.w.stack.send(flow.id, &slices, 1), Ok(10 * MSS));
    assert_eq!(flow.deliver().len(), 10 * MSS);
    assert!(flow.w.handle.take_requests().is_empty());
    let stats = flow.stats();
    assert_eq!(stats.rescued.segments, 10, "two pieces of five each");
    assert_eq!(stats.rescued.bytes, 20 * 292);
    let ended = stats.segmented.ended_by_budget - before.segmented.ended_by_budget;
    assert_eq!(ended, 9, "the last is a single segment anyway");
}

#[test]
fn without_what_it_needs_nothing_is_asked_for() {
    let mut no_ipv4 = segmentation(true);
    no_ipv4.ipv4 = false;
    let mut short_header = segmentation(true);
    short_header.max_header_len = 53;
    let mut short_payload = segmentation(true);
    short_payload.max_payload_len = 2 * MSS as u32 - 1;
    let mut off = setup();
    off.config.segmentation = false;
    let with = |segmentation| Setup {
        segmentation: Some(segmentation),
        ..setup()
    };
    let sums = |checksum| Setup {
        checksum,
        ..setup()
    };
    let cases = [
        ("switched off", off),
        ("no IPv4", with(no_ipv4)),
        ("short headers only", with(short_header)),
        ("less than two segments", with(short_payload)),
        ("no sums", sums(ChecksumOffload::empty())),
        ("generic sums", sums(ChecksumOffload::GENERIC)),
        (
            "does not gather",
            Setup {
                max_fragments: 1,
                ..setup()
            },
        ),
    ];
    for (name, setup) in cases {
        let mut flow = Flow::new(&setup, wide());
        flow.send(100_000);
        assert!(flow.deliver() == flow.bytes[..100_000], "{name}");
        assert!(flow.w.handle.take_requests().is_empty(), "{name}");
        assert_eq!(flow.stats().segmented.requests, 0, "{name}");
    }
}

#[test]
fn the_first_ack_inside_a_request_measures_the_round_trip() {
    let mut setup = setup();
    setup.config.min_rto = Duration::from_millis(1);
    let mut flow = Flow::new(&setup, wide());
    flow.send(10 * MSS);
    let sent = flow.w.pump();
    flow.w.advance(Duration::from_millis(50));
    let ack = flow.peer.ack_at(sent[2].seq);
    flow.w.give(&ack);
    flow.w.pump();
    // SRTT 50 / 8, RTTVAR 50 / 4, after a handshake that took no time.
    let waits = flow.w.next_call.unwrap().saturating_since(flow.w.now);
    assert!(waits > Duration::from_millis(56), "{waits:?}");
}

#[test]
fn a_request_is_half_a_window_and_waits_for_a_third() {
    let mut flow = Flow::new(&setup(), wide());
    flow.send(200 * MSS);
    let sent = flow.w.pump();
    assert_eq!(sent.len(), 10, "the initial window");
    let requests = flow.w.handle.take_requests();
    assert_eq!(
        requests.iter().map(|r| r.segments).collect::<Vec<_>>(),
        [5, 5]
    );
    // One segment acknowledged: a window of 11, of which 2 are free. A third would be 3.
    let ack = flow.peer.ack_at(sent[1].seq);
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty());
    // A window of 12, of which 4 are free.
    let ack = flow.peer.ack_at(sent[2].seq);
    flow.w.give(&ack);
    assert_eq!(flow.w.pump().len(), 4);
    assert_eq!(flow.w.handle.take_requests().len(), 1);
}

/// Where the page budget allows no longer one, none is waited for: the window is used up.
#[test]
fn what_the_page_budget_shortens_does_not_wait() {
    for max_fragments in [2, 3, 5] {
        let setup = Setup {
            max_fragments,
            granule: Granule::CONTIGUOUS,
            ..setup()
        };
        let mut flow = Flow::new(&setup, wide());
        let slices: Vec<Slice> = (0..60)
            .map(|n| Slice {
                region: flow.region,
                start: n * 1600,
                len: 1500,
            })
            .collect();
        assert_eq!(flow.w.stack.send(flow.id, &slices, 1), Ok(90_000));
        assert_eq!(flow.w.pump().len(), 10, "{max_fragments} fragments");
    }
}

/// A request that waits does not wait for what never comes.
#[test]
fn a_waiting_request_goes_with_the_last_ack_or_after_a_timeout() {
    let mut flow = Flow::new(&setup(), wide());
    flow.send(200 * MSS);
    let sent = flow.w.pump();
    let ack = flow.peer.ack_at(sent[1].seq);
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty());
    flow.w.skip_to_next_call();
    assert_eq!(numbers(&flow.w.pump()), [sent[1].seq]);
    // The peer had all of it: new data goes.
    flow.peer.ack = sent[9].end();
    let ack = flow.peer.ack();
    flow.w.give(&ack);
    assert_eq!(flow.w.pump()[0].seq, sent[9].end());
}

#[test]
fn windows_below_a_segment_make_no_request() {
    let options = PeerOptions {
        scale: None,
        window: 700,
        ..wide()
    };
    let mut flow = Flow::new(&setup(), options);
    flow.send(10_000);
    let mut got = Vec::new();
    for _ in 0..200 {
        let sent = flow.w.pump();
        assert!(sent.iter().all(|s| s.payload.len() <= 700));
        got.extend(flow.peer.take(&sent));
        if got.len() == 10_000 {
            break;
        }
        let ack = flow.peer.ack();
        flow.w.give(&ack);
    }
    assert!(got == flow.bytes[..10_000]);
    assert_eq!(flow.stats().segmented.requests, 0);
}

#[test]
fn turns_are_fair_in_segments() {
    let mut flow = Flow::open(&setup(), wide());
    let (other, mut peer) = flow.w.established(wide());
    flow.w.send_all(other, flow.region, 1 << 20, 0);
    loop {
        let sent = flow.w.pump();
        if sent.is_empty() {
            break;
        }
        for segment in sent {
            peer.take(&[segment]);
            let ack = peer.ack();
            flow.w.give(&ack);
        }
    }
    for id in [flow.id, other] {
        flow.w.send_all(id, flow.region, 8 * LONGEST * MSS, 1);
    }
    let sent = flow.w.pump();
    let ports: Vec<u16> = sent.iter().map(|s| s.source_port).collect();
    let turns: Vec<usize> = ports.chunk_by(|a, b| a == b).map(<[u16]>::len).collect();
    // A turn ends with the request that uses up 64 segments.
    assert!(turns.len() >= 4, "{turns:?}");
    assert!(turns.iter().all(|turn| *turn < 64 + LONGEST), "{turns:?}");
}

/// A peer that joins what arrives together acknowledges a burst with one ACK: for requests that
/// opens the window by more than the two segments of RFC 3465.
#[test]
fn requests_let_one_ack_open_the_window_by_eight_segments() {
    for (segmentation, segments) in [(setup().segmentation, 18), (None, 12)] {
        let setup = Setup {
            segmentation,
            ..setup()
        };
        let mut flow = Flow::new(&setup, wide());
        flow.send(200 * MSS);
        let sent = flow.w.pump();
        assert_eq!(sent.len(), 10, "the initial window");
        let ack = flow.peer.ack_at(sent[9].end());
        flow.w.give(&ack);
        assert_eq!(flow.w.pump().len(), segments, "{segmentation:?}");
    }
}

/// Without the option the MSS is 536 (RFC 9293 section 3.7.1); less than 64 is not believed, and
/// timestamps take 12 of it.
#[test]
fn requests_for_a_peer_with_a_small_mss_are_of_its_segments() {
    for (mss, timestamps, segment_len) in [
        (Some(536), false, 536),
        (None, false, 536),
        (Some(536), true, 524),
        (Some(200), false, 200),
        (Some(64), false, 64),
        (Some(64), true, 52),
        (Some(1), false, 64),
    ] {
        let name = format!("MSS {mss:?}, timestamps {timestamps}");
        let options = PeerOptions {
            mss,
            timestamps,
            ..wide()
        };
        let mut flow = Flow::open(&setup(), options);
        let header_len = if timestamps { 52 } else { 40 };
        let longest = (65535 - header_len) / segment_len;
        let len = 2 * longest * segment_len + 5 * segment_len + 1;
        flow.send(len);
        let sent = flow.w.pump();
        let (last, others) = sent.split_last().unwrap();
        assert_eq!(last.payload.len(), 1, "{name}");
        assert!(
            others.iter().all(|s| s.payload.len() == segment_len),
            "{name}"
        );
        assert!(
            sent.windows(2)
                .all(|two| two[0].identification.wrapping_add(1) == two[1].identification),
            "{name}"
        );
        let requests = flow.w.handle.take_requests();
        let segments: Vec<usize> = requests.iter().map(|r| r.segments).collect();
        assert_eq!(segments, [longest, longest, 6], "{name}");
        assert_eq!(flow.stats().segmented.ended_by_budget, 0, "{name}");

        // Of all this one segment is lost.
        let hole = &sent[longest + 7];
        let sack = flow.peer.sack(hole.seq, &[(hole.end(), last.end())]);
        flow.w.give(&sack); // it acknowledges something new
        flow.w.give(&sack); // it tells of the hole
        let again = flow.w.pump();
        assert_eq!(numbers(&again), [hole.seq], "{name}");
        assert!(again[0].payload == hole.payload, "{name}");
        assert!(flow.peer.take(&sent) == flow.bytes[..len], "{name}");
        let ack = flow.peer.ack();
        flow.w.give(&ack);
        assert!(flow.w.pump().is_empty(), "{name}");
        assert!(flow.w.stack.completion(flow.w.now, flow.id).is_some());
        assert_eq!((flow.w.pinned(), flow.w.loans()), (0, 0), "{name}");
    }
}

/// The same window as in `a_request_is_half_a_window_and_waits_for_a_third`, and a round trip that
/// was measured: 10 ms by the handshake, then 8.75 or 9.5 by the first ACK.
#[test]
fn a_request_waits_in_the_second_half_of_the_round_trip_only() {
    for (millis, segments) in [(4, 2), (6, 0)] {
        let mut w = World::new(&setup());
        let (id, mut peer) = w.connect(80);
        peer.options = wide();
        w.advance(Duration::from_millis(10));
        let syn_ack = peer.syn(ACK);
        w.give(&syn_ack);
        w.pump();
        let region = w.region(pattern(200 * MSS, 1));
        w.send_all(id, region, 200 * MSS, 0);
        let sent = w.pump();
        assert_eq!(sent.len(), 10, "the initial window");
        w.advance(Duration::from_millis(millis));
        let ack = peer.ack_at(sent[1].seq);
        w.give(&ack);
        assert_eq!(w.pump().len(), segments, "after {millis} ms");
    }
}

/// Two requests of 44 segments leave 42 of this window: less than a third, but nothing is
/// acknowledged before the round trip is over, so nothing is to be gained from waiting.
#[test]
fn a_peer_that_acknowledges_whole_windows_gets_whole_windows() {
    let options = PeerOptions {
        window: (130 * MSS).div_ceil(128) as u16,
        ..wide()
    };
    let mut flow = Flow::open(&setup(), options);
    flow.send(700 * MSS);
    let round_trip = Duration::from_millis(10);
    let mut sent = flow.w.pump();
    for round in 0..4 {
        flow.w.advance(round_trip);
        let ack = flow.peer.ack_at(sent.last().unwrap().end());
        flow.w.give(&ack);
        flow.w.handle.take_requests();
        sent = flow.w.pump();
        assert_eq!(sent.len(), 130, "round {round}");
        let requests = flow.w.handle.take_requests();
        let segments: Vec<usize> = requests.iter().map(|r| r.segments).collect();
        assert_eq!(segments, [LONGEST, LONGEST, 42], "round {round}");
    }
    // Now the ACKs come one by one: the next is near, and lets a longer request go.
    flow.w.advance(round_trip);
    let ack = flow.peer.ack_at(sent[0].end());
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty());
}
