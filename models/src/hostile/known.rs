//! The addresses that a hostile device knows.

use std::collections::VecDeque;

/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: u32 = 16;
/// DEXT, in the eleventh byte of a transmit descriptor.
const DEXT: u8 = 1 << 5;

/// Rings and buffers remembered; the rings of sixteen pairs of queues.
const MOST_RINGS: usize = 32;
const MOST_BUFFERS: usize = 128;

/// A descriptor ring, as its registers said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KnownRing {
    pub(crate) base: u64,
    pub(crate) entries: u32,
    pub(crate) receive: bool,
}

impl KnownRing {
    /// Bytes of the ring.
    pub(crate) fn len(&self) -> u64 {
        u64::from(self.entries) * u64::from(DESCRIPTOR)
    }

    /// How far into the ring `address` is.
    pub(crate) fn offset_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        (offset < self.len()).then_some(offset)
    }
}

/// What the driver has told the device, the oldest forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) rings: VecDeque<KnownRing>,
    /// DTYP of a context descriptor, whose first half is no address.
    pub(crate) context_type: u8,
    buffers: VecDeque<u64>,
}

impl Known {
    pub(crate) fn add_ring(&mut self, base: u64, entries: u32, receive: bool) {
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

    pub(crate) fn add_buffer(&mut self, address: u64) {
        if address == 0 || self.buffers.contains(&address) {
            return;
        }
        if self.buffers.len() == MOST_BUFFERS {
            self.buffers.pop_front();
        }
        self.buffers.push_back(address);
    }

    /// The ring that `address` is in, the newest if there are several.
    pub(crate) fn ring_at(&self, address: u64) -> Option<KnownRing> {
        let mut newest_first = self.rings.iter().rev();
        newest_first
            .find(|ring| ring.offset_of(address).is_some())
            .copied()
    }

    pub(crate) fn buffer(&self, choice: usize) -> Option<u64> {
        let index = choice.checked_rem(self.buffers.len())?;
        self.buffers.get(index).copied()
    }

    pub(crate) fn ring(&self, choice: usize) -> Option<KnownRing> {
        let index = choice.checked_rem(self.rings.len())?;
        self.rings.get(index).copied()
    }

    /// Takes note of the buffers that descriptors name which were fetched from `ring`.
    pub(crate) fn add_descriptors(&mut self, ring: KnownRing, bytes: &[u8]) {
        let (descriptors, _) = bytes.as_chunks::<{ DESCRIPTOR as usize }>();
        for raw in descriptors {
            let [a, b, c, d, e, f, g, h, _, _, kind, bits, ..] = *raw;
            let context = !ring.receive && bits & DEXT != 0 && kind >> 4 == self.context_type;
            if !context {
                self.add_buffer(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
            }
        }
    }
}
