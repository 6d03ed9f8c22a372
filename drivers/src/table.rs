//! The PCI id table: which driver takes which device, and on what that was tried.
//!
//! The drivers have tables of their own and decide by those. A test compares them with this one,
//! id by id.

use core::fmt;

const INTEL: u16 = 0x8086;
/// Of all virtio devices (virtio 1.3, section 4.1.2).
const VIRTIO: u16 = 0x1AF4;

/// The drivers of this crate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Driver {
    /// `pagewire-e1000e`.
    E1000e,
    /// `pagewire-ixgbe`.
    Ixgbe,
    /// `pagewire-virtio`.
    Virtio,
}

/// A driver, and the devices that it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DriverInfo {
    /// Which it is.
    pub driver: Driver,
    /// Its name, as in the name of its crate.
    pub name: &'static str,
    /// The devices.
    pub devices: &'static [KnownDevice],
}

/// A PCI device that one of the drivers takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KnownDevice {
    /// PCI vendor id.
    pub vendor: u16,
    /// PCI device id.
    pub device: u16,
    /// The driver's name and the device's, as [`Nic::name`](pagewire_hal::Nic::name) says it.
    pub name: &'static str,
    /// On what the driver was tried as this device, in words; `None` if on nothing: then `open`
    /// refuses it ([`NicError::Untested`](pagewire_hal::NicError::Untested)) unless the driver's
    /// configuration says `allow_untested`.
    pub tested_on: Option<&'static str>,
}

const fn tested(vendor: u16, device: u16, name: &'static str, on: &'static str) -> KnownDevice {
    KnownDevice {
        vendor,
        device,
        name,
        tested_on: Some(on),
    }
}

const fn untested(vendor: u16, device: u16, name: &'static str) -> KnownDevice {
    KnownDevice {
        vendor,
        device,
        name,
        tested_on: None,
    }
}

/// All drivers of this crate. No real NIC was at hand: what was tried is said with each device.
pub static DRIVERS: [DriverInfo; 3] = [
    DriverInfo {
        driver: Driver::E1000e,
        name: "e1000e",
        devices: &E1000E,
    },
    DriverInfo {
        driver: Driver::Ixgbe,
        name: "ixgbe",
        devices: &IXGBE,
    },
    DriverInfo {
        driver: Driver::Virtio,
        name: "virtio",
        devices: &VIRTIO_NET,
    },
];

static E1000E: [KnownDevice; 12] = [
    tested(
        INTEL,
        0x10D3,
        "e1000e 82574L",
        "the model; QEMU's e1000e, by qtest, in a Linux guest by VFIO, and without an operating system",
    ),
    untested(INTEL, 0x10F6, "e1000e 82574LA"),
    untested(INTEL, 0x150C, "e1000e 82583V"),
    untested(INTEL, 0x105E, "e1000e 82571EB copper"),
    untested(INTEL, 0x10A4, "e1000e 82571EB quad copper"),
    untested(INTEL, 0x10BC, "e1000e 82571EB quad copper low profile"),
    untested(INTEL, 0x10D5, "e1000e 82571PT quad copper"),
    untested(INTEL, 0x107D, "e1000e 82572EI copper"),
    untested(INTEL, 0x10B9, "e1000e 82572EI"),
    untested(INTEL, 0x108B, "e1000e 82573E"),
    untested(INTEL, 0x108C, "e1000e 82573E IAMT"),
    untested(INTEL, 0x109A, "e1000e 82573L"),
];

static IXGBE: [KnownDevice; 13] = [
    tested(INTEL, 0x10F7, "ixgbe 82599 KX4", "the model"),
    tested(INTEL, 0x10FC, "ixgbe 82599 XAUI", "the model"),
    tested(INTEL, 0x1528, "ixgbe X540T", "the model"),
    tested(INTEL, 0x10FB, "ixgbe 82599 SFP+", "the model"),
    untested(INTEL, 0x1514, "ixgbe 82599 KX4 mezzanine"),
    untested(INTEL, 0x1517, "ixgbe 82599 KR"),
    untested(INTEL, 0x10F8, "ixgbe 82599 backplane"),
    untested(INTEL, 0x10F9, "ixgbe 82599 CX4"),
    untested(INTEL, 0x1507, "ixgbe 82599 SFP+ EM"),
    untested(INTEL, 0x154D, "ixgbe 82599 SFP+ dual"),
    untested(INTEL, 0x154A, "ixgbe 82599 SFP+ quad"),
    untested(INTEL, 0x1557, "ixgbe 82599EN SFP+"),
    untested(INTEL, 0x1560, "ixgbe X540T1"),
];

static VIRTIO_NET: [KnownDevice; 2] = [
    tested(
        VIRTIO,
        0x1041,
        "virtio-net",
        "the model; QEMU's virtio-net, by qtest, in a Linux guest by VFIO, and without an operating system",
    ),
    tested(
        VIRTIO,
        0x1000,
        "virtio-net transitional",
        "QEMU's virtio-net, by qtest and without an operating system",
    ),
];

/// The driver for a PCI device; `None` if there is none. That a driver takes a device does not
/// mean that it opens it: a transitional virtio device may turn out to be legacy only.
#[must_use]
pub fn find(vendor: u16, device: u16) -> Option<&'static DriverInfo> {
    DRIVERS
        .iter()
        .find(|info| info.devices.iter().any(|known| known.is(vendor, device)))
}

/// What is known of a PCI device; `None` if there is no driver for it.
#[must_use]
pub fn known(vendor: u16, device: u16) -> Option<&'static KnownDevice> {
    supported()
        .map(|(_, known)| known)
        .find(|known| known.is(vendor, device))
}

/// All devices that there is a driver for, each with that driver.
pub fn supported() -> impl Iterator<Item = (&'static DriverInfo, &'static KnownDevice)> {
    DRIVERS
        .iter()
        .flat_map(|info| info.devices.iter().map(move |known| (info, known)))
}

impl KnownDevice {
    const fn is(&self, vendor: u16, device: u16) -> bool {
        self.vendor == vendor && self.device == device
    }
}

/// Its `Display` lists the PCI ids that were tried, for an error message: what would have been
/// supported.
///
/// ```
/// let ids = pagewire_drivers::KnownIds.to_string();
/// assert!(ids.starts_with("8086:10d3 (e1000e 82574L), "));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct KnownIds;

impl fmt::Display for KnownIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (_, known) in supported().filter(|(_, known)| known.tested_on.is_some()) {
            let KnownDevice {
                vendor,
                device,
                name,
                ..
            } = known;
            write!(f, "{separator}{vendor:04x}:{device:04x} ({name})")?;
            separator = ", ";
        }
        Ok(())
    }
}
