//! Conditional requests (RFC 9110 section 13): whether a file is still the one that a client knows.
//!
//! There are no entity tags here, so none that a client names is ours. Dates are of whole seconds.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use super::head::{Method, Request};
use super::range::{Wanted, wanted};

/// What a request comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The whole file.
    Whole,
    /// These bytes of it; one at least.
    Part(Range<u64>),
    /// The client has it.
    NotModified,
    /// A condition does not hold.
    Failed,
    /// The file does not have the range.
    Outside,
}

/// Dates from 1970 until the year 9999: what a field can have.
pub(super) fn in_seconds(time: SystemTime) -> Option<u64> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(since.as_secs()).filter(|seconds| *seconds < YEAR_10000)
}

/// A date as a field has it (section 5.6.7).
pub(super) fn stamp(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Reads the date of a field; a malformed one is none, and the field is to be ignored.
fn date(field: Option<&String>) -> Option<u64> {
    in_seconds(httpdate::parse_http_date(field?).ok()?)
}

/// In the order of section 13.2.2. `modified` and `now` are in seconds.
pub(super) fn decide(request: &Request, len: u64, modified: Option<u64>, now: u64) -> Outcome {
    let since = |field| modified.zip(date(field));
    match &request.if_match {
        Some(tags) if tags.trim() != "*" => return Outcome::Failed,
        Some(_) => {}
        None => {
            let dates = since(request.if_unmodified_since.as_ref());
            if dates.is_some_and(|(modified, date)| modified > date) {
                return Outcome::Failed;
            }
        }
    }
    match &request.if_none_match {
        Some(tags) if tags.trim() == "*" => return Outcome::NotModified,
        // If-Modified-Since is to be ignored beside it (section 13.1.3).
        Some(_) => {}
        None => {
            let dates = since(request.if_modified_since.as_ref());
            if dates.is_some_and(|(modified, date)| modified <= date) {
                return Outcome::NotModified;
            }
        }
    }
    let Some(field) = &request.range else {
        return Outcome::Whole;
    };
    // Of ranges only GET knows (section 14.2).
    if request.method != Method::Get || !range_applies(request, modified, now) {
        return Outcome::Whole;
    }
    match wanted(field, len) {
        Wanted::Whole => Outcome::Whole,
        Wanted::Part(range) => Outcome::Part(range),
        Wanted::Outside => Outcome::Outside,
    }
}

/// If-Range (section 13.1.5): the date must be exactly that of the file, and a strong validator: in
/// the second of a change there may come another one (section 8.8.2.2).
fn range_applies(request: &Request, modified: Option<u64>, now: u64) -> bool {
    let Some(field) = &request.if_range else {
        return true;
    };
    match modified.zip(date(Some(field))) {
        Some((modified, date)) => modified == date && modified < now,
        None => false,
    }
}
