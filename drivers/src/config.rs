//! What the user chooses, whichever device it turns out to be.

use pagewire_e1000e as e1000e;
use pagewire_hal::NicError;
use pagewire_ixgbe as ixgbe;
use pagewire_virtio as virtio;

use crate::MAX_QUEUE_PAIRS;

/// The most pairs of queues that the driver of virtio-net takes.
const VIRTIO_QUEUE_PAIRS: u16 = 8;

/// How a device is opened whose driver is not known before.
///
/// What all drivers have is here once, and takes the place of the field of the same name in
/// [`e1000e`](Self::e1000e), [`ixgbe`](Self::ixgbe) and [`virtio`](Self::virtio); what one driver alone has is there. A
/// driver refuses what is out of its own range ([`NicError::Config`]).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Longest network-layer packet in bytes, from 576 to 9000; a frame is 14 bytes longer.
    pub mtu: u16,
    /// Descriptors in each transmit ring: a power of two from 8 to 4096.
    pub tx_descriptors: u16,
    /// Descriptors in each receive ring: a power of two from 8 to 4096.
    pub rx_descriptors: u16,
    /// Pairs of queues, from 1 to 16, or as many as driver and device have if those are fewer: an
    /// 82574L has one here, virtio-net up to 8.
    pub queue_pairs: u16,
    /// An upper bound to the fragments of one frame, at least 1, where the device's own is too
    /// high for some reason.
    pub max_fragments: Option<u16>,
    /// Offers the device's checksum insertion on transmit. Off, the sender above sums itself, and
    /// the device does not segment either.
    pub checksum_offload: bool,
    /// Receives all multicast frames, as IPv6 needs some of them.
    pub all_multicast: bool,
    /// Receives all unicast frames, whomever they are for.
    pub promiscuous: bool,
    /// What the driver of the 82574L alone has.
    pub e1000e: e1000e::Config,
    /// What the driver of 82599 and X540 alone has.
    pub ixgbe: ixgbe::Config,
    /// What the driver of virtio-net alone has.
    pub virtio: virtio::Config,
}

impl Default for Config {
    /// An MTU of 1500, one pair of rings of 256 descriptors, the device's own bound to fragments, checksums by
    /// the device, all multicast frames, no frames for others; the drivers' own defaults.
    fn default() -> Self {
        Self {
            mtu: 1500,
            tx_descriptors: 256,
            rx_descriptors: 256,
            queue_pairs: 1,
            max_fragments: None,
            checksum_offload: true,
            all_multicast: true,
            promiscuous: false,
            e1000e: e1000e::Config::default(),
            ixgbe: ixgbe::Config::default(),
            virtio: virtio::Config::default(),
        }
    }
}

impl Config {
    /// What the driver of the 82574L is opened with.
    #[must_use]
    pub fn for_e1000e(&self) -> e1000e::Config {
        let mut own = self.e1000e.clone();
        own.mtu = self.mtu;
        own.tx_descriptors = self.tx_descriptors;
        own.rx_descriptors = self.rx_descriptors;
        own.max_fragments = self.max_fragments;
        own.checksum_offload = self.checksum_offload;
        own.all_multicast = self.all_multicast;
        own.promiscuous = self.promiscuous;
        own
    }

    /// What the driver of 82599 and X540 is opened with.
    #[must_use]
    pub fn for_ixgbe(&self) -> ixgbe::Config {
        let mut own = self.ixgbe.clone();
        own.mtu = self.mtu;
        own.tx_descriptors = self.tx_descriptors;
        own.rx_descriptors = self.rx_descriptors;
        own.queue_pairs = self.queue_pairs;
        own.max_fragments = self.max_fragments;
        own.checksum_offload = self.checksum_offload;
        own.all_multicast = self.all_multicast;
        own.promiscuous = self.promiscuous;
        own
    }

    /// What the driver of virtio-net is opened with.
    #[must_use]
    pub fn for_virtio(&self) -> virtio::Config {
        let mut own = self.virtio.clone();
        own.mtu = self.mtu;
        own.tx_descriptors = self.tx_descriptors;
        own.rx_descriptors = self.rx_descriptors;
        own.queue_pairs = self.queue_pairs.min(VIRTIO_QUEUE_PAIRS);
        own.max_fragments = self.max_fragments;
        if !self.checksum_offload {
            // Segmentation needs it: the driver then leaves that out as well.
            own.features.remove(virtio::Features::CSUM);
        }
        own.all_multicast = self.all_multicast;
        own.promiscuous = self.promiscuous;
        own
    }

    /// What is not a matter of the driver.
    pub(crate) fn check(&self) -> Result<(), NicError> {
        if !(1..=MAX_QUEUE_PAIRS).contains(&self.queue_pairs) {
            return Err(NicError::Config {
                what: "queue_pairs is from 1 to 16",
            });
        }
        Ok(())
    }
}
