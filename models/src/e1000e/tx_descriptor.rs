//! Transmit descriptors: their formats and fields.

use super::bits::{command, popts};

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
    pub(super) format: Format,
    pub(super) command: u8,
    /// The byte of STA and, above it, reserved or extended command bits.
    pub(super) status: u8,
    /// POPTS, or CSS of a legacy descriptor.
    pub(super) options: u8,
    /// What goes into a VLAN tag.
    pub(super) tag: [u8; 2],
}

impl TxDescriptor {
    pub(super) fn parse(raw: [u8; 16]) -> Self {
        let [.., kind, command, status, options, t0, t1] = raw;
        let format = match (command & command::DEXT != 0, kind >> 4) {
            (false, _) => Format::Legacy,
            (true, 0) => Format::Context,
            (true, 1) => Format::Data,
            (true, _) => Format::Unknown,
        };
        Self {
            raw,
            format,
            command,
            status,
            options,
            // Network order in the frame, little-endian in the descriptor.
            tag: [t1, t0],
        }
    }

    pub(super) fn has(&self, bit: u8) -> bool {
        self.command & bit != 0
    }

    pub(super) fn address(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.raw;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// Bytes of the buffer: 16 bits in a legacy descriptor, 20 in a data descriptor.
    pub(super) fn len(&self) -> usize {
        let [.., low, middle, high, _, _, _, _, _] = self.raw;
        let high = match self.format {
            Format::Data => u32::from(high & 0xf) << 16,
            _ => 0,
        };
        (u32::from(low) | u32::from(middle) << 8 | high) as usize
    }

    /// A data descriptor of a request for segmentation. (In a legacy one the bit is IC.)
    pub(super) fn segments(&self) -> bool {
        self.format == Format::Data && self.has(command::TSE)
    }

    /// CSO of a legacy descriptor.
    pub(super) fn checksum_offset(&self) -> u8 {
        let [.., cso, _, _, _, _, _] = self.raw;
        cso
    }

    /// What a reserved field says that it must not.
    pub(super) fn misuse(&self) -> Option<&'static str> {
        if self.status != 0 {
            Some("its status (or a reserved bit beside it) is not zero: DD would never be seen")
        } else if self.has(command::RESERVED) {
            Some("a reserved command bit is set")
        } else if self.format == Format::Data && self.options & popts::RESERVED != 0 {
            Some("a reserved bit of POPTS is set")
        } else {
            None
        }
    }
}
