//! Anonymous memory of our own for the device, in huge pages where there are some.

use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::iommu::Source;

/// A huge page, in bytes, and what all memory here is aligned to: so that the IOMMU can map it by
/// huge pages too. (x86 and 64-bit ARM with pages of 4 KiB; elsewhere it is an alignment only.)
pub(crate) const HUGE: usize = 2 << 20;

/// Zeroed memory, readable and writable, that a child process does not get; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Pages {
    base: NonNull<u8>,
    len: usize,
    huge: bool,
    /// All in transparent huge pages, of a file.
    collapsed: bool,
    /// What can be shared with another process.
    file: Option<OwnedFd>,
}

// SAFETY: the value owns its memory and only hands out the address.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// `len` bytes, a multiple of the system's page, aligned to [`HUGE`]; in huge pages that were
    /// set aside (`vm.nr_hugepages`) if `huge` and there are enough, in transparent ones if the
    /// system has them, else in small ones.
    pub(crate) fn new(len: usize, huge: bool) -> Result<Self, Errno> {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        let reserved = if huge {
            Self::reserved_huge(len)
        } else {
            Err(Errno::NOMEM)
        };
        let pages = match reserved {
            Ok(pages) => pages,
            Err(errno) => {
                log::trace!("no huge pages for {len} bytes: {errno}");
                Self::aligned(len)?
            }
        };
        pages.prepare()?;
        Ok(pages)
    }

    fn reserved_huge(len: usize) -> Result<Self, Errno> {
        if !len.is_multiple_of(HUGE) {
            return Err(Errno::INVAL);
        }
        let flags = MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::HUGE_2MB;
        let pages = Self {
            base: map(len, flags)?,
            len,
            huge: true,
            collapsed: false,
            file: None,
        };
        // Here and now: there is an error instead of a signal if they are not there after all.
        pages.advise(Advice::LinuxPopulateWrite)?;
        Ok(pages)
    }

    fn aligned(len: usize) -> Result<Self, Errno> {
        let room = len.checked_add(HUGE).ok_or(Errno::NOMEM)?;
        let start = map(room, MapFlags::PRIVATE | MapFlags::NORESERVE)?;
        let lead = start.addr().get().next_multiple_of(HUGE) - start.addr().get();
        // SAFETY: `lead` is less than `HUGE`, so all of `len` bytes from there on lie in `room`.
        let base = unsafe { start.byte_add(lead) };
        // SAFETY: the end of the memory lies in `room`, at most at its end.
        let end = unsafe { base.byte_add(len) };
        // SAFETY: the bytes before and behind the memory were mapped above, and belong to nobody.
        unsafe { unmap(start, lead) };
        // SAFETY: as above.
        unsafe { unmap(end, HUGE - lead) };
        Ok(Self {
            base,
            len,
            huge: false,
            collapsed: false,
            file: None,
        })
    }

    /// As [`new`](Self::new), of a file that another process can map as well. Its length is sealed.
    pub(crate) fn shared(len: usize) -> Result<Self, Errno> {
        Self::of_file(len, false)
    }

    /// As [`shared`](Self::shared), `len` being a multiple of [`HUGE`], in huge pages that were set
    /// aside if there are enough, else in transparent ones if the system has so much memory in a row.
    pub(crate) fn shared_huge(len: usize) -> Result<Self, Errno> {
        Self::of_file(len, true).or_else(|errno| {
            log::trace!("no huge pages for {len} bytes: {errno}");
            let mut pages = Self::of_file(len, false)?;
            pages.collapse();
            Ok(pages)
        })
    }

    /// Puts transparent huge pages in the place of small ones, whatever the system's settings for
    /// files in memory are (`shmem_enabled` is "never" on most). Linux 6.1 or later can do that.
    fn collapse(&mut self) {
        let place = self.base.as_ptr().cast();
        // SAFETY: the bytes are ours, and stay as they are.
        self.collapsed = unsafe { libc::madvise(place, self.len, libc::MADV_COLLAPSE) } == 0;
        if !self.collapsed {
            let why = std::io::Error::last_os_error();
            log::debug!("{} bytes stay in small pages: {why}", self.len);
        }
        // Maps them anew.
        let _ = self.advise(Advice::LinuxPopulateWrite);
    }

    fn of_file(len: usize, huge: bool) -> Result<Self, Errno> {
        if len == 0 {
            return Err(Errno::INVAL);
        }
        let file = nameless(len, huge)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let mut pages = Self::place(file.as_fd(), 0, len, access)?;
        pages.file = Some(file);
        pages.huge = huge;
        pages.prepare()?;
        Ok(pages)
    }

    /// `len` bytes of a file from `offset` on, whole pages, to read only.
    pub(crate) fn view(file: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self, Errno> {
        let pages = Self::place(file, offset, len, ProtFlags::READ)?;
        pages.advise(Advice::LinuxDontFork)?;
        // Saves faults, where it is known.
        match pages.advise(Advice::LinuxPopulateRead) {
            Ok(()) | Err(Errno::INVAL) => Ok(pages),
            Err(errno) => Err(errno),
        }
    }

    fn place(
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        access: ProtFlags,
    ) -> Result<Self, Errno> {
        let pages = Self::aligned(len)?;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        let place = pages.base.as_ptr().cast();
        // SAFETY: the file takes the place of memory that is ours, that nobody has seen yet, and
        // that is as long.
        unsafe { rustix::mm::mmap(place, len, access, flags, file, offset) }?;
        Ok(pages)
    }

    fn prepare(&self) -> Result<(), Errno> {
        // A child would get the pages or copies of them, and the copying takes time.
        self.advise(Advice::LinuxDontFork)?;
        if self.huge && self.file.is_some() {
            // Here and now, as for those that are not shared.
            self.advise(Advice::LinuxPopulateWrite)?;
        }
        if !self.huge {
            // Not all kernels have these; then the pages are small, and come when they are mapped
            // for the device.
            let _ = self.advise(Advice::LinuxHugepage);
            match self.advise(Advice::LinuxPopulateWrite) {
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        // SAFETY: the bytes are ours; none of the advices given here takes them away or changes
        // them.
        unsafe { rustix::mm::madvise(self.base.as_ptr().cast(), self.len, advice) }
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The memory, for a mapping.
    pub(crate) fn source(&self) -> Source<'_> {
        Source {
            pointer: self.base,
            file: self.file.as_ref().map(AsFd::as_fd),
        }
    }

    /// Bytes.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether these are transparent huge pages of a file.
    pub(crate) fn is_collapsed(&self) -> bool {
        self.collapsed
    }

    /// Whether these are huge pages that were set aside.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the memory is ours, and whoever was told its address must have done with it.
        unsafe { unmap(self.base, self.len) };
    }
}

/// A file without a name, of a length that is sealed, in huge pages that were set aside if `huge`.
pub(crate) fn nameless(len: usize, huge: bool) -> Result<OwnedFd, Errno> {
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if huge {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    }
    let file = rustix::fs::memfd_create("pagewire-dma", flags)?;
    rustix::fs::ftruncate(&file, len as u64)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// New memory where the kernel likes to put it.
fn map(len: usize, flags: MapFlags) -> Result<NonNull<u8>, Errno> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, access, flags) }?;
    NonNull::new(start.cast()).ok_or(Errno::NOMEM)
}

/// Unmaps `len` bytes, or none if `len` is 0.
///
/// # Safety
/// Nobody uses them.
unsafe fn unmap(start: NonNull<u8>, len: usize) {
    if len > 0 {
        let start: *mut c_void = start.as_ptr().cast();
        // SAFETY: the caller's promise.
        let unmapped = unsafe { rustix::mm::munmap(start, len) };
        if let Err(errno) = unmapped {
            log::warn!("{len} bytes could not be unmapped: {errno}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_writable() {
        for len in [4096, HUGE, HUGE + 4096] {
            for huge in [false, true] {
                let pages = Pages::new(len, huge).unwrap();
                assert!(pages.base().addr().get().is_multiple_of(HUGE));
                assert_eq!(pages.len(), len);
                // SAFETY: the memory is ours and has `len` bytes.
                let bytes = unsafe { std::slice::from_raw_parts_mut(pages.base().as_ptr(), len) };
                assert!(bytes.iter().all(|byte| *byte == 0));
                bytes.fill(0xa5);
            }
        }
        assert_eq!(Pages::new(0, false).err(), Some(Errno::INVAL));
        assert!(Pages::new(usize::MAX - 4095, true).is_err());
    }

    #[test]
    fn shared_memory_is_that_of_its_file() {
        let pages = Pages::shared(HUGE + 4096).unwrap();
        assert!(pages.base().addr().get().is_multiple_of(HUGE));
        let file = pages.source().file.unwrap();
        // SAFETY: the memory is ours, and longer than that.
        let place = unsafe { pages.base().add(4097) };
        // SAFETY: as above.
        unsafe { place.write_volatile(0x77) };
        let mut byte = [0];
        rustix::io::pread(file, &mut byte, 4097).unwrap();
        assert_eq!(byte, [0x77]);
        // Whoever has mapped it relies on its length.
        assert_eq!(rustix::fs::ftruncate(file, 1), Err(Errno::PERM));
        assert_eq!(Pages::shared(0).err(), Some(Errno::INVAL));
        assert!(Pages::new(4096, false).unwrap().source().file.is_none());
    }

    #[test]
    fn shared_memory_is_in_huge_pages_if_that_can_be() {
        let pages = Pages::shared_huge(2 * HUGE).unwrap();
        let wanted = format!("{:x}-", pages.base().addr());
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = smaps.lines().skip_while(|line| !line.starts_with(&wanted));
        let mapped = ours
            .skip(1)
            .find(|line| line.starts_with("ShmemPmdMapped:"));
        println!(
            "set aside: {}, {}",
            pages.is_huge(),
            mapped.unwrap_or_default()
        );
        // SAFETY: the memory is ours and has as many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(pages.base().as_ptr(), 2 * HUGE) };
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_child_does_not_get_the_memory() {
        let pages = Pages::new(HUGE, false).unwrap();
        let wanted = format!("{:x}-", pages.base().addr());
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let ours = smaps.lines().skip_while(|line| !line.starts_with(&wanted));
        let flags = ours.skip(1).find(|line| line.starts_with("VmFlags:"));
        let flags = flags.expect("the mapping has flags");
        assert!(flags.split_whitespace().any(|flag| flag == "dc"), "{flags}");
    }
}
