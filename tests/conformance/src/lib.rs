#![doc = include_str!("../README.md")]
//!
#![doc = include_str!("../CHECKS.md")]

mod bench;
mod checks;
mod packet;
mod random;
mod report;
mod session;
mod verdict;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

pub use bench::{Bench, FarEnd};
pub use report::{CheckReport, Outcome, Report};

use checks::Check;
use session::Session;
use verdict::{Verdict, failed};

/// How a run is made.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// From which everything random is drawn.
    pub seed: u64,
    /// Runs only the checks whose name contains this.
    pub only: Option<String>,
    /// Tries every length and offset instead of a sample.
    pub thorough: bool,
    /// How long the device may take for anything, by the bench's time.
    pub patience: Duration,
    /// How long nothing must happen before nothing is believed to happen.
    pub settle: Duration,
    /// Between two looks at the device.
    pub step: Duration,
}

impl Default for Options {
    /// Seed 0, all checks, a sample of lengths; ten seconds of patience (a link may take some),
    /// 1 ms to settle, 20 µs between two looks.
    fn default() -> Self {
        Self {
            seed: 0,
            only: None,
            thorough: false,
            patience: Duration::from_secs(10),
            settle: Duration::from_millis(1),
            step: Duration::from_micros(20),
        }
    }
}

/// Runs the checks on `bench`, each on a device that was opened afresh. A check that fails does
/// not stop the others, and a driver that panics has failed.
pub fn run<B: Bench>(bench: &mut B, options: &Options) -> Report {
    let mut report = Report {
        seed: options.seed,
        ..Report::default()
    };
    let wanted = |check: &Check<B>| {
        let only = options.only.as_deref();
        only.is_none_or(|part| check.name.contains(part))
    };
    for check in checks::all::<B>().into_iter().filter(wanted) {
        let start = Instant::now();
        let verdict = run_one(bench, options, &check, &mut report.nic);
        report.checks.push(CheckReport {
            name: check.name,
            promise: check.promise,
            outcome: Outcome::of(verdict),
            seed: options.seed,
            duration: start.elapsed(),
        });
    }
    report
}

fn run_one<B: Bench>(
    bench: &mut B,
    options: &Options,
    check: &Check<B>,
    name: &mut String,
) -> Verdict {
    let seed = random::seed_for(options.seed, check.name);
    // A bench and a session that were unwound through are not used again: the next check opens
    // the device afresh.
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let mut session = Session::open(bench, options, seed)?;
        session.name().clone_into(name);
        let verdict = (check.run)(&mut session);
        let closed = session.close();
        verdict.and(closed)
    }));
    let complaints = bench.complaints();
    match judged {
        Err(panic) => Err(failed(
            "a driver never panics, whatever it is given (rule 7)",
            format!("it panicked: {}", message(&*panic)),
        )),
        Ok(Ok(())) if !complaints.is_empty() => Err(failed(
            "the device, or its model, was used as its specification forbids",
            complaints.join("; "),
        )),
        Ok(verdict) => verdict,
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "(no message)"
    }
}
