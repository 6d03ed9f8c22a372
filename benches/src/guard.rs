//! Counts of instructions against those in a file of the repository.
//!
//! A count depends on the compiler, so the file is that of the version in `rust-version`. More than
//! [`TOLERANCE`] off the file, in either direction, is an error: what has become worse is to be
//! mended, and what has become better is to be kept, by writing the file anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// By how much a count may differ from the file: what the compiler does with code that nobody has
/// touched stays below.
pub const TOLERANCE: f64 = 0.03;

/// Instructions per frame (or segment, or call), by case.
pub type Counts = BTreeMap<String, f64>;

/// What a comparison has found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Verdict {
    /// Cases that have become worse, that are in one of the two only, or that have become better.
    pub findings: Vec<String>,
    /// Of these, how many are not for the better.
    pub worse: usize,
}

/// Whether the compiler is of the version that the file is for; otherwise which one it is.
///
/// # Errors
/// The version of the compiler, or why it is not known.
pub fn check_compiler() -> Result<(), String> {
    let version = std::process::Command::new("rustc")
        .arg("--version")
        .output();
    let version = version.map_err(|error| format!("rustc: {error}"))?.stdout;
    let version = String::from_utf8_lossy(&version);
    let wanted = format!("rustc {}.", env!("CARGO_PKG_RUST_VERSION"));
    if version.starts_with(&wanted) {
        Ok(())
    } else {
        Err(version.trim_end().to_owned())
    }
}

/// Reads a file of counts.
///
/// # Errors
/// What is wrong with it, for the user.
pub fn read(path: &Path) -> Result<Counts, String> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a file of counts, one case a line.
///
/// # Errors
/// What went wrong, for the user.
pub fn write(path: &Path, counts: &Counts) -> Result<(), String> {
    let rounded: Counts = counts
        .iter()
        .map(|(case, count)| (case.clone(), (count * 10.0).round() / 10.0))
        .collect();
    let mut text = serde_json::to_string_pretty(&rounded).map_err(|error| error.to_string())?;
    let _ = writeln!(text);
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Compares what was counted with what a file says.
#[must_use]
pub fn compare(file: &Counts, counted: &Counts) -> Verdict {
    let mut verdict = Verdict::default();
    for (case, count) in counted {
        let Some(before) = file.get(case) else {
            verdict.worse += 1;
            verdict
                .findings
                .push(format!("{case}: {count:.1}, and the file does not have it"));
            continue;
        };
        let ratio = count / before;
        let percent = 100.0 * (ratio - 1.0);
        if ratio > 1.0 + TOLERANCE {
            verdict.worse += 1;
            let text =
                format!("{case}: {count:.1} instead of {before:.1}, {percent:+.1} % (WORSE)");
            verdict.findings.push(text);
        } else if ratio < 1.0 - TOLERANCE {
            let text =
                format!("{case}: {count:.1} instead of {before:.1}, {percent:+.1} % (better)");
            verdict.findings.push(text);
        }
    }
    for case in file.keys().filter(|case| !counted.contains_key(*case)) {
        verdict.worse += 1;
        verdict
            .findings
            .push(format!("{case}: in the file, but not counted"));
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(pairs: &[(&str, f64)]) -> Counts {
        pairs
            .iter()
            .map(|(case, count)| ((*case).to_owned(), *count))
            .collect()
    }

    #[test]
    fn three_percent_pass_and_more_does_not_in_either_direction() {
        let file = counts(&[("a", 100.0), ("b", 100.0), ("c", 100.0), ("d", 100.0)]);
        let counted = counts(&[("a", 102.9), ("b", 97.1), ("c", 103.1), ("d", 96.9)]);
        let verdict = compare(&file, &counted);
        assert_eq!((verdict.findings.len(), verdict.worse), (2, 1));
        assert!(verdict.findings[0].starts_with("c: 103.1 instead of 100.0, +3.1 %"));
    }

    #[test]
    fn a_case_that_only_one_of_them_has_is_found() {
        let verdict = compare(&counts(&[("old", 1.0)]), &counts(&[("new", 1.0)]));
        assert_eq!((verdict.findings.len(), verdict.worse), (2, 2));
    }

    #[test]
    fn a_file_reads_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.json");
        assert!(read(&path).unwrap_err().contains("counts.json"));
        write(&path, &counts(&[("a", 1.26), ("b", 2.0)])).unwrap();
        assert_eq!(read(&path).unwrap(), counts(&[("a", 1.3), ("b", 2.0)]));
    }
}
