//! A buffer that the program writes, and loans of it.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::memory::Memory;
use super::watch::Patience;
use super::{PollingThread, ProtectError};

/// Bytes of an [`Arena`](super::Arena) that belong to the program, lent or not.
///
/// Dropped while lent, its pages go back to the arena with the last loan of them.
///
/// # Writing
/// Through the value: [`bytes_mut`](Self::bytes_mut) waits until no page of the range is lent,
/// [`try_bytes_mut`](Self::try_bytes_mut) says so instead.
///
/// Through [`as_ptr`](Self::as_ptr): as any memory, whenever one likes. A write to a page that is
/// lent sleeps in the processor's page fault until the page is released.
///
/// On the thread that polls the NIC, which says so by a [`PollingThread`], both go on at once, on
/// other pages that the program gets in the place of lent ones. What it writes is sent by copying
/// until the old ones have been released and come back.
pub struct Buffer {
    memory: Arc<Memory>,
    /// Offsets in the arena.
    bytes: Range<usize>,
}

impl Buffer {
    pub(crate) fn new(memory: Arc<Memory>, bytes: Range<usize>) -> Self {
        Self { memory, bytes }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no byte: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Offset of the first byte in the arena.
    #[must_use]
    pub fn arena_offset(&self) -> usize {
        self.bytes.start
    }

    /// The first byte, for reading and writing as long as the buffer exists.
    ///
    /// Who writes through it must not do so while slices of the same bytes are in use that were got
    /// from this buffer. Slices of a [`Lent`] do no harm, they are of other places. It can sleep
    /// until a release, see [`Buffer`].
    ///
    /// # Errors
    /// [`ProtectError::Polling`] on a [`PollingThread`] if the buffer is in huge pages that were set
    /// aside: there it would sleep for ever. It must not have the pointer from another thread then.
    pub fn as_ptr(&self) -> Result<NonNull<u8>, ProtectError> {
        self.memory.pointer(self.bytes.start)
    }

    fn first(&self) -> NonNull<u8> {
        // SAFETY: the bytes lie in the memory.
        unsafe { self.memory.at(self.bytes.start) }
    }

    /// The bytes, to read, lent or not.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the bytes are initialised (at first they are zero), and stay there as long as
        // `memory`. They change through `&mut self` only, or through `as_ptr`, where the writer
        // sees to it that there is no such slice.
        unsafe { std::slice::from_raw_parts(self.first().as_ptr(), self.len()) }
    }

    /// Lends bytes as they are now: no later write changes what the loan has, see [`Lent`]. Pages
    /// that are protected still, as nobody has written since they were lent the last time, cost
    /// no system call; others cost one call.
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`], [`ProtectError::Empty`], [`ProtectError::TooMany`],
    /// [`ProtectError::Away`], [`ProtectError::OverLimit`], [`ProtectError::HandlerGone`], or what the system said; nothing is
    /// lent then, and the bytes have to be copied.
    pub fn lend(&self, range: Range<usize>) -> Result<Lent, ProtectError> {
        let bytes = within(&self.bytes, &range)?;
        self.memory
            .watch
            .lend(self.memory.protector.shared(), &bytes)?;
        Ok(Lent::counted(&self.memory, bytes))
    }

    /// The bytes of a range, to write, when none of its pages is lent any more: sleeps until then.
    /// On a [`PollingThread`] it does not sleep: those that are lent stay so, and others take their
    /// place.
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`]; [`ProtectError::Lent`] on a [`PollingThread`] if there can be no
    /// others, as for huge pages that were set aside.
    pub fn bytes_mut(&mut self, range: Range<usize>) -> Result<&mut [u8], ProtectError> {
        self.writable(range, PollingThread::patience())
    }

    /// The bytes of a range, to write, if none of its pages is lent.
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`]; [`ProtectError::Lent`].
    pub fn try_bytes_mut(&mut self, range: Range<usize>) -> Result<&mut [u8], ProtectError> {
        self.writable(range, Patience::None)
    }

    fn writable(
        &mut self,
        range: Range<usize>,
        patience: Patience,
    ) -> Result<&mut [u8], ProtectError> {
        let bytes = match within(&self.bytes, &range) {
            Err(ProtectError::Empty) => return Ok(&mut []),
            bytes => bytes?,
        };
        self.memory.open(&bytes, patience)?;
        // SAFETY: the range lies in the memory.
        let first = unsafe { self.memory.at(bytes.start) };
        // SAFETY: the bytes are initialised and stay there as long as `memory`. Others get at this
        // address through this buffer only, which is borrowed, or `as_ptr`: what is lent is read at
        // another. Should it be lent while the slice is in use, a write sleeps, that is all.
        Ok(unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), bytes.len()) })
    }
}

/// A range of offsets into `whole`, as offsets into what that is of.
pub(crate) fn within(
    whole: &Range<usize>,
    range: &Range<usize>,
) -> Result<Range<usize>, ProtectError> {
    if range.start > range.end || range.end > whole.len() {
        return Err(ProtectError::OutOfRange);
    }
    if range.is_empty() {
        return Err(ProtectError::Empty);
    }
    Ok(whole.start + range.start..whole.start + range.end)
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.memory.retire(self.bytes.clone());
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes at {:#x})", self.len(), self.bytes.start)
    }
}

/// Bytes that are lent: they stay as they were when [`Buffer::lend`] returned, and their memory
/// stays, until this is dropped. Whoever tries to write to one of their pages meanwhile sleeps, and
/// goes on when the last loan of the page is dropped.
///
/// Forgotten (`mem::forget`), it is never released: the arena is never freed, and writers sleep for
/// ever.
pub struct Lent {
    memory: Arc<Memory>,
    bytes: Range<usize>,
}

impl Lent {
    pub(crate) fn new(memory: &Arc<Memory>, bytes: Range<usize>) -> Result<Self, ProtectError> {
        memory.watch.lend(memory.protector.shared(), &bytes)?;
        Ok(Self::counted(memory, bytes))
    }

    /// For bytes that have just been counted as lent.
    fn counted(memory: &Arc<Memory>, bytes: Range<usize>) -> Self {
        Self {
            memory: Arc::clone(memory),
            bytes,
        }
    }

    /// Lends a part of it once more (offsets into this loan), to be released by itself: the bytes
    /// that this loan has, whatever the program has written meanwhile. No system call.
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`], [`ProtectError::Empty`], [`ProtectError::TooMany`],
    /// [`ProtectError::HandlerGone`].
    pub fn lend_again(&self, range: Range<usize>) -> Result<Self, ProtectError> {
        let (bytes, shared) = (within(&self.bytes, &range)?, self.memory.protector.shared());
        self.memory.watch.lend_again(shared, &bytes)?;
        Ok(Self::counted(&self.memory, bytes))
    }

    /// Bytes lent.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no byte: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Offset of the first byte in the arena, or in the memory that was registered: what its address
    /// for the device is reckoned by.
    #[must_use]
    pub fn arena_offset(&self) -> usize {
        self.bytes.start
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in the memory.
        let first = unsafe { self.memory.lent_at(self.bytes.start) };
        // SAFETY: the bytes are initialised and stay there as long as `memory`. Nobody can write at
        // this address, unless it is the only one (see `MemoryKind::Huge`). Where the program has the same pages they are protected as long as they are
        // lent, also when the handler has died, or others are in their place: so the bytes change
        // neither by pointers nor by the slices of a `Buffer`.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.bytes.len()) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.memory.release(&self.bytes);
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({} bytes at {:#x})", self.len(), self.bytes.start)
    }
}
