//! Segments in flight: posted and not acknowledged, or acknowledged and still in the ring.

use alloc::collections::VecDeque;

use pagewire_hal::{FrameId, Instant};

use crate::stats::LentTimes;

/// A segment as it was posted, or several in one frame: a request for segmentation, of which all
/// but the last segment have the full length. Positions as in the send buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// Position of its first byte (of the SYN or FIN if there is no byte).
    pub(crate) start: u64,
    /// Bytes of payload.
    pub(crate) len: u32,
    /// It opens the stream.
    pub(crate) syn: bool,
    /// It ends the stream.
    pub(crate) fin: bool,
    /// It was posted more than once (Karn: no round trip is measured with it).
    pub(crate) retransmitted: bool,
    /// The frame of the last post.
    pub(crate) frame: FrameId,
    /// When it was first posted.
    pub(crate) first_sent: Instant,
}

impl Segment {
    /// Sequence numbers that it takes.
    #[inline]
    pub(crate) const fn sequence_len(&self) -> u32 {
        self.len + self.syn as u32 + self.fin as u32
    }

    /// Position behind it.
    #[inline]
    pub(crate) const fn end(&self) -> u64 {
        self.start + self.sequence_len() as u64
    }
}

/// The segments in flight, in the order of the stream. All work at an acknowledgment is at the
/// front: its cost does not depend on how many segments there are.
///
/// A request for segmentation is one entry, until a part of it is sent again. Then it is split,
/// between segments on the wire only: however a peer picks its holes, there are no more entries
/// than segments.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// Posted, not acknowledged as a whole.
    unacked: VecDeque<Segment>,
    /// Acknowledged, or of an aborted connection, but the device had not completed.
    draining: VecDeque<Segment>,
}

impl Flight {
    /// Whether nothing waits for an acknowledgment.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.unacked.is_empty()
    }

    /// When the segment that is acknowledged next was first posted.
    pub(crate) fn oldest_sent(&self) -> Option<Instant> {
        self.unacked.front().map(|segment| segment.first_sent)
    }

    #[inline]
    pub(crate) fn push(&mut self, segment: Segment) {
        self.unacked.push_back(segment);
    }

    /// The first segment on the wire that ends behind `position`: of a request the one that the
    /// device has cut there, `segment_len` bytes long but for the last.
    pub(crate) fn at(&self, position: u64, segment_len: u32) -> Option<Segment> {
        let index = self.unacked.partition_point(|s| s.end() <= position);
        let whole = *self.unacked.get(index)?;
        if whole.len <= segment_len {
            return Some(whole);
        }
        // The position of a FIN belongs to the last segment.
        let within = position.saturating_sub(whole.start);
        let within = within.min(u64::from(whole.len) - 1) as u32;
        let before = within - within % segment_len.max(1);
        let len = segment_len.max(1).min(whole.len - before);
        Some(Segment {
            start: whole.start + u64::from(before),
            len,
            syn: false,
            fin: whole.fin && before + len == whole.len,
            ..whole
        })
    }

    /// Takes note that `segment`, one of [`at`](Self::at) or the end of one, was sent again: it
    /// stands by itself now. What is before `una` is forgotten. The device has completed the
    /// frame of the rest (rule 2), so that it does no harm if two entries name it.
    pub(crate) fn sent_again(&mut self, segment: Segment, una: u64) {
        let index = self.unacked.partition_point(|s| s.end() <= segment.start);
        let Some(place) = self.unacked.get_mut(index) else {
            return;
        };
        let whole = core::mem::replace(place, segment);
        let fin_behind = whole.fin && !segment.fin;
        let behind = Segment {
            start: segment.end(),
            len: (whole.end().saturating_sub(segment.end()) as u32)
                .saturating_sub(u32::from(fin_behind)),
            syn: false,
            fin: fin_behind,
            ..whole
        };
        if behind.sequence_len() > 0 {
            self.unacked.insert(index + 1, behind);
        }
        if segment.start > una && segment.start > whole.start {
            let before = Segment {
                len: (segment.start - whole.start) as u32,
                fin: false,
                ..whole
            };
            self.unacked.insert(index, before);
        }
    }

    /// Takes what ends at or before `una` as acknowledged at `now`. Returns when the byte before
    /// `una` was sent, if it was sent once: a round trip is measured with it. (A request for
    /// segmentation is acknowledged segment by segment; the first of these tells the round trip
    /// best.)
    #[inline]
    pub(crate) fn acknowledge(
        &mut self,
        una: u64,
        now: Instant,
        in_flight: impl Fn(FrameId) -> bool,
        lent: &mut LentTimes,
    ) -> Option<Instant> {
        let mut sent = None;
        while let Some(front) = self.unacked.front()
            && front.end() <= una
        {
            sent = (!front.retransmitted).then_some(front.first_sent);
            if front.len > 0 {
                if in_flight(front.frame) {
                    self.draining.push_back(*front);
                } else {
                    lent.add(front.first_sent, now);
                }
            }
            self.unacked.pop_front();
        }
        if let Some(partly) = self.unacked.front().filter(|s| s.start < una) {
            sent = (!partly.retransmitted).then_some(partly.first_sent);
        }
        sent
    }

    /// Drops acknowledged segments that the device has completed by `now`. It looks at the
    /// first ones only: a device that completes out of order makes those behind wait, which is
    /// no loss, as completions are told in order.
    pub(crate) fn settle(
        &mut self,
        now: Instant,
        in_flight: impl Fn(FrameId) -> bool,
        lent: &mut LentTimes,
    ) {
        while let Some(segment) = self.draining.front().filter(|s| !in_flight(s.frame)) {
            lent.add(segment.first_sent, now);
            self.draining.pop_front();
        }
    }

    /// Whether the device has still to complete what is acknowledged or aborted.
    #[inline]
    pub(crate) fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Position below which the device reads no byte that is acknowledged or aborted. Call
    /// [`settle`](Self::settle) before.
    pub(crate) fn unread(&self, in_flight: impl Fn(FrameId) -> bool) -> u64 {
        if let Some(segment) = self.draining.front() {
            return segment.start;
        }
        // Acknowledged in part, it can hold up the call whose bytes it carries.
        match self.unacked.front() {
            Some(segment) if in_flight(segment.frame) => segment.start,
            _ => u64::MAX,
        }
    }

    /// The connection has ended: nothing waits for an acknowledgment, all that the device still
    /// reads is to be completed.
    pub(crate) fn abort(
        &mut self,
        now: Instant,
        in_flight: impl Fn(FrameId) -> bool,
        lent: &mut LentTimes,
    ) {
        for segment in self.unacked.drain(..) {
            if segment.len == 0 {
                continue;
            }
            if in_flight(segment.frame) {
                self.draining.push_back(segment);
            } else {
                lent.add(segment.first_sent, now);
            }
        }
    }
}
