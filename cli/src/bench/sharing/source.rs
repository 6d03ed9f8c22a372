//! The bytes that are sent, in each kind of memory: slots of one size, each in pages of its own.

use std::fs::File;
use std::io::Write;

use memmap2::{Mmap, MmapOptions};
use pagewire::hal::RegionId;
use pagewire_vfio::LiveFile;
use pagewire_vfio::protect::{Arena, Buffer, Choice, ProtectError, Protector};

use super::Broken;
use super::lender::Lender;
use super::ring::Ring;

/// All slots together, in bytes, unless one slot is longer: of small pages, and of huge ones.
const POOL: usize = 32 << 20;
const HUGE_POOL: usize = 64 << 20;
/// The most slots.
const SLOTS: usize = 512;
/// A huge page, which is what a buffer in huge pages takes at least.
const HUGE: usize = 2 << 20;

/// Maps bytes of a temporary file that has no name, with all of its pages.
pub(super) fn map(file: &File, start: usize, len: usize) -> std::io::Result<Mmap> {
    let mut options = MmapOptions::new();
    let options = options.offset(start as u64).len(len).populate();
    // SAFETY: the file has no name, so no other process has it, and this one writes it only before
    // it maps it: its bytes do not change and it is not truncated.
    unsafe { options.map(file) }
}

/// A file of so many bytes, in the page cache.
fn file(len: usize) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    let block = vec![4; 1 << 20];
    let mut left = len;
    while left > 0 {
        let piece = block.get(..left).unwrap_or(&block);
        file.write_all(piece)?;
        left -= piece.len();
    }
    Ok(file)
}

/// Buffers of a protector, one for each slot.
pub(super) struct Protected {
    pub(super) buffers: Vec<Buffer>,
    pub(super) region: RegionId,
}

impl Protected {
    fn new(arena: Arena, size: usize, slots: usize, lender: &mut Lender) -> Result<Self, Broken> {
        let buffers = (0..slots).map(|_| {
            let mut buffer = arena.buffer(size)?;
            buffer.bytes_mut(0..size)?.fill(5);
            Ok(buffer)
        });
        Ok(Self {
            buffers: buffers.collect::<Result<_, Broken>>()?,
            region: lender.register(arena)?,
        })
    }
}

/// Who serves writes to protected pages.
pub(super) struct Protectors {
    /// A thread.
    thread: Protector,
    /// Who writes.
    signal: Protector,
}

impl Protectors {
    pub(super) fn open() -> Result<Self, ProtectError> {
        Ok(Self {
            thread: Protector::open(Choice::Best)?,
            signal: Protector::open(Choice::Signal)?,
        })
    }
}

/// Memory of protectors.
pub(super) struct Watched {
    /// Lent, in small pages and in huge ones.
    pub(super) small: Protected,
    pub(super) huge: Protected,
    /// Lent, in small pages, and served by SIGBUS.
    pub(super) signalled: Protected,
    /// Copied, so never protected.
    pub(super) copied: Protected,
}

/// All of it for one size of a send.
pub(super) struct Sources {
    pub(super) size: usize,
    /// From one slot to the next, but for what is in a protector's memory.
    pub(super) stride: usize,
    /// Slots of what is not in huge pages.
    pub(super) slots: usize,
    /// For `memcpy`.
    pub(super) plain: Vec<u8>,
    pub(super) ring: Ring,
    pub(super) lender: Lender,
    pub(super) owned: RegionId,
    pub(super) file: File,
    pub(super) live: RegionId,
    pub(super) watched: Option<Watched>,
}

impl Sources {
    /// Slots of `size` bytes; those of protectors if there are any.
    pub(super) fn new(size: usize, protectors: Option<&Protectors>) -> Result<Self, Broken> {
        let count = |pool: usize, stride: usize| (pool / stride).clamp(1, SLOTS);
        let stride = size.next_multiple_of(rustix::param::page_size());
        let slots = count(POOL, stride);
        let huge_stride = size.next_multiple_of(HUGE);
        let huge_slots = count(HUGE_POOL, huge_stride);
        let mut lender = Lender::new()?;
        let mut watched = None;
        if let Some(Protectors { thread, signal }) = protectors {
            let small = |protector: &Protector| protector.arena(slots * stride);
            let huge = thread.huge_arena(huge_slots * huge_stride)?;
            watched = Some(Watched {
                small: Protected::new(small(thread)?, size, slots, &mut lender)?,
                huge: Protected::new(huge, size, huge_slots, &mut lender)?,
                signalled: Protected::new(small(signal)?, size, slots, &mut lender)?,
                copied: Protected::new(small(thread)?, size, slots, &mut lender)?,
            });
        }
        let file = file(slots * stride)?;
        let live = LiveFile::map(file.try_clone()?, 0, slots * stride)?;
        Ok(Self {
            size,
            stride,
            slots,
            plain: vec![2; slots * stride],
            ring: Ring::new(),
            owned: lender.register(vec![3; slots * stride])?,
            live: lender.register(live)?,
            file,
            watched,
            lender,
        })
    }
}
