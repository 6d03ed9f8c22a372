//! Buffers of our own for headers and for frames that are copied, in DMA memory.

use alloc::vec::Vec;
use core::num::NonZeroUsize;
use core::ptr::NonNull;

use crate::apart;
use crate::{Custody, DmaMemory, Granule, Run};

/// How many buffers a port has, of which size. Either kind may be missing (length or count 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolLayout {
    /// Bytes in a small buffer: room for the headers of a shared frame.
    pub small_len: usize,
    /// Small buffers.
    pub small_count: usize,
    /// Bytes in a large buffer: room for the longest frame that is copied.
    pub large_len: usize,
    /// Large buffers.
    pub large_count: usize,
    /// The unit in which pinned pages are counted: the page of the machine, or that in which
    /// memory is protected while it is lent.
    pub page: Granule,
}

/// A buffer of a port's pool, taken out to be filled. If it is dropped instead of posted or put
/// back, the pool has one less.
#[derive(Debug)]
#[must_use = "a buffer that is dropped is lost to its pool"]
pub struct FrameBuffer {
    pub(crate) pool: NonZeroUsize,
    large: bool,
    slot: u32,
}

/// Buffers of one size, in one piece of memory.
#[derive(Debug)]
struct Class<M: DmaMemory> {
    memory: Custody<M>,
    head_room: usize,
    len: usize,
    stride: usize,
    count: usize,
    vacant: Vec<u32>,
}

/// Buffers begin on their own cache line: what the CPU writes in one does not slow the device's
/// reading of the next.
const CACHE_LINE: usize = 64;

const fn stride(head_room: usize, len: usize) -> Option<usize> {
    match head_room.checked_add(len) {
        Some(bytes) => bytes.checked_next_multiple_of(CACHE_LINE),
        None => None,
    }
}

/// Bytes for `count` buffers.
const fn total(head_room: usize, len: usize, count: usize) -> Option<usize> {
    match stride(head_room, len) {
        Some(stride) => stride.checked_mul(count),
        None => None,
    }
}

impl<M: DmaMemory> Class<M> {
    fn new(memory: M, head_room: usize, len: usize, stride: usize) -> Self {
        let count = if len == 0 { 0 } else { memory.len() / stride };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut vacant = Vec::new();
        apart::make_room(&mut vacant, count as usize);
        vacant.extend((0..count).rev());
        Self {
            memory: Custody::new(memory),
            head_room,
            len,
            stride,
            count: count as usize,
            vacant,
        }
    }

    /// Offset of the first byte of the frame in the memory; `None` if there is no such slot.
    #[inline(always)]
    fn offset(&self, slot: u32) -> Option<usize> {
        let slot = slot as usize;
        (slot < self.count).then_some(slot * self.stride + self.head_room)
    }

    #[inline(always)]
    fn pointer(&self, slot: u32) -> Option<NonNull<u8>> {
        let offset = self.offset(slot)?;
        // SAFETY: `count` slots of `stride` bytes each lie in the memory, and the head room is
        // less than the stride.
        Some(unsafe { self.memory.memory().pointer().add(offset) })
    }
}

/// The two classes of buffers.
#[derive(Debug)]
pub(crate) struct Pool<M: DmaMemory> {
    id: NonZeroUsize,
    small: Class<M>,
    large: Class<M>,
}

impl PoolLayout {
    /// Bytes that small and large buffers need, for a device that wants `head_room` bytes;
    /// `None` if no memory has so many.
    #[must_use]
    pub(crate) fn bytes(&self, head_room: usize) -> Option<(usize, usize)> {
        Some((
            total(head_room, self.small_len, self.small_count)?,
            total(head_room, self.large_len, self.large_count)?,
        ))
    }
}

impl<M: DmaMemory> Pool<M> {
    /// `None` if no memory could hold a buffer of `layout`; the memory is then free again.
    pub(crate) fn new(
        id: NonZeroUsize,
        layout: &PoolLayout,
        head_room: usize,
        small: M,
        large: M,
    ) -> Option<Self> {
        let small_stride = stride(head_room, layout.small_len)?;
        let large_stride = stride(head_room, layout.large_len)?;
        Some(Self {
            id,
            small: Class::new(small, head_room, layout.small_len, small_stride),
            large: Class::new(large, head_room, layout.large_len, large_stride),
        })
    }

    /// A buffer of at least `len` bytes, the smallest that will do and is there.
    #[inline(always)]
    pub(crate) fn take(&mut self, len: usize) -> Option<FrameBuffer> {
        if len <= self.small.len
            && let Some(slot) = self.small.vacant.pop()
        {
            return Some(FrameBuffer {
                pool: self.id,
                large: false,
                slot,
            });
        }
        if len > self.large.len {
            return None;
        }
        let slot = self.large.vacant.pop()?;
        Some(FrameBuffer {
            pool: self.id,
            large: true,
            slot,
        })
    }

    #[inline(always)]
    pub(crate) fn put(&mut self, buffer: FrameBuffer) {
        if buffer.pool == self.id {
            self.class_mut(buffer.large).vacant.push(buffer.slot);
        }
    }

    #[inline(always)]
    fn class(&self, large: bool) -> &Class<M> {
        if large { &self.large } else { &self.small }
    }

    #[inline(always)]
    fn class_mut(&mut self, large: bool) -> &mut Class<M> {
        if large {
            &mut self.large
        } else {
            &mut self.small
        }
    }

    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self, buffer: &mut FrameBuffer) -> &mut [u8] {
        let class = self.class_mut(buffer.large);
        let Some(pointer) = class
            .pointer(buffer.slot)
            .filter(|_| buffer.pool == self.id)
        else {
            return &mut [];
        };
        let len = self.class(buffer.large).len;
        // SAFETY: `len` bytes follow in the slot, the memory is initialised (allocated zeroed),
        // and the slot is out of the pool in this one `FrameBuffer`, which is borrowed
        // exclusively: not posted, so no device reads it.
        unsafe { core::slice::from_raw_parts_mut(pointer.as_ptr(), len) }
    }

    /// The first `len` bytes of a buffer for the device, and their address for the CPU.
    #[inline(always)]
    pub(crate) fn run(&self, buffer: &FrameBuffer, len: usize) -> Option<(Run, NonNull<u8>)> {
        let class = self.class(buffer.large);
        if len > class.len || buffer.pool != self.id {
            return None;
        }
        let offset = class.offset(buffer.slot)?;
        let address = class.memory.memory().address().offset(offset as u64);
        Some((Run { address, len }, class.pointer(buffer.slot)?))
    }

    pub(crate) fn vacant(&self) -> (usize, usize) {
        (self.small.vacant.len(), self.large.vacant.len())
    }

    /// # Safety
    /// As [`Custody::set_quiet`].
    pub(crate) unsafe fn set_quiet(&mut self, quiet: bool) {
        // SAFETY: the caller's promise.
        unsafe { self.small.memory.set_quiet(quiet) };
        // SAFETY: the caller's promise.
        unsafe { self.large.memory.set_quiet(quiet) };
    }
}

#[cfg(all(test, feature = "alloc"))]
#[path = "pool_tests.rs"]
mod tests;
