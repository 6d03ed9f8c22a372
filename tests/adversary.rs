//! The sender in the hands of people who mean harm: peers that lie about everything, devices that
//! dawdle, programs that call whatever they please. Nothing may panic, no byte that a device
//! still reads may change, all loans come back, and what can go on does go on.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

mod common;
#[path = "adversary/found.rs"]
mod found;
#[path = "adversary/lies.rs"]
mod lies;
#[path = "adversary/rig.rs"]
mod rig;
#[path = "adversary/sleeper.rs"]
mod sleeper;

use std::time::Duration;

use pagewire::tcp::{Slice, StackConfig};

use rig::{Rig, Setup, pattern};

#[test]
fn a_hundred_thousand_slices_of_a_byte() {
    for max_fragments in [1, 2, 64, 255] {
        let text = format!("{max_fragments} fragments");
        let setup = Setup {
            max_fragments,
            ..Setup::default()
        };
        let mut rig = Rig::new(1, &setup);
        let bytes = pattern(200_000);
        let region = rig.region(&bytes);
        let (id, mut peer) = rig.established(0xffff, &[]);
        // Every other byte, from the last to the first, with nothing between every two.
        let starts: Vec<usize> = (0..100_000).map(|n| bytes.len() - 1 - 2 * n).collect();
        let slices: Vec<Slice> = starts
            .iter()
            .flat_map(|at| [(*at, 1), (bytes.len(), 0)])
            .map(|(start, len)| Slice { region, start, len })
            .collect();
        assert_eq!(rig.stack.send(id, &slices, 1), Ok(100_000), "{text}");
        let mut got = Vec::new();
        while got.len() < 100_000 {
            let sent = rig.settle();
            assert!(!sent.is_empty(), "{text}: it stands still");
            for segment in sent {
                peer.ack = segment.end();
                got.extend(segment.payload);
            }
            rig.give(&peer.frame());
        }
        assert!(
            got.iter()
                .zip(&starts)
                .all(|(byte, at)| *byte == bytes[*at]),
            "{text}"
        );
        assert!(rig.stack.completion(rig.now, id).is_some(), "{text}");
        rig.stack.remove(rig.now, id);
        rig.assert_empty(&text);
    }
}

#[test]
fn slices_that_are_not_there_lend_nothing() {
    let mut rig = Rig::new(1, &Setup::default());
    let mut other = Rig::new(2, &Setup::default());
    let region = rig.region(&pattern(5000));
    let foreign = other.region(&pattern(5000));
    let released = rig.region(&pattern(5000));
    rig.stack.release_region(released).unwrap();
    let (id, _) = rig.established(0xffff, &[]);
    let good = Slice {
        region,
        start: 4999,
        len: 1,
    };
    for (region, start, len) in [
        (region, 4999, 2),
        (region, 5000, 1),
        (region, usize::MAX, 1),
        (region, 1, usize::MAX),
        (region, usize::MAX, usize::MAX),
        (foreign, 0, 1),
        (released, 0, 1),
    ] {
        let bad = Slice { region, start, len };
        assert!(rig.stack.send(id, &[good, bad], 1).is_err(), "{bad:?}");
        assert_eq!(rig.loans(), 0, "{bad:?}");
    }
    assert_eq!(rig.stack.send(id, &[good], 1), Ok(1));
    rig.stack.remove(rig.now, id);
    rig.assert_empty("afterwards");
}

#[test]
fn configurations_at_their_ends() {
    let change: [fn(&mut StackConfig); 9] = [
        |c| c.receive_window = 0,
        |c| c.receive_window = usize::MAX,
        |c| c.send_limit = usize::MAX,
        |c| c.backlog = 0,
        |c| c.share_min = usize::MAX,
        |c| c.share_min = 0,
        |c| (c.min_rto, c.max_rto, c.time_wait) = (Duration::MAX, Duration::MAX, Duration::MAX),
        |c| c.max_retries = 0,
        |c| (c.min_rto, c.time_wait) = (Duration::ZERO, Duration::ZERO),
    ];
    for (number, change) in change.iter().enumerate() {
        let text = format!("change {number}");
        let mut setup = Setup::default();
        change(&mut setup.config);
        let mut rig = Rig::new(1, &setup);
        let region = rig.region(&pattern(5000));
        rig.stack.listen(80).unwrap();
        let (id, mut peer) = rig.established(0xffff, &[]);
        let accepted = rig
            .stack
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
        assert_eq!(accepted, 5000, "{text}");
        rig.stack.close(rig.now, id);
        for segment in rig.settle() {
            peer.ack = segment.end();
            rig.give(&peer.frame());
        }
        rig.advance(Duration::from_secs(100));
        rig.settle();
        rig.stack.remove(rig.now, id);
        rig.assert_empty(&text);
    }
}
