//! Frames, drawn from a seed and shuffled, so that neither compiler nor processor knows the next.

use pagewire_hal::{Capabilities, ChecksumOffload, Offload};

use super::case::Asked;

/// Frames in a table: a power of two, a multiple of all bursts.
pub const FRAMES: usize = 256;
/// Regions that fragments lie in.
pub const REGIONS: usize = 16;
/// Bytes of each.
pub const REGION_LEN: usize = 64 * 1024;
/// No fragment reaches across the end of such a page, so that each is one piece for the device.
pub const PAGE: usize = 4096;
/// Ethernet, IPv4, and TCP with time stamps.
const HEADER_LEN: usize = 66;
/// What fragments share.
const PAYLOAD_LEN: usize = 1448;

/// Bytes of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Which region, below [`REGIONS`].
    pub region: usize,
    /// Offset of the first byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

/// A frame to be sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drawn {
    /// Bytes in a buffer of the port, before the pieces.
    pub header_len: usize,
    /// Behind the header.
    pub pieces: Box<[Piece]>,
    /// What is asked of the device.
    pub offload: Offload,
}

/// The offload of a packet with so long headers.
const fn offload(checksum: ChecksumOffload, l3_len: u16) -> Offload {
    Offload {
        checksum,
        l2_len: 14,
        l3_len,
        ..Offload::NONE
    }
}

/// What is asked for.
fn draw_offload(asked: Asked, capabilities: &Capabilities, random: &mut fastrand::Rng) -> Offload {
    let offered = capabilities.tx_checksum;
    let ipv4 = offered & ChecksumOffload::IPV4_HEADER;
    match asked {
        Asked::Nothing => Offload::NONE,
        Asked::Same => offload(ChecksumOffload::TCP_IPV4 | ipv4, 20),
        Asked::Changing => match random.u8(..4) {
            0 => offload(ChecksumOffload::TCP_IPV4 | ipv4, 20),
            1 => offload(ChecksumOffload::TCP_IPV4 | ipv4, 24),
            2 => offload(ChecksumOffload::UDP_IPV4 | ipv4, 20),
            _ => offload(ChecksumOffload::TCP_IPV6, 40),
        },
    }
}

/// `count` fragments of at least one byte that have [`PAYLOAD_LEN`] bytes together.
fn draw_pieces(count: usize, random: &mut fastrand::Rng) -> Box<[Piece]> {
    let mut left = PAYLOAD_LEN;
    let mut pieces = Vec::with_capacity(count);
    for others in (0..count).rev() {
        let len = match others {
            0 => left,
            _ => random
                .usize(1..=2 * left / (others + 1) - 1)
                .min(left - others),
        };
        left -= len;
        let page = random.usize(..REGION_LEN / PAGE) * PAGE;
        pieces.push(Piece {
            region: random.usize(..REGIONS),
            start: page + random.usize(..=PAGE - len),
            len,
        });
    }
    pieces.into_boxed_slice()
}

/// [`FRAMES`] frames with so many fragments behind the header.
#[must_use]
pub fn draw(
    fragments: usize,
    asked: Asked,
    capabilities: &Capabilities,
    seed: u64,
) -> Box<[Drawn]> {
    let mut random = fastrand::Rng::with_seed(seed);
    let frame = |random: &mut fastrand::Rng| Drawn {
        header_len: match fragments {
            0 => random.usize(HEADER_LEN..=HEADER_LEN + PAYLOAD_LEN),
            _ => HEADER_LEN,
        },
        pieces: draw_pieces(fragments, random),
        offload: draw_offload(asked, capabilities, random),
    };
    let mut frames: Vec<Drawn> = (0..FRAMES).map(|_| frame(&mut random)).collect();
    random.shuffle(&mut frames);
    frames.into_boxed_slice()
}

/// Lengths of [`FRAMES`] received frames.
#[must_use]
pub fn draw_lengths(seed: u64) -> Vec<u32> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..FRAMES).map(|_| random.u32(60..=1514)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_share_the_payload_and_cross_no_page() {
        for fragments in super::super::case::SHAPES {
            let capabilities = Capabilities::minimal();
            for frame in draw(fragments, Asked::Same, &capabilities, 7) {
                assert_eq!(frame.pieces.len(), fragments);
                let sum: usize = frame.pieces.iter().map(|piece| piece.len).sum();
                assert_eq!(sum, if fragments == 0 { 0 } else { PAYLOAD_LEN });
                for piece in frame.pieces {
                    assert!(piece.len > 0);
                    let last = piece.start + piece.len - 1;
                    assert_eq!(piece.start / PAGE, last / PAGE);
                    assert!(last < REGION_LEN);
                }
            }
        }
    }
}
