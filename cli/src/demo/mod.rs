//! `pagewire demo`: a file goes through a NIC driver, on a NIC in software, to a TCP that is not
//! ours; at the end both sides compare what they have seen.

mod args;
mod borrowed;
mod crew;
mod input;
mod lane;
mod link;
mod linux_peer;
pub(crate) mod loss;
mod machine;
mod model_machine;
mod namespace;
mod outcome;
mod peer;
mod qtest_machine;
mod report;
mod scribble;
mod smoltcp_peer;
mod stopwatch;
mod table;
mod transfer;
mod user_machine;
mod vfio_machine;
mod wires;
mod world;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use args::Args;
use input::Input;
use machine::Machine;
use model_machine::ModelMachine;
use pagewire_models::e1000e::E1000e82574;
use pagewire_models::ixgbe::Ixgbe82599;
use pagewire_models::virtio::VirtioNet;
pub(crate) use peer::Stream;
use qtest_machine::QtestMachine;
use report::Report;
pub(crate) use table::{grouped, part};
use transfer::Transfer;
use user_machine::UserMachine;
use vfio_machine::VfioMachine;
use world::World;

use crate::device::DeviceName;
use crate::error::{Failure, print};
use crate::software::{Backend, NicKind};

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
    args.check()?;
    let devices = args.devices();
    if devices.len() > 1 && args.pcap.is_some() {
        let why = "--pcap records one device: with --nic all each would replace the last one's";
        return Err(Failure::usage(why));
    }
    let mut faulty = Vec::new();
    for (index, device) in devices.into_iter().enumerate() {
        let device = &device.with_queues(args.queues);
        let result = transfer(args, device, &stop);
        // Whatever broke first (the receiver may have been told to end as well): the user ended
        // it.
        if result.is_err() && stop.load(Ordering::Relaxed) {
            return Err(Failure::interrupted());
        }
        let report = result?;
        print(&match (args.json, index) {
            (true, _) => report.json(),
            (false, 0) => report.table(),
            (false, _) => format!("\n{}", report.table()),
        })?;
        if !report.faults.is_empty() {
            faulty.push(format!("{device}: {}", report.verdict()));
        }
    }
    if faulty.is_empty() {
        Ok(())
    } else {
        Err(Failure::failed(faulty.join("; ")))
    }
}

/// Builds everything, sends, and takes everything down again.
fn transfer(args: &Args, name: &DeviceName, stop: &AtomicBool) -> Result<Report, Failure> {
    let nic = match name {
        DeviceName::Software(nic) => nic,
        DeviceName::Pci(address) => return on::<VfioMachine>(args, name, address, stop),
        DeviceName::VfioUser(socket) => return on::<UserMachine>(args, name, socket, stop),
    };
    match (nic.backend, nic.nic) {
        (Backend::Model, NicKind::E1000e) => on::<ModelMachine<E1000e82574>>(args, name, nic, stop),
        (Backend::Model, NicKind::Ixgbe) => on::<ModelMachine<Ixgbe82599>>(args, name, nic, stop),
        (Backend::Model, NicKind::Virtio) => on::<ModelMachine<VirtioNet>>(args, name, nic, stop),
        (Backend::Qtest, _) => on::<QtestMachine>(args, name, nic, stop),
    }
}

fn on<M: Machine>(
    args: &Args,
    name: &DeviceName,
    device: &M::Device,
    stop: &AtomicBool,
) -> Result<Report, Failure> {
    M::check(args, device, Input::expected_len(args))?;
    let (input, sealed) = Input::prepare(args, stop)?;
    let mut world = World::<M>::build(args, name, device, sealed)?;
    let far = args
        .peer_interface
        .as_deref()
        .unwrap_or("the wire's far end");
    let link = match M::HAS_CABLE {
        true => world.await_link(name, far, stop),
        false => Ok(()),
    };
    let report = link.and_then(|()| Transfer::new(args, &input, stop).run(&mut world));
    if report.is_err() {
        // What went wrong is told already; that the device stands still helps whoever has it next.
        let _ = world.shut_down();
    }
    report
}
