//! Checksum insertion: the context, and what it does to a frame.

use super::bits::{command, popts};
use super::checksum;

/// What a context descriptor said last.
///
/// There is one for the whole device: the hardware remembers the last context whatever queue it
/// came from (82574 datasheet 7.2.6, as the project's notes quote it; not read here).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Context {
    pub(super) ip: Range,
    pub(super) transport: Range,
    command: u8,
    /// For segmentation: bytes behind the headers, bytes of the headers, and most bytes behind
    /// them in a segment.
    pub(super) payload_len: usize,
    pub(super) header_len: usize,
    pub(super) mss: usize,
}

/// Where a sum starts, where it is stored, and its last byte (0: the last of the packet).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) start: usize,
    pub(super) offset: usize,
    pub(super) end: usize,
}

impl Range {
    fn from_bytes([start, offset, end_low, end_high]: [u8; 4]) -> Self {
        Self {
            start: usize::from(start),
            offset: usize::from(offset),
            end: usize::from(u16::from_le_bytes([end_low, end_high])),
        }
    }

    /// The last byte of the sum in a frame of `len` bytes.
    fn last(self, len: usize) -> usize {
        if self.end == 0 {
            len.saturating_sub(1)
        } else {
            self.end
        }
    }

    /// Why the range does not fit a frame of `len` bytes.
    fn misfit(self, len: usize) -> Option<&'static str> {
        let last = self.last(len);
        if self.start >= len {
            Some("starts beyond the frame")
        } else if self.end >= len {
            Some("ends beyond the frame")
        } else if self.offset + 2 > len {
            Some("is stored beyond the frame")
        } else if self.offset < self.start || self.offset + 1 > last {
            Some("does not cover the field that it is stored in")
        } else {
            None
        }
    }
}

impl Context {
    /// From the 16 bytes of a context descriptor (8254x SDM 3.3.6).
    pub(super) fn parse(raw: &[u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = *raw;
        let [len, middle, high, command, _, header_len, low_mss, high_mss] = rest;
        Self {
            ip: Range::from_bytes([a, b, c, d]),
            transport: Range::from_bytes([e, f, g, h]),
            command,
            payload_len: u32::from_le_bytes([len, middle, high & 0xf, 0]) as usize,
            header_len: usize::from(header_len),
            mss: usize::from(u16::from_le_bytes([low_mss, high_mss])),
        }
    }

    pub(super) fn has(&self, bit: u8) -> bool {
        self.command & bit != 0
    }

    pub(super) fn segments(&self) -> bool {
        self.has(command::TSE)
    }

    /// Inserts what `options` (POPTS) asks for into `frame`, not yet padded. A checksum whose
    /// range does not fit is reported and not inserted. Returns how many were.
    pub(super) fn insert(
        &self,
        options: u8,
        frame: &mut [u8],
        report: &mut dyn FnMut(&str),
    ) -> u64 {
        let mut inserted = 0;
        if options & popts::IXSM != 0 {
            self.check_ip(frame, report);
            inserted += u64::from(insert(self.ip, 0, false, frame, "the IP checksum", report));
        }
        if options & popts::TXSM != 0 {
            let tcp = self.has(command::TCP);
            let place = self.transport.offset.wrapping_sub(self.transport.start);
            // Without the bit it is UDP, or any other sum of this kind: the bit only tells the two
            // apart for segmentation and for a sum of zero.
            if tcp && place != 16 {
                report("TUCSO is not where TUCMD.TCP puts the checksum behind TUCSS");
            }
            let what = "the TCP/UDP checksum";
            inserted += u64::from(insert(self.transport, 0, !tcp, frame, what, report));
        }
        inserted
    }

    /// Compares the context with the IPv4 header that should be in the frame.
    pub(super) fn check_ip(&self, frame: &[u8], report: &mut dyn FnMut(&str)) {
        if !self.has(command::IPV4) {
            report("IXSM with a context for IPv6, which has no header checksum");
            return;
        }
        let first = frame.get(self.ip.start).copied().unwrap_or(0);
        if first >> 4 != 4 {
            report("IXSM, and there is no IPv4 header at IPCSS");
            return;
        }
        let header = usize::from(first & 0xf) * 4;
        if self.ip.end + 1 != self.ip.start + header {
            report("IPCSE is not the last byte of the IPv4 header (it is inclusive)");
        }
        let field = frame.get(self.ip.offset..self.ip.offset + 2);
        if self.ip.offset != self.ip.start + 10 {
            report("IPCSO is not the checksum field of the IPv4 header");
        } else if field.is_some_and(|field| field != [0, 0]) {
            report("the IPv4 checksum field is not zero before insertion: it is summed as well");
        }
    }
}

/// Sums, with `extra` beside what is in the range, complements and stores; whether it did.
///
/// A sum that complements to zero means "no checksum" in UDP and goes out as all ones (RFC 768).
/// The datasheet excerpts at hand do not say that the device does so; a UDP frame without it
/// would lose its checksum, so it is assumed.
pub(super) fn insert(
    range: Range,
    extra: u16,
    udp: bool,
    frame: &mut [u8],
    what: &str,
    report: &mut dyn FnMut(&str),
) -> bool {
    if let Some(misfit) = range.misfit(frame.len()) {
        report(&format!("{what} {misfit}"));
        return false;
    }
    let covered = frame.get(range.start..=range.last(frame.len()));
    let mut value = !checksum::combine(checksum::sum(covered.unwrap_or_default()), extra);
    if udp && value == 0 {
        value = 0xffff;
    }
    if let Some(field) = frame.get_mut(range.offset..range.offset + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    true
}

/// Legacy insertion (8254x SDM 3.3.3.1): from `start` to the end, stored at `offset`. Whether it
/// was done.
pub(super) fn insert_legacy(
    start: u8,
    offset: u8,
    frame: &mut [u8],
    report: &mut dyn FnMut(&str),
) -> bool {
    let range = Range {
        start: usize::from(start),
        offset: usize::from(offset),
        end: 0,
    };
    insert(range, 0, false, frame, "the legacy checksum", report)
}
