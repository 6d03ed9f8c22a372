//! The SACK scoreboard: what the peer holds beyond its cumulative acknowledgment (RFC 2018,
//! RFC 6675).
//!
//! What is marked here is only spared from retransmission. It is not released: a peer may take
//! a SACK back (RFC 2018 section 8), the cumulative ACK alone is final.

use crate::seq::SeqNumber;
use crate::wire::SackBlocks;

/// DupThresh of RFC 6675.
const DUPLICATE_THRESHOLD: usize = 3;

/// A range of sequence numbers, the end not included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Range {
    start: SeqNumber,
    end: SeqNumber,
}

impl Range {
    fn len(self) -> u32 {
        self.end.distance(self.start).max(0).cast_unsigned()
    }
}

/// Ranges that the peer has selectively acknowledged: in order, disjoint, not adjacent, all
/// above the cumulative ACK. At most [`MAX_RANGES`](Self::MAX_RANGES) of them, whatever a
/// hostile peer sends: a block that would make one more is ignored, and its bytes may be sent
/// again needlessly.
#[derive(Clone, Debug, Default)]
pub struct Scoreboard {
    ranges: [Range; Self::MAX_RANGES],
    count: usize,
    ignored: u32,
}

impl Scoreboard {
    /// Ranges that are remembered.
    pub const MAX_RANGES: usize = 32;

    /// Nothing is held.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the blocks of an ACK, after it has been checked, where `una` is the oldest byte not
    /// acknowledged (after that ACK) and `next` the next one to be sent for the first time.
    /// Returns how many bytes are marked that were not before: none means that the ACK brought no
    /// news (RFC 6675 section 2 builds "duplicate ACK" on that).
    ///
    /// Blocks that are empty, or reach outside of `una`..`next`, are ignored; among them reports
    /// of duplicates below `una` (D-SACK, RFC 2883). So is one that begins at `una`: the peer
    /// would have acknowledged those bytes.
    pub fn update(&mut self, una: SeqNumber, next: SeqNumber, blocks: &SackBlocks) -> u32 {
        self.advance(una);
        let before = self.sacked_bytes();
        for (start, end) in blocks.iter() {
            let inside = start.is_after(una) && end.is_at_or_before(next);
            if !inside || !start.is_before(end) || !self.insert(Range { start, end }) {
                self.ignored = self.ignored.saturating_add(1);
            }
        }
        self.sacked_bytes().saturating_sub(before)
    }

    /// Forgets what is below `una`, the oldest byte not acknowledged.
    ///
    /// A range that begins exactly there is forgotten too: the peer said that it had those
    /// bytes, and now acknowledges less. It must have dropped them.
    pub fn advance(&mut self, una: SeqNumber) {
        let kept = self
            .as_slice()
            .partition_point(|range| range.start.is_at_or_before(una));
        self.ranges.copy_within(kept..self.count, 0);
        self.count -= kept;
    }

    /// Forgets everything: after a timeout the peer may have dropped all that it had not
    /// acknowledged cumulatively (RFC 2018 section 8).
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Whether the peer holds all bytes from `start` up to, but not with, `end`. An empty range
    /// is never held.
    #[must_use]
    pub fn is_sacked(&self, start: SeqNumber, end: SeqNumber) -> bool {
        start.is_before(end)
            && self
                .as_slice()
                .iter()
                .any(|r| r.start.is_at_or_before(start) && end.is_at_or_before(r.end))
    }

    /// The first bytes at or after `from`, and before `next`, that the peer does not hold: first
    /// number, and the one behind the last. `None` if it holds all of them.
    #[must_use]
    pub fn first_hole(&self, from: SeqNumber, next: SeqNumber) -> Option<(SeqNumber, SeqNumber)> {
        let mut start = from;
        let mut end = next;
        for range in self.as_slice() {
            if range.start.is_after(start) {
                end = if range.start.is_before(next) {
                    range.start
                } else {
                    next
                };
                break;
            }
            start = start.max(range.end);
        }
        start.is_before(end).then_some((start, end))
    }

    /// Bytes that the peer holds beyond its cumulative acknowledgment.
    #[must_use]
    pub fn sacked_bytes(&self) -> u32 {
        self.as_slice().iter().map(|range| range.len()).sum()
    }

    /// The number behind the highest byte that the peer holds; `None` if it holds none.
    #[must_use]
    pub fn highest(&self) -> Option<SeqNumber> {
        self.as_slice().last().map(|range| range.end)
    }

    /// Whether the byte `start`, which the peer does not hold, is to be taken for lost: three
    /// separate ranges, or more than two segments of `mss` bytes, are held above it (`IsLost` of
    /// RFC 6675 section 4). False for a byte that is held.
    #[must_use]
    pub fn is_lost(&self, start: SeqNumber, mss: u32) -> bool {
        let above = self
            .as_slice()
            .partition_point(|range| range.end.is_at_or_before(start));
        let above = self.as_slice().get(above..).unwrap_or_default();
        let held = above
            .first()
            .is_some_and(|r| r.start.is_at_or_before(start));
        !held && enough_above(above, mss)
    }

    /// Bytes from `una` on that are lost in the sense of [`is_lost`](Self::is_lost), whether they
    /// have been sent again or not.
    #[must_use]
    pub fn lost_bytes(&self, una: SeqNumber, mss: u32) -> u32 {
        let ranges = self.as_slice();
        let mut hole_start = una;
        let mut lost = 0u32;
        for (index, range) in ranges.iter().enumerate() {
            if !enough_above(ranges.get(index..).unwrap_or_default(), mss) {
                break; // higher holes have even less above them
            }
            let hole = Range {
                start: hole_start,
                end: range.start,
            };
            lost = lost.saturating_add(hole.len());
            hole_start = hole_start.max(range.end);
        }
        lost
    }

    /// Blocks that were ignored since the start: malformed, outside of the window, D-SACK, or
    /// without room. A counter that stays at its maximum.
    #[must_use]
    pub fn ignored(&self) -> u32 {
        self.ignored
    }

    fn as_slice(&self) -> &[Range] {
        self.ranges.get(..self.count).unwrap_or_default()
    }

    /// Adds `new`, joined with all ranges that it overlaps or touches. Returns whether there was
    /// room.
    fn insert(&mut self, new: Range) -> bool {
        // Ranges first..last overlap or touch the new one; the order makes them neighbours.
        let ranges = self.as_slice();
        let first = ranges.partition_point(|range| range.end.is_before(new.start));
        let last = ranges.partition_point(|range| range.start.is_at_or_before(new.end));
        let joined =
            ranges
                .get(first..last)
                .unwrap_or_default()
                .iter()
                .fold(new, |joined, range| Range {
                    start: if range.start.is_before(joined.start) {
                        range.start
                    } else {
                        joined.start
                    },
                    end: joined.end.max(range.end),
                });
        if first == last && self.count == Self::MAX_RANGES {
            return false;
        }
        self.ranges_replace(first, last, joined);
        true
    }

    /// Puts `joined` in the place of the ranges `first`..`last`; there is room if that is none.
    fn ranges_replace(&mut self, first: usize, last: usize, joined: Range) {
        if first == last {
            self.ranges
                .copy_within(first..self.count.min(Self::MAX_RANGES - 1), first + 1);
        } else {
            self.ranges.copy_within(last..self.count, first + 1);
        }
        if let Some(slot) = self.ranges.get_mut(first) {
            *slot = joined;
        }
        self.count = self.count + 1 - (last - first);
    }
}

/// Whether the ranges above a hole say that it is lost.
fn enough_above(above: &[Range], mss: u32) -> bool {
    let bytes = above
        .iter()
        .fold(0u32, |sum, range| sum.saturating_add(range.len()));
    above.len() >= DUPLICATE_THRESHOLD || bytes > mss.saturating_mul(DUPLICATE_THRESHOLD as u32 - 1)
}
