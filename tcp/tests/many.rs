//! Many connections on one small ring: all of them get on, and each gets its own bytes.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use common::{ACK, FIN, PEER_IP, Peer, SYN, Setup, World, pattern};
use pagewire_tcp::{Slice, State};

#[test]
fn many_connections_share_a_small_ring() {
    let count = 60;
    let len = 30_000;
    let mut w = World::new(&Setup {
        ring_len: 40,
        ..Setup::default()
    });
    let mut ids = BTreeMap::new();
    for n in 0..count {
        let remote = SocketAddrV4::new(Ipv4Addr::from(PEER_IP), 1000 + n);
        let id = w.stack.connect(w.now, remote, None).unwrap();
        let region = w.region(pattern(len, u64::from(n)));
        let slice = Slice {
            region,
            start: 0,
            len,
        };
        assert_eq!(w.stack.send(id, &[slice], 1), Ok(len));
        w.stack.close(w.now, id);
        ids.insert(1000 + n, id);
    }
    let mut peers: BTreeMap<u16, (Peer, Vec<u8>)> = BTreeMap::new();
    for _ in 0..10_000 {
        let sent = w.pump();
        for segment in &sent {
            let port = segment.destination_port;
            if segment.flags & SYN != 0 {
                let mut peer = Peer::new(segment);
                let answer = peer.syn(ACK);
                w.give(&answer);
                peers.insert(port, (peer, Vec::new()));
                continue;
            }
            let (peer, got) = peers.get_mut(&port).unwrap();
            got.extend(peer.take(std::slice::from_ref(segment)));
            let frame = if segment.flags & FIN != 0 && got.len() == len {
                peer.data(b"", FIN)
            } else {
                peer.ack()
            };
            w.give(&frame);
        }
        w.advance(Duration::from_micros(100));
        let closed = |id| w.stack.state(id) == Some(State::TimeWait);
        if ids.values().all(|id| closed(*id)) {
            break;
        }
    }
    for (port, id) in &ids {
        assert_eq!(w.stack.state(*id), Some(State::TimeWait), "port {port}");
        assert!(w.stack.completion(w.now, *id).is_some(), "port {port}");
        let wanted = pattern(len, u64::from(port - 1000));
        assert!(peers[port].1 == wanted, "port {port}");
    }
    let total = w.stack.stats().connections;
    assert!(total.ring_full > 0, "the ring was never full");
    assert_eq!(total.retransmits().segments, 0);
    assert_eq!(total.shared_bytes, w.handle.counters().region_bytes);
    assert_eq!((w.pinned(), w.loans()), (0, 0));
    // Counters of connections that are gone stay in the sum.
    for id in ids.values() {
        w.stack.remove(w.now, *id);
    }
    assert_eq!(w.stack.stats().connections.data, total.data);
}

#[test]
fn a_listener_that_ends_takes_what_was_not_accepted_along() {
    let mut w = World::new(&Setup::default());
    w.stack.listen(80).unwrap();
    assert!(w.stack.listen(80).is_err());
    for n in 0..2 {
        let mut peer = Peer::opening(80);
        peer.port += n;
        let syn = peer.syn(0);
        w.give(&syn);
        peer.ack = w.pump()[0].end();
        let ack = peer.ack();
        w.give(&ack);
    }
    let id = w.stack.accept(80).unwrap();
    w.stack.unlisten(w.now, 80);
    let sent = w.pump();
    assert_eq!(sent.len(), 1, "an RST for the one that was not accepted");
    assert_eq!(w.stack.state(id), Some(State::Established));
    let mut peer = Peer::opening(80);
    peer.port = 9;
    let syn = peer.syn(0);
    w.give(&syn);
    assert_eq!(w.pump()[0].flags & common::RST, common::RST);
}
