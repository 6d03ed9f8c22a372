//! What was found here once: each of these failed when it was written.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use pagewire::hal::Granule;
use pagewire::tcp::{Slice, State};

use super::common::Lab;
use super::rig::*;

/// `remove` forgets the connection whose frames are still in the ring, and `poll` then says
/// that nothing is waited for: the region never comes back for a program that believes it.
#[test]
fn poll_names_a_time_while_frames_of_a_removed_connection_are_in_the_ring() {
    let mut rig = Rig::new(1, &Setup::default());
    let region = rig.region(&pattern(5000));
    let (id, _peer) = rig.established(0xffff, &[]);
    rig.stack
        .send(
            id,
            &[Slice {
                region,
                start: 0,
                len: 5000,
            }],
            1,
        )
        .unwrap();
    rig.poll();
    rig.stack.remove(rig.now, id);
    rig.stack.release_region(region).unwrap();
    rig.poll();
    for _ in 0..20 {
        rig.now = rig
            .next_call
            .expect("the device still has pages, and nobody will look again");
        assert!(rig.loans() > 0 && rig.stack.take_released().is_none());
        rig.poll();
    }
}

/// 150 neighbours that do not exist drive each other out of the ARP cache (64 entries, the
/// least recently used goes): every second all begin anew, and no connection ever fails.
#[test]
fn more_silent_neighbours_than_the_cache_has_entries_are_given_up() {
    let mut rig = Rig::new(1, &Setup::default());
    let ids: Vec<_> = (0..150u8)
        .map(|n| {
            let remote = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 100 + n), 80);
            rig.stack.connect(rig.now, remote, None).unwrap()
        })
        .collect();
    for _ in 0..6000 {
        rig.next_call = rig.stack.poll(rig.now).unwrap();
        let _ = rig.handle.take_frames();
        rig.handle.complete_all();
        rig.advance(Duration::from_millis(100));
    }
    let open = ids
        .iter()
        .filter(|id| rig.stack.state(**id) == Some(State::SynSent))
        .count();
    assert_eq!(open, 0, "connections wait for ARP after ten minutes");
}

/// The override timer of silly window avoidance begins anew with each ACK of the peer that
/// opens nothing: a peer that sends data all the time (faster than the RTO) and offers a small
/// window never gets the bytes for which it has room (RFC 9293 section 3.8.6.2.1, rule 4).
#[test]
fn a_small_window_is_used_though_the_peer_talks_all_the_time() {
    let mut rig = Rig::new(1, &Setup::default());
    let region = rig.region(&pattern(5000));
    let (id, mut peer) = rig.established(5000, &[]);
    peer.window = 100;
    rig.give(&peer.frame());
    rig.stack
        .send(
            id,
            &[Slice {
                region,
                start: 0,
                len: 3000,
            }],
            1,
        )
        .unwrap();
    let mut sent = 0;
    for _ in 0..200 {
        peer.payload = vec![1; 10];
        rig.give(&peer.frame());
        peer.seq += 10;
        sent += rig.settle().iter().map(|s| s.payload.len()).sum::<usize>();
        let _ = rig.stack.receive(id, &mut [0; 100]);
        rig.advance(Duration::from_millis(150));
    }
    assert!(
        sent > 0,
        "nothing in 30 seconds, with a window of 100 bytes"
    );
}

/// `TxQueue::has_room` promises `false` for more fragments than the device takes.
#[test]
fn has_room_refuses_more_than_max_fragments() {
    let (_lab, port) = Lab::with_port(1, Granule::CONTIGUOUS, &Default::default());
    let most = port.max_fragments();
    assert!(port.has_room(most));
    assert!(!port.has_room(most + 1), "{most} at most");
}

/// Silent neighbours again, asked for from outside: SYNs once, from addresses of the link at which nobody is, and the
/// backlogs stay full for ever, as nobody gives up waiting for ARP.
#[test]
fn half_open_connections_from_nowhere_are_given_up() {
    let mut rig = Rig::new(1, &Setup::default());
    for port in 80..90 {
        rig.stack.listen(port).unwrap();
    }
    for n in 0..160u16 {
        let syn = Segment {
            from: 7,
            to: 80 + n / 16,
            seq: 1,
            flags: SYN,
            ..Segment::default()
        };
        let mut frame = syn.frame();
        frame[26..30].copy_from_slice(&[10, 0, 0, 20 + n as u8]);
        rig.give(&frame);
    }
    for _ in 0..6000 {
        rig.next_call = rig.stack.poll(rig.now).unwrap();
        let _ = rig.handle.take_frames();
        rig.handle.complete_all();
        rig.advance(Duration::from_millis(100));
    }
    let mut open = 0;
    for to in 80..90 {
        let syn = Segment {
            from: 9,
            to,
            seq: 1,
            flags: SYN,
            window: 1000,
            ..Segment::default()
        };
        rig.give(&syn.frame());
        open += usize::from(rig.settle().iter().any(|s| s.flags == SYN | ACK));
    }
    assert_eq!(
        open,
        10,
        "backlogs are full after ten minutes: {:?}",
        rig.stack.stats().dropped
    );
}

/// F6. TS.Recent is taken from a segment whose ACK is then refused: one forged segment with the
/// right sequence number and any ACK makes PAWS drop all that the honest peer says.
#[test]
fn f6_a_refused_segment_does_not_move_the_timestamp() {
    let mut rig = Rig::new(1, &Setup::default());
    let region = rig.region(&pattern(100));
    let (id, mut peer) = rig.established(5000, &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0]);
    let mut forged = peer.clone();
    forged.ack = peer.ack.wrapping_add(1_000_000);
    forged.options = vec![8, 10, 0x7f, 0, 0, 0, 0, 0, 0, 0];
    rig.give(&forged.frame());
    rig.settle();
    rig.stack
        .send(
            id,
            &[Slice {
                region,
                start: 0,
                len: 100,
            }],
            1,
        )
        .unwrap();
    peer.ack = rig.settle().last().unwrap().end();
    peer.options = vec![8, 10, 0, 0, 0, 2, 0, 0, 0, 0];
    rig.give(&peer.frame());
    assert_eq!(rig.loans(), 0, "the ACK of the honest peer was dropped");
}

/// F8. What asks for silent neighbours drives out the entry of the one in use: an entry that is
/// known makes room before one that is asked for.
#[test]
fn f8_silent_neighbours_do_not_drive_out_the_one_in_use() {
    let mut rig = Rig::new(1, &Setup::default());
    let region = rig.region(&pattern(5000));
    let (id, mut peer) = rig.established(0xffff, &[]);
    for n in 0..150u8 {
        let remote = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 100 + n), 80);
        rig.stack.connect(rig.now, remote, None).unwrap();
    }
    let mut asked = 0;
    for n in 0..600 {
        rig.stack
            .send(
                id,
                &[Slice {
                    region,
                    start: n,
                    len: 1,
                }],
                1,
            )
            .unwrap();
        for _ in 0..3 {
            rig.next_call = rig.stack.poll(rig.now).unwrap();
            rig.handle.complete_all();
            for frame in rig.handle.take_frames() {
                if frame.bytes[12..14] == [8, 6] && frame.bytes[38..42] == PEER_IP {
                    asked += 1;
                    rig.give(&arp_reply(&frame.bytes).unwrap());
                } else if let Some(segment) = Segment::parse(&frame.bytes) {
                    peer.ack = segment.end();
                    rig.give(&peer.frame());
                }
            }
        }
        rig.advance(Duration::from_millis(100));
    }
    assert!(
        asked <= 2,
        "asked {asked} times in a minute for a neighbour in constant use"
    );
}
