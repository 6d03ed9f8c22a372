//! Files of memory that a client shares with us.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use pagewire_vfio_user::Errno;
use rustix::fs::{OFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::copy;

/// A file of the client's memory.
///
/// It is mapped if nobody can make it shorter any more (F_SEAL_SHRINK; QEMU's memory-backend-memfd
/// seals so): a mapping whose file has become shorter ends the process that touches it. Any
/// other is read and written by system calls, which just fail then.
#[derive(Debug)]
pub(super) struct SharedFile {
    file: File,
    mapping: Option<Mapping>,
    writable: bool,
}

/// What tells one file from another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    writable: bool,
}

/// A file, mapped from its first byte on.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the pointer is for accesses by `copy` alone, from whatever thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl SharedFile {
    /// Which file it is, and whether it was opened for writing.
    pub(super) fn identify(file: &OwnedFd) -> Result<Identity, Errno> {
        let status = rustix::fs::fstat(file)?;
        let mode = rustix::fs::fcntl_getfl(file)?;
        Ok(Identity {
            device: status.st_dev,
            inode: status.st_ino,
            writable: mode & OFlags::ACCMODE == OFlags::RDWR,
        })
    }

    pub(super) fn new(file: OwnedFd, identity: Identity) -> Result<Self, Errno> {
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
        let cannot_be_written = SealFlags::WRITE | SealFlags::FUTURE_WRITE;
        let writable = identity.writable && !seals.intersects(cannot_be_written);
        let mapping = if seals.contains(SealFlags::SHRINK) {
            let mapping = Mapping::new(&file, writable);
            mapping
                .inspect_err(|errno| log::debug!("not mapped: {errno}"))
                .ok()
        } else {
            None
        };
        Ok(Self {
            file: File::from(file),
            mapping,
            writable,
        })
    }

    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether all `len` bytes from `offset` on can be reached, as far as is known now.
    pub(super) fn has(&self, offset: u64, len: u64) -> bool {
        let end = offset.checked_add(len);
        let there = match &self.mapping {
            Some(mapping) => mapping.len as u64,
            None => self.file.metadata().map_or(0, |file| file.len()),
        };
        end.is_some_and(|end| end <= there)
    }

    /// Fills `target` from `offset` on; whether all of it was there.
    pub(super) fn read(&self, offset: u64, target: &mut [u8]) -> bool {
        let Some(mapping) = &self.mapping else {
            return self.file.read_exact_at(target, offset).is_ok();
        };
        let Some(place) = mapping.place(offset, target.len()) else {
            return false;
        };
        // SAFETY: `place` checked that the bytes lie in the mapping, which is readable, and which
        // the file's seal keeps; only `copy` accesses it.
        unsafe { copy::load(place, target) };
        true
    }

    /// Writes `source` at `offset`; whether there was room for all of it.
    pub(super) fn write(&self, offset: u64, source: &[u8]) -> bool {
        if !self.writable {
            return false;
        }
        let Some(mapping) = &self.mapping else {
            // Not beyond the end: a file must not grow by it.
            return self.has(offset, source.len() as u64)
                && self.file.write_all_at(source, offset).is_ok();
        };
        let Some(place) = mapping.place(offset, source.len()) else {
            return false;
        };
        // SAFETY: as in `read`; the mapping is writable, as the file is.
        unsafe { copy::store(place, source) };
        true
    }
}

impl Mapping {
    fn new(file: &OwnedFd, writable: bool) -> Result<Self, Errno> {
        let len = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
        if len == 0 || len > isize::MAX as usize {
            return Err(Errno::INVAL);
        }
        let mut access = ProtFlags::READ;
        access.set(ProtFlags::WRITE, writable);
        let map = |flags| {
            // SAFETY: a new mapping at an address that the kernel chooses.
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), len, access, flags, file, 0) }
        };
        let mut start = map(MapFlags::SHARED | MapFlags::NORESERVE);
        if start.is_err() && !writable {
            // Linux before 6.7 maps what is sealed against writing in private only.
            start = map(MapFlags::PRIVATE | MapFlags::NORESERVE);
        }
        let base = NonNull::new(start?.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, len })
    }

    /// The `len` bytes at `offset`, if they lie in the mapping.
    fn place(&self, offset: u64, len: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: the offset is at most `len`, inside or at the end of one mapping.
        Some(unsafe { self.base.add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no pointer outlives a call of `read` or `write`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        if let Err(errno) = unmapped {
            log::warn!("{} bytes could not be unmapped: {errno}", self.len);
        }
    }
}
