//! TCP segmentation: what changes from segment to segment.
//!
//! IPv4 total length and identification, IPv6 payload length, TCP sequence number and flags (82598
//! datasheet 3.5.3.4.7, 82583V datasheet 7.3.6.2). The checksums are left to the device, as each
//! has its own way to say where they are.

/// Where the headers of a request are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers {
    pub(crate) is_ipv4: bool,
    /// Offset of the IP header.
    pub(crate) ip: usize,
    /// Offset of the TCP header.
    pub(crate) transport: usize,
    /// Bytes of all headers.
    pub(crate) len: usize,
}

/// Cuts `frame` into segments of at most `mss` bytes behind the headers. Each is made in `segment`
/// and handed to `each`, with the number of bytes from the TCP header on, which is what its
/// pseudo-header lacks. `flags` says which TCP flags stay, by the index of the segment and their
/// number; the upper four bits are no flags. The headers have been judged before.
pub(crate) fn cut(
    headers: &Headers,
    mss: usize,
    flags: impl Fn(usize, usize) -> u16,
    frame: &[u8],
    segment: &mut Vec<u8>,
    mut each: impl FnMut(&mut Vec<u8>, u16),
) {
    let Some((header, payload)) = frame.split_at_checked(headers.len) else {
        return;
    };
    let mss = mss.max(1);
    let count = payload.len().div_ceil(mss);
    for (index, part) in payload.chunks(mss).enumerate() {
        segment.clear();
        segment.extend_from_slice(header);
        segment.extend_from_slice(part);
        complete(headers, index, index * mss, flags(index, count), segment);
        let covered = segment.len().saturating_sub(headers.transport) as u16;
        each(segment, covered);
    }
}

/// Brings the headers of segment `index`, with `before` bytes in those before it, in order.
fn complete(headers: &Headers, index: usize, before: usize, mask: u16, segment: &mut [u8]) {
    let Headers { ip, transport, .. } = *headers;
    let total = segment.len().saturating_sub(ip) as u16;
    if headers.is_ipv4 {
        put(segment, ip + 2, total);
        let number = half(segment, ip + 4).wrapping_add(index as u16);
        put(segment, ip + 4, number);
    } else {
        put(segment, ip + 4, total.saturating_sub(40));
    }
    let sequence =
        u32::from(half(segment, transport + 4)) << 16 | u32::from(half(segment, transport + 6));
    let sequence = sequence.wrapping_add(before as u32);
    put(segment, transport + 4, (sequence >> 16) as u16);
    put(segment, transport + 6, sequence as u16);
    // The upper four bits are the length of the header.
    let flags = half(segment, transport + 12) & (mask | 0xf000);
    put(segment, transport + 12, flags);
}

/// Two bytes at `at`; 0 if they are not there.
fn half(bytes: &[u8], at: usize) -> u16 {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
    field.map_or(0, |field| u16::from_be_bytes(*field))
}

/// Writes two bytes at `at`, if they are there.
fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}
