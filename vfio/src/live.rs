//! Files that are sent as they are at the moment.

use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use pagewire_hal::{Lendable, Live, Sharing};
use rustix::mm::{MapFlags, ProtFlags};

use crate::VfioError;

/// A range of a file, mapped shared and for reading: the pages of the system's cache themselves go
/// out. The policy *live file*.
///
/// # What is promised, and no more
/// No access outside of the mapping, and a well-formed checksum of whatever was sent. The bytes are
/// those that the file has when the device reads them: who writes to the file changes what is sent,
/// and a retransmission may differ from the first transmission. The file can be renamed, removed,
/// written, shortened and can grow while it is sent; of what was cut off the device sends the old
/// bytes or zeros, and a CPU that has to copy sends zeros.
///
/// Nobody gets a slice of the bytes: a page beyond the end of a file that became shorter would end
/// the process with SIGBUS. Whoever copies reads the file.
pub struct LiveFile {
    file: File,
    offset: u64,
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the pointer is only handed out; the mapping belongs to the value.
unsafe impl Send for LiveFile {}
// SAFETY: as above; a file can be read from any thread.
unsafe impl Sync for LiveFile {}

impl LiveFile {
    /// Maps `len` bytes from `offset` on, a multiple of the system's page, of a regular file that
    /// is open for reading. The range may reach beyond the file's end, but not so that a page of
    /// it has no byte of the file when it is mapped for a device: that fails then.
    ///
    /// # Errors
    /// [`VfioError::Empty`], or what the system said.
    pub fn map(file: File, offset: u64, len: usize) -> Result<Self, VfioError> {
        if len == 0 || isize::try_from(len).is_err() {
            return Err(VfioError::Empty);
        }
        let place = std::ptr::null_mut();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            rustix::mm::mmap(place, len, ProtFlags::READ, MapFlags::SHARED, &file, offset)
        };
        let start = start.map_err(|errno| VfioError::system("cannot map a file", errno))?;
        let base = NonNull::new(start.cast()).ok_or(VfioError::Empty)?;
        Ok(Self {
            file,
            offset,
            base,
            len,
        })
    }

    /// Copies bytes of a file as they are now; zeros behind its end.
    ///
    /// # Errors
    /// What the system says; the rest is zeros.
    pub fn read(file: &File, offset: u64, into: &mut [u8]) -> std::io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset.saturating_add(filled as u64)) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    rest.fill(0);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Offset in the file of the first byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

// SAFETY: the mapping is there until the value is dropped, and stays where it is. Reads of it may
// fail with a signal, which `Sharing::Live` allows.
unsafe impl Lendable for LiveFile {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn sharing(&self) -> Sharing<'_> {
        Sharing::Live(self)
    }
}

impl Live for LiveFile {
    fn copy_to(&self, start: usize, into: &mut [u8]) {
        if let Err(error) = Self::read(&self.file, self.offset + start as u64, into) {
            log::warn!("a file that is being sent cannot be read: {error}");
        }
    }
}

impl Drop for LiveFile {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and nobody has it any more: who maps it for a
        // device owns the value until that is over, and no slice of it is ever made.
        if let Err(errno) = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) } {
            log::warn!("a file could not be unmapped: {errno}");
        }
    }
}

impl fmt::Debug for LiveFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveFile({} bytes from {:#x})", self.len, self.offset)
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
