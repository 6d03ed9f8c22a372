//! What a frame costs in each driver.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pagewire_benches::callgrind;
use pagewire_benches::frames::case::{Case, selected};
use pagewire_benches::frames::run::{COUNTED, Costs, Mode, run};
use pagewire_benches::frames::table;

const EXAMPLES: &str = "\
Examples:
  cargo run -p pagewire-benches --bin frames
  cargo run -p pagewire-benches --bin frames -- --only ixgbe/port --json frames.json
  cargo run -p pagewire-benches --bin frames -- --only checksum/32 time

A case is DEVICE/LAYER/SHAPE/ASKED/BURST, such as ixgbe/port/h+1/checksum/32, or
DEVICE/receive/BURST. The shape is 1 (one segment) or h+N (a header of 66 bytes, and N fragments
that share 1448). The layer is raw (the driver's queue) or port (buffers, loans, all checks).

Exit status: 0 if all went well, 2 if something could not be run.";

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
    /// What callgrind runs
    #[command(hide = true)]
    Measure,
    /// What `time` runs
    #[command(hide = true)]
    Clock,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frames: {error}");
            ExitCode::from(2)
        }
    }
}

fn act(arguments: &Arguments) -> Result<(), String> {
    let cases = selected(&arguments.only);
    if cases.is_empty() {
        return Err("no case has such a name (see --help)".into());
    }
    let (unit, costs) = match arguments.action {
        Some(Action::Measure) => return run(&cases, Mode::Counted).map(|_| ()),
        None | Some(Action::Count) => ("instructions", count(&cases, &arguments.only)?),
        Some(Action::Clock) => ("nanoseconds", run(&cases, Mode::Timed)?),
        Some(Action::Time) => return time(arguments),
    };
    println!("{unit} per frame\n\n{}", table::text(&costs));
    if let Some(path) = &arguments.json {
        let text = table::json(unit, &costs).map_err(|error| error.to_string())?;
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Has the cases counted in another process.
fn count(cases: &[Case], only: &[String]) -> Result<Costs, String> {
    let text = |error: callgrind::CallgrindError| error.to_string();
    callgrind::check().map_err(text)?;
    eprintln!("building for {}", callgrind::TARGET_CPU);
    let program = callgrind::build("frames").map_err(text)?;
    eprintln!("counting {} cases", cases.len());
    let mut arguments = vec!["measure".to_owned()];
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
