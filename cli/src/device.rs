//! Names of devices, as every command takes them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use pagewire::drivers::Config;
use pagewire_vfio::PciAddress;

use crate::error::shown;
use crate::software::SoftwareNic;

/// A device as a user names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DeviceName {
    /// A NIC in software: `model:e1000e`, `qtest:virtio,packed=on`.
    Software(SoftwareNic),
    /// A NIC of this machine that is bound to vfio-pci: `0000:03:00.0`, `03:00.0`.
    Pci(PciAddress),
    /// A device that another process plays, at its vfio-user socket: `vfio-user:/run/nic.sock`.
    VfioUser(PathBuf),
}

/// What stands before the path of a socket.
const VFIO_USER: &str = "vfio-user:";

impl DeviceName {
    /// The most pairs of queues that it can have: as many as were asked for where that can be said,
    /// else as many as driver and backend have.
    pub(crate) const fn most_queues(&self) -> u16 {
        match self {
            Self::Software(nic) => nic.most_queues(),
            // What it has is known when it is open.
            Self::Pci(_) | Self::VfioUser(_) => u16::MAX,
        }
    }

    /// The same with at least `queues` pairs of queues, where that can be said.
    pub(crate) fn with_queues(self, queues: u16) -> Self {
        match self {
            Self::Software(nic) => Self::Software(nic.with_queues(queues)),
            Self::Pci(_) | Self::VfioUser(_) => self,
        }
    }

    /// What the driver must want to use what is offered.
    pub(crate) fn configure(&self, config: &mut Config) {
        match self {
            Self::Software(nic) => nic.configure(config),
            Self::Pci(_) | Self::VfioUser(_) => {}
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Software(nic) => nic.fmt(f),
            Self::Pci(address) => address.fmt(f),
            Self::VfioUser(socket) => write!(f, "{VFIO_USER}{}", shown(socket)),
        }
    }
}

impl FromStr for DeviceName {
    type Err = String;

    /// What begins with a hexadecimal digit and has a colon is meant as an address: no backend's
    /// name has one before its colon.
    fn from_str(text: &str) -> Result<Self, String> {
        let before = text.split_once(':').map_or("", |(before, _)| before);
        if !before.is_empty() && before.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let address = text.parse::<PciAddress>();
            return address.map(Self::Pci).map_err(|error| error.to_string());
        }
        match text.strip_prefix(VFIO_USER) {
            Some("") => {
                return Err(format!(
                    "{VFIO_USER} wants a socket: {VFIO_USER}/run/nic.sock"
                ));
            }
            Some(socket) => return Ok(Self::VfioUser(socket.into())),
            None => {}
        }
        text.parse().map(Self::Software).map_err(|why| {
            format!(
                "{why}; a NIC of this machine is named by its PCI address, 0000:03:00.0, and one \
                 that another process plays by its socket, {VFIO_USER}/run/nic.sock"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (name, shown) in [
            ("0000:03:00.0", "0000:03:00.0"),
            ("03:00.0", "0000:03:00.0"),
            ("10000:e1:00.0", "10000:e1:00.0"),
            ("model:virtio,packed=on", "model:virtio,packed=on"),
            ("vfio-user:nic:0", "vfio-user:nic:0"),
        ] {
            let device: DeviceName = name.parse().unwrap();
            assert_eq!(device.to_string(), shown);
            assert_eq!(matches!(device, DeviceName::Pci(_)), name.contains('.'));
            let by_socket = matches!(device, DeviceName::VfioUser(_));
            assert_eq!(by_socket, name.starts_with("vfio-user"));
        }
        for (bad, why) in [
            ("", "model:e1000e"),
            ("vfio-user", "vfio-user:/run/nic.sock"),
            ("vfio-user:", "wants a socket"),
            ("eth1", "0000:03:00.0"),
            ("e1000e", "0000:03:00.0"),
            ("03:00", "is no PCI address"),
            ("0000:03:20.0", "is no PCI address"),
            ("model:03:00.0", "model:e1000e"),
        ] {
            let error = bad.parse::<DeviceName>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
