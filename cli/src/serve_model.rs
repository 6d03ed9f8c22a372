//! `pagewire model`: a software NIC behind a vfio-user socket.

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use pagewire::hal::MacAddress;
use pagewire_models::qtest::station_address;
use pagewire_models::vfio_user::{Event, Server};
use pagewire_models::wire::Passed;
use serde::Serialize;

use crate::endpoint::parse_seconds;
use crate::error::{Failure, print, shown};
use crate::play::{self, Manner, Permit};
use crate::software::SoftwareNic;
use crate::wire::{self, WireName};

/// Violations that are printed one by one; more are only counted.
const MOST_PRINTED: u64 = 100;

/// Options of `pagewire model`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  pagewire model ixgbe --socket /run/nic.sock --wire none
      an 82599 without a cable; QEMU gets it by
      -object memory-backend-memfd,id=ram,size=512M,share=on -machine memory-backend=ram
      -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"path\":\"/run/nic.sock\",\"type\":\"unix\"}}'
  sudo pagewire model e1000e --socket nic.sock --wire tap:tap0
      an 82574L whose wire is a network interface of this machine
  pagewire model virtio,packed=on --socket a.sock --wire pair:/tmp/wire
  pagewire model ixgbe,device=x540t --socket b.sock --wire pair:/tmp/wire --mac 02:00:00:00:00:0b
      two NICs, and more if you like, on one wire
  pagewire model ixgbe --socket nic.sock --wire pcap:out.pcapng
      what the driver sends goes into a file

It runs until Ctrl-C, and removes the socket then. Exit status: 0 ended so, 1 the driver violated
a specification, 2 it could not run.")]
pub(crate) struct Args {
    /// The NIC: e1000e (82574L), ixgbe (82599; or ixgbe,device=xaui, sfp, x540t), virtio (or with
    /// features, as QEMU names them: virtio,packed=on,event_idx=off…)
    #[arg(value_name = "NIC", value_parser = parse_nic)]
    nic: SoftwareNic,
    /// The socket; one that a killed server has left is replaced
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// What the NIC is plugged into: tap:NAME (an interface of this machine, made if it is not
    /// there), pair:DIRECTORY (other models with the same directory), pcap:FILE (what is sent is
    /// recorded), none (no cable)
    #[arg(long, value_name = "WIRE")]
    wire: WireName,
    /// With pair: seconds that a frame waits for an end that does not take it, before it is lost there
    /// (default 0.2); more only where no end waits for this model
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    wire_patience: Option<Duration>,
    /// Take every freedom that the specification leaves to hardware, drawn from this seed; without
    /// it the NIC is the most obliging one
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The NIC's own address, AA:BB:CC:DD:EE:FF; by default one that goes by the socket's path, so
    /// that several on one wire have several
    #[arg(long, value_name = "ADDRESS", value_parser = station_address)]
    mac: Option<MacAddress>,
    /// What a driver may do although the datasheet forbids it (each NIC has the ways of its own
    /// drivers only)
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    permit: Vec<Permit>,
    /// What happens when the driver violates the specification
    #[arg(long, value_enum, default_value_t = Violations::Report)]
    violations: Violations,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Violations {
    /// Print it and go on
    Report,
    /// Print it and end
    Stop,
}

fn parse_nic(text: &str) -> Result<SoftwareNic, String> {
    let device = format!("model:{text}").parse::<SoftwareNic>();
    device.map_err(|error| {
        if error.starts_with("NICs in software are") {
            "NICs are e1000e, ixgbe and virtio".into()
        } else {
            error
        }
    })
}

/// An address of the kind that anybody may give (IEEE 802: bit 1 of the first byte), the same for the
/// same path (FNV-1a, the lower 40 bits).
fn mac_by(path: &Path) -> MacAddress {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let [a, b, c, d, e, ..] = sum.to_le_bytes();
    MacAddress([2, a, b, c, d, e])
}

/// What has happened until the end.
#[derive(Serialize, Default)]
struct Report {
    nic: String,
    mac: String,
    clients: u64,
    refused_clients: u64,
    sent_frames: u64,
    sent_bytes: u64,
    /// How often the wire had no room for one.
    lost_frames: u64,
    received_frames: u64,
    received_bytes: u64,
    interrupts: u64,
    dma_faults: u64,
    seconds: f64,
    violations: u64,
    /// The first of them.
    violation_texts: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let plugged = wire::plug(&args.wire, args.wire_patience)?;
    let (tally, recording) = (plugged.tally, plugged.recording);
    let manner = Manner {
        seed: args.seed,
        mac: address(args),
        permit: &args.permit,
    };
    let device = play::build(&args.nic, manner, plugged.wire);
    let server = Server::bind(&args.socket, device, plugged.wake);
    let mut server = server.map_err(|error| Failure::usage(error.to_string()))?;
    let stop = stopped_by_signals()?;
    let mac = address(args);
    say(
        args,
        &format!("serving {} ({mac}) at {}", args.nic, shown(&args.socket)),
    );
    let start = Instant::now();
    let mut report = Report {
        nic: args.nic.to_string().replacen("model:", "", 1),
        mac: mac.to_string(),
        ..Report::default()
    };
    let served = server.run(stop.as_fd(), &mut |event| on(args, event, &mut report));
    report.seconds = start.elapsed().as_secs_f64();
    let counters = server.counters();
    // Here and now, whatever else fails.
    drop(server);
    let finished = recording.map_or(Ok(None), |recording| recording.finish());
    (report.interrupts, report.dma_faults) = (counters.interrupts, counters.faults);
    conclude(args, &mut report, tally.passed())?;
    served.map_err(|error| Failure::failed(error.to_string()))?;
    finished.map_err(|error| Failure::failed(format!("the recording is not complete: {error}")))?;
    match report.violations {
        0 => Ok(()),
        1 => Err(Failure::failed(
            "the driver violated the specification once",
        )),
        many => Err(Failure::failed(format!(
            "the driver violated the specification {many} times"
        ))),
    }
}

/// Prints what happens, where it is not one JSON object at the end.
fn say(args: &Args, line: &str) {
    if !args.json {
        // A reader that has gone is no reason to end a NIC.
        let _ = print(line);
    }
}

fn on(args: &Args, event: Event, report: &mut Report) -> ControlFlow<()> {
    match event {
        Event::Connected => {
            report.clients += 1;
            say(args, "a client has come");
        }
        Event::Disconnected(why) => say(args, &why.to_string()),
        Event::Refused => {
            report.refused_clients += 1;
            say(args, "a second client was turned away");
        }
        Event::Violation(text) => {
            report.violations += 1;
            if report.violations <= MOST_PRINTED {
                say(args, &format!("violation: {text}"));
                report.violation_texts.push(text);
            }
            if args.violations == Violations::Stop {
                return ControlFlow::Break(());
            }
        }
        _ => {}
    }
    ControlFlow::Continue(())
}

fn conclude(args: &Args, report: &mut Report, passed: Passed) -> Result<(), Failure> {
    report.sent_frames = passed.sent_frames;
    report.sent_bytes = passed.sent_bytes;
    report.lost_frames = passed.lost_frames;
    report.received_frames = passed.received_frames;
    report.received_bytes = passed.received_bytes;
    if args.json {
        let text = serde_json::to_string(&report);
        return print(&text.map_err(|error| Failure::failed(error.to_string()))?);
    }
    print(&format!(
        "sent {} frames ({} bytes; {} frames were lost on the wire), received {} frames ({} bytes)",
        report.sent_frames,
        report.sent_bytes,
        report.lost_frames,
        report.received_frames,
        report.received_bytes
    ))?;
    print(&format!(
        "{} clients, {} interrupts, {} DMA faults, {} violations in {:.1} s",
        report.clients, report.interrupts, report.dma_faults, report.violations, report.seconds
    ))
}

/// Readable as soon as the program was asked to end.
fn stopped_by_signals() -> Result<UnixStream, Failure> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let cannot = |error| Failure::failed(format!("cannot wait for signals: {error}"));
    let (stop, signalled) = UnixStream::pair().map_err(cannot)?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let signalled = signalled.try_clone().map_err(cannot)?;
        signal_hook::low_level::pipe::register(signal, signalled).map_err(cannot)?;
    }
    Ok(stop)
}

fn address(args: &Args) -> MacAddress {
    let of_virtio = args.nic.virtio().mac;
    let given = args.mac.or(of_virtio);
    given.unwrap_or_else(|| mac_by(&args.socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::software::NicKind;

    #[test]
    fn an_address_goes_by_the_path() {
        let (one, other) = (mac_by(Path::new("a")), mac_by(Path::new("b")));
        assert_ne!(one, other);
        assert_eq!(one, mac_by(Path::new("a")));
        assert_eq!((one.0[0], other.0[0]), (2, 2));
    }

    #[test]
    fn nics_are_read_as_models() {
        assert_eq!(parse_nic("ixgbe,device=x540t").unwrap().nic, NicKind::Ixgbe);
        assert!(parse_nic("e100").unwrap_err().contains("NICs are"));
        assert!(parse_nic("ixgbe,device=x").unwrap_err().contains("x540t"));
    }
}
