//! What is run, by the command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use pagewire::e1000e::{self, E1000e};
use pagewire::ixgbe::{self, Ixgbe};
use pagewire::virtio::{self, Features, VirtioNet};
use pagewire_conformance::Outcome;
use pagewire_vfio::{Api, Options, PciAddress};

use crate::bench::{Settings, VfioBench};
use crate::packet_socket::PacketSocket;
use crate::suite::{Choice, Quirk, run_suite};

/// What QEMU's e1000e does otherwise than the suite expects of a device: as in
/// `tests/conformance_qtest.rs`.
const E1000E_QUIRKS: [Quirk; 2] = [
    ("padding", "was not padded"),
    ("lost frames are counted", "were lost, 0 counted"),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Driver {
    E1000e,
    Ixgbe,
    Virtio,
}

/// Runs the conformance suite on a NIC that is bound to vfio-pci. A wire leads from it to another
/// NIC of this machine, which the kernel drives and nobody else uses.
#[derive(Parser, Debug)]
struct Args {
    /// The NIC under test, for example 0000:01:00.0
    device: PciAddress,
    /// Its driver
    #[arg(long)]
    driver: Driver,
    /// The interface of the NIC at the other end of the wire, in this network namespace
    #[arg(long)]
    far: String,
    /// The API of VFIO: group or cdev (default: the newest that there is)
    #[arg(long)]
    api: Option<Api>,
    /// Longest packet in bytes
    #[arg(long, default_value_t = 1500)]
    mtu: u16,
}

pub(crate) fn main() -> ExitCode {
    let args = Args::parse();
    let far = match PacketSocket::open(&args.far) {
        Ok(far) => far,
        Err(error) => {
            eprintln!("conformance: {}: {error}", args.far);
            return ExitCode::from(2);
        }
    };
    let mut options = Options::default();
    options.api = args.api;
    let settings = Settings {
        address: args.device,
        options,
        mtu: args.mtu,
    };
    let title = format!("{:?} {}, MTU {}", args.driver, args.device, args.mtu);
    let choice = Choice {
        only: &[""],
        patience: Duration::from_secs(20),
    };
    let mtu = args.mtu;
    let (report, quirks) = match args.driver {
        Driver::E1000e => {
            let mut bench = VfioBench::new(settings, far, move |platform| {
                let mut config = e1000e::Config::default();
                config.mtu = mtu;
                E1000e::open(platform, &config).map_err(|error| error.to_string())
            });
            let report = run_suite(&title, &mut bench, &choice, &E1000E_QUIRKS);
            (report, E1000E_QUIRKS.len())
        }
        Driver::Ixgbe => {
            let mut bench = VfioBench::new(settings, far, move |platform| {
                let mut config = ixgbe::Config::default();
                config.mtu = mtu;
                Ixgbe::open(platform, &config).map_err(|error| error.to_string())
            });
            (run_suite(&title, &mut bench, &choice, &[]), 0)
        }
        Driver::Virtio => {
            let mut bench = VfioBench::new(settings, far, move |platform| {
                let mut config = virtio::Config::default();
                // Joined segments: the far end sends none.
                config.features = Features::all() - Features::GUEST_TSO4 - Features::GUEST_TSO6;
                config.mtu = mtu;
                VirtioNet::open(platform, &config).map_err(|error| error.to_string())
            });
            (run_suite(&title, &mut bench, &choice, &[]), 0)
        }
    };
    let checks = report.checks.iter();
    let not_run = checks.filter(|check| matches!(check.outcome, Outcome::NotRun { .. }));
    let not_run = not_run.count();
    let passed = report.checks.len() - not_run;
    println!(
        "{title}, seed {}: {passed} passed, {quirks} as QEMU does it, {not_run} not run, 0 failed",
        report.seed
    );
    ExitCode::SUCCESS
}
