//! `pagewire demo`: a file goes through a NIC driver, on a model of the NIC, to a TCP that is not
//! ours; at the end both sides compare what they have seen.

mod args;
mod input;
mod linux_peer;
mod peer;
mod report;
mod smoltcp_peer;
mod transfer;
mod wires;
mod world;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub(crate) use args::Args;
use input::Input;
use transfer::Transfer;
use world::World;

use crate::error::Failure;

/// Runs the demo and prints its report.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Failure::failed(format!("cannot watch for Ctrl-C: {error}")))?;
    }
    let (input, sealed) = Input::prepare(args, &stop)?;
    let mut world = World::build(args, sealed)?;
    let report = Transfer::new(args, &input, &stop).run(&mut world)?;
    println!(
        "{}",
        if args.json {
            report.json()
        } else {
            report.table()
        }
    );
    if report.faults.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(report.verdict()))
    }
}
