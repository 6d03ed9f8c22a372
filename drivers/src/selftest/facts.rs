//! What a maintainer needs to know about a device that nobody here has seen.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pagewire_hal::{Capabilities, LinkState, MacAddress, Nic, Platform, pci};

use super::outcome::{Fault, Stop};
use super::session::{Route, Setup, with_watch};
use super::station::Station;

/// Revision in bits 7:0; subsystem vendor and device (PCI Local Bus 3.0, section 6.1).
const REVISION: u16 = 0x08;
const SUBSYSTEM: u16 = 0x2C;
const COMMAND_STATUS: u16 = 0x04;
/// PCI capability: MSI-X. Its table has one entry more than bits 26:16 of its first word say.
const MSIX: u8 = 0x11;

/// What a device is, as itself and its driver say.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Facts {
    /// PCI vendor and device id.
    pub ids: (u16, u16),
    /// PCI subsystem vendor and device id.
    pub subsystem: (u16, u16),
    /// PCI revision.
    pub revision: u8,
    /// PCI command in bits 15:0 and status in bits 31:16, as they were found.
    pub command_status: u32,
    /// Identifiers of the PCI capabilities, in the order of the list.
    pub pci_capabilities: Vec<u8>,
    /// Entries of the MSI-X table; 0 if there is none.
    pub msix_vectors: u16,
    /// What the driver found out; or why it did not open the device.
    pub opened: Result<Opened, String>,
}

/// What the driver found out.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Opened {
    /// Driver and device; of virtio also what was negotiated.
    pub description: String,
    /// The station address.
    pub mac: MacAddress,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The link when it was opened.
    pub link: LinkState,
}

/// Opens the device, asks, and stops it.
///
/// # Errors
/// The station cannot open it.
pub fn look<S: Station>(station: &mut S) -> Result<Facts, String> {
    let platform = station.open()?;
    let mut facts = read(&platform);
    drop(platform);
    let setup = Setup {
        config: station.config(),
        route: Route::Nowhere,
        interrupts: false,
    };
    let opened = with_watch(
        station,
        &setup,
        |_, _| Ok(()),
        |session| {
            Ok(Opened {
                description: format!("{}", session.nic.describe()),
                mac: session.nic.mac_address(),
                capabilities: session.capabilities(),
                link: session.nic.link(),
            })
        },
    );
    facts.opened = opened.map_err(|stop| match stop {
        Stop::Fault(Fault { what, .. }) => what,
        Stop::NotRun(why) | Stop::Closed(why) => why,
    });
    Ok(facts)
}

fn read<P: Platform>(platform: &P) -> Facts {
    let halves = |word: u32| (word as u16, (word >> 16) as u16);
    let all: Vec<_> = pci::capabilities(platform).collect();
    let msix = all.iter().find(|(id, _)| *id == MSIX);
    Facts {
        ids: pci::identity(platform),
        subsystem: halves(platform.read_config(SUBSYSTEM)),
        revision: platform.read_config(REVISION) as u8,
        command_status: platform.read_config(COMMAND_STATUS),
        pci_capabilities: all.iter().map(|(id, _)| *id).collect(),
        msix_vectors: msix.map_or(0, |(_, at)| {
            (platform.read_config(*at) >> 16 & 0x7FF) as u16 + 1
        }),
        opened: Err(String::new()),
    }
}
