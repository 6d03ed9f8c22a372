//! Memory that is handed out as buffers, and that can be lent while the program keeps it.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use super::watch::Watch;
use super::{Buffer, ProtectError, Protector};
use crate::pages::{HUGE, Pages};
use crate::ranges::Ranges;
use crate::space::lock;

/// What an arena is made of.
pub(crate) struct Layout {
    /// Bytes.
    pub(crate) len: usize,
    /// What is protected by itself, in bytes.
    pub(crate) page: usize,
    /// Whether huge pages that were set aside can be used.
    pub(crate) reserved: bool,
}

/// Memory of our own, handed out as buffers. A child process does not get it (`MADV_DONTFORK`).
///
/// Clones are the same memory, which is freed when the last clone is dropped, with the last buffer
/// and the last loan. So whoever maps it for a device keeps a clone for as long as it is mapped,
/// and maps it before the first loan: the kernel does not let protected pages be mapped for
/// writing by a device. For a device that only reads they may be mapped at any time.
#[derive(Clone, Debug)]
pub struct Arena {
    memory: Arc<Memory>,
}

impl Arena {
    pub(crate) fn new(protector: &Protector, layout: Layout) -> Result<Self, ProtectError> {
        let Layout {
            len,
            page,
            reserved,
        } = layout;
        if len == 0 {
            return Err(ProtectError::Empty);
        }
        let no_memory = |errno| ProtectError::system("cannot get memory to be lent", errno);
        let len = len.checked_next_multiple_of(page);
        let len = len.ok_or(no_memory(rustix::io::Errno::NOMEM))?;
        let pages = Pages::new(len, reserved && page == HUGE).map_err(no_memory)?;
        if !protector.shared().userfault.protects_untouched() {
            touch(&pages, len);
        }
        let base = pages.base();
        // SAFETY: the pages are ours; `Memory` unmaps them after it has closed the watch.
        let watch = unsafe { Watch::new(protector.shared(), base, len, page) }?;
        let places = Places {
            free: Ranges::new([0..=len as u64 - 1], page as u64),
            orphans: Vec::new(),
        };
        let memory = Memory {
            watch,
            base,
            len,
            page,
            places: Mutex::new(places),
            _pages: pages,
            protector: protector.clone(),
        };
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
        let page = self.memory.page;
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

    /// First byte, for a device mapping.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.memory.base
    }

    /// Bytes for a device mapping, in whole pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.len
    }

    /// Whether there is no byte: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.memory.len == 0
    }

    /// What is protected by itself, in bytes: a page of the system, or a huge page.
    #[must_use]
    pub fn page(&self) -> usize {
        self.memory.page
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

/// Writes to every page, for kernels that protect only what has been touched.
fn touch(pages: &Pages, len: usize) {
    for offset in (0..len).step_by(rustix::param::page_size()) {
        // SAFETY: the offset is less than the length of the pages.
        let place = unsafe { pages.base().byte_add(offset) };
        // SAFETY: the pages are zeroed memory of ours that nobody else knows yet.
        unsafe { place.write_volatile(0) };
    }
}

/// The memory of an arena, shared by all that can reach it.
pub(crate) struct Memory {
    pub(crate) watch: Arc<Watch>,
    base: NonNull<u8>,
    len: usize,
    page: usize,
    places: Mutex<Places>,
    pub(crate) protector: Protector,
    /// Unmapped after `drop`.
    _pages: Pages,
}

// SAFETY: the pointer is only handed out, with offsets; the pages live as long as the value.
unsafe impl Send for Memory {}
// SAFETY: as above; all that changes is behind locks.
unsafe impl Sync for Memory {}

/// Offsets, and to whom they belong.
struct Places {
    free: Ranges,
    /// Of buffers that are gone, with loans that are not.
    orphans: Vec<Range<usize>>,
}

impl Memory {
    /// The byte at an offset.
    ///
    /// # Safety
    /// The offset is at most the length.
    pub(crate) unsafe fn at(&self, offset: usize) -> NonNull<u8> {
        // SAFETY: the caller's promise.
        unsafe { self.base.byte_add(offset) }
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
        let room = bytes.len().next_multiple_of(self.page);
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
        write!(f, "{} bytes in pages of {}", self.len, self.page)
    }
}
