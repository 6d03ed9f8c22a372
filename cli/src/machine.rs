//! What `list`, `bind` and `unbind` share: the machine that they work on, how they end, and the
//! JSON of reasons and notes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pagewire_vfio::bind::{Holder, Machine, Note, Played, Problem, Refusal, System};
use serde::Serialize;

use crate::error::{Failure, print, shown};

/// Options of all three.
#[derive(clap::Args, Debug)]
pub(crate) struct Common {
    /// Print JSON instead of text, also of what is refused
    #[arg(long)]
    json: bool,
    /// Work on the made-up machine in DIR (its sys, proc, dev, run and lib/modules) and leave this
    /// one alone: what the kernel would do there is played, and no module is loaded
    #[arg(long, value_name = "DIR")]
    sysroot: Option<PathBuf>,
}

impl Common {
    /// The machine.
    pub(crate) fn machine(&self) -> Result<Box<dyn System>, Failure> {
        let Some(root) = &self.sysroot else {
            return Ok(Box::new(Machine::new()));
        };
        let played = Played::new(root).map_err(|error| {
            let root = shown(root);
            Failure::usage(format!(
                "{root} is no tree of a machine, which has sys/bus/pci/devices: {error}"
            ))
        })?;
        Ok(Box::new(played))
    }

    /// Prints what was found or done.
    pub(crate) fn report(
        &self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return print(&text());
        }
        let json = serde_json::to_string_pretty(json)
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        print(&json)
    }

    /// Reports a problem as JSON where that was asked for, and makes a failure of it.
    pub(crate) fn failed(&self, problem: &Problem) -> Failure {
        if self.json
            && let Err(failure) = self.report(&Failed::of(problem), String::new)
        {
            return failure;
        }
        let text = problem.to_string();
        if problem.was_interrupted() {
            Failure::interrupted_in(text)
        } else if problem.was_begun() {
            Failure::failed(text)
        } else {
            Failure::usage(text)
        }
    }
}

/// A question whether Ctrl-C was pressed, or the process asked to end: the device is then put back
/// before it does.
pub(crate) fn watch_for_ctrl_c() -> Result<impl Fn() -> bool, Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::failed(format!("cannot watch for Ctrl-C: {error}")))?;
    }
    Ok(move || stop.load(Ordering::Relaxed))
}

/// A device file, and who may open it.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceFile {
    pub(crate) path: String,
    /// The number of the user that owns it.
    pub(crate) owner: Option<u32>,
}

impl DeviceFile {
    pub(crate) fn all(system: &dyn System, paths: &[String]) -> Vec<Self> {
        let one = |path: &String| Self {
            path: path.clone(),
            owner: system.owner(path).ok(),
        };
        paths.iter().map(one).collect()
    }

    pub(crate) fn text(files: &[Self]) -> String {
        let one = |file: &Self| match file.owner {
            Some(0) => format!("{} (root)", file.path),
            Some(owner) => format!("{} (user {owner})", file.path),
            None => file.path.clone(),
        };
        files.iter().map(one).collect::<Vec<_>>().join(", ")
    }
}

/// A reason not to bind.
#[derive(Debug, Serialize)]
pub(crate) struct Reason {
    code: &'static str,
    reason: String,
    mend: String,
    can_be_forced: bool,
}

impl Reason {
    pub(crate) fn of(refusal: &Refusal) -> Self {
        Self {
            code: refusal.code(),
            reason: refusal.to_string(),
            mend: refusal.mend(),
            can_be_forced: refusal.can_be_forced(),
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn mend(&self) -> &str {
        &self.mend
    }

    pub(crate) fn text(&self) -> String {
        if self.can_be_forced {
            format!("{} (--force overrides)", self.reason)
        } else {
            self.reason.clone()
        }
    }
}

/// Something to know.
#[derive(Debug, Serialize)]
pub(crate) struct Remark {
    code: &'static str,
    pub(crate) text: String,
}

impl Remark {
    pub(crate) fn of(note: &Note) -> Self {
        Self {
            code: note.code(),
            text: note.to_string(),
        }
    }
}

/// A process that has a device open.
#[derive(Debug, Serialize)]
struct Process {
    process: u32,
    name: String,
    file: String,
}

/// What was not done.
#[derive(Debug, Serialize)]
struct Failed {
    error: String,
    address: Option<String>,
    refusals: Vec<Reason>,
    in_use_by: Vec<Process>,
}

impl Failed {
    fn of(problem: &Problem) -> Self {
        let mut failed = Self {
            error: problem.to_string(),
            address: None,
            refusals: Vec::new(),
            in_use_by: Vec::new(),
        };
        match problem {
            Problem::Refused {
                address, refusals, ..
            } => {
                failed.address = Some(address.to_string());
                failed.refusals = refusals.iter().map(Reason::of).collect();
            }
            Problem::InUse { address, holders } => {
                failed.address = Some(address.to_string());
                let process = |holder: &Holder| Process {
                    process: holder.process,
                    name: holder.name.clone(),
                    file: holder.file.clone(),
                };
                failed.in_use_by = holders.iter().map(process).collect();
            }
            Problem::Failed { address, .. } => failed.address = Some(address.to_string()),
            _ => {}
        }
        failed
    }
}

/// A command of ours for the user to copy, on the same machine.
pub(crate) fn command(common: &Common, words: &str) -> String {
    match common.sysroot.as_deref().map(Path::display) {
        Some(root) => format!("pagewire {words} --sysroot {root}"),
        None => format!("sudo pagewire {words}"),
    }
}
