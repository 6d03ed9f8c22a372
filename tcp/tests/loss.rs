//! Loss, windows and timers, one scripted segment at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::time::Duration;

use common::{PSH, Peer, PeerOptions, Segment, Setup, World, pattern};
use pagewire_tcp::{ConnectionError, ConnectionId, Slice, State};

const MSS: usize = 1460;

/// A connection with `count` segments in flight (10 at most: the initial window).
fn in_flight(options: PeerOptions, count: usize) -> (World, ConnectionId, Peer, Vec<Segment>) {
    let mut w = World::new(&Setup::default());
    let (id, peer) = w.established(options);
    let region = w.region(pattern(100 * MSS, 1));
    w.send_all(id, region, count * MSS, 1);
    let sent = w.pump();
    assert_eq!(sent.len(), count.min(10));
    (w, id, peer, sent)
}

#[test]
fn three_duplicate_acks_send_the_first_segment_again() {
    let (mut w, id, mut peer, sent) = in_flight(PeerOptions::default(), 20);
    let lost = &sent[0];
    let ack = peer.ack_at(lost.seq);
    let mut more = Vec::new();
    for _ in 0..2 {
        w.give(&ack);
        more.extend(w.pump());
    }
    assert_eq!(more.len(), 2, "limited transmit");
    assert!(more.iter().all(|s| s.seq != lost.seq));
    w.give(&ack);
    let again = w.pump();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].seq, &again[0].payload), (lost.seq, &lost.payload));
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!((stats.fast_retransmits.segments, stats.timeouts), (1, 0));
    assert_eq!(stats.duplicate_acks, 3);
    // A full acknowledgment ends the recovery.
    peer.ack = more.last().unwrap().end();
    let ack = peer.ack();
    w.give(&ack);
    w.pump();
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!(stats.retransmits().segments, 1);
}

#[test]
fn partial_acks_send_one_hole_after_the_other() {
    let (mut w, id, peer, sent) = in_flight(PeerOptions::default(), 10);
    let dup = peer.ack_at(sent[0].seq);
    for _ in 0..3 {
        w.give(&dup);
    }
    assert_eq!(w.pump()[0].seq, sent[0].seq);
    // The second and fifth are lost, too.
    for lost in [1, 4] {
        let partial = peer.ack_at(sent[lost].seq);
        w.give(&partial);
        let again = w.pump();
        assert_eq!((again.len(), again[0].seq), (1, sent[lost].seq));
    }
    let all = peer.ack_at(sent[9].end());
    w.give(&all);
    assert!(w.pump().is_empty());
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!((stats.fast_retransmits.segments, stats.timeouts), (3, 0));
    assert_eq!(w.pinned(), 0);
}

#[test]
fn sack_spares_what_has_arrived() {
    let options = PeerOptions {
        sack: true,
        ..PeerOptions::default()
    };
    let (mut w, id, peer, sent) = in_flight(options, 10);
    // Lost: 0, 3, 4. The rest arrives.
    let blocks = [(sent[5].seq, sent[9].end()), (sent[1].seq, sent[2].end())];
    for count in 1..=2 {
        let sack = peer.sack(sent[0].seq, &blocks[..count]);
        w.give(&sack);
    }
    let again: Vec<u32> = w.pump().iter().map(|s| s.seq).collect();
    assert_eq!(again, [sent[0].seq, sent[3].seq, sent[4].seq]);
    let all = peer.ack_at(sent[9].end());
    w.give(&all);
    assert!(w.pump().is_empty());
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!(stats.retransmits().segments, 3);
    assert_eq!(w.pinned(), 0);
}

#[test]
fn after_a_timeout_all_goes_again_in_slow_start() {
    let options = PeerOptions {
        sack: true,
        ..PeerOptions::default()
    };
    let (mut w, id, peer, sent) = in_flight(options, 10);
    // What the peer had said to hold is forgotten by a timeout (RFC 2018 section 8).
    let sack = peer.sack(sent[0].seq, &[(sent[1].seq, sent[1].end())]);
    w.give(&sack);
    w.pump();
    w.skip_to_next_call();
    let again = w.pump();
    assert_eq!((again.len(), again[0].seq), (1, sent[0].seq));
    let ack = peer.ack_at(sent[1].seq);
    w.give(&ack);
    let again: Vec<u32> = w.pump().iter().map(|s| s.seq).collect();
    assert_eq!(again, [sent[1].seq, sent[2].seq], "slow start");
    let all = peer.ack_at(sent[9].end());
    w.give(&all);
    assert!(w.pump().is_empty());
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!((stats.timeouts, stats.timeout_retransmits.segments), (1, 3));
}

#[test]
fn a_partly_acknowledged_segment_is_sent_again_from_there() {
    let (mut w, _, mut peer, sent) = in_flight(PeerOptions::default(), 1);
    peer.ack = sent[0].seq.wrapping_add(1000);
    let ack = peer.ack();
    w.give(&ack);
    w.pump();
    w.skip_to_next_call();
    let again = w.pump();
    assert_eq!(again[0].seq, peer.ack);
    assert!(again[0].payload == sent[0].payload[1000..]);
    peer.take(&again);
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!((w.pinned(), w.loans()), (0, 0));
}

#[test]
fn silence_ends_in_a_timeout_with_back_off() {
    let (mut w, id, _, _) = in_flight(PeerOptions::default(), 10);
    let start = w.now;
    let mut waits = Vec::new();
    let (mut last, mut timeouts) = (start, 0);
    while w.stack.state(id) != Some(State::Closed) {
        w.skip_to_next_call();
        w.pump();
        // The stack may ask to be called before anything is due.
        let now_timeouts = w.stack.connection_stats(id).unwrap().timeouts;
        if now_timeouts > timeouts {
            waits.push(w.now.saturating_since(last));
            (last, timeouts) = (w.now, now_timeouts);
        }
    }
    assert_eq!(waits.len(), 4, "max_retries");
    assert_eq!(w.stack.error(id), Some(ConnectionError::TimedOut));
    for pair in waits.windows(2) {
        assert_eq!(pair[1], pair[0] * 2);
    }
    assert!(w.now.saturating_since(start) < Duration::from_secs(60));
    assert_eq!((w.pinned(), w.loans()), (0, 0));
    assert!(w.stack.completion(w.now, id).is_some());
}

#[test]
fn a_zero_window_is_probed_and_opens() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions {
        window: 2920,
        ..PeerOptions::default()
    });
    let bytes = pattern(5000, 1);
    let region = w.region(bytes.clone());
    w.send_all(id, region, 5000, 1);
    let sent = w.pump();
    let mut got = peer.take(&sent);
    assert_eq!(got.len(), 2920, "not beyond the window");
    peer.options.window = 0;
    let ack = peer.ack();
    w.give(&ack);
    assert!(w.pump().is_empty());
    // Probes, with growing distance, and for ever as long as they are answered.
    let mut last = Duration::ZERO;
    for n in 0..12 {
        let before = w.now;
        // The stack may ask to be called before anything is due.
        let probe = loop {
            w.skip_to_next_call();
            let sent = w.pump();
            if !sent.is_empty() {
                break sent;
            }
        };
        assert_eq!(probe.len(), 1, "probe {n}");
        assert_eq!(probe[0].seq, peer.ack.wrapping_sub(1));
        let waited = w.now.saturating_since(before);
        assert!(
            waited > last || waited == Duration::from_secs(60),
            "{n}: {waited:?}"
        );
        last = waited;
        let ack = peer.ack();
        w.give(&ack);
        assert!(w.pump().is_empty());
    }
    assert_eq!(w.stack.connection_stats(id).unwrap().window_probes, 12);
    peer.options.window = 60_000;
    let ack = peer.ack();
    w.give(&ack);
    got.extend(peer.take(&w.pump()));
    assert!(got == bytes);
}

#[test]
fn probes_without_an_answer_end_the_connection() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    peer.options.window = 0;
    let ack = peer.ack();
    w.give(&ack);
    let region = w.region(pattern(5000, 1));
    w.send_all(id, region, 5000, 1);
    let mut probes = w.pump().len();
    while w.next_call.is_some() {
        w.skip_to_next_call();
        probes += w.pump().len();
    }
    assert_eq!(w.stack.error(id), Some(ConnectionError::TimedOut));
    assert_eq!(probes, 4, "max_retries");
    assert_eq!((w.pinned(), w.loans()), (0, 0));
}

#[test]
fn a_tiny_window_is_used_in_the_end() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    peer.options.window = 10;
    let ack = peer.ack();
    w.give(&ack);
    let region = w.region(pattern(5000, 1));
    w.send_all(id, region, 5000, 1);
    assert!(w.pump().is_empty(), "silly window avoidance");
    w.skip_to_next_call();
    let sent = w.pump();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].payload.len(), 10);
}

#[test]
fn nagle_holds_small_segments_back() {
    for nagle in [true, false] {
        let mut setup = Setup::default();
        setup.config.nagle = nagle;
        let mut w = World::new(&setup);
        let (id, mut peer) = w.established(PeerOptions::default());
        let region = w.region(pattern(5000, 1));
        let mut sent = Vec::new();
        for _ in 0..3 {
            w.send_all(id, region, 10, 1);
            sent.extend(w.pump());
        }
        assert_eq!(sent.len(), if nagle { 1 } else { 3 });
        assert!(sent.iter().all(|s| s.flags & PSH != 0));
        peer.take(&sent);
        let ack = peer.ack();
        w.give(&ack);
        assert_eq!(w.pump().len(), usize::from(nagle));
    }
}

#[test]
fn a_full_ring_makes_wait_and_loses_nothing() {
    let mut w = World::new(&Setup {
        ring_len: 6,
        ..Setup::default()
    });
    let (id, mut peer) = w.established(PeerOptions::default());
    let bytes = pattern(50_000, 1);
    let region = w.region(bytes.clone());
    w.send_all(id, region, 50_000, 1);
    w.completes = false;
    let mut got = Vec::new();
    for _ in 0..1000 {
        let sent = w.pump();
        assert!(sent.len() <= 3, "two fragments each");
        got.extend(peer.take(&sent));
        w.handle.complete_all();
        let ack = peer.ack();
        w.give(&ack);
        w.advance(Duration::from_millis(1));
        if got.len() == bytes.len() {
            break;
        }
    }
    assert!(got == bytes);
    let stats = w.stack.connection_stats(id).unwrap();
    assert!(stats.ring_full > 0);
    assert_eq!(stats.retransmits().segments, 0);
}

#[test]
fn a_queue_that_stays_down_ends_in_a_timeout() {
    let (mut w, id, _, _) = in_flight(PeerOptions::default(), 10);
    w.handle.set_down(true);
    for _ in 0..100 {
        assert!(w.stack.poll(w.now).is_err());
        w.advance(Duration::from_secs(10));
    }
    assert_eq!(w.stack.error(id), Some(ConnectionError::TimedOut));
    w.handle.set_down(false);
    w.handle.reset_all();
    w.pump();
    assert_eq!((w.pinned(), w.loans()), (0, 0));
}

#[test]
fn a_reset_of_the_device_is_repaired_by_retransmission() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    let bytes = pattern(10 * MSS, 1);
    let region = w.region(bytes.clone());
    w.send_all(id, region, bytes.len(), 1);
    w.completes = false;
    w.pump(); // seen by the device, lost on its way
    w.handle.reset_all();
    w.completes = true;
    let mut got = Vec::new();
    for _ in 0..100 {
        w.skip_to_next_call();
        let sent = w.pump();
        got.extend(peer.take(&sent));
        let ack = peer.ack();
        w.give(&ack);
        let sent = w.pump();
        got.extend(peer.take(&sent));
        if got.len() == bytes.len() {
            break;
        }
    }
    assert!(got == bytes);
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!((w.pinned(), w.loans()), (0, 0));
}

/// An ACK costs the same however much is in flight: it looks at the front only. Counted, not
/// timed: what is pinned follows each ACK exactly.
#[test]
fn pages_are_unpinned_as_they_are_acknowledged() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    let region = w.region(pattern(64 * 4096, 1));
    let slice = Slice {
        region,
        start: 0,
        len: 10 * MSS,
    };
    w.stack.send(id, &[slice], 1).unwrap();
    let sent = w.pump();
    w.pump();
    let mut last = w.pinned();
    for segment in &sent {
        peer.ack = segment.end();
        let ack = peer.ack();
        w.give(&ack);
        assert!(w.pinned() <= last);
        last = w.pinned();
    }
    assert_eq!(last, 0);
}

/// Retries count in a row: a path that loses every other transmission never ends a connection.
#[test]
fn progress_forgives_earlier_timeouts() {
    let (mut w, id, mut peer, sent) = in_flight(PeerOptions::default(), 10);
    for segment in &sent {
        let before = w.stack.connection_stats(id).unwrap().timeouts;
        while w.stack.connection_stats(id).unwrap().timeouts < before + 2 {
            w.skip_to_next_call();
            w.pump();
        }
        peer.ack = segment.end();
        let ack = peer.ack();
        w.give(&ack);
        w.pump();
    }
    assert_eq!(w.stack.state(id), Some(State::Established));
    assert_eq!(w.stack.connection_stats(id).unwrap().timeouts, 20);
    assert_eq!((w.pinned(), w.loans()), (0, 0));
}

/// Another connection's frames fill the ring and never complete.
#[test]
fn a_ring_that_stays_full_ends_in_a_timeout() {
    let mut w = World::new(&Setup {
        ring_len: 4,
        granule: pagewire_hal::Granule::CONTIGUOUS,
        ..Setup::default()
    });
    let (first, _) = w.established(PeerOptions::default());
    w.completes = false;
    let region = w.region(pattern(10 * MSS, 1));
    w.send_all(first, region, 10 * MSS, 1);
    assert_eq!(w.pump().len(), 2, "two fragments each");
    let remote = std::net::SocketAddrV4::new(common::PEER_IP.into(), 81);
    let second = w.stack.connect(w.now, remote, None).unwrap();
    for _ in 0..200 {
        w.advance(Duration::from_secs(1));
        assert!(w.pump().is_empty());
    }
    for id in [first, second] {
        assert_eq!(w.stack.error(id), Some(ConnectionError::TimedOut));
    }
    assert_eq!(w.stack.port().outstanding(), 2);
    w.handle.complete_all();
    w.pump();
    assert_eq!((w.pinned(), w.loans()), (0, 0));
}

/// After long silence the window opens by a little: that is used soon, not after the long wait
/// between probes.
#[test]
fn a_window_that_opens_begins_the_waits_anew() {
    let mut w = World::new(&Setup::default());
    let (id, mut peer) = w.established(PeerOptions::default());
    peer.options.window = 0;
    let ack = peer.ack();
    w.give(&ack);
    let region = w.region(pattern(5000, 1));
    w.send_all(id, region, 5000, 1);
    w.pump();
    while w.stack.connection_stats(id).unwrap().window_probes < 9 {
        w.skip_to_next_call();
        if !w.pump().is_empty() {
            let ack = peer.ack();
            w.give(&ack);
        }
    }
    peer.options.window = 10;
    let ack = peer.ack();
    w.give(&ack);
    let before = w.now;
    let sent = loop {
        let sent = w.pump();
        if !sent.is_empty() {
            break sent;
        }
        w.skip_to_next_call();
    };
    assert_eq!(sent[0].payload.len(), 10);
    assert!(w.now.saturating_since(before) < Duration::from_secs(2));
}

/// RFC 6582 section 4: what a timeout sent again needlessly comes back as duplicate ACKs. They
/// are no loss.
#[test]
fn duplicate_acks_after_a_timeout_are_not_taken_for_a_loss() {
    let (mut w, id, peer, sent) = in_flight(PeerOptions::default(), 30);
    w.skip_to_next_call();
    assert_eq!(w.pump().len(), 1);
    // The peer had all of it, and says so late.
    let all = peer.ack_at(sent[9].end());
    w.give(&all);
    assert!(!w.pump().is_empty(), "new data goes");
    for _ in 0..4 {
        w.give(&all);
    }
    w.pump();
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!(stats.duplicate_acks, 4);
    assert_eq!(stats.fast_retransmits.segments, 0);
}
