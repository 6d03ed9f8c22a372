//! Memory of the program that can be lent to a device.

use core::any::Any;
use core::fmt;
use core::ptr::NonNull;

use crate::{DeviceAddress, DmaMemory, DomainId, Granule, Sharing, Translation};

/// Memory that is mapped for a device and whose bytes stay as they are while it is lent.
///
/// Registered once, lent many times. The value keeps the mapping alive.
///
/// # Safety
/// - [`base`](Self::base) is valid for reads of [`len`](Self::len) initialised bytes (at most
///   `isize::MAX`), on any thread, until the value is dropped. Base, length, domain and
///   translation never change, also when the value is moved.
/// - While the value is in a ledger and lent, no byte of it changes: not by this program, and
///   not by another process. Where [`sharing`](Self::sharing) has a watcher, that holds for the
///   pages that the watcher was told of; for live bytes it does not hold, and reads may fail with
///   a signal, so nobody reads them through [`base`](Self::base).
/// - Every device of [`domain`](Self::domain) reads these same bytes, and may read all of them,
///   at the addresses of [`translation`](Self::translation) until the value is dropped, which it
///   may be on any thread. If it never is (`mem::forget`), that stays so for ever.
/// - The length of the translation is [`len`](Self::len).
pub unsafe trait Region: Any + Send + Sync {
    /// First byte, for the CPU.
    fn base(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whose addresses the translation has.
    fn domain(&self) -> DomainId;
    /// Where the device finds the bytes.
    fn translation(&self) -> Translation<'_>;
    /// Who keeps the bytes as they are while they are lent; always the same kind.
    fn sharing(&self) -> Sharing<'_> {
        Sharing::Owned
    }
}

/// A buffer in DMA memory: written while it is owned, then shared (`Arc`) as a [`Region`] and
/// constant as long as it is.
pub struct DmaBuffer<M: DmaMemory> {
    base: NonNull<u8>,
    len: usize,
    domain: DomainId,
    address: [DeviceAddress; 1],
    /// Keeps the bytes; only looked at through `&mut self`, as `M` need not be `Sync`.
    _memory: M,
}

impl<M: DmaMemory> DmaBuffer<M> {
    /// All of `memory` as a buffer.
    pub fn new(memory: M) -> Self {
        Self {
            base: memory.pointer(),
            len: memory.len(),
            domain: memory.domain(),
            address: [memory.address()],
            _memory: memory,
        }
    }

    /// Shortens the buffer to its first `len` bytes; does nothing if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `DmaMemory` promises initialised bytes that stay there, also when it is moved,
        // and belong to us; they only change through `&mut self`, as no device is told to write
        // here.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The bytes, to write.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` excludes every other access, and a buffer that is lent
        // is behind an `Arc` of which the ledger has a share, so nobody has `&mut` to it.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl<M: DmaMemory> fmt::Debug for DmaBuffer<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuffer")
            .field("address", &self.address[0])
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

// SAFETY: the bytes belong to the value, and the memory that keeps them is `Send`.
unsafe impl<M: DmaMemory> Send for DmaBuffer<M> {}

// SAFETY: a shared buffer gives out `&[u8]` and numbers only, and does not look at the memory.
unsafe impl<M: DmaMemory> Sync for DmaBuffer<M> {}

// SAFETY: `DmaMemory` promises a stable address and a mapping that lives as long as the value;
// bytes change only through `&mut self`, which nobody has while an `Arc` is in a ledger; the
// memory is contiguous for the device, so one address translates all of it.
unsafe impl<M: DmaMemory> Region for DmaBuffer<M> {
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn translation(&self) -> Translation<'_> {
        let addresses: &[DeviceAddress] = if self.len == 0 { &[] } else { &self.address };
        Translation::contiguous(self.len, addresses)
    }
}

/// Bytes of which the platform knows where the device finds them, granule by granule: a
/// [`Region`] for whoever has a page table, an IOMMU or physical memory at hand.
///
/// `A` holds the addresses and whatever keeps the mapping: it is dropped with the region, and its
/// drop may undo the mapping. A `Vec`, a static slice, or a type of one's own with a `Drop`.
#[derive(Debug)]
pub struct PagedRegion<A> {
    base: NonNull<u8>,
    len: usize,
    granule: Granule,
    domain: DomainId,
    addresses: A,
}

impl<A: AsRef<[DeviceAddress]>> PagedRegion<A> {
    /// `len` bytes at `base`, which need not begin a granule: address `i` is where the device
    /// finds the first byte of the `i`-th granule that the bytes touch, granules being counted
    /// from the multiple of their size at or below `base`. For [`Granule::CONTIGUOUS`] there is
    /// one address, that of `base` itself.
    ///
    /// `None` if there are not exactly as many addresses as granules touched.
    ///
    /// # Safety
    /// What [`Region`] promises of its bytes and addresses holds for these until `addresses` is
    /// dropped, and no byte changes until then, lent or not. `addresses.as_ref()` is always the
    /// same.
    pub unsafe fn new(
        base: NonNull<u8>,
        len: usize,
        granule: Granule,
        domain: DomainId,
        addresses: A,
    ) -> Option<Self> {
        let region = Self {
            base,
            len,
            granule,
            domain,
            addresses,
        };
        region.translate().is_some().then_some(region)
    }

    fn translate(&self) -> Option<Translation<'_>> {
        let addresses = self.addresses.as_ref();
        if self.granule == Granule::CONTIGUOUS {
            let needed = usize::from(self.len > 0);
            return (addresses.len() == needed)
                .then(|| Translation::contiguous(self.len, addresses));
        }
        let lead = self.base.addr().get() & (self.granule.bytes() - 1);
        Translation::new(self.granule, lead, self.len, addresses)
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `new` promised initialised bytes that stay there, unchanged, while the value
        // lives.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

// SAFETY: `new` promised that the bytes may be read on any thread; the pointer is only handed out,
// and the addresses are shared and dropped as `A` allows.
unsafe impl<A: Send> Send for PagedRegion<A> {}
// SAFETY: as above.
unsafe impl<A: Sync> Sync for PagedRegion<A> {}

// SAFETY: promised by the caller of `new` for these bytes and addresses, which nothing in here
// changes; the translation has been checked there to exist, and has the length of the region.
unsafe impl<A> Region for PagedRegion<A>
where
    A: AsRef<[DeviceAddress]> + Send + Sync + 'static,
{
    fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn domain(&self) -> DomainId {
        self.domain
    }

    fn translation(&self) -> Translation<'_> {
        // Never `None`, as `new` has looked; no byte is translated then.
        self.translate().unwrap_or(Translation::contiguous(0, &[]))
    }
}

/// Bytes that do not move and do not change while the value exists unborrowed mutably: what a
/// platform can map for a device and hand out as a [`Region`]; nothing in this crate takes it.
///
/// # Safety
/// [`bytes`](Self::bytes) returns the same memory each time, also after the value has been
/// moved, and no byte of it changes (not by another process either) as long as nobody has
/// `&mut` to the value.
///
/// Who keeps the address of the bytes takes it after the last move of the value, in an `Arc`
/// say: moving a `Box` ends the validity of pointers made before, even if no byte moves.
pub unsafe trait FixedBytes: Send + Sync + 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

// SAFETY: a static slice is immutable and stays where it is.
unsafe impl FixedBytes for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

#[cfg(feature = "alloc")]
// SAFETY: the bytes are on the heap, so moving the value does not move them, and they change
// only through `&mut`.
unsafe impl FixedBytes for alloc::vec::Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

#[cfg(feature = "alloc")]
// SAFETY: as for `Vec`.
unsafe impl FixedBytes for alloc::boxed::Box<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

#[cfg(feature = "alloc")]
// SAFETY: the bytes are on the heap; `Arc` gives `&mut` to nobody while it is shared.
unsafe impl FixedBytes for alloc::sync::Arc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

#[cfg(all(test, feature = "alloc"))]
#[path = "region_tests.rs"]
mod tests;
