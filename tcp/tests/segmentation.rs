//! Requests for segmentation: how long they are, what is in them, and what is sent again of them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::time::Duration;

use common::{FIN, PSH, Peer, PeerOptions, Segment, Setup, World, pattern, segmentation};
use pagewire_hal::{ChecksumOffload, Granule, RegionId};
use pagewire_tcp::{ConnectionId, ConnectionStats, Slice};

const MSS: usize = 1460;
/// Segments in the longest request: what an IPv4 packet holds.
const LONGEST: usize = (65535 - 40) / MSS;

fn setup() -> Setup {
    Setup {
        max_fragments: 64,
        segmentation: Some(segmentation(true)),
        ..Setup::default()
    }
}

fn wide() -> PeerOptions {
    PeerOptions {
        scale: Some(7),
        window: 60_000,
        sack: true,
        ..PeerOptions::default()
    }
}

struct Flow {
    w: World,
    id: ConnectionId,
    peer: Peer,
    region: RegionId,
    bytes: Vec<u8>,
}

impl Flow {
    fn new(setup: &Setup, options: PeerOptions) -> Self {
        let mut w = World::new(setup);
        let (id, peer) = w.established(options);
        let bytes = pattern(1 << 20, 1);
        let region = w.region(bytes.clone());
        Self {
            w,
            id,
            peer,
            region,
            bytes,
        }
    }

    /// A connection whose congestion window has grown to some hundred KiB, nothing in flight.
    fn open(setup: &Setup, options: PeerOptions) -> Self {
        let mut flow = Self::new(setup, options);
        flow.w.send_all(flow.id, flow.region, 1 << 20, 0);
        flow.deliver();
        assert!(flow.w.stack.completion(flow.w.now, flow.id).is_some());
        flow.w.handle.take_requests();
        flow
    }

    /// Lets everything arrive, each segment acknowledged by itself; returns the bytes.
    fn deliver(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let sent = self.w.pump();
            if sent.is_empty() {
                return bytes;
            }
            for segment in sent {
                bytes.extend(self.peer.take(&[segment]));
                let ack = self.peer.ack();
                self.w.give(&ack);
            }
        }
    }

    fn send(&mut self, len: usize) {
        self.w.send_all(self.id, self.region, len, 1);
    }

    /// `count` segments of full length in flight, posted as one request.
    fn in_flight(setup: &Setup, options: PeerOptions, count: usize) -> (Self, Vec<Segment>) {
        let mut flow = Self::open(setup, options);
        flow.send(count * MSS);
        let sent = flow.w.pump();
        assert_eq!(sent.len(), count);
        assert_eq!(flow.w.handle.take_requests().len(), 1);
        (flow, sent)
    }

    fn stats(&self) -> ConnectionStats {
        self.w.stack.connection_stats(self.id).unwrap().clone()
    }
}

fn numbers(segments: &[Segment]) -> Vec<u32> {
    segments.iter().map(|s| s.seq).collect()
}

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
fn of_a_request_only_the_holes_are_sent_again() {
    let (mut flow, sent) = Flow::in_flight(&setup(), wide(), LONGEST);
    let base = sent[0].seq;
    let at = |segment: usize| base.wrapping_add((segment * MSS) as u32);
    let lost = [3, 10, 11];
    let ack = flow.peer.ack_at(at(3));
    flow.w.give(&ack);
    let sack = flow
        .peer
        .sack(at(3), &[(at(4), at(10)), (at(12), at(LONGEST))]);
    flow.w.give(&sack);
    let again = flow.w.pump();
    assert_eq!(numbers(&again), lost.map(at));
    for (segment, index) in again.iter().zip(lost) {
        assert!(segment.payload == sent[index].payload);
    }
    let stats = flow.stats();
    assert_eq!(stats.fast_retransmits.segments, 3);
    assert_eq!(stats.fast_retransmits.bytes, 3 * MSS as u64);
    flow.peer.ack = at(LONGEST);
    let ack = flow.peer.ack();
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty());
    assert!(flow.w.stack.completion(flow.w.now, flow.id).is_some());
    assert_eq!((flow.w.pinned(), flow.w.loans()), (0, 0));
}

/// The ACK stands in the middle of a segment in the middle of a request.
#[test]
fn a_partly_acknowledged_request_is_sent_again_from_there() {
    let (mut flow, sent) = Flow::in_flight(&setup(), wide(), 20);
    let inside = sent[7].seq.wrapping_add(100);
    let ack = flow.peer.ack_at(inside);
    flow.w.give(&ack);
    flow.w.pump();
    flow.w.skip_to_next_call();
    let again = flow.w.pump();
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].seq, inside);
    assert!(again[0].payload == sent[7].payload[100..]);
    let ack = flow.peer.ack_at(sent[8].seq);
    flow.w.give(&ack);
    assert_eq!(numbers(&flow.w.pump()), [sent[8].seq]);
}

#[test]
fn after_a_timeout_one_segment_goes_first_and_then_more() {
    let (mut flow, sent) = Flow::in_flight(&setup(), wide(), LONGEST);
    flow.w.skip_to_next_call();
    let mut at = 0;
    for count in [1, 2, 3] {
        let again = flow.w.pump();
        assert_eq!(numbers(&again), numbers(&sent[at..at + count]));
        at += count;
        // All of it is acknowledged at once, which opens the window by one segment.
        let ack = flow.peer.ack_at(sent[at].seq);
        flow.w.give(&ack);
    }
    assert!(flow.w.handle.take_requests().is_empty());
    let stats = flow.stats();
    assert_eq!((stats.timeouts, stats.timeout_retransmits.segments), (1, 6));
}

#[test]
fn without_sack_one_segment_after_the_other_is_taken_for_lost() {
    let options = PeerOptions {
        sack: false,
        ..wide()
    };
    let (mut flow, sent) = Flow::in_flight(&setup(), options, LONGEST);
    let duplicate = flow.peer.ack_at(sent[0].seq);
    for _ in 0..3 {
        flow.w.give(&duplicate);
    }
    assert_eq!(numbers(&flow.w.pump()), [sent[0].seq]);
    let partial = flow.peer.ack_at(sent[20].seq);
    flow.w.give(&partial);
    assert_eq!(numbers(&flow.w.pump()), [sent[20].seq]);
    assert_eq!(flow.stats().retransmits().segments, 2);
}

#[test]
fn rule_2_a_hole_waits_for_its_request() {
    let mut flow = Flow::open(&setup(), wide());
    flow.w.completes = false;
    flow.send(20 * MSS);
    let sent = flow.w.pump();
    let ack = flow.peer.ack_at(sent[5].seq);
    flow.w.give(&ack);
    let sack = flow
        .peer
        .sack(sent[5].seq, &[(sent[6].seq, sent[19].end())]);
    flow.w.give(&sack);
    assert!(flow.w.pump().is_empty(), "the request is in the ring");
    assert!(flow.stats().put_off > 0);
    // Acknowledged in part, and read by the device: nothing completes.
    assert_eq!(flow.w.stack.completion(flow.w.now, flow.id), None);
    flow.w.handle.complete_all();
    assert_eq!(numbers(&flow.w.pump()), [sent[5].seq]);
    flow.peer.ack = sent[19].end();
    let ack = flow.peer.ack();
    flow.w.give(&ack);
    assert_eq!(
        flow.w.stack.completion(flow.w.now, flow.id),
        None,
        "what was sent again is in the ring"
    );
    flow.w.handle.complete_all();
    flow.w.pump();
    assert!(flow.w.stack.completion(flow.w.now, flow.id).is_some());
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
