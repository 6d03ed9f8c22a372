//! The tests, a file for each subject.

mod checksum;
mod device;
mod dma;
mod gather;
mod interrupts;
mod link;
mod reset;
mod segmentation;
mod throughput;

use alloc::format;
use alloc::string::String;

use pagewire_hal::{Platform, pci};

use super::outcome::{Checked, Stop, Test};
use super::session::{Route, Setup};
use super::station::Station;
use crate::{Driver, find};

/// Runs one test.
pub(super) fn run<S: Station>(test: Test, station: &mut S) -> Checked {
    match test {
        Test::Registers => device::registers(station),
        Test::Eeprom => device::eeprom(station),
        Test::Link => link::run(station),
        Test::Interrupts => interrupts::run(station),
        Test::Loopback => gather::loopback(station),
        Test::Gather => gather::run(station),
        Test::ChecksumTransmit => checksum::transmit(station),
        Test::ChecksumReceive => checksum::receive(station),
        Test::Segmentation => segmentation::run(station),
        Test::DmaRead => dma::read(station),
        Test::DmaWrite => dma::write(station),
        Test::Reset => reset::run(station),
        Test::Throughput => throughput::run(station),
    }
}

/// The driver for the device behind `platform`.
fn driver_of<P: Platform>(platform: &P) -> Result<Driver, Stop> {
    let (vendor, device) = pci::identity(platform);
    match find(vendor, device) {
        Some(info) => Ok(info.driver),
        None if vendor == u16::MAX => Err(Stop::Closed(
            "the device does not answer: configuration space reads all ones".into(),
        )),
        None => Err(Stop::Closed(format!(
            "there is no driver for PCI device {vendor:04x}:{device:04x}"
        ))),
    }
}

/// The way of a test's frames: to the peer, else back through the MAC, else the test cannot be run.
fn setup<S: Station>(station: &mut S) -> Result<Setup, Stop> {
    let route = if station.peer().is_some() {
        Route::Peer
    } else {
        let platform = station.open().map_err(Stop::Closed)?;
        let driver = driver_of(&platform)?;
        if driver == Driver::Virtio {
            return Err(Stop::NotRun(needs_peer(station)));
        }
        Route::Loopback
    };
    Ok(Setup {
        config: station.config(),
        route,
        interrupts: false,
    })
}

/// Why a test needs a peer, for who has none.
fn needs_peer<S: Station>(station: &S) -> String {
    format!(
        "needs a peer, as the device has no loopback of its own: {}",
        station.peer_advice()
    )
}

/// How it came that the frames were seen, for a report.
const fn by(route: Route) -> &'static str {
    match route {
        Route::Peer => "at the peer",
        Route::Loopback => "through the MAC's loopback",
        Route::Nowhere => "nowhere",
    }
}
