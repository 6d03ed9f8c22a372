//! The `pagewire` command.

mod bench;
mod bind;
mod demo;
mod device;
mod endpoint;
mod error;
mod list;
mod logger;
mod machine;
mod model;
mod play;
mod progress;
mod receiver;
mod selftest;
mod send;
mod serve;
mod serve_model;
mod software;
mod unbind;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// NIC drivers behind one hardware abstraction, and a zero-copy TCP sender on top.
#[derive(Parser, Debug)]
#[command(name = "pagewire", version, about, propagate_version = true)]
#[command(
    after_help = "Exit status: 0 done, 1 something differs or failed, 2 wrong usage or \
                        input, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Send a file through a NIC driver to a TCP that is not ours, without copying it
    Demo(demo::Args),
    /// Send files by TCP, on our own TCP and NIC drivers, without reading them
    Send(send::Args),
    /// Serve the files of a directory by HTTP, on our own TCP and NIC drivers, without reading them
    Serve(serve::Args),
    /// Show the NICs: driver, interface, IOMMU group, and whether user space can have them
    List(list::Args),
    /// Take a NIC from its kernel driver and give it to user space, by vfio-pci
    Bind(bind::Args),
    /// Give a NIC back to the kernel driver that it had
    Unbind(unbind::Args),
    /// Be a NIC: serve a software model to QEMU, or to a driver, over a vfio-user socket
    Model(serve_model::Args),
    /// Test whether a device does what Pagewire promises of it, in the spirit of `ethtool -t`
    Selftest(selftest::Args),
    /// What things cost on this machine
    Bench(bench::Args),
    /// The receiving end of `demo --peer linux`: started by it, in a network namespace
    #[command(name = "__receive", hide = true)]
    Receive(receiver::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    logger::start();
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Send(args) => send::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::List(args) => list::run(&args),
        Command::Bind(args) => bind::run(&args),
        Command::Unbind(args) => unbind::run(&args),
        Command::Model(args) => serve_model::run(&args),
        Command::Selftest(args) => selftest::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Receive(args) => receiver::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading: the status tells it as well.
            let _ = writeln!(std::io::stderr(), "pagewire: {error}");
            ExitCode::from(error.status())
        }
    }
}
