//! Checksums that the device inserts, and segmentation's refusal where it is not offered.

use pagewire_hal::{ChecksumOffload, FrameError, Offload};

use super::Check;
use super::gather::one_run;
use crate::Bench;
use crate::packet::{Kind, Transport, put, sum};
use crate::session::{FAR_MAC, Piece, Session};
use crate::verdict::{Verdict, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "checksums",
            promise: "every checksum that is offered is inserted: odd lengths, options, \
                      extension headers, VLAN tags, cut anywhere",
            run: checksums,
        },
        Check {
            name: "a UDP checksum of zero",
            promise: "a UDP checksum that comes out as zero is sent as all ones (RFC 768)",
            run: udp_zero,
        },
        Check {
            name: "offloads not offered",
            promise: "a request that is not in the capabilities is refused",
            run: not_offered,
        },
    ]
}

/// The packets on which requests are tried.
pub(super) fn kinds() -> Vec<Kind> {
    let mut kinds = Vec::new();
    for vlan in [false, true] {
        for (ipv6, extra) in [
            (false, 0),
            (false, 4),
            (false, 40),
            (true, 0),
            (true, 8),
            (true, 64),
        ] {
            for transport in [Transport::Tcp(0), Transport::Tcp(12), Transport::Udp] {
                let kind = Kind::new(ipv6, extra, transport);
                kinds.push(Kind { vlan, ..kind });
            }
        }
        let kind = Kind::new(true, 0, Transport::Icmpv6);
        kinds.push(Kind { vlan, ..kind });
    }
    kinds
}

/// The requests that `offered` allows for a packet.
pub(super) fn requests(kind: Kind, offered: ChecksumOffload) -> Vec<ChecksumOffload> {
    let generic = Some(ChecksumOffload::GENERIC);
    let mut requests: Vec<_> = [kind.request(), generic]
        .into_iter()
        .flatten()
        .filter(|bits| offered.contains(*bits))
        .collect();
    if !kind.ipv6 && offered.contains(ChecksumOffload::IPV4_HEADER) {
        let with_header = requests.clone().into_iter();
        let both: Vec<_> = with_header
            .map(|bits| bits | ChecksumOffload::IPV4_HEADER)
            .collect();
        requests.extend(both);
        requests.push(ChecksumOffload::IPV4_HEADER);
    }
    requests
}

/// A frame with a request: its pieces, the request, and what must be on the wire.
pub(super) type Request = (Vec<Piece>, Offload, Vec<u8>);

/// A packet whose checksums the device is to fill in; `None` where two answers are right.
pub(super) fn packet<B: Bench>(
    session: &Session<'_, B>,
    kind: Kind,
    checksum: ChecksumOffload,
    payload: &[Piece],
) -> Option<Request> {
    let bytes = session.concat(payload);
    let whole = kind.frame(FAR_MAC, session.mac, &bytes);
    let at = kind.l2_len() + kind.l3_len() + kind.checksum_offset();
    if whole.get(at..at + 2) == Some(&[0, 0]) {
        // Never for UDP. A generic sum may be stored as either zero, and QEMU's e1000e stores all
        // ones for TCP as well: to a receiver they are the same. Once in 65,536 packets.
        return None;
    }
    let mut seeded = whole.clone();
    kind.seed(&mut seeded, checksum);
    let mut pieces = Vec::new();
    if session.capabilities.gathers() && !payload.is_empty() {
        seeded.truncate(kind.header_len());
        pieces.push(Piece::Own(seeded));
        pieces.extend_from_slice(payload);
    } else {
        pieces.push(Piece::Own(seeded));
    }
    Some((pieces, kind.offload(checksum), whole))
}

/// Posts such a packet; waits for room.
pub(super) fn post_packet<B: Bench>(
    session: &mut Session<'_, B>,
    kind: Kind,
    checksum: ChecksumOffload,
    payload: &[Piece],
) -> Verdict {
    let Some((pieces, offload, whole)) = packet(session, kind, checksum, payload) else {
        return Ok(());
    };
    let what = format!("{kind:?} with {checksum:?}, {} bytes in all", whole.len());
    session.post_packet_or_wait(&pieces, offload, vec![whole], &what)
}

/// A packet of about `len` bytes in `count` fragments, with a request of chance; `None` if the
/// device offers none.
pub(super) fn a_request<B: Bench>(
    session: &mut Session<'_, B>,
    count: usize,
    len: usize,
) -> Option<Request> {
    let offered = session.capabilities.tx_checksum;
    let mut choices = Vec::new();
    for kind in kinds() {
        let requests = requests(kind, offered).into_iter();
        choices.extend(requests.map(|bits| (kind, bits)));
    }
    let index = session.random.below(choices.len());
    let (kind, bits) = choices.get(index).copied()?;
    let longest = room(session, kind);
    let least = least(session, kind).max(count.saturating_sub(1));
    let len = len
        .saturating_sub(kind.header_len())
        .max(least)
        .min(longest);
    let payload = cut_payload(session, len, count.saturating_sub(1).min(len));
    packet(session, kind, bits, &payload)
}

/// `len` bytes of the region in up to `cuts` pieces of at least a byte.
pub(super) fn cut_payload<B: Bench>(
    session: &mut Session<'_, B>,
    len: usize,
    cuts: usize,
) -> Vec<Piece> {
    let limit = session.longest_fragment();
    let max = usize::from(session.capabilities.max_fragments).saturating_sub(1);
    // A device that does not gather gets a copy of all.
    let cuts = cuts.min(max.max(1)).max(len.div_ceil(limit));
    let mut pieces = Vec::new();
    let mut left = len;
    for more in (0..cuts).rev() {
        if left == 0 {
            break;
        }
        let part = match more {
            0 => left,
            _ => session.random.within(
                left.saturating_sub(more * limit).max(1),
                left.saturating_sub(more).clamp(1, limit),
            ),
        };
        left -= part;
        pieces.push(one_run(session, part));
    }
    pieces
}

/// The longest payload of a packet.
pub(super) fn room<B: Bench>(session: &Session<'_, B>, kind: Kind) -> usize {
    session.longest().saturating_sub(kind.header_len())
}

/// The shortest payload of a packet.
pub(super) fn least<B: Bench>(session: &Session<'_, B>, kind: Kind) -> usize {
    session.shortest().saturating_sub(kind.header_len())
}

fn checksums<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let offered = session.capabilities.tx_checksum;
    if offered.is_empty() {
        return not_run("the device offers no checksum");
    }
    for kind in kinds() {
        for checksum in requests(kind, offered) {
            let (least, longest) = (least(session, kind), room(session, kind));
            let mut lengths = vec![0, 1, 2, 3, 17, 100];
            lengths.push(session.random.within(0, longest));
            lengths.push(longest - 1);
            lengths.push(longest);
            for len in lengths {
                let cuts = session.random.within(1, 5);
                let payload = cut_payload(session, len.clamp(least, longest), cuts);
                post_packet(session, kind, checksum, &payload)?;
                // Frames without a request in between: no context of another frame is theirs.
                if session.random.below(4) == 0 {
                    let plain = session.header(200);
                    session.post_or_wait(&[Piece::Own(plain)], "a frame without a request")?;
                }
                if session.random.below(3) == 0 {
                    session.doorbell();
                }
            }
        }
    }
    session.doorbell();
    session.finish()
}

fn udp_zero<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let offered = session.capabilities.tx_checksum;
    let mut ran = false;
    for ipv6 in [false, true] {
        let kind = Kind::new(ipv6, 0, Transport::Udp);
        let Some(bits) = kind.request().filter(|bits| offered.contains(*bits)) else {
            continue;
        };
        ran = true;
        // The last word of the payload is what the rest lacks to all ones.
        let mut payload = session.random.bytes(100);
        put(&mut payload, 98, 0);
        let frame = kind.frame(FAR_MAC, session.mac, &payload);
        let l4 = kind.l2_len() + kind.l3_len();
        let mut all = kind.pseudo_header(frame.len() - l4);
        all.extend_from_slice(frame.get(l4..).unwrap_or_default());
        put(&mut all, kind.pseudo_header(0).len() + 6, 0);
        put(&mut payload, 98, !sum(&all));
        post_packet(session, kind, bits, &[Piece::Own(payload)])?;
    }
    if !ran {
        return not_run("the device offers no checksum of UDP");
    }
    session.doorbell();
    session.finish()
}

fn not_offered<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let offered = session.capabilities.tx_checksum;
    let refused = |e| e == FrameError::OffloadNotOffered;
    for kind in kinds() {
        let bytes = kind.frame(FAR_MAC, session.mac, &[1; 64]);
        for bits in requests(kind, ChecksumOffload::all()) {
            if offered.contains(bits) {
                continue;
            }
            let pieces = [Piece::Own(bytes.clone())];
            let what = format!("a request for {bits:?}, of which only {offered:?} is offered,");
            session.post_refused(&pieces, kind.offload(bits), refused, &what)?;
        }
    }
    let kind = Kind::new(false, 0, Transport::Tcp(0));
    let bytes = kind.frame(FAR_MAC, session.mac, &[1; 400]);
    if session.capabilities.segmentation.is_none() {
        let request = Offload {
            segment_len: 100,
            ..kind.offload(ChecksumOffload::TCP_IPV4 & offered)
        };
        let what = "a request for segmentation";
        let refused = |e| matches!(e, FrameError::OffloadNotOffered | FrameError::OffloadLayout);
        session.post_refused(&[Piece::Own(bytes.clone())], request, refused, what)?;
    }
    // Two transport checksums at once, where both are offered.
    let both = ChecksumOffload::TCP_IPV4 | ChecksumOffload::UDP_IPV4;
    if offered.contains(both) {
        let layout = |e| e == FrameError::OffloadLayout;
        let what = "a request for two transport checksums";
        session.post_refused(&[Piece::Own(bytes)], kind.offload(both), layout, what)?;
    }
    session.doorbell();
    session.finish()
}
