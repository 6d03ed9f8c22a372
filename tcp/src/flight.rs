//! Segments in flight: posted and not acknowledged, or acknowledged and still in the ring.

use alloc::collections::VecDeque;

use pagewire_hal::{FrameId, Instant};

use crate::stats::LentTimes;

/// A segment as it was posted. Positions as in the send buffer.
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

    #[inline]
    pub(crate) fn push(&mut self, segment: Segment) {
        self.unacked.push_back(segment);
    }

    /// The first segment that is not acknowledged.
    #[inline]
    pub(crate) fn front(&self) -> Option<&Segment> {
        self.unacked.front()
    }

    /// The first segment that ends behind `position`.
    pub(crate) fn at_mut(&mut self, position: u64) -> Option<&mut Segment> {
        let index = self.unacked.partition_point(|s| s.end() <= position);
        self.unacked.get_mut(index)
    }

    /// Takes what ends at or before `una` as acknowledged at `now`. Returns when the last of
    /// these segments was sent, if it was sent once: a round trip is measured with it.
    #[inline]
    pub(crate) fn acknowledge(
        &mut self,
        una: u64,
        now: Instant,
        in_flight: impl Fn(FrameId) -> bool,
        lent: &mut LentTimes,
    ) -> Option<Instant> {
        let mut sent = None;
        while let Some(segment) = self.unacked.front().copied().filter(|s| s.end() <= una) {
            self.unacked.pop_front();
            sent = (!segment.retransmitted).then_some(segment.first_sent);
            if segment.len == 0 {
                continue;
            }
            if in_flight(segment.frame) {
                self.draining.push_back(segment);
            } else {
                lent.add(now.saturating_since(segment.first_sent));
            }
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
            lent.add(now.saturating_since(segment.first_sent));
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
                lent.add(now.saturating_since(segment.first_sent));
            }
        }
    }
}
