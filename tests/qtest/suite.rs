//! How the conformance suite is run on a device of QEMU, and judged.

use std::time::Duration;

use pagewire_conformance::{Bench, Options, Outcome, Report, run};

/// What QEMU's device, or the wire, does otherwise than the suite expects: the name of the check,
/// and what is seen of it. Each must fail as it says: a change of QEMU or of the driver shows.
pub(crate) type Quirk = (&'static str, &'static str);

/// What is run, and how.
pub(crate) struct Choice {
    /// The checks whose name contains one of these; one check is in one of them.
    pub(crate) only: &'static [&'static str],
    /// How long the device may take for anything.
    pub(crate) patience: Duration,
}

/// Runs the suite on `bench`; all must pass but the `quirks`. `title` says what the device is.
///
/// `PAGEWIRE_SEED=n` takes that seed instead of 0, and `PAGEWIRE_CHECK=name` runs only the checks
/// whose name contains that. Returns the report, without the quirks.
pub(crate) fn run_suite(
    title: &str,
    bench: &mut impl Bench,
    choice: &Choice,
    quirks: &[Quirk],
) -> Report {
    let mut options = Options::default();
    options.seed = std::env::var("PAGEWIRE_SEED").map_or(0, |seed| seed.parse().unwrap());
    options.patience = choice.patience;
    // QEMU is another process, with its own turn on the processor.
    options.settle = Duration::from_millis(20);
    let mut report = Report::default();
    let asked = std::env::var("PAGEWIRE_CHECK").ok();
    let only = choice.only.iter().map(|part| (*part).to_owned());
    for part in asked.map_or(only.collect(), |name| vec![name]) {
        options.only = Some(part);
        let checks = std::mem::take(&mut report.checks);
        report = run(bench, &options);
        report.checks.splice(0..0, checks);
    }
    assert!(!report.checks.is_empty(), "no check of this name");
    let missing = take_out(&mut report, quirks);
    println!("{title}\n{report}");
    let seed = report.seed;
    assert_eq!(
        report.failures().count(),
        0,
        "{title}, seed {seed}\n{report}"
    );
    assert!(
        missing.is_empty(),
        "{title}, seed {seed}: QEMU, or the driver, has changed: {missing:?}\n{report}"
    );
    report
}

/// Takes the failures that are known out of the report; returns the checks that were run and have
/// not failed though they are known to.
fn take_out(report: &mut Report, quirks: &[Quirk]) -> Vec<&'static str> {
    let mut missing = Vec::new();
    report.checks.retain(|check| {
        let quirk = quirks.iter().find(|(name, _)| *name == check.name);
        let Some((name, seen)) = quirk else {
            return true;
        };
        match &check.outcome {
            Outcome::Failed { what, .. } if what.contains(seen) => {
                println!("{name}: as QEMU does it, {what}");
                false
            }
            // Another failure stays in the report.
            Outcome::Failed { .. } => true,
            _ => {
                missing.push(*name);
                true
            }
        }
    });
    missing
}
