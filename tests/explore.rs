//! The life of a page, explored: ledger, completion, acknowledgment, retransmission, reset and
//! drop in all orders up to a depth, each order compared with plain books after every step. No
//! order releases a region twice, early or never (rules 2 and 6).
//!
//! Two worlds: `pages` is the port and its ledger, `sender` one TCP connection on top of them.
//! What is cut, and why no release is missed by it, is said in `explore/search.rs`.
//!
//! `PAGEWIRE_FULL=yes` goes deeper: minutes instead of seconds. What fails prints a
//! `PAGEWIRE_TRACE="…"` that replays it (other worlds then pass without being explored).
//!
//! One thread: a ledger, its port and its connections belong to one at a time. What crosses
//! threads is the last share of a region, an `Arc`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

#[path = "explore/device.rs"]
mod device;
#[path = "explore/machine.rs"]
mod machine;
#[path = "explore/page_books.rs"]
mod page_books;
#[path = "explore/pages.rs"]
mod pages;
#[path = "explore/search.rs"]
mod search;
#[path = "explore/sender.rs"]
mod sender;
#[path = "explore/sender_books.rs"]
mod sender_books;
#[path = "explore/sender_checks.rs"]
mod sender_checks;
#[path = "explore/wire.rs"]
mod wire;

use machine::Fault;
use page_books::Setup;
use pages::Pages;
use search::{Limits, World, came_about, cutting_loses_nothing, explore, full, run};
use sender::Sender;
use sender_books::Action;

/// Depths for CI, and for the long version.
fn depth(short: usize, long: usize) -> Limits {
    Limits {
        depth: if full() { long } else { short },
        cut: true,
    }
}

/// Everything at once.
fn everything() -> Setup {
    Setup {
        regions: 2,
        loans: 2,
        frames: 3,
        any_order: true,
        resets: true,
        mishaps: true,
        fault: Fault::None,
    }
}

#[test]
fn pages_with_everything_that_can_happen() {
    let explored = run::<Pages>("everything", &everything(), depth(6, 7));
    came_about(
        explored,
        &[
            "completed out of order",
            "quiet with frames out",
            "stuck with frames out",
            "the device is the last holder",
            "the connection is the last holder",
        ],
    );
}

/// One region whose loan is retransmitted, on a device that completes in order.
#[test]
fn pages_of_one_region_deeply() {
    let setup = Setup {
        regions: 1,
        loans: 1,
        frames: 2,
        any_order: false,
        resets: true,
        mishaps: false,
        ..everything()
    };
    let explored = run::<Pages>("one-region", &setup, depth(11, 14));
    came_about(explored, &["given back", "two frames read a region"]);
}

/// Loans are forgotten, builders dropped, callbacks unwind, resets fail.
#[test]
fn pages_with_mishaps() {
    let setup = Setup {
        regions: 1,
        loans: 1,
        frames: 2,
        any_order: false,
        ..everything()
    };
    let explored = run::<Pages>("mishaps", &setup, depth(8, 9));
    came_about(explored, &["a token came twice", "stuck with frames out"]);
}

/// Two regions on a device that completes in any order, without resets.
#[test]
fn pages_that_complete_in_any_order() {
    let setup = Setup {
        resets: false,
        mishaps: false,
        ..everything()
    };
    let explored = run::<Pages>("any-order", &setup, depth(6, 7));
    came_about(explored, &["completed out of order"]);
}

#[test]
fn cutting_loses_no_state_of_the_pages() {
    cutting_loses_nothing::<Pages>(
        "everything-uncut",
        &everything(),
        if full() { 4 } else { 3 },
    );
}

/// The explorer finds what it is there to find: each fault of a driver ends in a failure.
#[test]
fn faults_of_a_driver_are_found() {
    for fault in [
        Fault::HandsBackEarly,
        Fault::HandsBackTwice,
        Fault::LosesCompletions,
        Fault::QuietTooEarly,
        Fault::RestartForgetsDone,
    ] {
        let setup = Setup {
            regions: 1,
            loans: 1,
            frames: 2,
            fault,
            ..everything()
        };
        found::<Pages>(&format!("{fault:?}"), &setup);
    }
}

/// That something is wrong is found, and found again by its trace.
fn found<W: World>(what: &str, setup: &W::Setup) {
    let limits = Limits {
        depth: 4,
        cut: true,
    };
    let failure = explore::<W>(setup, limits).err();
    let failure = failure.unwrap_or_else(|| panic!("{what} is not found"));
    println!("{what}: {}: {}", failure.trace, failure.what);
    let again = search::retrace::<W>(setup, &failure.trace);
    assert_eq!(again, Err(failure.what), "{what}: {}", failure.trace);
}

/// A connection that meets everything.
fn connection() -> sender_books::Setup {
    sender_books::Setup {
        max_fragments: 4,
        resets: true,
        chatter: true,
        fault: Fault::None,
        begin: &[],
        sack_releases: false,
    }
}

#[test]
fn a_connection_that_meets_everything() {
    let explored = run::<Sender>("connection", &connection(), depth(4, 5));
    came_about(explored, &["all given back", "stopped with frames"]);
}

/// Completions, acknowledgments, timeouts and the ways to end, without the rest.
#[test]
fn a_connection_deeply() {
    let setup = sender_books::Setup {
        resets: false,
        chatter: false,
        ..connection()
    };
    let explored = run::<Sender>("plain-connection", &setup, depth(5, 6));
    came_about(explored, &["acknowledged, not done", "over, not done"]);
}

/// All segments are in the ring, then the first is done and was sent again: from there.
#[test]
fn a_connection_with_a_retransmission_in_the_ring() {
    let setup = sender_books::Setup {
        begin: &[
            Action::Poll,
            Action::Complete(0),
            Action::Poll,
            Action::Wait,
            Action::Poll,
        ],
        ..connection()
    };
    let explored = run::<Sender>("sent-again", &setup, depth(4, 4));
    came_about(explored, &["sent again", "put off", "timed out"]);
}

/// The device is done with all segments, the peer has acknowledged none: from there.
#[test]
fn a_connection_that_waits_for_acknowledgments() {
    let setup = sender_books::Setup {
        begin: &[
            Action::Poll,
            Action::Complete(0),
            Action::Complete(0),
            Action::Complete(0),
            Action::Poll,
        ],
        ..connection()
    };
    let explored = run::<Sender>("all-done", &setup, depth(4, 5));
    came_about(explored, &["fast retransmit", "one region given back"]);
}

/// Segments that cross a page are copied, the last is shared.
#[test]
fn a_connection_that_copies_some() {
    let setup = sender_books::Setup {
        max_fragments: 2,
        ..connection()
    };
    let explored = run::<Sender>("some-copied", &setup, depth(4, 5));
    came_about(explored, &["copied", "shared", "all given back"]);
}

/// The key of a connection cannot show all that a connection remembers (windows, timers): up to
/// depth 3 nothing is lost. At depth 4 exploring without a cut finds 5 states more, of 6,339: the
/// cut orders were played to their ends, but not continued.
#[test]
fn cutting_loses_no_state_of_a_connection() {
    cutting_loses_nothing::<Sender>("connection-uncut", &connection(), 3);
}

#[test]
fn faults_below_a_connection_are_found() {
    let begin: &[Action] = &[Action::Poll];
    for fault in [
        Fault::HandsBackEarly,
        Fault::HandsBackTwice,
        Fault::LosesCompletions,
        Fault::RestartForgetsDone,
    ] {
        let setup = sender_books::Setup {
            fault,
            begin,
            ..connection()
        };
        found::<Sender>(&format!("{fault:?}"), &setup);
    }
    // An oracle that is wrong is found as well.
    let setup = sender_books::Setup {
        sack_releases: true,
        begin,
        ..connection()
    };
    found::<Sender>("SACK releases", &setup);
}
