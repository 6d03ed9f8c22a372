//! The checks, in the order in which they run.

mod checksum;
mod faults;
mod filter;
mod gather;
mod hang;
mod hash;
mod interrupts;
mod joined;
mod lifecycle;
mod limits;
mod link;
mod queues;
mod receive;
mod ring;
mod segmentation;
mod statistics;
mod verdicts;

use pagewire_hal::PostError;

use crate::Bench;
use crate::session::Session;
use crate::verdict::{Verdict, failed};

/// One check.
pub(crate) struct Check<B: Bench> {
    /// Its name, for people to type.
    pub(crate) name: &'static str,
    /// What it asks of the driver.
    pub(crate) promise: &'static str,
    pub(crate) run: fn(&mut Session<'_, B>) -> Verdict,
}

/// All checks.
pub(crate) fn all<B: Bench>() -> Vec<Check<B>> {
    let mut all = Vec::new();
    all.extend(limits::checks());
    all.extend(gather::checks());
    all.extend(checksum::checks());
    all.extend(segmentation::checks());
    all.extend(ring::checks());
    all.extend(receive::checks());
    all.extend(verdicts::checks());
    all.extend(joined::checks());
    all.extend(hash::checks());
    all.extend(filter::checks());
    all.extend(link::checks());
    all.extend(interrupts::checks());
    all.extend(lifecycle::checks());
    all.extend(statistics::checks());
    all.extend(hang::checks());
    all.extend(faults::checks());
    all.extend(queues::checks());
    all
}

/// Where to look when frames do not fit the ring.
const RING: &str = "`max_fragments` is no more than an empty ring holds beside contexts and gap, \
                    and `has_room` says so";
/// Where to look when frames do not come.
const RECEIVE: &str = "buffers go back to the device after each call of `receive`";

/// A failure: a frame that the capabilities allow was not taken.
fn refused<T>(what: &str, error: PostError) -> Verdict<T> {
    let what = format!("{what} was not taken: {error}");
    Err(failed(
        "what the capabilities allow is taken (rule 8)",
        what,
    ))
}

/// A failure of receive, or of what is like it.
fn wrong<T>(what: String) -> Verdict<T> {
    Err(failed(RECEIVE, what))
}
