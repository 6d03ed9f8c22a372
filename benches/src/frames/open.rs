//! Opens each driver on its model, and takes the model away.

use std::sync::Arc;

use pagewire_e1000e::E1000e;
use pagewire_hal::{MacAddress, Nic, Region};
use pagewire_ixgbe::Ixgbe;
use pagewire_models::wire::Silent;
use pagewire_models::{Host, HostConfig, e1000e, ixgbe, virtio};
use pagewire_virtio::{Features, VirtioNet};

use super::Device;
use super::case::Kind;
use super::draw::{PAGE, REGION_LEN, REGIONS};
use super::intel::Intel;
use super::virtio::Virtio;
use crate::platform::{FrozenPlatform, NotedMemory};

/// Descriptors in each ring.
pub const RING: u16 = 1024;

/// Who is called with a driver.
pub trait Visitor {
    /// What comes of it.
    type Output;

    /// Called with an open driver, what stands for its device, and regions of its domain.
    ///
    /// # Errors
    /// What went wrong, for the user.
    fn visit<N: Nic<Memory = NotedMemory>, D: Device>(
        self,
        nic: N,
        device: D,
        regions: Vec<Arc<dyn Region>>,
    ) -> Result<Self::Output, String>;
}

/// How a driver is opened, and what memory there is to send.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Longest packet in bytes, for Intel's devices.
    pub mtu: u16,
    /// Whether Intel's devices offer checksums and segmentation.
    pub checksum: bool,
    /// Regions.
    pub regions: usize,
    /// Bytes of each.
    pub region_len: usize,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            mtu: 1500,
            checksum: true,
            regions: REGIONS,
            region_len: REGION_LEN,
        }
    }
}

/// Bytes of a region, which begins with a page: so no fragment lies in two.
fn pages(len: usize) -> &'static [u8] {
    let bytes: &[u8] = vec![0u8; len + PAGE].leak();
    let first = bytes.as_ptr().align_offset(PAGE);
    bytes.get(first..first + len).unwrap_or_default()
}

/// Opens the driver of `kind` and calls `visitor` with it.
///
/// # Errors
/// What the driver, the model or the visitor said.
pub fn open<V: Visitor>(kind: Kind, visitor: V) -> Result<V::Output, String> {
    open_with(kind, &Opening::default(), visitor)
}

/// As [`open`], in another way.
///
/// # Errors
/// What the driver, the model or the visitor said.
pub fn open_with<V: Visitor>(
    kind: Kind,
    opening: &Opening,
    visitor: V,
) -> Result<V::Output, String> {
    let host = Host::new(HostConfig::default());
    let mut regions: Vec<Arc<dyn Region>> = Vec::new();
    for _ in 0..opening.regions {
        let region = host.register(pages(opening.region_len));
        regions.push(region.map_err(|error| error.to_string())?);
    }
    match kind {
        Kind::Ixgbe => {
            let model = ixgbe::ModelConfig {
                latitude: ixgbe::Latitude::none(),
                ..ixgbe::ModelConfig::default()
            };
            let device = ixgbe::Ixgbe82599::new(model, Box::new(Silent::new()));
            let (platform, freezer) = FrozenPlatform::new(host.attach(device).platform);
            let mut config = pagewire_ixgbe::Config::default();
            (config.mtu, config.checksum_offload) = (opening.mtu, opening.checksum);
            (config.tx_descriptors, config.rx_descriptors) = (RING, RING);
            let nic = Ixgbe::open(platform, &config).map_err(|error| error.to_string())?;
            freezer.freeze();
            visitor.visit(nic, Intel::ixgbe(&freezer), regions)
        }
        Kind::E1000e => {
            let model = e1000e::ModelConfig {
                latitude: e1000e::Latitude::none(),
                ..e1000e::ModelConfig::default()
            };
            let device = e1000e::E1000e82574::new(model, Box::new(Silent::new()));
            let (platform, freezer) = FrozenPlatform::new(host.attach(device).platform);
            let mut config = pagewire_e1000e::Config::default();
            (config.mtu, config.checksum_offload) = (opening.mtu, opening.checksum);
            (config.tx_descriptors, config.rx_descriptors) = (RING, RING);
            let nic = E1000e::open(platform, &config).map_err(|error| error.to_string())?;
            freezer.freeze();
            visitor.visit(nic, Intel::e1000e(&freezer), regions)
        }
        Kind::SplitDirect => open_virtio(&host, (false, false), visitor, regions),
        Kind::SplitIndirect => open_virtio(&host, (false, true), visitor, regions),
        Kind::PackedDirect => open_virtio(&host, (true, false), visitor, regions),
        Kind::PackedIndirect => open_virtio(&host, (true, true), visitor, regions),
    }
}

/// With packed rings, with indirect descriptors. What QEMU's own device does not offer by default
/// (IN_ORDER) is off.
fn open_virtio<V: Visitor>(
    host: &Host,
    (packed, indirect): (bool, bool),
    visitor: V,
    regions: Vec<Arc<dyn Region>>,
) -> Result<V::Output, String> {
    let model = virtio::ModelConfig {
        latitude: virtio::Latitude::none(),
        offers: virtio::Offers {
            packed,
            indirect,
            in_order: false,
            ..virtio::Offers::all()
        },
        queue_size: RING,
        ..virtio::ModelConfig::default()
    };
    let device = virtio::VirtioNet::new(model, Box::new(Silent::new()));
    let (platform, freezer) = FrozenPlatform::new(host.attach(device).platform);
    let mut config = pagewire_virtio::Config::default();
    (config.tx_descriptors, config.rx_descriptors) = (RING, RING);
    config.features |= Features::RING_PACKED;
    let nic = VirtioNet::open(platform, &config).map_err(|error| error.to_string())?;
    freezer.freeze();
    let MacAddress(mac) = nic.mac_address();
    visitor.visit(nic, Virtio::new(&freezer, packed, mac), regions)
}
