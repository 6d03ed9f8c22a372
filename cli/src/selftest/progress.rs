//! What is shown while tests run: a line for each that has ended, and the one that is running.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pagewire::drivers::selftest::{Facts, Outcome, Report, Test};

use super::summary::Surroundings;
use crate::error::{Failure, print};

/// Lines on standard output, and the running test on standard error if that is a terminal.
pub(super) struct Progress {
    silent: bool,
    running: ProgressBar,
}

impl Progress {
    /// With `silent` nothing but the running test is shown.
    pub(super) fn new(silent: bool) -> Self {
        let running = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        running.set_style(ProgressStyle::default_spinner());
        Self { silent, running }
    }

    /// Says what is tested.
    pub(super) fn head(
        &mut self,
        name: &str,
        facts: &Facts,
        surroundings: &Surroundings,
    ) -> Result<(), Failure> {
        if self.silent {
            return Ok(());
        }
        let ((vendor, device), revision) = (facts.ids, facts.revision);
        let what = match &facts.opened {
            Ok(opened) => format!("{}, {}", opened.description, opened.mac),
            Err(why) => format!("not opened: {why}"),
        };
        let time = match surroundings.virtual_time {
            true => "\ntime     virtual: durations and rates say nothing of this machine",
            false => "",
        };
        print(&format!(
            "device   {name}: {vendor:04x}:{device:04x} revision {revision:02x}, {what}\n\
             reached  {}\niommu    {}\npeer     {}{time}\n",
            surroundings.backend, surroundings.iommu, surroundings.peer
        ))
    }

    /// A test begins.
    pub(super) fn begins(&mut self, test: Test) {
        self.running
            .set_message(format!("{test}: {}", test.description()));
        self.running.enable_steady_tick(Duration::from_millis(100));
    }

    /// A test has ended.
    pub(super) fn ended(&mut self, report: &Report) -> Result<(), Failure> {
        if self.silent {
            return Ok(());
        }
        self.running.suspend(|| print(&row(report)))
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self) {
        self.running.finish_and_clear();
    }
}

/// A line of the table, and below it what to do about a fault.
fn row(report: &Report) -> String {
    let seconds = report.duration.as_secs_f64();
    let name = report.test.name();
    let line = |word: &str, text: &str| format!("{name:<18} {word:<8} {seconds:>7.3} s  {text}");
    match &report.outcome {
        Outcome::Passed(detail) => line("passed", detail),
        Outcome::NotRun(why) => line("not run", why),
        Outcome::Failed(fault) => format!(
            "{}\n{:>20}where  {}\n{:>20}then   {}",
            line("FAILED", &fault.what),
            "",
            fault.place,
            "",
            fault.advice
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::example;
    use super::row;

    #[test]
    fn a_fault_says_what_where_and_how_to_go_on() {
        let rows: Vec<_> = example().reports.iter().map(row).collect();
        assert!(rows[0].starts_with("registers          passed     0.012 s  all"));
        let fault = &rows[1];
        for word in [
            "FAILED",
            "fragment 3",
            "where  a frame",
            "then   look again",
        ] {
            assert!(fault.contains(word), "{fault}");
        }
        assert!(rows[2].contains("not run") && rows[2].contains("not offered"));
    }
}
