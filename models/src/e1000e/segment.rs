//! TCP segmentation: the judgement about a request, and its checksums. What else changes from
//! segment to segment is [common](crate::intel::segment).
//!
//! Sources: the 82583V datasheet 7.2.9.3 (lengths), 7.3.5 (what the prototype of the headers has)
//! and 7.3.6 (what the device makes of it).

use super::bits::{command, popts};
use super::checksum::{combine, sum};
use super::offload::{Context, insert};
use crate::intel::segment::{self, Headers};

/// Bytes that the device keeps of the headers.
const LONGEST_HEADER: usize = 240;
/// MSS is more than this.
const SMALLEST_MSS: usize = 16;
/// FIN and PSH.
const LAST_ALONE: u16 = 0x09;
const TCP: u8 = 6;
/// Offset of the checksum in a TCP header, and its least length.
const CHECKSUM: usize = 16;
const TCP_HEADER: usize = 20;

/// A request for segmentation, to be judged.
pub(super) struct Request<'a> {
    pub(super) context: &'a Context,
    /// POPTS.
    pub(super) options: u8,
    /// Headers and payload of all segments.
    pub(super) frame: &'a [u8],
    /// Where descriptors end in the headers.
    pub(super) ends: &'a [usize],
    /// Bytes that a segment may have.
    pub(super) limit: usize,
}

impl Request<'_> {
    fn half(&self, at: usize) -> Option<u16> {
        let field = self.frame.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*field))
    }

    fn byte(&self, at: usize) -> u8 {
        self.frame.get(at).copied().unwrap_or(0)
    }

    /// Where the headers are, by the context.
    fn headers(&self) -> Headers {
        Headers {
            is_ipv4: self.context.has(command::IPV4),
            ip: self.context.ip.start,
            transport: self.context.transport.start,
            len: self.context.header_len,
        }
    }

    /// Reports what is wrong; false if the device can do nothing with it.
    pub(super) fn judge(&self, report: &mut dyn FnMut(&str)) -> bool {
        if let Some(fault) = self.fault() {
            report(fault);
            return false;
        }
        let headers = self.headers();
        if headers.len > LONGEST_HEADER {
            report("HDRLEN is more than the 240 bytes that the device keeps");
        }
        if usize::from(self.byte(headers.transport + 12) >> 4) * 4 + headers.transport
            != headers.len
        {
            report("HDRLEN is not the end of the TCP header");
        }
        let cut = |end: &&usize| **end != headers.ip && **end != headers.transport;
        if self
            .ends
            .iter()
            .filter(|end| **end < headers.len)
            .any(|end| cut(&end))
        {
            report("TSE, and a descriptor ends in the middle of a header");
        }
        self.judge_ip(&headers, report);
        self.judge_transport(&headers, report);
        true
    }

    /// Why nothing can be sent.
    fn fault(&self) -> Option<&'static str> {
        let Headers { transport, len, .. } = self.headers();
        let Context {
            mss, payload_len, ..
        } = *self.context;
        if !self.context.has(command::TCP) {
            Some("segmentation of anything but TCP is not modelled")
        } else if mss == 0 {
            Some("TSE, and MSS is zero")
        } else if mss <= SMALLEST_MSS {
            Some("MSS is not more than 16")
        } else if self.half(12).is_some_and(|kind| kind < 0x600) {
            Some("segmentation of a frame with a length in place of its type is not modelled")
        } else if len + mss > self.limit {
            Some("MSS and HDRLEN make frames that do not fit the transmit FIFO")
        } else if len < transport + TCP_HEADER {
            Some("HDRLEN ends before the TCP header does")
        } else if self.frame.len() <= len {
            Some("TSE, and there is nothing behind HDRLEN")
        } else if len + payload_len != self.frame.len() {
            Some("PAYLEN is not what the descriptors hold behind HDRLEN")
        } else {
            None
        }
    }

    fn judge_ip(&self, headers: &Headers, report: &mut dyn FnMut(&str)) {
        let first = self.byte(headers.ip);
        if headers.is_ipv4 {
            let end = headers.ip + usize::from(first & 0xf) * 4;
            if first >> 4 != 4 || end != headers.transport {
                report("TSE, and there is no IPv4 header from IPCSS to TUCSS");
            } else if self.byte(headers.ip + 9) != TCP {
                report("TSE for TCP, and the IPv4 header says another protocol");
            } else if self.half(headers.ip + 2) != Some(0) {
                report("TSE, and the total length in the IPv4 header is not zero");
            }
            if self.options & popts::IXSM == 0 {
                report("TSE without IXSM for IPv4");
            } else {
                self.context.check_ip(self.frame, report);
            }
        } else {
            if first >> 4 != 6 || headers.transport < headers.ip + 40 {
                report("TSE, and there is no IPv6 header from IPCSS to TUCSS");
            } else if self.half(headers.ip + 4) != Some(0) {
                report("TSE, and the payload length in the IPv6 header is not zero");
            }
            if self.options & popts::IXSM != 0 {
                report("IXSM with a context for IPv6, which has no header checksum");
            }
        }
    }

    fn judge_transport(&self, headers: &Headers, report: &mut dyn FnMut(&str)) {
        let range = self.context.transport;
        if self.options & popts::TXSM == 0 {
            report("TSE without TXSM");
            return;
        }
        if range.offset != headers.transport + CHECKSUM {
            report("TUCSO is not where TUCMD.TCP puts the checksum behind TUCSS");
            return;
        }
        if range.end != 0 {
            report("TSE, and TUCSE is not 0: the sum does not cover whole segments");
        }
        let addresses = if headers.is_ipv4 {
            headers.ip + 12..headers.ip + 20
        } else {
            headers.ip + 8..headers.ip + 40
        };
        let addresses = sum(self.frame.get(addresses).unwrap_or_default());
        let pseudo = combine(addresses, u16::from(TCP));
        let given = self.half(range.offset).unwrap_or(0);
        // All ones and zero are the same number.
        if given != pseudo && !(pseudo == 0xffff && given == 0) {
            report("the seed is not the sum of the pseudo-header without a length");
        }
    }

    /// Cuts the request into segments, each of which is made in `segment` and handed to `each`
    /// with the number of checksums put into it.
    pub(super) fn cut(&self, segment: &mut Vec<u8>, mut each: impl FnMut(&mut Vec<u8>, u64)) {
        let Context {
            ip, transport, mss, ..
        } = *self.context;
        let mut silent = |_: &str| {};
        let mask = |index, count| {
            if index + 1 == count {
                0xfff
            } else {
                !LAST_ALONE
            }
        };
        let made = |made: &mut Vec<u8>, len: u16| {
            let mut inserted = 0;
            if self.options & popts::IXSM != 0 {
                inserted += u64::from(insert(ip, 0, false, made, "", &mut silent));
            }
            if self.options & popts::TXSM != 0 {
                // The seed lacks the length, which the device adds.
                inserted += u64::from(insert(transport, len, false, made, "", &mut silent));
            }
            each(made, inserted);
        };
        segment::cut(&self.headers(), mss, mask, self.frame, segment, made);
    }
}
