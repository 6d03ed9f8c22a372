//! `pagewire send`: files by TCP, on our own TCP and our own drivers, without reading them.

mod args;
mod report;
mod transfer;

pub(crate) use args::Args;

use crate::device::DeviceName;
use crate::endpoint::{Home, ModelHome, VfioHome};
use crate::error::Failure;
use crate::machine::watch_for_ctrl_c;
use transfer::{Input, Transfer};

/// Sends all files and reports.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = watch_for_ctrl_c()?;
    match &args.link.device {
        DeviceName::Pci(_) => on::<VfioHome>(args, &stop),
        _ => on::<ModelHome>(args, &stop),
    }
}

fn on<H: Home>(args: &Args, stop: &dyn Fn() -> bool) -> Result<(), Failure> {
    // First the files: what is wrong with them is told before anything is opened.
    let inputs: Vec<_> = args
        .files
        .iter()
        .map(|path| Input::open(path))
        .collect::<Result<_, _>>()?;
    let mut transfer = Transfer::<H>::new(args, inputs, stop)?;
    let sent = transfer.run(stop);
    // Whatever has happened: all pages come back before the program ends.
    let ended = transfer.end(sent.is_ok());
    let report = sent?;
    ended?;
    report.print(args.explain, args.json)
}
