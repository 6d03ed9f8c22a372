//! How a model is built: what it offers, and the freedoms that it takes.

use super::bits::feature;

/// How a [`VirtioNet`](super::VirtioNet) is built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelConfig {
    /// From which all freedoms are drawn. The same seed and the same accesses, steps and times
    /// give the same device.
    pub seed: u64,
    /// Which freedoms the device takes.
    pub latitude: Latitude,
    /// Which features the device offers.
    pub offers: Offers,
    /// The station address.
    pub mac: [u8; 6],
    /// The largest packet in bytes, without the Ethernet header: 68 to 65535, nearer ones taken
    /// otherwise. Frames that are longer on the wire are segmented or delivered whole as
    /// GUEST_TSO says, and without TCP are lost.
    pub mtu: u16,
    /// Pairs of queues with [`Offers::multiqueue`]: 1 to 8, nearer ones taken otherwise.
    pub pairs: u16,
    /// The largest queue size: a power of two from 1 to 32768, the next lower one taken
    /// otherwise.
    pub queue_size: u16,
    /// A fault: FEATURES_OK is never granted.
    pub refuse_features: bool,
    /// What the specification asks for and DPDK's virtio does not do: fields of the device
    /// configuration are read in their own width, and num_buffers is 0 in transmission.
    pub beyond_dpdk: bool,
}

impl Default for ModelConfig {
    /// Seed 0, every freedom taken, everything offered, an MTU of 1500, four pairs of queues of
    /// up to 256 descriptors.
    fn default() -> Self {
        Self {
            seed: 0,
            latitude: Latitude::default(),
            offers: Offers::default(),
            mac: [0x02, 0x00, 0x00, 0x1a, 0xf4, 0x41],
            mtu: 1500,
            pairs: 4,
            queue_size: 256,
            refuse_features: false,
            beyond_dpdk: true,
        }
    }
}

impl ModelConfig {
    /// The same with every number in its range.
    pub(super) fn in_range(mut self) -> Self {
        self.mtu = self.mtu.max(68);
        self.pairs = self.pairs.clamp(1, 8);
        self.queue_size = 1 << self.queue_size.max(1).ilog2();
        self
    }
}

macro_rules! offers {
    ($($(#[$doc:meta])* $name:ident: $bit:ident;)*) => {
        /// The features that the device offers beside VERSION_1, which it always does.
        /// [`Offers::default`] is all of them, [`Offers::none`] the least that a driver must cope
        /// with. What a feature requires must be switched on as well, or a driver that follows
        /// the specification cannot negotiate it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Offers {
            $($(#[$doc])* pub $name: bool,)*
        }

        impl Offers {
            /// Nothing but VERSION_1.
            #[must_use]
            pub const fn none() -> Self {
                Self { $($name: false,)* }
            }

            /// Everything that is modelled.
            #[must_use]
            pub const fn all() -> Self {
                Self { $($name: true,)* }
            }

            /// As feature bits.
            pub(super) const fn bits(&self) -> u64 {
                let mut bits = feature::VERSION_1;
                $(if self.$name { bits |= feature::$bit; })*
                bits
            }
        }
    };
}

offers! {
    /// VIRTIO_F_RING_PACKED.
    packed: RING_PACKED;
    /// VIRTIO_F_INDIRECT_DESC.
    indirect: INDIRECT_DESC;
    /// VIRTIO_F_EVENT_IDX.
    event_index: EVENT_IDX;
    /// VIRTIO_F_IN_ORDER.
    in_order: IN_ORDER;
    /// VIRTIO_NET_F_CSUM.
    checksum: CSUM;
    /// VIRTIO_NET_F_HOST_TSO4.
    tso4: HOST_TSO4;
    /// VIRTIO_NET_F_HOST_TSO6.
    tso6: HOST_TSO6;
    /// VIRTIO_NET_F_GUEST_CSUM.
    guest_checksum: GUEST_CSUM;
    /// VIRTIO_NET_F_GUEST_TSO4.
    guest_tso4: GUEST_TSO4;
    /// VIRTIO_NET_F_GUEST_TSO6.
    guest_tso6: GUEST_TSO6;
    /// VIRTIO_NET_F_MRG_RXBUF.
    merge_buffers: MRG_RXBUF;
    /// VIRTIO_NET_F_MAC.
    mac: MAC;
    /// VIRTIO_NET_F_STATUS.
    status: STATUS;
    /// VIRTIO_NET_F_MTU.
    mtu: MTU;
    /// VIRTIO_NET_F_CTRL_VQ.
    control_queue: CTRL_VQ;
    /// VIRTIO_NET_F_CTRL_RX.
    control_receive: CTRL_RX;
    /// VIRTIO_NET_F_CTRL_MAC_ADDR.
    control_mac: CTRL_MAC_ADDR;
    /// VIRTIO_NET_F_MQ.
    multiqueue: MQ;
    /// VIRTIO_F_ACCESS_PLATFORM; a driver that does not accept it is refused.
    access_platform: ACCESS_PLATFORM;
    /// VIRTIO_F_ORDER_PLATFORM.
    order_platform: ORDER_PLATFORM;
    /// VIRTIO_F_RING_RESET.
    ring_reset: RING_RESET;
}

impl Default for Offers {
    /// Everything.
    fn default() -> Self {
        Self::all()
    }
}

macro_rules! latitude {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        /// What the specification leaves to the device, switch by switch.
        /// [`Latitude::default`] has all of them on, as a driver must expect them;
        /// [`Latitude::none`] is the most obliging device, [`Latitude::qemu`] one that many drivers meet
        /// first.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Latitude {
            $($(#[$doc])* pub $name: bool,)*
        }

        impl Latitude {
            /// No freedom at all: everything happens at once and in order.
            #[must_use]
            pub const fn none() -> Self {
                Self { $($name: false,)* }
            }

            /// Every freedom.
            #[must_use]
            pub const fn all() -> Self {
                Self { $($name: true,)* }
            }
        }
    };
}

latitude! {
    /// Transmit buffers are used in another order than they were made available, and receive
    /// buffers filled so; not with IN_ORDER.
    out_of_order;
    /// Used transmit buffers are written up to 100 µs late, several at a time: the used index
    /// jumps.
    late_used;
    /// With IN_ORDER, one entry stands for a batch of used transmit buffers.
    in_order_batches;
    /// Up to 20 µs pass between a doorbell and the look at the ring.
    late_look;
    /// The device looks at a ring that nobody rang for.
    unasked_look;
    /// After a doorbell the device polls for up to 50 µs and asks for no doorbells meanwhile, or
    /// (EVENT_IDX) for one that is far away.
    polls_awhile;
    /// Interrupts arrive up to 200 µs late.
    late_interrupts;
    /// Interrupts of queues that used nothing, or that the driver did not ask for.
    spurious_interrupts;
    /// Configuration interrupts, and a new generation, although nothing changed.
    spurious_configuration;
    /// A reset takes up to 1 ms, a queue's reset 100 µs. Used buffers may still be written
    /// meanwhile.
    slow_reset;
    /// Doorbells of queues are not in the order of the queues.
    scattered_doorbells;
    /// Vendor capabilities that a driver must ignore, and longer ones than it knows.
    odd_capabilities;
    /// With GUEST_CSUM, received frames may carry the pseudo-header sum only (NEEDS_CSUM), or no
    /// word about the checksum although it is right.
    partial_checksums;
    /// With GUEST_TSO4 or GUEST_TSO6, consecutive TCP segments of a flow that have arrived by the
    /// time of a step are joined into one large packet, as far as there are buffers for it.
    joins_segments;
    /// Received frames of a flow that the driver has not sent on yet go to random queues, with
    /// several pairs in use.
    random_steering;
    /// The address of a used descriptor of a packed ring, and receive buffers behind what was
    /// received (up to 64 bytes), are overwritten.
    poisons_memory;
}

impl Latitude {
    /// QEMU's own virtio-net, as near as the model gets (learned from its source,
    /// `hw/net/virtio-net.c`, with a TAP behind it): all at once and in order, but
    /// * doorbells are answered from a bottom half, so the look at the ring is late, and meanwhile
    ///   no doorbells are asked for ([`late_look`](Self::late_look),
    ///   [`polls_awhile`](Self::polls_awhile));
    /// * the TAP hands over frames of the same host with a partial checksum, and large ones
    ///   ([`partial_checksums`](Self::partial_checksums),
    ///   [`joins_segments`](Self::joins_segments)).
    ///
    /// What QEMU does and this model does in any case: frames without a buffer wait; the filter
    /// is promiscuous at first and has 64 addresses; a broken ring sets DEVICE_NEEDS_RESET.
    /// Not as QEMU does it: what is posted while the link is down is marked as used by both, but
    /// the model still counts it as sent; with IN_ORDER the model never batches here (not looked
    /// up in QEMU).
    #[must_use]
    pub const fn qemu() -> Self {
        Self {
            late_look: true,
            polls_awhile: true,
            partial_checksums: true,
            joins_segments: true,
            ..Self::none()
        }
    }
}

impl Default for Latitude {
    /// All freedoms.
    fn default() -> Self {
        Self::all()
    }
}
