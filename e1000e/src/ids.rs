//! The PCI devices that this driver knows, and what sets them apart.
//!
//! Numbers and names: Linux e1000e (`hw.h`), DPDK e1000 (`e1000_hw.h`). Fibre and SerDes ports
//! of the 82571 and 82572 are left out: their link needs code that is not here.

use pagewire_hal::{NicError, Platform, driver};

/// A PCI device that this driver knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// PCI device id; the vendor is Intel, 8086.
    pub device: u16,
    /// The driver's name and the device's.
    pub name: &'static str,
    /// Whether the driver has been run on the device, or on a model of it. What has not is
    /// opened on request only, see [`Config::allow_untested`](crate::Config::allow_untested).
    pub tested: bool,
    pub(crate) family: Family,
}

/// Devices that are initialised alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// 82571 and 82572.
    I82571,
    /// 82573.
    I82573,
    /// 82574.
    I82574,
    /// 82583: an 82574 without MSI-X.
    I82583,
}

const INTEL: u16 = 0x8086;

const fn tested(device: u16, name: &'static str, family: Family) -> DeviceInfo {
    DeviceInfo {
        device,
        name,
        tested: true,
        family,
    }
}

const fn untested(device: u16, name: &'static str, family: Family) -> DeviceInfo {
    DeviceInfo {
        device,
        name,
        tested: false,
        family,
    }
}

const DEVICES: [DeviceInfo; 12] = [
    tested(0x10D3, "e1000e 82574L", Family::I82574),
    untested(0x10F6, "e1000e 82574LA", Family::I82574),
    untested(0x150C, "e1000e 82583V", Family::I82583),
    untested(0x105E, "e1000e 82571EB copper", Family::I82571),
    untested(0x10A4, "e1000e 82571EB quad copper", Family::I82571),
    untested(
        0x10BC,
        "e1000e 82571EB quad copper low profile",
        Family::I82571,
    ),
    untested(0x10D5, "e1000e 82571PT quad copper", Family::I82571),
    untested(0x107D, "e1000e 82572EI copper", Family::I82571),
    untested(0x10B9, "e1000e 82572EI", Family::I82571),
    untested(0x108B, "e1000e 82573E", Family::I82573),
    untested(0x108C, "e1000e 82573E IAMT", Family::I82573),
    untested(0x109A, "e1000e 82573L", Family::I82573),
];

/// What this driver knows of a PCI device; `None` for a device that it does not drive.
#[must_use]
pub fn supported(vendor: u16, device: u16) -> Option<DeviceInfo> {
    DEVICES
        .into_iter()
        .find(|info| vendor == INTEL && info.device == device)
}

/// The device behind `platform`, if it may be opened.
pub(crate) fn identify<P: Platform>(
    platform: &P,
    allow_untested: bool,
) -> Result<DeviceInfo, NicError> {
    let info = driver::identify(platform, supported)?;
    if !info.tested && !allow_untested {
        return Err(NicError::Untested {
            device: info.device,
            name: info.name,
        });
    }
    Ok(info)
}
