//! Self-tests of a NIC, in the spirit of `ethtool -t`, for what Pagewire promises of it.
//!
//! [`run`] opens the device of a [`Station`] anew for each [`Test`] and tells what came of it. A
//! station is the device and what is around it: how it is opened, how time passes, and, if there
//! are such, a [`Peer`] at the other end of its wire and [`Stray`] memory that the device must not
//! reach. Frames go to the peer; where there is none they come back through the MAC, if the device
//! has such a loopback; where that is missing as well a test is *not run*, and says so.
//!
//! Everything that the device or the peer writes is looked at, never trusted: the worst device
//! fails its tests.
//!
//! The tests take the device: whatever it was doing is over. Frames of the tests have the type for
//! local experiments (88b5) or addresses that are reserved for documentation (192.0.2.0/24 and
//! 2001:db8::/32); nobody answers those.

mod facts;
mod outcome;
mod packet;
mod probe;
mod session;
mod station;
mod tests;
mod traffic;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

pub use facts::{Facts, look};
pub use outcome::{Event, Fault, Outcome, Report, Test};
pub use station::{Peer, Station, Stray};

use outcome::Stop;

/// Runs `selected`, in the order of [`Test::ALL`] and each once, and reports on all of them, also
/// on those that a cancelled run did not come to. `observe` hears of each as it begins and ends.
pub fn run<S: Station>(
    station: &mut S,
    selected: &[Test],
    observe: &mut dyn FnMut(Event<'_>),
) -> Vec<Report> {
    let mut reports: Vec<Report> = Vec::new();
    let mut closed: Option<(Test, String)> = None;
    for test in Test::ALL {
        if !selected.contains(&test) {
            continue;
        }
        observe(Event::Begins(test));
        let start = station.now();
        let outcome = if station.is_cancelled() {
            Outcome::NotRun("interrupted".into())
        } else {
            judge(test, tests::run(test, station), &mut closed)
        };
        let outcome = match outcome {
            // What failed while somebody pressed Ctrl-C says nothing of the device.
            Outcome::Failed(_) if station.is_cancelled() => Outcome::NotRun("interrupted".into()),
            outcome => outcome,
        };
        if test == Test::Eeprom
            && let Outcome::Failed(fault) = &outcome
        {
            closed.get_or_insert((test, fault.what.clone()));
        }
        let report = Report {
            test,
            outcome,
            duration: station.now().saturating_since(start),
        };
        observe(Event::Ended(&report));
        reports.push(report);
    }
    reports
}

/// What the end of a test means. That the device does not open is the fault of one test only: the
/// others cannot be run.
fn judge(test: Test, end: Result<String, Stop>, closed: &mut Option<(Test, String)>) -> Outcome {
    match (end, &closed) {
        (Ok(detail), _) => Outcome::Passed(detail),
        (Err(Stop::Fault(fault)), _) => Outcome::Failed(fault),
        (Err(Stop::NotRun(why)), _) => Outcome::NotRun(why),
        (Err(Stop::Closed(_)), Some((first, what))) => {
            Outcome::NotRun(format!("the device does not open (test {first}: {what})"))
        }
        (Err(Stop::Closed(what)), None) => {
            *closed = Some((test, what.to_string()));
            Outcome::Failed(Fault {
                what,
                place: "opening the device".into(),
                advice: "nothing else can be tested before that works; the error says what is \
                         missing"
                    .into(),
            })
        }
    }
}
