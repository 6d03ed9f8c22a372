//! The bytes that are sent, in each kind of memory: slots of one size, each in pages of its own.

use std::fs::File;
use std::io::Write;

use memmap2::{Mmap, MmapOptions};
use pagewire_vfio::protect::{Arena, Buffer, ProtectError, Protector};

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

/// Bytes in a file in the page cache, mapped.
pub(super) struct FileBytes {
    pub(super) file: File,
    map: Mmap,
}

impl FileBytes {
    fn new(len: usize) -> Result<Self, Broken> {
        let mut file = tempfile::tempfile()?;
        let block = vec![4; 1 << 20];
        let mut left = len;
        while left > 0 {
            let piece = block.get(..left).unwrap_or(&block);
            file.write_all(piece)?;
            left -= piece.len();
        }
        let map = map(&file, 0, len)?;
        Ok(Self { file, map })
    }

    pub(super) fn bytes(&self, start: usize, len: usize) -> &[u8] {
        self.map.get(start..start + len).unwrap_or_default()
    }
}

/// Maps bytes of a temporary file that has no name, with all of its pages.
pub(super) fn map(file: &File, start: usize, len: usize) -> std::io::Result<Mmap> {
    let mut options = MmapOptions::new();
    let options = options.offset(start as u64).len(len).populate();
    // SAFETY: the file has no name, so no other process has it, and this one writes it only before
    // it maps it: its bytes do not change and it is not truncated.
    unsafe { options.map(file) }
}

/// Buffers of a protector.
pub(super) struct Protected {
    pub(super) buffers: Vec<Buffer>,
}

impl Protected {
    fn new(arena: &Arena, size: usize, slots: usize) -> Result<Self, ProtectError> {
        let buffers = (0..slots).map(|_| {
            let mut buffer = arena.buffer(size)?;
            buffer.bytes_mut(0..size)?.fill(5);
            Ok(buffer)
        });
        Ok(Self {
            buffers: buffers.collect::<Result<_, ProtectError>>()?,
        })
    }
}

/// All of it for one size of a send.
pub(super) struct Sources {
    pub(super) size: usize,
    /// From one slot to the next.
    pub(super) stride: usize,
    /// Slots of what is not in huge pages, and of what is.
    pub(super) slots: usize,
    pub(super) huge_slots: usize,
    pub(super) plain: Vec<u8>,
    pub(super) lender: Lender,
    pub(super) file: FileBytes,
    pub(super) protected: Option<Protected>,
    pub(super) huge: Option<Protected>,
    pub(super) ring: Ring,
    /// Where bytes go that are written while they are in flight.
    pub(super) old: Ring,
}

impl Sources {
    /// Slots of `size` bytes; those of a protector if there is one.
    pub(super) fn new(size: usize, protector: Option<&Protector>) -> Result<Self, Broken> {
        let page = rustix::param::page_size();
        let count = |pool: usize, stride: usize| (pool / stride).clamp(1, SLOTS);
        let stride = size.next_multiple_of(page);
        let huge_stride = size.next_multiple_of(HUGE);
        let slots = count(POOL, stride);
        // Not more, as loans are taken of what has so many.
        let huge_slots = count(HUGE_POOL, huge_stride).min(slots);
        let (mut protected, mut huge) = (None, None);
        if let Some(protector) = protector {
            let arena = protector.arena(slots * stride)?;
            protected = Some(Protected::new(&arena, size, slots)?);
            let arena = protector.huge_arena(huge_slots * huge_stride)?;
            huge = Some(Protected::new(&arena, size, huge_slots)?);
        }
        Ok(Self {
            size,
            stride,
            slots,
            huge_slots,
            plain: vec![2; slots * stride],
            lender: Lender::new(vec![3; slots * stride])?,
            file: FileBytes::new(slots * stride)?,
            protected,
            huge,
            ring: Ring::new(),
            old: Ring::new(),
        })
    }
}
