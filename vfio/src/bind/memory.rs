//! What a device had before it was bound, remembered across processes.
//!
//! It has to survive the process and a crash, and to be gone when the binding is: a reboot undoes
//! both. So it is a small file for each device in `/run/pagewire/bind`, which is in memory. sysfs
//! offers no place for it (`driver_override` is compared whole), and the kernel's own choice of a
//! driver, by its table of ids, is not always the one that was there. The file is written before
//! the first change, so that whatever is cut short can be taken back by `unbind`; without the file
//! `unbind` lets the kernel choose.

use std::io;

use super::nic::{Driver, Nic, Override};
use super::system::System;
use super::text::{Target, is_kernel_name};
use crate::PciAddress;

/// Where the files are.
const FOLDER: &str = "/run/pagewire/bind";

/// The lock that `bind` and `unbind` hold.
pub(super) const LOCK: &str = "/run/pagewire/bind/lock";

/// What a device had.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Before {
    /// Its driver; `None` if it had none.
    pub driver: Option<String>,
    /// The module of that driver, where it is one.
    pub module: Option<String>,
    /// The driver that was named for this device alone (`driver_override`).
    pub driver_override: Option<String>,
}

fn path(address: PciAddress) -> String {
    format!("{FOLDER}/{address}")
}

impl Before {
    /// What the device has now.
    pub(super) fn now(system: &dyn System, nic: &Nic) -> Self {
        let driver = nic.driver.name().map(str::to_owned);
        let link = |driver| format!("/sys/bus/pci/drivers/{driver}/module");
        Self {
            module: driver
                .as_ref()
                .and_then(|driver| Target::of(system, &link(driver)).name()),
            driver_override: match &nic.driver_override {
                Override::Name(name) => Some(name.clone()),
                Override::None | Override::Unsupported => None,
            },
            driver,
        }
    }

    /// `driver_override` as it is to be in the end.
    pub(super) fn wanted_override(&self) -> Override {
        Override::of(self.driver_override.as_deref())
    }

    /// `driver_override` as it has to be while the device, which `driver` has now, is given back:
    /// one that names another driver (driverctl and udev rules do, for the next boot) would keep
    /// it from the driver that it had.
    pub(super) fn override_while_given(&self, driver: &Driver) -> Option<String> {
        let back = self.driver.as_deref();
        let name = self.driver_override.clone();
        name.filter(|name| back.is_none_or(|back| back == name) || driver.name() == back)
    }

    /// What is remembered of the device; `None` if nothing is, or if it is another device's that
    /// sat there before.
    pub(super) fn recall(system: &dyn System, nic: &Nic) -> Option<Self> {
        let bytes = system.read(&path(nic.address)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let value = |key: &str| {
            let values = text.lines().filter_map(|line| line.split_once('='));
            let value = values.into_iter().find(|(name, _)| *name == key)?.1;
            is_kernel_name(value).then(|| value.to_owned())
        };
        (value("ids")? == ids(nic)).then(|| Self {
            driver: value("driver"),
            module: value("module"),
            driver_override: value("driver_override"),
        })
    }

    /// Remembers it.
    pub(super) fn remember(&self, system: &mut dyn System, nic: &Nic) -> io::Result<()> {
        let text = format!(
            "# What {} had before `pagewire bind`; empty: none\n\
             ids={}\ndriver={}\nmodule={}\ndriver_override={}\n",
            nic.address,
            ids(nic),
            self.driver.as_deref().unwrap_or_default(),
            self.module.as_deref().unwrap_or_default(),
            self.driver_override.as_deref().unwrap_or_default(),
        );
        system.save(&path(nic.address), &text)
    }
}

/// Forgets it. That nothing was remembered is no error.
pub(super) fn forget(system: &mut dyn System, address: PciAddress) -> io::Result<()> {
    match system.remove(&path(address)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn ids(nic: &Nic) -> String {
    let id = |id: Option<u16>| id.map_or_else(|| "?".into(), |id| format!("{id:04x}"));
    format!("{}:{}", id(nic.vendor), id(nic.device))
}
