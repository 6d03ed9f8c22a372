//! The address space of a device: which addresses are free, and what is mapped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagewire_hal::{DeviceAddress, DomainId};
use rustix::io::Errno;

use crate::VfioError;
use crate::iommu::{Access, Iommu, Source};
use crate::memlock::Memlock;
use crate::pages::HUGE;
use crate::ranges::Ranges;

/// The lock, also after a panic of another holder: what is behind it is changed in one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The address space of a device.
#[derive(Debug)]
pub(crate) struct Space {
    iommu: Box<dyn Iommu>,
    free: Mutex<Ranges>,
    page: u64,
    domain: DomainId,
    mapped: AtomicU64,
    stranded: AtomicU64,
}

impl Space {
    pub(crate) fn new(iommu: Box<dyn Iommu>) -> Result<Arc<Self>, VfioError> {
        let page = iommu.page();
        if !page.is_power_of_two() {
            return Err(VfioError::Nonsense("a page size that is no power of two"));
        }
        let mut free = Ranges::new(iommu.usable(), page);
        // Address 0 is left alone: to some it means that there is nothing.
        let _unused = free.take(page, page, 0, page - 1);
        Ok(Arc::new(Self {
            iommu,
            free: Mutex::new(free),
            page,
            domain: DomainId::new_unique(),
            mapped: AtomicU64::new(0),
            stranded: AtomicU64::new(0),
        }))
    }

    pub(crate) fn domain(&self) -> DomainId {
        self.domain
    }

    pub(crate) fn iommu(&self) -> &dyn Iommu {
        &*self.iommu
    }

    /// What mappings consist of, in bytes.
    pub(crate) fn page(&self) -> u64 {
        self.page
    }

    /// Bytes that are mapped for the device, and so locked.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Bytes that could not be unmapped, and are never given back.
    pub(crate) fn stranded(&self) -> u64 {
        self.stranded.load(Ordering::Relaxed)
    }

    /// The free addresses.
    pub(crate) fn free(&self) -> Vec<std::ops::RangeInclusive<u64>> {
        lock(&self.free).iter().collect()
    }

    /// Whether there are `len` addresses in a row of at most `limit`, the first a multiple of
    /// `align`, now: to be asked before memory is fetched that then could not be mapped.
    pub(crate) fn has_room(&self, len: u64, align: u64, limit: u64) -> Result<(), VfioError> {
        let align = align.max(self.page);
        let mut copy = lock(&self.free).clone();
        let taken = copy.take(len, align, 0, limit);
        taken
            .map(drop)
            .ok_or_else(|| no_addresses(&copy, len, align, limit))
    }

    /// Maps `len` bytes at `memory`, both multiples of [`page`](Self::page), for the device, at
    /// addresses of at most `limit`. Where there is room, memory of 2 MiB and more lies as far from
    /// a multiple of that for the device as for the CPU: so the IOMMU can use huge pages. As far
    /// from a multiple of `align`, a power of two of at most 2 MiB, it always lies.
    ///
    /// # Safety
    /// The memory stays mapped in this process until [`Mapping::unmap`] has returned true, and
    /// nobody minds what the device may do with it until then.
    pub(crate) unsafe fn map<'a>(
        self: &Arc<Self>,
        memory: impl Into<Source<'a>>,
        len: u64,
        align: u64,
        access: Access,
        limit: u64,
    ) -> Result<Mapping, VfioError> {
        // SAFETY: the caller's promise.
        unsafe { self.map_before_gap(memory, len, 0, align, access, limit) }
    }

    /// As [`map`](Self::map), and nobody gets the `gap` addresses behind it, a multiple of
    /// [`page`](Self::page): so nothing else follows there.
    ///
    /// # Safety
    /// As for [`map`](Self::map).
    pub(crate) unsafe fn map_before_gap<'a>(
        self: &Arc<Self>,
        memory: impl Into<Source<'a>>,
        len: u64,
        gap: u64,
        align: u64,
        access: Access,
        limit: u64,
    ) -> Result<Mapping, VfioError> {
        let memory = memory.into();
        let taken = len.saturating_add(gap);
        let iova = self.take(memory.pointer.addr().get() as u64, taken, align, limit)?;
        // SAFETY: the caller's promise; the value that is returned unmaps.
        let mapped = unsafe { self.iommu.map(memory, len, iova, access) };
        if let Err(errno) = mapped {
            self.put(iova, taken);
            return Err(self.explain(errno, len));
        }
        self.mapped.fetch_add(len, Ordering::Relaxed);
        Ok(Mapping {
            space: Arc::clone(self),
            iova,
            len,
            gap,
            is_mapped: true,
            is_taken: true,
        })
    }

    fn take(&self, memory: u64, len: u64, align: u64, limit: u64) -> Result<u64, VfioError> {
        let huge = HUGE as u64;
        let mut free = lock(&self.free);
        if len >= huge && self.page < huge {
            let lead = memory & (huge - 1);
            if let Some(iova) = free.take(len, huge, lead, limit) {
                return Ok(iova);
            }
        }
        let align = align.max(self.page);
        let anywhere = free.take(len, align, memory & (align - 1), limit);
        anywhere.ok_or_else(|| no_addresses(&free, len, align, limit))
    }

    fn put(&self, iova: u64, len: u64) {
        if !lock(&self.free).put(iova, len) {
            log::error!("{len} bytes at {iova:#x} were given back twice");
        }
    }

    fn explain(&self, errno: Errno, wanted: u64) -> VfioError {
        let memlock = self.iommu.api().map(Memlock::now);
        if let Some(memlock) = memlock
            && errno == Errno::NOMEM
            && memlock.forbids(wanted)
        {
            return VfioError::MemlockTooSmall { wanted, memlock };
        }
        let doing = match errno {
            Errno::NOSPC => {
                "no more mappings are possible for this device: register larger regions"
            }
            _ => "cannot map memory for the device",
        };
        VfioError::system(doing, errno)
    }
}

fn no_addresses(free: &Ranges, wanted: u64, align: u64, limit: u64) -> VfioError {
    let lengths = free.iter().filter_map(|range| {
        let first = range.start().checked_next_multiple_of(align)?;
        (*range.end()).min(limit).checked_sub(first)
    });
    VfioError::NoAddresses {
        wanted,
        longest: lengths.max().map_or(0, |most| most.saturating_add(1)),
    }
}

/// Memory that is mapped for the device, until it is unmapped or dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    space: Arc<Space>,
    iova: u64,
    len: u64,
    /// Addresses behind it that nobody else gets.
    gap: u64,
    is_mapped: bool,
    /// The addresses are nobody else's.
    is_taken: bool,
}

impl Mapping {
    /// Where the device finds the first byte.
    pub(crate) fn address(&self) -> DeviceAddress {
        DeviceAddress(self.iova)
    }

    pub(crate) fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Takes the memory away from the device. If this returns false the system has refused: the
    /// device may reach the memory as long as the program runs, so it must not be freed or used
    /// for anything else. Asked again, the answer is the same.
    #[must_use]
    pub(crate) fn unmap(&mut self) -> bool {
        let unmapped = self.withdraw();
        if unmapped && self.is_taken {
            self.is_taken = false;
            self.space.put(self.iova, self.len.saturating_add(self.gap));
        }
        unmapped
    }

    /// The same, but the addresses are not given to anybody else yet: [`unmap`](Self::unmap), or
    /// the drop, gives them back.
    #[must_use]
    pub(crate) fn withdraw(&mut self) -> bool {
        if !self.is_mapped {
            return self.len > 0;
        }
        self.is_mapped = false;
        if let Err(errno) = self.space.iommu.unmap(self.iova, self.len) {
            let Self { iova, len, .. } = self;
            log::error!("{len} bytes at {iova:#x} could not be unmapped ({errno}): they leak");
            self.space.stranded.fetch_add(self.len, Ordering::Relaxed);
            // What is not free is never given back.
            self.len = 0;
            self.is_taken = false;
            return false;
        }
        self.space.mapped.fetch_sub(self.len, Ordering::Relaxed);
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let _ = self.unmap();
    }
}

#[cfg(test)]
#[path = "space_tests.rs"]
mod tests;
