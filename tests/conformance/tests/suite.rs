//! The suite itself, on a NIC that does everything right and on copies that do one thing wrong.

mod fake;

use std::time::Duration;

use fake::{FakeBench, Fault, Shape, shape};
use pagewire_conformance::{Options, Outcome, run};
use pagewire_hal::ChecksumOffload;

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
        let missing = ["joined segments", "a device that asks for a reset"];
        assert_eq!(not_run, missing, "seed {seed}\n{report}");
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
        (Fault::WrongLimit, "limits"),
        (Fault::NoPadding, "padding"),
        (Fault::StaleRequest, "offloads over a reset"),
        (Fault::GiantsTwice, "giants are counted"),
        (Fault::GiantsKeepBuffers, "giants in a row"),
        (Fault::LostUncounted, "lost frames are counted"),
        (Fault::NoGroups, "groups"),
        (Fault::SpeedWhileDown, "link state"),
        (Fault::InterruptsLost, "interrupts"),
        (Fault::OverrunHidesLink, "causes together"),
        (Fault::DeliveredLost, "statistics"),
        (Fault::CountsLost, "a reset loses no count"),
        (Fault::PollEats, "statistics"),
        (Fault::NeverHung, "a device that hangs"),
        (Fault::HungAfterReset, "a device that hangs"),
        (Fault::HungInStep, "a device that does not hang"),
        (Fault::AnyQueues, "queues of another device"),
        (Fault::ConsumedLate, "callbacks that unwind"),
        (Fault::QuietTooEarly, "a device that does not stop"),
        (Fault::RemovedForEver, "a device that is taken out"),
        (Fault::TokensAgain, "release and restart"),
        (Fault::HungByCount, "a device that hangs"),
        (Fault::UntakenDown, "two queues, two threads"),
        (Fault::FailedAfterRelease, "release and restart"),
        (Fault::BudgetLate, "a budget of one"),
        (Fault::ReceivesAhead, "a receiver that unwinds"),
        (Fault::HashBackwards, "hashes"),
        (Fault::HashWithoutPorts, "hashes"),
        (Fault::HashOfNothing, "hashes"),
        (Fault::HashUnsaid, "hashes"),
        (Fault::OneQueue, "hashes"),
        (Fault::FirstWatched, "each pair by itself"),
        (Fault::TokensByNumber, "each pair by itself"),
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

/// Devices at the bounds that `Capabilities` documents.
fn shapes() -> Vec<(&'static str, Shape)> {
    let change = |name, change: fn(&mut Shape)| {
        let mut shape = shape();
        change(&mut shape);
        (name, shape)
    };
    vec![
        change("does not pad", |s| s.capabilities.min_frame_len = 60),
        change("short frames", |s| s.capabilities.max_frame_len = 590),
        change("two short fragments", |s| {
            (
                s.capabilities.max_fragments,
                s.capabilities.max_fragment_len,
            ) = (2, 760);
        }),
        change("fragments of a byte", |s| {
            (
                s.capabilities.max_fragments,
                s.capabilities.max_fragment_len,
            ) = (1514, 1);
            s.ring = 2000;
        }),
        change("fragments without a limit", |s| {
            s.capabilities.max_fragment_len = u32::MAX;
            s.capabilities.segmentation = None;
        }),
        change("more fragments than bytes", |s| {
            (s.capabilities.max_fragments, s.capabilities.max_frame_len) = (2000, 590);
            s.ring = 2000;
        }),
        change("a ring of two", |s| {
            (s.capabilities.max_fragments, s.ring) = (1, 2)
        }),
        change("a ring of four", |s| {
            (s.capabilities.max_fragments, s.ring) = (3, 4)
        }),
        change("two receive buffers", |s| s.rx_ring = 2),
        change("the least of all", |s| {
            s.capabilities.max_fragments = 1;
            s.capabilities.max_fragment_len = 590;
            (s.capabilities.min_frame_len, s.capabilities.max_frame_len) = (60, 590);
            s.capabilities.tx_checksum = ChecksumOffload::empty();
            s.capabilities.segmentation = None;
            s.capabilities.rx_hash = false;
            s.capabilities.queue_pairs = 1;
            s.capabilities.head_room = 0;
            (s.ring, s.rx_ring) = (1, 1);
        }),
    ]
}

#[test]
fn a_good_nic_passes_at_every_bound() {
    for (name, shape) in shapes() {
        for seed in 0..2 {
            let report = run(
                &mut FakeBench::with_shape(Fault::None, shape),
                &options(seed),
            );
            println!("{name}: {report}");
            assert!(report.passed(), "seed {seed}, {name}\n{report}");
        }
    }
}

#[test]
fn the_documented_checks_are_those_that_run() {
    let report = run(&mut FakeBench::new(Fault::None), &options(0));
    let mut table = String::from(
        "# The checks\n\nIn the order in which they run. `Options::only` takes a part of a \
         name.\n\n| check | promise |\n|---|---|\n",
    );
    for check in &report.checks {
        table += &format!("| {} | {} |\n", check.name, check.promise);
    }
    assert_eq!(
        include_str!("../CHECKS.md"),
        table,
        "CHECKS.md is to be:\n{table}"
    );
}
