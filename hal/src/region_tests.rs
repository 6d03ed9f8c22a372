//! Buffers in DMA memory, before and after they are shared.

use core::cell::Cell;
use std::format;
use std::sync::Arc;

use super::*;
use crate::test_support::{HeapMemory, World, pattern};
use crate::{Granule, Ledger};

#[test]
fn a_buffer_is_written_shared_lent_and_given_back() {
    let world = World::new();
    let mut buffer = DmaBuffer::new(world.memory(100, 64));
    buffer.as_mut_slice().copy_from_slice(&pattern(100, 5));
    buffer.truncate(200);
    assert_eq!(buffer.as_slice().len(), 100);
    buffer.truncate(60);
    assert_eq!(buffer.as_slice(), &pattern(100, 5)[..60]);
    let mut shared = Arc::new(buffer);
    let mut ledger = Ledger::new(world.domain, 64, Granule::from_bytes(4096).unwrap());
    let id = ledger.register(shared.clone()).unwrap();
    let loan = ledger.lend(id, 10, 50).unwrap();
    assert_eq!(ledger.bytes(&loan).unwrap(), &pattern(100, 5)[10..60]);
    let run = ledger.runs(&loan, 10, 50).unwrap().next().unwrap();
    assert_eq!(
        (run.address, run.len),
        (shared.translation().runs(10, 1).next().unwrap().address, 50)
    );
    assert!(
        Arc::get_mut(&mut shared).is_none(),
        "nobody writes while the ledger has a share"
    );
    ledger.release(id).unwrap();
    ledger.give_back(loan);
    drop(ledger.take_released());
    Arc::get_mut(&mut shared).unwrap().as_mut_slice()[0] = 1;
    drop(shared);
    assert_eq!(world.freed(), 1);
}

#[test]
fn an_empty_buffer_is_an_empty_region() {
    let world = World::new();
    let mut buffer = DmaBuffer::new(world.memory(100, 64));
    buffer.truncate(0);
    assert!(Region::is_empty(&buffer) && buffer.as_slice().is_empty());
    assert!(buffer.as_mut_slice().is_empty());
    assert_eq!(buffer.translation().runs(0, 0).count(), 0);
    assert_eq!(buffer.domain(), world.domain);
}

/// Memory that counts, without a lock, how often it is looked at.
#[derive(Debug)]
struct Counting {
    memory: HeapMemory,
    looks: Cell<u32>,
}

impl Counting {
    fn look(&self) -> &HeapMemory {
        self.looks.set(self.looks.get() + 1);
        &self.memory
    }
}

// SAFETY: as `HeapMemory`; the cell is the value's own.
unsafe impl DmaMemory for Counting {
    fn pointer(&self) -> NonNull<u8> {
        self.look().pointer()
    }
    fn address(&self) -> DeviceAddress {
        self.look().address()
    }
    fn len(&self) -> usize {
        self.look().len()
    }
    fn domain(&self) -> DomainId {
        self.look().domain()
    }
}

/// A buffer is `Sync` although its memory need not be: so nothing that works on `&DmaBuffer` may
/// touch the memory's own state.
#[test]
fn a_shared_buffer_does_not_touch_the_state_of_its_memory() {
    let memory = Counting {
        memory: World::new().memory(100, 64),
        looks: Cell::new(0),
    };
    let buffer = DmaBuffer::new(memory);
    let before = buffer._memory.looks.get();
    let _ = (
        buffer.as_slice(),
        buffer.base(),
        Region::len(&buffer),
        buffer.domain(),
    );
    let _ = (
        buffer.translation(),
        buffer.is_empty(),
        format!("{buffer:?}"),
    );
    assert_eq!(buffer._memory.looks.get(), before);
    assert!(!format!("{buffer:?}").contains("looks"));
}

#[test]
fn fixed_bytes_stay_where_they_are_when_moved() {
    fn stays(value: impl FixedBytes) {
        let before = (value.bytes().as_ptr(), value.bytes().to_vec());
        let moved = std::boxed::Box::new(value);
        assert_eq!((moved.bytes().as_ptr(), moved.bytes().to_vec()), before);
    }
    stays(&b"static"[..]);
    stays(pattern(100, 1));
    stays(pattern(100, 1).into_boxed_slice());
    stays(Arc::<[u8]>::from(pattern(100, 1)));
}

/// Counts its drop, as one that undoes a mapping would.
struct Addresses(std::vec::Vec<DeviceAddress>, #[expect(dead_code)] Arc<()>);

impl AsRef<[DeviceAddress]> for Addresses {
    fn as_ref(&self) -> &[DeviceAddress] {
        &self.0
    }
}

#[test]
fn a_paged_region_needs_an_address_for_each_granule_that_it_touches() {
    static BYTES: [u8; 4096] = [7; 4096];
    let granule = Granule::from_bytes(64).unwrap();
    let domain = DomainId::PHYSICAL;
    let first = BYTES.as_ptr().align_offset(64);
    let base = NonNull::from(&BYTES[first + 10]).cast::<u8>();
    let mapping = Arc::new(());
    let make = |len, granule, count: u64| {
        let addresses = (0..count)
            .map(|i| DeviceAddress(0x1000 * (i + 1)))
            .collect();
        let addresses = Addresses(addresses, mapping.clone());
        // SAFETY: a static that nobody writes; there is no device.
        unsafe { PagedRegion::new(base, len, granule, domain, addresses) }
    };
    // 54 bytes are left of the first granule.
    for (len, count) in [(0, 0), (1, 1), (54, 1), (55, 2), (54 + 64, 2), (54 + 65, 3)] {
        let region = make(len, granule, count).unwrap();
        assert_eq!(
            (region.base(), region.len(), region.domain()),
            (base, len, domain)
        );
        assert_eq!(region.bytes(), &BYTES[..len]);
        assert_eq!(
            region
                .translation()
                .runs(0, len)
                .map(|run| run.len)
                .sum::<usize>(),
            len
        );
        if let Some(run) = region.translation().runs(0, len).next() {
            assert_eq!(run.address, DeviceAddress(0x1000 + 10));
        }
        if let Some(run) = region.translation().runs(0, len).nth(1) {
            assert_eq!(run.address, DeviceAddress(0x2000));
        }
        assert!(make(len, granule, count + 1).is_none(), "{len}");
        assert!(
            count == 0 || make(len, granule, count - 1).is_none(),
            "{len}"
        );
    }
    let whole = make(1000, Granule::CONTIGUOUS, 1).unwrap();
    let runs: std::vec::Vec<_> = whole.translation().runs(3, 997).collect();
    assert_eq!(
        (runs.len(), runs[0].address, runs[0].len),
        (1, DeviceAddress(0x1003), 997)
    );
    assert!(make(1000, Granule::CONTIGUOUS, 2).is_none());
    assert!(make(0, Granule::CONTIGUOUS, 0).is_some());
    // Dropped with the region, and not before.
    assert_eq!(Arc::strong_count(&mapping), 2);
    drop(whole);
    assert_eq!(Arc::strong_count(&mapping), 1);
}

#[test]
fn physical_memory_is_no_other_domain() {
    assert_ne!(DomainId::new_unique(), DomainId::PHYSICAL);
}
