//! Transmit descriptors as they are fetched.

use super::bits::{command, option, tucmd};

/// The formats of a transmit descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Legacy,
    Context,
    Data,
    /// DEXT with an unknown DTYP.
    Unknown,
}

/// A transmit descriptor as it was fetched.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxDescriptor {
    pub(super) raw: [u8; 16],
    /// Address, or the first two words of a context.
    low: u64,
    /// The third word.
    pub(super) command: u32,
    /// The fourth word.
    pub(super) options: u32,
}

impl TxDescriptor {
    pub(super) fn parse(raw: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = raw;
        Self {
            raw,
            low: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            command: u32::from_le_bytes([i, j, k, l]),
            options: u32::from_le_bytes([m, n, o, p]),
        }
    }

    pub(super) fn format(&self) -> Format {
        if !self.has(command::DEXT) {
            return Format::Legacy;
        }
        match self.command >> command::TYPE_SHIFT & 0xf {
            command::CONTEXT => Format::Context,
            command::DATA => Format::Data,
            _ => Format::Unknown,
        }
    }

    pub(super) fn has(&self, bit: u32) -> bool {
        self.command & bit != 0
    }

    pub(super) fn wants(&self, bit: u32) -> bool {
        self.options & bit != 0
    }

    pub(super) fn address(&self) -> u64 {
        self.low
    }

    /// DTALEN: bytes of the buffer.
    pub(super) fn len(&self) -> usize {
        (self.command & 0xffff) as usize
    }

    /// PAYLEN.
    pub(super) fn payload_len(&self) -> usize {
        (self.options >> option::PAYLEN_SHIFT) as usize
    }

    /// IDX: the slot of the context.
    pub(super) fn slot(&self) -> usize {
        (self.options >> option::SLOT_SHIFT & 0b111) as usize
    }

    /// Whether it needs a context.
    pub(super) fn needs_context(&self) -> bool {
        self.has(command::TSE | command::VLE)
            || self.wants(option::IXSM | option::TXSM | option::CC)
    }

    /// What a reserved field of a data descriptor says that it must not.
    pub(super) fn misuse(&self) -> Option<&'static str> {
        if self.options & option::STATUS != 0 {
            Some("its status is not zero: DD would be seen before it is written")
        } else if self.has(command::RESERVED) {
            Some("a reserved bit of DCMD, or beside DTALEN, is set")
        } else if self.has(command::MAC) {
            Some("MAC (security, time stamp) is not modelled")
        } else if self.wants(option::RESERVED) {
            Some("a reserved bit of POPTS is set")
        } else {
            None
        }
    }
}

/// What a context descriptor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Context {
    /// MACLEN.
    pub(super) mac_len: usize,
    /// IPLEN.
    pub(super) ip_len: usize,
    /// L4LEN.
    pub(super) l4_len: usize,
    pub(super) mss: usize,
    pub(super) is_ipv4: bool,
    /// L4T.
    pub(super) l4_type: u32,
    /// VLAN: what the tag that is put on holds, priority included.
    pub(super) vlan: u16,
}

impl Context {
    pub(super) fn parse(descriptor: &TxDescriptor) -> Self {
        let lengths = descriptor.low as u32;
        Self {
            ip_len: (lengths & 0x1ff) as usize,
            mac_len: (lengths >> 9 & 0x7f) as usize,
            vlan: (lengths >> 16) as u16,
            l4_len: (descriptor.options >> 8 & 0xff) as usize,
            mss: (descriptor.options >> 16) as usize,
            is_ipv4: descriptor.has(tucmd::IPV4),
            l4_type: descriptor.command >> tucmd::L4T_SHIFT & 0b11,
        }
    }

    /// What a field of a context descriptor says that it must not.
    pub(super) fn misuse(descriptor: &TxDescriptor) -> Option<&'static str> {
        let known = command::DEXT
            | 0xf << command::TYPE_SHIFT
            | tucmd::SNAP
            | tucmd::IPV4
            | 0b11 << tucmd::L4T_SHIFT;
        if descriptor.slot() > 1 {
            // The 82598 has eight; the 82599 and X540 two (X550 datasheet 7.2.3.2.3).
            Some("IDX names a slot beyond the second one")
        } else if descriptor.low >> 32 != 0 {
            Some("the field for FCoE and IPsec is not zero")
        } else if descriptor.command & !known != 0 {
            Some("a reserved bit is set, or one of EOP, IFCS, RS that a context has not")
        } else if descriptor.has(tucmd::SNAP) {
            Some("SNAP is not modelled")
        } else if descriptor.options & 0x8f != 0 {
            Some("a reserved bit beside IDX is set")
        } else {
            None
        }
    }

    /// Bytes of all headers.
    pub(super) fn header_len(&self) -> usize {
        self.mac_len + self.ip_len + self.l4_len
    }

    /// Where the transport header begins.
    pub(super) fn transport(&self) -> usize {
        self.mac_len + self.ip_len
    }

    /// Offset of the transport checksum in the frame.
    pub(super) fn checksum_at(&self) -> usize {
        self.transport() + if self.l4_type == tucmd::UDP { 6 } else { 16 }
    }
}
