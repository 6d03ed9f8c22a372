//! What connections and queues take of memory.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pagewire_benches::memory::measure;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const EXAMPLES: &str = "\
Examples:
  cargo run -p pagewire-benches --bin memory
  cargo run -p pagewire-benches --bin memory -- --json memory.json

Exit status: 0 if all went well, 2 if something could not be run.";

/// Counts the bytes that a connection, a segment in flight, a pair of queues and a port take.
///
/// Connections and segments: what is allocated more for more of them. Queues: what a driver asks its
/// platform for with rings of 1,024 descriptors, receive buffers among it, and a port that has as many
/// buffers.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// Writes all figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match act(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memory: {error}");
            ExitCode::from(2)
        }
    }
}

fn act(arguments: &Arguments) -> Result<(), String> {
    let memory = measure(|| HEAP.current_usage())?;
    print!("{}", memory.table());
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&memory).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
