//! The options of QEMU's virtio-net device, as its command line has them.

use std::fmt;
use std::str::FromStr;

use pagewire_hal::MacAddress;

/// Fewest descriptors of a queue that QEMU lets its device have (`VIRTIO_NET_TX_QUEUE_MIN_SIZE`
/// and its like for receive, QEMU `hw/net/virtio-net.c`).
const LEAST_QUEUE_SIZE: u16 = 256;
/// Most descriptors of a queue (`VIRTQUEUE_MAX_SIZE` there).
const MOST_QUEUE_SIZE: u16 = 1024;
/// More than the TAP interfaces of Linux have.
const MOST_QUEUE_PAIRS: u16 = 256;
/// The smallest MTU that a device may tell (virtio 1.3, section 5.1.4.1).
const LEAST_MTU: u16 = 68;

/// Which interface the device has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum VirtioInterface {
    /// That of virtio 1.x: 1af4:1041.
    #[default]
    Modern,
    /// Both: 1af4:1000 with the structures of virtio 1.x.
    Transitional,
    /// That before virtio 1.0 alone: 1af4:1000.
    Legacy,
}

/// A virtio-net device of QEMU. `Display` writes what `-device` takes, without the network
/// backend; `FromStr` reads the options that differ from the default, in QEMU's words:
/// "packed=on,event_idx=off,rx_queue_size=1024".
///
/// What the device offers also depends on the backend: checksums and segmentation need a TAP with
/// virtio-net headers, several queue pairs one with as many queues ([`Netdev`](super::Netdev)).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct VirtioOptions {
    /// Offers RING_PACKED.
    pub packed: bool,
    /// Offers INDIRECT_DESC.
    pub indirect_desc: bool,
    /// Offers EVENT_IDX.
    pub event_idx: bool,
    /// Offers IN_ORDER.
    pub in_order: bool,
    /// Offers MRG_RXBUF.
    pub mrg_rxbuf: bool,
    /// Offers CSUM.
    pub csum: bool,
    /// Offers HOST_TSO4.
    pub host_tso4: bool,
    /// Offers HOST_TSO6.
    pub host_tso6: bool,
    /// Offers GUEST_CSUM.
    pub guest_csum: bool,
    /// Offers GUEST_TSO4.
    pub guest_tso4: bool,
    /// Offers GUEST_TSO6.
    pub guest_tso6: bool,
    /// Offers STATUS.
    pub status: bool,
    /// Offers CTRL_VQ.
    pub ctrl_vq: bool,
    /// Offers RING_RESET.
    pub queue_reset: bool,
    /// Offers ACCESS_PLATFORM.
    pub iommu_platform: bool,
    /// Which interface it has.
    pub interface: VirtioInterface,
    /// Pairs of queues, from 1 to 256: as many as the backend has. More than one offer MQ.
    pub queue_pairs: u16,
    /// Descriptors of a transmit queue. QEMU takes 256 alone, unless its backend is one that is
    /// not used here (vhost-user).
    pub tx_queue_size: u16,
    /// Descriptors of a receive queue: 256, 512 or 1024.
    pub rx_queue_size: u16,
    /// MSI-X vectors; QEMU's choice if `None`: one for each queue, the control queue and the
    /// configuration.
    pub vectors: Option<u16>,
    /// Offers MTU with this value in bytes, at least 68.
    pub host_mtu: Option<u16>,
    /// The station address; QEMU's choice if `None`.
    pub mac: Option<MacAddress>,
}

impl Default for VirtioOptions {
    /// As QEMU has it, but modern only: split rings, everything offered but IN_ORDER and
    /// ACCESS_PLATFORM, one pair of queues of 256 descriptors.
    fn default() -> Self {
        Self {
            packed: false,
            indirect_desc: true,
            event_idx: true,
            in_order: false,
            mrg_rxbuf: true,
            csum: true,
            host_tso4: true,
            host_tso6: true,
            guest_csum: true,
            guest_tso4: true,
            guest_tso6: true,
            status: true,
            ctrl_vq: true,
            queue_reset: true,
            iommu_platform: false,
            interface: VirtioInterface::Modern,
            queue_pairs: 1,
            tx_queue_size: 256,
            rx_queue_size: 256,
            vectors: None,
            host_mtu: None,
            mac: None,
        }
    }
}

impl VirtioOptions {
    /// What is on or off, by QEMU's names.
    fn switches(&mut self) -> [(&'static str, &mut bool); 15] {
        [
            ("packed", &mut self.packed),
            ("indirect_desc", &mut self.indirect_desc),
            ("event_idx", &mut self.event_idx),
            ("in_order", &mut self.in_order),
            ("mrg_rxbuf", &mut self.mrg_rxbuf),
            ("csum", &mut self.csum),
            ("host_tso4", &mut self.host_tso4),
            ("host_tso6", &mut self.host_tso6),
            ("guest_csum", &mut self.guest_csum),
            ("guest_tso4", &mut self.guest_tso4),
            ("guest_tso6", &mut self.guest_tso6),
            ("status", &mut self.status),
            ("ctrl_vq", &mut self.ctrl_vq),
            ("queue_reset", &mut self.queue_reset),
            ("iommu_platform", &mut self.iommu_platform),
        ]
    }

    /// Sets the option `name`.
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        for (switch, state) in self.switches() {
            if switch == name {
                *state = on_or_off(value)?;
                return Ok(());
            }
        }
        let sizes = LEAST_QUEUE_SIZE..=MOST_QUEUE_SIZE;
        match name {
            "interface" => self.interface = interface(value)?,
            "queue_pairs" => self.queue_pairs = number(value, 1..=MOST_QUEUE_PAIRS)?,
            "tx_queue_size" => self.tx_queue_size = power_of_two(value, sizes)?,
            "rx_queue_size" => self.rx_queue_size = power_of_two(value, sizes)?,
            "vectors" => self.vectors = Some(number(value, 0..=2048)?),
            "host_mtu" => self.host_mtu = Some(number(value, LEAST_MTU..=u16::MAX)?),
            "mac" => self.mac = Some(station_address(value)?),
            _ => return Err(format!("no such option; there are {}", self.names())),
        }
        Ok(())
    }

    fn names(&mut self) -> String {
        let switches = self.switches().map(|(name, _)| name).join(", ");
        let others = "interface, queue_pairs, tx_queue_size, rx_queue_size, vectors, host_mtu, mac";
        format!("{switches}, {others}")
    }
}

impl fmt::Display for VirtioOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |on: bool| if on { "on" } else { "off" };
        let (legacy, modern) = match self.interface {
            VirtioInterface::Modern => (false, true),
            VirtioInterface::Transitional => (true, true),
            VirtioInterface::Legacy => (true, false),
        };
        let (no_legacy, no_modern) = (word(!legacy), word(!modern));
        let name = "virtio-net-pci";
        write!(
            f,
            "{name},disable-legacy={no_legacy},disable-modern={no_modern}"
        )?;
        for (name, state) in self.clone().switches() {
            write!(f, ",{name}={}", word(*state))?;
        }
        write!(f, ",mq={}", word(self.queue_pairs > 1))?;
        let (tx, rx) = (self.tx_queue_size, self.rx_queue_size);
        write!(f, ",tx_queue_size={tx},rx_queue_size={rx}")?;
        if let Some(vectors) = self.vectors {
            write!(f, ",vectors={vectors}")?;
        }
        if let Some(mtu) = self.host_mtu {
            write!(f, ",host_mtu={mtu}")?;
        }
        if let Some(mac) = self.mac {
            write!(f, ",mac={mac}")?;
        }
        Ok(())
    }
}

/// Why a text is no [`VirtioOptions`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtioOptionsError {
    option: String,
    why: String,
}

impl fmt::Display for VirtioOptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option `{}` of virtio: {}", self.option, self.why)
    }
}

impl std::error::Error for VirtioOptionsError {}

impl FromStr for VirtioOptions {
    type Err = VirtioOptionsError;

    /// Reads options that are separated by commas, each a name and a value with `=` between; none
    /// is the default. Of an option that comes twice the last counts.
    fn from_str(text: &str) -> Result<Self, VirtioOptionsError> {
        let mut options = Self::default();
        if text.is_empty() {
            return Ok(options);
        }
        for option in text.split(',') {
            let set = match option.split_once('=') {
                Some((name, value)) => options.set(name, value),
                None => Err("a name, `=` and a value are wanted".to_owned()),
            };
            set.map_err(|why| VirtioOptionsError {
                option: option.to_owned(),
                why,
            })?;
        }
        Ok(options)
    }
}

fn on_or_off(value: &str) -> Result<bool, String> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".to_owned()),
    }
}

fn interface(value: &str) -> Result<VirtioInterface, String> {
    match value {
        "modern" => Ok(VirtioInterface::Modern),
        "transitional" => Ok(VirtioInterface::Transitional),
        "legacy" => Ok(VirtioInterface::Legacy),
        _ => Err("it is modern, transitional or legacy".to_owned()),
    }
}

fn number(value: &str, range: std::ops::RangeInclusive<u16>) -> Result<u16, String> {
    let found = value.parse().ok().filter(|number| range.contains(number));
    found.ok_or_else(|| format!("it is a number from {} to {}", range.start(), range.end()))
}

fn power_of_two(value: &str, range: std::ops::RangeInclusive<u16>) -> Result<u16, String> {
    let found = number(value, range.clone()).ok();
    found
        .filter(|number| number.is_power_of_two())
        .ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            format!("it is a power of two from {least} to {most}, in QEMU's device")
        })
}

/// Reads the address of a station: six bytes, not of a group, not zero.
///
/// # Errors
/// What is wanted, in words.
pub fn station_address(value: &str) -> Result<MacAddress, String> {
    let wrong = || "it is a station address, as 52:54:00:12:34:56".to_owned();
    let mut mac = [0; 6];
    let mut parts = value.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        let is_hex = |part: &&str| part.bytes().all(|digit| digit.is_ascii_hexdigit());
        let part = part.filter(is_hex).ok_or_else(wrong)?;
        *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
    }
    let mac = MacAddress(mac);
    if parts.next().is_some() || mac.is_multicast() || mac.0 == [0; 6] {
        return Err(wrong());
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_modern_and_names_every_switch() {
        assert_eq!(
            VirtioOptions::default().to_string(),
            "virtio-net-pci,disable-legacy=on,disable-modern=off,packed=off,indirect_desc=on,\
             event_idx=on,in_order=off,mrg_rxbuf=on,csum=on,host_tso4=on,host_tso6=on,\
             guest_csum=on,guest_tso4=on,guest_tso6=on,status=on,ctrl_vq=on,queue_reset=on,\
             iommu_platform=off,mq=off,tx_queue_size=256,rx_queue_size=256"
        );
        assert_eq!("".parse(), Ok(VirtioOptions::default()));
    }

    #[test]
    fn each_option_is_read_and_written() {
        let usual = VirtioOptions::default().to_string();
        let mut default = VirtioOptions::default();
        for (name, usually) in default.switches() {
            let other = if *usually { "off" } else { "on" };
            let read: VirtioOptions = format!("{name}={other}").parse().unwrap();
            let written = read.to_string();
            assert!(written.contains(&format!(",{name}={other},")), "{written}");
            let differences = written.split(',').zip(usual.split(','));
            assert_eq!(differences.filter(|(a, b)| a != b).count(), 1, "{name}");
        }
        let text = "interface=legacy,queue_pairs=4,tx_queue_size=512,rx_queue_size=1024,\
                    host_mtu=9000,mac=02:00:00:00:00:0a";
        let written = text.parse::<VirtioOptions>().unwrap().to_string();
        for part in [
            "disable-legacy=off,disable-modern=on",
            "mq=on",
            "tx_queue_size=512,rx_queue_size=1024,host_mtu=9000",
            "host_mtu=9000,mac=02:00:00:00:00:0a",
        ] {
            assert!(written.contains(part), "{part} in {written}");
        }
        let both = "interface=transitional,vectors=3,packed=on,packed=off"
            .parse::<VirtioOptions>()
            .unwrap();
        let written = both.to_string();
        assert!(written.contains("disable-legacy=off,disable-modern=off,packed=off,"));
        assert!(written.ends_with(",vectors=3"), "{written}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, option, why) in [
            ("packed", "packed", "a name, `=`"),
            ("packed=on,", "", "a name, `=`"),
            ("packed=yes", "packed=yes", "on or off"),
            (
                "packed=on,pcked=on",
                "pcked=on",
                "there are packed, indirect_desc",
            ),
            ("netdev=x", "netdev=x", "no such option"),
            ("queue_pairs=0", "queue_pairs=0", "from 1 to 256"),
            (
                "rx_queue_size=64",
                "rx_queue_size=64",
                "power of two from 256",
            ),
            ("rx_queue_size=300", "rx_queue_size=300", "power of two"),
            ("tx_queue_size=2048", "tx_queue_size=2048", "to 1024"),
            ("host_mtu=67", "host_mtu=67", "from 68"),
            ("host_mtu=70000", "host_mtu=70000", "to 65535"),
            (
                "interface=old",
                "interface=old",
                "modern, transitional or legacy",
            ),
            ("mac=1:2:3:4:5:6", "mac=1:2:3:4:5:6", "station address"),
            (
                "mac=01:00:00:00:00:00",
                "mac=01:00:00:00:00:00",
                "station address",
            ),
            (
                "mac=+1:00:00:00:00:00",
                "mac=+1:00:00:00:00:00",
                "station address",
            ),
            (
                "mac=02:00:00:00:00:00:00",
                "mac=02:00:00:00:00:00:00",
                "station",
            ),
        ] {
            let error = text.parse::<VirtioOptions>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.contains(&format!("`{option}`")), "{text}: {error}");
        }
    }
}
