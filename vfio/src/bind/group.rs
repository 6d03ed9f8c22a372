//! IOMMU groups, and whether the kernel lets user space have one.
//!
//! The rule is the kernel's: a group can be opened if every device in it has no driver, or one
//! that does no DMA on the kernel's behalf. Up to Linux 5.18 VFIO decided (`vfio_dev_viable`: no
//! driver, a VFIO driver, `pci-stub`, or any bridge); since 5.19 the IOMMU core does, by a mark in
//! the driver (`driver_managed_dma`): the VFIO drivers, `pci-stub` and `pcieport` have it. A bridge
//! that another driver has (`shpchp`) was fine before and no longer is. Here the newer, stricter rule holds for every kernel.

use std::fmt;

use super::system::System;
use super::text::{Target, hexadecimal, line, names_or_none};
use crate::PciAddress;

/// The group that a device is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IommuGroup {
    /// None: no IOMMU, or one that does not cover the device.
    None,
    /// This one.
    Number(u32),
    /// A made-up group of VFIO's mode without an IOMMU.
    Unsafe(u32),
    /// The link to it is odd.
    Odd(String),
}

impl IommuGroup {
    /// Its number.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        match *self {
            Self::Number(number) | Self::Unsafe(number) => Some(number),
            Self::None | Self::Odd(_) => None,
        }
    }

    pub(super) fn read(system: &dyn System, device: &str) -> Self {
        let name = match Target::of(system, &format!("{device}/iommu_group")) {
            Target::Name(name) => name,
            Target::None => return Self::None,
            Target::Odd(target) => return Self::Odd(target),
        };
        let Ok(number) = name.parse() else {
            return Self::Odd(name);
        };
        // The kernel names the groups that VFIO makes up.
        match line(system, &format!("{device}/iommu_group/name")).as_deref() {
            Some("vfio-noiommu") => Self::Unsafe(number),
            _ => Self::Number(number),
        }
    }
}

/// Another device in the same group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Companion {
    /// Its name in sysfs: a PCI address, as a rule.
    pub name: String,
    /// Its PCI class (base class, subclass, interface).
    pub class: Option<u32>,
    /// Its driver.
    pub driver: Option<String>,
    /// What that means for the group.
    pub usage: Usage,
}

/// What a device's driver means for its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Usage {
    /// It has no driver.
    Free,
    /// User space has it by VFIO, or may have it: one process gets the whole group.
    Vfio,
    /// Its driver does no DMA: `pcieport`, `pci-stub`.
    Harmless,
    /// The kernel uses it: the group cannot be had.
    InUse,
}

impl Usage {
    fn of(driver: &Target) -> Self {
        match driver {
            Target::None => Self::Free,
            Target::Name(name) if is_vfio(name) => Self::Vfio,
            Target::Name(name) if name == "pcieport" || name == "pci-stub" => Self::Harmless,
            Target::Name(_) | Target::Odd(_) => Self::InUse,
        }
    }
}

/// vfio-pci, and its variants for one kind of device (mlx5_vfio_pci, virtio_vfio_pci, …).
pub(super) fn is_vfio(driver: &str) -> bool {
    driver == "vfio-pci" || driver.ends_with("_vfio_pci") || driver.ends_with("-vfio-pci")
}

impl Companion {
    /// A bridge between PCI buses (class 0604).
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.class.is_some_and(|class| class >> 8 == 0x0604)
    }

    /// All in the group of a device but itself.
    ///
    /// # Errors
    /// The folder is there and cannot be read: it is not known what else there is.
    pub(super) fn all(
        system: &dyn System,
        device: &str,
        address: PciAddress,
    ) -> Result<Vec<Self>, String> {
        let folder = format!("{device}/iommu_group/devices");
        let own = address.to_string();
        let names = names_or_none(system, &folder)?;
        let others = names.into_iter().filter(|name| *name != own);
        Ok(others
            .map(|name| Self::read(system, &folder, name))
            .collect())
    }

    fn read(system: &dyn System, folder: &str, name: String) -> Self {
        let device = format!("{folder}/{name}");
        // A name that is not UTF-8 cannot be asked for: then it counts as in use.
        let driver = if name.contains(char::REPLACEMENT_CHARACTER) {
            Target::Odd(name.escape_debug().to_string())
        } else {
            Target::of(system, &format!("{device}/driver"))
        };
        Self {
            class: hexadecimal(system, &format!("{device}/class")),
            usage: Usage::of(&driver),
            driver: match driver {
                Target::Name(driver) | Target::Odd(driver) => Some(driver),
                Target::None => None,
            },
            name: name.escape_debug().to_string(),
        }
    }
}

impl fmt::Display for Companion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(class) = self.class {
            write!(f, " (class {:04x}", class >> 8)?;
            match &self.driver {
                Some(driver) => write!(f, ", driver {driver})"),
                None => f.write_str(", no driver)"),
            }
        } else {
            match &self.driver {
                Some(driver) => write!(f, " (driver {driver})"),
                None => f.write_str(" (no driver)"),
            }
        }
    }
}
