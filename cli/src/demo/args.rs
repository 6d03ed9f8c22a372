//! The options of `pagewire demo`.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use super::scribble::Policy;
use crate::device::DeviceName;
use crate::error::Failure;
use crate::software::{Backend, NicKind, SoftwareNic};

/// Options of `pagewire demo`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  pagewire demo                               256 MiB, generated, to smoltcp in this process
  pagewire demo --file movie.mkv              a file of yours
  pagewire demo --max-fragments 2             the page budget binds: some segments are rescued
  pagewire demo --size 16M --loss 5           lost, reordered and duplicated frames
  pagewire demo --size 16M --scribble wait --loss 5
                                              threads write to what is lent, and sleep until it is
                                              acknowledged; the receiver gets what was sent
  pagewire demo --mtu 9000 --max-fragments 3  jumbo frames cross more pages
  sudo pagewire demo --peer linux             the receiver is the kernel's TCP, over a TAP
  pagewire demo --nic all                     every NIC that there is a driver for, in turn
  pagewire demo --device qtest:e1000e         QEMU's own NIC instead of our model of it
  pagewire demo --device model:virtio,packed=on,indirect_desc=off
                                              features as QEMU's virtio-net-pci has them
  sudo pagewire demo --device qtest:virtio --peer linux
                                              frames of up to 64 KiB reach the kernel whole
  pagewire demo --nic ixgbe                   10 Gbit/s: frames of 64 KiB are 17 pages and a header
  pagewire demo --nic ixgbe --queues 4        a sender and a thread for each of 4 pairs of queues
  pagewire demo --nic ixgbe --slice 700       37 fragments hold less than that: the budget binds
  pagewire demo --nic virtio --slice 700 --tx-descriptors 64
                                              a frame has more pieces than the ring takes
  sudo pagewire demo --device 0000:03:00.0 --peer linux --peer-interface eth1
                                              a NIC of this machine, bound with `pagewire bind`, and
                                              a cable from it to eth1
  pagewire demo --device vfio-user:nic.sock --wire pair:/tmp/wire
                                              a NIC that another process plays: `pagewire model e1000e
                                              --socket nic.sock --wire pair:/tmp/wire`
  pagewire demo --size 1M --pcap out.pcapng   look at the frames in Wireshark")]
pub(crate) struct Args {
    /// The device under the driver: model:e1000e, model:ixgbe or model:virtio, a software model in
    /// this process; qtest:e1000e or qtest:virtio, QEMU's own (fetched by tests/lab/get-qemu; the
    /// clock is real). Behind ixgbe, which of the family it is: ixgbe,device=sfp. Behind virtio,
    /// its features: virtio,packed=on,event_idx=off… Or 0000:03:00.0, a NIC of this machine that was
    /// given to user space with `pagewire bind`; or vfio-user:SOCKET, a NIC that another process
    /// plays (`pagewire model`)
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "model:e1000e",
        conflicts_with = "nic"
    )]
    device: DeviceName,
    /// Short for --device model:NIC
    #[arg(long, value_enum)]
    nic: Option<NicChoice>,
    /// File to send; it is read into memory that cannot change
    #[arg(long, value_name = "FILE", conflicts_with = "size")]
    pub(crate) file: Option<PathBuf>,
    /// Bytes to generate and send, if there is no file (k, M, G: powers of 1024)
    #[arg(long, value_name = "N", value_parser = parse_size, default_value = "256M")]
    pub(crate) size: u64,
    /// Whose TCP receives [default: smoltcp; linux with --peer-interface]
    #[arg(long, value_enum)]
    peer: Option<PeerKind>,
    /// The interface of this machine at the other end of the NIC's cable, for a NIC that is named
    /// by its address. It is in a network namespace of the demo's own meanwhile, and comes back
    /// without an address; it must be down, or at least carry no address
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) peer_interface: Option<String>,
    /// The wire that the process of a device at a vfio-user socket has (`pagewire model --wire
    /// pair:DIR`): smoltcp joins it
    #[arg(long, value_name = "pair:DIR", value_parser = parse_wire,
          conflicts_with = "peer_interface")]
    pub(crate) wire: Option<PathBuf>,
    /// Go on writing to the input while it is sent, from other threads, which have the kernel write
    /// some of it (pread): it lies in memory of which each page is protected while it is lent (for models in this process and NICs of this machine)
    #[arg(long, value_enum, value_name = "POLICY")]
    pub(crate) scribble: Option<Policy>,
    /// Percent of frames lost, and also reordered and duplicated unless set otherwise. On a cable of
    /// this machine (--peer-interface) they are only lost: at the NIC when it has received them, and at
    /// the receiver's socket, where the kernel draws them by no seed
    #[arg(long, value_name = "P", value_parser = parse_percent, default_value = "0",
          allow_negative_numbers = true)]
    pub(crate) loss: f64,
    /// Percent of frames that arrive late [default: as --loss]
    #[arg(long, value_name = "P", value_parser = parse_percent)]
    pub(crate) reorder: Option<f64>,
    /// Percent of frames that arrive twice [default: as --loss]
    #[arg(long, value_name = "P", value_parser = parse_percent)]
    pub(crate) duplicate: Option<f64>,
    /// Fragments that the device may gather per frame, header included [default: its own limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) max_fragments: Option<u16>,
    /// Descriptors in the transmit ring, a power of two; the device may have fewer
    #[arg(long, value_name = "N", value_parser = parse_descriptors, default_value_t = 1024)]
    pub(crate) tx_descriptors: u16,
    /// Pairs of queues, each with a port, a sender and a thread of its own: with ixgbe up to 16,
    /// with virtio up to 8
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) queues: u16,
    /// TCP connections, each of which carries the whole input [default: one for each queue]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: Option<u16>,
    /// Let connections have any source port: acknowledgements come to whichever queue the NIC's
    /// hash says, and are handed over. Without it ports are chosen so that they come to the queue
    /// that the connection is sent on
    #[arg(long)]
    pub(crate) any_port: bool,
    /// Bytes of an IP packet
    #[arg(long, value_name = "N", default_value_t = 1500,
          value_parser = clap::value_parser!(u16).range(576..=9000))]
    pub(crate) mtu: u16,
    /// Send pieces of N bytes that are not neighbours in memory
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub(crate) slice: Option<u32>,
    /// The device does no checksums: the CPU sums the pages in place
    #[arg(long)]
    pub(crate) no_checksum: bool,
    /// The device does not cut TCP data into segments (TSO): the sender does
    #[arg(long)]
    pub(crate) no_segmentation: bool,
    /// How far memory is contiguous for a device in software [default: 4k]
    #[arg(long, value_enum)]
    dma_page: Option<DmaPage>,
    /// Record all frames to a pcapng file
    #[arg(long, value_name = "OUT")]
    pub(crate) pcap: Option<PathBuf>,
    /// Seed of everything random: content, device latitude, losses
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the report as JSON instead of a table: an object for each device
    #[arg(long)]
    pub(crate) json: bool,
}

impl Args {
    /// What the options say together that cannot be.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.connections() < self.queues {
            let why = "--connections: each queue needs one at least";
            return Err(Failure::usage(why));
        }
        for device in self.devices() {
            let in_software = matches!(device, DeviceName::Software(_));
            if in_software && let Some(interface) = &self.peer_interface {
                return Err(Failure::usage(format!(
                    "--peer-interface {interface}: no cable leads there from {device}; it is for a \
                     NIC of this machine (--device 0000:03:00.0)"
                )));
            }
            let in_place = match &device {
                DeviceName::Pci(_) => true,
                DeviceName::Software(nic) => nic.backend == Backend::Model,
                DeviceName::VfioUser(_) => false,
            };
            if self.scribble.is_some() && !in_place {
                return Err(Failure::usage(format!(
                    "--scribble: {device} reads a copy of the input; it is for model:… and for NICs of \
                     this machine"
                )));
            }
            if self.wire.is_some() && !matches!(device, DeviceName::VfioUser(_)) {
                return Err(Failure::usage(format!(
                    "--wire: {device} has a wire of its own; it is for --device vfio-user:SOCKET"
                )));
            }
            let most = device.most_queues();
            if self.queues > most {
                return Err(Failure::usage(format!(
                    "--queues {}: {device} has {most} here; model:ixgbe has up to 16, model:virtio \
                     up to 8",
                    self.queues
                )));
            }
        }
        Ok(())
    }

    /// What the options ask for that a real cable has not.
    pub(crate) fn check_cable(&self) -> Result<(), String> {
        if self.peer_interface.is_none() || self.peer() != PeerKind::Linux {
            return Err(
                "a NIC of this machine sends to another interface of it, at the other end \
                        of its cable: --peer linux --peer-interface eth1"
                    .into(),
            );
        }
        self.check_foreign_wire()
    }

    /// What the options ask for that the wire of a device in another process has not.
    pub(crate) fn check_served_wire(&self) -> Result<(), String> {
        let fits = match self.peer() {
            PeerKind::Smoltcp => self.wire.is_some(),
            PeerKind::Linux => self.peer_interface.is_some(),
        };
        if !fits {
            return Err(
                "its process has the wire: say which (--wire pair:DIR, as with `pagewire \
                        model`), or which interface of this machine is its far end \
                        (--peer-interface tap0)"
                    .into(),
            );
        }
        self.check_foreign_wire()
    }

    /// What cannot be done to a wire that does not end in this process.
    fn check_foreign_wire(&self) -> Result<(), String> {
        // The kernel can be made to lose frames, smoltcp cannot.
        let lossy = self.loss > 0.0 && self.peer() != PeerKind::Linux;
        let impaired = self.reorder.is_some() || self.duplicate.is_some();
        let wrong = [
            (lossy, "--loss with --peer smoltcp"),
            (impaired, "--reorder and --duplicate"),
            (self.pcap.is_some(), "--pcap"),
            (self.dma_page.is_some(), "--dma-page"),
        ];
        match wrong.iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(format!("{option}: for devices in software")),
            None => Ok(()),
        }
    }

    /// TCP connections.
    pub(crate) fn connections(&self) -> u16 {
        self.connections.unwrap_or(self.queues)
    }

    /// Whose TCP receives.
    pub(crate) fn peer(&self) -> PeerKind {
        let usual = match self.peer_interface {
            Some(_) => PeerKind::Linux,
            None => PeerKind::Smoltcp,
        };
        self.peer.unwrap_or(usual)
    }

    /// How far memory is contiguous for the device.
    pub(crate) fn dma_page(&self) -> DmaPage {
        self.dma_page.unwrap_or(DmaPage::K4)
    }

    /// The devices, one after the other.
    pub(crate) fn devices(&self) -> Vec<DeviceName> {
        let model = |nic| DeviceName::Software(SoftwareNic::new(Backend::Model, nic));
        match self.nic {
            None => vec![self.device.clone()],
            Some(NicChoice::One(nic)) => vec![model(nic)],
            Some(NicChoice::All) => NicKind::ALL.into_iter().map(model).collect(),
        }
    }
}

/// One NIC or all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NicChoice {
    /// This one.
    One(NicKind),
    /// Every one that there is a driver for, in turn.
    All,
}

impl ValueEnum for NicChoice {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::One(NicKind::E1000e),
            Self::One(NicKind::Ixgbe),
            Self::One(NicKind::Virtio),
            Self::All,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::One(nic) => nic.to_possible_value(),
            Self::All => Some(PossibleValue::new("all").help("every one of them, in turn")),
        }
    }
}

/// Whose TCP receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum PeerKind {
    /// smoltcp, in this process, on a virtual clock
    Smoltcp,
    /// the kernel's, over a TAP in a network namespace of its own (needs root)
    Linux,
}

/// How far memory is contiguous for the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum DmaPage {
    /// 4 KiB
    #[value(name = "4k")]
    K4,
    /// 16 KiB
    #[value(name = "16k")]
    K16,
    /// 64 KiB
    #[value(name = "64k")]
    K64,
    /// 2 MiB
    #[value(name = "2m")]
    M2,
    /// everything
    Contiguous,
}

impl DmaPage {
    /// The granule of the model's IOMMU.
    pub(crate) fn granule(self) -> pagewire::hal::Granule {
        let bytes = match self {
            Self::K4 => 4 << 10,
            Self::K16 => 16 << 10,
            Self::K64 => 64 << 10,
            Self::M2 => 2 << 20,
            Self::Contiguous => return pagewire::hal::Granule::CONTIGUOUS,
        };
        pagewire::hal::Granule::from_bytes(bytes).unwrap_or(pagewire::hal::Granule::CONTIGUOUS)
    }
}

/// More would not fit the memory of a usual machine.
const MAX_SIZE: u64 = 64 << 30;

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1u64 << 10),
        Some((at, 'm' | 'M')) => (&text[..at], 1 << 20),
        Some((at, 'g' | 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "a number of bytes, such as 4096, 64k or 256M".to_owned())?;
    match number.checked_mul(factor) {
        Some(0) => Err("there must be at least 1 byte to send".into()),
        Some(bytes) if bytes <= MAX_SIZE => Ok(bytes),
        _ => Err("at most 64G".into()),
    }
}

fn parse_wire(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("pair:") {
        Some(directory) if !directory.is_empty() => Ok(directory.into()),
        _ => Err("pair:DIR, as `pagewire model --wire` has it".into()),
    }
}

fn parse_descriptors(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(number) if number.is_power_of_two() => Ok(number),
        _ => Err("a power of two from 1 to 32768".into()),
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("a percentage from 0 to 100".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("1"), Ok(1));
        assert_eq!(parse_size("64k"), Ok(65536));
        assert_eq!(parse_size("2M"), Ok(2 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for bad in ["0", "", "k", "-1", "1T", "99999999999999999999", "65G", "µ"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentages() {
        assert_eq!(parse_percent("1.5"), Ok(1.5));
        assert_eq!(parse_percent("5%"), Ok(5.0));
        for bad in ["101", "-1", "x", "NaN", "inf"] {
            assert!(parse_percent(bad).is_err(), "{bad}");
        }
    }
}
