//! What copying and summing cost.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use pagewire_benches::callgrind;
use pagewire_benches::copy::case::{Case, Source, Work, all};
use pagewire_benches::copy::run::{self, COUNTED, Memory};

const EXAMPLES: &str = "\
Examples:
  cargo run -p pagewire-benches --bin copy
  cargo run -p pagewire-benches --bin copy -- --json copy.json time

Exit status: 0 if all went well, 2 if something could not be run.";

/// Counts the instructions of copying and summing (by callgrind), or takes the time, against the
/// platform's memcpy.
///
/// Programs are compiled for any x86-64 here, so that vectors are chosen at run time.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// Writes all costs to this file
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Counts instructions (this is done without a command as well)
    Count,
    /// Takes the time in nanoseconds, with bytes in the cache and in memory: on a machine with other
    /// work, only ratios within one run mean something
    Time,
    /// What callgrind runs
    #[command(hide = true)]
    Measure,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match act(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("copy: {error}");
            ExitCode::from(2)
        }
    }
}

fn act(arguments: &Arguments) -> Result<(), String> {
    let (unit, costs) = match arguments.action {
        Some(Action::Measure) => {
            let mut memory = Memory::new(Source::Hot);
            for case in all(&[Source::Hot]) {
                run::count(&case, &mut memory);
            }
            return Ok(());
        }
        None | Some(Action::Count) => ("instructions", count()?),
        Some(Action::Time) => {
            let mut costs = Vec::new();
            for source in [Source::Hot, Source::Cold] {
                let mut memory = Memory::new(source);
                let cases = all(&[source]);
                costs.extend(
                    cases
                        .iter()
                        .map(|case| (*case, run::time(case, &mut memory))),
                );
            }
            ("nanoseconds", costs)
        }
    };
    print!("{unit}\n\n{:<16}", "bytes");
    for work in Work::ALL {
        print!("{:>16}", work.name());
    }
    println!();
    for line in costs.chunks(Work::ALL.len()) {
        if let Some((case, _)) = line.first() {
            let name = case.to_string();
            print!("{:<16}", name.trim_end_matches("/memcpy"));
        }
        for (_, cost) in line {
            print!("{cost:>16.1}");
        }
        println!();
    }
    if let Some(path) = &arguments.json {
        let row = |(case, cost): &(Case, f64)| serde_json::json!({ "case": case.to_string(), "cost": cost });
        let rows: Vec<_> = costs.iter().map(row).collect();
        let all = serde_json::json!({ "unit": unit, "cases": rows });
        let text = serde_json::to_string_pretty(&all).map_err(|error| error.to_string())?;
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Has all cases counted in another process.
fn count() -> Result<Vec<(Case, f64)>, String> {
    let text = |error: callgrind::CallgrindError| error.to_string();
    callgrind::check().map_err(text)?;
    let program = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let cases = all(&[Source::Hot]);
    eprintln!("counting {} cases", cases.len());
    let counts = callgrind::count(&program, &["measure".to_owned()]).map_err(text)?;
    if counts.len() != cases.len() {
        let (some, all) = (counts.len(), cases.len());
        return Err(format!("{some} of {all} cases were counted"));
    }
    let cost = |parts: callgrind::Parts| parts.values().sum::<u64>() as f64 / COUNTED as f64;
    Ok(cases
        .into_iter()
        .zip(counts.into_iter().map(cost))
        .collect())
}
