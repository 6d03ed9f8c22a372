//! The checks, in the order in which they run.

mod gather;

use crate::Bench;
use crate::session::Session;
use crate::verdict::Verdict;

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
    all.extend(gather::checks());
    all
}
