//! `pagewire serve`: files by HTTP, on our own TCP and our own drivers, without reading them.

mod args;
mod client;
mod journal;
mod server;

pub(crate) use args::Args;
use pagewire_cli::http::Root;

use crate::device::DeviceName;
use crate::endpoint::{Home, ModelHome, VfioHome};
use crate::error::{Failure, shown};
use crate::machine::watch_for_ctrl_c;
use server::Server;

/// Serves until it is ended.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = watch_for_ctrl_c()?;
    match &args.link.device {
        DeviceName::Pci(_) => on::<VfioHome>(args, &stop),
        _ => on::<ModelHome>(args, &stop),
    }
}

fn on<H: Home>(args: &Args, stop: &dyn Fn() -> bool) -> Result<(), Failure> {
    let root = Root::open(&args.directory).map_err(|error| {
        let directory = shown(&args.directory);
        Failure::usage(format!("cannot serve {directory}: {error}"))
    })?;
    let mut server = Server::<H>::new(args, root)?;
    let served = server.run(stop);
    // Whatever has happened: all pages come back before the program ends.
    let ended = server.end();
    served?;
    ended?;
    Err(Failure::interrupted())
}
