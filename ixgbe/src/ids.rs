//! The PCI devices that this driver knows, and what sets them apart.
//!
//! Numbers and names: Linux ixgbe and DPDK ixgbe (`ixgbe_type.h`). The X550 is left out: its
//! EEPROM is reached through a host interface of the firmware. So are devices of the 82598, whose
//! registers are others, and virtual functions.

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
    pub(crate) media: Media,
}

/// Devices that are initialised alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// 82599.
    I82599,
    /// X540.
    X540,
}

/// What is behind the port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Media {
    /// A backplane or a PHY on the board: the link comes up as the EEPROM has it.
    Backplane,
    /// A cage for SFP+ modules.
    SfpPlus,
    /// A PHY for twisted pair on the chip, which the firmware brings up.
    Copper,
}

const INTEL: u16 = 0x8086;

const fn device(
    device: u16,
    name: &'static str,
    tested: bool,
    family: Family,
    media: Media,
) -> DeviceInfo {
    DeviceInfo {
        device,
        name,
        tested,
        family,
        media,
    }
}

use Family::{I82599, X540};
use Media::{Backplane, Copper, SfpPlus};

const DEVICES: [DeviceInfo; 13] = [
    device(0x10F7, "ixgbe 82599 KX4", true, I82599, Backplane),
    device(0x10FC, "ixgbe 82599 XAUI", true, I82599, Backplane),
    device(0x1528, "ixgbe X540T", true, X540, Copper),
    device(0x10FB, "ixgbe 82599 SFP+", true, I82599, SfpPlus),
    device(
        0x1514,
        "ixgbe 82599 KX4 mezzanine",
        false,
        I82599,
        Backplane,
    ),
    device(0x1517, "ixgbe 82599 KR", false, I82599, Backplane),
    device(0x10F8, "ixgbe 82599 backplane", false, I82599, Backplane),
    device(0x10F9, "ixgbe 82599 CX4", false, I82599, Backplane),
    device(0x1507, "ixgbe 82599 SFP+ EM", false, I82599, SfpPlus),
    device(0x154D, "ixgbe 82599 SFP+ dual", false, I82599, SfpPlus),
    device(0x154A, "ixgbe 82599 SFP+ quad", false, I82599, SfpPlus),
    device(0x1557, "ixgbe 82599EN SFP+", false, I82599, SfpPlus),
    device(0x1560, "ixgbe X540T1", false, X540, Copper),
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
