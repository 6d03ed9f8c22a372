//! `pagewire selftest`: whether a device does what this project promises of it.

mod json;
mod markdown;
mod model;
mod packet_socket;
mod peer;
mod progress;
mod qtest;
mod summary;
mod user;
mod vfio;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pagewire::drivers::selftest::{Event, Facts, Station, Test, look, run as run_tests};
use pagewire_vfio::Api;

use crate::device::DeviceName;
use crate::error::{Failure, print, shown};
use crate::logger;
use crate::software::Backend;
use progress::Progress;
use summary::{Summary, Surroundings};

/// Options of `pagewire selftest`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  pagewire selftest model:e1000e                    our model of an 82574L, in this process
  pagewire selftest model:virtio,packed=on --only gather,segmentation
  pagewire selftest 0000:03:00.0 --peer eth1        a NIC bound to vfio-pci, cabled to eth1
  pagewire selftest 0000:03:00.0                    no peer: what comes back through the MAC
  pagewire selftest 0000:03:00.0 --peer eth1 --report nic.md
  pagewire selftest vfio-user:nic.sock --peer pair:/tmp/wire
                                                    a NIC that another process plays: `pagewire model
                                                    e1000e --socket nic.sock --wire pair:/tmp/wire`
  pagewire selftest --list                          the tests

The device is taken: what it was doing is over. Bind it first (pagewire bind). Frames of the tests
go to the interface that --peer names, on this machine, at the other end of the cable; it is set up
and listened to, its receive offload (GRO) is off meanwhile, and it is as before afterwards. Without
a peer frames come back through the MAC where the chip has such a loopback; where it has not, tests
that need one are not run, and say so.

A report (--report) has all that a maintainer needs to know of an unknown machine: PCI ids, what the
device offers, kernel, IOMMU, the result of each test. docs/HARDWARE.md says where to send it.

Exit status: 0 no test has failed; 1 one has; 2 the device cannot be tested; 130 interrupted.")]
pub(crate) struct Args {
    /// The device: 0000:03:00.0, vfio-user:SOCKET, model:e1000e, model:ixgbe, model:virtio,
    /// qtest:e1000e, qtest:virtio
    #[arg(required_unless_present = "list")]
    device: Option<DeviceName>,
    /// An interface of this machine at the other end of the device's cable; pair:DIR, the wire of the
    /// process behind a vfio-user socket; `none` to do without a peer where there is one
    #[arg(long, value_name = "INTERFACE")]
    peer: Option<String>,
    /// Only these tests, separated by commas
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = named)]
    only: Vec<Test>,
    /// Show the tests, and run none
    #[arg(long)]
    list: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
    /// Write a report in Markdown to FILE
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The way to a NIC of this machine: cdev or group (default: the newest that there is)
    #[arg(long, value_name = "API")]
    api: Option<Api>,
}

fn named(name: &str) -> Result<Test, String> {
    Test::named(name).ok_or_else(|| {
        let all: Vec<_> = Test::ALL.iter().map(|test| test.name()).collect();
        format!("tests are {}", all.join(", "))
    })
}

impl Args {
    /// The tests that are run.
    fn tests(&self) -> Vec<Test> {
        match self.only.as_slice() {
            [] => Test::ALL.to_vec(),
            only => only.to_vec(),
        }
    }

    /// The interface that is the peer; `None` if there is to be none or none was named.
    fn interface(&self) -> Option<&str> {
        self.peer.as_deref().filter(|peer| *peer != NO_PEER)
    }

    /// Whether no peer is wanted where there could be one.
    fn wants_no_peer(&self) -> bool {
        self.peer.as_deref() == Some(NO_PEER)
    }
}

/// As the name of a peer: there is to be none.
const NO_PEER: &str = "none";

/// What can be asked of a station beside testing.
trait Bench: Station {
    /// What is around the device, once it has been opened.
    fn surroundings(&self) -> Surroundings;

    /// What the driver did and must not, where somebody watches.
    fn violations(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Tests.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    if args.list {
        return print(&list());
    }
    let Some(device) = &args.device else {
        return Err(Failure::usage("which device?"));
    };
    logger::start();
    let stop = watch_for_end()?;
    if let Some(file) = &args.report {
        check_writable(file)?;
    }
    match device {
        DeviceName::Pci(address) => test(args, &stop, vfio::Bound::new(args, *address, &stop)?),
        DeviceName::VfioUser(socket) => test(args, &stop, user::Served::new(args, socket, &stop)?),
        DeviceName::Software(_) if args.interface().is_some() => Err(Failure::usage(
            "--peer names an interface only for a NIC of this machine or of another process; this \
             one has a peer of its own (--peer none does without)",
        )),
        DeviceName::Software(nic) => match nic.backend {
            Backend::Model => test(args, &stop, model::Modelled::new(args, nic, &stop)),
            Backend::Qtest => test(args, &stop, qtest::Emulated::new(args, nic, &stop)?),
        },
    }
}

fn list() -> String {
    let line = |test: &Test| format!("{:<18} {}", test.name(), test.description());
    Test::ALL.iter().map(line).collect::<Vec<_>>().join("\n")
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

/// That a report can be written is known before the device is taken.
fn check_writable(file: &Path) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(file);
    let checked = opened.map(drop);
    checked.map_err(|error| Failure::usage(format!("--report {}: {error}", shown(file))))
}

/// Runs the tests on whatever device, and tells of it in the way that was asked for.
fn test<B: Bench>(args: &Args, stop: &AtomicBool, mut bench: B) -> Result<(), Failure> {
    let name = args.device.as_ref().map(ToString::to_string);
    let name = name.unwrap_or_default();
    let facts = look(&mut bench);
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::interrupted());
    }
    let facts: Facts = facts.map_err(|why| Failure::usage(format!("{name}: {why}")))?;
    let surroundings = bench.surroundings();
    let mut progress = Progress::new(args.json);
    progress.head(&name, &facts, &surroundings)?;
    let mut failed = None;
    let reports = run_tests(&mut bench, &args.tests(), &mut |event| {
        let shown = match event {
            Event::Begins(test) => {
                progress.begins(test);
                Ok(())
            }
            Event::Ended(report) => progress.ended(report),
        };
        if let Err(error) = shown {
            failed.get_or_insert(error);
        }
    });
    progress.finish();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let summary = Summary {
        device: name,
        facts,
        surroundings,
        reports,
        violations: bench.violations(),
        interrupted: stop.load(Ordering::Relaxed),
    };
    // The device is closed before anybody reads on.
    drop(bench);
    if let Some(file) = &args.report {
        std::fs::write(file, markdown::text(&summary))
            .map_err(|error| Failure::failed(format!("--report {}: {error}", shown(file))))?;
    }
    print(&if args.json {
        json::text(&summary)?
    } else {
        summary.last_line()
    })?;
    summary.verdict()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    /// Options as they are read.
    pub(crate) fn args(words: &[&str]) -> Args {
        let words = ["selftest"].iter().chain(words);
        Alone::try_parse_from(words).unwrap().args
    }

    #[test]
    fn tests_are_chosen_by_their_names() {
        assert_eq!(args(&["model:e1000e"]).tests(), Test::ALL);
        let some = args(&["model:e1000e", "--only", "gather,reset"]);
        assert_eq!(some.tests(), [Test::Gather, Test::Reset]);
        assert!(Alone::try_parse_from(["", "model:e1000e", "--only", "all"]).is_err());
        assert!(Alone::try_parse_from([""]).is_err());
        assert!(args(&["--list"]).list);
        assert!(args(&["model:virtio", "--peer", "none"]).wants_no_peer());
    }

    #[test]
    fn who_presses_ctrl_c_gets_130() {
        let stop = Arc::new(AtomicBool::new(true));
        let args = args(&["model:e1000e", "--json"]);
        let nic = "model:e1000e".parse().unwrap();
        let bench = model::Modelled::new(&args, &nic, &stop);
        assert_eq!(test(&args, &stop, bench).unwrap_err().status(), 130);
    }
}
