//! What became of a `bind` or `unbind`: data for whoever reports it.

use std::fmt;
use std::io;

use super::group::IommuGroup;
use super::holders::Holder;
use super::nic::Missing;
use super::refusal::{Refusal, joined};
use super::verdict::Note;
use crate::PciAddress;

/// A device that VFIO has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The device.
    pub address: PciAddress,
    /// Whether anything was changed: false if VFIO had it already.
    pub changed: bool,
    /// The driver that it had before, where that is known.
    pub previous: Option<String>,
    /// Its IOMMU group.
    pub group: IommuGroup,
    /// The device files by which user space reaches it.
    pub files: Vec<String>,
    /// What was done.
    pub steps: Vec<Step>,
    /// What to know.
    pub notes: Vec<Note>,
}

/// A device that VFIO no longer has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unbound {
    /// The device.
    pub address: PciAddress,
    /// Whether anything was changed.
    pub changed: bool,
    /// Its driver now.
    pub driver: Option<String>,
    /// Whether the driver it had before was known; if not, the kernel chose.
    pub remembered: bool,
    /// What was done.
    pub steps: Vec<Step>,
}

/// What was wanted of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// That VFIO gets it, or a user its files.
    Bind,
    /// That VFIO lets go of it.
    Unbind,
}

/// One thing done to the machine. Its `Display` says it as an order.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// A module is loaded.
    LoadModule(String),
    /// What the device has is written down.
    Remember,
    /// The device is kept for one driver, or for none.
    Override(Option<String>),
    /// The device is taken from a driver.
    Take(String),
    /// The kernel is asked to find a driver for the device.
    Probe,
    /// The device is given to a driver.
    Give(String),
    /// The device files are waited for.
    DeviceFile,
    /// A file is given to a user.
    Own {
        /// The file.
        file: String,
        /// The user's number.
        user: u32,
    },
    /// What was written down is removed.
    Forget,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoadModule(name) => write!(f, "load module {name}"),
            Self::Remember => f.write_str("remember what it had"),
            Self::Override(Some(driver)) => write!(f, "keep it for {driver} (driver_override)"),
            Self::Override(None) => f.write_str("let every driver have it (driver_override)"),
            Self::Take(driver) => write!(f, "take it from {driver} (unbind)"),
            Self::Probe => f.write_str("let the kernel find its driver (drivers_probe)"),
            Self::Give(driver) => write!(f, "give it to {driver} (bind)"),
            Self::DeviceFile => f.write_str("wait for its device file"),
            Self::Own { file, user } => write!(f, "give {file} to user {user}"),
            Self::Forget => f.write_str("forget what it had"),
        }
    }
}

/// Why it was not done.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// There is no such device.
    Missing(Missing),
    /// There is no such user.
    NoSuchUser(String),
    /// Another `bind` or `unbind` is at work.
    Busy,
    /// The lock cannot be had.
    Lock(io::Error),
    /// It must not be done, and nothing was.
    Refused {
        /// What was wanted.
        action: Action,
        /// The device.
        address: PciAddress,
        /// Why.
        refusals: Vec<Refusal>,
    },
    /// Processes have the device, or its group, open: taking it would wait for them for ever.
    InUse {
        /// The device.
        address: PciAddress,
        /// The processes.
        holders: Vec<Holder>,
    },
    /// It was begun and did not succeed.
    Failed {
        /// The device.
        address: PciAddress,
        /// What did not succeed.
        step: Step,
        /// Why.
        reason: Reason,
        /// How the device was left.
        after: After,
    },
}

/// Why a step did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The kernel or the file system refused.
    Io(io::Error),
    /// The user asked to end (Ctrl-C).
    Interrupted,
    /// The device has another driver than it should, or none.
    Driver(Option<String>),
    /// No device file appeared.
    NoDeviceFile,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Driver(Some(driver)) => {
                write!(
                    f,
                    "{driver} has it instead; the kernel's log (dmesg) may say why"
                )
            }
            Self::Driver(None) => {
                f.write_str("no driver took it; the kernel's log (dmesg) may say why")
            }
            Self::NoDeviceFile => {
                f.write_str("none appears in /dev/vfio (is devtmpfs mounted on /dev?)")
            }
        }
    }
}

/// How a device was left when something did not succeed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum After {
    /// Nothing had been changed.
    Unchanged,
    /// It has again what it had: this driver, or none.
    Back(Option<String>),
    /// The device is gone.
    Gone,
    /// It could not be put back.
    Left {
        /// Its driver now.
        driver: Option<String>,
        /// What stood in the way.
        because: String,
    },
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("nothing was changed"),
            Self::Back(Some(driver)) => write!(f, "it is back with {driver}"),
            Self::Back(None) => f.write_str("it has no driver, as before"),
            Self::Gone => f.write_str("the device has gone"),
            Self::Left { driver, because } => {
                let driver = driver.as_deref().unwrap_or("no driver");
                write!(
                    f,
                    "it was left with {driver} ({because}): `pagewire unbind` tries again"
                )
            }
        }
    }
}

impl Problem {
    /// Whether it was begun: then a step failed, and the device is as [`After`] says.
    #[must_use]
    pub fn was_begun(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// Whether the user ended it.
    #[must_use]
    pub fn was_interrupted(&self) -> bool {
        matches!(
            self,
            Self::Failed {
                reason: Reason::Interrupted,
                ..
            }
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => missing.fmt(f),
            Self::NoSuchUser(user) => write!(
                f,
                "there is no user \"{}\" in /etc/passwd: a number (id -u) will do as well",
                user.escape_debug()
            ),
            Self::Busy => {
                f.write_str("another `pagewire bind` or `unbind` is at work: try again after it")
            }
            Self::Lock(error) => write!(
                f,
                "cannot keep the lock and what a device had in /run/pagewire: {error} (it has to \
                 be root's alone to write, on a file system that can be written: mount -t tmpfs \
                 tmpfs /run)"
            ),
            Self::Refused {
                action,
                address,
                refusals,
            } => {
                let reasons: Vec<_> = refusals
                    .iter()
                    .map(|refusal| format!("{refusal} [{}]", refusal.mend()))
                    .collect();
                let what = match action {
                    Action::Bind => "bound",
                    Action::Unbind => "unbound",
                };
                write!(f, "{address} is not {what}: {}", reasons.join("; "))
            }
            Self::InUse { address, holders } => write!(
                f,
                "{address} is in use by {}: end that first",
                joined(holders)
            ),
            Self::Failed {
                address,
                step,
                reason,
                after,
            } => write!(f, "{address}: cannot {step}: {reason}; {after}"),
        }
    }
}

impl std::error::Error for Problem {}
