//! A split ring: descriptor table, available ring, used ring (virtio 1.3, section 2.7).
//!
//! The three parts are three pieces of memory. The used ring is read in words of 32 bits: after
//! [`LEAD`] words comes one of flags and index, then two for each entry, and after the last entry
//! the index at which the device wants to be notified. The available ring is words of 16 bits: flags,
//! index, the entries, the index at which the driver wants to be interrupted.

use core::ptr::NonNull;

use pagewire_hal::{DescriptorRing, DeviceAddress, NicError, Platform, QueueError, barrier};

use crate::Features;
use crate::desc::{Descriptor, INDIRECT, NEXT};
use crate::ring::{self, Direction, Parts, TABLE_LEN, Used};
use crate::shadow::Shadow;

/// The device does not want to be notified.
const NO_NOTIFY: u32 = 1;

/// Words before the used ring in its memory. It may begin at any multiple of 4 bytes (virtio 1.3,
/// section 2.7), but an entry has 8. QEMU writes one that lies across the end of a page in two, and
/// behind an IOMMU that has no larger page there the second half goes astray: seen as a length of 0
/// in a guest. With one word before the flags no entry lies across a page's end.
const LEAD: u32 = 1;

/// Where the CPU finds the first word of a used ring.
#[derive(Clone, Copy)]
struct UsedWord(NonNull<u32>);

// SAFETY: it is an address, through which nothing is read here. The memory behind it is that of
// the ring's `DescriptorRing`, which is `Send` itself and stays where it is when it is moved.
unsafe impl Send for UsedWord {}

/// A split ring.
pub(crate) struct SplitRing<P: Platform> {
    table: DescriptorRing<P::Memory, Descriptor>,
    available: DescriptorRing<P::Memory, u16>,
    used: DescriptorRing<P::Memory, u32>,
    used_word: UsedWord,
    /// The indirect tables, that of descriptor i from index i · [`TABLE_LEN`] on.
    tables: Option<DescriptorRing<P::Memory, Descriptor>>,
    shadow: Shadow<P::Slots>,
    /// Of all pieces of a buffer but the last.
    flags: u16,
    /// Of the last piece.
    last_flags: u16,
    event_index: bool,
    in_order: bool,
    /// Buffers added, modulo 2^16.
    produced: u16,
    /// Buffers that the device was told of, modulo 2^16.
    published: u16,
    /// Buffers that came back, modulo 2^16.
    consumed: u16,
    /// In order: the head that the device named as the last of those it is done with, and the
    /// length it wrote.
    batch: Option<(u32, u32)>,
}

impl<P: Platform> SplitRing<P> {
    /// A ring of `size` descriptors, a power of two up to 32768, that the device has not been
    /// told of.
    pub(crate) fn new(
        platform: &mut P,
        size: u16,
        features: Features,
        direction: Direction,
    ) -> Result<Self, NicError> {
        let count = u32::from(size);
        let table = ring::memory(platform, count)?;
        let available = ring::memory(platform, count + 3)?;
        let (used, first) = ring::memory_at(platform, LEAD + 2 * count + 2)?;
        // SAFETY: the memory has more words than lie before the used ring.
        let used_word = unsafe { first.add(LEAD as usize) };
        let tables = if ring::has_tables(features, size, direction) {
            Some(ring::memory(platform, count * TABLE_LEN)?)
        } else {
            None
        };
        let (flags, last_flags) = direction.flags();
        Ok(Self {
            table,
            available,
            used,
            used_word: UsedWord(used_word),
            tables,
            shadow: Shadow::new(platform, size)?,
            flags,
            last_flags,
            event_index: features.contains(Features::EVENT_IDX),
            in_order: features.contains(Features::IN_ORDER),
            produced: 0,
            published: 0,
            consumed: 0,
            batch: None,
        })
    }

    /// Descriptors.
    pub(crate) fn size(&self) -> u32 {
        self.table.len()
    }

    /// Takes it that the device reaches the memory from now on, and empties the ring. The device
    /// is reset. Returns what it has to be told.
    pub(crate) fn prepare(&mut self) -> Parts {
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.set_quiet(false) };
        self.table.clear();
        self.available.clear();
        self.used.clear();
        self.empty();
        barrier::publish();
        Parts {
            descriptors: self.table.address(),
            driver: self.available.address(),
            device: self.used.address().offset(4 * u64::from(LEAD)),
        }
    }

    fn empty(&mut self) {
        self.shadow.reset();
        self.produced = 0;
        self.published = 0;
        self.consumed = 0;
        self.batch = None;
    }

    /// Hands back the tokens of all buffers, each once.
    ///
    /// # Safety
    /// The device is quiet.
    pub(crate) unsafe fn drain(&mut self, released: &mut dyn FnMut(u32)) {
        let mut from = 0;
        while let Some(token) = self.shadow.give_back_any(&mut from) {
            released(token);
        }
        self.empty();
    }

    /// Says whether the memory may be freed on drop.
    ///
    /// # Safety
    /// `true` only if the device is quiet and is not told of the ring again before
    /// [`prepare`](Self::prepare).
    pub(crate) unsafe fn set_quiet(&mut self, quiet: bool) {
        // SAFETY: the caller's promise, here and below.
        unsafe { self.table.set_quiet(quiet) };
        // SAFETY: as above.
        unsafe { self.available.set_quiet(quiet) };
        // SAFETY: as above.
        unsafe { self.used.set_quiet(quiet) };
        if let Some(tables) = &mut self.tables {
            // SAFETY: as above.
            unsafe { tables.set_quiet(quiet) };
        }
    }

    pub(crate) fn used_word(&self) -> NonNull<u32> {
        self.used_word.0
    }

    #[inline(always)]
    pub(crate) fn progress(&self) -> (u32, u32) {
        (u32::from(self.published), u32::from(self.consumed))
    }

    /// Buffers that are out.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        self.shadow.outstanding() as usize
    }

    #[inline(always)]
    fn is_indirect(&self, pieces: usize) -> bool {
        self.tables.is_some() && ring::fits_table(pieces)
    }

    /// Whether a buffer of so many pieces can be added now.
    #[inline(always)]
    pub(crate) fn has_room(&self, pieces: usize) -> bool {
        let needed = if self.is_indirect(pieces) { 1 } else { pieces };
        needed <= self.shadow.free() as usize && pieces <= self.size() as usize
    }

    /// See [`Ring::add`](ring::Ring::add).
    #[inline(always)]
    pub(crate) fn add(
        &mut self,
        pieces: impl ExactSizeIterator<Item = (DeviceAddress, u32)>,
        token: u32,
    ) {
        let count = pieces.len();
        let head = self.shadow.first();
        let (last, len) = if self.is_indirect(count) {
            self.write_table(head, pieces);
            (head, 1)
        } else {
            (self.write_chain(head, pieces), count as u32)
        };
        let place = u32::from(self.produced) & (self.size() - 1);
        self.available.write(2 + place, head.to_le());
        self.shadow.take(last, len, place, token);
        self.produced = self.produced.wrapping_add(1);
    }

    /// Returns the index of the last descriptor.
    #[inline(always)]
    fn write_chain(
        &mut self,
        head: u16,
        pieces: impl ExactSizeIterator<Item = (DeviceAddress, u32)>,
    ) -> u16 {
        let (mut index, mut last) = (head, head);
        let mut left = pieces.len();
        for (address, len) in pieces {
            left -= 1;
            let next = self.shadow.next(index);
            let flags = if left > 0 {
                self.flags | NEXT
            } else {
                self.last_flags
            };
            let descriptor = Descriptor::new(address, len, flags, next);
            self.table.write(u32::from(index), descriptor);
            last = index;
            index = next;
        }
        last
    }

    #[inline(always)]
    fn write_table(
        &mut self,
        head: u16,
        pieces: impl ExactSizeIterator<Item = (DeviceAddress, u32)>,
    ) {
        let Some(tables) = &mut self.tables else {
            return;
        };
        let base = u32::from(head) * TABLE_LEN;
        let count = pieces.len() as u32;
        for (index, (address, len)) in (0u32..).zip(pieces) {
            let next = index + 1;
            let (more, next) = if next < count {
                (NEXT, next as u16)
            } else {
                (0, 0)
            };
            let descriptor = Descriptor::new(address, len, self.flags | more, next);
            tables.write(base + index, descriptor);
        }
        let entry = size_of::<Descriptor>() as u32;
        let address = tables.address().offset(u64::from(base * entry));
        let descriptor = Descriptor::new(address, count * entry, INDIRECT, 0);
        self.table.write(u32::from(head), descriptor);
    }

    /// Whether there are buffers that the device was not told of.
    #[inline]
    pub(crate) fn has_unpublished(&self) -> bool {
        self.published != self.produced
    }

    /// See [`Ring::publish`](ring::Ring::publish). The order is descriptors and entries, barrier,
    /// index, full barrier, what the device wrote about notifications (virtio 1.3, section
    /// 2.7.13): either the device sees the new index, or the driver sees that it must notify.
    #[inline]
    pub(crate) fn publish(&mut self) -> bool {
        let old = self.published;
        let mask = self.size() - 1;
        while self.published != self.produced {
            self.shadow.announce(u32::from(self.published) & mask);
            self.published = self.published.wrapping_add(1);
        }
        barrier::publish();
        self.available.write(1, self.produced.to_le());
        barrier::full();
        if self.event_index {
            let event = u32::from_le(self.used.read(LEAD + 1 + 2 * self.size())) as u16;
            is_event_due(event, self.produced, old)
        } else {
            u32::from_le(self.used.read(LEAD)) & NO_NOTIFY == 0
        }
    }

    /// How many buffers the device says to be done with that did not come back yet.
    #[inline(always)]
    fn pending(&self) -> u16 {
        let index = (u32::from_le(self.used.read(LEAD)) >> 16) as u16;
        index.wrapping_sub(self.consumed)
    }

    /// The next buffer that the device is done with. It is out of the ring before this returns.
    ///
    /// # Errors
    /// [`QueueError::BadIndex`] if the device names what it does not have (rule 7).
    #[inline(always)]
    pub(crate) fn take_used(&mut self) -> Result<Option<Used>, QueueError> {
        let pending = self.pending();
        if pending == 0 {
            return match self.batch {
                None => Ok(None),
                // It named a buffer that its index says it is not done with.
                Some((index, _)) => Err(QueueError::BadIndex { index }),
            };
        }
        if u32::from(pending) > self.shadow.outstanding() {
            let index = u32::from(self.consumed.wrapping_add(pending));
            return Err(QueueError::BadIndex { index });
        }
        barrier::observe();
        let used = if self.in_order {
            self.take_in_order()?
        } else {
            let (id, len) = self.read_entry()?;
            let (token, _) = self.shadow.give_back(id);
            Used {
                token,
                len: Some(len),
            }
        };
        self.consumed = self.consumed.wrapping_add(1);
        Ok(Some(used))
    }

    /// The used entry at the next place, whose id has been checked.
    #[inline(always)]
    fn read_entry(&self) -> Result<(u32, u32), QueueError> {
        let place = u32::from(self.consumed) & (self.size() - 1);
        let id = u32::from_le(self.used.read(LEAD + 1 + 2 * place));
        if !self.shadow.is_out(id) {
            return Err(QueueError::BadIndex { index: id });
        }
        Ok((id, u32::from_le(self.used.read(LEAD + 2 + 2 * place))))
    }

    /// The oldest buffer. The device may write one entry for many buffers, at the place of the
    /// first of them with the id of the last (virtio 1.3, section 2.7.9).
    #[inline]
    fn take_in_order(&mut self) -> Result<Used, QueueError> {
        let (id, len) = match self.batch {
            Some(batch) => batch,
            None => self.read_entry()?,
        };
        let head = self
            .shadow
            .posted_at(u32::from(self.consumed) & (self.size() - 1));
        if !self.shadow.is_out(head) {
            return Err(QueueError::BadIndex { index: id });
        }
        let is_last = head == id;
        self.batch = (!is_last).then_some((id, len));
        let (token, _) = self.shadow.give_back(head);
        Ok(Used {
            token,
            len: is_last.then_some(len),
        })
    }

    /// Asks for an interrupt when the next buffer is done. Returns whether there is one already,
    /// for which none may come.
    #[inline]
    pub(crate) fn arm(&mut self) -> bool {
        if self.event_index {
            self.available.write(2 + self.size(), self.consumed.to_le());
            barrier::full();
        }
        self.pending() != 0
    }
}

/// Whether moving an index from `old` to `new` passes the place after `event`, all modulo 2^16
/// (virtio 1.3, section 2.7.10).
#[inline(always)]
const fn is_event_due(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::is_event_due;

    #[test]
    fn an_event_is_due_when_the_index_passes_it() {
        for start in [0u16, 5, 65_530, 65_535] {
            let at = |n: u16| start.wrapping_add(n);
            assert!(is_event_due(at(0), at(1), at(0)), "start {start}");
            assert!(is_event_due(at(3), at(4), at(0)), "start {start}");
            assert!(!is_event_due(at(4), at(4), at(0)), "start {start}");
            assert!(!is_event_due(at(u16::MAX), at(4), at(0)), "start {start}");
        }
    }
}
