//! Counts what passes on a wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pagewire_hal::Instant;

use crate::Wire;

/// What has passed, as seen from this end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Passed {
    /// Frames put on the wire.
    pub sent_frames: u64,
    /// Their bytes, without the frame check sequence.
    pub sent_bytes: u64,
    /// How often the wire had no room for one ([`Wire::lost`]).
    pub lost_frames: u64,
    /// Frames taken from the wire.
    pub received_frames: u64,
    /// Their bytes, without the frame check sequence.
    pub received_bytes: u64,
}

/// A wire of which the frames are counted.
#[derive(Debug)]
pub struct Tally<W> {
    wire: W,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    sent_frames: AtomicU64,
    sent_bytes: AtomicU64,
    lost_frames: AtomicU64,
    received_frames: AtomicU64,
    received_bytes: AtomicU64,
}

/// Looks at the count while a device owns the wire.
#[derive(Clone, Debug)]
pub struct TallyHandle(Arc<Count>);

impl<W: Wire> Tally<W> {
    /// Counts from now on.
    pub fn new(wire: W) -> Self {
        Self {
            wire,
            count: Arc::default(),
        }
    }

    /// To look at the count while a device owns the wire.
    #[must_use]
    pub fn handle(&self) -> TallyHandle {
        TallyHandle(Arc::clone(&self.count))
    }
}

impl TallyHandle {
    /// What has passed so far.
    #[must_use]
    pub fn passed(&self) -> Passed {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Passed {
            sent_frames: read(&self.0.sent_frames),
            sent_bytes: read(&self.0.sent_bytes),
            lost_frames: read(&self.0.lost_frames),
            received_frames: read(&self.0.received_frames),
            received_bytes: read(&self.0.received_bytes),
        }
    }
}

impl<W: Wire> Wire for Tally<W> {
    fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant) {
        let len = frame.len() as u64;
        self.count.sent_frames.fetch_add(1, Ordering::Relaxed);
        self.count.sent_bytes.fetch_add(len, Ordering::Relaxed);
        self.wire.transmit(frame, now);
        self.count
            .lost_frames
            .store(self.wire.lost(), Ordering::Relaxed);
    }

    fn receive(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        if !self.wire.receive(frame, now) {
            return false;
        }
        let len = frame.len() as u64;
        self.count.received_frames.fetch_add(1, Ordering::Relaxed);
        self.count.received_bytes.fetch_add(len, Ordering::Relaxed);
        true
    }

    fn carrier(&self) -> bool {
        self.wire.carrier()
    }

    fn lost(&self) -> u64 {
        self.wire.lost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{pair, pair_with_capacity};

    #[test]
    fn frames_are_counted_both_ways_and_pass_unchanged() {
        let (near, mut far) = pair();
        let mut tally = Tally::new(near);
        let handle = tally.handle();
        tally.transmit(&mut vec![1; 60], Instant::ZERO);
        tally.transmit(&mut vec![2; 100], Instant::ZERO);
        far.transmit(&mut vec![3; 70], Instant::ZERO);
        let mut frame = Vec::new();
        assert!(tally.receive(&mut frame, Instant::ZERO));
        assert_eq!(frame, [3; 70]);
        assert!(!tally.receive(&mut frame, Instant::ZERO));
        assert!(far.receive(&mut frame, Instant::ZERO));
        assert_eq!(frame, [1; 60]);
        let expected = Passed {
            sent_frames: 2,
            sent_bytes: 160,
            lost_frames: 0,
            received_frames: 1,
            received_bytes: 70,
        };
        assert_eq!(handle.passed(), expected);
    }

    #[test]
    fn what_the_wire_had_no_room_for_is_counted() {
        let (near, _far) = pair_with_capacity(1);
        let mut tally = Tally::new(near);
        for _ in 0..3 {
            tally.transmit(&mut vec![1; 60], Instant::ZERO);
        }
        let passed = tally.handle().passed();
        assert_eq!((passed.sent_frames, passed.lost_frames), (3, 2));
    }
}
