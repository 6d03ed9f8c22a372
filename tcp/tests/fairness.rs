//! What one connection, one peer or one sender must not take from the others: room in the copy
//! pool, and the turn of whoever waits to write.
// A test may panic: that is how it fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::guarded::PAGE;
use common::lent::{Case, case, explain, lends, move_away};
use common::{PeerOptions, Setup};
use pagewire_tcp::{ConnectionId, CopyRule, SendOptions};

fn always() -> SendOptions {
    let mut options = SendOptions::default();
    options.copy = CopyRule::Always;
    options
}

/// Hands in as much as is accepted.
fn fill(case: &mut Case, id: ConnectionId, options: &SendOptions) -> usize {
    let slice = case.slice(0, case.memory.size());
    let (now, mut all) = (case.w.now, 0);
    loop {
        let sent = case.w.stack.send_with(now, id, &[slice], 7, options);
        match sent.unwrap() {
            0 => return all,
            more => all += more,
        }
    }
}

/// Connections whose peers say nothing more leave room to one whose peer does, and to further ones.
#[test]
fn peers_that_are_silent_leave_room_for_copies() {
    for silent in [1, 2, 5, 12] {
        let mut case = case(&Setup::default(), 64);
        let mut held = 0;
        for _ in 0..silent {
            let (id, _) = case.w.established(PeerOptions::default());
            held += fill(&mut case, id, &always());
            // What the congestion window lets go is lost.
            case.w.pump();
        }
        let free = case.w.stack.copy_pool().unwrap().free_bytes();
        assert_eq!(free, 64 * PAGE - held);
        assert!(free / PAGE >= 64 / (silent + 1), "{free} of {silent}");
        // The other one gets all of its bytes through meanwhile.
        let mut done = 0;
        for _ in 0..64 {
            let accepted = case.send(done, 32 * PAGE - done, &always());
            assert!(accepted > 0, "{silent} silent peers hold the pool");
            assert_eq!(case.deliver().len(), accepted);
            done += accepted;
            if done == 32 * PAGE {
                break;
            }
        }
        assert_eq!(done, 32 * PAGE);
    }
}

#[test]
fn one_alone_has_half_of_the_pool_again_and_again() {
    let mut case = case(&Setup::default(), 16);
    for _ in 0..10 {
        let id = case.id;
        assert_eq!(fill(&mut case, id, &always()), 8 * PAGE);
        assert_eq!(case.deliver().len(), 8 * PAGE);
        case.assert_all_back();
    }
    // Also after it was aborted, for the next one.
    let (now, id) = (case.w.now, case.id);
    fill(&mut case, id, &always());
    case.w.stack.abort(now, id);
    case.w.pump();
    let (next, _) = case.w.established(PeerOptions::default());
    assert_eq!(fill(&mut case, next, &always()), 8 * PAGE);
    case.w.stack.remove(now, next);
    case.w.pump();
    let (last, _) = case.w.established(PeerOptions::default());
    assert_eq!(fill(&mut case, last, &always()), 8 * PAGE);
}

/// A limit counts whole slots, and is no stall: one slot is for everybody.
#[test]
fn a_limit_of_copies_is_kept() {
    for (limit, slots) in [(3 * PAGE, 3), (3 * PAGE - 1, 2), (0, 1), (usize::MAX, 16)] {
        let mut setup = Setup::default();
        setup.config.copy_limit = Some(limit);
        let mut case = case(&setup, 16);
        let id = case.id;
        assert_eq!(fill(&mut case, id, &always()), slots * PAGE);
        assert_eq!(case.deliver().len(), slots * PAGE);
        // A few bytes have a slot, too.
        let accepted = (0..20).filter(|_| case.send(0, 10, &always()) == 10);
        assert_eq!(accepted.count(), slots);
        case.deliver();
        case.assert_all_back();
    }
}

/// Beyond its share of the pool, a connection still lends what may be lent.
#[test]
fn short_slices_are_lent_beyond_the_share() {
    let mut setup = lends();
    setup.config.thresholds.watched = usize::MAX;
    let mut case = case(&setup, 8);
    let plain = SendOptions::default();
    assert_eq!(case.send(0, 10 * PAGE, &plain), 10 * PAGE);
    assert_eq!(case.w.stack.lent_bytes(case.id), 6 * PAGE);
    assert_eq!(case.deliver().len(), 10 * PAGE);
    case.assert_all_back();
}

/// What moves away counts as what was copied at once.
#[test]
fn bytes_that_move_away_leave_room_to_others() {
    let mut case = case(&lends(), 16);
    assert_eq!(case.send(0, 32 * PAGE, &move_away()), 32 * PAGE);
    case.w.pump();
    assert!(!case.memory.write(0, &[b'n'; 32 * PAGE]));
    for _ in 0..5 {
        case.w.pump();
    }
    let stats = case.w.stack.connection_stats(case.id).unwrap();
    assert_eq!(stats.copied_early.written, 8 * PAGE as u64);
    assert_eq!(case.w.stack.lent_bytes(case.id), 24 * PAGE);
    let (other, _) = case.w.established(PeerOptions::default());
    // As much as it then leaves, by two: there are two that have some.
    assert_eq!(fill(&mut case, other, &always()), 2 * PAGE);
}

/// Sends two pages again and again, before the peer has acknowledged what went before, and at some
/// time somebody begins to write to the first. Says after how many further sends he is let in.
fn sends_until_written(slots: usize, options: &SendOptions) -> Option<usize> {
    let mut case = case(&lends(), slots);
    let mut unread = Vec::new();
    let (mut written, mut arrived, mut expected) = (None, Vec::new(), Vec::new());
    for round in 0..40 {
        let page = case.memory.read(0..2 * PAGE);
        let accepted = case.send(0, 2 * PAGE, options);
        expected.extend_from_slice(&page[..accepted]);
        let sent = case.w.pump();
        // He has what was sent a round ago.
        arrived.extend(case.peer.take(&std::mem::replace(&mut unread, sent)));
        let ack = case.peer.ack();
        case.w.give(&ack);
        case.w.poll();
        if round >= 5 && written.is_none() && case.memory.write(100, b"new") {
            written = Some(round - 5);
        }
    }
    arrived.extend(case.peer.take(&unread));
    let ack = case.peer.ack();
    case.w.give(&ack);
    arrived.extend(case.deliver());
    assert!(arrived == expected, "other bytes");
    let stats = case.w.stack.connection_stats(case.id).unwrap();
    let copied = stats.copied_early;
    // As long as he waits, and only the page that he waits for.
    assert_eq!(copied.wanted > 0, written.is_some(), "{copied:?}");
    assert!(copied.wanted as usize <= written.unwrap_or(0) * PAGE);
    if slots > 0 {
        case.assert_all_back();
    }
    written
}

/// A page that is sent again and again before earlier loans of it are over is free in the end for
/// whoever waits to write to it.
#[test]
fn a_writer_is_let_in_however_often_his_page_is_sent() {
    let mut options = SendOptions::default();
    let sends = sends_until_written(8, &options).expect("he waits for ever");
    assert!((1..=4).contains(&sends), "{sends} sends");
    assert!(sends_until_written(8, &move_away()).is_some());
    // Where nothing is copied he waits until the sender pauses, as is said of it.
    assert_eq!(sends_until_written(0, &options), None);
    options.copy = CopyRule::Never;
    assert_eq!(sends_until_written(8, &options), None);
}

/// Of a long slice only the page that is waited for is copied.
#[test]
fn only_the_page_that_is_waited_for_is_copied() {
    // Also if what lies before it or behind is shorter than what is lent otherwise.
    for threshold in [0, 4 * PAGE] {
        let mut setup = lends();
        setup.config.thresholds.watched = threshold;
        copies_one_page(case(&setup, 8));
    }
}

fn copies_one_page(mut case: Case) {
    case.send(0, 5 * PAGE, &SendOptions::default());
    assert!(!case.memory.write(2 * PAGE + 10, b"new"));
    assert_eq!(case.send(100, 4 * PAGE, &explain()), 4 * PAGE);
    assert!(case.deliver().iter().all(|byte| *byte == b'o'));
    assert!(case.memory.write(2 * PAGE + 10, b"new"));
    let now = case.w.now;
    let (_, none) = case.w.stack.explained(now, case.id).unwrap();
    assert_eq!(none, None);
    let account = case.explained();
    let copied = account.copied_early;
    assert_eq!((copied.wanted, copied.total()), (PAGE as u64, PAGE as u64));
    assert_eq!(account.lent, 3 * PAGE as u64);
    case.assert_all_back();
}

/// A connection whose share is full of what it has copied waits for its peer; one that has none, as
/// others have all of the pool, lends the page once more.
#[test]
fn a_page_that_is_waited_for_stops_no_connection() {
    let mut setup = lends();
    setup.config.copy_limit = Some(2 * PAGE);
    let mut case = case(&setup, 2);
    let (other, _) = case.w.established(PeerOptions::default());
    let plain = SendOptions::default();
    case.send(0, PAGE, &plain);
    assert!(!case.memory.write(0, b"n"));
    for accepted in [PAGE, PAGE, 0] {
        assert_eq!(case.send(0, PAGE, &plain), accepted);
    }
    let slice = case.slice(0, PAGE);
    let now = case.w.now;
    let sent = case.w.stack.send_with(now, other, &[slice], 7, &plain);
    assert_eq!(sent, Ok(PAGE));
    assert_eq!(case.w.stack.lent_bytes(other), PAGE);
}
