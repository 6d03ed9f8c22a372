//! Bytes of the program for the device to read: mapped where they are.

use std::fmt;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{
    DeviceAddress, DomainId, FixedBytes, Granule, Lendable, Region, Sharing, Translation,
};

use crate::VfioError;
use crate::iommu::{Access, Source};
use crate::space::{Mapping, Space};

/// Bytes of the program as a [`Region`]: the device reads them where they lie. Nothing is copied.
///
/// Mapped for the device, read-only, when it is registered, and unmapped when dropped; until then
/// the pages are locked in memory. Pages are mapped whole: what lies beside the bytes in the first
/// and the last of them could be read by the device too, so begin and end buffers with a page if
/// the neighbours are secret.
///
/// If the system refuses to unmap (it should not), the bytes are never freed.
pub struct VfioRegion<B: Lendable> {
    mapping: Mapping,
    /// Where pages are kept apart: of every second page.
    second: Option<Mapping>,
    base: NonNull<u8>,
    len: usize,
    granule: Granule,
    /// Bytes before the first in its page, where pages are kept apart; else 0.
    lead: usize,
    addresses: Box<[DeviceAddress]>,
    // On the heap, so that the bytes' owner is not moved any more once there are pointers to
    // the bytes. Dropped by `drop`, if the device cannot reach them any more.
    bytes: ManuallyDrop<Box<B>>,
}

// SAFETY: the pointer is only handed out; the bytes are `Send` and `Sync` as all `Lendable`.
unsafe impl<B: Lendable> Send for VfioRegion<B> {}
// SAFETY: as above.
unsafe impl<B: Lendable> Sync for VfioRegion<B> {}

/// Whether a fragment may reach from one page of a region into the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pages {
    /// A region is contiguous for the device.
    Joined,
    /// Its pages are not: each but the first begins a fragment.
    Apart,
}

impl<B: Lendable> VfioRegion<B> {
    pub(crate) fn new(
        space: &Arc<Space>,
        bytes: B,
        limit: u64,
        pages: Pages,
        file: impl Fn(&B) -> Option<BorrowedFd<'_>>,
    ) -> Result<Self, VfioError> {
        let bytes = Box::new(bytes);
        let (base, len) = (bytes.base(), bytes.len());
        if len == 0 {
            return Err(VfioError::Empty);
        }
        let page = space.page() as usize;
        let lead = base.addr().get() & (page - 1);
        // The last page ends inside the address space: Rust's objects have at most `isize::MAX`
        // bytes, and none lies at its very end.
        let size = (lead + len).next_multiple_of(page) as u64;
        let first = NonNull::new(base.as_ptr().wrapping_byte_sub(lead)).ok_or(VfioError::Empty)?;
        // Another region, or the other mapping of this one, must not follow its last page either.
        let gap = match pages {
            Pages::Joined => 0,
            Pages::Apart => space.page(),
        };
        let map = |bytes: &B| {
            let source = Source {
                pointer: first,
                // Only what begins with a page is the beginning of a file.
                file: file(bytes).filter(|_| lead == 0),
            };
            // SAFETY: `Lendable` promises that the bytes stay while their owner lives, which is
            // dropped in `drop` only, after the mappings, or here, if there are none. So the pages
            // stay in which they lie. The device reads only.
            unsafe { space.map_before_gap(source, size, gap, 1, Access::Read, limit) }
        };
        let mapping = map(&bytes)?;
        let mut region = Self {
            granule: Granule::CONTIGUOUS,
            lead: 0,
            addresses: Box::new([mapping.address().offset(lead as u64)]),
            mapping,
            second: None,
            base,
            len,
            bytes: ManuallyDrop::new(bytes),
        };
        // A single page cannot be joined with another of its region.
        if pages == Pages::Apart && size > page as u64 {
            region.second = Some(map(&region.bytes)?);
            region.keep_apart(page, size as usize / page, lead);
        }
        Ok(region)
    }

    /// Takes the addresses of the pages from the two mappings by turns: so none follows the one
    /// before it.
    fn keep_apart(&mut self, page: usize, count: usize, lead: usize) {
        let Some((second, granule)) = self.second.as_ref().zip(Granule::from_bytes(page)) else {
            return;
        };
        let starts = [self.mapping.address(), second.address()];
        let starts = starts.iter().cycle().take(count).enumerate();
        self.addresses = starts
            .map(|(index, start)| start.offset((index * page) as u64))
            .collect();
        self.granule = granule;
        self.lead = lead;
    }

    /// Takes the bytes away from the device, and keeps their addresses from being used again: for a
    /// test of the IOMMU. `None` if the system refuses; the bytes are then never freed.
    #[must_use]
    pub fn withdraw(mut self) -> Option<Withdrawn<B>> {
        let second = self.second.as_mut().is_none_or(Mapping::withdraw);
        (self.mapping.withdraw() && second).then_some(Withdrawn { region: self })
    }
}

impl<B: FixedBytes> VfioRegion<B> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.bytes()
    }
}

/// Bytes that were mapped for a device and are not any more, at addresses that nobody else gets
/// before the value is dropped. The device finds nothing there; if it does all the same, what it
/// reads and writes are these bytes, which nobody uses.
#[derive(Debug)]
pub struct Withdrawn<B: Lendable> {
    region: VfioRegion<B>,
}

impl<B: FixedBytes> Withdrawn<B> {
    /// Where the device found the first byte. All others followed it there.
    #[must_use]
    pub fn address(&self) -> DeviceAddress {
        let lead = self.region.base.addr().get() as u64 & (self.region.mapping.space().page() - 1);
        self.region.mapping.address().offset(lead)
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.region.len
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.region.len == 0
    }

    /// The bytes as they are now, whoever has changed them.
    #[must_use]
    pub fn copy(&self) -> Vec<u8> {
        let one = |index| {
            // SAFETY: `index` is less than the length of the region.
            let place = unsafe { self.region.base.add(index) };
            // SAFETY: `Lendable` promises that this byte is there as long as the region is. It is
            // read as memory that others change: a device may, if its IOMMU does not work.
            unsafe { place.read_volatile() }
        };
        (0..self.region.len).map(one).collect()
    }
}

impl<B: Lendable> Drop for VfioRegion<B> {
    fn drop(&mut self) {
        let second = self.second.as_mut().is_none_or(Mapping::unmap);
        if self.mapping.unmap() && second {
            // SAFETY: the value is never used again, nor taken anywhere else.
            unsafe { ManuallyDrop::drop(&mut self.bytes) };
        }
    }
}

impl<B: Lendable> fmt::Debug for VfioRegion<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.mapping.address();
        write!(
            f,
            "VfioRegion({} bytes in pages from {address:?})",
            self.len
        )
    }
}

// SAFETY: the base and the bytes stay as `Lendable` promises, for nobody gets `&mut` to their
// owner while the region lives, and are kept as `sharing` says. The mapping covers all of them, in a row, in the address space of
// the domain, and lives as long (where there are two, each covers all); the device reads the same
// pages, which are locked.
unsafe impl<B: Lendable> Region for VfioRegion<B> {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.mapping.space().domain()
    }

    fn sharing(&self) -> Sharing<'_> {
        self.bytes.sharing()
    }

    fn translation(&self) -> Translation<'_> {
        if self.granule == Granule::CONTIGUOUS {
            return Translation::contiguous(self.len, &self.addresses);
        }
        // Never `None`: there is an address for each page. No byte is translated then.
        Translation::new(self.granule, self.lead, self.len, &self.addresses)
            .unwrap_or(Translation::contiguous(0, &[]))
    }
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
