//! TCP segmentation.
//!
//! What changes from segment to segment: IPv4 total length, identification and header checksum,
//! IPv6 payload length; TCP sequence number, flags and checksum (82598 datasheet 3.5.3.4.7). The
//! flags pass through a mask for the first, the middle and the last segment (DTXTCPFLGL,
//! DTXTCPFLGH); the one segment of a request that has only one passes through the last's.

use super::checksum::{combine, sum};
use super::descriptor::Context;
use super::offload::{insert_ip, put, put_transport};

/// Masks for the TCP flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags {
    first: u16,
    middle: u16,
    last: u16,
}

impl Flags {
    /// From DTXTCPFLGL and DTXTCPFLGH.
    pub(super) fn new(low: u32, high: u32) -> Self {
        Self {
            first: low as u16 & 0xfff,
            middle: (low >> 16) as u16 & 0xfff,
            last: high as u16 & 0xfff,
        }
    }

    fn of(&self, index: usize, count: usize) -> u16 {
        if index + 1 == count {
            self.last
        } else if index == 0 {
            self.first
        } else {
            self.middle
        }
    }
}

/// Cuts `frame` into segments, each of which is made in `segment` and handed to `each`. The
/// headers have been judged before.
pub(super) fn cut(
    context: &Context,
    flags: Flags,
    frame: &[u8],
    segment: &mut Vec<u8>,
    mut each: impl FnMut(&mut Vec<u8>),
) {
    let Some((header, payload)) = frame.split_at_checked(context.header_len()) else {
        return;
    };
    let count = payload.len().div_ceil(context.mss.max(1));
    for (index, part) in payload.chunks(context.mss.max(1)).enumerate() {
        segment.clear();
        segment.extend_from_slice(header);
        segment.extend_from_slice(part);
        complete(context, index, flags.of(index, count), part.len(), segment);
        each(segment);
    }
}

/// Brings the headers of segment `index` in order.
fn complete(context: &Context, index: usize, mask: u16, part: usize, segment: &mut [u8]) {
    let (ip, transport) = (context.mac_len, context.transport());
    let half = |segment: &[u8], at: usize| {
        let field = segment.get(at..).and_then(|rest| rest.first_chunk());
        field.map_or(0, |field| u16::from_be_bytes(*field))
    };
    let transport_len = (context.l4_len + part) as u16;
    if context.is_ipv4 {
        put(segment, ip + 2, context.ip_len as u16 + transport_len);
        let number = half(segment, ip + 4).wrapping_add(index as u16);
        put(segment, ip + 4, number);
        insert_ip(context, segment);
    } else {
        put(segment, ip + 4, context.ip_len as u16 - 40 + transport_len);
    }
    let sequence =
        u32::from(half(segment, transport + 4)) << 16 | u32::from(half(segment, transport + 6));
    let sequence = sequence.wrapping_add((index * context.mss) as u32);
    put(segment, transport + 4, (sequence >> 16) as u16);
    put(segment, transport + 6, sequence as u16);
    // The upper four bits are the length of the header.
    let flags = half(segment, transport + 12) & (mask | 0xf000);
    put(segment, transport + 12, flags);
    // The seed lies where the checksum goes, so it is summed with the rest; the device adds the
    // length that it lacks.
    let covered = sum(segment.get(transport..).unwrap_or_default());
    put_transport(context, !combine(covered, transport_len), segment);
}
