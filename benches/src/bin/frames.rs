//! What a frame costs in each driver.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pagewire_benches::frames::case::{Case, guarded, selected};
use pagewire_benches::frames::run::{COUNTED, Costs, Mode, run};
use pagewire_benches::frames::table;
use pagewire_benches::{callgrind, guard};

const EXAMPLES: &str = "\
Examples:
  cargo run -p pagewire-benches --bin frames
  cargo run -p pagewire-benches --bin frames -- --only ixgbe/port --json frames.json
  cargo run -p pagewire-benches --bin frames -- --only checksum/32 time
  cargo run -p pagewire-benches --bin frames -- guard
  cargo run -p pagewire-benches --bin frames -- guard --update

A case is DEVICE/LAYER/SHAPE/ASKED/BURST, such as ixgbe/port/h+1/checksum/32, or
DEVICE/receive/BURST. The shape is 1 (one segment) or h+N (a header of 66 bytes, and N fragments
that share 1448). The layer is raw (the driver's queue) or port (buffers, loans, all checks).

Exit status: 0 if all went well, 1 if the guard has found a difference, 2 if something could not be
run.";

/// Counts the instructions of a frame in each driver (by callgrind, compiled for x86-64-v3), or
/// takes the time.
///
/// Each driver is opened on its model, which is then replaced by plain memory. Counted are
/// enqueueing, the doorbell and reclaiming, per frame; not the device, and not the building of
/// headers.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// Only cases whose name contains this; may be given several times
    #[arg(long, global = true)]
    only: Vec<String>,
    /// Writes all costs to this file, by part
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Counts instructions (this is done without a command as well)
    Count,
    /// Takes the time in nanoseconds: on a machine with other work, only ratios within one run
    /// mean something
    Time,
    /// Counts a fixed set of cases and compares them with benches/instructions.json: more than 3 %
    /// off, for worse or for better, is a failure. Is skipped with another compiler than the file
    /// is for, which is a failure with CI in the environment
    Guard {
        /// Writes the file instead
        #[arg(long)]
        update: bool,
    },
    /// What callgrind runs
    #[command(hide = true)]
    Measure {
        /// The cases of the guard
        #[arg(long)]
        guard: bool,
    },
    /// What `time` runs
    #[command(hide = true)]
    Clock,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("frames: {error}");
            ExitCode::from(2)
        }
    }
}

/// The file of the guard, in the package.
const FILE: &str = "instructions.json";

/// Whether all is well.
fn act(arguments: &Arguments) -> Result<bool, String> {
    let only = &arguments.only;
    let cases = match arguments.action {
        Some(Action::Guard { .. } | Action::Measure { guard: true }) => guarded(only),
        _ => selected(only),
    };
    if cases.is_empty() {
        return Err("no case has such a name (see --help)".into());
    }
    let (unit, costs) = match arguments.action {
        Some(Action::Measure { .. }) => return run(&cases, Mode::Counted).map(|_| true),
        Some(Action::Guard { update }) => return guard(&cases, only, update),
        Some(Action::Time) => return time(arguments).map(|()| true),
        None | Some(Action::Count) => ("instructions", count(&cases, only, false)?),
        Some(Action::Clock) => ("nanoseconds", run(&cases, Mode::Timed)?),
    };
    println!("{unit} per frame\n\n{}", table::text(&costs));
    if let Some(path) = &arguments.json {
        let text = table::json(unit, &costs).map_err(|error| error.to_string())?;
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(true)
}

/// Counts the cases of the guard and compares them with the file, or writes that.
fn guard(cases: &[Case], only: &[String], update: bool) -> Result<bool, String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if update && !only.is_empty() {
        return Err("the file holds all cases: --update goes without --only".into());
    }
    if let Err(version) = guard::check_compiler() {
        let wanted = env!("CARGO_PKG_RUST_VERSION");
        println!("skipped: benches/{FILE} is for rustc {wanted}, and this is {version}");
        let in_ci = std::env::var_os("CI").is_some();
        if in_ci {
            println!("in CI it must be counted: have rustc {wanted} there, or write the file anew");
        }
        return Ok(!in_ci);
    }
    let costs = count(cases, only, true)?;
    println!("instructions per frame\n\n{}", table::text(&costs));
    let counted: guard::Counts = costs
        .iter()
        .map(|(case, parts)| (case.to_string(), table::total(parts)))
        .collect();
    if update {
        guard::write(&path, &counted)?;
        println!("written: benches/{FILE}");
        return Ok(true);
    }
    let mut file = guard::read(&path)?;
    file.retain(|case, _| only.is_empty() || counted.contains_key(case));
    let verdict = guard::compare(&file, &counted);
    if verdict.findings.is_empty() {
        let percent = 100.0 * guard::TOLERANCE;
        println!(
            "{} cases are within {percent} % of benches/{FILE}",
            counted.len()
        );
        return Ok(true);
    }
    for finding in &verdict.findings {
        println!("{finding}");
    }
    let what = match verdict.worse {
        0 => "Frames have become cheaper. Keep that",
        _ => "Frames have become dearer. Mend that, or, if it is meant",
    };
    println!(
        "\n{what}: write the file anew, and commit it with the figures before and after:\n  \
         cargo run -p pagewire-benches --bin frames -- guard --update"
    );
    Ok(false)
}

/// Has the cases counted in another process.
fn count(cases: &[Case], only: &[String], guard: bool) -> Result<Costs, String> {
    let text = |error: callgrind::CallgrindError| error.to_string();
    callgrind::check().map_err(text)?;
    eprintln!("building for {}", callgrind::TARGET_CPU);
    let program = callgrind::build("frames").map_err(text)?;
    eprintln!("counting {} cases", cases.len());
    let mut arguments = vec!["measure".to_owned()];
    if guard {
        arguments.push("--guard".to_owned());
    }
    arguments.extend(only.iter().map(|part| format!("--only={part}")));
    let counts = callgrind::count(&program, &arguments).map_err(text)?;
    if counts.len() != cases.len() {
        return Err(format!(
            "{} of {} cases were counted",
            counts.len(),
            cases.len()
        ));
    }
    let per_frame = |parts: callgrind::Parts| {
        let cost = |(part, count)| (part, count as f64 / COUNTED as f64);
        parts.into_iter().map(cost).collect()
    };
    let counts = counts.into_iter().map(per_frame);
    Ok(cases.iter().copied().zip(counts).collect())
}

/// The same program, compiled for speed and for the same processor.
fn time(arguments: &Arguments) -> Result<(), String> {
    let program = callgrind::build("frames").map_err(|error| error.to_string())?;
    let mut command = std::process::Command::new(program);
    command.arg("clock");
    command.args(arguments.only.iter().map(|part| format!("--only={part}")));
    if let Some(path) = &arguments.json {
        command.arg("--json").arg(path);
    }
    let status = command.status().map_err(|error| error.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the measured program has failed ({status})"))
    }
}
