//! Exact counts of instructions, of many cases in one process, by valgrind's callgrind.
//!
//! The measured process calls [`case_begins`] and [`case_over`] around each case. Inside of it only
//! functions whose name begins with `measured_` are counted, each with all that it calls: they are
//! `#[inline(never)]`, and none calls another. Their names say which part of the case it is.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the counted functions' names begin with.
const MEASURED: &str = "measured_";

/// The processor that everything is compiled for.
pub const TARGET_CPU: &str = "x86-64-v3";

/// In the measured process: forgets what was counted so far.
#[inline(never)]
pub fn case_begins() {
    black_box(0);
}

/// In the measured process: a case is over, and what was counted is kept.
#[inline(never)]
pub fn case_over() {
    black_box(1);
}

/// Instructions of a case, by part: of `measured_enqueue` the part is `enqueue`.
pub type Parts = BTreeMap<String, u64>;

/// Why nothing was counted.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallgrindError {
    /// valgrind is not there.
    Missing,
    /// A program could not be started, or a file not be read.
    Io(String, std::io::Error),
    /// A program has failed.
    Failed(String),
    /// What valgrind wrote is not understood.
    Odd(String),
}

impl fmt::Display for CallgrindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(
                f,
                "valgrind is missing: install the package valgrind (Debian: apt-get install valgrind)"
            ),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Failed(what) | Self::Odd(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CallgrindError {}

/// Whether valgrind can be started.
///
/// # Errors
/// [`CallgrindError::Missing`], or why it could not.
pub fn check() -> Result<(), CallgrindError> {
    let mut command = Command::new("valgrind");
    command.arg("--version").stdout(Stdio::null());
    match command.status() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(CallgrindError::Missing),
        Err(error) => Err(CallgrindError::Io("valgrind".into(), error)),
    }
}

/// Builds binary `name` of this package for [`TARGET_CPU`], in a folder of its own, and returns
/// where it is. In one codegen unit: with several, what is inlined where depends on code that has
/// nothing to do with it.
///
/// # Errors
/// [`CallgrindError`].
pub fn build(name: &str) -> Result<PathBuf, CallgrindError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let target = target.join(TARGET_CPU);
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--package", env!("CARGO_PKG_NAME"), "--bin", name])
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("RUSTFLAGS", format!("-C target-cpu={TARGET_CPU}"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .current_dir(&root)
        .status()
        .map_err(|error| CallgrindError::Io("cargo".into(), error))?;
    if !status.success() {
        let what = format!("cargo could not build {name} ({status})");
        return Err(CallgrindError::Failed(what));
    }
    Ok(target.join("release").join(name))
}

/// Runs `program` with `arguments` in callgrind, and returns what was counted between each
/// [`case_begins`] and [`case_over`], in order.
///
/// # Errors
/// [`CallgrindError`].
pub fn count(program: &Path, arguments: &[String]) -> Result<Vec<Parts>, CallgrindError> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |error| CallgrindError::Io(what, error)
    };
    let folder = tempfile::tempdir().map_err(io("a temporary folder"))?;
    let out = folder.path().join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--dump-instr=no"])
        .arg(format!("--toggle-collect=*{MEASURED}*"))
        .args(["--zero-before=*case_begins*", "--dump-after=*case_over*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(arguments)
        .output()
        .map_err(io("valgrind"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let what = format!("valgrind: {}\n{}", output.status, said.trim_end());
        return Err(CallgrindError::Failed(what));
    }
    let mut cases = Vec::new();
    loop {
        let dump = folder.path().join(format!("out.{}", cases.len() + 1));
        match std::fs::read_to_string(&dump) {
            Ok(text) if text.contains("Program termination") => break,
            Ok(text) => cases.push(parts(&text)?),
            Err(error) if error.kind() == ErrorKind::NotFound => break,
            Err(error) => return Err(CallgrindError::Io("a dump of valgrind".into(), error)),
        }
    }
    Ok(cases)
}

/// What a dump says of the measured functions: their own instructions and those of what they call
/// (callgrind's format: a line with a position and a cost is the function's own, one after `calls=`
/// is that of the calls).
fn parts(text: &str) -> Result<Parts, CallgrindError> {
    let mut names = BTreeMap::new();
    let mut part: Option<String> = None;
    let mut parts = Parts::new();
    let mut total = 0;
    for line in text.lines() {
        if let Some(function) = line.strip_prefix("fn=") {
            part = part_of(full_name(function, &mut names));
            continue;
        }
        if let Some(function) = line.strip_prefix("cfn=") {
            full_name(function, &mut names);
        } else if let Some(cost) = line.strip_prefix("totals:") {
            total = cost.trim().parse().unwrap_or(0);
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split_whitespace().nth(1);
            if let (Some(part), Some(cost)) = (&part, cost) {
                let cost: u64 = cost
                    .parse()
                    .map_err(|_| CallgrindError::Odd(format!("callgrind wrote {line:?}")))?;
                *parts.entry(part.clone()).or_default() += cost;
            }
        }
    }
    let sum: u64 = parts.values().sum();
    // Callgrind loses the caller where one function of the C library jumps into another (realloc): some
    // hundred instructions of millions.
    if sum.abs_diff(total) > total / 10_000 || sum == 0 {
        let what = format!(
            "callgrind counted {total} instructions in all, and {sum} in functions called {MEASURED}*"
        );
        return Err(CallgrindError::Odd(what));
    }
    Ok(parts)
}

/// The name of a function that is written as `(id) name` for the first time, then as `(id)`.
fn full_name<'a, 'n>(written: &'a str, names: &'n mut BTreeMap<&'a str, &'a str>) -> &'n str {
    let (id, name) = written.split_once(' ').unwrap_or((written, ""));
    let known = names.entry(id).or_insert(name);
    if !name.is_empty() {
        *known = name;
    }
    known
}

/// The part that a function is, by its name: what follows [`MEASURED`].
fn part_of(name: &str) -> Option<String> {
    let (_, rest) = name.split_once(MEASURED)?;
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    Some(rest[..end.unwrap_or(rest.len())].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_a_measured_function_are_its_own_and_those_of_its_calls() {
        let text = "version: 1\nevents: Ir\nfl=(1) a.rs\nfn=(2) x::measured_post::<Y>\n10 5\n+1 7\n\
            cfn=(3) helper\ncalls=4 20\n* 100\n\nfn=(3)\n20 100\n\nfn=(4) x::measured_reclaim\n9 1\n\
            fn=(2)\n12 3\ntotals: 116\n";
        let parts = parts(text).unwrap();
        assert_eq!(parts.get("post"), Some(&115));
        assert_eq!(parts.get("reclaim"), Some(&1));
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn what_was_counted_elsewhere_is_an_error() {
        assert!(parts("fn=(1) measured_a\n1 5\ntotals: 6\n").is_err());
        assert!(parts("totals: 0\n").is_err());
    }
}
