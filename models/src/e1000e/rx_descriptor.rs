//! Receive descriptors: their three formats, the buffers they name, and what is written back.
//!
//! Sources: the 82583V datasheet 7.1.3 (legacy); Linux e1000e (`hw.h`) for the extended and the
//! packet split format, QEMU `e1000e_core.c` for what becomes of the buffers of a packet split
//! descriptor. The 82574 datasheet's chapter about packet split was not at hand.

use super::bits::{DD, DESCRIPTOR, header_status, offset, psrctl, rctl, rfctl, rx_status, rxcsum};
use super::filter;
use super::registers::RegisterFile;

/// Buffers of a packet split descriptor.
pub(super) const BUFFERS: usize = 4;
/// Bytes of a packet split descriptor.
pub(super) const SPLIT: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Legacy,
    Extended,
    /// Four buffers, the first of them for headers.
    Split,
}

/// How the descriptors look, and how long their buffers are: RCTL, RFCTL and PSRCTL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) format: Format,
    /// Bytes of each buffer; 0 where there is none.
    pub(super) sizes: [usize; BUFFERS],
}

impl Layout {
    pub(super) fn of(registers: &RegisterFile) -> Self {
        let control = registers.get(offset::RCTL);
        let extended = registers.get(offset::RFCTL) & rfctl::EXSTEN != 0;
        let format = match (extended, control & rctl::DTYP) {
            (false, _) => Format::Legacy,
            (true, rctl::DTYP_SPLIT) => Format::Split,
            (true, _) => Format::Extended,
        };
        let sizes = match format {
            Format::Split => split_sizes(registers.get(offset::PSRCTL)),
            _ => [filter::buffer_size(control).unwrap_or(0), 0, 0, 0],
        };
        Self { format, sizes }
    }

    /// Descriptors of 16 bytes, in which heads and tails count, in one of these (82574 datasheet
    /// 7.1.8: the tail moves by two for each packet split descriptor).
    pub(super) fn units(&self) -> u32 {
        match self.format {
            Format::Split => 2,
            _ => 1,
        }
    }

    /// Bytes of a descriptor.
    pub(super) fn descriptor(&self) -> usize {
        (self.units() * DESCRIPTOR) as usize
    }

    pub(super) fn is_usable(&self) -> bool {
        self.sizes.iter().any(|size| *size > 0)
    }

    /// Bytes that fit `count` descriptors, with `header` bytes of them in a buffer of their own.
    pub(super) fn room(&self, count: usize, header: usize) -> usize {
        let [first, others @ ..] = self.sizes;
        let others: usize = others.iter().sum();
        match self.format {
            Format::Split if count == 0 => 0,
            Format::Split if header > 0 => header + count * others,
            Format::Split => first + count * others,
            _ => count * first,
        }
    }

    /// How `rest` bytes of a frame go into the buffers of a descriptor. The header, if it is
    /// split off, has the first buffer for itself; in a descriptor that is not the first of its
    /// frame that buffer stays empty (QEMU, which names 7.1.5.1).
    pub(super) fn fill(&self, rest: usize, header: usize, is_first: bool) -> [usize; BUFFERS] {
        let mut left = rest;
        let mut lens = [0; BUFFERS];
        for (index, (len, size)) in lens.iter_mut().zip(self.sizes).enumerate() {
            let most = match (self.format, index) {
                (Format::Split, 0) if !is_first => 0,
                (Format::Split, 0) if header > 0 => header.min(size),
                _ => size,
            };
            *len = left.min(most);
            left -= *len;
        }
        lens
    }
}

/// Bytes of the buffers by PSRCTL: the first in units of 128, the others of 1024.
fn split_sizes(control: u32) -> [usize; BUFFERS] {
    let field = |mask: u32| ((control & mask) >> mask.trailing_zeros()) as usize;
    [
        field(psrctl::BSIZE0) * 128,
        field(psrctl::BSIZE1) * 1024,
        field(psrctl::BSIZE2) * 1024,
        field(psrctl::BSIZE3) * 1024,
    ]
}

/// A descriptor that was fetched and is free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    /// Its place in the ring, in units of 16 bytes.
    pub(super) index: u32,
    raw: [u8; SPLIT],
    layout: Layout,
}

impl Free {
    /// From the bytes of a descriptor.
    pub(super) fn new(index: u32, bytes: &[u8], layout: Layout) -> Self {
        let mut raw = [0; SPLIT];
        for (target, byte) in raw.iter_mut().zip(bytes) {
            *target = *byte;
        }
        Self { index, raw, layout }
    }

    /// Addresses and sizes of its buffers.
    pub(super) fn buffers(&self) -> impl Iterator<Item = (u64, usize)> {
        let (words, _) = self.raw.as_chunks::<8>();
        let addresses = words.iter().map(|word| u64::from_le_bytes(*word));
        let buffers = addresses.zip(self.layout.sizes);
        buffers.filter(|(_, size)| *size > 0)
    }

    /// Names no buffer: it takes no data. There are none among packet split descriptors (82574
    /// datasheet 7.1.7.2).
    pub(super) fn is_null(&self) -> bool {
        self.layout.format != Format::Split && self.buffers().all(|(address, _)| address == 0)
    }

    /// What is wrong with it, if anything.
    pub(super) fn misuse(&self) -> Option<&'static str> {
        // Where DD is in each format; what else was written back may stay there (Linux e1000e
        // clears these eight bits, writes the address, and leaves the rest).
        let [_, _, _, _, _, _, _, _, extended, _, _, _, legacy, ..] = self.raw;
        let status = match self.layout.format {
            Format::Legacy => legacy,
            Format::Extended | Format::Split => extended,
        };
        if u32::from(status) & rx_status::DD != 0 {
            return Some("its status is not clear: DD would be seen before it is written");
        }
        let is_split = self.layout.format == Format::Split;
        if is_split && self.buffers().any(|(address, _)| address == 0) {
            return Some("a packet split descriptor without one of its buffers");
        }
        None
    }

    /// The descriptor, for reports.
    pub(super) fn content(&self) -> String {
        let used = self.raw.get(..self.layout.descriptor());
        let bytes = used.unwrap_or_default();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What is written back where it [is null](Self::is_null): from byte 8 on, DD is set and the
    /// rest stays (82574 datasheet 7.1.7.2).
    pub(super) fn passed_over(&self) -> [u8; 8] {
        let [_, _, _, _, _, _, _, _, a, b, c, d, status, e, f, g, ..] = self.raw;
        [a, b, c, d, status | DD, e, f, g]
    }
}

/// What the device knows of a frame, as far as its descriptors say it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) status: u32,
    pub(super) checksum: u16,
    pub(super) identification: [u8; 2],
    /// Bytes of the header that was split off; 0: none was.
    pub(super) header: usize,
    /// The VLAN tag that was taken off.
    pub(super) tag: Option<u16>,
}

/// What is said of a descriptor that was filled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) lens: [usize; BUFFERS],
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl Filled {
    /// The bytes to write, and the first of them.
    pub(super) fn write_back(
        &self,
        facts: &Facts,
        format: Format,
        registers: &RegisterFile,
    ) -> (u32, [u8; SPLIT], usize) {
        let status = match self.is_last {
            true => facts.status | rx_status::EOP | rx_status::DD,
            false => rx_status::DD,
        };
        let half = |len: usize| (len as u16).to_le_bytes();
        let [l0, l1] = half(self.lens[0]);
        // The packet checksum is in the first descriptor (82583V datasheet 7.1.3).
        let [c0, c1] = half(if self.is_first {
            facts.checksum.into()
        } else {
            0
        });
        // Where VP is, which is valid in the last one.
        let tag = facts.tag.filter(|_| self.is_last).unwrap_or(0);
        let [t0, t1] = tag.to_le_bytes();
        let mut bytes = [0; SPLIT];
        let mut put = |at: usize, source: &[u8]| {
            for (target, byte) in bytes.iter_mut().skip(at).zip(source) {
                *target = *byte;
            }
        };
        if format == Format::Legacy {
            let [s0, _, _, errors] = status.to_le_bytes();
            put(0, &[l0, l1, c0, c1, s0, errors, t0, t1]);
            return (8, bytes, 8);
        }
        let [i0, i1] = facts.identification;
        if registers.get(offset::RXCSUM) & rxcsum::PCSD == 0 {
            // Else the place belongs to the RSS hash, which there is none of.
            put(4, &[i0, i1, c0, c1]);
        }
        put(8, &status.to_le_bytes());
        put(12, &[l0, l1, t0, t1]);
        if format == Format::Extended {
            return (0, bytes, DESCRIPTOR as usize);
        }
        if self.is_first && facts.header > 0 {
            let header = facts.header as u16 & header_status::HLEN;
            put(16, &(header | header_status::HDRSP).to_le_bytes());
        }
        for (at, len) in (18..).step_by(2).zip(self.lens.iter().skip(1)) {
            put(at, &half(*len));
        }
        (0, bytes, SPLIT)
    }
}
