//! What came of a run.

use pagewire::drivers::selftest::{Facts, Outcome, Report};

use crate::error::Failure;

/// What is around the device.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// How the driver reaches the device.
    pub(super) backend: String,
    /// The other end of the wire.
    pub(super) peer: String,
    /// Whether an IOMMU is between the device and memory; in words.
    pub(super) iommu: String,
    /// Whether durations are those of a clock that only the test moves.
    pub(super) virtual_time: bool,
}

/// A run.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) device: String,
    pub(super) facts: Facts,
    pub(super) surroundings: Surroundings,
    pub(super) reports: Vec<Report>,
    /// What the driver did and must not, where somebody watched.
    pub(super) violations: Vec<String>,
    pub(super) interrupted: bool,
}

/// How many tests ended how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) not_run: usize,
}

impl Summary {
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for report in &self.reports {
            match report.outcome {
                Outcome::Passed(_) => counts.passed += 1,
                Outcome::Failed(_) => counts.failed += 1,
                Outcome::NotRun(_) => counts.not_run += 1,
            }
        }
        counts
    }

    /// All of it in a line.
    pub(super) fn last_line(&self) -> String {
        let Counts {
            passed,
            failed,
            not_run,
        } = self.counts();
        let count = self.reports.len();
        let tests = if count == 1 { "test" } else { "tests" };
        let ended = if self.interrupted {
            "; interrupted"
        } else {
            ""
        };
        format!("{count} {tests}: {passed} passed, {failed} failed, {not_run} not run{ended}")
    }

    /// The exit status, and why.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        if self.interrupted {
            return Err(Failure::interrupted());
        }
        let failed = self.reports.iter().filter_map(|report| {
            matches!(report.outcome, Outcome::Failed(_)).then_some(report.test.name())
        });
        let failed: Vec<_> = failed.collect();
        if !failed.is_empty() {
            let device = &self.device;
            let failed = failed.join(", ");
            return Err(Failure::failed(format!("{device}: failed: {failed}")));
        }
        match self.violations.first() {
            None => Ok(()),
            Some(first) => Err(Failure::failed(format!(
                "{}: the driver did what it must not, {} times; first: {first}",
                self.device,
                self.violations.len()
            ))),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use pagewire::drivers::selftest::{Fault, Test, look};

    use super::*;

    /// A run with one test of each outcome, of a model.
    pub(crate) fn example() -> Summary {
        let stop = std::sync::Arc::default();
        let args = crate::selftest::tests::args(&["model:e1000e"]);
        let nic = "model:e1000e".parse().unwrap();
        let mut bench = crate::selftest::model::Modelled::new(&args, &nic, &stop);
        let report = |test, outcome| Report {
            test,
            outcome,
            duration: Duration::from_millis(12),
        };
        let fault = Fault {
            what: "fragment 3 is | missing".into(),
            place: "a frame".into(),
            advice: "look again".into(),
        };
        Summary {
            device: "model:e1000e".into(),
            facts: look(&mut bench).unwrap(),
            surroundings: crate::selftest::Bench::surroundings(&bench),
            reports: vec![
                report(Test::Registers, Outcome::Passed("all".into())),
                report(Test::Gather, Outcome::Failed(fault)),
                report(Test::Segmentation, Outcome::NotRun("not offered".into())),
            ],
            violations: Vec::new(),
            interrupted: false,
        }
    }

    #[test]
    fn the_verdict_is_the_exit_status() {
        let mut summary = example();
        assert_eq!(
            summary.last_line(),
            "3 tests: 1 passed, 1 failed, 1 not run"
        );
        let failure = summary.verdict().unwrap_err();
        assert_eq!(failure.status(), 1);
        assert!(failure.to_string().contains("failed: gather"), "{failure}");
        summary.reports.remove(1);
        assert!(summary.verdict().is_ok());
        summary.violations.push("a doorbell".into());
        assert_eq!(summary.verdict().unwrap_err().status(), 1);
        summary.interrupted = true;
        assert_eq!(summary.verdict().unwrap_err().status(), 130);
    }
}
