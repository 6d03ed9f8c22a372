//! Bytes that are kept while their page may be written.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::buffer::within;
use super::memory::Memory;
use super::{Lent, ProtectError};

/// Bytes as they were when [`Buffer::keep`](super::Buffer::keep) returned, until this is dropped;
/// but not always in the same place, so there is no slice of them.
///
/// [`lend`](Self::lend) yields the bytes where they are, for a frame or for reading. Whoever writes
/// to one of the pages waits for those loans only. What the page had goes to the pages that the
/// arena has set aside for old bytes, once for all who keep it, and is found there by frames that
/// are lent later; then the writer goes on. If there is no such page left, it waits until the page
/// is neither lent nor kept.
///
/// Forgotten, it is never let go.
pub struct Kept {
    memory: Arc<Memory>,
    bytes: Range<usize>,
    since: u64,
}

impl Kept {
    pub(crate) fn new(memory: &Arc<Memory>, bytes: Range<usize>) -> Result<Self, ProtectError> {
        let since = memory.watch.keep(memory.protector.shared(), &bytes)?;
        Ok(Self {
            memory: Arc::clone(memory),
            bytes,
            since,
        })
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all has been trimmed away.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Lends the first bytes of a range (offsets into what is kept), as far as they lie in one
    /// place: at least one byte, at most all. [`Lent::arena_offset`] says where that is. No system
    /// call.
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`], [`ProtectError::Empty`], [`ProtectError::TooMany`].
    pub fn lend(&self, range: Range<usize>) -> Result<Lent, ProtectError> {
        let bytes = within(&self.bytes, &range)?;
        let place = self.memory.watch.lend_kept(&bytes, self.since)?;
        Ok(Lent::counted(&self.memory, place))
    }

    /// Copies bytes from `offset` on, as many as `into` has.
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`], [`ProtectError::TooMany`].
    pub fn copy_to(&self, offset: usize, into: &mut [u8]) -> Result<(), ProtectError> {
        let end = offset.checked_add(into.len());
        let end = end.ok_or(ProtectError::OutOfRange)?;
        if offset > self.len() || end > self.len() {
            return Err(ProtectError::OutOfRange);
        }
        let mut rest = into;
        while !rest.is_empty() {
            let lent = self.lend(end - rest.len()..end)?;
            let (now, later) = rest.split_at_mut(lent.len().min(rest.len()));
            now.copy_from_slice(lent.bytes());
            rest = later;
        }
        Ok(())
    }

    /// Lets the first `len` bytes go (all, if there are fewer), which have been acknowledged: their
    /// pages, but for one in which the rest begins.
    pub fn trim_front(&mut self, len: usize) {
        let old = self.bytes.clone();
        let start = old.start + len.min(old.len());
        self.bytes.start = start;
        let gone = if start == old.end {
            start
        } else {
            start - start % self.memory.page()
        };
        if gone > old.start {
            self.memory.let_go(&(old.start..gone), self.since);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.memory.let_go(&self.bytes, self.since);
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes at {:#x})", self.len(), self.bytes.start)
    }
}
