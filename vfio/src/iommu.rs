//! The one trait above the two ways to a device.

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::str::FromStr;

use rustix::io::Errno;

/// A way to a device that Linux's VFIO offers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Api {
    /// The device's own file with iommufd: Linux 6.6 and later.
    Cdev,
    /// A group in a container.
    Group,
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cdev => "device file API (cdev, iommufd)",
            Self::Group => "group API",
        })
    }
}

/// The text names no API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseApiError(String);

impl fmt::Display for ParseApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there is no API {:?}: `cdev` or `group` is meant",
            self.0
        )
    }
}

impl std::error::Error for ParseApiError {}

impl FromStr for Api {
    type Err = ParseApiError;

    /// Reads `cdev` or `group`.
    fn from_str(text: &str) -> Result<Self, ParseApiError> {
        match text {
            "cdev" => Ok(Self::Cdev),
            "group" => Ok(Self::Group),
            _ => Err(ParseApiError(text.to_owned())),
        }
    }
}

/// What a device may do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    ReadWrite,
}

/// Memory that is to be mapped for a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// Where it is in this process.
    pub(crate) pointer: NonNull<u8>,
    /// The file whose first byte is there, if it is memory of a file.
    pub(crate) file: Option<BorrowedFd<'a>>,
}

impl From<NonNull<u8>> for Source<'_> {
    /// Memory of this process alone.
    fn from(pointer: NonNull<u8>) -> Self {
        Self {
            pointer,
            file: None,
        }
    }
}

/// The address space of a device, by either API or over a socket: what the rest of this crate is
/// written against.
pub(crate) trait Iommu: fmt::Debug + Send + Sync {
    /// The kernel's API behind it; `None` if it is not the kernel's.
    fn api(&self) -> Option<Api>;

    /// Whether only memory of files can be mapped, as the device is in another process.
    fn wants_files(&self) -> bool {
        false
    }

    /// The addresses that can be mapped, without those of other uses (the window of interrupt
    /// messages, say). May overlap.
    fn usable(&self) -> Vec<RangeInclusive<u64>>;

    /// What mappings consist of and are aligned to, in bytes: a power of two, at least the page
    /// of the system.
    fn page(&self) -> u64;

    /// Maps `len` bytes at `memory` at the device's address `iova`; all three are multiples of the
    /// page. The memory is locked until it is unmapped.
    ///
    /// # Safety
    /// The memory stays mapped in this process until [`unmap`](Self::unmap) has succeeded (or the
    /// value is gone), and nobody minds what the device may do with it until then.
    unsafe fn map(
        &self,
        memory: Source<'_>,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<(), Errno>;

    /// Undoes exactly one [`map`](Self::map). After an error the device may still reach the memory.
    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno>;

    /// What proves, for a reset of the bus, that the functions hit by it are ours.
    fn reset_owners(&self) -> Vec<BorrowedFd<'_>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apis_are_read_by_their_short_names() {
        assert_eq!("cdev".parse(), Ok(Api::Cdev));
        assert_eq!("group".parse(), Ok(Api::Group));
        let error = "Group".parse::<Api>().unwrap_err();
        assert!(error.to_string().contains("`cdev` or `group`"));
    }
}
