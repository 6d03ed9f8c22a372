//! TCP segmentation.
//!
//! What changes from segment to segment is [common](crate::intel::segment), but for the checksums.
//! The TCP flags pass through a mask for the first, the middle and the last segment (DTXTCPFLGL,
//! DTXTCPFLGH); the one segment of a request that has only one passes through the last's.

use super::checksum::{combine, sum};
use super::descriptor::Context;
use super::offload::{insert_ip, put_transport};
use crate::intel::segment;

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
    let headers = segment::Headers {
        is_ipv4: context.is_ipv4,
        ip: context.mac_len,
        transport: context.transport(),
        len: context.header_len(),
    };
    let mask = |index, count| flags.of(index, count);
    segment::cut(&headers, context.mss, mask, frame, segment, |made, len| {
        if context.is_ipv4 {
            insert_ip(context, made);
        }
        // The seed lies where the checksum goes, so it is summed with the rest; the device adds
        // the length that it lacks.
        let covered = sum(made.get(context.transport()..).unwrap_or_default());
        put_transport(context, !combine(covered, len), made);
        each(made);
    });
}
