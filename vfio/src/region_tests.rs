use std::sync::atomic::{AtomicU32, Ordering};

use pagewire_hal::{Granule, Region};
use rustix::io::Errno;

use super::*;
use crate::SealedFile;
use crate::fake_iommu::{FakeIommu, Mapped};
use crate::space::lock;

/// Bytes that tell when they are freed.
struct Watched {
    bytes: Vec<u8>,
    freed: Arc<AtomicU32>,
}

impl Watched {
    fn new(len: usize) -> (Self, Arc<AtomicU32>) {
        let freed = Arc::new(AtomicU32::new(0));
        let bytes = vec![0x5a; len];
        let watched = Self {
            bytes,
            freed: Arc::clone(&freed),
        };
        (watched, freed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.freed.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: as for the `Vec` inside.
unsafe impl FixedBytes for Watched {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[test]
fn the_pages_around_the_bytes_are_mapped_for_reading() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    for len in [1, 4095, 4096, 4097, 1 << 20, 3 << 20] {
        let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
        let region =
            VfioRegion::new(&space, bytes.clone(), u64::MAX, Pages::Joined, |_| None).unwrap();
        assert_eq!(region.bytes(), bytes);
        assert_eq!(region.translation().granule(), Granule::CONTIGUOUS);
        let runs: Vec<_> = region.translation().runs(0, len).collect();
        let [run] = runs[..] else {
            panic!("{} runs", runs.len())
        };
        let lead = region.base().addr().get() % 4096;
        let mapped: Vec<(u64, Mapped)> = lock(&books.mapped).clone().into_iter().collect();
        let expected = Mapped {
            memory: region.base().addr().get() - lead,
            len: (lead + len).next_multiple_of(4096) as u64,
            access: Access::Read,
        };
        assert_eq!(mapped, [(run.address.0 - lead as u64, expected)]);
        assert_eq!(run.len, len);
        drop(region);
        assert!(lock(&books.mapped).is_empty());
    }
    assert_eq!(
        VfioRegion::new(&space, Vec::new(), u64::MAX, Pages::Joined, |_| None).err(),
        Some(VfioError::Empty)
    );
}

#[test]
fn the_bytes_are_freed_after_the_mapping_and_never_if_that_fails() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let (bytes, freed) = Watched::new(10_000);
    let region = VfioRegion::new(&space, bytes, u64::MAX, Pages::Joined, |_| None).unwrap();
    assert_eq!(freed.load(Ordering::Relaxed), 0);
    drop(region);
    assert_eq!(freed.load(Ordering::Relaxed), 1);

    let (bytes, freed) = Watched::new(10_000);
    let region = VfioRegion::new(&space, bytes, u64::MAX, Pages::Joined, |_| None).unwrap();
    books.unmap.after(0, Errno::IO);
    drop(region);
    assert_eq!(
        freed.load(Ordering::Relaxed),
        0,
        "the device may still read them"
    );
    assert!(space.stranded() >= 10_000);

    // What could not be registered is freed: the device never knew of it.
    let (bytes, freed) = Watched::new(10_000);
    books.map.after(0, Errno::NOSPC);
    VfioRegion::new(&space, bytes, u64::MAX, Pages::Joined, |_| None).unwrap_err();
    assert_eq!(freed.load(Ordering::Relaxed), 1);
}

#[test]
fn a_region_outlives_all_that_made_it() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let sealed = SealedFile::copy_of(&[7; 5000]).unwrap();
    let region =
        Arc::new(VfioRegion::new(&space, sealed, u64::MAX, Pages::Joined, |_| None).unwrap());
    drop(space);
    assert_eq!(lock(&books.mapped).len(), 1);
    assert_eq!(region.bytes(), [7; 5000]);
    let elsewhere = std::thread::spawn(move || region.len());
    assert_eq!(elsewhere.join().unwrap(), 5000);
    assert!(lock(&books.mapped).is_empty());
}

#[test]
fn pages_are_kept_apart_where_that_is_wanted() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    for len in [1, 4096, 4097, 100_000, 3 << 20] {
        let region =
            VfioRegion::new(&space, vec![1; len], u64::MAX, Pages::Apart, |_| None).unwrap();
        let lead = region.base().addr().get() % 4096;
        let pages = (lead + len).div_ceil(4096);
        let mut at = region.base().addr().get();
        let mut count = 0;
        for run in region.translation().runs(0, len) {
            let mapped = lock(&books.mapped);
            let (first, mapping) = mapped.range(..=run.address.0).next_back().unwrap();
            let offset = run.address.0 - first;
            assert!(offset + run.len as u64 <= mapping.len);
            assert_eq!(mapping.memory + offset as usize, at, "the same bytes");
            assert!(at % 4096 + run.len <= 4096, "across the end of a page");
            at += run.len;
            count += 1;
        }
        assert_eq!(count, pages);
        assert_eq!(at, region.base().addr().get() + len);
        drop(region);
        assert!(lock(&books.mapped).is_empty());
    }
}

/// One stream may go from the end of a region to the beginning of another: found with `pagewire serve`
/// on QEMU's e1000e, which lost the same frame for ever.
#[test]
fn regions_whose_pages_are_kept_apart_are_apart_too() {
    let (iommu, _) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let free = space.free();
    let region =
        |len: usize| VfioRegion::new(&space, vec![1; len], u64::MAX, Pages::Apart, |_| None);
    let regions: Vec<_> = [4096, 1 << 20, 5000, 3 << 20, 1, 1 << 20]
        .into_iter()
        .map(|len| region(len).unwrap())
        .collect();
    let runs = |region: &VfioRegion<Vec<u8>>| -> Vec<(u64, u64)> {
        let runs = region.translation().runs(0, region.len());
        runs.map(|run| (run.address.0, run.address.0 + run.len as u64))
            .collect()
    };
    let all: Vec<_> = regions.iter().flat_map(runs).collect();
    for (_, end) in &all {
        // To the end of the page: bytes need not end where it does.
        let page_end = end.next_multiple_of(4096);
        assert!(
            !all.iter().any(|(start, _)| start & !4095 == page_end),
            "{page_end:#x}"
        );
    }
    drop(regions);
    assert_eq!(space.free(), free);
}

#[test]
fn a_second_mapping_that_fails_takes_the_first_away() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    for unmap_fails in [false, true] {
        let (bytes, freed) = Watched::new(10_000);
        books.map.after(1, Errno::NOSPC);
        if unmap_fails {
            books.unmap.after(0, Errno::IO);
        }
        VfioRegion::new(&space, bytes, u64::MAX, Pages::Apart, |_| None).unwrap_err();
        books.map.clear();
        assert_eq!(lock(&books.mapped).is_empty(), !unmap_fails);
        assert_eq!(freed.load(Ordering::Relaxed) == 1, !unmap_fails);
    }
}

#[test]
fn withdrawn_bytes_are_unmapped_and_their_addresses_nobody_elses() {
    for pages in [Pages::Joined, Pages::Apart] {
        let (iommu, books) = FakeIommu::new();
        let space = Space::new(iommu).unwrap();
        let (bytes, freed) = Watched::new(10_000);
        let free = space.free();
        let withdrawn = VfioRegion::new(&space, bytes, u64::MAX, pages, |_| None)
            .unwrap()
            .withdraw()
            .unwrap();
        assert!(lock(&books.mapped).is_empty() && space.mapped() == 0);
        let (start, end) = (withdrawn.address().0, withdrawn.address().0 + 9_999);
        let taken = |at: &u64| !space.free().iter().any(|range| range.contains(at));
        assert!(taken(&start) && taken(&end), "{pages:?}");
        assert_eq!(withdrawn.copy().len(), withdrawn.len());
        assert_eq!(freed.load(Ordering::Relaxed), 0);
        drop(withdrawn);
        assert_eq!(freed.load(Ordering::Relaxed), 1);
        assert_eq!(space.free(), free, "{pages:?}");
    }
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let (bytes, freed) = Watched::new(10_000);
    let region = VfioRegion::new(&space, bytes, u64::MAX, Pages::Joined, |_| None).unwrap();
    books.unmap.after(0, Errno::IO);
    assert!(region.withdraw().is_none());
    assert_eq!(
        freed.load(Ordering::Relaxed),
        0,
        "the device may still reach them"
    );
    assert!(space.stranded() >= 10_000);
}
