//! Feature bits: what device and driver agree on.
//!
//! Numbers: virtio 1.3, sections 5.1.3 (network device) and 6 (reserved bits).

use core::fmt;

use bitflags::bitflags;

bitflags! {
    /// Feature bits that this driver implements. What a device offers beyond them is never
    /// accepted.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct Features: u64 {
        /// The device completes transport checksums.
        const CSUM = 1 << 0;
        /// The driver takes frames whose checksum is not complete, and completes it; the device
        /// may say that it has verified one.
        const GUEST_CSUM = 1 << 1;
        /// The device tells the largest MTU.
        const MTU = 1 << 3;
        /// The device has a station address.
        const MAC = 1 << 5;
        /// The device may hand over TCP segments over IPv4 joined to a frame of up to 64 KiB.
        const GUEST_TSO4 = 1 << 7;
        /// The same over IPv6.
        const GUEST_TSO6 = 1 << 8;
        /// The device segments TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device segments TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// A received frame may lie in several buffers.
        const MRG_RXBUF = 1 << 15;
        /// The device tells the state of the link.
        const STATUS = 1 << 16;
        /// There is a control queue. Only accepted with MQ, which needs it.
        const CTRL_VQ = 1 << 17;
        /// There are several pairs of queues.
        const MQ = 1 << 22;
        /// One descriptor of the ring may stand for a table of descriptors.
        const INDIRECT_DESC = 1 << 28;
        /// Notifications are asked for by index.
        const EVENT_IDX = 1 << 29;
        /// Not a legacy device. Always negotiated.
        const VERSION_1 = 1 << 32;
        /// Addresses go through what the platform has for it (an IOMMU). Accepted wherever it is
        /// offered, as all addresses are device addresses here.
        const ACCESS_PLATFORM = 1 << 33;
        /// One ring that both sides write, in the place of a split one.
        const RING_PACKED = 1 << 34;
        /// The device completes buffers in the order in which it got them.
        const IN_ORDER = 1 << 35;
        /// The device is hardware: memory is ordered as for a PCI device. This driver always
        /// orders it so.
        const ORDER_PLATFORM = 1 << 36;
        /// Queues can be reset one by one.
        const RING_RESET = 1 << 40;
        /// The header length of a frame to be segmented is exact.
        const GUEST_HDRLEN = 1 << 59;
    }
}

const NAMES: [(Features, &str); 21] = [
    (Features::CSUM, "csum"),
    (Features::GUEST_CSUM, "guest_csum"),
    (Features::MTU, "mtu"),
    (Features::MAC, "mac"),
    (Features::GUEST_TSO4, "guest_tso4"),
    (Features::GUEST_TSO6, "guest_tso6"),
    (Features::HOST_TSO4, "host_tso4"),
    (Features::HOST_TSO6, "host_tso6"),
    (Features::MRG_RXBUF, "mrg_rxbuf"),
    (Features::STATUS, "status"),
    (Features::CTRL_VQ, "ctrl_vq"),
    (Features::MQ, "mq"),
    (Features::INDIRECT_DESC, "indirect_desc"),
    (Features::EVENT_IDX, "event_idx"),
    (Features::VERSION_1, "version_1"),
    (Features::ACCESS_PLATFORM, "access_platform"),
    (Features::RING_PACKED, "ring_packed"),
    (Features::IN_ORDER, "in_order"),
    (Features::ORDER_PLATFORM, "order_platform"),
    (Features::RING_RESET, "ring_reset"),
    (Features::GUEST_HDRLEN, "guest_hdrlen"),
];

impl Features {
    /// Without these a device cannot be driven, or not be driven safely: the driver has no say.
    pub(crate) const ALWAYS: Self = Self::VERSION_1
        .union(Self::ACCESS_PLATFORM)
        .union(Self::ORDER_PLATFORM);

    /// What remains of `self` when bits are left out that others need (virtio 1.3, section
    /// 5.1.3.1): segmentation needs CSUM, on receive GUEST_CSUM; MQ needs CTRL_VQ, which is of no
    /// use here without MQ. That GUEST_TSO needs MRG_RXBUF is this driver's choice: every buffer
    /// would have to hold 64 KiB.
    pub(crate) fn consistent(self) -> Self {
        let mut rest = self;
        if !rest.contains(Self::CSUM) {
            rest.remove(Self::HOST_TSO4 | Self::HOST_TSO6);
        }
        if !rest.contains(Self::GUEST_CSUM | Self::MRG_RXBUF) {
            rest.remove(Self::GUEST_TSO4 | Self::GUEST_TSO6);
        }
        if !rest.contains(Self::CTRL_VQ | Self::MQ) {
            rest.remove(Self::CTRL_VQ | Self::MQ);
        }
        rest
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (feature, name) in NAMES {
            if self.contains(feature) {
                write!(f, "{separator}{name}")?;
                separator = " ";
            }
        }
        Ok(())
    }
}
