//! Requests for segmentation and loss: what is sent again of them, and that a hint of a loss lets
//! nothing wait.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use common::flow::{Flow, LONGEST, MSS, numbers, setup, wide};
use common::{PeerOptions, Segment};

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

/// The segments of a request that nothing was told of are not taken for lost with the first one.
#[test]
fn of_a_request_only_the_first_segment_is_lost_by_duplicate_acks() {
    let (mut flow, sent) = Flow::in_flight(&setup(), wide(), 20);
    let sack = flow.peer.sack(sent[0].seq, &[(sent[1].seq, sent[4].seq)]);
    flow.w.give(&sack);
    assert_eq!(numbers(&flow.w.pump()), [sent[0].seq]);
    let ack = flow.peer.ack_at(sent[4].seq);
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty());
    assert_eq!(flow.stats().fast_retransmits.segments, 1);
}

/// Duplicate ACKs inflate the window beyond what is in flight: still only the first segment goes.
#[test]
fn without_sack_an_inflated_window_lets_no_more_of_a_request_go() {
    let options = PeerOptions {
        sack: false,
        ..wide()
    };
    let (mut flow, sent) = Flow::in_flight(&setup(), options, 20);
    let duplicate = flow.peer.ack_at(sent[0].seq);
    let mut again = Vec::new();
    for _ in 1..20 {
        flow.w.give(&duplicate);
        again.extend(numbers(&flow.w.pump()));
    }
    assert_eq!(again, [sent[0].seq]);
    flow.peer.ack = sent[19].end();
    let ack = flow.peer.ack();
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty());
    assert!(flow.w.stack.completion(flow.w.now, flow.id).is_some());
}

/// What lies before a hole stays in flight when the hole is sent again: the peer may forget what
/// it has only told of (RFC 2018 section 8).
#[test]
fn what_a_peer_forgets_before_a_hole_is_sent_again() {
    let (mut flow, sent) = Flow::in_flight(&setup(), wide(), 20);
    let blocks = [(sent[1].seq, sent[3].seq), (sent[4].seq, sent[19].end())];
    let sack = flow.peer.sack(sent[0].seq, &blocks);
    flow.w.give(&sack);
    assert_eq!(numbers(&flow.w.pump()), [sent[0].seq, sent[3].seq]);
    // Nothing arrives, and the peer forgets the rest.
    flow.w.skip_to_next_call();
    let mut at = 0;
    for count in [1, 2, 3, 4] {
        let again = flow.w.pump();
        assert_eq!(numbers(&again), numbers(&sent[at..at + count]));
        for (segment, original) in again.iter().zip(&sent[at..]) {
            assert!(segment.payload == original.payload);
        }
        at += count;
        let ack = flow.peer.ack_at(sent[at].seq);
        flow.w.give(&ack);
    }
}

/// Holes and forgetting at random, for segments of several lengths.
#[test]
fn whatever_holes_a_peer_picks_and_forgets_all_bytes_arrive() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mss = [64, 536, MSS][random.usize(..3)];
        let mut setup = setup();
        setup.config.max_retries = 15;
        let options = PeerOptions {
            mss: Some(mss as u16),
            sack: random.u8(..4) > 0,
            ..wide()
        };
        let mut flow = Flow::new(&setup, options);
        let base = flow.peer.ack;
        let count = 100;
        flow.send(count * mss);
        let mut held = vec![false; count];
        let mut rounds = 0;
        while held.contains(&false) {
            rounds += 1;
            assert!(rounds < 2000, "seed {seed}: stuck, {held:?}");
            let sent = flow.w.pump();
            if sent.is_empty() {
                flow.w.skip_to_next_call();
                continue;
            }
            for segment in &sent {
                let offset = segment.seq.wrapping_sub(base) as usize;
                let wanted = &flow.bytes[offset..offset + mss];
                assert!(segment.payload == wanted, "seed {seed}: bytes at {offset}");
                held[offset / mss] |= random.u8(..4) > 0;
            }
            let arrived = held.iter().position(|h| !h).unwrap_or(count);
            if random.u8(..3) == 0 {
                held[arrived..].fill(false); // the peer forgets
            }
            let at = |segment: usize| base.wrapping_add((segment * mss) as u32);
            for ack in acks(&flow, &sent, &held, arrived, at) {
                flow.w.give(&ack);
            }
        }
        flow.w.pump();
        let completion = flow.w.stack.completion(flow.w.now, flow.id);
        assert!(completion.is_some(), "seed {seed}");
        assert_eq!((flow.w.pinned(), flow.w.loans()), (0, 0), "seed {seed}");
    }
}

/// An ACK for each of the segments `sent`, with the first ranges behind `arrived`.
fn acks(
    flow: &Flow,
    sent: &[Segment],
    held: &[bool],
    arrived: usize,
    at: impl Fn(usize) -> u32,
) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    let mut position = arrived;
    for run in held[arrived..].chunk_by(|a, b| a == b) {
        if run[0] && blocks.len() < 3 {
            blocks.push((at(position), at(position + run.len())));
        }
        position += run.len();
    }
    let blocks: &[(u32, u32)] = if flow.peer.options.sack { &blocks } else { &[] };
    let ack = flow.peer.sack(at(arrived), blocks);
    sent.iter().map(|_| ack.clone()).collect()
}

/// Ten segments in flight, of much more to send, and the scaled window known: an ACK that tells it
/// first would be no duplicate.
fn initial_window(sack: bool) -> (Flow, Vec<Segment>) {
    let options = PeerOptions { sack, ..wide() };
    let mut flow = Flow::new(&setup(), options);
    let ack = flow.peer.ack();
    flow.w.give(&ack);
    flow.send(200 * MSS);
    let sent = flow.w.pump();
    assert_eq!(sent.len(), 10);
    (flow, sent)
}

/// Limited transmit (RFC 3042): a new segment for each of the first two duplicate ACKs. A longer
/// request is not waited for, as the ACKs that would let it go may not come.
#[test]
fn limited_transmit_does_not_wait_for_a_request() {
    for sack in [false, true] {
        let (mut flow, sent) = initial_window(sack);
        for arrived in [1, 2] {
            let block = (sent[1].seq, sent[arrived].end());
            let blocks: &[(u32, u32)] = if sack { &[block] } else { &[] };
            let duplicate = flow.peer.sack(sent[0].seq, blocks);
            flow.w.give(&duplicate);
            let new = sent[0].seq.wrapping_add(((9 + arrived) * MSS) as u32);
            assert_eq!(numbers(&flow.w.pump()), [new], "SACK: {sack}");
        }
    }
}

/// An ACK may acknowledge something new and tell of a hole.
#[test]
fn a_hole_that_is_known_lets_nothing_wait() {
    let options = PeerOptions {
        scale: None,
        window: 20 * MSS as u16,
        ..wide()
    };
    let mut flow = Flow::open(&setup(), options);
    flow.send(100 * MSS);
    let sent = flow.w.pump();
    assert_eq!(sent.len(), 20);
    let ack = flow.peer.ack_at(sent[1].seq);
    flow.w.give(&ack);
    assert!(flow.w.pump().is_empty(), "it waits for more");
    let sack = flow.peer.sack(sent[2].seq, &[(sent[3].seq, sent[4].seq)]);
    flow.w.give(&sack);
    let end = sent[19].end();
    assert_eq!(numbers(&flow.w.pump()), [end, end.wrapping_add(MSS as u32)]);
}

/// A partial ACK ends a row of duplicate ones, but not the recovery.
#[test]
fn in_a_recovery_nothing_waits() {
    let (mut flow, sent) = initial_window(false);
    let at = |segment: usize| sent[0].seq.wrapping_add((segment * MSS) as u32);
    // Of the first ten and two by limited transmit, those at 0 and 5 are lost. The window is 6
    // segments, and one for each of the ten duplicate ACKs.
    let duplicate = flow.peer.ack_at(at(0));
    let mut after = Vec::new();
    for _ in 0..10 {
        flow.w.give(&duplicate);
        after.extend(numbers(&flow.w.pump()));
    }
    assert_eq!(after, [10, 11, 0, 12, 13, 14, 15].map(at));
    // 16 less the five acknowledged and one more is a window of 12; 11 are in flight.
    let partial = flow.peer.ack_at(at(5));
    flow.w.give(&partial);
    assert_eq!(numbers(&flow.w.pump()), [5, 16].map(at));
}
