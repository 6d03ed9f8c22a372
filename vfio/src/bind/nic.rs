//! A NIC, as sysfs shows it.

use std::io;

use super::group::{Companion, IommuGroup, is_vfio};
use super::interface::Interface;
use super::name::{DeviceName, is_interface_name};
use super::network::Network;
use super::system::System;
use super::text::{Target, exists, hexadecimal, line, parts};
use crate::PciAddress;

/// The PCI devices in sysfs.
pub(super) const DEVICES: &str = "/sys/bus/pci/devices";

/// The folder of a device in sysfs.
pub(super) fn folder(address: PciAddress) -> String {
    format!("{DEVICES}/{address}")
}

/// A PCI device and all that decides whether it can be bound. What is missing or odd in sysfs is
/// `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// Where it sits.
    pub address: PciAddress,
    /// PCI vendor id.
    pub vendor: Option<u16>,
    /// PCI device id.
    pub device: Option<u16>,
    /// PCI class: base class, subclass, interface.
    pub class: Option<u32>,
    /// The driver that has it.
    pub driver: Driver,
    /// Its network interfaces: a NIC of several ports in one function has several.
    pub interfaces: Vec<Interface>,
    /// Its IOMMU group.
    pub group: IommuGroup,
    /// What else is in the group.
    pub companions: Vec<Companion>,
    /// Folders that are there and cannot be read, and why: there may be more interfaces, or more in
    /// the group.
    pub unreadable: Vec<String>,
    /// Whether it is part of another device.
    pub function: Function,
    /// The ways in which the kernel can reset it; `None` if it does not say (Linux before 5.15).
    pub reset_methods: Option<Vec<String>>,
    /// Whether the kernel takes a driver's name for this device alone (`driver_override`), and
    /// which it has taken.
    pub driver_override: Override,
}

/// The driver that a device has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Driver {
    /// None.
    None,
    /// This one.
    Name(String),
    /// The link to it is odd.
    Odd(String),
}

impl Driver {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::None | Self::Odd(_) => None,
        }
    }

    /// Whether it is VFIO's.
    #[must_use]
    pub fn is_vfio(&self) -> bool {
        self.name().is_some_and(is_vfio)
    }

    pub(super) fn read(system: &dyn System, address: PciAddress) -> Self {
        match Target::of(system, &format!("{}/driver", folder(address))) {
            Target::Name(name) => Self::Name(name),
            Target::None => Self::None,
            Target::Odd(target) => Self::Odd(target),
        }
    }
}

/// Whether a device is part of another one (SR-IOV).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Function {
    /// It stands alone.
    Alone,
    /// A physical function, with so many virtual ones switched on.
    Physical(u32),
    /// A virtual function of that physical one.
    Virtual(Option<PciAddress>),
}

/// `driver_override` of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Override {
    /// The kernel has no such file (before Linux 3.16).
    Unsupported,
    /// No driver is named.
    None,
    /// This driver, and no other, gets the device.
    Name(String),
}

impl Override {
    pub(super) fn of(name: Option<&str>) -> Self {
        name.map_or(Self::None, |name| Self::Name(name.into()))
    }

    pub(super) fn read(system: &dyn System, address: PciAddress) -> Self {
        let path = format!("{}/driver_override", folder(address));
        if !exists(system, &path) {
            return Self::Unsupported;
        }
        match line(system, &path) {
            Some(name) if name != "(null)" => Self::Name(name),
            _ => Self::None,
        }
    }
}

impl Nic {
    /// Looks at one device; `None` if there is none at that address.
    #[must_use]
    pub fn read(system: &dyn System, address: PciAddress, network: &Network) -> Option<Self> {
        let device = folder(address);
        if !exists(system, &device) {
            return None;
        }
        let id = |name: &str| {
            let number = hexadecimal(system, &format!("{device}/{name}"))?;
            u16::try_from(number).ok()
        };
        let mut unreadable = Vec::new();
        let interfaces = Interface::of(system, address, network);
        let companions = Companion::all(system, &device, address);
        Some(Self {
            address,
            vendor: id("vendor"),
            device: id("device"),
            class: hexadecimal(system, &format!("{device}/class")),
            driver: Driver::read(system, address),
            interfaces: known(interfaces, &mut unreadable),
            group: IommuGroup::read(system, &device),
            companions: known(companions, &mut unreadable),
            unreadable,
            function: function(system, &device),
            reset_methods: line(system, &format!("{device}/reset_method"))
                .map(|text| text.split_whitespace().map(str::to_owned).collect())
                .or_else(|| no_reset(system, &device)),
            driver_override: Override::read(system, address),
        })
    }

    /// Whether its class is that of a network controller (02).
    #[must_use]
    pub fn is_nic(&self) -> bool {
        self.class.is_some_and(|class| class >> 16 == 0x02)
    }

    /// The device files by which user space reaches it while VFIO has it: of its group, and of
    /// itself where the kernel offers that (Linux 6.1 or newer).
    #[must_use]
    pub fn device_files(&self, system: &dyn System) -> Vec<String> {
        if !self.driver.is_vfio() {
            return Vec::new();
        }
        let mut files = group_files(&self.group);
        files.extend(own_files(system, &folder(self.address)));
        files.retain(|file| exists(system, file));
        files
    }
}

fn known<T>(found: Result<Vec<T>, String>, unreadable: &mut Vec<String>) -> Vec<T> {
    found.unwrap_or_else(|why| {
        unreadable.push(why);
        Vec::new()
    })
}

/// Where there is no way to reset, the file is empty or missing, and `reset` is missing as well.
fn no_reset(system: &dyn System, device: &str) -> Option<Vec<String>> {
    (!exists(system, &format!("{device}/reset"))).then(Vec::new)
}

pub(super) fn group_files(group: &IommuGroup) -> Vec<String> {
    match group {
        IommuGroup::Number(number) => vec![format!("/dev/vfio/{number}")],
        IommuGroup::Unsafe(number) => vec![format!("/dev/vfio/noiommu-{number}")],
        IommuGroup::None | IommuGroup::Odd(_) => Vec::new(),
    }
}

pub(super) fn own_files(system: &dyn System, device: &str) -> Vec<String> {
    let names = system.names(&format!("{device}/vfio-dev"));
    let names = names.unwrap_or_default().into_iter();
    let usual = names.filter(|name| is_interface_name(name));
    usual
        .map(|name| format!("/dev/vfio/devices/{name}"))
        .collect()
}

fn function(system: &dyn System, device: &str) -> Function {
    match Target::of(system, &format!("{device}/physfn")) {
        Target::Name(name) => return Function::Virtual(name.parse().ok()),
        Target::Odd(_) => return Function::Virtual(None),
        Target::None => {}
    }
    match line(system, &format!("{device}/sriov_numvfs")) {
        Some(number) => Function::Physical(number.parse().unwrap_or(0)),
        None => Function::Alone,
    }
}

/// All NICs (PCI class 02) of the machine, by address.
///
/// # Errors
/// If sysfs cannot be read, or has no PCI.
pub fn list(system: &dyn System) -> io::Result<Vec<Nic>> {
    let network = Network::read(system);
    let names = system.names(DEVICES)?;
    let addresses = names.iter().filter_map(|name| name.parse().ok());
    let devices = addresses.filter_map(|address| Nic::read(system, address, &network));
    let mut nics: Vec<_> = devices.filter(Nic::is_nic).collect();
    nics.sort_by_key(|nic| nic.address);
    Ok(nics)
}

/// Why a name leads to no PCI device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Missing {
    /// No device at this address.
    Address(PciAddress),
    /// No interface of this name.
    Interface(String),
    /// The interface is no PCI device's; what lies below it, if it is a bridge or the like.
    NotPci {
        /// Its name.
        interface: String,
        /// The interfaces below it.
        below: Vec<String>,
    },
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(
                f,
                "there is no PCI device {address}: `pagewire list` shows the NICs"
            ),
            Self::Interface(name) => write!(
                f,
                "there is no network interface {name}: `pagewire list` shows those of NICs (a \
                 device that vfio-pci has is named by its PCI address)"
            ),
            Self::NotPci { interface, below } if below.is_empty() => {
                write!(f, "{interface} is not the interface of a PCI device")
            }
            Self::NotPci { interface, below } => write!(
                f,
                "{interface} is not the interface of a PCI device; below it are {}",
                below.join(", ")
            ),
        }
    }
}

/// The address of the device that a user named.
///
/// # Errors
/// [`Missing`], if there is none.
pub fn find(system: &dyn System, name: &DeviceName) -> Result<PciAddress, Missing> {
    match name {
        DeviceName::Address(address) if exists(system, &folder(*address)) => Ok(*address),
        DeviceName::Address(address) => Err(Missing::Address(*address)),
        DeviceName::Interface(interface) => {
            let path = format!("/sys/class/net/{interface}");
            let target = system
                .link(&path)
                .map_err(|_| Missing::Interface(interface.clone()))?;
            pci_owner(&parts(&target)).ok_or_else(|| Missing::NotPci {
                interface: interface.clone(),
                below: neighbours(system, interface, "lower_"),
            })
        }
    }
}

/// The PCI device that an interface's place in the device tree belongs to: the last address in
/// `../../devices/pci0000:00/0000:00:1c.0/0000:03:00.0/virtio0/net/eth1`.
pub(super) fn pci_owner(parts: &[String]) -> Option<PciAddress> {
    let address = |part: &String| {
        // sysfs writes domains out: 03:00.0 alone is something else.
        (part.matches(':').count() == 2).then(|| part.parse().ok())?
    };
    parts.iter().rev().find_map(address)
}

/// The names behind links such as `upper_br0`.
pub(super) fn neighbours(system: &dyn System, interface: &str, prefix: &str) -> Vec<String> {
    let names = system.names(&format!("/sys/class/net/{interface}"));
    let names = names.unwrap_or_default();
    let stripped = names.iter().filter_map(|name| name.strip_prefix(prefix));
    let usual = stripped.filter(|name| is_interface_name(name));
    usual.map(str::to_owned).collect()
}
