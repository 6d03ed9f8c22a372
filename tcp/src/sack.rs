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
    #[inline]
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
            // All three, or a block of more than 2^31 bytes looks like one in the window.
            let inside = start.is_after(una) && end.is_after(una) && end.is_at_or_before(next);
            if !inside || !start.is_before(end) || !self.insert(Range { start, end }) {
                self.ignored = self.ignored.saturating_add(1);
            }
        }
        self.sacked_bytes().saturating_sub(before)
    }

    /// Forgets what is below `una`, the oldest byte not acknowledged.
    ///
    /// A range that begins exactly there, or before it and reaches over it, is forgotten too: the
    /// peer said that it had those bytes, and now acknowledges less. It must have dropped them.
    #[inline]
    pub fn advance(&mut self, una: SeqNumber) {
        if self.count > 0 {
            self.forget_below(una);
        }
    }

    fn forget_below(&mut self, una: SeqNumber) {
        let kept = self
            .as_slice()
            .partition_point(|range| range.start.is_at_or_before(una));
        self.ranges.copy_within(kept..self.count, 0);
        self.count -= kept;
    }

    /// Forgets everything: after a timeout the peer may have dropped all that it had not
    /// acknowledged cumulatively (RFC 2018 section 8), and what it said before is not to be
    /// relied on (section 5). What it says from then on is (RFC 6675 section 5.1).
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
    #[inline]
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

    #[inline]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{config, seed};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Near the wrap, so that every test crosses it.
    const BASE: SeqNumber = SeqNumber(u32::MAX - 20);

    fn blocks(list: &[(i32, i32)]) -> SackBlocks {
        let mut blocks = SackBlocks::new();
        let at = |offset: i32| BASE.add(offset.cast_unsigned());
        for &(start, end) in list {
            assert!(blocks.push(at(start), at(end)));
        }
        blocks
    }

    fn board(list: &[(i32, i32)]) -> Scoreboard {
        let mut board = Scoreboard::new();
        for chunk in list.chunks(4) {
            board.update(BASE, BASE.add(1000), &blocks(chunk));
        }
        board
    }

    fn held(board: &Scoreboard, start: u32, end: u32) -> bool {
        board.is_sacked(BASE.add(start), BASE.add(end))
    }

    #[test]
    fn ranges_are_merged() {
        let board = board(&[(10, 20), (30, 40), (20, 30), (50, 60), (5, 55)]);
        assert!(held(&board, 5, 60));
        assert!(!held(&board, 4, 60) && !held(&board, 5, 61) && !held(&board, 7, 7));
        assert_eq!(board.sacked_bytes(), 55);
        assert_eq!(board.count, 1);
        assert_eq!(board.highest(), Some(BASE.add(60)));
    }

    #[test]
    fn update_counts_what_is_new() {
        let mut board = Scoreboard::new();
        let next = BASE.add(100);
        assert_eq!(board.update(BASE, next, &blocks(&[(10, 20)])), 10);
        assert_eq!(board.update(BASE, next, &blocks(&[(10, 20)])), 0);
        assert_eq!(board.update(BASE, next, &blocks(&[(15, 25), (40, 50)])), 15);
        assert_eq!(board.ignored(), 0);
    }

    #[test]
    fn hostile_and_stale_blocks_are_ignored() {
        let hostile = [
            (20, 20),       // empty
            (20, 10),       // backwards
            (-10, -5),      // D-SACK below una
            (-10, 30),      // from below una
            (0, 10),        // what would be acknowledged
            (90, 101),      // beyond what was sent
            (200, 300),     // far beyond
            (i32::MAX, -2), // most of the sequence space
            (i32::MIN, 50), // so that it only seems to begin in the window
            (1, i32::MIN),  // so that it only seems to end in it
        ];
        let mut board = Scoreboard::new();
        for (index, block) in hostile.iter().enumerate() {
            assert_eq!(board.update(BASE, BASE.add(100), &blocks(&[*block])), 0);
            assert_eq!(board.highest(), None, "block {block:?}");
            assert_eq!(board.ignored(), index as u32 + 1);
        }
        assert_eq!(board.update(BASE, BASE.add(100), &blocks(&[(90, 100)])), 10);
    }

    #[test]
    fn memory_is_bounded() {
        let mut board = Scoreboard::new();
        let next = BASE.add(10_000);
        for index in 0..100 {
            board.update(BASE, next, &blocks(&[(10 + index * 20, 20 + index * 20)]));
        }
        assert_eq!(board.count, Scoreboard::MAX_RANGES);
        assert_eq!(board.sacked_bytes(), 320);
        assert_eq!(board.ignored(), 68);
        // What joins ranges is taken still, also when the table is full.
        assert_eq!(board.update(BASE, next, &blocks(&[(20, 30)])), 10);
        assert_eq!(board.count, 31);
        assert_eq!(board.update(BASE, next, &blocks(&[(5, 6)])), 1);
        assert!(held(&board, 5, 6) && held(&board, 10, 40));
        assert_eq!(board.update(BASE, next, &blocks(&[(1, 3000)])), 2999 - 331);
        assert_eq!(board.count, 1);
    }

    #[test]
    fn holes_are_found_in_order() {
        let board = board(&[(10, 20), (30, 40)]);
        let hole = |from, next| {
            board
                .first_hole(BASE.add(from), BASE.add(next))
                .map(|(s, e)| (s.distance(BASE), e.distance(BASE)))
        };
        assert_eq!(hole(0, 50), Some((0, 10)));
        assert_eq!(hole(5, 50), Some((5, 10)));
        assert_eq!(hole(10, 50), Some((20, 30)));
        assert_eq!(hole(19, 50), Some((20, 30)));
        assert_eq!(hole(30, 50), Some((40, 50)));
        assert_eq!(hole(30, 40), None);
        assert_eq!(hole(0, 5), Some((0, 5)));
        assert_eq!(hole(12, 18), None);
        assert_eq!(hole(50, 50), None);
        assert_eq!(hole(50, 45), None);
    }

    #[test]
    fn a_hole_is_lost_below_three_ranges_or_more_than_two_segments() {
        let mss = 10;
        let is_lost = |list: &[(i32, i32)], at| board(list).is_lost(BASE.add(at), mss);
        assert!(!is_lost(&[(10, 30)], 0));
        assert!(is_lost(&[(10, 31)], 0));
        assert!(!is_lost(&[(10, 11), (20, 21)], 0));
        assert!(is_lost(&[(10, 11), (20, 21), (30, 31)], 0));
        assert!(!is_lost(&[(10, 11), (20, 21), (30, 31)], 11));
        assert!(!is_lost(&[(10, 50)], 10), "held, so not lost");
        assert!(!is_lost(&[(10, 50)], 50), "nothing above");
        assert_eq!(board(&[(10, 31), (40, 41)]).lost_bytes(BASE, mss), 10);
        assert_eq!(board(&[(10, 11), (40, 61)]).lost_bytes(BASE, mss), 39);
    }

    #[test]
    fn an_ack_below_a_held_range_takes_it_back() {
        let mut board = board(&[(10, 20), (30, 40)]);
        board.advance(BASE.add(10));
        assert!(!held(&board, 10, 20) && held(&board, 30, 40));
        board.advance(BASE.add(35));
        assert_eq!(board.sacked_bytes(), 0);
    }

    #[test]
    fn a_timeout_forgets_everything() {
        let mut board = board(&[(10, 20), (30, 40)]);
        board.clear();
        assert_eq!((board.sacked_bytes(), board.highest()), (0, None));
        assert_eq!(board.lost_bytes(BASE, 1), 0);
    }

    /// The same, byte by byte; indices are offsets from `BASE`. So few bytes that the table
    /// never fills.
    #[derive(Debug)]
    struct Plain {
        held: Vec<bool>,
        una: usize,
    }

    impl Plain {
        const LEN: usize = 60;

        fn advance(&mut self, una: usize) {
            self.una = una;
            let end = (una..Self::LEN)
                .find(|&i| !self.held[i])
                .unwrap_or(Self::LEN);
            self.held[..end].fill(false);
        }

        fn is_lost(&self, at: usize, mss: u32) -> bool {
            let above = at + 1..Self::LEN;
            let bytes = above.clone().filter(|&i| self.held[i]).count();
            let ranges = above.filter(|&i| self.held[i] && !self.held[i - 1]).count();
            !self.held[at] && (ranges >= 3 || bytes > 2 * mss as usize)
        }
    }

    #[derive(Clone, Debug)]
    enum Event {
        Update(Vec<(i32, i32)>),
        Advance(usize),
        Clear,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let offset = -20i32..Plain::LEN as i32 + 5;
        let near = (offset, 0i32..20).prop_map(|(start, len)| (start, start + len));
        let block = prop_oneof![8 => near, 1 => any::<(i32, i32)>()];
        prop_oneof![
            6 => prop::collection::vec(block, 1..=4).prop_map(Event::Update),
            2 => (0usize..8).prop_map(Event::Advance),
            1 => Just(Event::Clear),
        ]
    }

    fn compare(board: &Scoreboard, plain: &Plain, mss: u32) -> Result<(), TestCaseError> {
        let seed = seed();
        let at = |index: usize| BASE.add(index as u32);
        let next = at(Plain::LEN);
        let count = plain.held.iter().filter(|&&held| held).count();
        prop_assert_eq!(board.sacked_bytes() as usize, count, "seed {}", seed);
        for index in plain.una..Plain::LEN {
            let held = board.is_sacked(at(index), at(index + 1));
            prop_assert_eq!(held, plain.held[index], "byte {} seed {}", index, seed);
            let lost = board.is_lost(at(index), mss);
            prop_assert_eq!(
                lost,
                plain.is_lost(index, mss),
                "byte {} seed {}",
                index,
                seed
            );
            let start = (index..Plain::LEN).find(|&i| !plain.held[i]);
            let hole = start.map(|start| {
                let end = (start..Plain::LEN).find(|&i| plain.held[i]);
                (at(start), end.map_or(next, at))
            });
            prop_assert_eq!(
                board.first_hole(at(index), next),
                hole,
                "byte {} seed {}",
                index,
                seed
            );
        }
        let lost = (plain.una..Plain::LEN)
            .filter(|&i| plain.is_lost(i, mss))
            .count();
        prop_assert_eq!(
            board.lost_bytes(at(plain.una), mss) as usize,
            lost,
            "seed {}",
            seed
        );
        Ok(())
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn agrees_with_a_list_of_bytes(
            events in prop::collection::vec(any_event(), 0..30),
            mss in 1u32..12,
        ) {
            let mut board = Scoreboard::new();
            let mut plain = Plain { held: vec![false; Plain::LEN], una: 0 };
            for event in events {
                match event {
                    Event::Clear => {
                        board.clear();
                        plain.held.fill(false);
                    }
                    Event::Advance(step) => {
                        let una = (plain.una + step).min(Plain::LEN);
                        plain.advance(una);
                        board.advance(BASE.add(una as u32));
                    }
                    Event::Update(list) => {
                        let una = BASE.add(plain.una as u32);
                        board.update(una, BASE.add(Plain::LEN as u32), &blocks(&list));
                        for (start, end) in list {
                            let (una, len) = (plain.una as i32, Plain::LEN as i32);
                            if una < start && start < end && end <= len {
                                plain.held[start as usize..end as usize].fill(true);
                            }
                        }
                    }
                }
                compare(&board, &plain, mss)?;
            }
        }
    }
}
