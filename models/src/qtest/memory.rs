//! The memory of the machine: a memfd that QEMU and this program both map. An offset into it is
//! the device's address.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use pagewire_hal::{DeviceAddress, DmaMemory, DomainId, Granule};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::pages::PageMap;
use crate::host::lock;

/// The page of the machine, in bytes.
pub(super) const PAGE: usize = 4096;
/// Below are the holes of a PC: VGA memory, option ROMs and the BIOS.
const FIRST_FREE: usize = 1 << 20;
/// What the mapping is aligned to, and so the largest alignment that memory can have.
const ALIGNMENT: usize = 2 << 20;

/// The mapped memory.
pub(super) struct Ram {
    mapping: *mut c_void,
    mapping_len: usize,
    /// First byte of the memory, aligned to [`ALIGNMENT`].
    base: NonNull<u8>,
    len: usize,
    file: OwnedFd,
    domain: DomainId,
    granule: Granule,
    pages: Mutex<PageMap>,
}

// SAFETY: the pointers are used to compute others, and to unmap when the value is dropped; who
// dereferences them owns the bytes, as the page map gives each page to one owner.
unsafe impl Send for Ram {}
// SAFETY: as above; the page map is behind a lock.
unsafe impl Sync for Ram {}

impl Ram {
    /// `len` zeroed bytes, a multiple of [`PAGE`].
    pub(super) fn new(len: usize, granule: Granule) -> io::Result<Arc<Self>> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("pagewire-qtest", flags)?;
        rustix::fs::ftruncate(&file, len as u64)?;
        // Nobody can shorten it under our mapping.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        let mapping_len = len + ALIGNMENT;
        let none = std::ptr::null_mut();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let mapping = unsafe {
            rustix::mm::mmap_anonymous(none, mapping_len, ProtFlags::empty(), MapFlags::PRIVATE)
        }?;
        let lead = mapping.addr().next_multiple_of(ALIGNMENT) - mapping.addr();
        let place = mapping.wrapping_byte_add(lead);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let fixed = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: `len` bytes from the first aligned one lie in the mapping made above, which
        // nobody uses yet.
        let mapped = unsafe { rustix::mm::mmap(place, len, access, fixed, &file, 0) };
        let base = mapped.ok().and_then(|start| NonNull::new(start.cast()));
        let ram = Self {
            mapping,
            mapping_len,
            base: base.unwrap_or(NonNull::dangling()),
            len,
            file,
            domain: DomainId::new_unique(),
            granule,
            pages: Mutex::new(PageMap::new(FIRST_FREE / PAGE, len / PAGE)),
        };
        // Only now, so that dropping `ram` takes the first mapping away again.
        mapped?;
        Ok(Arc::new(ram))
    }

    /// Under which name QEMU, a process of the same user, can open the memory.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    pub(super) const fn domain(&self) -> DomainId {
        self.domain
    }

    pub(super) const fn granule(&self) -> Granule {
        self.granule
    }

    /// Whole pages for `len` bytes, at least one, contiguous and aligned to `align` bytes; zeroed.
    pub(super) fn take(self: &Arc<Self>, len: usize, align: usize) -> Option<QtestMemory> {
        if !align.is_power_of_two() || align > ALIGNMENT {
            return None;
        }
        let count = len.max(1).div_ceil(PAGE);
        let first = lock(&self.pages).take_run(count, align.div_ceil(PAGE))?;
        let start = self.pointer(first * PAGE);
        // SAFETY: these pages lie in the memory, and now belong to nobody but us.
        unsafe { start.write_bytes(0, count * PAGE) };
        Some(QtestMemory {
            ram: Arc::clone(self),
            first,
            count,
            len,
        })
    }

    /// Granules for a region of `len` bytes that begins `lead` bytes into the first, no two
    /// neighbours contiguous; as offsets.
    pub(super) fn take_scattered(&self, lead: usize, len: usize) -> Option<Vec<usize>> {
        let granule = self.granule.bytes();
        let count = lead.checked_add(len)?.div_ceil(granule);
        let firsts = lock(&self.pages).take_scattered(count, granule / PAGE)?;
        Some(firsts.into_iter().map(|first| first * PAGE).collect())
    }

    /// Takes back the granules of a region.
    pub(super) fn put_scattered(&self, offsets: impl Iterator<Item = usize>) {
        let mut pages = lock(&self.pages);
        let count = self.granule.bytes() / PAGE;
        offsets.for_each(|offset| pages.put(offset / PAGE, count));
    }

    /// Bytes that belong to nobody.
    pub(super) fn free(&self) -> usize {
        lock(&self.pages).free() * PAGE
    }

    /// Copies `bytes` to `offset`; does nothing if they do not lie in the memory.
    ///
    /// # Safety
    /// The caller owns the pages.
    pub(super) unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        let inside = offset
            .checked_add(bytes.len())
            .is_some_and(|end| end <= self.len);
        if inside {
            let target = self.pointer(offset).as_ptr();
            // SAFETY: the bytes lie in the memory, as checked, which the caller owns there and
            // so nobody has a reference to.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        }
    }

    /// The byte at `offset`, or the first if there is none.
    fn pointer(&self, offset: usize) -> NonNull<u8> {
        let offset = if offset < self.len { offset } else { 0 };
        // SAFETY: `offset` is inside the mapping.
        unsafe { self.base.byte_add(offset) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; all that points into it holds an `Arc` of us.
        if let Err(error) = unsafe { rustix::mm::munmap(self.mapping, self.mapping_len) } {
            log::warn!("the memory of QEMU stays mapped: {error}");
        }
    }
}

impl fmt::Debug for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ram({} bytes)", self.len)
    }
}

/// Memory that QEMU's device reads and writes; whole pages, contiguous for the device. Free for
/// others when dropped.
#[derive(Debug)]
pub struct QtestMemory {
    ram: Arc<Ram>,
    first: usize,
    count: usize,
    len: usize,
}

// SAFETY: the pages belong to this value from `Ram::take` to its drop, are zeroed and so
// initialised, and mapped while `ram` lives; never dropping it keeps the `Arc`. QEMU maps the same
// memfd at guest address 0, so the offset into it is what the device finds them at. QEMU itself is
// outside of what safe code can rely on, as a device without an IOMMU is.
unsafe impl DmaMemory for QtestMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.ram.pointer(self.first * PAGE)
    }

    fn address(&self) -> DeviceAddress {
        DeviceAddress((self.first * PAGE) as u64)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.ram.domain
    }
}

impl Drop for QtestMemory {
    fn drop(&mut self) {
        lock(&self.ram.pages).put(self.first, self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> Arc<Ram> {
        Ram::new(4 << 20, Granule::CONTIGUOUS).unwrap()
    }

    #[test]
    fn memory_is_aligned_zeroed_and_given_back() {
        let ram = ram();
        let free = ram.free();
        for align in [1, 64, 4096, 1 << 16, 1 << 21] {
            let memory = ram.take(5000, align).unwrap();
            assert_eq!(memory.len(), 5000);
            assert!(memory.address().0.is_multiple_of(align as u64));
            assert!(memory.address().0 >= 1 << 20);
            assert!(memory.pointer().addr().get().is_multiple_of(align));
            assert_eq!(ram.free(), free - 2 * PAGE);
            // SAFETY: the bytes are the memory's own, and nothing else uses them.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(memory.pointer().as_ptr(), memory.len()) };
            assert!(bytes.iter().all(|byte| *byte == 0), "alignment {align}");
            bytes.fill(0xa5);
        }
        assert_eq!(ram.free(), free);
        assert!(ram.take(1, 1 << 22).is_none());
        assert!(ram.take(1, 3).is_none());
        assert!(ram.take(4 << 20, 1).is_none());
        assert!(ram.take(usize::MAX, 1).is_none());
    }

    #[test]
    fn another_process_would_find_the_same_bytes() {
        let ram = ram();
        let memory = ram.take(64, 64).unwrap();
        // SAFETY: 64 bytes of `memory`, which nobody else uses.
        unsafe { memory.pointer().write_bytes(0x5a, 64) };
        let mut found = [0; 64];
        let file = std::fs::File::open(ram.path()).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, memory.address().0).unwrap();
        assert_eq!(found, [0x5a; 64]);
        drop(ram);
        // The memory keeps the mapping.
        // SAFETY: as above.
        assert_eq!(unsafe { memory.pointer().read() }, 0x5a);
    }
}
