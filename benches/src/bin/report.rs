//! Makes docs/performance.md.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pagewire_benches::report::{read, write};

const EXAMPLES: &str = "\
Examples:
  benches/run
  cargo run -p pagewire-benches --bin report -- target/benches docs/performance.md

Exit status: 0 if all went well, 2 if something could not be read or written.";

/// Makes a page with tables and a picture of what the other commands have written.
///
/// The folder has what they write with --json: frames.json, frames-time.json, sender.json,
/// sender-time.json, copy-time.json, memory.json, compare.json, veth.json, guest.json. What is missing
/// is left out, with a line that says so.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// The folder with these files
    folder: PathBuf,
    /// The page; the picture lies beside it
    page: PathBuf,
}

fn main() -> ExitCode {
    let Arguments { folder, page } = Arguments::parse();
    match act(&folder, &page) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("report: {error}");
            ExitCode::from(2)
        }
    }
}

fn act(folder: &std::path::Path, page: &std::path::Path) -> Result<(), String> {
    let (figures, missing) = read(folder)?;
    for name in missing {
        println!(
            "left out: there is no {}",
            folder.join(name).with_extension("json").display()
        );
    }
    write(&figures, page)
}
