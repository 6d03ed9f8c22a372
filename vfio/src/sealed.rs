//! Files in memory that nobody can change any more.

use std::fmt;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use pagewire_hal::FixedBytes;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};

use crate::VfioError;

/// A memfd that is sealed against writing and shrinking, mapped: bytes that no process can change,
/// not even one that has the file too. The one kind of shared memory that can be lent to a device
/// without watching it.
pub struct SealedFile {
    file: OwnedFd,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes cannot be changed, and the mapping belongs to the value.
unsafe impl Send for SealedFile {}
// SAFETY: as above.
unsafe impl Sync for SealedFile {}

impl SealedFile {
    /// A new sealed file with these bytes.
    ///
    /// # Errors
    /// [`VfioError::Empty`], or what the system said.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, VfioError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("pagewire", flags)
            .map_err(|errno| VfioError::system("cannot make a file in memory", errno))?;
        let mut file = std::fs::File::from(file);
        file.write_all(bytes)
            .map_err(|error| VfioError::io("cannot fill a file in memory", &error))?;
        let file = OwnedFd::from(file);
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)
            .map_err(|errno| VfioError::system("cannot seal a file in memory", errno))?;
        Self::new(file)
    }

    /// A memfd that is sealed already, from another process, say.
    ///
    /// # Errors
    /// [`VfioError::NotSealed`] if it can still be written or shortened, [`VfioError::Empty`], or
    /// what the system said.
    pub fn new(file: OwnedFd) -> Result<Self, VfioError> {
        // What is no memfd has no seals.
        let seals = rustix::fs::fcntl_get_seals(&file).map_err(|_| VfioError::NotSealed)?;
        if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK) {
            return Err(VfioError::NotSealed);
        }
        let status = rustix::fs::fstat(&file)
            .map_err(|errno| VfioError::system("cannot look at a sealed file", errno))?;
        let len = usize::try_from(status.st_size).unwrap_or(0);
        if len == 0 || len > isize::MAX as usize {
            return Err(VfioError::Empty);
        }
        // Linux before 6.7 maps what is sealed against writing as a private mapping only; the
        // device then gets a copy of the pages, which are equal.
        let base = map(&file, len, MapFlags::SHARED)
            .or_else(|_| map(&file, len, MapFlags::PRIVATE))
            .map_err(|errno| VfioError::system("cannot map a sealed file", errno))?;
        Ok(Self { file, base, len })
    }
}

fn map(file: &OwnedFd, len: usize, flags: MapFlags) -> Result<NonNull<u8>, Errno> {
    let place = std::ptr::null_mut();
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe { rustix::mm::mmap(place, len, ProtFlags::READ, flags, file, 0) }?;
    NonNull::new(start.cast()).ok_or(Errno::NOMEM)
}

// SAFETY: the seals, which cannot be taken off, promise that neither the bytes nor the length
// change; the mapping stays where it is until the value is dropped.
unsafe impl FixedBytes for SealedFile {
    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped from `base` on, the file has as many and cannot get
        // shorter, and nobody writes them.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl AsFd for SealedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and no reference outlives the value.
        if let Err(errno) = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) } {
            log::warn!("a sealed file could not be unmapped: {errno}");
        }
    }
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedFile({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_can_be_read_and_not_be_changed() {
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i * 7) as u8).collect();
        let sealed = SealedFile::copy_of(&bytes).unwrap();
        assert_eq!(sealed.bytes(), bytes);
        assert_eq!(rustix::io::pwrite(&sealed, &[1], 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::ftruncate(&sealed, 1), Err(Errno::PERM));
        // Another process gets the same bytes by the file alone.
        let copy = sealed.as_fd().try_clone_to_owned().unwrap();
        assert_eq!(SealedFile::new(copy).unwrap().bytes(), bytes);
        assert_eq!(SealedFile::copy_of(&[]).err(), Some(VfioError::Empty));
    }

    #[test]
    fn what_can_still_change_is_refused() {
        let refused = |seals: SealFlags| {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
            let file = rustix::fs::memfd_create("pagewire-test", flags).unwrap();
            rustix::fs::ftruncate(&file, 4096).unwrap();
            rustix::fs::fcntl_add_seals(&file, seals).unwrap();
            SealedFile::new(file).err() == Some(VfioError::NotSealed)
        };
        assert!(refused(SealFlags::empty()));
        assert!(refused(SealFlags::WRITE));
        assert!(refused(SealFlags::SHRINK));
        assert!(refused(SealFlags::SHRINK | SealFlags::FUTURE_WRITE));
        assert!(!refused(SealFlags::SHRINK | SealFlags::WRITE));
        let ordinary = std::fs::File::open("/proc/self/exe").unwrap();
        let refused = SealedFile::new(ordinary.into());
        assert_eq!(refused.err(), Some(VfioError::NotSealed));
    }
}
