//! TCP segmentation by the device, compared byte by byte with segments made here.

use pagewire_hal::{ChecksumOffload, Offload};

use super::Check;
use super::checksum::{cut_payload, least};
use crate::Bench;
use crate::packet::{Kind, Transport, put, sum};
use crate::session::{FAR_MAC, Piece, Session};
use crate::verdict::{Verdict, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![Check {
        name: "segmentation",
        promise: "segments carry the right sequence numbers, identifications, lengths, flags \
                  and checksums",
        run: segmentation,
    }]
}

const FIN_AND_PSH: u8 = 0x09;

/// The segments of a whole frame: `l4` and so on are those of `kind`.
pub(super) fn segments(kind: Kind, whole: &[u8], segment_len: usize) -> Vec<Vec<u8>> {
    let (header, payload) = whole.split_at(kind.header_len().min(whole.len()));
    let (l3, l4) = (kind.l2_len(), kind.l2_len() + kind.l3_len());
    let word = |at: usize| {
        let field = header.get(at..at + 2).unwrap_or(&[0, 0]);
        field
            .iter()
            .fold(0u16, |word, byte| word << 8 | u16::from(*byte))
    };
    let sequence = u32::from(word(l4 + 4)) << 16 | u32::from(word(l4 + 6));
    let parts: Vec<_> = payload.chunks(segment_len.max(1)).collect();
    let last = parts.len().saturating_sub(1);
    let mut sent = 0u32;
    let mut frames = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut frame = [header, part].concat();
        let ip_len = frame.len() - l3;
        if kind.ipv6 {
            put(&mut frame, l3 + 4, (ip_len - 40) as u16);
        } else {
            put(&mut frame, l3 + 2, ip_len as u16);
            put(&mut frame, l3 + 4, word(l3 + 4).wrapping_add(index as u16));
        }
        let number = sequence.wrapping_add(sent);
        put(&mut frame, l4 + 4, (number >> 16) as u16);
        put(&mut frame, l4 + 6, number as u16);
        if index < last
            && let Some(flags) = frame.get_mut(l4 + 13)
        {
            *flags &= !FIN_AND_PSH;
        }
        kind.fill_checksums(&mut frame);
        sent = sent.wrapping_add(part.len() as u32);
        frames.push(frame);
    }
    frames
}

fn segmentation<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let Some(limits) = session.capabilities.segmentation else {
        return not_run("the device does not segment");
    };
    let longest_frame = session.longest();
    for (ipv6, offered) in [(false, limits.ipv4), (true, limits.ipv6)] {
        if !offered {
            continue;
        }
        for options in [0, 12] {
            let kind = Kind::new(ipv6, 0, Transport::Tcp(options));
            // What the fragments of one request hold.
            let pieces = usize::from(session.capabilities.max_fragments);
            let held = pieces.saturating_mul(session.longest_fragment());
            let most = (limits.max_payload_len as usize)
                .min(60_000)
                .min(held.saturating_sub(kind.header_len()));
            let segment_len = longest_frame - kind.header_len();
            for (len, segment_len) in [
                (1, segment_len),
                (segment_len, segment_len),
                (segment_len + 1, segment_len),
                (3 * segment_len, segment_len),
                (999, 100),
                (most, segment_len),
            ] {
                post(
                    session,
                    kind,
                    len.clamp(least(session, kind), most),
                    segment_len,
                )?;
            }
        }
    }
    session.doorbell();
    session.finish()
}

fn post<B: Bench>(
    session: &mut Session<'_, B>,
    kind: Kind,
    len: usize,
    segment_len: usize,
) -> Verdict {
    let payload = cut_payload(session, len, 4);
    let bytes = session.concat(&payload);
    let whole = kind.frame(FAR_MAC, session.mac, &bytes);
    let expected = segments(kind, &whole, segment_len);
    let Some(bits) = kind.request() else {
        return Ok(());
    };
    let mut checksum = bits;
    if !kind.ipv6 {
        checksum |= ChecksumOffload::IPV4_HEADER & session.capabilities.tx_checksum;
    }
    let mut header = whole;
    header.truncate(kind.header_len());
    kind.seed(&mut header, ChecksumOffload::IPV4_HEADER & checksum);
    let limits = session.capabilities.segmentation;
    let has_length = limits.is_some_and(|limits| limits.seed_has_length);
    let counted = match has_length {
        true => kind.l4_len() + len,
        false => 0,
    };
    if !has_length {
        // The length of the IP header goes with the seed's.
        put(
            &mut header,
            kind.l2_len() + if kind.ipv6 { 4 } else { 2 },
            0,
        );
    }
    let seed = sum(&kind.pseudo_header(counted));
    let at = kind.l2_len() + kind.l3_len() + kind.checksum_offset();
    put(&mut header, at, seed);
    let offload = Offload {
        segment_len: segment_len as u16,
        ..kind.offload(checksum)
    };
    let mut pieces = vec![Piece::Own(header)];
    pieces.extend(payload);
    let what = format!("{kind:?} of {len} bytes in segments of {segment_len}");
    session.post_packet_or_wait(&pieces, offload, expected, &what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_add_up_to_what_was_sent() {
        for kind in [
            Kind::new(false, 0, Transport::Tcp(0)),
            Kind::new(true, 8, Transport::Tcp(12)),
        ] {
            let payload: Vec<u8> = (0..2501u32).map(|i| (i % 251) as u8).collect();
            let whole = kind.frame([2; 6], [4; 6], &payload);
            let frames = segments(kind, &whole, 1000);
            assert_eq!(frames.len(), 3);
            let header = kind.header_len();
            let joined: Vec<u8> = frames.iter().flat_map(|f| f[header..].to_vec()).collect();
            assert_eq!(joined, payload);
            let l4 = kind.l2_len() + kind.l3_len();
            // The packets begin at 0x1000; PSH stays on the last one only.
            let numbers: Vec<_> = frames.iter().map(|f| [f[l4 + 6], f[l4 + 7]]).collect();
            assert_eq!(numbers, [[0x10, 0], [0x13, 0xe8], [0x17, 0xd0]]);
            let flags: Vec<_> = frames.iter().map(|f| f[l4 + 13]).collect();
            assert_eq!(flags, [0x10, 0x10, 0x18]);
            for frame in &frames {
                let mut again = frame.clone();
                kind.fill_checksums(&mut again);
                assert_eq!(&again, frame);
                let mut all = kind.pseudo_header(frame.len() - l4);
                all.extend_from_slice(&frame[l4..]);
                assert_eq!(sum(&all), 0xffff);
            }
        }
    }
}
