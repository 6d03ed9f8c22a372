//! Names of devices, as every command takes them.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use pagewire::drivers::Config;
use pagewire::virtio::Features;
use pagewire_models::qtest::{VirtioOptions, VirtioOptionsError};
use pagewire_models::virtio::Offers;

/// A device: what is behind it, and which NIC it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeviceName {
    /// What is behind it.
    pub(crate) backend: Backend,
    /// Which NIC it is.
    pub(crate) nic: NicKind,
    /// What was said of a virtio device, in the words of QEMU, and what that means.
    text: String,
    virtio: VirtioOptions,
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
    /// virtio-net 1.x
    Virtio,
}

impl NicKind {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::E1000e, Self::Virtio];

    const fn name(self) -> &'static str {
        match self {
            Self::E1000e => "e1000e",
            Self::Virtio => "virtio",
        }
    }
}

impl Backend {
    const ALL: [Self; 2] = [Self::Model, Self::Qtest];

    const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Qtest => "qtest",
        }
    }
}

impl DeviceName {
    /// This NIC on that backend.
    pub(crate) fn new(backend: Backend, nic: NicKind) -> Self {
        Self {
            backend,
            nic,
            text: String::new(),
            virtio: VirtioOptions::default(),
        }
    }

    /// How memory of the program becomes reachable for it.
    pub(crate) const fn mapping(&self) -> &'static str {
        match self.backend {
            Backend::Model => "mapping its pages, once",
            Backend::Qtest => "one copy into the memory that is shared with QEMU",
        }
    }

    /// What it is, for people.
    pub(crate) const fn description(&self) -> &'static str {
        match (self.backend, self.nic) {
            (Backend::Model, NicKind::E1000e) => "driver e1000e on a model of the 82574L",
            (Backend::Qtest, NicKind::E1000e) => "driver e1000e on QEMU's own 82574L, by qtest",
            (Backend::Model, NicKind::Virtio) => "driver virtio on a model of virtio-net",
            (Backend::Qtest, NicKind::Virtio) => "driver virtio on QEMU's own virtio-net, by qtest",
        }
    }

    /// The device as QEMU's option `-device` has it.
    pub(crate) fn qemu_device(&self) -> String {
        match self.nic {
            NicKind::E1000e => "e1000e".into(),
            NicKind::Virtio => self.virtio.to_string(),
        }
    }

    /// What our model of virtio-net offers: the same as QEMU's device of these options.
    pub(crate) fn offers(&self) -> Offers {
        let options = &self.virtio;
        let mut offers = Offers::all();
        offers.packed = options.packed;
        offers.indirect = options.indirect_desc;
        offers.event_index = options.event_idx;
        offers.in_order = options.in_order;
        offers.merge_buffers = options.mrg_rxbuf;
        offers.checksum = options.csum;
        offers.tso4 = options.host_tso4;
        offers.tso6 = options.host_tso6;
        offers.guest_checksum = options.guest_csum;
        offers.guest_tso4 = options.guest_tso4;
        offers.guest_tso6 = options.guest_tso6;
        offers.status = options.status;
        offers.mtu = options.host_mtu.is_some();
        offers.ring_reset = options.queue_reset;
        offers.access_platform = options.iommu_platform;
        offers.control_queue = options.ctrl_vq;
        offers.control_receive = options.ctrl_vq;
        offers.control_mac = options.ctrl_vq;
        offers.multiqueue = options.ctrl_vq && options.queue_pairs > 1;
        offers
    }

    /// What was said of a virtio device.
    pub(crate) const fn virtio(&self) -> &VirtioOptions {
        &self.virtio
    }

    /// An option that was given and that our model of virtio-net does not have.
    fn not_of_the_model(&self) -> Option<&'static str> {
        let (options, usual) = (&self.virtio, VirtioOptions::default());
        let unknown = [
            (options.interface != usual.interface, "interface"),
            (
                options.rx_queue_size != usual.rx_queue_size,
                "rx_queue_size",
            ),
            (options.vectors.is_some(), "vectors"),
        ];
        let mut given = unknown.into_iter().filter(|(given, _)| *given);
        given.next().map(|(_, name)| name)
    }

    /// What the driver must want to use what is offered.
    pub(crate) fn configure(&self, config: &mut Config) {
        // A driver prefers split rings, whatever is offered.
        let features = &mut config.virtio.features;
        features.set(Features::RING_PACKED, self.virtio.packed);
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.backend.name(), self.nic.name())?;
        if self.text.is_empty() {
            return Ok(());
        }
        write!(f, ",{}", self.text)
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = text.split_once(',').unwrap_or((text, ""));
        let pairs = Backend::ALL
            .into_iter()
            .flat_map(|backend| NicKind::ALL.map(|nic| Self::new(backend, nic)));
        let all: Vec<_> = pairs.collect();
        let Some(mut device) = all.iter().find(|known| known.to_string() == name).cloned() else {
            let known: Vec<_> = all.iter().map(ToString::to_string).collect();
            return Err(format!("devices are {}", known.join(", ")));
        };
        if !text.contains(',') {
            return Ok(device);
        }
        if device.nic != NicKind::Virtio {
            return Err(format!("{device} has no options"));
        }
        device.virtio = options
            .parse()
            .map_err(|error: VirtioOptionsError| error.to_string())?;
        device.text = options.to_owned();
        match device.not_of_the_model() {
            Some(name) if device.backend == Backend::Model => {
                Err(format!("{name} is an option of qtest:virtio only"))
            }
            _ => Ok(device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in [
            "model:e1000e",
            "qtest:e1000e",
            "model:virtio",
            "qtest:virtio",
            "model:virtio,packed=on",
            "qtest:virtio,indirect_desc=off,rx_queue_size=1024",
        ] {
            let device: DeviceName = name.parse().unwrap();
            assert_eq!(device.to_string(), name);
        }
        for bad in ["", "e1000e", "model:", "qtest:virtio ", "virtio,packed=on"] {
            let error = bad.parse::<DeviceName>().unwrap_err();
            assert!(error.contains("qtest:e1000e"), "{bad}: {error}");
        }
        for (bad, why) in [
            ("model:e1000e,packed=on", "has no options"),
            ("model:virtio,packed", "`=`"),
            ("model:virtio,packed=maybe", "on or off"),
            ("qtest:virtio,packd=on", "packed"),
            ("model:virtio,interface=legacy", "qtest:virtio only"),
            ("model:virtio,rx_queue_size=1024", "qtest:virtio only"),
            ("model:virtio,vectors=2", "qtest:virtio only"),
        ] {
            let error = bad.parse::<DeviceName>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_model_offers_what_qemus_device_would() {
        let device: DeviceName = "model:virtio".parse().unwrap();
        let offers = device.offers();
        assert!(!offers.packed && offers.indirect && offers.tso4 && !offers.multiqueue);
        assert!(!offers.mtu && offers.mac);
        let device: DeviceName = "model:virtio,packed=on,csum=off,queue_pairs=2"
            .parse()
            .unwrap();
        let offers = device.offers();
        assert!(offers.packed && !offers.checksum && offers.multiqueue);
        let mut config = Config::default();
        device.configure(&mut config);
        assert!(config.virtio.features.contains(Features::RING_PACKED));
    }
}
