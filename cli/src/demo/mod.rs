//! `pagewire demo`: a file goes through a NIC driver, on a NIC in software, to a TCP that is not
//! ours; at the end both sides compare what they have seen.

mod args;
mod input;
mod linux_peer;
mod machine;
mod peer;
mod report;
mod smoltcp_peer;
mod transfer;
mod wires;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use args::Args;
use input::Input;
use machine::{Machine, ModelMachine, QtestMachine};
use report::Report;
use transfer::Transfer;
use world::World;

use crate::device::Backend;
use crate::error::{Failure, print};

/// Ends the demo: Ctrl-C, `kill`, and the terminal's window closed.
const ENDING: [i32; 3] = [
    signal_hook::consts::SIGINT,
    signal_hook::consts::SIGTERM,
    signal_hook::consts::SIGHUP,
];

/// Runs the demo and prints its report.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in ENDING {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::failed(format!("cannot watch for Ctrl-C: {error}")))?;
    }
    let result = transfer(args, &stop);
    // Whatever broke first (the receiver may have been told to end as well): the user ended it.
    if result.is_err() && stop.load(Ordering::Relaxed) {
        return Err(Failure::interrupted());
    }
    let report = result?;
    print(&if args.json {
        report.json()
    } else {
        report.table()
    })?;
    if report.faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(report.verdict()))
    }
}

/// Builds everything, sends, and takes everything down again.
fn transfer(args: &Args, stop: &AtomicBool) -> Result<Report, Failure> {
    match args.device().backend {
        Backend::Model => on::<ModelMachine>(args, stop),
        Backend::Qtest => on::<QtestMachine>(args, stop),
    }
}

fn on<M: Machine>(args: &Args, stop: &AtomicBool) -> Result<Report, Failure> {
    M::check(args, Input::expected_len(args))?;
    let (input, sealed) = Input::prepare(args, stop)?;
    let mut world = World::<M>::build(args, sealed)?;
    Transfer::new(args, &input, stop).run(&mut world)
}
