//! The suite itself, on a NIC that does everything right and on copies that do one thing wrong.

mod fake;

use std::time::Duration;

use fake::{FakeBench, Fault};
use pagewire_conformance::{Options, Outcome, run};

fn options(seed: u64) -> Options {
    let mut options = Options::default();
    options.seed = seed;
    options
}

#[test]
fn a_good_nic_passes_and_only_what_it_has_not_is_not_run() {
    for seed in 0..5 {
        let report = run(&mut FakeBench::new(Fault::None), &options(seed));
        assert!(report.passed(), "seed {seed}\n{report}");
        let not_run: Vec<_> = report
            .checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::NotRun { .. }))
            .map(|check| check.name)
            .collect();
        assert_eq!(
            not_run,
            ["received checksums", "interrupts"],
            "seed {seed}\n{report}"
        );
    }
}

#[test]
fn each_fault_is_found_where_it_is() {
    for (fault, name) in [
        (Fault::CrossedTokens, "two queues, two threads"),
        (Fault::NoHeadRoom, "fragment counts"),
        (Fault::WrongIdentification, "segmentation"),
        (Fault::EarlyTokens, "doorbell"),
        (Fault::LeakyPadding, "padding"),
        (Fault::LostToken, "reset in mid-burst"),
    ] {
        let mut options = options(1);
        options.only = Some(name.to_owned());
        // Some faults make it wait for what never comes.
        options.patience = Duration::from_secs(1);
        let report = run(&mut FakeBench::new(fault), &options);
        assert_eq!(report.checks.len(), 1, "seed 1, {fault:?}");
        assert!(
            !report.passed(),
            "seed 1, {fault:?} was not found\n{report}"
        );
        assert_eq!(report.failures().count(), 1, "seed 1, {fault:?}\n{report}");
    }
}
