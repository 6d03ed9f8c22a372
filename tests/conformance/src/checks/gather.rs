//! Fragments: how many, how long, where; frames: how long, and what they are padded with.

use pagewire_hal::{FrameError, Offload};

use super::Check;
use crate::Bench;
use crate::session::{ETHERNET, Piece, SHORTEST, Session};
use crate::verdict::{Verdict, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "fragment counts",
            promise: "a frame of any number of fragments up to max_fragments is sent, one more \
                      is refused",
            run: fragment_counts,
        },
        Check {
            name: "fragments of one byte",
            promise: "a fragment may have a single byte, at any place; none has no byte",
            run: tiny_fragments,
        },
        Check {
            name: "fragments at page ends",
            promise: "fragments that end, begin and cross at the end of a page are sent whole",
            run: page_ends,
        },
        Check {
            name: "the longest fragment",
            promise: "a fragment of max_fragment_len is sent, one byte more is refused",
            run: longest_fragment,
        },
        Check {
            name: "frame lengths",
            promise: "frames from min_frame_len to max_frame_len are sent, shorter and longer \
                      ones are refused",
            run: frame_lengths,
        },
        Check {
            name: "padding",
            promise: "what is shorter than 60 bytes is padded to them with zeros, never with what \
                      lies behind the fragment",
            run: padding,
        },
    ]
}

/// A shared piece of `len` bytes that is one fragment; a copy if the device sees none so long.
pub(super) fn one_run<B: Bench>(session: &mut Session<'_, B>, len: usize) -> Piece {
    match session.run_of(len) {
        Some(start) => Piece::Shared { start, len },
        None => Piece::Own(session.random.bytes(len)),
    }
}

/// A frame of `count` fragments and about `len` bytes. The first one holds the header, and the
/// whole frame if it is the only one.
pub(super) fn cut<B: Bench>(session: &mut Session<'_, B>, count: usize, len: usize) -> Vec<Piece> {
    if count < 2 {
        return vec![Piece::Own(session.header(len))];
    }
    let header = session.header(ETHERNET + 4);
    let mut left = len.saturating_sub(header.len());
    let mut pieces = vec![Piece::Own(header)];
    let limit = session.longest_fragment();
    for more in (0..count.saturating_sub(1)).rev() {
        // The last one takes the rest.
        let most = left.saturating_sub(more).clamp(1, limit);
        let part = match more {
            0 => most,
            _ => session
                .random
                .within(1, most.min(2 * left / (more + 1)).max(1)),
        };
        left = left.saturating_sub(part);
        pieces.push(one_run(session, part));
    }
    pieces
}

fn fragment_counts<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let (longest, limit) = (session.longest(), session.longest_fragment());
    if limit < SHORTEST {
        return not_run(format!("a fragment has {limit} bytes at most"));
    }
    // Each has a byte at least.
    let max = usize::from(session.capabilities.max_fragments).min(longest - ETHERNET - 5);
    for count in 1..=max {
        // Small and large frames.
        let least = SHORTEST.max(ETHERNET + 4 + count);
        let most = longest.min(count.saturating_mul(limit));
        let len = session.random.within(least, most);
        let pieces = cut(session, count, len);
        session.must_post(&pieces, &format!("a frame of {count} fragments"))?;
        session.doorbell();
        session.finish()?;
    }
    if max < usize::from(session.capabilities.max_fragments) {
        return Ok(());
    }
    let pieces = cut(session, max + 1, longest.min(2 * max + SHORTEST));
    let too_many = |e| matches!(e, FrameError::TooManyFragments { .. });
    let what = format!("a frame of {} fragments", max + 1);
    session.post_refused(&pieces, Offload::NONE, too_many, &what)?;
    session.doorbell();
    session.finish()
}

fn tiny_fragments<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let max = usize::from(session.capabilities.max_fragments);
    if max < 2 {
        return not_run("the device does not gather");
    }
    // The header itself in single bytes, if it may have so many fragments.
    let header = session.header(ETHERNET);
    let single = ETHERNET.min(max - 1);
    let mut pieces: Vec<_> = header
        .iter()
        .take(single - 1)
        .map(|byte| Piece::Own(vec![*byte]))
        .collect();
    let rest = header.get(single - 1..).unwrap_or_default();
    pieces.push(Piece::Own(rest.to_vec()));
    pieces.push(one_run(session, 100));
    session.must_post(&pieces, "an Ethernet header in fragments of one byte")?;
    // One byte first, in the middle and last.
    for place in 1..max.min(8) {
        let mut pieces = cut(session, max.min(8), 200);
        if let Some(piece) = pieces.get_mut(place) {
            *piece = one_run(session, 1);
        }
        if max == 2
            && let Some(first) = pieces.first_mut()
        {
            // The other fragment is all that makes the frame long enough.
            *first = Piece::Own(session.header(SHORTEST));
        }
        session.post_or_wait(&pieces, "a frame with a fragment of one byte")?;
        session.doorbell();
        session.post_with_empty(&pieces, place)?;
    }
    session.doorbell();
    session.finish()
}

fn page_ends<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let max = usize::from(session.capabilities.max_fragments);
    if max < 3 {
        return not_run("the device gathers less than three fragments");
    }
    let longest = session.longest() - SHORTEST;
    for (before, behind) in [
        (1, 0),
        (1, 1),
        (50, 0),
        (0, 60),
        (49, 1),
        (1, 700),
        (700, 700),
    ] {
        let len = (before + behind).min(longest);
        let start = session.start_before_page(before);
        let header = session.header(SHORTEST);
        let pieces = [Piece::Own(header), Piece::Shared { start, len }];
        let what = format!("{before} bytes before and {behind} behind the end of a page");
        session.post_or_wait(&pieces, &what)?;
    }
    // The whole of a long frame over as many pages as it touches.
    let page = session.bench.page_len();
    let room = (max - 2) * page.min(session.longest_fragment());
    let start = session.start_before_page(1);
    let header = session.header(ETHERNET);
    let len = longest.min(room);
    let pieces = [Piece::Own(header), Piece::Shared { start, len }];
    session.post_or_wait(&pieces, &format!("{len} bytes over the ends of pages"))?;
    session.doorbell();
    session.finish()
}

fn longest_fragment<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let longest = session.longest();
    let limit = session.longest_fragment();
    let len = limit.min(longest);
    if len >= session.shortest() {
        let whole = session.header(len);
        let what = format!("a frame of one fragment of {len} bytes");
        session.must_post(&[Piece::Own(whole)], &what)?;
    }
    let gathers = session.capabilities.gathers();
    if gathers && longest > ETHERNET {
        let header = session.header(ETHERNET);
        let len = limit.min(longest - ETHERNET);
        let payload = session.random.bytes(len);
        let what = format!("a second fragment of {len} bytes");
        session.post_or_wait(&[Piece::Own(header), Piece::Own(payload)], &what)?;
    }
    // A device may take longer fragments than frames: then the frame is refused for its length.
    let too_long = |e| {
        matches!(
            e,
            FrameError::FragmentTooLong { .. } | FrameError::FrameTooLong { .. }
        )
    };
    let whole = session.header(limit + 1);
    let what = format!("a fragment of {} bytes", limit + 1);
    session.post_whole_refused(whole, too_long, &what)?;
    session.doorbell();
    session.finish()
}

fn frame_lengths<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let (shortest, longest) = (session.shortest(), session.longest());
    let mut lengths = vec![
        shortest,
        shortest + 1,
        59,
        60,
        61,
        63,
        64,
        65,
        longest - 1,
        longest,
    ];
    lengths.extend((0..24).map(|_| session.random.within(shortest, longest)));
    if session.options.thorough {
        lengths.extend(shortest..=longest);
    }
    lengths.retain(|len| (shortest..=longest).contains(len));
    for len in lengths {
        let pieces = any_cut(session, len);
        session.post_or_wait(&pieces, &format!("a frame of {len} bytes"))?;
    }
    for (len, what) in [(shortest - 1, "short"), (longest + 1, "long")] {
        let mut bytes = session.header(len.max(ETHERNET));
        bytes.truncate(len);
        if bytes.is_empty() {
            continue;
        }
        let pieces = split_to_fit(session, bytes);
        let limit = |e| {
            matches!(
                e,
                FrameError::FrameTooShort { .. }
                    | FrameError::FrameTooLong { .. }
                    | FrameError::FragmentTooLong { .. }
                    | FrameError::TooManyFragments { .. }
            )
        };
        let what = format!("a frame of {len} bytes, too {what},");
        session.post_refused(&pieces, Offload::NONE, limit, &what)?;
    }
    session.doorbell();
    session.finish()
}

/// Own pieces no longer than a fragment may be.
fn split_to_fit<B: Bench>(session: &Session<'_, B>, bytes: Vec<u8>) -> Vec<Piece> {
    let limit = session.longest_fragment();
    if !session.capabilities.gathers() {
        return vec![Piece::Own(bytes)];
    }
    let parts = bytes.chunks(limit.max(1));
    parts.map(|part| Piece::Own(part.to_vec())).collect()
}

/// A frame of exactly `len` bytes in as many fragments as chance has it.
pub(super) fn any_cut<B: Bench>(session: &mut Session<'_, B>, len: usize) -> Vec<Piece> {
    let limit = session.longest_fragment();
    let max = usize::from(session.capabilities.max_fragments).min(8);
    // Fragments behind the header: enough to hold the frame, few enough to have a byte each.
    let body = len.saturating_sub(ETHERNET + 4);
    let least = 1 + body.div_ceil(limit);
    let most = max.min(1 + body);
    if most < 2 || least > most {
        let bytes = session.header(len);
        return split_to_fit(session, bytes);
    }
    let count = session.random.within(least.max(2), most);
    let header = session.header(ETHERNET + 4);
    let mut pieces = vec![Piece::Own(header)];
    let mut left = body;
    for more in (0..count - 1).rev() {
        let low = left.saturating_sub(more * limit).max(1);
        let high = (left - more).min(limit);
        let part = if more == 0 {
            left
        } else {
            session.random.within(low, high)
        };
        left -= part;
        pieces.push(one_run(session, part));
    }
    pieces
}

fn padding<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let shortest = session.shortest();
    if shortest >= SHORTEST {
        return not_run(format!("the shortest frame has {shortest} bytes already"));
    }
    session.must_pad = true;
    for len in shortest..SHORTEST + 2 {
        // Fill what a device might pad from with the bytes of a long frame.
        let long = session.header(300);
        session.post_or_wait(&[Piece::Own(long)], "a frame of 300 bytes")?;
        let whole = session.header(len);
        session.post_or_wait(&[Piece::Own(whole)], &format!("a frame of {len} bytes"))?;
        if session.capabilities.gathers() && len > ETHERNET {
            let header = session.header(ETHERNET);
            let body = one_run(session, len - ETHERNET);
            let what = format!("a frame of {len} bytes in two fragments");
            session.post_or_wait(&[Piece::Own(header), body], &what)?;
        }
        session.doorbell();
    }
    session.finish()
}
