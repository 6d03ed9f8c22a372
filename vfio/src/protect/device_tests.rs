//! A device that reads the arena by pages that are pinned, while others write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::test_support::{Device, Place, Writer, protectors, waits};
use super::*;

#[test]
fn a_device_reads_the_bytes_that_were_lent_while_a_writer_waits() {
    for protector in protectors() {
        let page = rustix::param::page_size();
        let arena = protector.arena(2 * page).unwrap();
        let Some(mut device) = Device::new(&arena) else {
            return;
        };
        let mut buffer = arena.buffer(2 * page).unwrap();
        buffer.bytes_mut(0..2 * page).unwrap().fill(b'o');
        let posted = buffer.lend(0..page).unwrap();
        let writer = Writer::poking(Place(buffer.as_ptr().unwrap()), b'n');
        waits(&protector, 1);
        assert!(device.read(&posted).iter().all(|byte| *byte == b'o'));
        drop(posted);
        writer.join();
        // The page is still the one that the device knows.
        assert_eq!(device.read(&buffer.lend(0..2).unwrap()), b"no");
    }
}

#[test]
fn a_device_reads_what_was_lent_while_everything_is_scribbled_over() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    // Small pages, and pages out of the midst of transparent huge ones.
    for len in [32 << 10, 4 << 20] {
        for protector in protectors() {
            scribble(&protector, len, seed);
        }
    }
}

/// What is cleared in a run is mapped anew: the pages are still those that the device has pinned.
#[test]
fn a_device_reads_what_is_written_to_pages_that_were_mapped_anew() {
    const PAGES: usize = 8;
    for protector in protectors() {
        let page = rustix::param::page_size();
        let small = protector.arena(PAGES * page).unwrap();
        // Of huge pages a part, where they are lent in small ones.
        let parts = protector.arena(4 << 20).unwrap();
        let huge = protector.huge_arena(4 << 20).unwrap();
        for arena in [small, parts, huge] {
            let Some(mut device) = Device::new(&arena) else {
                return;
            };
            let len = PAGES * page;
            let mut buffer = arena.buffer(len).unwrap();
            for round in 1..=20_u8 {
                buffer.bytes_mut(0..len).unwrap().fill(round);
                for index in 0..PAGES {
                    let lent = buffer.lend(index * page..(index + 1) * page).unwrap();
                    let read = device.read(&lent);
                    assert!(read.iter().all(|byte| *byte == round), "round {round}");
                }
                let all = buffer.lend(0..len).unwrap();
                assert!(all.bytes().iter().all(|byte| *byte == round));
            }
            let counters = protector.counters();
            assert!(counters.clears > 0 && counters.lent_bytes == 0);
        }
    }
}

fn scribble(protector: &Protector, len: usize, seed: u64) {
    const PAGES: usize = 8;
    let mut random = fastrand::Rng::with_seed(seed);
    let page = rustix::param::page_size();
    let arena = protector.arena(len.max(PAGES * page)).unwrap();
    let Some(mut device) = Device::new(&arena) else {
        return;
    };
    let buffer = arena.buffer(PAGES * page).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (place, stopped, memory) = (
        Place(buffer.as_ptr().unwrap()),
        Arc::clone(&stop),
        arena.clone(),
    );
    let mut scribbles = random.fork();
    let writer = Writer::doing(move || {
        let (_memory, place) = (memory, place);
        while !stopped.load(Ordering::Relaxed) {
            let at = place.at(scribbles.usize(..PAGES * page));
            // SAFETY: the arena is there, and no slice is in use but those of loans.
            unsafe { at.0.write_volatile(scribbles.u8(..)) };
        }
    });
    // 500 rounds, and more until the writer has met a protected page: on a busy machine it may not
    // have had a processor yet.
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds < 500
        || (protector.counters().faults == 0 && begun.elapsed() < Duration::from_secs(60))
    {
        rounds += 1;
        let from = random.usize(..(PAGES - 1) * page);
        let loan = buffer.lend(from..from + random.usize(1..=page)).unwrap();
        let bytes = loan.bytes().to_vec();
        for _ in 0..2 {
            assert!(
                device.read(&loan) == bytes[..loan.len().min(4096)],
                "seed {seed}"
            );
            std::thread::yield_now();
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join();
    let counters = protector.counters();
    println!("{}, {len} bytes: {counters:?}", protector.way());
    assert!(counters.faults > 0, "nobody wrote");
    assert_eq!(counters.lent_bytes, 0);
}
