//! What a segment costs, from `send` to its completion.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pagewire_benches::sender::case::{Case, Payload, guarded, selected};
use pagewire_benches::sender::run::{Cost, Mode, counted, run};
use pagewire_benches::sender::table;
use pagewire_benches::{callgrind, guard};

const EXAMPLES: &str = "\
Examples:
  cargo run -p pagewire-benches --bin sender
  cargo run -p pagewire-benches --bin sender -- --only ixgbe/owned/1500 --json sender.json
  cargo run -p pagewire-benches --bin sender -- --only /tso/ time
  cargo run -p pagewire-benches --bin sender -- guard
  cargo run -p pagewire-benches --bin sender -- guard --update

A case is DEVICE/BYTES/SIZE/SUMS/NUMBERS, such as ixgbe/owned/1500/device/1c/64f/2a/32768: owned bytes
are lent, copied ones are copied by send; the size is the MTU, or tso; the device or the CPU computes
checksums; connections, segments in flight of each, segments that an ACK acknowledges, bytes of a
slice. Slices are in the cache, but for cases that end in /cold, which are for `time` alone.

Exit status: 0 if all went well, 1 if the guard has found a difference, 2 if something could not be run.";

/// Counts the instructions of a segment in the whole sender (by callgrind, compiled for x86-64-v3),
/// or takes the time.
///
/// Counted are send, poll, the driver, reclaiming, the input of ACKs and the taking of completions,
/// per segment; not the device, nor the driver's receive path.
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
    /// Counts a fixed set of cases and compares them with benches/sender.json: more than 3 % off in
    /// either direction is an error
    Guard {
        /// Writes the file anew
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
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sender: {error}");
            ExitCode::from(2)
        }
    }
}

/// Cases that can be counted: a cache makes no difference to instructions.
fn countable(mut cases: Vec<Case>) -> Vec<Case> {
    cases.retain(|case| case.payload == Payload::Hot);
    cases
}

/// The file of the guard, in the package.
const FILE: &str = "sender.json";

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
    let (mode, costs) = match arguments.action {
        Some(Action::Measure { .. }) => {
            return run(&countable(cases), Mode::Counted).map(|_| true);
        }
        Some(Action::Guard { update }) => return guard(&cases, only, update),
        None | Some(Action::Count) => {
            let costs = count(&countable(cases), only, false)?;
            (Mode::Counted, costs)
        }
        Some(Action::Clock) => (Mode::Timed, run(&cases, Mode::Timed)?),
        Some(Action::Time) => return time(arguments).map(|()| true),
    };
    let unit = match mode {
        Mode::Counted => "instructions",
        Mode::Timed => "nanoseconds",
    };
    println!("{unit} per segment\n\n{}", table::text(&costs, mode));
    if let Some(path) = &arguments.json {
        let text = table::json(&costs, mode).map_err(|error| error.to_string())?;
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
    println!(
        "instructions per segment\n\n{}",
        table::text(&costs, Mode::Counted)
    );
    let count = |cost: &Cost| (cost.case.to_string(), cost.per_segment());
    let counted: guard::Counts = costs.iter().map(count).collect();
    if update {
        guard::write(&path, &counted)?;
        println!("written: benches/{FILE}");
        return Ok(true);
    }
    let mut file = guard::read(&path)?;
    file.retain(|case, _| only.is_empty() || counted.contains_key(case));
    let verdict = guard::compare(&file, &counted);
    for finding in &verdict.findings {
        println!("{finding}");
    }
    if verdict.findings.is_empty() {
        let (cases, percent) = (counted.len(), 100.0 * guard::TOLERANCE);
        println!("{cases} cases are within {percent} % of benches/{FILE}");
        return Ok(true);
    }
    let what = match verdict.worse {
        0 => "Segments have become cheaper. Keep that",
        _ => "Segments have become dearer. Mend that, or, if it is meant",
    };
    println!(
        "\n{what}: write the file anew, and commit it with the figures before and after:\n  \
         cargo run -p pagewire-benches --bin sender -- guard --update"
    );
    Ok(false)
}

/// Has the cases counted in another process.
fn count(cases: &[Case], only: &[String], guard: bool) -> Result<Vec<Cost>, String> {
    let text = |error: callgrind::CallgrindError| error.to_string();
    callgrind::check().map_err(text)?;
    eprintln!("building for {}", callgrind::TARGET_CPU);
    let program = callgrind::build("sender").map_err(text)?;
    eprintln!("counting {} cases", cases.len());
    let mut arguments = vec!["measure".to_owned()];
    if guard {
        arguments.push("--guard".to_owned());
    }
    arguments.extend(only.iter().map(|part| format!("--only={part}")));
    let counts = callgrind::count(&program, &arguments).map_err(text)?;
    if counts.len() != cases.len() {
        let (some, all) = (counts.len(), cases.len());
        return Err(format!("{some} of {all} cases were counted"));
    }
    let cost = |(case, parts): (&Case, callgrind::Parts)| {
        let segments = counted(case) as f64;
        let share = |(part, count)| (part, count as f64 / segments);
        Cost {
            case: *case,
            parts: parts.into_iter().map(share).collect(),
        }
    };
    Ok(cases.iter().zip(counts).map(cost).collect())
}

/// The same program, compiled for speed and for the same processor.
fn time(arguments: &Arguments) -> Result<(), String> {
    let program = callgrind::build("sender").map_err(|error| error.to_string())?;
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
