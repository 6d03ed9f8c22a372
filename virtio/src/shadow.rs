//! What the driver remembers of its descriptors, in memory that the device does not reach: which
//! are free, which belong to a frame, and that frame's token.
//!
//! In a packed ring what is listed here are buffer ids, of which there are as many as descriptors;
//! a buffer takes one id, and a number of descriptors that is counted only.
//!
//! Free descriptors are a list, first in, first out. With a device that completes in order the
//! list so keeps the order of the ring, as IN_ORDER demands (virtio 1.3, section 2.7.5), and
//! nothing has to be done for it.

use pagewire_hal::{NicError, Platform};

/// Word of a descriptor: the next one of its chain, or of the free list, in bits 15:0.
const NEXT_MASK: u64 = 0xFFFF;
/// Of the head of a chain: its last descriptor.
const LAST_SHIFT: u32 = 16;
/// Of the head of a chain: how many descriptors it has.
const LEN_SHIFT: u32 = 32;
/// Is the head of a chain that is out.
const HEAD: u64 = 1 << 48;
/// The device has been told of it.
const ANNOUNCED: u64 = 1 << 49;
/// Second word: token in bits 31:0, above it, at the index of a place in the order of posting,
/// the head that was posted there.
const ORDER_SHIFT: u32 = 32;
const TOKEN_MASK: u64 = 0xFFFF_FFFF;

/// How many entries of the list are from `head` to `last`, which have `len` descriptors.
#[inline(always)]
const fn listed(head: u32, last: u32, len: u32) -> u32 {
    if head == last { 1 } else { len }
}

/// The books of one ring.
pub(crate) struct Shadow<S> {
    slots: S,
    size: u32,
    free: u32,
    /// Entries of the free list.
    listed: u32,
    first: u16,
    last: u16,
    outstanding: u32,
}

impl<S: AsRef<[u64]> + AsMut<[u64]>> Shadow<S> {
    /// Books of `size` descriptors, a power of two up to 32768, all free.
    pub(crate) fn new<P: Platform<Slots = S>>(
        platform: &mut P,
        size: u16,
    ) -> Result<Self, NicError> {
        let size = u32::from(size);
        let slots = platform.slots(2 * size as usize)?;
        if slots.as_ref().len() < 2 * size as usize {
            return Err(NicError::Config {
                what: "the platform's memory for what a ring has to remember does not fit it",
            });
        }
        let mut shadow = Self {
            slots,
            size,
            free: 0,
            listed: 0,
            first: 0,
            last: 0,
            outstanding: 0,
        };
        shadow.reset();
        Ok(shadow)
    }

    /// All descriptors are free, in the order of the ring.
    pub(crate) fn reset(&mut self) {
        let mask = self.size - 1;
        for index in 0..self.size {
            self.set(index, u64::from((index + 1) & mask));
            self.set(self.size + index, 0);
        }
        self.free = self.size;
        self.listed = self.size;
        self.first = 0;
        self.last = mask as u16;
        self.outstanding = 0;
    }

    #[inline(always)]
    fn get(&self, index: u32) -> u64 {
        let word = self.slots.as_ref().get(index as usize);
        word.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn set(&mut self, index: u32, word: u64) {
        if let Some(slot) = self.slots.as_mut().get_mut(index as usize) {
            *slot = word;
        }
    }

    /// Free descriptors.
    #[inline(always)]
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// Chains that are out.
    #[inline(always)]
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// The first free descriptor, if there is one.
    #[inline(always)]
    pub(crate) fn first(&self) -> u16 {
        self.first
    }

    /// The descriptor after `index`, which is free or in a chain.
    #[inline(always)]
    pub(crate) fn next(&self, index: u16) -> u16 {
        (self.get(u32::from(index)) & NEXT_MASK) as u16
    }

    /// Takes the free descriptors from the first to `last`, `len` of them, for a chain. It is the
    /// one at `place` in the order of posting. Of ids one is taken, which is `last` as well, for
    /// `len` descriptors.
    #[inline(always)]
    pub(crate) fn take(&mut self, last: u16, len: u32, place: u32, token: u32) {
        let head = u32::from(self.first);
        let word = self.get(head) & NEXT_MASK
            | u64::from(last) << LAST_SHIFT
            | u64::from(len) << LEN_SHIFT
            | HEAD;
        let after = self.next(last);
        self.set(head, word);
        let second = self.size + head;
        self.set(second, self.get(second) & !TOKEN_MASK | u64::from(token));
        let order = self.size + place;
        let kept = self.get(order) & TOKEN_MASK;
        self.set(order, kept | u64::from(head) << ORDER_SHIFT);
        self.first = after;
        self.free -= len;
        self.listed -= listed(head, u32::from(last), len);
        self.outstanding += 1;
    }

    /// The head that was posted at `place`.
    #[inline(always)]
    pub(crate) fn posted_at(&self, place: u32) -> u32 {
        (self.get(self.size + place) >> ORDER_SHIFT) as u32
    }

    /// The device is told of the chain that was posted at `place`.
    #[inline(always)]
    pub(crate) fn announce(&mut self, place: u32) {
        let head = self.posted_at(place);
        self.set(head, self.get(head) | ANNOUNCED);
    }

    /// Whether `id`, as a device wrote it, is a chain that it was told of and that is out.
    #[inline(always)]
    pub(crate) fn is_out(&self, id: u32) -> bool {
        let both = HEAD | ANNOUNCED;
        id < self.size && self.get(id) & both == both
    }

    /// Takes the chain at `head`, which is out, back; its descriptors are free. Returns its
    /// token and its length in descriptors.
    #[inline(always)]
    pub(crate) fn give_back(&mut self, head: u32) -> (u32, u32) {
        let word = self.get(head);
        let last = (word >> LAST_SHIFT & NEXT_MASK) as u16;
        let len = (word >> LEN_SHIFT & NEXT_MASK) as u32;
        self.set(head, word & NEXT_MASK);
        if self.listed == 0 {
            self.first = head as u16;
        } else {
            let end = u32::from(self.last);
            self.set(end, self.get(end) & !NEXT_MASK | u64::from(head));
        }
        self.last = last;
        self.free += len;
        self.listed += listed(head, u32::from(last), len);
        self.outstanding = self.outstanding.saturating_sub(1);
        ((self.get(self.size + head) & TOKEN_MASK) as u32, len)
    }

    /// Takes some chain back, whether or not the device was told of it, and returns its token.
    /// `from` is where to look first; what is below it is not looked at.
    pub(crate) fn give_back_any(&mut self, from: &mut u32) -> Option<u32> {
        while *from < self.size {
            let head = *from;
            *from += 1;
            if self.get(head) & HEAD != 0 {
                return Some(self.give_back(head).0);
            }
        }
        None
    }
}
