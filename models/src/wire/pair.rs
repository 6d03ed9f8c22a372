//! Two ends of a wire in memory.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pagewire_hal::Instant;

use crate::Wire;
use crate::host::lock;

/// Frames that [`pair`] holds in each direction.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// A wire in memory, [`DEFAULT_CAPACITY`] frames in each direction.
#[must_use]
pub fn pair() -> (PairEnd, PairEnd) {
    pair_with_capacity(DEFAULT_CAPACITY)
}

/// A wire in memory that holds `capacity` frames in each direction, at least 1; what is put on
/// it beyond that is lost and counted.
///
/// A frame is there at once. Its memory travels with it and comes back with later frames, so a
/// steady flow allocates nothing.
#[must_use]
pub fn pair_with_capacity(capacity: usize) -> (PairEnd, PairEnd) {
    let one = Arc::new(Lane::new(capacity));
    let other = Arc::new(Lane::new(capacity));
    let carrier = Arc::new(AtomicBool::new(true));
    let end = |out: &Arc<Lane>, into: &Arc<Lane>| PairEnd {
        out: Arc::clone(out),
        into: Arc::clone(into),
        carrier: Plug(Arc::clone(&carrier)),
    };
    (end(&one, &other), end(&other, &one))
}

/// One end of a wire made by [`pair`].
#[derive(Debug)]
pub struct PairEnd {
    out: Arc<Lane>,
    into: Arc<Lane>,
    carrier: Plug,
}

impl PairEnd {
    /// Frames of this end that were lost: the wire was full or unplugged.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        lock(&self.out.queue).dropped
    }

    /// Frames on the way to this end.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.into.waiting.load(Ordering::Acquire)
    }

    /// The plug, to pull it while a device owns the end.
    #[must_use]
    pub fn plug(&self) -> Plug {
        self.carrier.clone()
    }
}

/// Pulls the plug of a wire made by [`pair`], for both ends at once.
#[derive(Clone, Debug)]
pub struct Plug(Arc<AtomicBool>);

impl Plug {
    /// Plugs the wire in or unplugs it. Frames put on an unplugged wire are lost; those that
    /// were on it before still arrive.
    pub fn set(&self, plugged: bool) {
        self.0.store(plugged, Ordering::Release);
    }

    /// Whether the wire is plugged in.
    #[must_use]
    pub fn is_plugged(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Wire for PairEnd {
    #[inline]
    fn transmit(&mut self, frame: &mut Vec<u8>, _now: Instant) {
        self.out.put(frame, self.carrier.is_plugged());
    }

    #[inline]
    fn receive(&mut self, frame: &mut Vec<u8>, _now: Instant) -> bool {
        self.into.take(frame)
    }

    fn carrier(&self) -> bool {
        self.carrier.is_plugged()
    }

    fn lost(&self) -> u64 {
        self.dropped()
    }
}

/// One direction.
#[derive(Debug)]
struct Lane {
    queue: Mutex<Queue>,
    /// Frames in the queue, so that an idle end need not lock.
    waiting: AtomicUsize,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Vec<u8>>,
    /// Memory of frames that have arrived.
    spare: Vec<Vec<u8>>,
    dropped: u64,
}

impl Lane {
    fn new(capacity: usize) -> Self {
        Self {
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            capacity: capacity.max(1),
        }
    }

    fn put(&self, frame: &mut Vec<u8>, plugged: bool) {
        let mut queue = lock(&self.queue);
        if !plugged || queue.frames.len() >= self.capacity {
            queue.dropped += 1;
            return;
        }
        let spare = queue.spare.pop().unwrap_or_default();
        queue.frames.push_back(std::mem::replace(frame, spare));
        self.waiting.store(queue.frames.len(), Ordering::Release);
    }

    fn take(&self, frame: &mut Vec<u8>) -> bool {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut queue = lock(&self.queue);
        let Some(next) = queue.frames.pop_front() else {
            return false;
        };
        self.waiting.store(queue.frames.len(), Ordering::Release);
        let old = std::mem::replace(frame, next);
        // One spare for each frame that was ever on the wire at once is enough.
        if old.capacity() > 0 {
            queue.spare.push(old);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn frames_arrive_in_order_on_both_ways() {
        let (mut one, mut other) = pair();
        for n in 0..100u8 {
            one.transmit(&mut vec![n; 60], NOW);
            other.transmit(&mut vec![n, 1], NOW);
        }
        assert_eq!((one.waiting(), other.waiting()), (100, 100));
        let mut frame = Vec::new();
        for n in 0..100u8 {
            assert!(other.receive(&mut frame, NOW));
            assert_eq!(frame, [n; 60]);
            assert!(one.receive(&mut frame, NOW));
            assert_eq!(frame, [n, 1]);
        }
        assert!(!one.receive(&mut frame, NOW));
        assert!(!other.receive(&mut frame, NOW));
    }

    #[test]
    fn a_full_wire_drops_and_counts() {
        let (mut one, mut other) = pair_with_capacity(3);
        for n in 0..5u8 {
            one.transmit(&mut vec![n], NOW);
        }
        assert_eq!(one.dropped(), 2);
        assert_eq!(other.dropped(), 0);
        let mut frame = Vec::new();
        let mut seen = Vec::new();
        while other.receive(&mut frame, NOW) {
            seen.push(frame[0]);
        }
        assert_eq!(seen, [0, 1, 2]);
    }

    #[test]
    fn a_steady_flow_uses_the_same_memory_again() {
        let (mut one, mut other) = pair();
        let mut out = Vec::with_capacity(1514);
        let mut into = Vec::new();
        let mut places = std::collections::BTreeSet::new();
        for n in 0..1000u32 {
            out.clear();
            out.extend_from_slice(&n.to_ne_bytes());
            out.resize(1514, 0);
            one.transmit(&mut out, NOW);
            assert!(other.receive(&mut into, NOW));
            assert_eq!(into[..4], n.to_ne_bytes());
            places.insert(into.as_ptr().addr());
        }
        assert!(places.len() <= 4, "{} different buffers", places.len());
    }

    #[test]
    fn without_a_carrier_nothing_is_put_on_the_wire() {
        let (mut one, mut other) = pair();
        let plug = one.plug();
        one.transmit(&mut vec![1], NOW);
        plug.set(false);
        assert!(!one.carrier());
        assert!(!other.carrier());
        one.transmit(&mut vec![2], NOW);
        plug.set(true);
        assert!(other.carrier());
        one.transmit(&mut vec![3], NOW);
        let mut frame = Vec::new();
        assert!(other.receive(&mut frame, NOW));
        assert_eq!(frame, [1]);
        assert!(other.receive(&mut frame, NOW));
        assert_eq!(frame, [3]);
        assert_eq!(one.dropped(), 1);
    }

    #[test]
    fn the_ends_work_on_two_threads() {
        let (mut one, mut other) = pair();
        let thread = std::thread::spawn(move || {
            let mut frame = Vec::new();
            for n in 0..20_000u32 {
                frame.clear();
                frame.extend_from_slice(&n.to_ne_bytes());
                one.transmit(&mut frame, NOW);
            }
            one.dropped()
        });
        let mut next = 0u32;
        let mut frame = Vec::new();
        while next < 20_000 {
            if other.receive(&mut frame, NOW) {
                assert_eq!(frame, next.to_ne_bytes());
                next += 1;
            } else {
                std::thread::yield_now();
            }
        }
        assert_eq!(thread.join().unwrap(), 0);
    }
}
