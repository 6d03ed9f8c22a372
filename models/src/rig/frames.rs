//! Frames, and their checksums by another code than that of the models.

/// The station address of the devices under test.
pub(crate) const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt)
        .collect()
}

/// The definition of the checksum, for checking.
pub(crate) fn plain_sum(parts: &[&[u8]]) -> u16 {
    let whole: Vec<u8> = parts.concat();
    let mut total = 0u32;
    for word in whole.chunks(2) {
        total += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// A frame with an IP packet: version 4 or 6, TCP or UDP (20 or 8 bytes of header), `payload`, and
/// all checksum fields zero.
pub(crate) fn ip_frame(version: u8, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let header = if protocol == 6 { 20 } else { 8 };
    let len = (header + payload.len()) as u16;
    let mut frame = Vec::new();
    frame.extend_from_slice(&MAC);
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 9]);
    if version == 4 {
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        frame.extend_from_slice(&(20 + len).to_be_bytes());
        frame.extend_from_slice(&[0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
        frame.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    } else {
        frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&[protocol, 64]);
        frame.extend_from_slice(&[0xfd; 16]);
        frame.extend_from_slice(&[0xfe; 16]);
    }
    frame.extend_from_slice(&[0x30, 0x39, 0, 80]);
    if protocol == 6 {
        frame.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x99, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
    }
    frame.extend_from_slice(payload);
    frame
}

/// Offset of the transport header.
pub(crate) fn transport(frame: &[u8]) -> usize {
    if frame[14] >> 4 == 4 { 34 } else { 54 }
}

/// The sum of the pseudo-header of the packet in `frame`; without the length if `zero_len`.
pub(crate) fn pseudo_sum(frame: &[u8], zero_len: bool) -> u16 {
    let v4 = frame[14] >> 4 == 4;
    let (addresses, protocol) = if v4 {
        (&frame[26..34], frame[23])
    } else {
        (&frame[22..54], frame[20])
    };
    let len = if v4 {
        u16::from_be_bytes([frame[16], frame[17]]).wrapping_sub(20)
    } else {
        u16::from_be_bytes([frame[18], frame[19]])
    };
    let len = if zero_len { 0 } else { len };
    plain_sum(&[addresses, &[0, protocol], &len.to_be_bytes()])
}

/// Where the transport checksum is.
pub(crate) fn field(frame: &[u8]) -> usize {
    let protocol = if frame[14] >> 4 == 4 {
        frame[23]
    } else {
        frame[20]
    };
    transport(frame) + if protocol == 6 { 16 } else { 6 }
}

/// Puts the pseudo-header sum where the device expects it.
pub(crate) fn seed_checksum(frame: &mut [u8], zero_len: bool) {
    let sum = pseudo_sum(frame, zero_len);
    let at = field(frame);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Fills in all checksums, as a sender without offload would.
pub(crate) fn fill_checksums(frame: &mut [u8]) {
    if frame[14] >> 4 == 4 {
        let ip = !plain_sum(&[&frame[14..34]]);
        frame[24..26].copy_from_slice(&ip.to_be_bytes());
    }
    let (at, from) = (field(frame), transport(frame));
    let pseudo = pseudo_sum(frame, false).to_be_bytes();
    let sum = !plain_sum(&[&pseudo, &frame[from..]]);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// Whether all checksums of a frame are right; what is behind its packet counts for nothing.
pub(crate) fn verifies(frame: &[u8]) -> bool {
    let v4 = frame[14] >> 4 == 4;
    let len = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let end = if v4 { 14 + len(16) } else { 54 + len(18) };
    let pseudo = pseudo_sum(frame, false).to_be_bytes();
    let header = !v4 || plain_sum(&[&frame[14..34]]) == 0xffff;
    header && plain_sum(&[&pseudo, &frame[transport(frame)..end]]) == 0xffff
}
