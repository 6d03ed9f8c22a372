//! Writers that scribble over everything while random ranges are lent, and what is left after many
//! rounds.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::test_support::{Place, Writer, eventually, protectors};
use super::*;

const PAGES: usize = 8;
const WRITERS: usize = 2;
const SCHEDULES: u64 = 1_000;

/// Lets the kernel write.
struct Pipe(OwnedFd, OwnedFd);

impl Pipe {
    fn new() -> Self {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        Self(reader, writer)
    }

    fn write(&self, word: NonNull<u64>, number: u64) {
        assert_eq!(rustix::io::write(&self.1, &number.to_ne_bytes()), Ok(8));
        // SAFETY: as for any write of `scribble`: a word of its own.
        let read = unsafe { libc::read(self.0.as_raw_fd(), word.as_ptr().cast(), 8) };
        assert_eq!(read, 8);
    }
}

/// Tells the writers to stop, also when a check has failed.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes ever larger numbers to places of its own, a word in each page, until it is told to stop;
/// says how many of them were gone when it came back, and what it wrote last.
fn scribble(
    place: Place,
    page: usize,
    seed: u64,
    pipe: Option<Pipe>,
    stop: &AtomicBool,
) -> (usize, [u64; PAGES]) {
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
        match &pipe {
            Some(pipe) if random.bool() => pipe.write(word, written[index]),
            // SAFETY: as above.
            _ => unsafe { word.write_volatile(written[index]) },
        }
        if random.u8(..) < 4 {
            std::thread::yield_now();
        }
    }
    (lost, written)
}

/// What a schedule has out, each with what its bytes were at first.
#[derive(Default)]
struct Out {
    lent: Vec<(Lent, Vec<u8>)>,
}

impl Out {
    fn check(&self, seed: u64) {
        for (loan, bytes) in &self.lent {
            assert!(loan.bytes() == *bytes, "lent bytes changed, seed {seed}");
        }
    }

    /// Lends or gives back something.
    fn change(&mut self, arena: &Arena, buffer: &Buffer, random: &mut fastrand::Rng) {
        match random.u8(..10) {
            0..3 => {
                let loan = buffer.lend(some(buffer.len(), random)).unwrap();
                let bytes = loan.bytes().to_vec();
                self.lent.push((loan, bytes));
            }
            3 => {
                if let Some((loan, bytes)) = random.choice(&self.lent) {
                    let range = some(loan.len(), random);
                    let bytes = bytes[range.clone()].to_vec();
                    self.lent.push((loan.lend_again(range).unwrap(), bytes));
                }
            }
            4..6 if !self.lent.is_empty() => {
                self.lent.swap_remove(random.usize(..self.lent.len()));
            }
            6 => self.make_way(arena),
            // The writers go on, until they sleep.
            _ => std::thread::yield_now(),
        }
    }

    /// Gives back what somebody waits for, as the policy *copy* does.
    fn make_way(&mut self, arena: &Arena) {
        if arena.has_wanted() {
            arena.wanted(&mut |pages| {
                let touches = |loan: &Lent| {
                    let start = loan.arena_offset();
                    start < pages.end && pages.start < start + loan.len()
                };
                self.lent.retain(|(loan, _)| !touches(loan));
            });
        }
    }
}

fn some(len: usize, random: &mut fastrand::Rng) -> std::ops::Range<usize> {
    let from = random.usize(..len);
    from..random.usize(from + 1..=len)
}

/// One schedule; all that it lends is released at the end.
fn schedule(protector: &Protector, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let page = rustix::param::page_size();
    let arena = protector.arena(PAGES * page).unwrap();
    let buffer = arena.buffer(PAGES * page).unwrap();
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let start = Place(buffer.as_ptr().unwrap());
    let writers: Vec<_> = (0..WRITERS)
        .map(|index| {
            let (stop, seed) = (Arc::clone(&stop.0), seed ^ index as u64);
            let pipe = (protector.mode() == Mode::Full && random.bool()).then(Pipe::new);
            let memory = arena.clone();
            // In different places of the page for each seed, aligned.
            let place = start.at((random.usize(..page / 16 - 1) * 2 + index) * 8);
            let writer = Writer::doing(move || {
                let _memory = memory;
                scribble(place, page, seed, pipe, &stop)
            });
            (place, writer)
        })
        .collect();
    let mut out = Out::default();
    for _ in 0..random.usize(8..48) {
        out.change(&arena, &buffer, &mut random);
        out.check(seed);
        let counters = protector.counters();
        assert!(
            counters.lent_bytes <= counters.protected_bytes
                && counters.protected_bytes <= counters.registered_bytes,
            "{counters:?}, seed {seed}"
        );
    }
    // A writer that sleeps wakes only by the end of what is out.
    drop(stop);
    out.check(seed);
    drop(out);
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
    assert!(!arena.has_wanted(), "seed {seed}");
}

#[test]
fn what_is_lent_stays_and_no_write_is_lost_in_random_schedules() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let protectors = protectors();
    let run = |number: u64| {
        let protector = &protectors[number as usize % protectors.len()];
        schedule(protector, seed.wrapping_add(number * 1_000));
        let counters = protector.counters();
        assert_eq!(
            (counters.registered_bytes, counters.protected_bytes),
            (0, 0)
        );
    };
    (0..SCHEDULES).for_each(run);
    // Where writers have few turns it may take more.
    let mut more = SCHEDULES..;
    let all_met = eventually(|| {
        let met = protectors.iter().all(|one| one.counters().waits > 0);
        if !met {
            more.next().into_iter().for_each(run);
        }
        met
    });
    for protector in &protectors {
        println!("{}: {:?}", protector.way(), protector.counters());
    }
    assert!(all_met, "no writer ever met a loan");
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
    let [_, _, threads] = belongings();
    rounds(3);
    // A thread that was joined may still be listed for a moment.
    assert!(eventually(|| belongings()[2] == threads));
    let before = belongings();
    rounds(1_000);
    eventually(|| belongings()[1..] == before[1..]);
    let after = belongings();
    println!("mappings, descriptors, threads: {before:?} before, {after:?} after");
    let ([maps_before, before @ ..], [maps_after, after @ ..]) = (before, after);
    assert_eq!(before, after);
    // The C library may map an arena more for a thread; what a round leaves would be there 1,000 times.
    assert!(maps_after < maps_before + 100, "{maps_after} mappings");
}
