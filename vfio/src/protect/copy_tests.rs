use super::test_support::{Place, Writer, eventually, protectors, waits};
use super::*;

fn all(kept: &Kept) -> Vec<u8> {
    let mut bytes = vec![0xee; kept.len()];
    kept.copy_to(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_writer_goes_on_and_the_old_bytes_live_on() {
    for protector in protectors() {
        let page = rustix::param::page_size();
        let arena = protector.copying_arena(4 * page, 2 * page).unwrap();
        assert_eq!(arena.len(), 6 * page);
        let mut buffer = arena.buffer(4 * page).unwrap();
        buffer.bytes_mut(0..4 * page).unwrap().fill(b'1');
        let place = Place(buffer.as_ptr());
        let first = buffer.keep(10..4 * page).unwrap();
        assert_eq!(first.lend(0..4 * page - 10).unwrap().len(), 4 * page - 10);
        Writer::poking(place.at(page), b'2').join();
        assert_eq!(protector.counters().waits, 0);
        let second = buffer.keep(0..2 * page).unwrap();
        Writer::poking(place.at(page), b'3').join();
        assert_eq!(protector.counters().copies, 2);
        assert_eq!(protector.counters().old_bytes, 2 * page as u64);
        assert!(all(&first).iter().all(|byte| *byte == b'1'));
        let bytes = all(&second);
        assert_eq!(
            (bytes[page - 1], bytes[page], bytes[page + 1]),
            (b'1', b'2', b'1')
        );
        assert_eq!(buffer.bytes()[page], b'3');
        // In three places now: before the page, the page elsewhere, and behind it.
        let pieces: Vec<_> = [0, page - 10, 2 * page - 10]
            .iter()
            .map(|offset| first.lend(*offset..first.len()).unwrap())
            .map(|lent| (lent.arena_offset(), lent.len()))
            .collect();
        assert_eq!(pieces[0], (10, page - 10));
        assert!(pieces[1].0 >= 4 * page && pieces[1].1 == page);
        assert_eq!(pieces[2], (2 * page, 2 * page));
        drop(first);
        assert_eq!(protector.counters().old_bytes, page as u64);
        drop(second);
        let end = protector.counters();
        assert_eq!((end.old_bytes, end.lent_bytes), (0, 0));
    }
}

#[test]
fn a_writer_waits_for_what_has_been_posted_and_later_frames_are_sent_from_elsewhere() {
    for protector in protectors() {
        let page = rustix::param::page_size();
        let arena = protector.copying_arena(page, page).unwrap();
        let buffer = arena.buffer(page).unwrap();
        let kept = buffer.keep(0..100).unwrap();
        let posted = kept.lend(0..100).unwrap();
        let writer = Writer::poking(Place(buffer.as_ptr()), b'n');
        waits(&protector, 1);
        assert!(writer.sleeps());
        // A retransmission: it does not make the writer wait longer.
        let again = kept.lend(0..100).unwrap();
        assert_eq!((again.arena_offset(), again.bytes()), (page, &[0; 100][..]));
        drop(posted);
        writer.join();
        assert_eq!(buffer.bytes()[0], b'n');
        // Acknowledged before it is done: the old bytes stay for the device.
        drop(kept);
        let once_more = again.lend_again(1..2).unwrap();
        assert_eq!(protector.counters().old_bytes, page as u64);
        drop(again);
        assert_eq!(once_more.bytes(), [0]);
        drop(once_more);
        assert_eq!(protector.counters().old_bytes, 0);
    }
}

#[test]
fn without_a_page_for_old_bytes_a_writer_waits() {
    for protector in protectors() {
        let page = rustix::param::page_size();
        let arena = protector.copying_arena(2 * page, 0).unwrap();
        let mut buffer = arena.buffer(2 * page).unwrap();
        let mut kept = buffer.keep(0..2 * page).unwrap();
        let writer = Writer::poking(Place(buffer.as_ptr()), b'n');
        waits(&protector, 1);
        assert!(writer.sleeps());
        assert_eq!(buffer.try_bytes_mut(0..1), Err(ProtectError::Lent));
        kept.trim_front(page - 1);
        assert!(writer.sleeps());
        kept.trim_front(1);
        writer.join();
        assert_eq!(
            buffer.try_bytes_mut(page..page + 1),
            Err(ProtectError::Lent)
        );
        kept.trim_front(usize::MAX);
        assert!(kept.is_empty());
        assert_eq!(kept.lend(0..0).err(), Some(ProtectError::Empty));
        assert!(buffer.try_bytes_mut(page..page + 1).is_ok());
        drop(kept);
        assert_eq!(protector.counters().lent_bytes, 0);
    }
}

#[test]
fn a_write_through_the_value_goes_on_also_on_the_thread_that_polls() {
    for protector in protectors() {
        let page = rustix::param::page_size();
        let arena = protector.copying_arena(2 * page, 3 * page).unwrap();
        let mut buffer = arena.buffer(2 * page).unwrap();
        let _polls = PollingThread::enter();
        let kept = buffer.keep(0..2 * page).unwrap();
        buffer.bytes_mut(0..2 * page).unwrap().fill(b'n');
        assert!(all(&kept).iter().all(|byte| *byte == 0));
        // A descriptor that is posted stops it, with an error.
        let newer = buffer.keep(0..1).unwrap();
        let posted = newer.lend(0..1).unwrap();
        assert_eq!(buffer.bytes_mut(0..1), Err(ProtectError::Lent));
        drop(posted);
        buffer.bytes_mut(0..1).unwrap().fill(b'x');
        assert_eq!((all(&kept)[0], all(&newer)[0]), (0, b'n'));
        assert_eq!(protector.counters().faults, 0);
    }
}

#[test]
fn a_sleeper_goes_on_when_there_is_room_for_old_bytes_again() {
    let protector = Protector::open(Choice::Best).unwrap();
    let page = rustix::param::page_size();
    let arena = protector.copying_arena(2 * page, page).unwrap();
    let mut one = arena.buffer(page).unwrap();
    let mut two = arena.buffer(page).unwrap();
    let kept = [one.keep(0..1).unwrap(), two.keep(0..1).unwrap()];
    one.bytes_mut(0..1).unwrap().fill(1);
    let writer = Writer::doing(move || {
        two.bytes_mut(0..1).unwrap().fill(2);
        two
    });
    assert!(writer.sleeps());
    let [first, second] = kept;
    drop(first);
    assert_eq!(writer.join().bytes()[0], 2);
    assert_eq!(all(&second), [0]);
}

#[test]
fn what_is_kept_survives_the_death_of_the_handler() {
    for protector in protectors() {
        let page = rustix::param::page_size();
        let arena = protector.copying_arena(2 * page, page).unwrap();
        let buffer = arena.buffer(2 * page).unwrap();
        let kept = buffer.keep(0..2 * page).unwrap();
        protector.kill_handler();
        let place = Place(buffer.as_ptr());
        // One page had room, the other has none.
        let writers = [0, page].map(|offset| Writer::poking(place.at(offset), b'n'));
        assert!(eventually(|| writers.iter().any(Writer::is_done)));
        assert!(writers.iter().any(Writer::sleeps));
        assert!(all(&kept).iter().all(|byte| *byte == 0));
        assert_eq!(buffer.keep(0..1).err(), Some(ProtectError::HandlerGone));
        drop(kept);
        writers.into_iter().for_each(Writer::join);
        assert_eq!(protector.counters().protected_bytes, 0);
    }
}

#[test]
fn ranges_of_what_is_kept_are_checked() {
    let protector = Protector::open(Choice::Best).unwrap();
    let arena = protector.copying_arena(1, 1).unwrap();
    let buffer = arena.buffer(100).unwrap();
    assert_eq!(buffer.keep(0..101).err(), Some(ProtectError::OutOfRange));
    assert_eq!(buffer.keep(7..7).err(), Some(ProtectError::Empty));
    let kept = buffer.keep(50..60).unwrap();
    assert_eq!(kept.lend(0..11).err(), Some(ProtectError::OutOfRange));
    assert_eq!(kept.lend(10..10).err(), Some(ProtectError::Empty));
    assert_eq!(kept.copy_to(5, &mut [0; 6]), Err(ProtectError::OutOfRange));
    assert_eq!(
        kept.copy_to(usize::MAX, &mut [0; 6]),
        Err(ProtectError::OutOfRange)
    );
    assert_eq!(kept.copy_to(10, &mut []), Ok(()));
    assert_eq!(
        protector
            .copying_arena(1, usize::MAX)
            .err()
            .map(|error| error.to_string()),
        Some("cannot get memory to be lent: Cannot allocate memory (os error 12)".into())
    );
}
