//! Writes that must not wait: those of the thread that polls the NIC, with completions held back.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::test_support::{Device, Place, Writer, eventually, full, protectors, waits};
use super::*;

/// Writes by pointer.
fn poke(buffer: &Buffer, at: usize, byte: u8) {
    let place = Place(buffer.as_ptr().unwrap()).at(at);
    // SAFETY: each test writes inside the buffer, of which no slice is in use.
    unsafe { place.0.write_volatile(byte) };
}

#[test]
fn the_thread_that_polls_writes_to_what_is_lent_and_goes_on() {
    for protector in protectors() {
        let page = rustix::param::page_size();
        let arena = protector.arena(4 * page).unwrap();
        let Some(mut device) = Device::new(&arena) else {
            return;
        };
        let mut buffer = arena.buffer(4 * page).unwrap();
        buffer.bytes_mut(0..4 * page).unwrap().fill(b'o');
        let _polls = PollingThread::enter();
        // Two descriptors and a connection, none of which this thread gives back before it writes.
        let loans = [0..page, 100..2 * page, 0..page + 1].map(|range| buffer.lend(range).unwrap());
        poke(&buffer, 7, b'n');
        poke(&buffer, page - 1, b'n');
        assert_eq!(protector.counters().away_bytes, page as u64);
        let bytes = buffer.bytes();
        assert_eq!((bytes[7], bytes[8], bytes[page - 1]), (b'n', b'o', b'n'));
        for loan in &loans {
            assert!(loan.bytes().iter().all(|byte| *byte == b'o'));
            assert!(device.read(loan).iter().all(|byte| *byte == b'o'));
        }
        // What is there now cannot be lent yet; what was lent can, for a retransmission.
        assert_eq!(buffer.lend(0..1).err(), Some(ProtectError::Away));
        let again = loans[0].lend_again(7..8).unwrap();
        assert_eq!(
            (again.bytes(), device.read(&again)),
            (&b"o"[..], b"o".to_vec())
        );
        // Nobody waits, but the sooner the old bytes are given back, the better.
        assert!(arena.has_wanted());
        let [first, second, third] = loans;
        drop((first, second, again));
        assert_eq!(protector.counters().away_bytes, page as u64);
        poke(&buffer, 9, b'N');
        drop(third);
        let counters = protector.counters();
        assert_eq!((counters.away_bytes, counters.lent_bytes), (0, 0));
        assert_eq!((counters.departures, counters.returns), (1, 1));
        assert_eq!(counters.waits, 0);
        assert!(!arena.has_wanted());
        // The page that the device knows is back, with all that was written.
        let mut wanted = vec![b'o'; page];
        (wanted[7], wanted[9], wanted[page - 1]) = (b'n', b'N', b'n');
        assert!(buffer.bytes()[..page] == wanted);
        let again = buffer.lend(0..page).unwrap();
        assert!(again.bytes() == wanted && device.read(&again) == wanted[..page.min(4096)]);
    }
}

#[test]
fn through_the_value_too() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let mut buffer = arena.buffer(10_000).unwrap();
        let lent = buffer.lend(0..10_000).unwrap();
        assert_eq!(buffer.try_bytes_mut(0..1), Err(ProtectError::Lent));
        let polls = PollingThread::enter();
        drop(PollingThread::enter());
        assert!(PollingThread::is_here());
        buffer.bytes_mut(0..10_000).unwrap().fill(1);
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
        // Once away, anybody may write.
        drop(polls);
        assert!(!PollingThread::is_here());
        buffer.try_bytes_mut(5..6).unwrap().fill(2);
        buffer.bytes_mut(6..7).unwrap().fill(3);
        Writer::poking(Place(buffer.as_ptr().unwrap()).at(7), 4).join();
        drop(lent);
        assert_eq!(buffer.lend(4..9).unwrap().bytes(), [1, 2, 3, 4, 1]);
        assert_eq!(protector.counters().away_bytes, 0);
    }
}

#[test]
fn others_who_wait_for_the_page_go_on_with_it() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let buffer = arena.buffer(2 * page).unwrap();
        let mut other = arena.buffer(page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        let lent = buffer.lend(0..2 * page).unwrap();
        let kept = other.lend(0..page).unwrap();
        let writers = [1, page + 1].map(|at| Writer::poking(place.at(at), b'w'));
        waits(&protector, 2);
        let sleeper = Writer::doing(move || {
            other.bytes_mut(0..page).unwrap().fill(b's');
            other
        });
        let _polls = PollingThread::enter();
        poke(&buffer, 0, b'p');
        let [with_it, elsewhere] = writers;
        with_it.join();
        assert!(elsewhere.sleeps() && sleeper.sleeps());
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
        drop((lent, kept));
        elsewhere.join();
        assert_eq!(sleeper.join().bytes()[0], b's');
        let bytes = buffer.bytes();
        assert_eq!((bytes[0], bytes[1], bytes[page + 1]), (b'p', b'w', b'w'));
    }
}

#[test]
fn writes_of_the_kernel_for_that_thread_go_on_in_full_mode() {
    let Some(protector) = full() else { return };
    let arena = protector.arena(1).unwrap();
    let buffer = arena.buffer(10).unwrap();
    let lent = buffer.lend(0..10).unwrap();
    let _polls = PollingThread::enter();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"kernel").unwrap();
    let place = buffer.as_ptr().unwrap().as_ptr();
    // SAFETY: the buffer has more than six bytes, and no slice of it is in use.
    let read = unsafe { libc::read(reader.as_raw_fd(), place.cast(), 6) };
    assert_eq!((read, &buffer.bytes()[..6]), (6, &b"kernel"[..]));
    assert_eq!(lent.bytes(), [0; 10]);
}

#[test]
fn a_page_that_is_away_outlives_its_buffer() {
    let protector = Protector::open(Choice::Best).unwrap();
    let arena = protector.arena(1).unwrap();
    let buffer = arena.buffer(1).unwrap();
    let lent = buffer.lend(0..1).unwrap();
    let _polls = PollingThread::enter();
    poke(&buffer, 0, 1);
    drop(buffer);
    assert!(arena.buffer(1).is_err());
    assert_eq!(lent.bytes(), [0]);
    drop(lent);
    let next = arena.buffer(1).unwrap();
    assert_eq!(next.lend(0..1).unwrap().bytes(), [1]);
}

#[test]
fn the_death_of_the_handler_does_not_stop_the_thread_that_polls() {
    let with_thread = |protector: &Protector| protector.mode() != Mode::Signal;
    for protector in protectors().into_iter().filter(with_thread) {
        let arena = protector.arena(1).unwrap();
        let page = arena.page();
        let mut buffer = arena.buffer(page).unwrap();
        buffer.bytes_mut(0..1).unwrap().fill(b'o');
        let _polls = PollingThread::enter();
        let lent = buffer.lend(0..1).unwrap();
        assert!(protector.kill_handler());
        assert!(eventually(|| protector.counters().away_bytes > 0));
        poke(&buffer, 0, b'n');
        assert_eq!(lent.bytes(), b"o");
        assert_eq!(buffer.lend(0..1).err(), Some(ProtectError::HandlerGone));
        drop(lent);
        assert_eq!(buffer.bytes()[0], b'n');
        assert_eq!(protector.counters().away_bytes, 0);
    }
}

#[test]
fn where_no_page_can_take_its_place_the_thread_that_polls_does_not_get_at_it() {
    for protector in protectors() {
        let arena = protector.huge_arena(1).unwrap();
        let mut buffer = arena.buffer(1).unwrap();
        let lent = buffer.lend(0..1).unwrap();
        let _polls = PollingThread::enter();
        if buffer.as_ptr().is_ok() {
            println!("no huge pages are set aside here");
            poke(&buffer, 0, 1);
        } else {
            assert_eq!(buffer.as_ptr().err(), Some(ProtectError::Polling));
            assert_eq!(buffer.bytes_mut(0..1), Err(ProtectError::Lent));
        }
        assert_eq!(lent.bytes(), [0]);
    }
}

const PAGES: usize = 8;
const WRITERS: usize = 2;

/// Ever larger numbers, a word in each page, by one writer.
struct Words {
    place: Place,
    page: usize,
    written: [u64; PAGES],
}

impl Words {
    /// Writes the next number to some page, and says whether the last one was gone.
    fn write(&mut self, random: &mut fastrand::Rng) -> bool {
        let index = random.usize(..PAGES);
        let word = self.place.at(index * self.page).0.cast::<u64>();
        // SAFETY: the arena outlives the writers; this word of each page is this writer's, and no
        // slice is in use but those of loans.
        let found = unsafe { word.read_volatile() };
        let lost = found != self.written[index];
        self.written[index] += 1;
        // SAFETY: as above.
        unsafe { word.write_volatile(self.written[index]) };
        lost
    }

    fn check(&self, seed: u64) {
        for (index, written) in self.written.iter().enumerate() {
            let word = self.place.at(index * self.page).0.cast::<u64>();
            // SAFETY: as in `write`, and the writer has ended.
            let found = unsafe { word.read_volatile() };
            assert_eq!(found, *written, "a write was lost, seed {seed}");
        }
    }
}

/// One thread lends, plays with the device and writes as well; others write.
fn schedule(protector: &Protector, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let page = rustix::param::page_size();
    let arena = protector.arena(PAGES * page).unwrap();
    let Some(mut device) = Device::new(&arena) else {
        return;
    };
    let buffer = arena.buffer(PAGES * page).unwrap();
    let start = Place(buffer.as_ptr().unwrap());
    let words = |index: usize| Words {
        place: start.at(index * 8),
        page,
        written: [0; PAGES],
    };
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (1..=WRITERS)
        .map(|index| {
            let (stop, memory) = (Arc::clone(&stop), arena.clone());
            let (mut words, mut random) = (words(index), random.fork());
            Writer::doing(move || {
                let _memory = memory;
                // Some poll another NIC.
                let _polls = random.bool().then(PollingThread::enter);
                let mut lost = 0;
                while !stop.load(Ordering::Relaxed) {
                    lost += usize::from(words.write(&mut random));
                }
                (lost, words)
            })
        })
        .collect();
    let _polls = PollingThread::enter();
    let mut mine = words(0);
    let mut loans: Vec<(Lent, Vec<u8>)> = Vec::new();
    for _ in 0..random.usize(20..200) {
        match random.u8(..8) {
            0..2 => {
                let from = random.usize(..PAGES * page);
                let to = random.usize(from + 1..=PAGES * page);
                match buffer.lend(from..to) {
                    Ok(loan) => {
                        let bytes = loan.bytes().to_vec();
                        loans.push((loan, bytes));
                    }
                    Err(error) => assert_eq!(error, ProtectError::Away, "seed {seed}"),
                }
            }
            2 if !loans.is_empty() => {
                let (loan, bytes) = loans.swap_remove(random.usize(..loans.len()));
                assert!(loan.bytes() == bytes, "lent bytes changed, seed {seed}");
            }
            3 if random.bool() => {
                if let Some((loan, bytes)) = random.choice(&loans) {
                    let from = random.usize(..loan.len());
                    let again = loan.lend_again(from..loan.len()).unwrap();
                    let bytes = bytes[from..].to_vec();
                    loans.push((again, bytes));
                }
            }
            3 => {
                if let Some((loan, bytes)) = random.choice(&loans) {
                    let read = device.read(loan);
                    assert!(read == bytes[..read.len()], "the device, seed {seed}");
                }
            }
            4 => std::thread::yield_now(),
            _ => assert!(!mine.write(&mut random), "a write was lost, seed {seed}"),
        }
    }
    for (loan, bytes) in &loans {
        assert!(loan.bytes() == *bytes, "lent bytes changed, seed {seed}");
    }
    stop.store(true, Ordering::Relaxed);
    drop(loans);
    mine.check(seed);
    for writer in writers {
        let (lost, words) = writer.join();
        assert_eq!(lost, 0, "seed {seed}");
        words.check(seed);
    }
    let counters = protector.counters();
    assert_eq!((counters.lent_bytes, counters.away_bytes), (0, 0));
    // All are home again: the device has what the program has.
    let all = buffer.lend(0..PAGES * page).unwrap();
    assert!(all.bytes() == buffer.bytes(), "seed {seed}");
    for index in 0..PAGES {
        let part = all.lend_again(index * page..(index + 1) * page).unwrap();
        let read = device.read(&part);
        assert!(read == part.bytes()[..read.len()], "seed {seed}");
    }
}

#[test]
fn no_write_is_lost_and_nothing_lent_changes_in_random_schedules() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let protectors = protectors();
    for number in 0..300 {
        let protector = &protectors[number as usize % protectors.len()];
        schedule(protector, seed.wrapping_add(number * 1_000));
    }
    for protector in &protectors {
        let counters = protector.counters();
        println!("{}: {counters:?}", protector.way());
        assert_eq!(counters.departures, counters.returns);
        assert!(counters.departures > 0, "nobody wrote to what is lent");
        assert_eq!(
            (counters.registered_bytes, counters.protected_bytes),
            (0, 0)
        );
    }
}
