//! The state machine: opening, closing, resets, timeouts, one scripted segment at a time.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::{ACK, FIN, PEER_IP, PSH, Peer, PeerOptions, RST, SYN, Setup, World, pattern};
use pagewire_tcp::{Completion, ConnectionError, Outcome, SendError, Slice, State};

fn world() -> World {
    World::new(&Setup::default())
}

#[test]
fn handshake_data_and_close() {
    let mut w = world();
    let (id, mut peer) = w.established(PeerOptions::default());
    let bytes = pattern(5000, 1);
    let region = w.region(bytes.clone());
    w.send_all(id, region, 5000, 42);
    assert!(w.pinned() > 0);
    let sent = w.pump();
    assert!(peer.take(&sent) == bytes);
    assert_eq!(w.stack.completion(w.now, id), None, "not acknowledged");
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!(
        w.stack.completion(w.now, id),
        Some(Completion {
            tag: 42,
            bytes: 5000,
            outcome: Outcome::Delivered
        })
    );
    assert_eq!(w.pinned(), 0);

    w.stack.close(w.now, id);
    assert_eq!(
        w.stack.send(id, &[], 0),
        Err(SendError::Closed),
        "closed for sending"
    );
    let sent = w.pump();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].flags, FIN | ACK);
    assert_eq!(w.stack.state(id), Some(State::FinWait1));
    peer.take(&sent);
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!(w.stack.state(id), Some(State::FinWait2));
    let fin = peer.data(b"bye", FIN);
    w.give(&fin);
    assert_eq!(w.stack.state(id), Some(State::TimeWait));
    let sent = w.pump();
    assert_eq!((sent.len(), sent[0].ack), (1, peer.seq));
    let mut read = [0; 8];
    assert_eq!(w.stack.receive(id, &mut read), Ok(3));
    assert_eq!(&read[..3], b"bye");
    assert!(w.stack.peer_finished(id));
    // A FIN again is answered and begins TIME-WAIT anew.
    w.advance(Duration::from_secs(9));
    let again = peer.bare(FIN | ACK, peer.seq.wrapping_sub(1));
    w.give(&again);
    assert_eq!(w.pump().len(), 1);
    w.advance(Duration::from_secs(9));
    w.pump();
    assert_eq!(w.stack.state(id), Some(State::TimeWait));
    w.advance(Duration::from_secs(1));
    w.pump();
    assert_eq!(w.stack.state(id), Some(State::Closed));
    assert_eq!(w.stack.error(id), None);
}

#[test]
fn the_syn_has_all_options_and_the_ack_answers_them() {
    let mut w = world();
    let (_, _) = w.connect(80);
    let mut w = world();
    let remote = SocketAddrV4::new(Ipv4Addr::from(PEER_IP), 9);
    w.stack.connect(w.now, remote, Some(1234)).unwrap();
    let syn = w.pump().remove(0);
    assert_eq!((syn.source_port, syn.destination_port), (1234, 9));
    assert_eq!(syn.mss, Some(1460));
    assert_eq!(syn.scale, Some(1), "64 KiB is one more than the field says");
    assert!(syn.sack_permitted);
    let (value, echo) = syn.timestamps.unwrap();
    assert_eq!(echo, 0);
    let mut peer = Peer::new(&syn);
    peer.options.timestamps = true;
    let frame = peer.syn(ACK);
    w.give(&frame);
    let sent = w.pump();
    assert_eq!(sent[0].timestamps, Some((value, 1000)));
    assert_eq!(sent[0].mss, None);
    assert!(w.stack.connect(w.now, remote, Some(1234)).is_err());
}

#[test]
fn refused() {
    let mut w = world();
    let (id, peer) = w.connect(80);
    let rst = peer.bare(RST | ACK, 0);
    w.give(&rst);
    assert_eq!(w.stack.state(id), Some(State::Closed));
    assert_eq!(w.stack.error(id), Some(ConnectionError::Refused));
    assert!(w.pump().is_empty());
}

#[test]
fn a_wrong_ack_of_the_syn_is_answered_with_a_reset() {
    let mut w = world();
    let (id, peer) = w.connect(80);
    let wrong = peer.ack_at(peer.ack.wrapping_add(5));
    w.give(&wrong);
    let sent = w.pump();
    assert_eq!((sent.len(), sent[0].flags), (1, RST));
    assert_eq!(sent[0].seq, peer.ack.wrapping_add(5));
    assert_eq!(w.stack.state(id), Some(State::SynSent));
    let rst = peer.bare(RST, 0);
    w.give(&rst);
    assert_eq!(
        w.stack.state(id),
        Some(State::SynSent),
        "an RST without ACK"
    );
}

#[test]
fn the_syn_is_sent_again_until_it_times_out() {
    let mut w = world();
    let (id, _) = w.connect(80);
    let mut sent = 0;
    let start = w.now;
    while w.stack.state(id) != Some(State::Closed) {
        w.skip_to_next_call();
        sent += w.pump().len();
    }
    assert_eq!(sent, 4, "max_retries");
    assert_eq!(w.stack.error(id), Some(ConnectionError::TimedOut));
    let took = w.now.saturating_since(start);
    assert_eq!(took, Duration::from_secs(1 + 2 + 4 + 8 + 16));
}

#[test]
fn nobody_answers_to_arp() {
    let mut w = world();
    w.answers_arp = false;
    let remote = SocketAddrV4::new(Ipv4Addr::from(PEER_IP), 80);
    let id = w.stack.connect(w.now, remote, None).unwrap();
    for _ in 0..10 {
        assert!(w.pump().is_empty());
        if w.stack.state(id) == Some(State::Closed) {
            break;
        }
        w.skip_to_next_call();
    }
    assert_eq!(w.stack.error(id), Some(ConnectionError::Unreachable));
    assert_eq!(w.stack.stats().arp_sent, 3);
}

#[test]
fn passive_open_and_close_by_the_peer() {
    let mut w = world();
    w.stack.listen(80).unwrap();
    let mut peer = Peer::opening(80);
    let syn = peer.syn(0);
    w.give(&syn);
    let sent = w.pump();
    assert_eq!((sent.len(), sent[0].flags), (1, SYN | ACK));
    assert_eq!(sent[0].ack, peer.seq);
    assert_eq!(sent[0].scale, None, "was not offered");
    assert_eq!(sent[0].timestamps, None, "was not offered");
    peer.ack = sent[0].end();
    assert_eq!(w.stack.accept(80), None, "not established");
    let frame = peer.data(b"GET", PSH);
    w.give(&frame);
    let id = w.stack.accept(80).unwrap();
    assert_eq!(w.stack.accept(80), None);
    assert_eq!(w.stack.received(id), 3);
    let fin = peer.data(b"", FIN);
    w.give(&fin);
    assert_eq!(w.stack.state(id), Some(State::CloseWait));
    assert_eq!(w.pump().last().unwrap().ack, peer.seq);
    // We may still send.
    let region = w.region(pattern(100, 2));
    w.send_all(id, region, 100, 1);
    w.stack.close(w.now, id);
    let sent = w.pump();
    assert_eq!(sent.last().unwrap().flags & FIN, FIN);
    assert_eq!(peer.take(&sent), pattern(100, 2));
    assert_eq!(w.stack.state(id), Some(State::LastAck));
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!(w.stack.state(id), Some(State::Closed));
    assert_eq!(w.stack.error(id), None);
    assert_eq!(w.pinned(), 0);
}

#[test]
fn the_backlog_is_bounded_and_half_open_connections_end() {
    let mut setup = Setup::default();
    setup.config.backlog = 2;
    let mut w = World::new(&setup);
    w.stack.listen(80).unwrap();
    for n in 0..3 {
        let mut peer = Peer::opening(80);
        peer.port += n;
        let syn = peer.syn(0);
        w.give(&syn);
    }
    assert_eq!(w.pump().len(), 2);
    assert_eq!(w.stack.stats().dropped.backlog, 1);
    // One is reset, one times out; both make room.
    let mut peer = Peer::opening(80);
    peer.seq += 1;
    let rst = peer.bare(RST, peer.seq);
    w.give(&rst);
    while w.next_call.is_some() {
        w.skip_to_next_call();
        w.pump();
    }
    for n in 0..2 {
        let mut peer = Peer::opening(80);
        peer.port += 10 + n;
        let syn = peer.syn(0);
        w.give(&syn);
    }
    assert_eq!(w.pump().len(), 2);
    assert_eq!(w.stack.stats().dropped.backlog, 1);
}

#[test]
fn simultaneous_open() {
    let mut w = world();
    let (id, mut peer) = w.connect(80);
    let syn = peer.syn(0);
    w.give(&syn);
    assert_eq!(w.stack.state(id), Some(State::SynReceived));
    let sent = w.pump();
    assert_eq!((sent.len(), sent[0].flags), (1, SYN | ACK));
    assert_eq!(sent[0].end(), peer.ack);
    // Its SYN once more, now with the ACK of ours.
    peer.seq = peer.seq.wrapping_sub(1);
    let syn_ack = peer.syn(ACK);
    w.give(&syn_ack);
    assert_eq!(w.stack.state(id), Some(State::Established));
    let region = w.region(pattern(10, 1));
    w.send_all(id, region, 10, 1);
    assert_eq!(peer.take(&w.pump()), pattern(10, 1));
}

#[test]
fn simultaneous_close() {
    let mut w = world();
    let (id, mut peer) = w.established(PeerOptions::default());
    w.stack.close(w.now, id);
    let sent = w.pump();
    let fin = peer.data(b"", FIN);
    w.give(&fin);
    assert_eq!(w.stack.state(id), Some(State::Closing));
    assert_eq!(w.pump()[0].ack, peer.seq);
    peer.take(&sent);
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!(w.stack.state(id), Some(State::TimeWait));
}

#[test]
fn both_fins_in_one_segment() {
    let mut w = world();
    let (id, mut peer) = w.established(PeerOptions::default());
    w.stack.close(w.now, id);
    let sent = w.pump();
    peer.take(&sent);
    let fin = peer.data(b"", FIN);
    w.give(&fin);
    assert_eq!(w.stack.state(id), Some(State::TimeWait));
}

/// Brings a connection with pinned pages into `state`.
fn in_state(w: &mut World, state: State) -> (pagewire_tcp::ConnectionId, Peer) {
    let region = w.region(pattern(40_000, 3));
    let slice = Slice {
        region,
        start: 0,
        len: 20_000,
    };
    if state == State::SynSent {
        let (id, peer) = w.connect(80);
        w.stack.send(id, &[slice], 7).unwrap();
        return (id, peer);
    }
    if state == State::SynReceived {
        let (id, mut peer) = w.connect(80);
        w.stack.send(id, &[slice], 7).unwrap();
        let syn = peer.syn(0);
        w.give(&syn);
        w.pump();
        return (id, peer);
    }
    let (id, mut peer) = w.established(PeerOptions::default());
    w.stack.send(id, &[slice], 7).unwrap();
    let data = w.pump();
    match state {
        State::Established => {}
        State::CloseWait => {
            let fin = peer.data(b"", FIN);
            w.give(&fin);
        }
        State::FinWait1 | State::Closing | State::LastAck => {
            // The FIN goes when all the data has; an ACK for some of it lets that happen.
            if state == State::LastAck {
                let fin = peer.data(b"", FIN);
                w.give(&fin);
            }
            w.stack.close(w.now, id);
            peer.take(&data[..data.len() - 1]);
            let ack = peer.ack();
            w.give(&ack);
            w.pump();
            if state == State::Closing {
                let fin = peer.data(b"", FIN);
                w.give(&fin);
            }
        }
        State::FinWait2 | State::TimeWait => {
            w.stack.close(w.now, id);
            let mut sent = data;
            while w.stack.state(id) != Some(State::FinWait2) {
                peer.take(&sent);
                let ack = peer.ack();
                w.give(&ack);
                sent = w.pump();
            }
            if state == State::TimeWait {
                let fin = peer.data(b"", FIN);
                w.give(&fin);
            }
        }
        State::SynSent | State::SynReceived | State::Closed => unreachable!(),
    }
    w.pump();
    (id, peer)
}

const STATES: [State; 9] = [
    State::SynSent,
    State::SynReceived,
    State::Established,
    State::FinWait1,
    State::FinWait2,
    State::CloseWait,
    State::Closing,
    State::LastAck,
    State::TimeWait,
];

#[test]
fn a_reset_in_each_state_gives_the_pages_back() {
    for state in STATES {
        let mut w = world();
        let (id, peer) = in_state(&mut w, state);
        assert_eq!(w.stack.state(id), Some(state));
        let pinned = !matches!(state, State::FinWait2 | State::TimeWait);
        assert_eq!(w.pinned() > 0, pinned, "{state:?}");
        let flags = if state == State::SynSent {
            RST | ACK
        } else {
            RST
        };
        let rst = peer.bare(flags, peer.seq);
        w.give(&rst);
        assert_eq!(w.stack.state(id), Some(State::Closed), "{state:?}");
        w.pump();
        assert_eq!((w.pinned(), w.loans()), (0, 0), "{state:?}");
        let error = match state {
            State::SynSent | State::SynReceived => Some(ConnectionError::Refused),
            State::TimeWait => None,
            _ => Some(ConnectionError::Reset),
        };
        assert_eq!(w.stack.error(id), error, "{state:?}");
        let outcome = w.stack.completion(w.now, id).map(|c| c.outcome);
        let delivered = matches!(state, State::FinWait2 | State::TimeWait);
        let wanted = if delivered {
            Outcome::Delivered
        } else {
            Outcome::Aborted
        };
        assert_eq!(outcome, Some(wanted), "{state:?}");
    }
}

#[test]
fn abort_and_removal_in_each_state_give_the_pages_back() {
    for state in STATES {
        for remove in [false, true] {
            let mut w = world();
            let (id, peer) = in_state(&mut w, state);
            if remove {
                w.stack.remove(w.now, id);
                assert_eq!(w.stack.state(id), None);
                assert_eq!(w.stack.send(id, &[], 0), Err(SendError::UnknownConnection));
            } else {
                w.stack.abort(w.now, id);
                assert_eq!(w.stack.state(id), Some(State::Closed));
            }
            let sent = w.pump();
            assert_eq!((w.pinned(), w.loans()), (0, 0), "{state:?}");
            let silent = matches!(state, State::SynSent | State::TimeWait);
            assert_eq!(sent.len(), usize::from(!silent), "{state:?}: {sent:?}");
            if let Some(rst) = sent.first() {
                assert_eq!(rst.flags & RST, RST);
                assert_eq!(rst.ack, peer.seq, "{state:?}");
            }
        }
    }
}

#[test]
fn silence_in_each_state_ends() {
    for state in STATES {
        let mut w = world();
        let (id, _) = in_state(&mut w, state);
        let mut steps = 0;
        while w.next_call.is_some() {
            w.skip_to_next_call();
            w.pump();
            steps += 1;
            assert!(steps < 100, "{state:?} does not end");
        }
        let over = state != State::FinWait2;
        assert_eq!(w.stack.state(id) == Some(State::Closed), over, "{state:?}");
        assert_eq!((w.pinned(), w.loans()), (0, 0), "{state:?}");
    }
}

#[test]
fn a_reset_must_hit_the_exact_number() {
    let mut w = world();
    let (id, peer) = w.established(PeerOptions::default());
    let near = peer.bare(RST, peer.seq.wrapping_add(10));
    w.give(&near);
    assert_eq!(w.stack.state(id), Some(State::Established));
    let sent = w.pump();
    assert_eq!((sent.len(), sent[0].flags), (1, ACK), "a challenge ACK");
    let far = peer.bare(RST, peer.seq.wrapping_add(100_000));
    w.give(&far);
    assert!(w.pump().is_empty());
    let syn = peer.bare(SYN, peer.seq);
    w.give(&syn);
    assert_eq!(w.pump()[0].flags, ACK, "a challenge ACK");
    for _ in 0..100 {
        w.give(&near);
        w.pump();
    }
    let stats = w.stack.connection_stats(id).unwrap();
    assert_eq!(stats.challenge_acks, 10, "limited");
    assert_eq!(w.stack.state(id), Some(State::Established));
}

#[test]
fn an_ack_of_what_was_not_sent_is_challenged() {
    let mut w = world();
    let (id, mut peer) = w.established(PeerOptions::default());
    peer.ack = peer.ack.wrapping_add(1000);
    let ack = peer.ack();
    w.give(&ack);
    assert_eq!(w.pump().len(), 1);
    assert_eq!(w.stack.connection_stats(id).unwrap().challenge_acks, 1);
}

#[test]
fn a_stranger_gets_a_reset() {
    let mut w = world();
    let mut peer = Peer::opening(99);
    let syn = peer.syn(0);
    w.give(&syn);
    let sent = w.pump();
    assert_eq!((sent.len(), sent[0].flags), (1, RST | ACK));
    assert_eq!((sent[0].seq, sent[0].ack), (0, peer.seq));
    peer.ack = 77;
    let ack = peer.ack();
    w.give(&ack);
    let sent = w.pump();
    assert_eq!((sent[0].flags, sent[0].seq), (RST, 77));
    let rst = peer.bare(RST, 1);
    w.give(&rst);
    assert!(w.pump().is_empty(), "never an RST for an RST");
}

#[test]
fn out_of_order_data_is_asked_for_again() {
    let mut w = world();
    let (id, mut peer) = w.established(PeerOptions::default());
    let first = peer.data(b"first", PSH);
    let second = peer.data(b"second", PSH);
    w.give(&second);
    w.give(&second);
    let sent = w.pump();
    assert_eq!(sent.len(), 2, "each is answered, as the peer counts them");
    assert_eq!(w.stack.received(id), 0);
    w.give(&first);
    w.give(&second);
    let sent = w.pump();
    assert_eq!((sent.len(), sent[0].ack), (1, peer.seq));
    let mut read = [0; 20];
    assert_eq!(w.stack.receive(id, &mut read), Ok(11));
    assert_eq!(&read[..11], b"firstsecond");
}

#[test]
fn the_window_closes_and_opens_as_the_program_reads() {
    let mut w = world();
    let (id, mut peer) = w.established(PeerOptions {
        scale: Some(0),
        ..PeerOptions::default()
    });
    let mut window = 0;
    for _ in 0..64 {
        let frame = peer.data(&[9; 1024], PSH);
        w.give(&frame);
        window = w.pump().last().unwrap().window;
    }
    assert_eq!(window, 0);
    let probe = peer.data(b"x", 0);
    w.give(&probe);
    assert_eq!(w.pump()[0].window, 0, "a probe is answered");
    assert_eq!(w.stack.received(id), 65536);
    let mut read = vec![0; 40_000];
    assert_eq!(w.stack.receive(id, &mut read), Ok(40_000));
    let sent = w.pump();
    assert_eq!(sent.len(), 1, "a window update");
    assert_eq!(u32::from(sent[0].window) << 1, 40_000);
}

#[test]
fn an_old_timestamp_is_refused() {
    let mut w = world();
    let (id, mut peer) = w.established(PeerOptions {
        timestamps: true,
        ..PeerOptions::default()
    });
    peer.clock = 2000;
    let frame = peer.data(b"new", PSH);
    w.give(&frame);
    assert_eq!(w.pump()[0].timestamps.unwrap().1, 2000);
    peer.clock = 1500;
    let frame = peer.data(b"old", PSH);
    w.give(&frame);
    assert_eq!(w.pump().len(), 1);
    assert_eq!(w.stack.received(id), 3, "PAWS");
}

#[test]
fn arp_requests_for_us_are_answered() {
    let mut w = world();
    w.give(&common::segment::arp_request());
    w.poll();
    let frames = w.handle.take_frames();
    assert_eq!(frames.len(), 1);
    let frame = &frames[0].bytes;
    assert_eq!(frame[..6], common::PEER_MAC);
    assert_eq!(frame[20..22], [0, 2], "a reply");
    assert_eq!(frame[22..28], common::OUR_MAC);
    assert_eq!(frame[28..32], common::OUR_IP);
    assert_eq!(frame[32..38], common::PEER_MAC);
    assert_eq!(frame[38..42], common::PEER_IP);
}
