//! What a run found: a table for people, JSON for programs.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::verdict::{Stop, Verdict};

/// How a check ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Every promise was kept.
    Passed,
    /// One was broken.
    Failed {
        /// What was seen, and where.
        what: String,
        /// Where the cause is likely to be.
        mend: String,
    },
    /// Nothing was judged: the device does not offer it, or the bench has not got the hook.
    NotRun {
        /// Why.
        why: String,
    },
}

impl Outcome {
    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict {
            Ok(()) => Self::Passed,
            Err(Stop::Failed { what, mend }) => Self::Failed { what, mend },
            Err(Stop::NotRun(why)) => Self::NotRun { why },
        }
    }

    /// One word for a table.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed { .. } => "FAILED",
            Self::NotRun { .. } => "not run",
        }
    }
}

/// One check of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CheckReport {
    /// Its name: what [`Options::only`](crate::Options::only) takes.
    pub name: &'static str,
    /// What it asks of the driver.
    pub promise: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The seed of the run, which replays it.
    pub seed: u64,
    /// How long it took, by the clock of this computer.
    pub duration: Duration,
}

/// What a run found. [`Display`](fmt::Display) is a table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// What the driver calls itself; empty if it could not be opened.
    pub nic: String,
    /// The seed of the run.
    pub seed: u64,
    /// The checks, in the order in which they ran.
    pub checks: Vec<CheckReport>,
}

impl Report {
    /// Whether something was judged, and nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.count("passed") > 0 && self.count("FAILED") == 0
    }

    /// The checks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CheckReport> {
        self.checks
            .iter()
            .filter(|check| matches!(check.outcome, Outcome::Failed { .. }))
    }

    fn count(&self, word: &str) -> usize {
        let is = |check: &&CheckReport| check.outcome.word() == word;
        self.checks.iter().filter(is).count()
    }

    /// The report as one JSON object:
    /// `{"nic", "seed", "passed", "checks": [{"name", "promise", "outcome", "what", "mend",
    /// "seed", "microseconds"}]}`. `outcome` is `passed`, `failed` or `not run`; `what` is there
    /// unless it passed, `mend` if it failed.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = String::from("{\"nic\":");
        string(&mut text, &self.nic);
        // Writing to a `String` cannot fail.
        let _ = write!(
            text,
            ",\"seed\":{},\"passed\":{},\"checks\":[",
            self.seed,
            self.passed()
        );
        for (index, check) in self.checks.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            check.write_json(&mut text);
        }
        text.push_str("]}");
        text
    }
}

impl CheckReport {
    fn write_json(&self, text: &mut String) {
        text.push_str("{\"name\":");
        string(text, self.name);
        text.push_str(",\"promise\":");
        string(text, self.promise);
        text.push_str(",\"outcome\":");
        string(text, &self.outcome.word().to_lowercase());
        match &self.outcome {
            Outcome::Passed => {}
            Outcome::Failed { what, mend } => {
                text.push_str(",\"what\":");
                string(text, what);
                text.push_str(",\"mend\":");
                string(text, mend);
            }
            Outcome::NotRun { why } => {
                text.push_str(",\"what\":");
                string(text, why);
            }
        }
        let micros = self.duration.as_micros();
        let _ = write!(text, ",\"seed\":{},\"microseconds\":{micros}}}", self.seed);
    }
}

/// Appends a JSON string (RFC 8259 section 7).
fn string(text: &mut String, value: &str) {
    text.push('"');
    for character in value.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, seed {}", self.nic, self.seed)?;
        for check in &self.checks {
            let millis = check.duration.as_secs_f64() * 1e3;
            let word = check.outcome.word();
            writeln!(f, "{:<30} {word:<8} {millis:>9.1} ms", check.name)?;
            match &check.outcome {
                Outcome::Passed => {}
                Outcome::Failed { what, mend } => {
                    writeln!(f, "    promise: {}", check.promise)?;
                    writeln!(f, "    seen:    {what}")?;
                    writeln!(f, "    mend:    {mend}")?;
                    writeln!(
                        f,
                        "    replay:  seed {}, only \"{}\"",
                        check.seed, check.name
                    )?;
                }
                Outcome::NotRun { why } => writeln!(f, "    {why}")?,
            }
        }
        let (passed, failed) = (self.count("passed"), self.count("FAILED"));
        let not_run = self.count("not run");
        write!(f, "{passed} passed, {failed} failed, {not_run} not run")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let check = |name, outcome| CheckReport {
            name,
            promise: "is kept",
            outcome,
            seed: 7,
            duration: Duration::from_micros(1500),
        };
        let failed = Outcome::Failed {
            what: "a \"b\"\n\\".to_owned(),
            mend: "look".to_owned(),
        };
        let not_run = Outcome::NotRun {
            why: "no hook".to_owned(),
        };
        Report {
            nic: "fake".to_owned(),
            seed: 7,
            checks: vec![
                check("one", Outcome::Passed),
                check("two", failed),
                check("three", not_run),
            ],
        }
    }

    #[test]
    fn json_is_well_formed() {
        let expected = concat!(
            "{\"nic\":\"fake\",\"seed\":7,\"passed\":false,\"checks\":[",
            "{\"name\":\"one\",\"promise\":\"is kept\",\"outcome\":\"passed\",",
            "\"seed\":7,\"microseconds\":1500},",
            "{\"name\":\"two\",\"promise\":\"is kept\",\"outcome\":\"failed\",",
            "\"what\":\"a \\\"b\\\"\\u000a\\\\\",\"mend\":\"look\",\"seed\":7,\"microseconds\":1500},",
            "{\"name\":\"three\",\"promise\":\"is kept\",\"outcome\":\"not run\",",
            "\"what\":\"no hook\",\"seed\":7,\"microseconds\":1500}]}"
        );
        assert_eq!(report().to_json(), expected);
    }

    #[test]
    fn the_table_says_what_failed_and_how_to_replay_it() {
        let text = report().to_string();
        for part in [
            "fake, seed 7",
            "a \"b\"",
            "look",
            "seed 7, only \"two\"",
            "no hook",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(text.ends_with("1 passed, 1 failed, 1 not run"), "{text}");
    }

    #[test]
    fn nothing_judged_is_not_passed() {
        let mut report = report();
        assert!(!report.passed());
        assert_eq!(report.failures().count(), 1);
        report.checks.remove(1);
        assert!(report.passed());
        report.checks.remove(0);
        assert!(!report.passed(), "a run in which nothing ran");
    }
}
