//! A receive ring of descriptors that each have a buffer, and that the device gets back by a tail.

use core::cell::Cell;
use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Buffers, ETHERNET_HEADER};
use crate::{
    DescriptorRing, DeviceAddress, DmaMemory, NicError, Platform, QueueError, RxChecksum,
    RxCounters, RxFrame, RxHash, barrier,
};

/// What a receive ring must know of a descriptor. What the device has written is read once, into
/// the copy that these methods look at.
pub trait ReceiveDescriptor: FromBytes + IntoBytes + Immutable + Copy {
    /// One for an empty buffer at `address`.
    fn empty(address: DeviceAddress) -> Self;

    /// Whether the device has filled the buffer.
    fn is_done(self) -> bool;

    /// Whether a frame ends in the buffer.
    fn is_end(self) -> bool;

    /// Whether the frame was damaged on the wire.
    fn is_damaged(self) -> bool;

    /// Bytes in the buffer, as the device says.
    fn frame_len(self) -> u32;

    /// The hash of the packet, if the device gives one: it does not by default.
    #[inline(always)]
    fn hash(self) -> Option<RxHash> {
        None
    }
}

/// A receive ring whose device fills the descriptors in turn and marks each as done.
///
/// A buffer holds the largest frame, so a frame is one descriptor; what is longer is dropped. A
/// descriptor goes back to the device as soon as its frame has been looked at, all of a call
/// with one write of the tail. One descriptor always stays with us, for devices that take equal
/// head and tail for an empty ring.
///
/// One thread uses it at a time. Its memory is in [`Custody`](crate::Custody).
#[derive(Debug)]
pub struct RxRing<M: DmaMemory, D> {
    ring: DescriptorRing<M, D>,
    buffers: Buffers<M>,
    /// Index of the next descriptor that the device fills.
    next: u32,
    /// Descriptors looked at and not yet given back.
    taken: u32,
    /// The middle of a frame that is longer than a buffer has been seen.
    in_long_frame: bool,
    counters: RxCounters,
    down: bool,
    /// `Cell` is not `Sync`: a queue has one user at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl<M: DmaMemory, D: ReceiveDescriptor> RxRing<M, D> {
    /// A ring of `count` descriptors, aligned to `align` bytes, with buffers of `buffer_len`
    /// bytes, all powers of two, that the device has not been told of. It is down.
    ///
    /// # Errors
    /// What the platform said, or [`NicError::Config`] if its memory does not fit.
    pub fn new<P: Platform<Memory = M>>(
        platform: &mut P,
        count: u16,
        align: usize,
        buffer_len: u32,
    ) -> Result<Self, NicError> {
        let count = u32::from(count);
        Ok(Self {
            ring: DescriptorRing::allocate(platform, count, align)?,
            buffers: Buffers::new(platform, count, buffer_len)?,
            next: 0,
            taken: 0,
            in_long_frame: false,
            counters: RxCounters::default(),
            down: true,
            not_sync: PhantomData,
        })
    }

    /// Empties all buffers; the device, reset and stopped, is to be told of the ring next, with
    /// head and tail at 0. It gets no buffer before its tail is [`last`](Self::last).
    pub fn prepare(&mut self) {
        // SAFETY: saying "not quiet" only keeps memory longer.
        unsafe { self.ring.set_quiet(false) };
        // SAFETY: as above.
        unsafe { self.buffers.set_quiet(false) };
        self.next = 0;
        self.taken = 0;
        self.in_long_frame = false;
        for index in 0..self.ring.len() {
            let empty = self.empty_descriptor(index);
            self.ring.write(index, empty);
        }
        barrier::publish();
        self.down = false;
    }

    /// Stops the queue until it is [prepared](Self::prepare) again.
    pub fn stop(&mut self) {
        self.down = true;
    }

    /// Lets the memory be freed on drop.
    ///
    /// # Safety
    /// The device is quiet (bus mastering is off and nothing is pending) and is not told of the
    /// ring again before [`prepare`](Self::prepare) was called.
    pub unsafe fn set_quiet(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.ring.set_quiet(true) };
        // SAFETY: the caller's promise.
        unsafe { self.buffers.set_quiet(true) };
    }

    /// Where the device finds the ring.
    #[must_use]
    pub fn address(&self) -> DeviceAddress {
        self.ring.address()
    }

    /// Bytes of the ring, for the length register.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        self.ring.bytes()
    }

    /// Index of the last descriptor: the tail that gives a device that has none all buffers but
    /// one.
    #[must_use]
    pub const fn last(&self) -> u32 {
        self.ring.len() - 1
    }

    /// Where the device finds buffer `index`, and of which length.
    #[must_use]
    pub fn buffer(&self, index: u32) -> (DeviceAddress, u32) {
        (self.buffers.address(index), self.buffers.len())
    }

    /// Whether the queue is stopped.
    #[must_use]
    #[inline(always)]
    pub const fn is_down(&self) -> bool {
        self.down
    }

    /// What was handed over, and dropped.
    #[must_use]
    pub const fn counters(&self) -> RxCounters {
        self.counters
    }

    /// Index of the next descriptor that the device fills, for messages.
    #[must_use]
    pub const fn next(&self) -> u32 {
        self.next
    }

    #[inline(always)]
    fn empty_descriptor(&self, index: u32) -> D {
        D::empty(self.buffers.address_below(index))
    }

    /// The next descriptor if the device has filled it, and its index. It is empty again after
    /// this, but the device does not get it before [`give_back`](Self::give_back).
    #[inline(always)]
    fn take(&mut self) -> Option<(u32, D)> {
        // Of `len` descriptors the device has `len - 1`. A device that fills those that it
        // does not have could keep the caller here for ever.
        if self.taken >= self.ring.len() - 1 || !self.ring.read(self.next).is_done() {
            return None;
        }
        barrier::observe();
        let index = self.next;
        let descriptor = self.ring.read(index);
        let empty = self.empty_descriptor(index);
        self.ring.write(index, empty);
        self.next = index.wrapping_add(1) & (self.ring.len() - 1);
        self.taken += 1;
        Some((index, descriptor))
    }

    /// The length of the frame if it is to be delivered. Counts it either way.
    #[inline]
    fn judge(&mut self, descriptor: D) -> Option<usize> {
        if !descriptor.is_end() {
            if !self.in_long_frame {
                self.counters.too_long += 1;
            }
            self.in_long_frame = true;
            return None;
        }
        if core::mem::take(&mut self.in_long_frame) {
            return None;
        }
        if descriptor.is_damaged() {
            self.counters.damaged += 1;
            return None;
        }
        let len = descriptor.frame_len();
        if len < ETHERNET_HEADER || len > self.buffers.len() {
            self.counters.nonsense += 1;
            return None;
        }
        self.counters.delivered += 1;
        Some(len as usize)
    }

    /// Gives what was taken back to the device.
    #[inline]
    fn give_back(&mut self, write_tail: impl FnOnce(u32)) {
        if self.taken == 0 {
            return;
        }
        barrier::publish();
        write_tail(self.next.wrapping_sub(1) & (self.ring.len() - 1));
        self.taken = 0;
    }

    /// As [`RxQueue::receive`](crate::RxQueue::receive). `checksum` says what the device wrote of
    /// a frame's checksums, and `write_tail` tells the device which descriptor is the first that
    /// is not its own: it is called once at the end, if at all.
    ///
    /// # Errors
    /// [`QueueError::Down`].
    #[inline]
    pub fn receive(
        &mut self,
        budget: usize,
        frame: &mut impl FnMut(RxFrame<'_>),
        checksum: impl Fn(D) -> RxChecksum,
        write_tail: impl FnOnce(u32),
    ) -> Result<usize, QueueError> {
        if self.down {
            return Err(QueueError::Down);
        }
        let mut count = 0;
        while count < budget {
            let Some((index, descriptor)) = self.take() else {
                break;
            };
            let Some(len) = self.judge(descriptor) else {
                continue;
            };
            let pointer = self.buffers.pointer(index);
            // SAFETY: `judge` checked that `len` bytes are in the buffer, which `self.buffers`
            // keeps while `self` is borrowed.
            let received = unsafe { RxFrame::new(pointer, len, checksum(descriptor)) };
            frame(received.with_hash(descriptor.hash()));
            count += 1;
        }
        self.give_back(write_tail);
        Ok(count)
    }
}
