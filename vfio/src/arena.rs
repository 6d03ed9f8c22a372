//! Memory for a device's rings and buffers: mapped in large pieces, handed out in small ones.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use pagewire_hal::{DeviceAddress, DmaMemory, DomainId};

use crate::VfioError;
use crate::iommu::Access;
use crate::pages::{HUGE, Pages};
use crate::ranges::Ranges;
use crate::space::{Mapping, Space, lock};

/// What memory is handed out in, in bytes: a cache line, so that no two pieces share one.
const UNIT: u64 = 64;

/// The longest piece that lies in one huge page, if the end of that is handed out to nobody.
const LONGEST_APART: u64 = HUGE as u64 - UNIT;

/// Memory of a device, handed out piece by piece.
pub(crate) struct Arena {
    space: Arc<Space>,
    /// The highest address that the device can emit.
    limit: u64,
    huge: bool,
    /// Whether no fragment should reach across the end of a page.
    apart: bool,
    chunks: Mutex<Vec<Chunk>>,
}

/// A piece of memory that is mapped for the device.
struct Chunk {
    /// Taken out by `drop`.
    pages: Option<Pages>,
    mapping: Mapping,
    /// Offsets that belong to nobody.
    free: Ranges,
    whole: Ranges,
    len: u64,
    /// The end of each huge page is left out, so that nothing that is handed out reaches into the
    /// next, nor is contiguous with what begins there.
    apart: bool,
}

impl Chunk {
    fn new(arena: &Arena, len: usize, align: u64, apart: bool) -> Result<Self, VfioError> {
        let bytes = len as u64;
        let (space, limit) = (&arena.space, arena.limit);
        space.has_room(bytes, align, limit)?;
        let pages = if space.iommu().wants_files() {
            Pages::shared(len)
        } else {
            Pages::new(len, arena.huge)
        };
        let pages =
            pages.map_err(|errno| VfioError::system("cannot get memory for the device", errno))?;
        // SAFETY: the pages are unmapped in `drop` only, after the mapping, and not if that has
        // failed. Whatever the device does with them: they are handed out by pointers only, to
        // whom `DmaMemory` tells that the device reaches them.
        let mapping = unsafe { space.map(pages.source(), bytes, align, Access::ReadWrite, limit) }?;
        let whole = if apart {
            let starts = (0..bytes).step_by(HUGE);
            Ranges::new(starts.map(|start| start..=start + LONGEST_APART - 1), UNIT)
        } else {
            Ranges::new([0..=bytes - 1], UNIT)
        };
        log::debug!(
            "{len} bytes at {:?} for the device, in {} pages",
            mapping.address(),
            if pages.is_huge() { "huge" } else { "ordinary" }
        );
        Ok(Self {
            pages: Some(pages),
            mapping,
            free: whole.clone(),
            whole,
            len: bytes,
            apart,
        })
    }

    /// The first byte, for the CPU.
    fn base(&self) -> Option<NonNull<u8>> {
        self.pages.as_ref().map(Pages::base)
    }

    fn take(&mut self, len: u64, align: u64) -> Option<(NonNull<u8>, DeviceAddress)> {
        let base = self.base()?;
        let address = self.mapping.address();
        // An offset is as aligned as its address only if the beginning is, for both.
        if (base.addr().get() as u64 | address.0) & (align - 1) != 0 {
            return None;
        }
        let offset = self.free.take(len, align, 0, u64::MAX)?;
        // SAFETY: the offset is in the free ranges, which lie in the pages.
        let pointer = unsafe { base.byte_add(offset as usize) };
        Some((pointer, address.offset(offset)))
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if !self.mapping.unmap() {
            // The device may still reach them: they leak.
            std::mem::forget(self.pages.take());
        }
    }
}

impl Arena {
    /// An arena whose first chunk has at least `len` bytes: if the system does not want to give
    /// or lock that much, it is known at once.
    pub(crate) fn new(
        space: &Arc<Space>,
        len: usize,
        limit: u64,
        (huge, apart): (bool, bool),
    ) -> Result<Arc<Self>, VfioError> {
        let arena = Self {
            space: Arc::clone(space),
            limit,
            huge,
            apart,
            chunks: Mutex::new(Vec::new()),
        };
        if len > 0 {
            let first = arena.chunk(len, 1, apart)?;
            lock(&arena.chunks).push(first);
        }
        Ok(Arc::new(arena))
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// A new chunk with room for `len` bytes from its first on, which is aligned to `align` (at most
    /// 2 MiB), in whole huge pages: so that the least limit on
    /// locked memory that is told to be enough does not depend on the limit there is.
    fn chunk(&self, len: usize, align: u64, apart: bool) -> Result<Chunk, VfioError> {
        let unit = HUGE.max(self.space.page() as usize);
        let rounded = len.checked_next_multiple_of(unit);
        let rounded = rounded.ok_or(VfioError::NoAddresses {
            wanted: len as u64,
            longest: 0,
        })?;
        Chunk::new(self, rounded, align, apart)
    }

    /// `len` zeroed bytes, at least 1, aligned to `align` for CPU and device.
    pub(crate) fn take(self: &Arc<Self>, len: usize, align: usize) -> Result<Memory, VfioError> {
        if !align.is_power_of_two() || align > HUGE {
            return Err(VfioError::Alignment(align));
        }
        let too_long = VfioError::NoAddresses {
            wanted: len as u64,
            longest: 0,
        };
        let size = (len.max(1) as u64)
            .checked_next_multiple_of(UNIT)
            .filter(|size| *size <= isize::MAX as u64)
            .ok_or(too_long)?;
        // What fits a page lies in one: seen in QEMU, a device's access across the end of a page may
        // be two.
        let natural = size.next_power_of_two().min(self.space.page());
        let align = (align as u64).max(UNIT).max(natural);
        let apart = self.apart && size <= LONGEST_APART;
        let mut chunks = lock(&self.chunks);
        let mut fit = chunks.iter_mut().filter(|chunk| chunk.apart == apart);
        let mut place = fit.find_map(|chunk| chunk.take(size, align));
        if place.is_none() {
            let mut chunk = self.chunk(size as usize, align, apart)?;
            place = chunk.take(size, align);
            // What nothing was taken from is unmapped again.
            if place.is_some() {
                chunks.push(chunk);
            }
        }
        drop(chunks);
        let (pointer, address) = place.ok_or(VfioError::Alignment(align as usize))?;
        // SAFETY: `size` bytes from here on have just been taken: they are mapped, writable, and
        // belong to nobody but us. Who had them before had done with the device.
        unsafe { pointer.write_bytes(0, size as usize) };
        Ok(Memory {
            arena: Arc::clone(self),
            pointer,
            address,
            len,
            size,
        })
    }

    /// Takes back `size` bytes at `address`, and gives chunks of which nothing is used any more
    /// back to the system, but for one.
    fn put(&self, address: DeviceAddress, size: u64) {
        let mut chunks = lock(&self.chunks);
        let found = chunks.iter_mut().find_map(|chunk| {
            let offset = address.0.checked_sub(chunk.mapping.address().0)?;
            (offset < chunk.len).then_some((chunk, offset))
        });
        let Some((chunk, offset)) = found else {
            log::error!("{size} bytes at {address:?} are of no chunk");
            return;
        };
        if !chunk.free.put(offset, size) {
            log::error!("{size} bytes at {address:?} were given back twice");
            return;
        }
        let mut is_first = true;
        let is_unused = |chunk: &mut Chunk| chunk.free == chunk.whole;
        let unused: Vec<Chunk> = chunks
            .extract_if(.., |chunk| {
                is_unused(chunk) && !std::mem::replace(&mut is_first, false)
            })
            .collect();
        drop(chunks);
        // Without the lock: the system may take its time.
        drop(unused);
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("space", &self.space)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// DMA memory of a device behind VFIO: zeroed when it is handed out, never given to a child
/// process, taken back when dropped.
pub struct Memory {
    arena: Arc<Arena>,
    pointer: NonNull<u8>,
    address: DeviceAddress,
    len: usize,
    /// Bytes that were taken, which are at least `len`.
    size: u64,
}

// SAFETY: the value owns its bytes, and its arena is shared by lock.
unsafe impl Send for Memory {}

// SAFETY: the bytes were zeroed, lie in a chunk of the arena and are given to nobody else until
// the value is dropped; the arena, which the value keeps, holds the chunk mapped for CPU and device
// as long as one of its bytes is taken, and so for ever if the value is never dropped. The
// address is where the chunk was mapped in the one address space of the domain, and at most what
// the device can emit. The size was checked against `isize::MAX`.
unsafe impl DmaMemory for Memory {
    fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    fn address(&self) -> DeviceAddress {
        self.address
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.arena.space.domain()
    }

    fn pages_apart(&self) -> bool {
        self.arena.apart
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.arena.put(self.address, self.size);
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes at {:?})", self.len, self.address)
    }
}

#[cfg(test)]
#[path = "arena_tests.rs"]
mod tests;
