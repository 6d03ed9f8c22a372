//! A wire that loses, repeats, reorders and delays frames.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use pagewire_hal::Instant;

use crate::Wire;

/// What happens to the frames of one direction. Probabilities are from 0 (never) to 1 (always)
/// and independent of each other.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Impairment {
    /// Probability that a frame is lost.
    pub loss: f64,
    /// Probability that a frame arrives twice.
    pub duplication: f64,
    /// Probability that a frame is overtaken by later ones.
    pub reordering: f64,
    /// A frame that is overtaken goes on after this many later frames,
    pub reorder_frames: u32,
    /// or after this time, whichever comes first.
    pub reorder_time: Duration,
    /// How long every frame is on its way.
    pub delay: Duration,
}

impl Impairment {
    /// Nothing happens; a frame that is made to be overtaken is so by 3 frames or for 1 ms.
    pub const NONE: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
        reorder_frames: 3,
        reorder_time: Duration::from_millis(1),
        delay: Duration::ZERO,
    };
}

impl Default for Impairment {
    fn default() -> Self {
        Self::NONE
    }
}

/// What has happened to the frames of one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ImpairmentCounters {
    /// Frames put in.
    pub seen: u64,
    /// Frames lost.
    pub lost: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames held back for later ones to overtake them.
    pub reordered: u64,
    /// Frames that came out: seen − lost + duplicated, as soon as none is on its way.
    pub delivered: u64,
}

/// Impairs both directions of a wire, as drawn from a seed: the same seed, frames and times give
/// the same losses.
#[derive(Debug)]
pub struct Impaired<W> {
    wire: W,
    out: Lane,
    into: Lane,
    /// Memory for frames on their way from and to the wire.
    scratch: Vec<u8>,
}

impl<W: Wire> Impaired<W> {
    /// Impairs what is transmitted on `wire` by `transmit`, what is received by `receive`.
    #[must_use]
    pub fn new(wire: W, seed: u64, transmit: Impairment, receive: Impairment) -> Self {
        let mut rng = Rng::with_seed(seed);
        Self {
            wire,
            out: Lane::new(rng.fork(), transmit),
            into: Lane::new(rng.fork(), receive),
            scratch: Vec::new(),
        }
    }

    /// What has happened to transmitted frames.
    #[must_use]
    pub fn transmit_counters(&self) -> ImpairmentCounters {
        self.out.counters
    }

    /// What has happened to received frames.
    #[must_use]
    pub fn receive_counters(&self) -> ImpairmentCounters {
        self.into.counters
    }

    /// When the next frame that is on its way arrives, in either direction; `None` if there is
    /// none. Nothing happens before, unless a frame is put in.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.out
            .next_due()
            .into_iter()
            .chain(self.into.next_due())
            .min()
    }

    /// The wire behind.
    #[must_use]
    pub fn wire(&self) -> &W {
        &self.wire
    }

    /// Puts on the wire what is due. Receiving and transmitting do so too.
    pub fn poll(&mut self, now: Instant) {
        while self.out.take(&mut self.scratch, now) {
            self.wire.transmit(&mut self.scratch, now);
        }
    }
}

impl<W: Wire> Wire for Impaired<W> {
    fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant) {
        self.poll(now);
        self.out.put(frame, now);
        self.poll(now);
    }

    fn receive(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        self.poll(now);
        while self.wire.receive(&mut self.scratch, now) {
            self.into.put(&mut self.scratch, now);
        }
        self.into.take(frame, now)
    }

    fn carrier(&self) -> bool {
        self.wire.carrier()
    }

    fn lost(&self) -> u64 {
        self.wire.lost()
    }
}

/// One direction.
#[derive(Debug)]
struct Lane {
    rng: Rng,
    impairment: Impairment,
    counters: ImpairmentCounters,
    /// Frames held back, in the order in which they came.
    held: VecDeque<Held>,
    /// Frames on their way. The delay is the same for all, so that they arrive in this order,
    /// but for those that were held back, which go in where their time puts them.
    on_way: BinaryHeap<OnWay>,
    sequence: u64,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Held {
    frame: Vec<u8>,
    /// Goes on when this many more frames have passed,
    frames_left: u32,
    /// or at this time.
    until: Instant,
}

#[derive(Debug)]
struct OnWay {
    frame: Vec<u8>,
    due: Instant,
    sequence: u64,
}

impl Lane {
    fn new(rng: Rng, impairment: Impairment) -> Self {
        Self {
            rng,
            impairment,
            counters: ImpairmentCounters::default(),
            held: VecDeque::new(),
            on_way: BinaryHeap::new(),
            sequence: 0,
            spare: Vec::new(),
        }
    }

    fn put(&mut self, frame: &mut Vec<u8>, now: Instant) {
        self.counters.seen += 1;
        let Impairment {
            loss,
            duplication,
            reordering,
            reorder_frames,
            reorder_time,
            ..
        } = self.impairment;
        // Always three draws, so that one probability does not change what the others hit.
        let lost = self.rng.f64() < loss;
        let duplicated = self.rng.f64() < duplication;
        let reordered = self.rng.f64() < reordering;
        if lost {
            self.counters.lost += 1;
            return;
        }
        self.release_due(now);
        let spare = self.spare.pop().unwrap_or_default();
        let frame = std::mem::replace(frame, spare);
        if duplicated {
            self.counters.duplicated += 1;
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.clear();
            copy.extend_from_slice(&frame);
            self.send(copy, now);
        }
        if reordered && reorder_frames > 0 {
            self.counters.reordered += 1;
            self.held.push_back(Held {
                frame,
                frames_left: reorder_frames,
                until: now + reorder_time,
            });
        } else {
            self.send(frame, now);
            self.release_overtaken(now);
        }
    }

    /// Lets go on what has been held back for long enough.
    fn release_due(&mut self, now: Instant) {
        // All are held equally long, so the first is the first to go.
        while let Some(held) = self.held.pop_front_if(|held| held.until <= now) {
            self.send(held.frame, held.until);
        }
    }

    /// Lets go on what enough frames have overtaken, one more having passed.
    fn release_overtaken(&mut self, now: Instant) {
        for held in &mut self.held {
            held.frames_left = held.frames_left.saturating_sub(1);
        }
        while let Some(held) = self.held.pop_front_if(|held| held.frames_left == 0) {
            self.send(held.frame, now);
        }
    }

    fn send(&mut self, frame: Vec<u8>, at: Instant) {
        let due = at + self.impairment.delay;
        self.on_way.push(OnWay {
            frame,
            due,
            sequence: self.sequence,
        });
        self.sequence += 1;
    }

    fn take(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        self.release_due(now);
        if self.on_way.peek().is_none_or(|first| first.due > now) {
            return false;
        }
        let Some(first) = self.on_way.pop() else {
            return false;
        };
        let old = std::mem::replace(frame, first.frame);
        if old.capacity() > 0 {
            self.spare.push(old);
        }
        self.counters.delivered += 1;
        true
    }

    fn next_due(&self) -> Option<Instant> {
        let held = self
            .held
            .front()
            .map(|held| held.until + self.impairment.delay);
        let on_way = self.on_way.peek().map(|first| first.due);
        held.into_iter().chain(on_way).min()
    }
}

impl PartialEq for OnWay {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OnWay {}

impl PartialOrd for OnWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OnWay {
    /// The greatest is the first to arrive, as a heap yields the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |frame: &Self| (frame.due, frame.sequence);
        key(other).cmp(&key(self))
    }
}
