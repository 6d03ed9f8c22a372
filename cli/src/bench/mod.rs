//! `pagewire bench`: what things cost on this machine.

mod sharing;

use crate::error::Failure;

/// Options of `pagewire bench`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Each way to share a page against copying it, and from how many bytes on it pays
    Sharing(sharing::Args),
}

/// Measures.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    match &args.what {
        What::Sharing(args) => sharing::run(args),
    }
}
