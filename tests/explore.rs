//! The life of a page, explored: ledger, completion, acknowledgment, retransmission, reset and
//! drop in all orders up to a depth, each order compared with plain books after every step. No
//! order releases a region twice, early or never (rules 2 and 6).
//!
//! Two worlds: `pages` is the port and its ledger, `sender` one TCP connection on top of them.
//! What is cut, and why no release is missed by it, is said in `explore/search.rs`.
//!
//! `PAGEWIRE_FULL=yes` goes deeper. What fails prints a `PAGEWIRE_TRACE="…"` that replays it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may panic

#[path = "explore/machine.rs"]
mod machine;
#[path = "explore/pages.rs"]
mod pages;
#[path = "explore/search.rs"]
mod search;

use machine::Fault;
use pages::{Pages, Setup};
use search::{Limits, cutting_loses_nothing, explore, full, run};

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
    run::<Pages>("everything", &everything(), depth(5, 6));
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
    run::<Pages>("one-region", &setup, depth(9, 12));
}

/// Two regions on a device that completes in any order, without resets.
#[test]
fn pages_that_complete_in_any_order() {
    let setup = Setup {
        resets: false,
        mishaps: false,
        ..everything()
    };
    run::<Pages>("any-order", &setup, depth(6, 8));
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
        let limits = Limits {
            depth: 6,
            cut: true,
        };
        let failure = explore::<Pages>(&setup, limits).err();
        let failure = failure.unwrap_or_else(|| panic!("{fault:?} is not found"));
        println!("{fault:?}: {}: {}", failure.trace, failure.what);
        let again = search::retrace::<Pages>(&setup, &failure.trace);
        assert_eq!(again, Err(failure.what), "{fault:?}: {}", failure.trace);
    }
}
