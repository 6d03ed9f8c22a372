//! What the tests of this crate share: a world of mappings, and memory in it whose device
//! addresses never equal its CPU addresses.

#![allow(clippy::unwrap_used, reason = "for tests only")]
#![allow(clippy::expect_used, reason = "for tests only")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec::Vec;

use proptest::test_runner::{Config, RngSeed};

use crate::*;

/// The seed of every randomised test: `PROPTEST_RNG_SEED`, or always the same.
pub(crate) fn seed() -> u64 {
    let set = std::env::var("PROPTEST_RNG_SEED").ok();
    set.and_then(|seed| seed.parse().ok())
        .unwrap_or(0x0070_6167)
}

/// A seeded configuration that writes no files.
pub(crate) fn config() -> Config {
    Config {
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..Config::default()
    }
}

#[derive(Debug)]
struct Mapping {
    address: u64,
    pointer: NonNull<u8>,
    len: usize,
}

// SAFETY: the pointer is only read through while its owner, which is `Send`, is alive.
unsafe impl Send for Mapping {}

#[derive(Debug, Default)]
struct Map {
    mappings: Vec<Mapping>,
    next: u64,
    freed: usize,
}

/// One IOMMU domain: what its device finds at which address.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) domain: DomainId,
    map: Arc<Mutex<Map>>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            domain: DomainId::new_unique(),
            map: Arc::default(),
        }
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// An address with `len` free bytes behind it; `gap` bytes after the last one given out.
    fn reserve(&self, len: usize, gap: u64) -> u64 {
        let mut map = self.map();
        let address = map.next.max(0x10_0000_0000) + gap;
        map.next = address + len as u64;
        address
    }

    /// Pieces of memory that have been freed.
    pub(crate) fn freed(&self) -> usize {
        self.map().freed
    }

    /// The bytes that the device reads; `None` where nothing is mapped (any more).
    pub(crate) fn read(&self, fragments: &[Fragment]) -> Option<Vec<u8>> {
        let map = self.map();
        let mut bytes = Vec::new();
        for fragment in fragments {
            for i in 0..u64::from(fragment.len) {
                let at = fragment.address.0 + i;
                let inside = |m: &&Mapping| at >= m.address && at - m.address < m.len as u64;
                let mapping = map.mappings.iter().find(inside)?;
                // SAFETY: the offset lies in a mapping.
                let pointer = unsafe { mapping.pointer.add((at - mapping.address) as usize) };
                // SAFETY: a mapping is removed before its memory is freed.
                bytes.push(unsafe { pointer.read_volatile() });
            }
        }
        Some(bytes)
    }

    pub(crate) fn memory(&self, len: usize, align: usize) -> HeapMemory {
        let layout = Layout::from_size_align(len.max(1), align.max(64)).unwrap();
        // SAFETY: the layout has at least one byte.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        let address = self.reserve(len, 0).next_multiple_of(align as u64);
        self.map().next = address + len as u64 + 4096;
        let mapping = Mapping {
            address,
            pointer,
            len,
        };
        self.map().mappings.push(mapping);
        HeapMemory {
            pointer,
            address,
            len,
            layout,
            world: self.clone(),
        }
    }

    /// A region of `data`, which begins `lead` bytes into a granule; between the granules `i`
    /// and `i + 1` the device sees a gap where `scattered(i)`.
    pub(crate) fn region(
        &self,
        granule: usize,
        lead: usize,
        data: &[u8],
        scattered: impl Fn(usize) -> bool,
    ) -> Arc<HeapRegion> {
        let end = lead + data.len();
        let layout = Layout::from_size_align(end.max(1), granule.clamp(64, 1 << 16)).unwrap();
        // SAFETY: the layout has at least one byte.
        let block = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        // SAFETY: `lead` bytes and the data lie in the block.
        let base = unsafe { block.add(lead) };
        // SAFETY: as above, and nobody else has the block yet.
        unsafe { base.copy_from_nonoverlapping(NonNull::from(data).cast(), data.len()) };
        let mut addresses = Vec::new();
        for index in 0..end.div_ceil(granule) {
            let gap = if index == 0 || scattered(index - 1) {
                granule
            } else {
                0
            };
            let address = self.reserve(granule, gap as u64);
            addresses.push(DeviceAddress(address));
            let start = (index * granule).max(lead);
            // SAFETY: `start` is at most `end`.
            let pointer = unsafe { block.add(start) };
            self.map().mappings.push(Mapping {
                address: address + (start - index * granule) as u64,
                pointer,
                len: ((index + 1) * granule).min(end) - start,
            });
        }
        Arc::new(HeapRegion {
            block,
            layout,
            base,
            len: data.len(),
            lead,
            granule: Granule::from_bytes(granule).unwrap(),
            addresses,
            world: self.clone(),
        })
    }

    fn unmap(&self, block: NonNull<u8>, layout: Layout) {
        let start = block.addr().get();
        let mut map = self.map();
        map.mappings
            .retain(|m| m.pointer.addr().get().wrapping_sub(start) >= layout.size());
        map.freed += 1;
        // SAFETY: the block was allocated with this layout and its owner is being dropped.
        unsafe { dealloc(block.as_ptr(), layout) };
    }
}

/// DMA memory from the heap.
#[derive(Debug)]
pub(crate) struct HeapMemory {
    pointer: NonNull<u8>,
    address: u64,
    len: usize,
    layout: Layout,
    world: World,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for HeapMemory {}

// SAFETY: a block of the heap that is freed on drop and that the world finds at the address.
unsafe impl DmaMemory for HeapMemory {
    fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }
    fn address(&self) -> DeviceAddress {
        DeviceAddress(self.address)
    }
    fn len(&self) -> usize {
        self.len
    }
    fn domain(&self) -> DomainId {
        self.world.domain
    }
}

impl Drop for HeapMemory {
    fn drop(&mut self) {
        self.world.unmap(self.pointer, self.layout);
    }
}

/// Constant bytes on the heap, scattered for the device.
#[derive(Debug)]
pub(crate) struct HeapRegion {
    block: NonNull<u8>,
    layout: Layout,
    base: NonNull<u8>,
    len: usize,
    lead: usize,
    granule: Granule,
    addresses: Vec<DeviceAddress>,
    world: World,
}

// SAFETY: the bytes are never written after creation.
unsafe impl Send for HeapRegion {}
// SAFETY: as above.
unsafe impl Sync for HeapRegion {}

// SAFETY: constant bytes that stay where they are until the drop, mapped as the world knows.
unsafe impl Region for HeapRegion {
    fn base(&self) -> NonNull<u8> {
        self.base
    }
    fn len(&self) -> usize {
        self.len
    }
    fn domain(&self) -> DomainId {
        self.world.domain
    }
    fn translation(&self) -> Translation<'_> {
        Translation::new(self.granule, self.lead, self.len, &self.addresses)
            .expect("the addresses fit the length")
    }
}

impl Drop for HeapRegion {
    fn drop(&mut self) {
        self.world.unmap(self.block, self.layout);
    }
}

/// Bytes that tell their place.
pub(crate) fn pattern(len: usize, salt: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt)
        .collect()
}

/// A log that panics on the threads that ask for it.
pub(crate) mod hostile_log {
    use std::cell::Cell;

    std::thread_local! {
        pub(crate) static ARMED: Cell<bool> = const { Cell::new(false) };
    }

    struct Hostile;

    impl log::Log for Hostile {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, _: &log::Record<'_>) {
            assert!(!ARMED.get(), "the log panics");
        }
        fn flush(&self) {}
    }

    /// Installs it, for all tests of the program; it panics only where `ARMED` is set.
    pub(crate) fn install() {
        if log::set_logger(&Hostile).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    }
}
