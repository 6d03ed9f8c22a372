//! The addresses that a hostile device knows.

use std::collections::VecDeque;

use crate::virtio::queue::Queue;

/// Rings and buffers remembered.
const MOST_RINGS: usize = 24;
const MOST_BUFFERS: usize = 128;

/// What a device may write of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KnownRing {
    pub(super) packed: bool,
    /// The used ring with its flags, index and event index (split), or the descriptors (packed).
    pub(super) base: u64,
    /// Where the device asks for doorbells.
    pub(super) events: u64,
    pub(super) size: u16,
}

impl KnownRing {
    /// Bytes at `base`.
    pub(super) fn len(&self) -> u64 {
        let size = u64::from(self.size);
        if self.packed { 16 * size } else { 6 + 8 * size }
    }
}

/// What the driver has told the device, the oldest forgotten first.
#[derive(Debug, Default)]
pub(in super::super) struct Known {
    rings: VecDeque<KnownRing>,
    buffers: VecDeque<u64>,
}

impl Known {
    /// Takes note of where the ring of `queue` is.
    pub(super) fn add_ring(&mut self, queue: &Queue, packed: bool) {
        if !queue.enabled {
            return;
        }
        let base = if packed {
            queue.descriptors
        } else {
            queue.device
        };
        let events = if packed {
            queue.device
        } else {
            let event = 4 + 8 * u64::from(queue.size);
            queue.device.wrapping_add(event)
        };
        let ring = KnownRing {
            packed,
            base,
            events,
            size: queue.size,
        };
        if self.rings.contains(&ring) {
            return;
        }
        if self.rings.len() == MOST_RINGS {
            self.rings.pop_front();
        }
        self.rings.push_back(ring);
    }

    /// Takes note of a buffer.
    pub(in super::super) fn add_buffer(&mut self, address: u64) {
        if self.buffers.contains(&address) {
            return;
        }
        if self.buffers.len() == MOST_BUFFERS {
            self.buffers.pop_front();
        }
        self.buffers.push_back(address);
    }

    pub(super) fn buffer(&self, choice: usize) -> Option<u64> {
        let index = choice.checked_rem(self.buffers.len())?;
        self.buffers.get(index).copied()
    }

    pub(super) fn ring(&self, choice: usize) -> Option<KnownRing> {
        let index = choice.checked_rem(self.rings.len())?;
        self.rings.get(index).copied()
    }
}
