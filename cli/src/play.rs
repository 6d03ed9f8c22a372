//! NICs that this program plays: our models, as their names say.

use clap::ValueEnum;
use pagewire::hal::MacAddress;
use pagewire_models::e1000e::{self, E1000e82574};
use pagewire_models::ixgbe::{self, Ixgbe82599, Rules};
use pagewire_models::virtio::{self, VirtioNet};
use pagewire_models::{Device, Wire};

use crate::software::{NicKind, SoftwareNic};

/// What is no violation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Permit {
    /// What Linux's own drivers do (ixgbe leaves some tables and bits as they are; e1000e switches
    /// the receiver on before it has a ring)
    Linux,
    /// What DPDK's drivers do (ixgbe in addition to what Linux's does; virtio reads bytes of the
    /// device configuration, and lets num_buffers stand in what it sends)
    Dpdk,
}

/// How a model is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner<'a> {
    /// Draws from every freedom that the specification leaves to hardware; without it the NIC is
    /// the most obliging one.
    pub(crate) seed: Option<u64>,
    /// Its own address.
    pub(crate) mac: MacAddress,
    /// What is no violation.
    pub(crate) permit: &'a [Permit],
}

/// Makes the NIC.
pub(crate) fn build(
    device: &SoftwareNic,
    manner: Manner<'_>,
    wire: Box<dyn Wire>,
) -> Box<dyn Device> {
    let seed = manner.seed.unwrap_or(0);
    let mac = manner.mac.0;
    let permits = |what| manner.permit.contains(&what);
    match device.nic {
        NicKind::E1000e => {
            let mut config = e1000e::ModelConfig {
                seed,
                mac,
                ..Default::default()
            };
            if manner.seed.is_none() {
                config.latitude = e1000e::Latitude::none();
            }
            let mut device = E1000e82574::new(config, wire);
            if permits(Permit::Linux) {
                device.permit_linux();
            }
            Box::new(device)
        }
        NicKind::Ixgbe => {
            let mut config = ixgbe::ModelConfig {
                seed,
                mac,
                device: device.ixgbe(),
                ..Default::default()
            };
            if manner.seed.is_none() {
                config.latitude = ixgbe::Latitude::none();
            }
            if permits(Permit::Linux) {
                config.rules = Rules::linux();
            }
            if permits(Permit::Dpdk) {
                config.rules = Rules::dpdk();
            }
            Box::new(Ixgbe82599::new(config, wire))
        }
        NicKind::Virtio => {
            let options = device.virtio();
            let usual = virtio::ModelConfig::default();
            let mut config = virtio::ModelConfig {
                seed,
                offers: device.offers(),
                mac,
                mtu: options.host_mtu.unwrap_or(usual.mtu),
                pairs: options.queue_pairs,
                queue_size: options.tx_queue_size,
                ..usual
            };
            if manner.seed.is_none() {
                config.latitude = virtio::Latitude::none();
            }
            config.beyond_dpdk = !permits(Permit::Dpdk);
            Box::new(VirtioNet::new(config, wire))
        }
    }
}
