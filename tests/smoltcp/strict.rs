//! Checksums the slow way, by an eye that shares nothing with the code under test: what a frame
//! on the wire must look like.

use pagewire::hal::{ChecksumOffload, RxChecksum, Verdict};

pub use super::common::packets::sum;

pub fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

pub fn word32(frame: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(frame[at..at + 4].try_into().unwrap())
}

pub fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Adds to 16 bits in ones' complement; wraps into the carry.
pub fn add(frame: &mut [u8], at: usize, value: u16) {
    let total = u32::from(word(frame, at)) + u32::from(value);
    put(frame, at, (total + (total >> 16)) as u16);
}

/// What kind of packet a frame holds, without extension headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Tcp { ipv6: bool },
    Udp { ipv6: bool },
    Fragment,
    Other,
}

/// The kind, where the transport part is, and the sum of the pseudo-header.
pub fn look(frame: &[u8]) -> (Kind, std::ops::Range<usize>, u16) {
    let (ipv6, protocol, range, addresses) = match word(frame, 12) {
        0x0800 => {
            if word(frame, 20) & 0x3fff != 0 {
                return (Kind::Fragment, 0..0, 0);
            }
            let start = 14 + usize::from(frame[14] & 15) * 4;
            let end = 14 + usize::from(word(frame, 16));
            (false, frame[23], start..end, 26..34)
        }
        0x86dd => {
            let end = 54 + usize::from(word(frame, 18));
            (true, frame[20], 54..end, 22..54)
        }
        _ => return (Kind::Other, 0..0, 0),
    };
    let kind = match protocol {
        6 => Kind::Tcp { ipv6 },
        17 => Kind::Udp { ipv6 },
        _ => Kind::Other,
    };
    // The headers of a frame with a wrong byte may say anything.
    if range.end > frame.len() || range.start + 8 > range.end {
        return (Kind::Other, 0..0, 0);
    }
    let mut pseudo = frame[addresses].to_vec();
    pseudo.extend_from_slice(&(range.len() as u32).to_be_bytes());
    pseudo.extend_from_slice(&[0, protocol]);
    (kind, range, sum(&pseudo))
}

fn ipv4_header(frame: &[u8]) -> &[u8] {
    let end = 14 + usize::from(frame[14] & 15) * 4;
    frame.get(14..end).unwrap_or_default()
}

/// Whether the transport checksum is there and right; `None` if there is nothing to sum.
fn is_right(frame: &[u8]) -> Option<bool> {
    let (kind, range, seed) = look(frame);
    let is_missing = match kind {
        Kind::Udp { .. } => word(frame, range.start + 6) == 0,
        Kind::Tcp { .. } => false,
        _ => return None,
    };
    let total = sum(&[&seed.to_be_bytes(), &frame[range]].concat());
    Some(!is_missing && total == 0xffff)
}

/// Fails if a frame is not as it must be on the wire.
pub fn assert_right(frame: &[u8], what: &str) {
    if word(frame, 12) == 0x0800 {
        let sum = sum(ipv4_header(frame));
        assert_eq!(sum, 0xffff, "{what}: IPv4 header of {frame:02x?}");
    }
    let right = is_right(frame).unwrap_or(true);
    assert!(right, "{what}: transport checksum of {frame:02x?}");
}

/// What a device that verifies `kinds` says of a frame.
pub fn verdict(frame: &[u8], kinds: ChecksumOffload) -> RxChecksum {
    let judge = |good| if good { Verdict::Good } else { Verdict::Bad };
    let mut verdict = RxChecksum::default();
    if word(frame, 12) == 0x0800 && kinds.contains(ChecksumOffload::IPV4_HEADER) {
        verdict.ipv4_header = judge(sum(ipv4_header(frame)) == 0xffff);
    }
    let wanted = match look(frame).0 {
        Kind::Tcp { ipv6: false } => ChecksumOffload::TCP_IPV4,
        Kind::Tcp { ipv6: true } => ChecksumOffload::TCP_IPV6,
        Kind::Udp { ipv6: false } => ChecksumOffload::UDP_IPV4,
        Kind::Udp { ipv6: true } => ChecksumOffload::UDP_IPV6,
        _ => return verdict,
    };
    if kinds.contains(wanted) {
        verdict.transport = is_right(frame).map_or(Verdict::Unknown, judge);
    }
    verdict
}
