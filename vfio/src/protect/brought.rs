//! Memory that the caller brings, watched where it is.

use std::fmt;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;

use super::buffer::within;
use super::memory::{Memory, Places};
use super::twin::Twin;
use super::watch::{Patience, Watch};
use super::{Lent, PollingThread, ProtectError, Protector};

/// Memory that somebody has mapped, and keeps mapped as long as the value exists.
///
/// # Safety
/// - [`len`](Self::len) initialised bytes from [`base`](Self::base) on can be read and written on any
///   thread until the value is dropped. Both begin and end with a page, and never change, nor does
///   [`kind`](Self::kind), which is true; also when the value is moved.
/// - The mapping belongs to the value: nobody else unmaps it, maps anything in its place, gives it
///   advice that takes bytes away (`MADV_DONTNEED`), watches it with another userfaultfd or registers
///   it a second time. What has taken the place of its pages may be unmapped as they were.
/// - It is written at these addresses only: not by another mapping of the same pages, by another
///   process, or by `write(2)` to their file, while they are lent. (The kernel has no means against
///   that.) A device or an io_uring that has pinned them for writing does not write to what is
///   lent, nor has any pinned pages of it while it was lent: what comes there after it is not lent any
///   more may be lost.
/// - Nobody writes while [`Protector::register`](super::Protector::register) runs. From then on who
///   writes does so by pointers that are valid for that, at any time: he sleeps where the bytes are
///   lent. Nobody has a `&mut` to bytes of [`MemoryKind::Huge`] while they are lent.
/// - A thread that holds a [`PollingThread`] writes to
///   [`MemoryKind::Shared`] and [`MemoryKind::Huge`] only after
///   [`Registered::as_ptr`] or [`Registered::make_writable`] has let it, or it may sleep for ever.
pub unsafe trait MappedMemory: Send + Sync + 'static {
    /// First byte.
    fn base(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What the pages are.
    fn kind(&self) -> MemoryKind<'_>;
}

/// What pages are, as far as it matters for lending them.
#[derive(Clone, Copy, Debug)]
pub enum MemoryKind<'a> {
    /// Private anonymous memory, in pages of the system. When it is registered its bytes are copied,
    /// once, to pages of a file without a name, which take its place: so that it has two addresses,
    /// and a thread that polls the NIC can write to it at any time. A child process does not get
    /// it.
    Private,
    /// A mapping, shared, of a file in memory (a memfd, tmpfs or hugetlbfs).
    Shared {
        /// The file.
        file: BorrowedFd<'a>,
        /// Where in it the memory begins.
        offset: u64,
    },
    /// Private huge pages that were set aside (`MAP_HUGETLB`).
    Huge {
        /// Bytes of each.
        page: usize,
    },
}

impl MemoryKind<'_> {
    /// What is protected by itself, in bytes.
    fn page(&self) -> Result<usize, Errno> {
        /// Linux `include/uapi/linux/magic.h`.
        const HUGETLBFS: i128 = 0x9584_58f6;
        Ok(match self {
            Self::Private => rustix::param::page_size(),
            Self::Huge { page } => *page,
            Self::Shared { file, .. } => {
                let system = rustix::fs::fstatfs(file)?;
                if i128::from(system.f_type) == HUGETLBFS {
                    usize::try_from(system.f_bsize).map_err(|_| Errno::INVAL)?
                } else {
                    rustix::param::page_size()
                }
            }
        })
    }
}

/// Memory that the caller has brought, to be lent while he keeps writing to it.
///
/// Clones are the same memory, which is dropped with the last clone, region and loan.
pub struct Registered<M> {
    memory: Arc<Memory>,
    owner: Arc<M>,
}

impl<M: MappedMemory> Registered<M> {
    pub(crate) fn new(protector: &Protector, memory: M) -> Result<Self, ProtectError> {
        let owner = Arc::new(memory);
        let (base, len, kind) = (owner.base(), owner.len(), owner.kind());
        let failed = |errno| ProtectError::system("cannot share memory to be lent", errno);
        let page = kind.page().map_err(failed)?;
        if len == 0 {
            return Err(ProtectError::Empty);
        }
        let aligned = |value: usize| value.is_multiple_of(page);
        if !page.is_power_of_two() || !aligned(len) || !aligned(base.addr().get()) {
            return Err(ProtectError::Unaligned { page });
        }
        let twin = match kind {
            // SAFETY: `MappedMemory` promises that the memory belongs to the value, and that nobody
            // writes now.
            MemoryKind::Private => unsafe { Twin::adopt(base, len) },
            // SAFETY: `MappedMemory` promises that this is what is mapped there.
            MemoryKind::Shared { file, offset } => unsafe { Twin::shared(base, len, file, offset) },
            MemoryKind::Huge { .. } => Ok(Twin::single(base, len)),
        };
        // SAFETY: `MappedMemory` promises that it is the value's, which `Memory` keeps until it has
        // closed the watch.
        let watch = unsafe { Watch::new(protector.shared(), twin.map_err(failed)?, page) }?;
        let kept = Box::new(Arc::clone(&owner));
        let memory = Memory::new(protector, watch, Places::default(), kept);
        Ok(Self {
            memory: Arc::new(memory),
            owner,
        })
    }

    /// The memory that was brought.
    #[must_use]
    pub fn memory(&self) -> &M {
        &self.owner
    }

    /// The first byte of what is lent, for reading only, by a device mapping: another address than
    /// that of the program, but for [`MemoryKind::Huge`].
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.memory.watch.twin().home()
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.memory.watch.twin().len()
    }

    /// Whether there is no byte: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is protected by itself, in bytes.
    #[must_use]
    pub fn page(&self) -> usize {
        self.memory.watch.page()
    }

    /// The first byte, to write: as [`Buffer::as_ptr`](super::Buffer::as_ptr).
    ///
    /// # Errors
    /// [`ProtectError::Polling`] on a [`PollingThread`], but for [`MemoryKind::Private`].
    pub fn as_ptr(&self) -> Result<NonNull<u8>, ProtectError> {
        self.memory.pointer(0)
    }

    /// Sees to it that nothing of a range is lent where the program writes: sleeps until then, or,
    /// on a [`PollingThread`], puts other pages there. Then a write does not fault, as long as nothing
    /// of it is lent anew; a system call that writes does not fail in
    /// [`Mode::UserOnly`](super::Mode::UserOnly).
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`]; [`ProtectError::Lent`] on a [`PollingThread`], but for
    /// [`MemoryKind::Private`].
    pub fn make_writable(&self, range: Range<usize>) -> Result<(), ProtectError> {
        self.open(&range, PollingThread::patience())
    }

    /// As [`make_writable`](Self::make_writable), but does not sleep.
    ///
    /// # Errors
    /// [`ProtectError::OutOfRange`]; [`ProtectError::Lent`].
    pub fn try_make_writable(&self, range: Range<usize>) -> Result<(), ProtectError> {
        self.open(&range, Patience::None)
    }

    fn open(&self, range: &Range<usize>, patience: Patience) -> Result<(), ProtectError> {
        match within(&(0..self.len()), range) {
            Err(ProtectError::Empty) => Ok(()),
            bytes => self.memory.open(&bytes?, patience),
        }
    }

    /// Lends bytes as they are now: as [`Buffer::lend`](super::Buffer::lend).
    ///
    /// # Errors
    /// As there.
    pub fn lend(&self, range: Range<usize>) -> Result<Lent, ProtectError> {
        Lent::new(&self.memory, within(&(0..self.len()), &range)?)
    }

    /// Whether somebody waits to write: as [`Arena::has_wanted`](super::Arena::has_wanted).
    #[must_use]
    pub fn has_wanted(&self) -> bool {
        self.memory.watch.has_wanted()
    }

    /// What somebody waits to write: as [`Arena::wanted`](super::Arena::wanted).
    pub fn wanted(&self, each: &mut dyn FnMut(Range<usize>)) {
        self.memory.watch.wanted(each);
    }

    pub(crate) fn shared_memory(&self) -> &Memory {
        &self.memory
    }
}

impl<M> Clone for Registered<M> {
    fn clone(&self) -> Self {
        Self {
            memory: Arc::clone(&self.memory),
            owner: Arc::clone(&self.owner),
        }
    }
}

impl<M> fmt::Debug for Registered<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registered({:?})", self.memory)
    }
}
