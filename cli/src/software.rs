//! NICs in software, by name: which it is, what is behind it, and its options.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use pagewire::drivers::Config;
use pagewire::virtio::Features;
use pagewire_models::ixgbe::DeviceId;
use pagewire_models::qtest::{VirtioOptions, VirtioOptionsError};
use pagewire_models::virtio::Offers;

/// A NIC in software: what is behind it, and which NIC it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SoftwareNic {
    /// What is behind it.
    pub(crate) backend: Backend,
    /// Which NIC it is.
    pub(crate) nic: NicKind,
    /// What was said of the device, and what that means: of virtio in the words of QEMU.
    text: String,
    ixgbe: DeviceId,
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
    /// Intel 82599, X540
    Ixgbe,
    /// virtio-net 1.x
    Virtio,
}

impl NicKind {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::E1000e, Self::Ixgbe, Self::Virtio];

    const fn name(self) -> &'static str {
        match self {
            Self::E1000e => "e1000e",
            Self::Ixgbe => "ixgbe",
            Self::Virtio => "virtio",
        }
    }
}

/// Members of the family of the 82599 that our model can be, by their names here: those that the
/// driver opens.
const IXGBE_DEVICES: [(&str, DeviceId); 4] = [
    ("kx4", DeviceId::Kx4),
    ("xaui", DeviceId::Xaui),
    ("sfp", DeviceId::Sfp),
    ("x540t", DeviceId::X540T),
];

/// Reads what was said of an 82599.
fn ixgbe_device(options: &str) -> Result<DeviceId, String> {
    let known = |text: &str| IXGBE_DEVICES.into_iter().find(|(name, _)| *name == text);
    match options.strip_prefix("device=").and_then(known) {
        Some((_, device)) => Ok(device),
        None => Err(
            "the option of model:ixgbe is device=kx4, device=xaui, device=sfp \
                     (82599) or device=x540t"
                .into(),
        ),
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

impl SoftwareNic {
    /// This NIC on that backend.
    pub(crate) fn new(backend: Backend, nic: NicKind) -> Self {
        Self {
            backend,
            nic,
            text: String::new(),
            ixgbe: DeviceId::default(),
            virtio: VirtioOptions::default(),
        }
    }

    /// The most pairs of queues that it can have: as many as were asked for where that can be said,
    /// else as many as driver and backend have.
    pub(crate) const fn most_queues(&self) -> u16 {
        match (self.backend, self.nic) {
            (Backend::Model, NicKind::Ixgbe) => 16,
            (Backend::Model, NicKind::Virtio) if self.virtio.queue_pairs > 1 => {
                self.virtio.queue_pairs
            }
            (Backend::Model, NicKind::Virtio) => 8,
            // QEMU's device has as many as its wire, a socket or a TAP here: one.
            (Backend::Qtest, _) | (Backend::Model, NicKind::E1000e) => 1,
        }
    }

    /// The same with at least `queues` pairs of queues, where that can be said.
    pub(crate) fn with_queues(mut self, queues: u16) -> Self {
        if self.backend == Backend::Model {
            self.virtio.queue_pairs = self.virtio.queue_pairs.max(queues);
        }
        self
    }

    /// What it is, for people.
    pub(crate) fn description(&self) -> String {
        let chip = match (self.nic, self.ixgbe) {
            (NicKind::E1000e, _) => "82574L",
            (NicKind::Ixgbe, DeviceId::X540T) => "X540",
            (NicKind::Ixgbe, _) => "82599",
            (NicKind::Virtio, _) => "virtio-net",
        };
        let driver = self.nic.name();
        match self.backend {
            Backend::Model => format!("driver {driver} on our model, {chip}"),
            Backend::Qtest => format!("driver {driver} on QEMU's own {chip}, by qtest"),
        }
    }

    /// The device as QEMU's option `-device` has it.
    pub(crate) fn qemu_device(&self) -> String {
        match self.nic {
            NicKind::Virtio => self.virtio.to_string(),
            other => other.name().into(),
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

    /// Which member of its family our model of the 82599 is.
    pub(crate) const fn ixgbe(&self) -> DeviceId {
        self.ixgbe
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

impl fmt::Display for SoftwareNic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.backend.name(), self.nic.name())?;
        if self.text.is_empty() {
            return Ok(());
        }
        write!(f, ",{}", self.text)
    }
}

impl FromStr for SoftwareNic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = text.split_once(',').unwrap_or((text, ""));
        let pairs = Backend::ALL
            .into_iter()
            .flat_map(|backend| NicKind::ALL.map(|nic| Self::new(backend, nic)))
            .filter(|device| (device.backend, device.nic) != (Backend::Qtest, NicKind::Ixgbe));
        let all: Vec<_> = pairs.collect();
        let Some(mut device) = all.iter().find(|known| known.to_string() == name).cloned() else {
            let known: Vec<_> = all.iter().map(ToString::to_string).collect();
            let why = match name {
                "qtest:ixgbe" => "QEMU has no 82599; ",
                _ => "",
            };
            return Err(format!("{why}NICs in software are {}", known.join(", ")));
        };
        if !text.contains(',') {
            return Ok(device);
        }
        match device.nic {
            NicKind::E1000e => return Err(format!("{device} has no options")),
            NicKind::Ixgbe => device.ixgbe = ixgbe_device(options)?,
            NicKind::Virtio => {
                device.virtio = options
                    .parse()
                    .map_err(|error: VirtioOptionsError| error.to_string())?;
            }
        }
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
            "model:ixgbe",
            "model:ixgbe,device=x540t",
            "model:virtio",
            "qtest:virtio",
            "model:virtio,packed=on",
            "qtest:virtio,indirect_desc=off,rx_queue_size=1024",
        ] {
            let device: SoftwareNic = name.parse().unwrap();
            assert_eq!(device.to_string(), name);
        }
        for bad in ["", "e1000e", "model:", "qtest:virtio ", "virtio,packed=on"] {
            let error = bad.parse::<SoftwareNic>().unwrap_err();
            assert!(error.contains("qtest:e1000e"), "{bad}: {error}");
        }
        for (bad, why) in [
            ("model:e1000e,packed=on", "has no options"),
            ("qtest:ixgbe", "QEMU has no 82599"),
            ("model:ixgbe,", "device=x540t"),
            ("model:ixgbe,device=82598", "device=x540t"),
            ("model:virtio,packed", "`=`"),
            ("model:virtio,packed=maybe", "on or off"),
            ("qtest:virtio,packd=on", "packed"),
            ("model:virtio,interface=legacy", "qtest:virtio only"),
            ("model:virtio,rx_queue_size=1024", "qtest:virtio only"),
            ("model:virtio,vectors=2", "qtest:virtio only"),
        ] {
            let error = bad.parse::<SoftwareNic>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_model_offers_what_qemus_device_would() {
        let device: SoftwareNic = "model:virtio".parse().unwrap();
        let offers = device.offers();
        assert!(!offers.packed && offers.indirect && offers.tso4 && !offers.multiqueue);
        assert!(!offers.mtu && offers.mac);
        let device: SoftwareNic = "model:virtio,packed=on,csum=off,queue_pairs=2"
            .parse()
            .unwrap();
        let offers = device.offers();
        assert!(offers.packed && !offers.checksum && offers.multiqueue);
        let mut config = Config::default();
        device.configure(&mut config);
        assert!(config.virtio.features.contains(Features::RING_PACKED));
    }
}
