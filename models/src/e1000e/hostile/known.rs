//! The addresses that a hostile device knows.

use std::collections::VecDeque;

use super::super::bits::{DESCRIPTOR, command};

/// Rings and buffers remembered.
const MOST_RINGS: usize = 8;
const MOST_BUFFERS: usize = 128;

/// A descriptor ring, as its registers said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KnownRing {
    pub(super) base: u64,
    pub(super) entries: u32,
    pub(super) receive: bool,
}

impl KnownRing {
    /// Bytes of the ring.
    pub(super) fn len(&self) -> u64 {
        u64::from(self.entries) * u64::from(DESCRIPTOR)
    }

    /// How far into the ring `address` is.
    pub(super) fn offset_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        (offset < self.len()).then_some(offset)
    }
}

/// What the driver has told the device, the oldest forgotten first.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) rings: VecDeque<KnownRing>,
    buffers: VecDeque<u64>,
}

impl Known {
    pub(super) fn add_ring(&mut self, base: u64, entries: u32, receive: bool) {
        let ring = KnownRing {
            base,
            entries,
            receive,
        };
        if entries == 0 || base == 0 || self.rings.contains(&ring) {
            return;
        }
        if self.rings.len() == MOST_RINGS {
            self.rings.pop_front();
        }
        self.rings.push_back(ring);
    }

    pub(super) fn add_buffer(&mut self, address: u64) {
        if address == 0 || self.buffers.contains(&address) {
            return;
        }
        if self.buffers.len() == MOST_BUFFERS {
            self.buffers.pop_front();
        }
        self.buffers.push_back(address);
    }

    /// The ring that `address` is in, the newest if there are several.
    pub(super) fn ring_at(&self, address: u64) -> Option<KnownRing> {
        let mut newest_first = self.rings.iter().rev();
        newest_first
            .find(|ring| ring.offset_of(address).is_some())
            .copied()
    }

    pub(super) fn buffer(&self, choice: usize) -> Option<u64> {
        let index = choice.checked_rem(self.buffers.len())?;
        self.buffers.get(index).copied()
    }

    pub(super) fn ring(&self, choice: usize) -> Option<KnownRing> {
        let index = choice.checked_rem(self.rings.len())?;
        self.rings.get(index).copied()
    }

    /// Takes note of the buffers that descriptors name which were fetched from `ring`.
    pub(super) fn add_descriptors(&mut self, ring: KnownRing, bytes: &[u8]) {
        let (descriptors, _) = bytes.as_chunks::<{ DESCRIPTOR as usize }>();
        for raw in descriptors {
            let [a, b, c, d, e, f, g, h, _, _, kind, bits, ..] = *raw;
            let context = !ring.receive && bits & command::DEXT != 0 && kind >> 4 == 0;
            if !context {
                self.add_buffer(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
        }
    }
}
