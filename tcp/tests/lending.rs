//! What `send` lends, what it copies, what it moves away, and how it explains that.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::guarded::{Guarded, PAGE};
use common::lent::{Case, case, explain, lends, move_away, with_memory};
use common::{ACK, PeerOptions, RST, Setup, pattern};
use pagewire_hal::{ChecksumOffload, LendError, Refused};
use pagewire_tcp::{CopyRule, OnWrite, Outcome, SendError, SendOptions, Slice};

#[test]
fn slices_below_the_threshold_are_copied_and_can_be_written_at_once() {
    let mut setup = Setup::default();
    setup.config.thresholds.watched = 5000;
    let mut case = case(&setup, 8);
    assert_eq!(case.send(100, 4999, &explain()), 4999);
    assert_eq!(case.memory.lent_pages(), 0);
    assert!(case.memory.write(100, b"new"));
    assert!(case.deliver().iter().all(|byte| *byte == b'o'));
    let account = case.explained();
    assert_eq!((account.lent, account.shared), (0, 0));
    assert_eq!(account.copied_early.below_threshold, 4999);
    assert_eq!((account.from_pool, account.frames), (4999, 4));
    case.assert_all_back();

    assert_eq!(case.send(100, 5000, &explain()), 5000);
    assert_eq!(case.memory.lent_pages(), 2);
    assert!(!case.memory.write(100, b"own"));
    assert_eq!(case.deliver()[..3], *b"new");
    assert!(case.memory.write(100, b"own"));
    let account = case.explained();
    assert_eq!(
        (account.lent, account.shared, account.from_pool),
        (5000, 5000, 0)
    );
    let stats = case.w.stack.connection_stats(case.id).unwrap();
    assert_eq!((stats.shared_bytes, stats.pool_bytes), (5000, 4999));
    assert_eq!(stats.copied_early.total(), 4999);
    case.assert_all_back();
}

#[test]
fn a_call_can_want_all_copied_or_all_lent() {
    let mut case = case(&Setup::default(), 8);
    let mut options = explain();
    options.copy = CopyRule::Always;
    assert_eq!(case.send(0, 3 * PAGE, &options), 3 * PAGE);
    assert_eq!(case.memory.lent_pages(), 0);
    case.deliver();
    assert_eq!(case.explained().copied_early.asked, 3 * PAGE as u64);
    options.copy = CopyRule::Never;
    assert_eq!(case.send(0, 10, &options), 10);
    assert_eq!(case.memory.lent_pages(), 1);
    case.deliver();
    assert_eq!(case.explained().lent, 10);
    case.assert_all_back();
}

/// Out of budget means copy; out of copies means later, and there is a later.
#[test]
fn beyond_the_limit_is_copied_and_beyond_the_pool_is_put_off() {
    let mut setup = lends();
    setup.config.pin_limit = 3 * PAGE;
    setup.config.copy_limit = Some(usize::MAX);
    let mut case = case(&setup, 4);
    assert_eq!(case.send(0, 2 * PAGE, &explain()), 2 * PAGE);
    assert_eq!(case.send(2 * PAGE, 2 * PAGE, &explain()), 2 * PAGE);
    assert_eq!(case.memory.lent_pages(), 2);
    assert_eq!(case.w.stack.lent_bytes(case.id), 2 * PAGE);
    // The pool has two slots left: partial acceptance keeps its place.
    assert_eq!(case.send(4 * PAGE, 5 * PAGE, &explain()), 2 * PAGE);
    assert_eq!(case.send(6 * PAGE, 3 * PAGE, &explain()), 0);
    assert_eq!(case.deliver().len(), 6 * PAGE);
    assert_eq!(case.send(6 * PAGE, 3 * PAGE, &explain()), 3 * PAGE);
    assert_eq!(case.deliver().len(), 3 * PAGE);
    assert_eq!(case.explained().lent, 2 * PAGE as u64);
    for _ in 0..2 {
        assert_eq!(case.explained().copied_early.over_limit, 2 * PAGE as u64);
    }
    assert_eq!(case.explained().lent, 3 * PAGE as u64);
    case.assert_all_back();
}

#[test]
fn what_nobody_can_keep_is_copied_and_without_a_pool_an_error() {
    let mut one = case(&lends(), 8);
    one.memory.refuse(true);
    assert_eq!(one.send(5, 6000, &explain()), 6000);
    assert!(one.memory.write(5, b"later"));
    assert!(one.deliver().iter().all(|byte| *byte == b'o'));
    assert_eq!(one.explained().copied_early.refused, 6000);
    one.assert_all_back();

    let mut other = case(&lends(), 0);
    other.memory.refuse(true);
    let slice = other.slice(0, 10);
    let refused = other.w.stack.send(other.id, &[slice], 1);
    let why = LendError::Refused(Refused::Unavailable);
    assert_eq!(refused, Err(SendError::Lend(why)));
    assert_eq!(other.w.loans(), 0);
}

/// The policy *copy*: the writer waits for frames in the ring, not for the peer; first
/// transmissions and retransmissions have the bytes of the time of the call.
#[test]
fn what_somebody_wants_to_write_moves_away() {
    let mut case = case(&lends(), 8);
    case.w.completes = false;
    assert_eq!(case.send(1000, 3 * PAGE, &move_away()), 3 * PAGE);
    // The congestion window lets some of it go; nothing has completed.
    let first = case.w.pump();
    assert!(!first.is_empty());
    let page = PAGE..2 * PAGE;
    assert!(!case.memory.write(page.start, &[b'n'; PAGE]));
    assert!(case.w.pump().is_empty());
    assert!(
        !case.memory.write(page.start, &[b'n'; PAGE]),
        "still in the ring"
    );
    case.w.handle.complete_all();
    case.w.completes = true;
    assert!(case.w.pump().is_empty());
    assert!(
        case.memory.write(page.start, &[b'n'; PAGE]),
        "nobody acknowledged"
    );
    assert_eq!(case.memory.lent_pages(), 3);
    // All are lost, and sent again.
    case.w.advance(Duration::from_secs(2));
    let bytes = case.deliver();
    assert_eq!(bytes.len(), 3 * PAGE);
    assert!(bytes.iter().all(|byte| *byte == b'o'));
    let account = case.explained();
    assert_eq!(account.lent, 3 * PAGE as u64);
    assert_eq!(account.copied_early.written, PAGE as u64);
    assert!(account.from_pool >= PAGE as u64);
    assert!(account.held >= Duration::from_secs(2));
    // The second send of the buffer has the new bytes.
    case.send(PAGE, PAGE, &move_away());
    assert_eq!(case.deliver(), vec![b'n'; PAGE]);
    case.assert_all_back();
}

/// Whether the last poll wants the next one in a moment.
fn soon(case: &Case) -> bool {
    let next = case.w.next_call;
    next.is_some_and(|at| at <= case.w.now + Duration::from_millis(1))
}

/// A writer need not wait for a timer: polls are soon while something may have to be moved.
#[test]
fn while_something_may_move_the_next_poll_is_soon() {
    let mut case = case(&lends(), 8);
    case.w.pump();
    assert!(!soon(&case));
    case.send(0, 2 * PAGE, &move_away());
    let sent = case.w.pump();
    assert!(soon(&case));
    assert!(!case.memory.write(0, &[b'n'; PAGE]));
    case.w.skip_to_next_call();
    assert!(case.w.pump().is_empty());
    assert!(case.memory.write(0, &[b'n'; PAGE]));
    assert!(soon(&case), "another page can be wanted");
    assert!(!case.memory.write(PAGE, &[b'n'; PAGE]));
    case.w.skip_to_next_call();
    case.w.pump();
    assert!(!soon(&case), "all has moved");
    case.peer.take(&sent);
    let ack = case.peer.ack();
    case.w.give(&ack);
    case.deliver();
    // Acknowledged, undone, aborted: none of them is soon.
    case.send(0, PAGE, &move_away());
    assert_eq!(case.deliver().len(), PAGE);
    assert!(!soon(&case), "all is acknowledged");
    let slices = [case.slice(0, 10), case.slice(32 * PAGE, 1)];
    let (now, id) = (case.w.now, case.id);
    let sent = case.w.stack.send_with(now, id, &slices, 7, &move_away());
    assert!(sent.is_err());
    case.w.pump();
    assert!(!soon(&case), "nothing was accepted");
    case.send(0, PAGE, &move_away());
    case.w.pump();
    assert!(soon(&case));
    case.w.stack.abort(now, case.id);
    case.w.pump();
    assert!(!soon(&case), "it is over");
}

/// What nobody can write, what is to stay, and what there is no pool for: nothing moves.
#[test]
fn where_nothing_can_move_the_next_poll_is_not_soon() {
    for slots in [0, 8] {
        let mut case = case(&lends(), slots);
        let owned = case.w.region(pattern(1000, 1));
        let slice = Slice {
            region: owned,
            start: 0,
            len: 1000,
        };
        let (now, id) = (case.w.now, case.id);
        let sent = case.w.stack.send_with(now, id, &[slice], 7, &move_away());
        assert_eq!(sent, Ok(1000));
        let options = [explain(), move_away()][usize::from(slots == 0)];
        case.send(0, PAGE, &options);
        case.w.pump();
        assert!(!soon(&case), "{slots} slots");
    }
}

/// The policy *wait*: the writer waits for the peer, whatever the ring says.
#[test]
fn what_is_to_stay_stays_until_it_is_acknowledged() {
    let mut case = case(&lends(), 8);
    case.send(0, PAGE, &explain());
    let sent = case.w.pump();
    assert!(!case.memory.write(10, b"n"));
    case.w.poll();
    assert!(!case.memory.write(10, b"n"));
    assert_eq!(case.peer.take(&sent), vec![b'o'; PAGE]);
    let ack = case.peer.ack();
    case.w.give(&ack);
    case.w.poll();
    assert!(case.memory.write(10, b"n"));
    assert_eq!(case.explained().copied_early.total(), 0);
}

/// One page, lent by a call that waits and by one that moves away, of two connections: it is free
/// when both have let it go.
#[test]
fn a_page_of_two_calls_is_free_after_both() {
    let mut case = case(&lends(), 8);
    let (other, mut other_peer) = case.w.established(PeerOptions::default());
    case.send(0, 100, &move_away());
    let slice = case.slice(50, 100);
    let now = case.w.now;
    let waits = SendOptions::default();
    let sent = case.w.stack.send_with(now, other, &[slice], 1, &waits);
    assert_eq!(sent, Ok(100));
    let sent = case.w.pump();
    assert!(!case.memory.write(0, b"n"));
    case.w.poll();
    assert!(
        !case.memory.write(0, b"n"),
        "the other one waits for its peer"
    );
    assert_eq!(case.w.stack.lent_bytes(case.id), 0);
    let to_other = sent
        .iter()
        .filter(|s| s.source_port == other_peer.their_port);
    other_peer.take(&to_other.cloned().collect::<Vec<_>>());
    let ack = other_peer.ack();
    case.w.give(&ack);
    case.w.poll();
    assert!(case.memory.write(0, b"n"));
}

/// With a full pool the page stays until it is acknowledged: nothing fails.
#[test]
fn without_room_the_writer_waits_for_the_peer() {
    let mut case = case(&lends(), 1);
    case.send(0, 2 * PAGE, &move_away());
    let sent = case.w.pump();
    assert!(!case.memory.write(0, &[b'n'; 2 * PAGE]));
    case.w.poll();
    assert_eq!(case.memory.lent_pages(), 1);
    assert!(case.memory.write(0, &[b'n'; PAGE]) != case.memory.write(PAGE, &[b'n'; PAGE]));
    assert_eq!(
        case.peer.take(&sent),
        vec![b'o'; sent.iter().map(|s| s.payload.len()).sum()]
    );
    let ack = case.peer.ack();
    case.w.give(&ack);
    let rest = case.deliver();
    assert!(rest.iter().all(|byte| *byte == b'o'));
    assert!(case.memory.write(0, &[b'n'; 2 * PAGE]));
    case.assert_all_back();
}

#[test]
fn a_reset_gives_back_what_was_lent_moved_and_copied() {
    let mut setup = lends();
    setup.config.pin_limit = 3 * PAGE;
    let mut case = case(&setup, 8);
    case.send(0, 3 * PAGE, &move_away());
    case.send(4 * PAGE, 2 * PAGE, &move_away());
    case.w.pump();
    case.memory.write(PAGE, b"n");
    case.w.pump();
    let reset = case.peer.bare(RST | ACK, case.peer.seq);
    case.w.give(&reset);
    case.w.pump();
    case.assert_all_back();
    let now = case.w.now;
    let (completion, account) = case.w.stack.explained(now, case.id).unwrap();
    assert_eq!(completion.outcome, Outcome::Aborted);
    assert_eq!(account.unwrap().copied_early.written, PAGE as u64);
    assert!(case.memory.write(0, &vec![b'n'; 32 * PAGE]));
}

#[test]
fn live_bytes_go_as_they_are_and_the_cpu_sums_only_what_it_has_copied() {
    for (checksum, shared) in [
        (
            ChecksumOffload::TCP_IPV4 | ChecksumOffload::IPV4_HEADER,
            true,
        ),
        (ChecksumOffload::IPV4_HEADER, false),
    ] {
        let setup = Setup {
            checksum,
            ..lends()
        };
        let mut case = with_memory(&setup, 4, Guarded::live(4));
        assert_eq!(case.send(10, 6000, &explain()), 6000);
        assert!(case.memory.write(20, b"changed"));
        let bytes = case.deliver();
        assert_eq!(bytes[10..17], *b"changed");
        let account = case.explained();
        assert_eq!(account.lent, 6000);
        let expected = if shared { (6000, 0) } else { (0, 6000) };
        assert_eq!((account.shared, account.live), expected);
        let stats = case.w.stack.connection_stats(case.id).unwrap();
        assert_eq!(stats.copied.live.bytes, expected.1);
    }
}

/// Header and body of a web server in one frame: a few bytes of memory and a part of a file.
#[test]
fn a_short_header_and_a_file_are_one_frame() {
    let mut case = with_memory(&Setup::default(), 4, Guarded::live(8));
    let header = pattern(200, 3);
    let owned = case.w.region(header.clone());
    let slices = [
        Slice {
            region: owned,
            start: 0,
            len: 200,
        },
        case.slice(100, 1000),
        Slice {
            region: owned,
            start: 0,
            len: 50,
        },
    ];
    let now = case.w.now;
    let sent = case.w.stack.send_with(now, case.id, &slices, 7, &explain());
    assert_eq!(sent, Ok(1250));
    let sent = case.w.pump();
    assert_eq!(sent.len(), 1);
    let expected = [&header[..], &[b'o'; 1000], &header[..50]].concat();
    assert_eq!(sent[0].payload, expected);
    case.peer.take(&sent);
    let ack = case.peer.ack();
    case.w.give(&ack);
    case.w.pump();
    let account = case.explained();
    // Below the threshold the header is copied once; the frame gathers from both.
    assert_eq!((account.shared, account.from_pool), (1000, 250));
    assert_eq!(account.frames, 1);
    assert!(account.fragments >= 4, "{account:?}");
}

/// An account has what is of its call alone, and what is sent again counts again.
#[test]
fn accounts_of_neighbours_are_kept_apart() {
    let mut case = case(&lends(), 8);
    case.send(0, 700, &explain());
    let slice = case.slice(5000, 300);
    let plain = SendOptions::default();
    let now = case.w.now;
    case.w
        .stack
        .send_with(now, case.id, &[slice], 7, &plain)
        .unwrap();
    case.send(9000, 100, &explain());
    // All of it is lost once.
    case.w.pump();
    case.w.advance(Duration::from_secs(2));
    case.deliver();
    let first = case.explained();
    assert_eq!((first.lent, first.shared), (700, 1400));
    assert_eq!(first.frames, 2);
    let (second, none) = case.w.stack.explained(now, case.id).unwrap();
    assert_eq!((second.bytes, none), (300, None));
    let third = case.explained();
    assert_eq!((third.lent, third.shared), (100, 200));
    case.assert_all_back();
}

/// Calls, writes, losses, acknowledgements and resets at random, one page shared by several
/// connections: the peer gets the bytes of the time of each call.
#[test]
fn random_schedules_keep_what_was_sent() {
    let seed: u64 = std::env::var("PAGEWIRE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let (mut denied, mut moved) = (0, 0);
    for seed in seed..seed + 300 {
        let (denials, bytes) = schedule(seed);
        denied += denials;
        moved += bytes;
    }
    println!("{denied} writes had to wait, {moved} bytes moved away");
    assert!(denied > 100 && moved > 100_000, "{denied} {moved}");
}

/// How many writes had to wait, and how many bytes moved away.
fn schedule(seed: u64) -> (u64, u64) {
    let mut denied = 0;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut setup = lends();
    setup.seed = seed;
    if random.bool() {
        setup.checksum = ChecksumOffload::empty();
    }
    setup.max_fragments = random.u16(1..8);
    if random.bool() {
        setup.config.pin_limit = random.usize(1..8 * PAGE);
    }
    let mut case = with_memory(&setup, random.usize(1..8), Guarded::new(8));
    let (other, other_peer) = case.w.established(PeerOptions::default());
    let mut ends = [(case.id, case.peer.clone()), (other, other_peer)];
    let mut expected = [Vec::new(), Vec::new()];
    let mut arrived = [Vec::new(), Vec::new()];
    for step in 0..300 {
        case.w.completes = random.u8(..4) > 0;
        match random.u8(..6) {
            0 | 1 => {
                let index = random.usize(..2);
                let start = random.usize(..8 * PAGE - 1);
                let len = random.usize(1..=(8 * PAGE - start).min(3 * PAGE));
                let mut options = SendOptions::default();
                options.explain = random.bool();
                if random.bool() {
                    options.on_write = OnWrite::MoveAway;
                }
                if random.u8(..8) == 0 {
                    options.copy = CopyRule::Always;
                }
                let (slice, now) = (case.slice(start, len), case.w.now);
                let id = ends[index].0;
                let accepted = case
                    .w
                    .stack
                    .send_with(now, id, &[slice], 1, &options)
                    .unwrap();
                expected[index].extend(case.memory.read(start..start + accepted));
            }
            2 | 3 => {
                let at = random.usize(..8 * PAGE - 100);
                denied += u64::from(!case.memory.write(at, &[step as u8; 100]));
            }
            4 => case.w.advance(Duration::from_millis(random.u64(1..400))),
            _ => {
                case.w.handle.complete_all();
            }
        }
        let sent = case.w.pump();
        for (end, arrived) in ends.iter_mut().zip(&mut arrived) {
            let (lost, said) = (random.u8(..8) == 0, random.u8(..4) > 0);
            let own = |s: &&common::Segment| s.source_port == end.1.their_port;
            let own: Vec<_> = sent.iter().filter(own).cloned().collect();
            if !lost {
                arrived.extend(end.1.take(&own));
            }
            if said {
                let ack = end.1.ack();
                case.w.give(&ack);
            }
        }
    }
    // The end: everything arrives, and every page comes back.
    for _ in 0..200 {
        case.w.completes = true;
        case.w.handle.complete_all();
        case.w.advance(Duration::from_millis(500));
        let sent = case.w.pump();
        for (end, arrived) in ends.iter_mut().zip(&mut arrived) {
            let own = |s: &&common::Segment| s.source_port == end.1.their_port;
            let own: Vec<_> = sent.iter().filter(own).cloned().collect();
            arrived.extend(end.1.take(&own));
            let ack = end.1.ack();
            case.w.give(&ack);
        }
        case.w.poll();
        if arrived == expected {
            break;
        }
    }
    assert!(arrived == expected, "seed {seed}");
    case.assert_all_back();
    let stats = case.w.stack.stats().connections;
    assert!(!soon(&case), "seed {seed}: nothing is left that may move");
    // Nobody is thought to have some of the pool still: one alone may have half of it.
    let mut options = SendOptions::default();
    options.copy = CopyRule::Always;
    let half = (case.w.stack.copy_pool().unwrap().len() / 2 / PAGE).max(1);
    assert_eq!(case.send(0, 8 * PAGE, &options), half * PAGE, "seed {seed}");
    (denied, stats.copied_early.written)
}
