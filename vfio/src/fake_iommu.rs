//! An IOMMU that keeps books, and fails when it is told to.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;

use crate::iommu::{Access, Api, Iommu, Source};
use crate::space::lock;

/// What a call fails with, after how many that succeed.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    left: AtomicU32,
    errno: AtomicU32,
}

impl Fault {
    /// The call after `calls` more fails, and all that follow, until the fault is cleared.
    pub(crate) fn after(&self, calls: u32, errno: Errno) {
        self.left.store(calls, Ordering::Relaxed);
        self.errno
            .store(errno.raw_os_error() as u32, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.errno.store(0, Ordering::Relaxed);
    }

    fn check(&self) -> Result<(), Errno> {
        let errno = self.errno.load(Ordering::Relaxed);
        if errno == 0 {
            return Ok(());
        }
        let left = self.left.load(Ordering::Relaxed);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
            return Ok(());
        }
        Err(Errno::from_raw_os_error(errno as i32))
    }
}

/// What the IOMMU knows of a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapped {
    pub(crate) memory: usize,
    pub(crate) len: u64,
    pub(crate) access: Access,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    /// By device address.
    pub(crate) mapped: Mutex<BTreeMap<u64, Mapped>>,
    pub(crate) map: Fault,
    pub(crate) unmap: Fault,
}

#[derive(Debug)]
pub(crate) struct FakeIommu {
    pub(crate) books: Arc<Books>,
    pub(crate) usable: Vec<RangeInclusive<u64>>,
    pub(crate) page: u64,
}

impl FakeIommu {
    /// With the ranges of a PC, and the books to look into.
    pub(crate) fn new() -> (Box<Self>, Arc<Books>) {
        Self::with(vec![0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff])
    }

    pub(crate) fn with(usable: Vec<RangeInclusive<u64>>) -> (Box<Self>, Arc<Books>) {
        let books = Arc::new(Books::default());
        let iommu = Self {
            books: Arc::clone(&books),
            usable,
            page: 4096,
        };
        (Box::new(iommu), books)
    }
}

impl Iommu for FakeIommu {
    fn api(&self) -> Option<Api> {
        Some(Api::Group)
    }

    fn usable(&self) -> Vec<RangeInclusive<u64>> {
        self.usable.clone()
    }

    fn page(&self) -> u64 {
        self.page
    }

    unsafe fn map(
        &self,
        memory: Source<'_>,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<(), Errno> {
        self.books.map.check()?;
        let aligned = [memory.pointer.addr().get() as u64, len, iova]
            .iter()
            .all(|value| value.is_multiple_of(self.page));
        let last = iova + (len - 1);
        let usable = |range: &RangeInclusive<u64>| range.contains(&iova) && range.contains(&last);
        assert!(aligned, "{len} bytes at {iova:#x} are no whole pages");
        assert!(
            self.usable.iter().any(usable),
            "{iova:#x} to {last:#x} cannot be used"
        );
        let mut mapped = lock(&self.books.mapped);
        if let Some((before, other)) = mapped.range(..=last).next_back() {
            assert!(before + other.len <= iova, "{iova:#x} is mapped twice");
        }
        let memory = memory.pointer.addr().get();
        mapped.insert(
            iova,
            Mapped {
                memory,
                len,
                access,
            },
        );
        Ok(())
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), Errno> {
        self.books.unmap.check()?;
        let removed = lock(&self.books.mapped).remove(&iova);
        let removed = removed.expect("only what was mapped is unmapped");
        assert_eq!(removed.len, len, "part of a mapping was unmapped");
        Ok(())
    }

    fn reset_owners(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
}
