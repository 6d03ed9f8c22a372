//! Pages that are mapped anew to be cleared, and writes one behind the other.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::test_support::{Place, Writer, protectors, waits};
use super::watch::minor_faults;
use super::*;
use crate::pages::HUGE;

fn poke(place: Place, byte: u8) {
    // SAFETY: each test pokes memory that a buffer keeps, of which no slice is in use.
    unsafe { place.0.write_volatile(byte) };
}

fn peek(place: Place) -> u8 {
    // SAFETY: as above.
    unsafe { place.0.read_volatile() }
}

/// Whether this kernel maps pages that way: it is not promised where missing pages are not watched.
fn can_map_anew(protector: &Protector) -> bool {
    let arena = protector.arena(HUGE).unwrap();
    let watch = &arena.memory().watch;
    watch.twin().unmap(0, arena.len()).unwrap();
    let base = watch.twin().program().addr().get();
    let mapped = protector.shared().userfault.map(base, arena.len());
    println!("mapped anew: {mapped:?}");
    mapped.is_ok()
}

#[test]
fn what_was_cleared_is_written_without_faults() {
    for protector in protectors() {
        let arena = protector.arena(HUGE).unwrap();
        let huge = protector.huge_arena(2 * HUGE).unwrap();
        for arena in [arena, huge] {
            let pages = arena.len() / rustix::param::page_size();
            let mut buffer = arena.buffer(arena.len()).unwrap();
            for byte in 1..4 {
                drop(buffer.lend(0..arena.len()).unwrap());
                let all = buffer.bytes_mut(0..arena.len()).unwrap();
                let before = minor_faults();
                all.iter_mut()
                    .step_by(arena.len() / pages)
                    .for_each(|first| *first = byte);
                let faults = minor_faults() - before;
                println!("{faults} faults for {pages} pages of {}", arena.page());
                let lent = buffer.lend(0..arena.len()).unwrap();
                let first = lent.bytes().iter().step_by(arena.len() / pages);
                assert!(first.into_iter().all(|first| *first == byte));
                let set_aside = !arena.memory().watch.twin().can_depart();
                println!("whole again: {}", arena.memory().watch.is_whole());
                if arena.memory().watch.is_whole() || set_aside || can_map_anew(&protector) {
                    assert!(faults < pages as i64 / 10);
                }
            }
        }
    }
}

#[test]
fn all_who_wait_for_pages_in_a_row_are_woken() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let buffer = arena.buffer(8 * page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        let lent = buffer.lend(0..8 * page).unwrap();
        let writers: Vec<_> = (0..8)
            .map(|index| Writer::poking(place.at(index * page), b'n'))
            .collect();
        waits(&protector, 8);
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
        // A run of all of them is cleared.
        drop(lent);
        writers.into_iter().for_each(Writer::join);
        assert!((0..8).all(|index| peek(place.at(index * page)) == b'n'));
    }
}

#[test]
fn a_page_that_somebody_has_mapped_meanwhile_is_cleared_all_the_same() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let (page, watch) = (arena.page(), &arena.memory().watch);
        let buffer = arena.buffer(8 * page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        drop(buffer.lend(0..8 * page).unwrap());
        // As a clearing would, with a reader in between.
        watch.twin().unmap(0, 8 * page).unwrap();
        assert_eq!(peek(place.at(3 * page)), 0);
        let userfault = &protector.shared().userfault;
        assert!(userfault.map(place.0.addr().get(), 8 * page).is_err());
        userfault.clear(place.0.addr().get(), 8 * page).unwrap();
        let faults = protector.counters().faults;
        for index in 0..8 {
            Writer::poking(place.at(index * page), 1).join();
        }
        assert_eq!(protector.counters().faults, faults);
    }
}

#[test]
fn who_reads_while_pages_are_cleared_reads_what_was_written() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let mut buffer = arena.buffer(16 * page).unwrap();
        let place = Place(NonNull::from(buffer.bytes()).cast());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let reader = Writer::doing(move || {
            // Each byte only becomes greater.
            let mut last = [0; 16];
            while !stopped.load(Ordering::SeqCst) {
                for (index, last) in last.iter_mut().enumerate() {
                    let now = peek(place.at(index * page));
                    assert!(now >= *last, "{now} after {last}");
                    *last = now;
                }
            }
        });
        for round in 1..=250 {
            // By pointer, as somebody reads.
            for index in 0..16 {
                poke(place.at(index * page), round);
            }
            let lent = buffer.lend(0..16 * page).unwrap();
            let first = lent.bytes().iter().step_by(page);
            assert!(first.into_iter().all(|first| *first == round));
            drop(lent);
            buffer.bytes_mut(0..16 * page).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        reader.join();
    }
}

/// Whoever polls the NIC and has something of the arena to lend must not wait for all of it.
#[test]
fn much_is_cleared_in_pieces() {
    for protector in protectors() {
        for arena in [protector.arena(4 * HUGE), protector.huge_arena(4 * HUGE)] {
            let mut buffer = arena.unwrap().buffer(4 * HUGE).unwrap();
            drop(buffer.lend(0..4 * HUGE).unwrap());
            let before = protector.counters();
            assert_eq!(before.protected_bytes, 4 * HUGE as u64);
            buffer.bytes_mut(0..4 * HUGE).unwrap();
            let after = protector.counters();
            assert_eq!(after.protected_bytes, 0);
            assert_eq!(after.clears - before.clears, 4);
        }
    }
}

#[test]
fn writes_in_a_row_are_stopped_less_and_less_often() {
    for protector in protectors() {
        let arena = protector.arena(1 << 20).unwrap();
        let page = arena.page();
        let buffer = arena.buffer(64 * page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        drop(buffer.lend(0..64 * page).unwrap());
        let lent = buffer.lend(20 * page..22 * page).unwrap();
        let writer = Writer::doing(move || {
            (0..64).for_each(|index| poke(place.at(index * page), b'n'));
        });
        // What is ahead of it and lent stays so.
        waits(&protector, 1);
        assert!(writer.sleeps());
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
        assert_eq!(protector.counters().lent_bytes, 2 * page as u64);
        drop(lent);
        writer.join();
        assert!((0..64).all(|index| peek(place.at(index * page)) == b'n'));
        let counters = protector.counters();
        println!("{} faults", counters.faults);
        assert!(counters.faults < 20, "{counters:?}");
        // And all is protected when it is lent again.
        let lent = buffer.lend(0..64 * page).unwrap();
        let writer = Writer::poking(place.at(63 * page), b'x');
        waits(&protector, counters.waits + 1);
        assert!(lent.bytes()[63 * page..].iter().take(1).eq(b"n"));
        drop(lent);
        writer.join();
    }
}
