//! Writers that scribble over everything while random ranges are lent, and what is left after many
//! rounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::test_support::{Place, Writer, protectors};
use super::*;

const PAGES: usize = 8;
const WRITERS: usize = 2;
const SCHEDULES: u64 = 1_000;

/// Writes ever larger numbers to places of its own, a word in each page, until it is told to stop;
/// says how many of them were gone when it came back, and what it wrote last.
fn scribble(place: Place, page: usize, seed: u64, stop: &AtomicBool) -> (usize, [u64; PAGES]) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut written = [0; PAGES];
    let mut lost = 0;
    while !stop.load(Ordering::Relaxed) {
        let index = random.usize(..PAGES);
        let word = place.at(index * page).0.cast::<u64>();
        // SAFETY: the buffer outlives its writers; this word of it is this writer's, and no slice
        // is in use but those of loans.
        let found = unsafe { word.read_volatile() };
        lost += usize::from(found != written[index]);
        written[index] += 1;
        // SAFETY: as above.
        unsafe { word.write_volatile(written[index]) };
        if random.u8(..) < 16 {
            std::thread::yield_now();
        }
    }
    (lost, written)
}

/// One schedule; all that it lends is released at the end.
fn schedule(protector: &Protector, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let arena = protector.arena(1).unwrap();
    let page = arena.page();
    drop(arena);
    let arena = protector.arena(PAGES * page).unwrap();
    let buffer = arena.buffer(PAGES * page).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let start = Place(buffer.as_ptr());
    let writers: Vec<_> = (0..WRITERS)
        .map(|index| {
            let (stop, seed) = (Arc::clone(&stop), seed ^ index as u64);
            // In different places of the page for each seed, aligned.
            let place = start.at((random.usize(..page / 16 - 1) * 2 + index) * 8);
            (
                place,
                Writer::doing(move || scribble(place, page, seed, &stop)),
            )
        })
        .collect();
    let mut lent: Vec<(Lent, Vec<u8>)> = Vec::new();
    for _ in 0..random.usize(8..48) {
        match random.u8(..8) {
            0..3 => {
                let from = random.usize(..PAGES * page);
                let to = random.usize(from + 1..=PAGES * page);
                let loan = buffer.lend(from..to).unwrap();
                let bytes = loan.bytes().to_vec();
                lent.push((loan, bytes));
            }
            3 if !lent.is_empty() => {
                let (loan, bytes) = &lent[random.usize(..lent.len())];
                let from = random.usize(..loan.len());
                let to = random.usize(from + 1..=loan.len());
                let again = loan.lend_again(from..to).unwrap();
                let bytes = bytes[from..to].to_vec();
                lent.push((again, bytes));
            }
            4 | 5 if !lent.is_empty() => {
                let (loan, bytes) = lent.swap_remove(random.usize(..lent.len()));
                assert!(loan.bytes() == bytes, "lent bytes changed, seed {seed}");
            }
            // The writers go on, until they sleep.
            _ => (0..20).for_each(|_| std::thread::yield_now()),
        }
        for (loan, bytes) in &lent {
            assert!(loan.bytes() == *bytes, "lent bytes changed, seed {seed}");
        }
        let counters = protector.counters();
        assert!(
            counters.protected_bytes <= counters.registered_bytes,
            "seed {seed}"
        );
        assert!(
            counters.lent_bytes <= counters.protected_bytes,
            "seed {seed}"
        );
    }
    // A writer that sleeps wakes only by this.
    stop.store(true, Ordering::Relaxed);
    for (loan, bytes) in lent {
        assert!(loan.bytes() == bytes, "lent bytes changed, seed {seed}");
    }
    for (place, writer) in writers {
        let (lost, written) = writer.join();
        assert_eq!(lost, 0, "seed {seed}");
        for (index, written) in written.into_iter().enumerate() {
            // SAFETY: as in `scribble`, whose thread has ended.
            let found = unsafe { place.at(index * page).0.cast::<u64>().read_volatile() };
            assert_eq!(found, written, "a write was lost, seed {seed}");
        }
    }
    assert_eq!(protector.counters().lent_bytes, 0, "seed {seed}");
}

#[test]
fn what_is_lent_stays_and_no_write_is_lost_in_random_schedules() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let protectors = protectors();
    for number in 0..SCHEDULES {
        let protector = &protectors[number as usize % protectors.len()];
        schedule(protector, seed.wrapping_add(number * 1_000));
        let counters = protector.counters();
        assert_eq!(
            (counters.registered_bytes, counters.protected_bytes),
            (0, 0)
        );
    }
    for protector in &protectors {
        println!("{}: {:?}", protector.way(), protector.counters());
        assert!(protector.counters().waits > 0, "no writer ever met a loan");
    }
}

/// What a process has: mappings, descriptors, threads.
fn belongings() -> [usize; 3] {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
    [
        maps.lines().count(),
        entries("/proc/self/fd"),
        entries("/proc/self/task"),
    ]
}

fn rounds(count: usize) {
    for protector in protectors() {
        for round in 0..count {
            let arena = protector.arena(1 << 20).unwrap();
            let buffer = arena.buffer(100_000).unwrap();
            let lent = buffer.lend(round % 99_999..100_000).unwrap();
            let again = lent.lend_again(0..1).unwrap();
            drop((buffer, lent));
            let next = arena.buffer(100_000).unwrap();
            drop((next, again));
            assert_eq!(arena.free_bytes(), 1 << 20);
        }
    }
}

#[test]
fn nothing_is_left_after_many_rounds() {
    const ALONE: &str = "PAGEWIRE_ALONE";
    if std::env::var_os(ALONE).is_none() {
        // Other tests of this process map and open things as well: so in one of its own.
        let name = "protect::schedule_tests::nothing_is_left_after_many_rounds";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--test-threads=1", "--nocapture"])
            .env(ALONE, "1")
            .status();
        return assert!(status.unwrap().success());
    }
    rounds(3);
    let before = belongings();
    rounds(1_000);
    let after = belongings();
    println!("mappings, descriptors, threads: {before:?} before, {after:?} after");
    assert_eq!(before, after);
}
