use proptest::prelude::*;
use rustix::io::Errno;

use super::*;
use crate::fake_iommu::{Books, FakeIommu};

const BELOW_4G: u64 = u32::MAX as u64;

fn arena(len: usize) -> (Arc<Arena>, Arc<Books>) {
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    (
        Arena::new(&space, len, BELOW_4G, (false, false)).unwrap(),
        books,
    )
}

/// The bytes, to write.
fn bytes(memory: &mut Memory) -> &mut [u8] {
    // SAFETY: the bytes are the memory's own, and nothing else uses them.
    unsafe { std::slice::from_raw_parts_mut(memory.pointer().as_ptr(), memory.len()) }
}

/// What the IOMMU would make of the memory's address.
fn is_where_the_iommu_says(books: &Books, memory: &Memory) -> bool {
    let mapped = lock(&books.mapped);
    let Some((first, mapping)) = mapped.range(..=memory.address().0).next_back() else {
        return false;
    };
    let offset = memory.address().0 - first;
    let inside = offset + memory.len() as u64 <= mapping.len;
    inside
        && mapping.access == Access::ReadWrite
        && mapping.memory as u64 + offset == memory.pointer().addr().get() as u64
}

#[test]
fn memory_is_aligned_zeroed_below_4_gib_and_given_back() {
    let (arena, books) = arena(1);
    assert_eq!(arena.space().mapped(), HUGE as u64);
    for align in [1, 64, 4096, 1 << 16, HUGE] {
        let mut memory = arena.take(5000, align).unwrap();
        assert_eq!(memory.len(), 5000);
        assert!(memory.address().0.is_multiple_of(align as u64));
        assert!(memory.address().0 + 5000 <= 1 << 32);
        assert!(memory.pointer().addr().get().is_multiple_of(align));
        assert!(is_where_the_iommu_says(&books, &memory));
        assert!(bytes(&mut memory).iter().all(|byte| *byte == 0));
        bytes(&mut memory).fill(0xa5);
    }
    assert_eq!(arena.space().mapped(), HUGE as u64);
    assert_eq!(arena.take(1, 3).err(), Some(VfioError::Alignment(3)));
    assert_eq!(arena.take(1, 0).err(), Some(VfioError::Alignment(0)));
    let error = arena.take(1, 2 * HUGE).err();
    assert_eq!(error, Some(VfioError::Alignment(2 * HUGE)));
    assert!(arena.take(usize::MAX, 1).is_err());
    assert!(arena.take(isize::MAX as usize, 1).is_err());
    let error = arena.take(1 << 33, 1).unwrap_err();
    assert!(
        matches!(error, VfioError::NoAddresses { wanted, .. } if wanted == 1 << 33),
        "{error}"
    );
}

#[test]
fn memory_is_aligned_where_the_addresses_are_not() {
    // No 2 MiB from a multiple of that on, but plenty from one of a page.
    let (iommu, books) = FakeIommu::with(vec![0x1000..=0x2f_ffff]);
    let space = Space::new(iommu).unwrap();
    let arena = Arena::new(&space, 0, BELOW_4G, (false, false)).unwrap();
    let memory = arena.take(100, 8192).unwrap();
    assert!(memory.address().0.is_multiple_of(8192));
    assert!(is_where_the_iommu_says(&books, &memory));
    assert_eq!(space.mapped(), HUGE as u64);
    drop(memory);
    // What cannot be aligned locks nothing, however often it is tried.
    let (iommu, books) = FakeIommu::with(vec![0x1000..=0x2f_ffff, 0x5f_f000..=0x7f_efff]);
    let space = Space::new(iommu).unwrap();
    let arena = Arena::new(&space, 1, BELOW_4G, (false, false)).unwrap();
    let (before, free) = (space.mapped(), space.free());
    for _ in 0..5 {
        let error = arena.take(100, HUGE);
        let longest = 0x1f_f000;
        let wanted = HUGE as u64;
        assert_eq!(
            error.err(),
            Some(VfioError::NoAddresses { wanted, longest })
        );
    }
    assert_eq!((space.mapped(), space.free()), (before, free));
    assert_eq!(lock(&books.mapped).len(), 1);
}

#[test]
fn memory_says_whether_its_pages_are_to_be_kept_apart() {
    for apart in [false, true] {
        let (iommu, _) = FakeIommu::new();
        let space = Space::new(iommu).unwrap();
        let arena = Arena::new(&space, 1, BELOW_4G, (false, apart)).unwrap();
        assert_eq!(arena.take(64, 64).unwrap().pages_apart(), apart);
    }
}

/// QEMU's e1000e lost the same frame for ever: what lay in two buffers, at the end of a huge page and
/// at the beginning of the next, made one fragment.
#[test]
fn where_pages_are_kept_apart_nothing_goes_on_in_the_next_huge_page() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (iommu, books) = FakeIommu::new();
    let space = Space::new(iommu).unwrap();
    let arena = Arena::new(&space, 3 * HUGE, BELOW_4G, (false, true)).unwrap();
    let end = |memory: &Memory| memory.pointer().addr().get() + memory.len();
    let page = |address: usize| address / HUGE;
    let mut kept = Vec::new();
    for _ in 0..2000 {
        let longest = if random.u8(..) < 10 { HUGE - 64 } else { 4096 };
        let memory = arena.take(random.usize(1..=longest), 64).unwrap();
        assert!(is_where_the_iommu_says(&books, &memory));
        let first = memory.pointer().addr().get();
        assert_eq!(page(first), page(end(&memory)), "seed {seed}");
        kept.push(memory);
        if random.bool() {
            kept.swap_remove(random.usize(..kept.len()));
        }
    }
    // What is longer has a chunk of its own, and leaves no room there to what is short.
    let long = arena.take(2 * HUGE + 64, 64).unwrap();
    let (from, to) = (long.pointer().addr().get(), end(&long) + HUGE - 64);
    kept.extend((0..200).map(|_| arena.take(60_000, 64).unwrap()));
    let in_there = |memory: &&Memory| (from..to).contains(&memory.pointer().addr().get());
    assert_eq!(kept.iter().filter(in_there).count(), 0, "seed {seed}");
    drop((long, kept));
    assert_eq!(space.mapped(), 3 * HUGE as u64, "all but the first chunk");
}

#[test]
fn what_fits_a_page_lies_in_one() {
    let (arena, _books) = arena(1);
    let _first = arena.take(64, 64).unwrap();
    for len in [65, 2054, 3000, 4096] {
        let memory = arena.take(len, 16).unwrap();
        let first = memory.address().0;
        assert_eq!(
            first / 4096,
            (first + len as u64 - 1) / 4096,
            "{len} bytes at {first:#x}"
        );
    }
}

#[test]
fn memory_outlives_the_arena_and_what_is_forgotten_stays() {
    let (arena, books) = arena(0);
    assert_eq!(arena.space().mapped(), 0);
    let mut memory = arena.take(64, 64).unwrap();
    drop(arena);
    bytes(&mut memory).fill(1);
    assert!(is_where_the_iommu_says(&books, &memory));
    let pointer = memory.pointer();
    std::mem::forget(memory);
    assert_eq!(lock(&books.mapped).len(), 1);
    // SAFETY: memory that is never dropped stays.
    assert_eq!(unsafe { pointer.read() }, 1);
}

#[test]
fn chunks_come_when_needed_and_go_when_unused_but_for_one() {
    let (arena, books) = arena(1);
    let large = arena.take(3 * HUGE, 4096).unwrap();
    let small = arena.take(64, 64).unwrap();
    assert_eq!(arena.space().mapped(), 4 * HUGE as u64);
    drop(large);
    assert_eq!(
        arena.space().mapped(),
        4 * HUGE as u64,
        "one unused chunk is kept"
    );
    let other = arena.take(4 * HUGE, 64).unwrap();
    drop(other);
    assert_eq!(arena.space().mapped(), 4 * HUGE as u64);
    drop(small);
    assert_eq!(lock(&books.mapped).len(), 1);
    drop(arena);
    assert!(lock(&books.mapped).is_empty());
}

#[test]
fn a_map_that_fails_loses_nothing() {
    let (arena, books) = arena(1);
    let kept = arena.take(HUGE, 64).unwrap();
    books.map.after(0, Errno::NOSPC);
    let error = arena.take(64, 64).unwrap_err();
    assert!(
        matches!(error, VfioError::System { errno: 28, .. }),
        "{error}"
    );
    assert_eq!(arena.space().mapped(), HUGE as u64);
    books.map.clear();
    let next = arena.take(64, 64).unwrap();
    assert!(is_where_the_iommu_says(&books, &next));
    drop((kept, next));
}

#[test]
fn a_chunk_that_cannot_be_unmapped_keeps_its_memory() {
    let (arena, books) = arena(1);
    let memory = arena.take(64, 64).unwrap();
    let pointer = memory.pointer();
    drop(memory);
    books.unmap.after(0, Errno::IO);
    let space = Arc::clone(arena.space());
    drop(arena);
    assert_eq!(space.stranded(), HUGE as u64);
    assert_eq!(lock(&books.mapped).len(), 1);
    // SAFETY: the memory leaks because the device may still reach it; so it is there.
    unsafe { pointer.write(1) };
}

#[test]
fn memory_is_sent_between_threads() {
    let (arena, _books) = arena(1);
    let threads: Vec<_> = (0..4_u8)
        .map(|id| {
            let arena = Arc::clone(&arena);
            std::thread::spawn(move || {
                for round in 1..200 {
                    let mut memory = arena.take(round * 100, 64).unwrap();
                    assert!(bytes(&mut memory).iter().all(|byte| *byte == 0));
                    bytes(&mut memory).fill(id + 1);
                    assert!(bytes(&mut memory).iter().all(|byte| *byte == id + 1));
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(arena.space().mapped(), HUGE as u64);
}

/// Something to do with an arena.
#[derive(Clone, Debug)]
enum Step {
    Take { len: usize, align: u32 },
    Drop(prop::sample::Index),
    FailMaps(bool),
    FailUnmaps(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..HUGE / 2, 0..22_u32).prop_map(|(len, align)| Step::Take { len, align }),
        9 => (1..9000_usize, 0..14_u32).prop_map(|(len, align)| Step::Take { len, align }),
        10 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => any::<bool>().prop_map(Step::FailMaps),
        1 => any::<bool>().prop_map(Step::FailUnmaps),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Pieces never overlap, lie where the IOMMU says, and are counted; with an IOMMU that fails
    /// now and then.
    #[test]
    fn the_books_of_arena_and_iommu_agree(steps in prop::collection::vec(step(), 1..40)) {
        let (arena, books) = arena(1);
        let mut taken: Vec<(Memory, u8)> = Vec::new();
        let mut mark = 0_u8;
        for step in steps {
            match step {
                Step::Take { len, align } => {
                    let Ok(mut memory) = arena.take(len, 1 << align) else { continue };
                    prop_assert!(memory.address().0.is_multiple_of(1 << align));
                    prop_assert!(is_where_the_iommu_says(&books, &memory));
                    mark = mark.wrapping_add(1);
                    let bytes = bytes(&mut memory);
                    prop_assert!(bytes.first() == Some(&0) && bytes.last() == Some(&0));
                    bytes.fill(mark);
                    taken.push((memory, mark));
                }
                Step::Drop(index) if !taken.is_empty() => {
                    let (mut memory, mark) = taken.swap_remove(index.index(taken.len()));
                    let intact = bytes(&mut memory).iter().all(|byte| *byte == mark);
                    prop_assert!(intact, "two pieces share bytes");
                }
                Step::Drop(_) => {}
                Step::FailMaps(true) => books.map.after(1, Errno::NOSPC),
                Step::FailMaps(false) => books.map.clear(),
                Step::FailUnmaps(true) => books.unmap.after(1, Errno::IO),
                Step::FailUnmaps(false) => books.unmap.clear(),
            }
            let mapped: u64 = lock(&books.mapped).values().map(|mapping| mapping.len).sum();
            prop_assert_eq!(arena.space().mapped(), mapped);
        }
        books.unmap.clear();
        let space = Arc::clone(arena.space());
        drop((taken, arena));
        prop_assert_eq!(space.mapped(), space.stranded());
    }
}
