//! Whatever arrives, the stack does not fall over, and still works afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;

use common::{ACK, PSH, PeerOptions, RST, SYN, Segment, Setup, World, pattern};
use fastrand::Rng;
use pagewire_hal::{RxChecksum, Verdict};
use pagewire_tcp::State;

/// The device vouches for everything, so that nonsense gets as deep as it can.
const VOUCHED: RxChecksum = RxChecksum {
    ipv4_header: Verdict::Good,
    transport: Verdict::Good,
};

fn still_works(w: &mut World, case: &str) {
    let mut peer = common::Peer::opening(80);
    peer.port = 1;
    let before = w.loans();
    let syn = peer.syn(0);
    w.give(&syn);
    let sent = w.pump();
    let answer = sent.iter().find(|s| s.destination_port == 1);
    peer.ack = answer.unwrap_or_else(|| panic!("no answer: {case}")).end();
    let ack = peer.ack();
    w.give(&ack);
    let id = w.stack.accept(80).unwrap_or_else(|| panic!("{case}"));
    let bytes = pattern(3000, 1);
    let region = w.region(bytes.clone());
    w.send_all(id, region, 3000, 1);
    let sent: Vec<Segment> = w.pump();
    let sent: Vec<Segment> = sent
        .into_iter()
        .filter(|s| s.destination_port == 1)
        .collect();
    assert!(peer.take(&sent) == bytes, "{case}");
    let ack = peer.ack();
    w.give(&ack);
    w.pump();
    assert_eq!(w.loans(), before, "{case}");
}

#[test]
fn arbitrary_frames() {
    for seed in 0..300 {
        let case = format!("seed {seed}");
        let mut random = Rng::with_seed(seed);
        let mut w = World::new(&Setup::default());
        w.stack.listen(80).unwrap();
        let (id, _) = w.established(PeerOptions::default());
        for _ in 0..30 {
            let mut frame: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            if random.bool() && frame.len() >= 14 {
                frame[..6].copy_from_slice(&common::OUR_MAC);
                frame[12..14].copy_from_slice(&[8, if random.bool() { 0 } else { 6 }]);
            }
            w.stack.input(w.now, &frame, VOUCHED);
            w.stack.input(w.now, &frame, RxChecksum::default());
        }
        w.drain();
        assert_eq!(w.stack.state(id), Some(State::Established), "{case}");
        let stats = w.stack.stats();
        assert!(stats.dropped.malformed > 0, "{case}");
        still_works(&mut w, &case);
    }
}

#[test]
fn valid_frames_with_flipped_bytes() {
    for seed in 0..300 {
        let case = format!("seed {seed}");
        let mut random = Rng::with_seed(seed);
        let mut w = World::new(&Setup::default());
        w.stack.listen(80).unwrap();
        let (id, mut peer) = w.established(PeerOptions {
            sack: random.bool(),
            timestamps: random.bool(),
            ..PeerOptions::default()
        });
        let region = w.region(pattern(30_000, seed));
        w.send_all(id, region, 30_000, 1);
        w.drain();
        for _ in 0..50 {
            let mut frame = if random.bool() {
                peer.sack(
                    peer.ack,
                    &[(peer.ack.wrapping_add(1460), peer.ack.wrapping_add(2920))],
                )
            } else {
                peer.data(b"hello", PSH)
            };
            for _ in 0..random.usize(1..6) {
                let at = random.usize(14..frame.len());
                frame[at] ^= 1 << random.u8(..8);
            }
            frame.truncate(random.usize(14..=frame.len()));
            w.stack.input(w.now, &frame, VOUCHED);
            w.drain();
        }
        w.stack.remove(w.now, id);
        w.drain();
        assert_eq!(w.loans(), 0, "{case}");
        still_works(&mut w, &case);
    }
}

/// A peer that knows the connection and lies about everything: flags, numbers, windows, SACK.
#[test]
fn a_lying_peer() {
    for seed in 0..500 {
        let case = format!("seed {seed}");
        let mut random = Rng::with_seed(seed);
        let mut w = World::new(&Setup::default());
        w.stack.listen(80).unwrap();
        let (id, peer) = w.established(PeerOptions {
            mss: Some(random.u16(..)),
            scale: Some(random.u8(..)),
            sack: random.bool(),
            timestamps: random.bool(),
            window: random.u16(..),
        });
        let region = w.region(pattern(100_000, seed));
        w.send_all(id, region, 100_000, 1);
        let near = |random: &mut Rng, base: u32| match random.u8(..4) {
            0 => random.u32(..),
            1 => base,
            _ => base
                .wrapping_add(random.u32(..200_000))
                .wrapping_sub(20_000),
        };
        for _ in 0..100 {
            let flags = if random.u8(..4) > 0 {
                ACK
            } else {
                random.u8(..) & !RST | random.u8(..) & random.u8(..) & RST
            };
            let segment = Segment {
                source_port: peer.port,
                destination_port: peer.their_port,
                seq: near(&mut random, peer.seq),
                ack: near(&mut random, peer.ack),
                flags,
                window: random.u16(..),
                scale: (flags & SYN != 0).then(|| random.u8(..)),
                timestamps: random.bool().then(|| (random.u32(..), random.u32(..))),
                sack: (0..random.usize(0..3))
                    .map(|_| (near(&mut random, peer.ack), near(&mut random, peer.ack)))
                    .collect(),
                payload: vec![1; random.usize(0..100)],
                ..Segment::default()
            };
            w.give(&segment.frame());
            w.pump();
            if random.u8(..4) == 0
                && let Some(next) = w.next_call
            {
                w.now = w.now.max(next);
            }
        }
        w.stack.abort(w.now, id);
        w.pump();
        assert_eq!((w.pinned(), w.loans()), (0, 0), "{case}");
        still_works(&mut w, &case);
    }
}

#[test]
fn each_cause_of_a_drop_is_counted() {
    let mut w = World::new(&Setup::default());
    let (_, peer) = w.established(PeerOptions::default());
    let good = peer.ack();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let frames: [(Vec<u8>, RxChecksum, &str); 10] = [
        (good[..10].to_vec(), VOUCHED, "not ours"),
        (with(&|f| f[12] = 0x86), VOUCHED, "not ours"),
        (with(&|f| f[5] = 9), VOUCHED, "other"),
        (with(&|f| f[33] = 9), VOUCHED, "other"),
        (with(&|f| f[50] ^= 1), RxChecksum::default(), "checksum"),
        (with(&|f| f[24] ^= 1), RxChecksum::default(), "checksum"),
        (with(&|f| f[14] = 0x65), VOUCHED, "malformed"),
        (with(&|f| f[20] = 0x20), VOUCHED, "fragment"),
        (with(&|f| f[23] = 1), VOUCHED, "icmp"),
        (with(&|f| f[23] = 17), VOUCHED, "protocol"),
    ];
    let mut wanted = std::collections::BTreeMap::new();
    for (frame, checksum, cause) in frames {
        w.stack.input(w.now, &frame, checksum);
        *wanted.entry(cause).or_insert(0) += 1;
    }
    let bad = RxChecksum {
        transport: Verdict::Bad,
        ..VOUCHED
    };
    w.stack.input(w.now, &good, bad);
    let dropped = w.stack.stats().dropped;
    assert_eq!(dropped.not_ours, wanted["not ours"]);
    assert_eq!(dropped.other_destination, wanted["other"]);
    assert_eq!(dropped.checksum, wanted["checksum"] + 1);
    assert_eq!(dropped.malformed, wanted["malformed"]);
    assert_eq!(dropped.fragments, wanted["fragment"]);
    assert_eq!((dropped.icmp, dropped.protocol), (1, 1));
    assert!(w.pump().is_empty());
}
