use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::test_support::{Place, Writer, eventually, full, protectors, waits};
use super::*;
use crate::pages::HUGE;

#[test]
fn a_writer_sleeps_until_the_last_loan_of_its_page_is_gone() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let mut buffer = arena.buffer(4 * page).unwrap();
        buffer.bytes_mut(0..4 * page).unwrap().fill(b'o');
        // The second loan touches the page by one byte.
        let first = buffer.lend(page - 1..page + 1).unwrap();
        let second = buffer.lend(page..3 * page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        let writer = Writer::poking(place.at(page + 5), b'n');
        let other = Writer::poking(place.at(3 * page), b'n');
        waits(&protector, 1);
        // Nobody lent the last page.
        other.join();
        assert!(writer.sleeps());
        drop(first);
        assert!(writer.sleeps());
        assert!(second.bytes().iter().all(|byte| *byte == b'o'));
        drop(second);
        writer.join();
        assert_eq!(buffer.bytes()[page + 5], b'n');
        assert_eq!(buffer.bytes()[page + 6], b'o');
        // The second send carries the new byte.
        assert_eq!(buffer.lend(page + 5..page + 6).unwrap().bytes(), b"n");
    }
}

/// They are woken by a release, and not by one another, which would never end.
#[test]
fn writers_that_wait_do_not_wake_each_other() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let buffer = arena.buffer(4 * page).unwrap();
        let lent = buffer.lend(0..4 * page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        let writers = [0, 2].map(|index| Writer::poking(place.at(index * page), b'n'));
        waits(&protector, 2);
        std::thread::sleep(std::time::Duration::from_millis(50));
        let watches = crate::space::lock(&protector.shared().watches).clone();
        let naps = watches
            .iter()
            .map(|watch| watch.naps.load(Ordering::Relaxed));
        // A system may wake one for no reason.
        assert!(naps.sum::<usize>() < 10, "{:?}", protector.mode());
        drop(lent);
        writers.into_iter().for_each(Writer::join);
    }
}

#[test]
fn protection_is_set_in_one_call_and_stays_until_somebody_writes() {
    for protector in protectors() {
        let arena = protector.arena(1 << 20).unwrap();
        let page = arena.page();
        let buffer = arena.buffer(64 * page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        drop(buffer.lend(10 * page..20 * page).unwrap());
        assert_eq!(protector.counters().protects, 1);
        assert_eq!(protector.counters().protected_bytes, 10 * page as u64);
        drop(buffer.lend(0..64 * page).unwrap());
        assert_eq!(protector.counters().protects, 2);
        // All is protected: no call.
        for _ in 0..100 {
            let lent = buffer.lend(3..64 * page - 3).unwrap();
            assert_eq!(protector.counters().lent_bytes, 64 * page as u64);
            drop(lent.lend_again(1..page).unwrap());
        }
        let before = protector.counters();
        assert_eq!((before.protects, before.clears, before.waits), (2, 0, 0));
        assert_eq!((before.lent_bytes, before.faults), (0, 0));
        assert_eq!(before.protected_bytes, 64 * page as u64);
        // A write clears its page without a wait, and only that is protected again.
        Writer::poking(place.at(7 * page), b'x').join();
        assert_eq!(protector.counters().protected_bytes, 63 * page as u64);
        let lent = buffer.lend(0..64 * page).unwrap();
        let after = protector.counters();
        assert_eq!((after.protects, after.clears, after.waits), (3, 1, 0));
        assert_eq!(after.faults, 1);
        drop((lent, buffer, arena));
        let end = protector.counters();
        assert_eq!((end.registered_bytes, end.protected_bytes), (0, 0));
    }
}

#[test]
fn writing_through_the_value_waits_without_a_fault() {
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let mut buffer = arena.buffer(8 * page).unwrap();
        let lent = buffer.lend(0..page).unwrap();
        assert_eq!(
            buffer.try_bytes_mut(page - 1..page + 1),
            Err(ProtectError::Lent)
        );
        buffer.try_bytes_mut(page..2 * page).unwrap().fill(b'2');
        let writer = Writer::doing(move || {
            buffer.bytes_mut(0..8 * page).unwrap().fill(b'n');
            buffer
        });
        assert!(writer.sleeps());
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
        drop(lent);
        let buffer = writer.join();
        assert!(buffer.bytes().iter().all(|byte| *byte == b'n'));
        assert_eq!(protector.counters().faults, 0);
    }
}

#[test]
fn whoever_lends_is_told_that_somebody_waits() {
    /// Each page by itself.
    fn told(arena: &Arena) -> Vec<usize> {
        let mut runs = Vec::new();
        arena.wanted(&mut |run| runs.extend(run.step_by(arena.page())));
        assert_eq!(arena.has_wanted(), !runs.is_empty());
        runs
    }
    for protector in protectors() {
        let arena = protector.arena(64 << 10).unwrap();
        let page = arena.page();
        let mut buffer = arena.buffer(8 * page).unwrap();
        let mut loans = vec![
            buffer.lend(0..page).unwrap(),
            buffer.lend(page..4 * page).unwrap(),
            buffer.lend(5 * page..6 * page).unwrap(),
        ];
        assert_eq!(told(&arena), []);
        let writer = Writer::poking(Place(buffer.as_ptr().unwrap()).at(2 * page), b'n');
        waits(&protector, 1);
        assert_eq!(told(&arena), [2 * page]);
        // In vain, without a fault.
        let tried = buffer.try_bytes_mut(3 * page..8 * page).map(|_| ());
        assert_eq!(tried, Err(ProtectError::Lent));
        assert_eq!(told(&arena), [2 * page, 3 * page, 5 * page]);
        // The loan may be given back where it is told.
        arena.wanted(&mut |run| loans.retain(|loan| !run.contains(&loan.arena_offset())));
        assert_eq!(told(&arena), [2 * page, 3 * page]);
        loans.clear();
        writer.join();
        assert_eq!(told(&arena), []);
        buffer.try_bytes_mut(0..8 * page).unwrap().fill(b'x');
        assert_eq!(protector.counters().faults, 1);
    }
}

#[test]
fn many_writers_all_wake() {
    for protector in protectors() {
        let arena = protector.arena(1 << 20).unwrap();
        let page = arena.page();
        let buffer = arena.buffer(16 * page).unwrap();
        let loans: Vec<_> = (0..16)
            .map(|i| buffer.lend(0..i * page + 1).unwrap())
            .collect();
        let place = Place(buffer.as_ptr().unwrap());
        let writers: Vec<_> = (0..16)
            .map(|i| Writer::poking(place.at(i * page + 100), b'w'))
            .collect();
        waits(&protector, 16);
        assert!(writers.iter().all(|writer| !writer.is_done()));
        assert!(loans[15].bytes().iter().all(|byte| *byte == 0));
        drop(loans);
        for writer in writers {
            writer.join();
        }
        assert!((0..16).all(|i| buffer.bytes()[i * page + 100] == b'w'));
    }
}

#[test]
fn a_buffer_that_is_dropped_while_lent_keeps_its_pages() {
    let protector = Protector::open(Choice::Best).unwrap();
    let arena = protector.arena(1).unwrap();
    let page = arena.page();
    let mut buffer = arena.buffer(page).unwrap();
    buffer.bytes_mut(0..page).unwrap().fill(b'o');
    let lent = buffer.lend(5..page).unwrap();
    let again = lent.lend_again(10..11).unwrap();
    drop(buffer);
    let none = ProtectError::NoRoom {
        wanted: page as u64,
        longest: 0,
    };
    assert_eq!(arena.buffer(1).err(), Some(none.clone()));
    drop(lent);
    assert_eq!(arena.buffer(1).err(), Some(none));
    assert_eq!(again.bytes(), b"o");
    assert_eq!(again.arena_offset(), 15);
    drop(again);
    assert_eq!(arena.free_bytes(), page as u64);
    let next = arena.buffer(1).unwrap();
    // Its first write clears what is left of the old protection.
    Writer::poking(Place(next.as_ptr().unwrap()), b'n').join();
    assert_eq!(next.bytes(), b"n");
}

#[test]
fn a_loan_outlives_everything_and_a_forgotten_one_leaks_it() {
    let protector = Protector::open(Choice::Best).unwrap();
    let shared = Arc::downgrade(&protector.shared_for_tests());
    let arena = protector.arena(1).unwrap();
    let mut buffer = arena.buffer(100).unwrap();
    let base = buffer.as_ptr().unwrap();
    buffer.bytes_mut(0..100).unwrap().fill(7);
    let lent = buffer.lend(0..100).unwrap();
    let kept = lent.lend_again(0..100).unwrap();
    drop((protector, arena, buffer, lent));
    assert_eq!(kept.bytes(), [7; 100]);
    let writer = Writer::poking(Place(base), 8);
    assert!(writer.sleeps());
    // The memory goes with the last loan: take another, which stays for ever.
    let leaked = kept.lend_again(0..1).unwrap();
    std::mem::forget(leaked);
    drop(kept);
    assert!(writer.sleeps());
    assert!(shared.upgrade().is_some());
    // SAFETY: the memory is never freed.
    assert_eq!(unsafe { base.read_volatile() }, 7);
    // Let the writer go, as it would hold up the end of the test program.
    let shared = shared.upgrade().unwrap();
    let watch = Arc::clone(&crate::space::lock(&shared.watches)[0]);
    watch.release(&shared, &(0..1));
    writer.join();
}

#[test]
fn all_of_it_ends_with_the_last_value() {
    for protector in protectors() {
        let shared = Arc::downgrade(&protector.shared_for_tests());
        let arena = protector.arena(1 << 20).unwrap();
        let lent = arena.buffer(100).unwrap().lend(0..100).unwrap();
        drop((protector, arena));
        assert!(shared.upgrade().is_some());
        drop(lent);
        // The thread had the other share.
        assert!(shared.upgrade().is_none());
    }
}

#[test]
fn the_death_of_the_handler_releases_writers_and_keeps_what_is_lent() {
    let with_thread = |protector: &Protector| protector.mode() != Mode::Signal;
    for protector in protectors().into_iter().filter(with_thread) {
        let arena = protector.arena(1 << 20).unwrap();
        let page = arena.page();
        let buffer = arena.buffer(4 * page).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        drop(buffer.lend(0..4 * page).unwrap());
        let lent = buffer.lend(page..2 * page).unwrap();
        let early = Writer::poking(place.at(page), b'e');
        waits(&protector, 1);
        assert!(protector.kill_handler());
        // What is not lent can be written.
        Writer::poking(place.at(2 * page), b'x').join();
        let late = Writer::poking(place.at(2 * page - 1), b'l');
        assert!(early.sleeps() && late.sleeps());
        assert!(lent.bytes().iter().all(|byte| *byte == 0));
        assert_eq!(lent.lend_again(0..1).err(), Some(ProtectError::HandlerGone));
        assert_eq!(buffer.lend(0..1).err(), Some(ProtectError::HandlerGone));
        assert_eq!(protector.arena(1).err(), Some(ProtectError::HandlerGone));
        assert!(!protector.is_alive());
        drop(lent);
        early.join();
        late.join();
        assert_eq!(protector.counters().protected_bytes, 0);
    }
}

#[test]
fn huge_pages_are_protected_whole() {
    for protector in protectors() {
        let arena = protector.huge_arena(HUGE + 1).unwrap();
        assert_eq!((arena.page(), arena.len()), (HUGE, 2 * HUGE));
        let buffer = arena.buffer(HUGE + 1).unwrap();
        let lent = buffer.lend(HUGE - 1..HUGE + 1).unwrap();
        let counters = protector.counters();
        assert_eq!(
            (counters.protects, counters.protected_bytes),
            (1, 2 * HUGE as u64)
        );
        let writer = Writer::poking(Place(buffer.as_ptr().unwrap()).at(4096), b'n');
        waits(&protector, 1);
        assert!(writer.sleeps());
        drop(lent);
        writer.join();
        assert_eq!(protector.counters().protected_bytes, HUGE as u64);
        assert_eq!(
            arena
                .buffer(1)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default(),
            "the arena has no room for 2097152 bytes in a row: at most 0 are free. Drop buffers, \
             release loans, or make a larger arena"
        );
    }
}

/// `read(2)` by pointer, from a pipe that has one byte.
pub(super) fn read_into(place: Place) -> Result<(), Errno> {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::write(&writer, b"k").unwrap();
    read(&reader, place)
}

fn read(from: &OwnedFd, place: Place) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: as for `Writer::poking`: one byte of a buffer.
    let read = unsafe { libc::read(from.as_raw_fd(), place.0.as_ptr().cast(), 1) };
    if read == 1 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[test]
fn writes_by_the_kernel_wait_in_full_mode() {
    let Some(protector) = full() else { return };
    let arena = protector.arena(1).unwrap();
    let buffer = arena.buffer(10).unwrap();
    let lent = buffer.lend(0..10).unwrap();
    let place = Place(buffer.as_ptr().unwrap());
    let writer = Writer::doing(move || read_into(place.at(3)));
    waits(&protector, 1);
    assert!(writer.sleeps());
    assert_eq!(lent.bytes(), [0; 10]);
    drop(lent);
    assert_eq!(writer.join(), Ok(()));
    assert_eq!(buffer.bytes()[3], b'k');
    // What is protected and not lent is cleared on the way.
    drop(buffer.lend(0..10).unwrap());
    assert_eq!(read_into(place), Ok(()));
    assert_eq!(buffer.bytes()[0], b'k');
}

#[test]
fn writes_by_the_kernel_fail_in_user_mode_but_not_through_the_value() {
    for choice in [Choice::UserOnly, Choice::Signal] {
        let protector = Protector::open(choice).unwrap();
        assert!(protector.mode().to_string().contains("EFAULT"));
        let arena = protector.arena(1).unwrap();
        let mut buffer = arena.buffer(10).unwrap();
        let lent = buffer.lend(0..10).unwrap();
        let place = Place(buffer.as_ptr().unwrap());
        assert_eq!(read_into(place), Err(Errno::FAULT));
        drop(lent);
        // Still protected: by pointer it fails, through the value it does not.
        assert_eq!(read_into(place), Err(Errno::FAULT));
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&writer, b"value").unwrap();
        let read = rustix::io::read(&reader, buffer.bytes_mut(0..10).unwrap());
        assert_eq!(read, Ok(5));
        assert_eq!(&buffer.bytes()[..5], b"value");
        assert_eq!(protector.counters().faults, 0);
    }
}

#[test]
fn ranges_are_checked() {
    let protector = Protector::open(Choice::Best).unwrap();
    assert_eq!(protector.arena(0).err(), Some(ProtectError::Empty));
    assert!(matches!(
        protector.arena(usize::MAX - 10).err(),
        Some(ProtectError::System { .. })
    ));
    let arena = protector.arena(1).unwrap();
    assert_eq!(arena.buffer(0).err(), Some(ProtectError::Empty));
    assert!(matches!(
        arena.buffer(usize::MAX).err(),
        Some(ProtectError::NoRoom { .. })
    ));
    let mut buffer = arena.buffer(100).unwrap();
    assert_eq!(buffer.bytes_mut(100..100), Ok(&mut [][..]));
    for range in [0..101, 101..101, usize::MAX..usize::MAX, 50..usize::MAX] {
        assert_eq!(
            buffer.lend(range.clone()).err(),
            Some(ProtectError::OutOfRange)
        );
        assert_eq!(buffer.try_bytes_mut(range), Err(ProtectError::OutOfRange));
    }
    #[expect(clippy::reversed_empty_ranges)]
    let backwards = 5..4;
    assert_eq!(buffer.lend(backwards).err(), Some(ProtectError::OutOfRange));
    assert_eq!(buffer.lend(7..7).err(), Some(ProtectError::Empty));
    let lent = buffer.lend(50..60).unwrap();
    assert_eq!(lent.lend_again(0..11).err(), Some(ProtectError::OutOfRange));
    assert_eq!(lent.lend_again(10..10).err(), Some(ProtectError::Empty));
    assert_eq!(protector.counters().lent_bytes, arena.page() as u64);
}

#[test]
fn memory_that_somebody_else_unmaps_is_an_error_and_no_hang() {
    let protector = Protector::open(Choice::Best).unwrap();
    let arena = protector.arena(1).unwrap();
    let page = arena.page();
    let buffer = arena.buffer(page).unwrap();
    let base = buffer.as_ptr().unwrap().as_ptr();
    let flags = rustix::mm::MapFlags::PRIVATE | rustix::mm::MapFlags::FIXED;
    let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: nobody uses the pages; other pages take their place, so that what is unmapped at the
    // end is the same.
    unsafe { rustix::mm::mmap_anonymous(base.cast(), page, access, flags) }.unwrap();
    assert_eq!(
        buffer.lend(0..1).err(),
        Some(ProtectError::System {
            doing: "cannot protect pages",
            errno: Errno::NOENT.raw_os_error()
        })
    );
    assert_eq!(protector.counters().lent_bytes, 0);
    assert_eq!(protector.counters().protected_bytes, 0);
    assert!(eventually(|| protector.is_alive()));
}
