use super::*;
use crate::fake_iommu::FakeIommu;
use crate::pages::Pages;

#[track_caller]
fn map(space: &Arc<Space>, pages: &Pages, limit: u64) -> Result<Mapping, VfioError> {
    let len = pages.len() as u64;
    // SAFETY: the fake reaches no memory.
    unsafe { space.map(pages.base(), len, 1, Access::ReadWrite, limit) }
}

#[test]
fn addresses_are_usable_aligned_like_the_memory_and_never_zero() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let free = space.free();
    let small = Pages::new(4096, false).unwrap();
    let large = Pages::new(2 * HUGE, false).unwrap();
    let first = map(&space, &small, u64::MAX).unwrap();
    let second = map(&space, &large, u64::MAX).unwrap();
    assert_eq!(first.address().0, 0x1000);
    assert_eq!(second.address().0, HUGE as u64);
    assert_eq!(space.mapped(), 4096 + 2 * HUGE as u64);
    assert_eq!(lock(&books.mapped).len(), 2);
    drop((first, second));
    assert_eq!(space.mapped(), 0);
    assert_eq!(space.stranded(), 0);
    assert!(lock(&books.mapped).is_empty());
    assert_eq!(space.free(), free);
}

#[test]
fn a_map_that_fails_takes_no_address() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let free = space.free();
    let pages = Pages::new(4096, false).unwrap();
    books.map.after(0, Errno::NOSPC);
    let error = map(&space, &pages, u64::MAX).unwrap_err();
    assert!(
        error.to_string().contains("register larger regions"),
        "{error}"
    );
    assert_eq!(space.free(), free);
    assert_eq!(space.mapped(), 0);
    books.map.clear();
    map(&space, &pages, u64::MAX).unwrap();
}

#[test]
fn what_could_not_be_unmapped_stays_and_is_counted() {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let free = space.free();
    let pages = Pages::new(4096, false).unwrap();
    let mut mapping = map(&space, &pages, u64::MAX).unwrap();
    books.unmap.after(0, Errno::IO);
    assert!(!mapping.unmap());
    books.unmap.clear();
    // Nobody knows what became of it: it is not tried again.
    assert!(!mapping.unmap());
    drop(mapping);
    assert_eq!(space.mapped(), 4096);
    assert_eq!(space.stranded(), 4096);
    assert_ne!(space.free(), free);
    assert_eq!(lock(&books.mapped).len(), 1);
}

#[test]
fn a_limit_on_addresses_is_kept_and_explained() {
    let (iommu, _) = FakeIommu::with(vec![0..=0xffff, 0x1_0000_0000..=0x1_ffff_ffff]);
    let space = Space::new(iommu).unwrap();
    let pages = Pages::new(0x1_0000, false).unwrap();
    let error = map(&space, &pages, 0xffff_ffff).unwrap_err();
    let expected = VfioError::NoAddresses {
        wanted: 0x1_0000,
        longest: 0xf000,
    };
    assert_eq!(error, expected);
    let above = map(&space, &pages, u64::MAX).unwrap();
    assert_eq!(above.address().0, 0x1_0000_0000);
}

#[test]
fn without_room_for_huge_pages_any_place_will_do() {
    let (iommu, _) = FakeIommu::with(vec![0x1000..=0x3f_efff]);
    let space = Space::new(iommu).unwrap();
    let pages = Pages::new(HUGE, false).unwrap();
    let mapping = map(&space, &pages, u64::MAX).unwrap();
    assert_eq!(mapping.address().0, 0x1000);
}
