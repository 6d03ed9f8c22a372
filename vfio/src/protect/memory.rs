//! Memory that is handed out as buffers, and that can be lent while the program keeps it.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use super::twin::Twin;
use super::watch::{Patience, Watch};
use super::{Buffer, PollingThread, ProtectError, Protector};
use crate::pages::{HUGE, Pages};
use crate::ranges::Ranges;
use crate::space::lock;

/// What an arena is made of.
pub(crate) struct Layout {
    /// Bytes.
    pub(crate) len: usize,
    /// What is protected by itself, in bytes.
    pub(crate) page: usize,
}

/// Memory of our own, handed out as buffers. A child process does not get it (`MADV_DONTFORK`).
///
/// It has two addresses: buffers are written at one, and lent from the other, which can only be read.
/// That is the one that a device is given, for reading, at any time.
///
/// Clones are the same memory, which is freed when the last clone is dropped, with the last buffer
/// and the last loan. So whoever maps it for a device keeps a clone for as long as it is mapped.
#[derive(Clone, Debug)]
pub struct Arena {
    memory: Arc<Memory>,
}

impl Arena {
    pub(crate) fn new(protector: &Protector, layout: Layout) -> Result<Self, ProtectError> {
        let Layout { len, page } = layout;
        if len == 0 {
            return Err(ProtectError::Empty);
        }
        let no_memory = |errno| ProtectError::system("cannot get memory to be lent", errno);
        let len = len.checked_next_multiple_of(page);
        let len = len.ok_or(no_memory(rustix::io::Errno::NOMEM))?;
        let pages = if page == HUGE {
            Pages::shared_huge(len)
        } else {
            Pages::shared(len)
        };
        let pages = pages.map_err(no_memory)?;
        let twin = Twin::new(&pages, len).map_err(no_memory)?;
        // SAFETY: the pages are ours; `Memory` unmaps them after it has closed the watch.
        let watch = unsafe { Watch::new(protector.shared(), twin, page) }?;
        let places = Places {
            free: Ranges::new([0..=len as u64 - 1], page as u64),
            orphans: Vec::new(),
        };
        let memory = Memory::new(protector, watch, places, Box::new(pages));
        Ok(Self {
            memory: Arc::new(memory),
        })
    }

    /// A buffer of `len` bytes, in pages of its own. What an earlier buffer there has left in them
    /// is still there; at first they are zero.
    ///
    /// # Errors
    /// [`ProtectError::Empty`] or [`ProtectError::NoRoom`].
    pub fn buffer(&self, len: usize) -> Result<Buffer, ProtectError> {
        if len == 0 {
            return Err(ProtectError::Empty);
        }
        let page = self.page();
        let mut places = lock(&self.memory.places);
        let room = len.checked_next_multiple_of(page).unwrap_or(usize::MAX);
        let start = places.free.take(room as u64, page as u64, 0, u64::MAX);
        let start = start.ok_or(ProtectError::NoRoom {
            wanted: room as u64,
            longest: places.free.longest(),
        })?;
        drop(places);
        let start = start as usize;
        Ok(Buffer::new(Arc::clone(&self.memory), start..start + len))
    }

    /// The first byte of what is lent, for reading only, by a device mapping: what a loan has is at
    /// its [`Lent::arena_offset`](super::Lent::arena_offset) from here.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.memory.watch.twin().home()
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where buffers are written.
    #[cfg(test)]
    pub(crate) fn program(&self) -> NonNull<u8> {
        self.memory.watch.twin().program()
    }

    /// Bytes for a device mapping, in whole pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.watch.twin().len()
    }

    /// Whether there is no byte: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is protected by itself, in bytes: a page of the system, or a huge page.
    #[must_use]
    pub fn page(&self) -> usize {
        self.memory.watch.page()
    }

    /// Whether somebody waits, or has tried in vain, to write to a page that is lent still: a load,
    /// without any order, so that it can be asked often.
    #[must_use]
    pub fn has_wanted(&self) -> bool {
        self.memory.watch.has_wanted()
    }

    /// Tells the pages that are lent and that somebody waits, or has tried in vain, to write, in
    /// runs, as offsets into the arena. Their loans may be dropped by `each`, or by others meanwhile.
    pub fn wanted(&self, each: &mut dyn FnMut(Range<usize>)) {
        self.memory.watch.wanted(each);
    }

    /// Bytes that are not in a buffer, nor still lent of one that is gone.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        let places = lock(&self.memory.places);
        let lengths = places.free.iter().map(|free| free.end() - free.start() + 1);
        lengths.sum()
    }
}

/// Memory that is watched, shared by all that can reach it.
pub(crate) struct Memory {
    pub(crate) watch: Arc<Watch>,
    places: Mutex<Places>,
    pub(crate) protector: Protector,
    /// Who has it mapped: dropped after `drop`.
    _owner: Box<dyn Send + Sync>,
}

/// Offsets, and to whom they belong.
#[derive(Default)]
pub(crate) struct Places {
    free: Ranges,
    /// Of buffers that are gone, with loans that are not.
    orphans: Vec<Range<usize>>,
}

impl Memory {
    pub(crate) fn new(
        protector: &Protector,
        watch: Arc<Watch>,
        places: Places,
        owner: Box<dyn Send + Sync>,
    ) -> Self {
        Self {
            watch,
            places: Mutex::new(places),
            protector: protector.clone(),
            _owner: owner,
        }
    }

    /// The byte at an offset, for the program to read and write.
    ///
    /// # Safety
    /// The offset is at most the length.
    pub(crate) unsafe fn at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        unsafe { self.watch.twin().program().byte_add(offset) }
    }

    /// The byte at an offset, to read while it is lent.
    ///
    /// # Safety
    /// The offset is at most the length.
    pub(crate) unsafe fn lent_at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        unsafe { self.watch.twin().home().byte_add(offset) }
    }

    /// As [`at`](Self::at), for writing by pointer, which is refused on a thread that would sleep for
    /// ever.
    pub(crate) fn pointer(&self, offset: usize) -> Result<NonNull<u8>, ProtectError> {
        let twin = self.watch.twin();
        if PollingThread::is_here() && !twin.can_depart() {
            return Err(ProtectError::Polling);
        }
        let offset = offset.min(twin.len());
        // SAFETY: it is at most the length.
        Ok(unsafe { self.at(offset) })
    }

    /// Makes bytes writable where the program has them.
    pub(crate) fn open(
        &self,
        bytes: &Range<usize>,
        patience: Patience,
    ) -> Result<(), ProtectError> {
        if self.watch.open(self.protector.shared(), bytes, patience) {
            Ok(())
        } else {
            Err(ProtectError::Lent)
        }
    }

    /// Takes back what a loan had.
    pub(crate) fn release(&self, bytes: &Range<usize>) {
        self.watch.release(self.protector.shared(), bytes);
        let mut places = lock(&self.places);
        if !places.orphans.is_empty() {
            let orphans = std::mem::take(&mut places.orphans);
            for orphan in orphans {
                self.settle(&mut places, orphan);
            }
        }
    }

    /// Takes back a buffer.
    pub(crate) fn retire(&self, bytes: Range<usize>) {
        self.settle(&mut lock(&self.places), bytes);
    }

    /// Frees the pages of a buffer that is gone, or leaves them until they are lent no more.
    fn settle(&self, places: &mut Places, bytes: Range<usize>) {
        if self.watch.is_lent(&bytes) {
            places.orphans.push(bytes);
            return;
        }
        let room = bytes.len().next_multiple_of(self.watch.page());
        if !places.free.put(bytes.start as u64, room as u64) {
            log::error!(
                "a buffer at {:#x} belonged to nobody: it leaks",
                bytes.start
            );
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.watch.close(self.protector.shared());
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watch = &self.watch;
        write!(
            f,
            "{} bytes in pages of {}",
            watch.twin().len(),
            watch.page()
        )
    }
}
