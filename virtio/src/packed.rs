//! A packed ring: one ring that both sides write (virtio 1.3, section 2.8).
//!
//! It is accessed in words of 32 bits: words 4i and 4i + 1 of descriptor i are the address, 4i + 2
//! the length, 4i + 3 the buffer id (bits 15:0) and the flags (bits 31:16). The last one hands the
//! descriptor over, and is written in one piece.
//!
//! Positions in the ring are free-running, modulo 2^32. The wrap counter of a position is 1 in the
//! first round, 0 in the second, and so on.
//!
//! What is posted between two doorbells becomes visible at once: the last word of the first
//! descriptor is held back until then, and no device looks beyond a descriptor that is not
//! available. So there is one barrier per doorbell, and none per frame.

use pagewire_hal::{DescriptorRing, DeviceAddress, NicError, Platform, QueueError, barrier};

use crate::Features;
use crate::desc::{INDIRECT, NEXT, PACKED_AVAILABLE, PACKED_USED, PackedDescriptor};
use crate::ring::{self, Direction, Parts, TABLE_LEN, Used};
use crate::shadow::Shadow;

/// Words of a descriptor.
const WORDS: u32 = 4;
/// Event suppression, in the flags above the position: no event is wanted.
const EVENTS_OFF: u32 = 1;
/// An event is wanted for one position.
const EVENT_AT: u32 = 2;
/// The wrap counter of that position.
const EVENT_WRAP: u32 = 1 << 15;

/// A packed ring.
pub(crate) struct PackedRing<P: Platform> {
    descriptors: DescriptorRing<P::Memory, u32>,
    /// One word: when the driver wants to be interrupted.
    driver_event: DescriptorRing<P::Memory, u32>,
    /// One word: when the device wants to be notified.
    device_event: DescriptorRing<P::Memory, u32>,
    /// The indirect tables, that of buffer id i from index i · [`TABLE_LEN`] on.
    tables: Option<DescriptorRing<P::Memory, PackedDescriptor>>,
    shadow: Shadow<P::Slots>,
    size: u32,
    /// Of all pieces of a buffer but the last.
    flags: u16,
    /// Of the last piece.
    last_flags: u16,
    event_index: bool,
    in_order: bool,
    /// Position of the next descriptor to write.
    next: u32,
    /// Position up to which the device was told.
    published: u32,
    /// Position where the device writes the next used descriptor.
    used: u32,
    /// Buffers added, announced and taken back, modulo 2^32: places in the order of posting.
    added: u32,
    announced: u32,
    taken: u32,
    /// The last word of the descriptor at `published`, which is held back.
    held: u32,
    /// In order: the id that the device named as the last of those it is done with, and the
    /// length it wrote.
    batch: Option<(u32, u32)>,
}

impl<P: Platform> PackedRing<P> {
    /// See [`Ring::new`](ring::Ring::new).
    pub(crate) fn new(
        platform: &mut P,
        size: u16,
        features: Features,
        direction: Direction,
    ) -> Result<Self, NicError> {
        let count = u32::from(size);
        let descriptors = ring::memory(platform, WORDS * count)?;
        let driver_event = ring::memory(platform, 1)?;
        let device_event = ring::memory(platform, 1)?;
        let tables = if ring::has_tables(features, size, direction) {
            Some(ring::memory(platform, count * TABLE_LEN)?)
        } else {
            None
        };
        let (flags, last_flags) = direction.flags();
        Ok(Self {
            descriptors,
            driver_event,
            device_event,
            tables,
            shadow: Shadow::new(platform, size)?,
            size: count,
            flags,
            last_flags,
            event_index: features.contains(Features::EVENT_IDX),
            in_order: features.contains(Features::IN_ORDER),
            next: 0,
            published: 0,
            used: 0,
            added: 0,
            announced: 0,
            taken: 0,
            held: 0,
            batch: None,
        })
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    pub(crate) fn prepare(&mut self) -> Parts {
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.set_quiet(false) };
        self.descriptors.clear();
        self.driver_event.clear();
        self.device_event.clear();
        self.empty();
        if self.event_index {
            self.driver_event.write(0, self.event_of(0));
        }
        barrier::publish();
        Parts {
            descriptors: self.descriptors.address(),
            driver: self.driver_event.address(),
            device: self.device_event.address(),
        }
    }

    fn empty(&mut self) {
        self.shadow.reset();
        self.next = 0;
        self.published = 0;
        self.used = 0;
        self.added = 0;
        self.announced = 0;
        self.taken = 0;
        self.batch = None;
    }

    /// # Safety
    /// As [`Ring::drain`](ring::Ring::drain).
    pub(crate) unsafe fn drain(&mut self, released: &mut dyn FnMut(u32)) {
        let mut from = 0;
        while let Some(token) = self.shadow.give_back_any(&mut from) {
            released(token);
        }
        self.empty();
    }

    /// # Safety
    /// As [`Ring::set_quiet`](ring::Ring::set_quiet).
    pub(crate) unsafe fn set_quiet(&mut self, quiet: bool) {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.descriptors.set_quiet(quiet) };
        // SAFETY: as above.
        unsafe { self.driver_event.set_quiet(quiet) };
        // SAFETY: as above.
        unsafe { self.device_event.set_quiet(quiet) };
        if let Some(tables) = &mut self.tables {
            // SAFETY: as above.
            unsafe { tables.set_quiet(quiet) };
        }
    }

    #[inline(always)]
    pub(crate) fn progress(&self) -> (u32, u32) {
        (self.announced, self.taken)
    }

    #[inline(always)]
    pub(crate) fn outstanding(&self) -> usize {
        self.shadow.outstanding() as usize
    }

    #[inline(always)]
    fn is_indirect(&self, pieces: usize) -> bool {
        self.tables.is_some() && ring::fits_table(pieces)
    }

    #[inline(always)]
    pub(crate) fn has_room(&self, pieces: usize) -> bool {
        let needed = if self.is_indirect(pieces) { 1 } else { pieces };
        needed <= self.shadow.free() as usize && pieces <= self.size as usize
    }

    #[inline(always)]
    pub(crate) fn has_unpublished(&self) -> bool {
        self.next != self.published
    }

    /// Whether the wrap counter is 1 at a position.
    #[inline(always)]
    fn wrap(&self, position: u32) -> bool {
        position & self.size == 0
    }

    /// An event at a position, as the suppression structures have it.
    #[inline(always)]
    fn event_of(&self, position: u32) -> u32 {
        let wrap = if self.wrap(position) { EVENT_WRAP } else { 0 };
        (position & (self.size - 1) | wrap | EVENT_AT << 16).to_le()
    }

    /// See [`Ring::add`](ring::Ring::add).
    #[inline(always)]
    pub(crate) fn add(
        &mut self,
        pieces: impl ExactSizeIterator<Item = (DeviceAddress, u32)>,
        token: u32,
    ) {
        let id = self.shadow.first();
        let start = self.next;
        let mut left = pieces.len();
        if self.is_indirect(left) {
            let (address, len) = self.write_table(id, pieces);
            self.write(id, address, len, INDIRECT);
        } else {
            for (address, len) in pieces {
                left -= 1;
                let flags = if left > 0 {
                    self.flags | NEXT
                } else {
                    self.last_flags
                };
                self.write(id, address, len, flags);
            }
        }
        let len = self.next.wrapping_sub(start);
        let place = self.added & (self.size - 1);
        self.shadow.take(id, len, place, token);
        self.added = self.added.wrapping_add(1);
    }

    /// Writes the descriptor at the next position, but for its last word if it is the first one
    /// since the last doorbell.
    #[inline(always)]
    fn write(&mut self, id: u16, address: DeviceAddress, len: u32, flags: u16) {
        let at = WORDS * (self.next & (self.size - 1));
        let handed_over = if self.wrap(self.next) {
            PACKED_AVAILABLE
        } else {
            PACKED_USED
        };
        let last = u32::from(id) | u32::from(flags | handed_over) << 16;
        self.descriptors.write(at, (address.0 as u32).to_le());
        let high = (address.0 >> 32) as u32;
        self.descriptors.write(at + 1, high.to_le());
        self.descriptors.write(at + 2, len.to_le());
        if self.next == self.published {
            self.held = last;
        } else {
            self.descriptors.write(at + 3, last.to_le());
        }
        self.next = self.next.wrapping_add(1);
    }

    /// Returns the address of the table and its length in bytes.
    #[inline(always)]
    fn write_table(
        &mut self,
        id: u16,
        pieces: impl ExactSizeIterator<Item = (DeviceAddress, u32)>,
    ) -> (DeviceAddress, u32) {
        let Some(tables) = &mut self.tables else {
            return (DeviceAddress(0), 0);
        };
        let entry = size_of::<PackedDescriptor>() as u32;
        let base = u32::from(id) * TABLE_LEN;
        let bytes = pieces.len() as u32 * entry;
        for (index, (address, len)) in (base..).zip(pieces) {
            let descriptor = PackedDescriptor::in_table(address, len, self.flags);
            tables.write(index, descriptor);
        }
        (tables.address().offset(u64::from(base * entry)), bytes)
    }

    /// See [`Ring::publish`](ring::Ring::publish). The order is descriptors, barrier, the word
    /// that was held back, full barrier, what the device wrote about notifications (virtio 1.3,
    /// section 2.8.21): either the device sees the descriptors, or the driver sees that it must
    /// notify.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        while self.announced != self.added {
            self.shadow.announce(self.announced & (self.size - 1));
            self.announced = self.announced.wrapping_add(1);
        }
        let first = self.published;
        let at = WORDS * (first & (self.size - 1));
        barrier::publish();
        self.descriptors.write(at + 3, self.held.to_le());
        barrier::full();
        self.published = self.next;
        let event = u32::from_le(self.device_event.read(0));
        match event >> 16 & 3 {
            EVENTS_OFF => false,
            EVENT_AT if self.event_index => {
                // Both modulo two rounds. A place that lies behind is one that the device has
                // passed without naming a new one: QEMU goes on so after a frame for which its
                // backend had no room (`virtio_net_tx_complete` asks before it looks), and would
                // wait for ever. A doorbell too many costs little.
                let place = event & (EVENT_WRAP - 1);
                let round = if event & EVENT_WRAP != 0 {
                    0
                } else {
                    self.size
                };
                let distance = (place + round).wrapping_sub(first) & (2 * self.size - 1);
                distance < self.next.wrapping_sub(first) || distance >= self.size
            }
            _ => true,
        }
    }

    /// The last word of the descriptor at the next used position, if it is used.
    #[inline(always)]
    fn used_word(&self) -> Option<u32> {
        let at = WORDS * (self.used & (self.size - 1));
        let word = u32::from_le(self.descriptors.read(at + 3));
        let both = PACKED_AVAILABLE | PACKED_USED;
        let expected = if self.wrap(self.used) { both } else { 0 };
        ((word >> 16) as u16 & both == expected).then_some(word)
    }

    /// See [`Ring::take_used`](ring::Ring::take_used).
    #[inline(always)]
    pub(crate) fn take_used(&mut self) -> Result<Option<Used>, QueueError> {
        let (id, len) = match self.batch {
            Some(batch) => batch,
            None => match self.read_used()? {
                Some(read) => read,
                None => return Ok(None),
            },
        };
        let head = if self.in_order {
            self.shadow.posted_at(self.taken & (self.size - 1))
        } else {
            id
        };
        if !self.shadow.is_out(head) {
            return Err(QueueError::BadIndex { index: id });
        }
        let is_last = head == id;
        self.batch = (!is_last).then_some((id, len));
        let (token, count) = self.shadow.give_back(head);
        self.taken = self.taken.wrapping_add(1);
        self.used = self.used.wrapping_add(count);
        Ok(Some(Used {
            token,
            len: is_last.then_some(len),
        }))
    }

    /// Id and length of the next used descriptor, if there is one. The id has been checked.
    #[inline(always)]
    fn read_used(&self) -> Result<Option<(u32, u32)>, QueueError> {
        if self.used_word().is_none() {
            return Ok(None);
        }
        barrier::observe();
        let at = WORDS * (self.used & (self.size - 1));
        // Again: the device may write the id in another access than the flags.
        let word = u32::from_le(self.descriptors.read(at + 3));
        let id = word & 0xFFFF;
        if !self.shadow.is_out(id) {
            return Err(QueueError::BadIndex { index: id });
        }
        // The length is said to be reserved without the flag WRITE (virtio 1.3, section 2.8.4).
        // QEMU never sets that flag (`virtqueue_packed_fill_desc`) and Linux does not look at it.
        let len = u32::from_le(self.descriptors.read(at + 2));
        Ok(Some((id, len)))
    }

    /// See [`SplitRing::arm`](crate::split::SplitRing::arm).
    #[inline]
    pub(crate) fn arm(&mut self) -> bool {
        if self.event_index {
            self.driver_event.write(0, self.event_of(self.used));
            barrier::full();
        }
        self.used_word().is_some()
    }
}
