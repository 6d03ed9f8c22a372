//! Both ring formats at random: posts, doorbells, completions in any order, event indices.

use std::collections::VecDeque;
use std::vec::Vec;

use pagewire_hal::{Nic, TxQueue};

use super::Bench;
use crate::Features;
use crate::fake::TX;
use crate::fake_ring::{Chain, PlayRings};

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

struct Run {
    bench: Bench,
    random: Random,
    features: Features,
    size: u16,
    /// Token and pieces of what was posted and not fetched.
    posted: VecDeque<(u32, usize)>,
    unpublished: usize,
    /// What the device has fetched and not completed.
    fetched: Vec<(u32, Chain)>,
    /// Tokens to be reclaimed, in this order.
    completed: VecDeque<u32>,
    next_token: u32,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut features = Features::empty();
        for feature in [
            Features::RING_PACKED,
            Features::INDIRECT_DESC,
            Features::EVENT_IDX,
            Features::IN_ORDER,
        ] {
            features.set(feature, random.below(2) == 0);
        }
        let size = 1 << random.below(7);
        Self {
            bench: Bench::with(features, size),
            random,
            features,
            size,
            posted: VecDeque::new(),
            unpublished: 0,
            fetched: Vec::new(),
            completed: VecDeque::new(),
            next_token: 0,
        }
    }

    fn post(&mut self) {
        let count = 1 + self.random.below(usize::from(self.size.min(20)));
        let room = self.bench.tx.has_room(count);
        let posted = self.bench.post(count, self.next_token);
        assert_eq!(posted.is_ok(), room, "{posted:?}");
        if room {
            self.posted.push_back((self.next_token, count));
            self.unpublished += 1;
            self.next_token += 1;
        }
    }

    /// The device fetches all, and then asks for a doorbell at the next frame: that must come.
    fn doorbell(&mut self) {
        let queue = self.bench.fake.device().queues[TX];
        let asks = self.posted.len() == self.unpublished;
        if asks && self.features.contains(Features::EVENT_IDX) {
            let position = queue.fetched & (queue.size - 1);
            let wrap = u16::from(queue.fetched & queue.size == 0) << 15;
            if self.features.contains(Features::RING_PACKED) {
                self.bench.fake.suppress(TX, position | wrap, 2);
            } else {
                self.bench.fake.suppress(TX, queue.fetched, 0);
            }
        }
        let before = self.bench.fake.device().bells.len();
        self.bench.tx.doorbell();
        let rang = self.bench.fake.device().bells.len() > before;
        assert!(rang || !asks || self.unpublished == 0, "a lost wake-up");
        self.unpublished = 0;
    }

    fn fetch(&mut self) {
        let visible = self.posted.len() - self.unpublished;
        for _ in 0..visible {
            let chain = self.bench.fake.fetch(TX).expect("what was announced");
            let (token, count) = self.posted.pop_front().expect("what was posted");
            assert_eq!(chain.pieces.len(), count, "token {token}");
            let expected = self.bench.fragments(count);
            for (piece, fragment) in chain.pieces.iter().zip(&expected).skip(1) {
                assert_eq!(*piece, (fragment.address.0, fragment.len, false));
            }
            self.fetched.push((token, chain));
        }
        assert_eq!(self.bench.fake.fetch(TX), None, "before the doorbell");
    }

    fn complete(&mut self) {
        if self.fetched.is_empty() {
            return;
        }
        let at = self.random.below(self.fetched.len());
        let (_, chain) = &self.fetched[at];
        let id = u32::from(chain.head);
        if self.features.contains(Features::IN_ORDER) {
            self.bench.fake.complete_many(TX, id, 0, at as u16 + 1);
            self.completed
                .extend(self.fetched.drain(..=at).map(|(token, _)| token));
        } else {
            self.bench.fake.complete(TX, id, 0);
            self.completed.push_back(self.fetched.remove(at).0);
        }
    }

    fn reclaim(&mut self) {
        let tokens = self.bench.reclaim();
        assert_eq!(tokens, self.completed.drain(..).collect::<Vec<_>>());
        let out = self.posted.len() + self.fetched.len();
        assert_eq!(self.bench.tx.outstanding(), out);
    }
}

#[test]
fn every_frame_is_seen_once_and_comes_back_once() {
    for seed in 0..150 {
        let mut run = Run::new(seed);
        let (features, size) = (run.features, run.size);
        let result = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
            for _ in 0..400 {
                match run.random.below(6) {
                    0 | 1 => run.post(),
                    2 => run.doorbell(),
                    3 => run.fetch(),
                    4 => run.complete(),
                    _ => run.reclaim(),
                }
            }
            run.doorbell();
            run.fetch();
            while !run.fetched.is_empty() {
                run.complete();
            }
            run.reclaim();
            assert_eq!(run.bench.tx.outstanding(), 0);
            let most = run.bench.nic.capabilities().max_fragments;
            assert!(run.bench.tx.has_room(usize::from(most)));
        }));
        assert!(result.is_ok(), "seed {seed}: {features}, size {size}");
    }
}
