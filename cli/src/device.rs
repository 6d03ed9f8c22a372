//! Names of devices, as every command takes them.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;

/// A device: what is behind it, and which NIC it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DeviceName {
    /// What is behind it.
    pub(crate) backend: Backend,
    /// Which NIC it is.
    pub(crate) nic: NicKind,
}

/// What is behind a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Backend {
    /// The project's own software model, in this process.
    Model,
    /// QEMU's own device, without a guest.
    Qtest,
}

/// A NIC that there is a driver for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum NicKind {
    /// Intel 82574L
    E1000e,
}

/// All devices that can be named.
const ALL: [DeviceName; 2] = [
    DeviceName::new(Backend::Model, NicKind::E1000e),
    DeviceName::new(Backend::Qtest, NicKind::E1000e),
];

impl DeviceName {
    /// This NIC on that backend.
    pub(crate) const fn new(backend: Backend, nic: NicKind) -> Self {
        Self { backend, nic }
    }

    /// How memory of the program becomes reachable for it.
    pub(crate) const fn mapping(self) -> &'static str {
        match self.backend {
            Backend::Model => "mapping its pages, once",
            Backend::Qtest => "one copy into the memory that is shared with QEMU",
        }
    }

    /// What it is, for people.
    pub(crate) const fn description(self) -> &'static str {
        match (self.backend, self.nic) {
            (Backend::Model, NicKind::E1000e) => "driver e1000e on a model of the 82574L",
            (Backend::Qtest, NicKind::E1000e) => "driver e1000e on QEMU's own 82574L, by qtest",
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = match self.backend {
            Backend::Model => "model",
            Backend::Qtest => "qtest",
        };
        let nic = match self.nic {
            NicKind::E1000e => "e1000e",
        };
        write!(f, "{backend}:{nic}")
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = ALL.into_iter().find(|name| name.to_string() == text);
        found.ok_or_else(|| {
            let known: Vec<_> = ALL.iter().map(ToString::to_string).collect();
            format!("devices are {}", known.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        for bad in ["", "e1000e", "model:", "qtest:virtio ", "model:e1000e,x"] {
            let error = bad.parse::<DeviceName>().unwrap_err();
            assert!(error.contains("qtest:e1000e"), "{bad}: {error}");
        }
    }
}
