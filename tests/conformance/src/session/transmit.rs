//! Posting, completions, and what the far end sees of it.

use std::borrow::Cow;
use std::ptr::NonNull;

use pagewire_hal::{
    DmaBuffer, Fragment, FrameError, Nic, Offload, PostError, Region, Token, TxFrame, TxQueue,
};

use super::{Buffer, ETHERNET, Expected, FAR_MAC, Posted, SHORTEST, Session};
use crate::Bench;
use crate::verdict::{Stop, Verdict, ensure, failed};

/// Bytes around what is sent, none of which may ever be seen on the wire.
const CANARY: u8 = 0xc7;
/// How many of them at least.
const CANARY_LEN: usize = 64;
/// An Ethernet type for experiments (IEEE 802 local experimental 1).
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];

/// A part of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// Copied into memory of the driver: one fragment.
    Own(Vec<u8>),
    /// A range of the region: as many fragments as the device sees runs.
    Shared {
        /// Offset in the region.
        start: usize,
        /// Bytes.
        len: usize,
    },
}

impl<B: Bench> Session<'_, B> {
    /// The first `len` bytes, at least 14, of a frame to the far end that is like no other.
    pub(crate) fn header(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = [FAR_MAC, self.mac].concat();
        bytes.extend_from_slice(&EXPERIMENTAL);
        let rest = self.random.bytes(len.saturating_sub(ETHERNET));
        bytes.extend_from_slice(&rest);
        bytes
    }

    /// The bytes of the pieces, one after the other.
    pub(crate) fn concat(&self, pieces: &[Piece]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Own(own) => bytes.extend_from_slice(own),
                Piece::Shared { start, len } => {
                    bytes.extend_from_slice(self.bytes.get(*start..start + len).unwrap_or_default())
                }
            }
        }
        bytes
    }

    /// Posts a frame that must appear on the wire as it is.
    pub(crate) fn post(&mut self, pieces: &[Piece]) -> Verdict<Result<(), PostError>> {
        let expected = self.concat(pieces);
        self.post_as(pieces, Offload::NONE, vec![expected])
    }

    /// Posts what must appear on the wire as `expected`: one frame, or several if the device is
    /// to segment.
    pub(crate) fn post_as(
        &mut self,
        pieces: &[Piece],
        offload: Offload,
        expected: Vec<Vec<u8>>,
    ) -> Verdict<Result<(), PostError>> {
        let mut buffers = Vec::new();
        let pieces = self.fitted(pieces);
        let whole = self.fragments(&pieces, &mut buffers)?;
        let fragments = chopped(&whole, self.longest_fragment() as u32);
        let posted = self.post_fragments(&fragments, offload, buffers)?;
        if posted.is_ok() {
            let number = self.number;
            self.number += 1;
            let last = expected.len().saturating_sub(1);
            let numbered = expected.into_iter().enumerate();
            self.expected
                .extend(numbered.map(|(index, bytes)| Expected {
                    number,
                    bytes,
                    last: index == last,
                }));
        }
        Ok(posted)
    }

    /// `pieces`, or one copy of them where they are more fragments than the device takes.
    fn fitted<'p>(&self, pieces: &'p [Piece]) -> Cow<'p, [Piece]> {
        let limit = self.longest_fragment();
        let fragments = |piece: &Piece| match piece {
            Piece::Own(own) => own.len().div_ceil(limit),
            Piece::Shared { start, len } => {
                let runs = self.region.translation().runs(*start, *len);
                runs.map(|run| run.len.div_ceil(limit)).sum()
            }
        };
        let count: usize = pieces.iter().map(fragments).sum();
        if count <= usize::from(self.capabilities.max_fragments) {
            return Cow::Borrowed(pieces);
        }
        Cow::Owned(vec![Piece::Own(self.concat(pieces))])
    }

    /// Posts what the device must refuse with `error`, and leave no trace of.
    pub(crate) fn post_refused(
        &mut self,
        pieces: &[Piece],
        offload: Offload,
        error: impl Fn(FrameError) -> bool,
        what: &str,
    ) -> Verdict {
        let mut buffers = Vec::new();
        let whole = self.fragments(pieces, &mut buffers)?;
        let fragments = chopped(&whole, self.longest_fragment() as u32);
        self.fragments_refused(&fragments, offload, buffers, error, what)
    }

    /// The same of a frame that is one fragment, however long.
    pub(crate) fn post_whole_refused(
        &mut self,
        bytes: Vec<u8>,
        error: impl Fn(FrameError) -> bool,
        what: &str,
    ) -> Verdict {
        let mut buffers = Vec::new();
        let fragments = self.fragments(&[Piece::Own(bytes)], &mut buffers)?;
        self.fragments_refused(&fragments, Offload::NONE, buffers, error, what)
    }

    /// The same with an empty fragment as number `index`.
    pub(crate) fn post_with_empty(&mut self, pieces: &[Piece], index: usize) -> Verdict {
        let mut buffers = Vec::new();
        let whole = self.fragments(pieces, &mut buffers)?;
        let mut fragments = chopped(&whole, self.longest_fragment() as u32);
        let Some(fragment) = fragments.get_mut(index) else {
            return Ok(());
        };
        fragment.len = 0;
        let empty = |e| e == FrameError::EmptyFragment { index };
        let what = format!("a frame whose fragment {index} has no byte");
        self.fragments_refused(&fragments, Offload::NONE, buffers, empty, &what)
    }

    fn fragments_refused(
        &mut self,
        fragments: &[Fragment],
        offload: Offload,
        buffers: Vec<Buffer<B>>,
        error: impl Fn(FrameError) -> bool,
        what: &str,
    ) -> Verdict {
        const MEND: &str = "`post` calls `TxFrame::check` with the capabilities first, and \
                            returns what it says as `PostError::Refused` (rule 4)";
        if !self.tx.has_room(1) {
            // A full ring may say `Full` to anything.
            self.doorbell();
            self.finish()?;
        }
        let posted = self.post_fragments(fragments, offload, buffers)?;
        match posted {
            Err(PostError::Refused(refused)) if error(refused) => Ok(()),
            // Also where it holds something, and what is refused is more than there is room for.
            Err(PostError::Full) if self.outstanding() > 0 => Ok(()),
            Err(other) => Err(failed(MEND, format!("{what} was refused with: {other}"))),
            Ok(()) => Err(failed(MEND, format!("{what} was taken"))),
        }
    }

    /// The gather list of `pieces`, not merged, and the buffers that it names.
    fn fragments(
        &mut self,
        pieces: &[Piece],
        buffers: &mut Vec<Buffer<B>>,
    ) -> Verdict<Vec<Fragment>> {
        let head_room = usize::from(self.capabilities.head_room);
        let mut fragments = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            match piece {
                // The head room is before the first fragment, where the program's bytes are.
                Piece::Shared { start, len } if index > 0 || head_room == 0 => {
                    let runs = self.region.translation().runs(*start, *len);
                    fragments.extend(runs.map(|run| Fragment {
                        address: run.address,
                        len: run.len as u32,
                    }));
                }
                _ => {
                    let own = self.concat(std::slice::from_ref(piece));
                    let buffer = self.buffer_with(&own, head_room)?;
                    let runs = buffer.translation().runs(head_room, own.len());
                    fragments.extend(runs.map(|run| Fragment {
                        address: run.address,
                        len: run.len as u32,
                    }));
                    buffers.push(buffer);
                }
            }
        }
        Ok(fragments)
    }

    /// A buffer with `bytes` behind the head room, and canaries on both sides.
    pub(super) fn buffer_with(&mut self, bytes: &[u8], head_room: usize) -> Verdict<Buffer<B>> {
        let needed = head_room + bytes.len() + CANARY_LEN;
        let fits = self.vacant.iter().position(|b| Region::len(b) >= needed);
        let mut buffer = match fits {
            Some(index) => self.vacant.swap_remove(index),
            None => {
                let len = needed.next_power_of_two().max(512);
                let memory = self.nic.allocate(len, 64).map_err(|error| {
                    let what = format!("{len} bytes of memory for the device: {error}");
                    failed("`Nic::allocate` yields memory of the platform", what)
                })?;
                DmaBuffer::new(memory)
            }
        };
        let slice = buffer.as_mut_slice();
        slice.fill(CANARY);
        if let Some(target) = slice.get_mut(head_room..head_room + bytes.len()) {
            target.copy_from_slice(bytes);
        }
        Ok(buffer)
    }

    /// A token that is not out; the ends of its range first.
    fn token(&mut self) -> u32 {
        let first = match self.number {
            0 => u32::MAX,
            1 => 0,
            2 => 1 << 31,
            _ => self.random.next() as u32,
        };
        let mut token = first;
        while self.out.contains_key(&token) {
            token = self.random.next() as u32;
        }
        token
    }

    fn post_fragments(
        &mut self,
        fragments: &[Fragment],
        offload: Offload,
        buffers: Vec<Buffer<B>>,
    ) -> Verdict<Result<(), PostError>> {
        let head_room = usize::from(self.capabilities.head_room);
        let first = buffers
            .first()
            .and_then(|buffer| NonNull::new(Region::base(buffer).as_ptr().wrapping_add(head_room)));
        let token = self.token();
        let before = self.tx.outstanding();
        let roomy = self.tx.has_room(fragments.len());
        let frame = TxFrame {
            fragments,
            offload,
            // Without head room it may be absent: whoever reads it then has not read the docs.
            first: first.filter(|_| head_room > 0),
        };
        // SAFETY: the fragments lie in `buffers`, which are kept in `out`, untouched, until the
        // token comes back, or in the region, which nobody writes and which `self` keeps; if the
        // token does not come back, `drop` leaks both. The head room is the beginning of the
        // first buffer. A frame that is refused is not read, says `post`.
        let result = unsafe { self.tx.post(&frame, Token(token)) };
        match result {
            Ok(()) => {
                let number = self.number;
                self.out.insert(token, Posted { buffers, number });
            }
            Err(_) => self.vacant.extend(buffers),
        }
        self.check_post(result, before, roomy)?;
        Ok(result)
    }

    fn check_post(&self, result: Result<(), PostError>, before: usize, roomy: bool) -> Verdict {
        let after = self.tx.outstanding();
        let grown = before + usize::from(result.is_ok());
        ensure!(
            after == grown,
            "`outstanding` counts frames from `post` to the return of their token",
            "`outstanding` went from {before} to {after} when `post` returned {result:?}"
        );
        ensure!(
            !(roomy && matches!(result, Err(PostError::Full | PostError::Down))),
            "`has_room(n)` promises that a frame of n fragments fits, context included",
            "`has_room` said yes and `post` returned {result:?}"
        );
        Ok(())
    }

    /// Rings the doorbell.
    pub(crate) fn doorbell(&mut self) {
        self.tx.doorbell();
    }

    /// Takes what the far end has got and compares it with what was posted.
    pub(crate) fn collect(&mut self) -> Verdict<usize> {
        let mut count = 0;
        while let Some(frame) = self.bench.far_end().take() {
            self.seen.tx_frames += 1;
            self.seen.tx_bytes += frame.len() as u64 + 4;
            self.match_frame(&frame)?;
            count += 1;
        }
        Ok(count)
    }

    fn match_frame(&mut self, frame: &[u8]) -> Verdict {
        let Some(mut expected) = self.expected.pop_front() else {
            return Err(failed(
                "a frame is sent once, and nothing is sent that was not posted",
                format!("a frame on the wire that nobody posted: {}", hex(frame)),
            ));
        };
        // After a reset some may be missing, but none comes twice or out of order.
        while self.lossy && mismatch(frame, &expected.bytes).is_some() {
            let Some(next) = self.expected.pop_front() else {
                break;
            };
            expected = next;
        }
        if self.must_pad && frame.len() < SHORTEST {
            let what = format!("a frame of {} bytes was not padded", expected.bytes.len());
            return Err(failed(
                "the device, or the driver, pads to 60 bytes: a switch drops what is shorter",
                what,
            ));
        }
        if let Some(what) = mismatch(frame, &expected.bytes) {
            return Err(failed(
                "compare the descriptors of this frame with its gather list: addresses, \
                 lengths, order, offload bits",
                format!(
                    "frame {} of this check: {what}; on the wire: {}; posted: {}",
                    expected.number,
                    hex(frame),
                    hex(&expected.bytes)
                ),
            ));
        }
        if expected.last {
            self.unseen = expected.number + 1;
        }
        Ok(())
    }

    /// Takes completions: each token once, and none before its frame was on the wire.
    pub(crate) fn reclaim(&mut self) -> Verdict<usize> {
        let mut tokens = Vec::new();
        let before = self.tx.outstanding();
        let result = self.tx.reclaim(&mut |token| tokens.push(token));
        let count = result.map_err(|error| {
            let what = format!("`reclaim` failed: {error}");
            failed(
                "a device that keeps to its rules never makes `reclaim` fail",
                what,
            )
        })?;
        let after = self.tx.outstanding();
        ensure!(
            count == tokens.len() && after + count == before,
            "`reclaim` returns how many tokens it has handed back, `outstanding` what is left",
            "`reclaim` returned {count}, handed back {}, `outstanding` went from {before} to \
             {after}",
            tokens.len()
        );
        let numbers = tokens
            .into_iter()
            .map(|token| self.take_back(token))
            .collect::<Verdict<Vec<u64>>>()?;
        self.collect()?;
        let early = numbers.iter().find(|number| **number >= self.unseen);
        if self.bench.sees_frames_at_once()
            && !self.lossy
            && let Some(number) = early
        {
            return Err(failed(
                "a token comes back when the last descriptor of *its* frame is done: which \
                 descriptor reports, and is its frame wholly behind it?",
                format!("frame {number} of this check was reported done before it was sent"),
            ));
        }
        Ok(count)
    }

    /// Takes a token that was handed back out of the books. Returns the number of its frame.
    pub(crate) fn take_back(&mut self, token: Token) -> Verdict<u64> {
        let Some(posted) = self.out.remove(&token.0) else {
            return Err(failed(
                "each token comes back exactly once, as it was given: all 32 bits of it (rule 6)",
                format!("token {:#x} came back and was not out", token.0),
            ));
        };
        self.vacant.extend(posted.buffers);
        Ok(posted.number)
    }

    /// Waits until all that was posted has been seen and has completed, and sees that nothing
    /// more comes. The doorbell must have been rung.
    pub(crate) fn finish(&mut self) -> Verdict {
        let done = self.wait(|session| {
            session.collect()?;
            session.reclaim()?;
            Ok(session.out.is_empty() && (session.expected.is_empty() || session.lossy))
        })?;
        if !done {
            return Err(self.unfinished());
        }
        self.settle();
        self.collect()?;
        self.reclaim()?;
        Ok(())
    }

    fn unfinished(&self) -> Stop {
        let (out, missing) = (self.out.len(), self.expected.len());
        let mend = if missing > 0 {
            "is the doorbell's value the descriptor behind the last one, and does each frame end?"
        } else {
            "does the last frame before a doorbell ask for its completion (rule 2), and is the \
             descriptor that reports the one that is looked at?"
        };
        let patience = self.options.patience;
        let what = format!(
            "after {patience:?} {missing} frames have not been on the wire, {out} have not \
             completed"
        );
        failed(mend, what)
    }

    /// Posts a frame that must fit, as the ring is empty or nearly so.
    pub(crate) fn must_post(&mut self, pieces: &[Piece], what: &str) -> Verdict {
        let posted = self.post(pieces)?;
        accepted(posted, what)
    }

    /// Posts, and where the ring is full rings the doorbell and waits for room.
    pub(crate) fn post_or_wait(&mut self, pieces: &[Piece], what: &str) -> Verdict {
        let expected = self.concat(pieces);
        self.post_packet_or_wait(pieces, Offload::NONE, vec![expected], what)
    }

    /// The same with a request, for what must then be on the wire.
    pub(crate) fn post_packet_or_wait(
        &mut self,
        pieces: &[Piece],
        offload: Offload,
        expected: Vec<Vec<u8>>,
        what: &str,
    ) -> Verdict {
        let mut last = Ok(());
        let done = self.wait(|session| {
            last = session.post_as(pieces, offload, expected.clone())?;
            if last == Err(PostError::Full) {
                session.doorbell();
                session.collect()?;
                session.reclaim()?;
                return Ok(false);
            }
            Ok(true)
        })?;
        ensure!(
            done,
            "a full ring has room again after completions",
            "{what}: the ring stays full for {:?}",
            self.options.patience
        );
        accepted(last, what)
    }
}

/// The same bytes in fragments of at most `limit` bytes.
fn chopped(fragments: &[Fragment], limit: u32) -> Vec<Fragment> {
    let mut chopped = Vec::new();
    for fragment in fragments {
        let mut offset = 0;
        while offset < fragment.len {
            let len = limit.min(fragment.len - offset);
            chopped.push(Fragment {
                address: fragment.address.offset(u64::from(offset)),
                len,
            });
            offset += len;
        }
    }
    chopped
}

/// Fails if a frame that the capabilities allow was not taken.
pub(crate) fn accepted(posted: Result<(), PostError>, what: &str) -> Verdict {
    posted.map_err(|error| {
        failed(
            "what the capabilities allow is taken (rule 8), and `max_fragments` is no more than \
             an empty ring holds beside contexts and gap",
            format!("{what} was not taken: {error}"),
        )
    })
}

/// What is wrong with a frame on the wire, if anything is. It may have been padded with zeros to
/// 60 bytes.
fn mismatch(frame: &[u8], posted: &[u8]) -> Option<String> {
    let Some((bytes, padding)) = frame.split_at_checked(posted.len()) else {
        let (have, want) = (frame.len(), posted.len());
        return Some(format!("{have} bytes on the wire of {want} posted"));
    };
    if let Some(at) = bytes.iter().zip(posted).position(|(a, b)| a != b) {
        return Some(format!("byte {at} differs"));
    }
    if !padding.is_empty() && frame.len() > SHORTEST {
        return Some(format!("{} bytes too many", padding.len()));
    }
    if padding.iter().any(|byte| *byte != 0) {
        let leaked = if padding.contains(&CANARY) {
            ": bytes from behind the fragment"
        } else {
            ""
        };
        return Some(format!("padding that is not zero{leaked}"));
    }
    None
}

/// The beginning of a frame, and how long it is.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const SHOWN: usize = 96;
    let mut text: String = bytes
        .iter()
        .take(SHOWN)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if bytes.len() > SHOWN {
        text.push('…');
    }
    format!("{text} ({} bytes)", bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_may_be_zeros_up_to_60_and_nothing_else() {
        let posted = [7; 20];
        let mut frame = vec![7; 20];
        assert_eq!(mismatch(&frame, &posted), None, "sent short");
        frame.resize(60, 0);
        assert_eq!(mismatch(&frame, &posted), None, "padded");
        frame[40] = CANARY;
        let leak = mismatch(&frame, &posted).unwrap();
        assert!(leak.contains("behind the fragment"), "{leak}");
        frame[40] = 0;
        frame.push(0);
        assert!(mismatch(&frame, &posted).is_some(), "padded too far");
        assert!(mismatch(&posted[..19], &posted).is_some(), "cut");
        frame[3] = 8;
        assert_eq!(mismatch(&frame, &posted).unwrap(), "byte 3 differs");
    }
}
