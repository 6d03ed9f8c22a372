//! Numbers of the specification (virtio 1.3; names as in its listings, without the prefixes).

/// Feature bits, as masks.
pub(super) mod feature {
    pub(in super::super) const CSUM: u64 = 1 << 0;
    pub(in super::super) const GUEST_CSUM: u64 = 1 << 1;
    pub(in super::super) const MTU: u64 = 1 << 3;
    pub(in super::super) const MAC: u64 = 1 << 5;
    pub(in super::super) const GUEST_TSO4: u64 = 1 << 7;
    pub(in super::super) const GUEST_TSO6: u64 = 1 << 8;
    pub(in super::super) const HOST_TSO4: u64 = 1 << 11;
    pub(in super::super) const HOST_TSO6: u64 = 1 << 12;
    pub(in super::super) const MRG_RXBUF: u64 = 1 << 15;
    pub(in super::super) const STATUS: u64 = 1 << 16;
    pub(in super::super) const CTRL_VQ: u64 = 1 << 17;
    pub(in super::super) const CTRL_RX: u64 = 1 << 18;
    pub(in super::super) const MQ: u64 = 1 << 22;
    pub(in super::super) const CTRL_MAC_ADDR: u64 = 1 << 23;
    pub(in super::super) const INDIRECT_DESC: u64 = 1 << 28;
    pub(in super::super) const EVENT_IDX: u64 = 1 << 29;
    pub(in super::super) const VERSION_1: u64 = 1 << 32;
    pub(in super::super) const ACCESS_PLATFORM: u64 = 1 << 33;
    pub(in super::super) const RING_PACKED: u64 = 1 << 34;
    pub(in super::super) const IN_ORDER: u64 = 1 << 35;
    pub(in super::super) const ORDER_PLATFORM: u64 = 1 << 36;
    pub(in super::super) const RING_RESET: u64 = 1 << 40;

    /// Feature, and what it requires (one of them suffices).
    pub(in super::super) const REQUIREMENTS: [(u64, u64); 7] = [
        (GUEST_TSO4, GUEST_CSUM),
        (GUEST_TSO6, GUEST_CSUM),
        (HOST_TSO4, CSUM),
        (HOST_TSO6, CSUM),
        (CTRL_RX, CTRL_VQ),
        (MQ, CTRL_VQ),
        (CTRL_MAC_ADDR, CTRL_VQ),
    ];
}

/// `device_status`.
pub(super) mod status {
    pub(in super::super) const ACKNOWLEDGE: u8 = 1;
    pub(in super::super) const DRIVER: u8 = 2;
    pub(in super::super) const DRIVER_OK: u8 = 4;
    pub(in super::super) const FEATURES_OK: u8 = 8;
    pub(in super::super) const NEEDS_RESET: u8 = 64;
}

/// Descriptor flags.
pub(super) mod flag {
    pub(in super::super) const NEXT: u16 = 1;
    pub(in super::super) const WRITE: u16 = 2;
    pub(in super::super) const INDIRECT: u16 = 4;
    /// Packed rings only.
    pub(in super::super) const AVAIL: u16 = 1 << 7;
    /// Packed rings only.
    pub(in super::super) const USED: u16 = 1 << 15;
}

/// `virtio_net_hdr`.
pub(super) mod header {
    pub(in super::super) const LEN: usize = 12;
    pub(in super::super) const NEEDS_CSUM: u8 = 1;
    pub(in super::super) const DATA_VALID: u8 = 2;
    pub(in super::super) const GSO_NONE: u8 = 0;
    pub(in super::super) const GSO_TCPV4: u8 = 1;
    pub(in super::super) const GSO_TCPV6: u8 = 4;
    pub(in super::super) const GSO_ECN: u8 = 0x80;
}

/// No interrupt vector.
pub(super) const NO_VECTOR: u16 = 0xffff;
