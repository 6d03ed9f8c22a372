//! The self-test on the models: those that keep to their specification pass, and each of those with
//! a fault fails the test that is for it, by name.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a panic is the failure"
)]

#[path = "selftest/faults.rs"]
mod faults;
#[path = "selftest/faulty.rs"]
mod faulty;
#[path = "selftest/lab.rs"]
mod lab;

use faults::{CASES, Case};
use lab::{Chip, Lab};
use pagewire_drivers::selftest::{Event, Outcome, Report, Test, look, run};

fn all_of(lab: &mut Lab) -> Vec<Report> {
    run(lab, &Test::ALL, &mut |_| {})
}

fn outcome(reports: &[Report], test: Test) -> &Outcome {
    &reports
        .iter()
        .find(|report| report.test == test)
        .unwrap()
        .outcome
}

/// Tests that cannot be run on a chip for which everything is there, and a word of the reason.
fn not_for(chip: Chip) -> Vec<(Test, &'static str)> {
    match chip {
        Chip::E1000e => vec![(Test::Segmentation, "not offered")],
        Chip::Ixgbe(_) => Vec::new(),
        Chip::Virtio { .. } => vec![
            (Test::Eeprom, "no EEPROM"),
            (Test::Loopback, "no loopback"),
            (Test::ChecksumReceive, "does not promise"),
        ],
    }
}

fn passes(chip: Chip, seed: u64, has_peer: bool) {
    let mut lab = Lab::new(chip, seed);
    lab.has_peer = has_peer;
    let reports = all_of(&mut lab);
    assert_eq!(reports.len(), Test::ALL.len());
    for report in &reports {
        let why = not_for(chip)
            .into_iter()
            .find(|(test, _)| *test == report.test)
            .map(|(_, why)| why);
        match (&report.outcome, why) {
            (Outcome::Passed(detail), None) => {
                println!("{chip:?}, seed {seed}: {}: {detail}", report.test);
            }
            (Outcome::NotRun(reason), Some(why)) if reason.contains(why) => {}
            (Outcome::NotRun(reason), _) if !has_peer && reason.contains("peer") => {}
            (outcome, _) => panic!("{chip:?}, seed {seed}: {}: {outcome:?}", report.test),
        }
    }
    let violations = lab.violations();
    assert!(
        violations.is_empty(),
        "{chip:?}, seed {seed}: {violations:#?}"
    );
}

#[test]
fn the_model_of_the_82574_passes() {
    for seed in 0..3 {
        passes(Chip::E1000e, seed, true);
    }
}

#[test]
fn the_models_of_the_82599_and_the_x540_pass() {
    for (seed, device) in (0..).zip(lab::IXGBE) {
        passes(Chip::Ixgbe(device), seed, true);
    }
}

#[test]
fn the_model_of_virtio_net_passes_with_both_rings() {
    for (seed, packed, pairs) in [(0, false, 1), (1, true, 1), (2, false, 4)] {
        passes(Chip::Virtio { packed, pairs }, seed, true);
    }
}

/// What can be tested without a peer is, and the rest is said not to have been run.
#[test]
fn without_a_peer_the_loopback_has_to_do() {
    for chip in [Chip::E1000e, Chip::KX4, Chip::SPLIT] {
        passes(chip, 7, false);
    }
    let mut lab = Lab::new(Chip::SPLIT, 7);
    lab.has_peer = false;
    let reports = all_of(&mut lab);
    let Outcome::NotRun(why) = outcome(&reports, Test::Gather) else {
        panic!("{reports:#?}");
    };
    assert!(
        why.contains("needs a peer") && why.contains("wire"),
        "{why}"
    );
    assert!(matches!(
        outcome(&reports, Test::Registers),
        Outcome::Passed(_)
    ));
}

/// A fault is found by the test that is for it, which says what it is; the others pass as ever, but
/// for those that the case names.
fn is_found(case: &Case) {
    let mut lab = Lab::new(case.chip, 11);
    lab.fault = Some(case.fault);
    let reports = all_of(&mut lab);
    let Outcome::Failed(fault) = outcome(&reports, case.test) else {
        panic!("{case:?} was not found: {reports:#?}");
    };
    for word in case.words {
        let said = fault.what.contains(word) || fault.place.contains(word);
        assert!(said, "{case:?}: `{word}` is not in {fault:?}");
    }
    assert!(!fault.advice.is_empty(), "{case:?}");
    for report in &reports {
        let other = report.test != case.test && !case.also.contains(&report.test);
        if other
            && !case.closes
            && let Outcome::Failed(fault) = &report.outcome
        {
            panic!("{case:?}: {} failed as well: {fault:?}", report.test);
        }
        if report.test != case.test && case.closes {
            let run = matches!(report.test, Test::Registers);
            let skipped = matches!(&report.outcome, Outcome::NotRun(_));
            assert!(
                run || skipped,
                "{case:?}: {} is {:?}",
                report.test,
                report.outcome
            );
        }
    }
    println!("{:?}: {}: {fault}", case.fault, case.test);
}

#[test]
fn every_fault_is_found_and_named() {
    assert!(CASES.len() >= 12);
    for test in Test::ALL {
        assert!(
            CASES.iter().any(|case| case.test == test),
            "{test} has no fault"
        );
    }
    for case in CASES {
        is_found(case);
    }
}

/// Frames of others on the wire, more than could be kept, disturb no test.
#[test]
fn others_on_the_wire_disturb_nobody() {
    let mut lab = Lab::new(Chip::KX4, 21);
    lab.noise = true;
    for report in all_of(&mut lab) {
        assert!(matches!(report.outcome, Outcome::Passed(_)), "{report:?}");
    }
}

/// Whatever a device says, the tests end, none of them panics, and a report is made of each.
#[test]
fn devices_that_lie_end_no_test() {
    let mut failed = 0;
    for seed in 0..20 {
        for chip in [Chip::E1000e, Chip::KX4, Chip::SPLIT, Chip::PACKED] {
            let mut lab = Lab::new(chip, 1000 * seed);
            lab.lies = true;
            let _facts = look(&mut lab);
            let reports = all_of(&mut lab);
            assert_eq!(reports.len(), Test::ALL.len(), "{chip:?}, seed {seed}");
            let faults = reports
                .iter()
                .filter(|r| matches!(r.outcome, Outcome::Failed(_)));
            failed += faults.count();
        }
    }
    assert!(failed > 80, "devices that lie pass: {failed} tests failed");
}

/// Only what is selected is run, in the order of the list, and each is announced.
#[test]
fn a_selection_is_run_in_order() {
    let mut lab = Lab::new(Chip::E1000e, 3);
    let mut heard = Vec::new();
    let selected = [Test::Gather, Test::Registers, Test::Gather];
    let reports = run(&mut lab, &selected, &mut |event| match event {
        Event::Begins(test) => heard.push(format!("begins {test}")),
        Event::Ended(report) => heard.push(format!("ended {}", report.test)),
    });
    let ran: Vec<_> = reports.iter().map(|report| report.test).collect();
    assert_eq!(ran, [Test::Registers, Test::Gather]);
    let expected = [
        "begins registers",
        "ended registers",
        "begins gather",
        "ended gather",
    ];
    assert_eq!(heard, expected);
    for report in &reports {
        assert!(matches!(report.outcome, Outcome::Passed(_)), "{report:?}");
    }
    for test in Test::ALL {
        assert_eq!(Test::named(test.name()), Some(test));
        assert!(!test.description().is_empty());
    }
    assert_eq!(Test::named("all"), None);
}

/// A run that is cancelled says so of all that it did not come to.
#[test]
fn a_cancelled_run_says_so() {
    let mut lab = Lab::new(Chip::E1000e, 3);
    lab.cancelled = true;
    for report in all_of(&mut lab) {
        assert_eq!(report.outcome, Outcome::NotRun("interrupted".into()));
    }
}

#[test]
fn the_facts_are_those_of_the_device() {
    for (chip, ids, vectors) in [
        (Chip::E1000e, (0x8086, 0x10D3), 5),
        (Chip::KX4, (0x8086, 0x10F7), 64),
        (Chip::SPLIT, (0x1AF4, 0x1041), 4),
    ] {
        let facts = look(&mut Lab::new(chip, 5)).unwrap();
        assert_eq!((facts.ids, facts.msix_vectors), (ids, vectors), "{chip:?}");
        let opened = facts.opened.unwrap();
        assert!(opened.capabilities.max_fragments > 1 && opened.mac.is_station());
        assert!(
            opened.description.contains(chip.driver()),
            "{}",
            opened.description
        );
    }
    let mut lab = Lab::new(Chip::E1000e, 5);
    lab.fault = Some(faults::Fault::EepromWord);
    let facts = look(&mut lab).unwrap();
    assert!(facts.opened.unwrap_err().contains("EEPROM"));
}
