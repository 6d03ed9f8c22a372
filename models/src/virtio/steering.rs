//! Which pair of queues a received frame is for (virtio 1.3, "Automatic receive steering in
//! multiqueue mode"): the one that its flow was last sent on.

use std::collections::HashMap;

use super::frame::{Flow, Packet};
use super::queue::{Queue, Work};

/// Flows remembered; then all are forgotten.
const MOST_FLOWS: usize = 1024;

/// The flows, and the pairs of queues in use.
#[derive(Debug)]
pub(super) struct Steering {
    /// 1 unless the driver said otherwise.
    pub(super) pairs: u16,
    flows: HashMap<Flow, u16>,
}

impl Steering {
    pub(super) fn new() -> Self {
        Self {
            pairs: 1,
            flows: HashMap::new(),
        }
    }

    /// A frame was sent on the transmit queue of `pair`.
    pub(super) fn note(&mut self, frame: &[u8], pair: u16) {
        if self.pairs < 2 {
            return;
        }
        let packet = Packet::parse(frame, false);
        let Some(flow) = packet.and_then(|packet| packet.flow(frame)) else {
            return;
        };
        if self.flows.len() >= MOST_FLOWS && !self.flows.contains_key(&flow) {
            self.flows.clear();
        }
        self.flows.insert(flow, pair);
    }

    /// The pair that a frame is for. Of a flow that nothing was sent of it may be any; frames
    /// without a flow go to the first.
    pub(super) fn choose(&self, frame: &[u8], work: &mut Work<'_>) -> u16 {
        if self.pairs < 2 {
            return 0;
        }
        let packet = Packet::parse(frame, false);
        let Some(flow) = packet.and_then(|packet| packet.flow(frame)) else {
            return 0;
        };
        match self.flows.get(&flow) {
            Some(pair) if *pair < self.pairs => *pair,
            _ if work.latitude.random_steering => work.random.u16(..self.pairs),
            _ => flow.number() % self.pairs,
        }
    }

    /// `pair` if frames can go there, else another one; `None` if all receive queues are being
    /// reset (or were, and are not enabled again).
    pub(super) fn usable(&self, pair: u16, queues: &[Queue]) -> Option<u16> {
        let runs = |pair: &u16| {
            let queue = queues.get(usize::from(2 * *pair));
            queue.is_some_and(|queue| queue.enabled && queue.reset.is_none())
        };
        let pair = if pair < self.pairs { pair } else { 0 };
        std::iter::once(pair).chain(0..self.pairs).find(runs)
    }
}
