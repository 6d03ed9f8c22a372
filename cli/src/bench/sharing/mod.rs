//! `pagewire bench sharing`: each way to share a page against copying it, on this machine.

mod case;
mod claim;
mod crossover;
mod lender;
mod machine;
mod markdown;
mod measure;
mod plot;
mod ring;
mod source;
mod table;
mod text;
mod way;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use crate::error::{Failure, print, shown};
use case::CASES;
use crossover::{BreakEven, Crossover, Threshold, break_even, crossovers, thresholds};
use measure::{Effort, Measured, measure};

/// Why something could not be measured.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// Options of `pagewire bench sharing`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  pagewire bench sharing                               tables, a plot, thresholds; some minutes
  pagewire bench sharing --quick                       the same in seconds, and rough
  pagewire bench sharing --json                        for programs
  pagewire bench sharing --markdown docs/sharing.md    the page of the documentation, with its plot

What is measured is CPU time of this process, kernel and all threads included, for sends of 256 bytes
to 16 MiB: copied, lent as owned memory, write-protected, as a live file; with the bytes in the caches
and not; written between sends and not; summed by the CPU and not. No device is needed, and none is
used: descriptors and doorbells cost the same whichever way. Sizes from which a way to share costs less
than copying, hot and cold, become thresholds.

Compare figures of one run with each other: on another machine, or a busy one, they are others. Needs
the right to open a userfaultfd for user mode, which everyone has; without it write-protection is left
out, and that is said.

Exit status: 0 measured; 2 wrong usage; 1 something went wrong; 130 interrupted.")]
pub(crate) struct Args {
    /// A few seconds: fewer sizes and samples, for a rough idea
    #[arg(long)]
    quick: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Write a page in Markdown to FILE, and its plot beside it (FILE with the ending svg)
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// All that a report tells.
struct Report {
    measured: Measured,
    crossovers: Vec<Crossover>,
    thresholds: Vec<Threshold>,
    break_even: Vec<BreakEven>,
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = watch_for_end()?;
    if let Some(file) = &args.markdown {
        check_place(file)?;
    }
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let measured = measure(effort, &stop)?;
    let crossovers = crossovers(&measured);
    let report = Report {
        thresholds: thresholds(&crossovers),
        break_even: break_even(&measured),
        crossovers,
        measured,
    };
    if let Some(file) = &args.markdown {
        let plot = file.with_extension("svg");
        write(&plot, &plot::svg(&report)?)?;
        write(file, &markdown::text(&report, &plot, args.quick))?;
    }
    print(&if args.json {
        json(&report)?
    } else {
        text::text(&report)
    })
}

fn watch_for_end() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::failed(format!("cannot watch for Ctrl-C: {error}")))?;
    }
    Ok(stop)
}

/// That there is a folder for it is known before minutes have passed.
fn check_place(file: &Path) -> Result<(), Failure> {
    let parent = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    let refused = |why| Failure::usage(format!("--markdown {}: {why}", shown(file)));
    if file.is_dir() || file.extension().is_some_and(|ending| ending == "svg") {
        return Err(refused("it must be a file, and not the one of the plot"));
    }
    if !folder.is_dir() {
        return Err(refused("there is no such folder"));
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text)
        .map_err(|error| Failure::failed(format!("--markdown {}: {error}", shown(file))))
}

fn json(report: &Report) -> Result<String, Failure> {
    let cases: Vec<_> = CASES
        .iter()
        .map(|case| {
            json!({
                "name": case.name,
                "about": case.about,
                "group": case.group(),
                "against": case.against,
            })
        })
        .collect();
    let all = json!({
        "pagewire": env!("CARGO_PKG_VERSION"),
        "cases": cases,
        "measured": report.measured,
        "crossovers": report.crossovers,
        "thresholds": report.thresholds,
        "break_even": report.break_even,
        "claim": claim::findings(report),
    });
    serde_json::to_string_pretty(&all)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_presses_ctrl_c_gets_130() {
        let stop = AtomicBool::new(true);
        assert_eq!(measure(Effort::QUICK, &stop).unwrap_err().status(), 130);
    }

    #[test]
    fn a_page_needs_a_place() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_place(&folder.path().join("page.md")).is_ok());
        for wrong in ["no/page.md", "page.svg", "."] {
            let failure = check_place(&folder.path().join(wrong)).unwrap_err();
            assert_eq!(failure.status(), 2, "{wrong}");
        }
        assert!(check_place(Path::new("page.md")).is_ok());
    }
}
