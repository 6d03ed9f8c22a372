//! What is mapped has limits, and beyond them nothing waits for others.

use std::fs::File;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;

use pagewire::tcp::{Outcome, Slice};
use pagewire_outbox::{Limits, Message, OutboxError};
use pagewire_vfio::protect::{Choice, Protector};

use super::desk::{Desk, file};
use super::machine::{Kind, PAGE, Setup};

fn limits() -> Limits {
    Limits {
        connection: 16 * PAGE,
        total: 24 * PAGE,
        window: 8 * PAGE,
        connections: 4,
    }
}

/// One peer takes nothing; another one gets its file all the same, read instead of mapped, and within the
/// limits.
#[test]
fn a_silent_peer_does_not_stop_the_others() {
    for kind in Kind::ALL {
        let mut setup = Setup::new(kind, 1);
        setup.connections = 4;
        let mut desk = Desk::new(&setup, limits());
        let len = 40 * PAGE;
        let (held, content) = file(len, 1);
        // Receivers that sleep have windows of 64 KiB.
        desk.machine.receiver.asleep = true;
        for connection in 0..3 {
            let id = desk.id(connection);
            let message = Message::new().file(held.try_clone().unwrap(), 0..len as u64);
            desk.outbox.send(id, message);
        }
        (0..3000).for_each(|_| desk.round());
        let counters = desk.outbox.counters();
        assert_eq!(counters.mapped, 24 * PAGE, "{kind:?}: all that may be");
        assert!(
            counters.copied > 0,
            "the third has none, and begins by reading"
        );
        let before = counters.copied;
        let id = desk.id(3);
        let (other, other_content) = file(15 * PAGE, 2);
        let range = 100..15 * PAGE as u64;
        desk.outbox.send(id, Message::new().file(other, range));
        // Its window is as good as theirs, and it is enough for this one.
        let done = desk.done(3);
        assert_eq!(
            (done.delivered, done.copied),
            (done.len, done.len),
            "{kind:?}"
        );
        let counters = desk.outbox.counters();
        assert!(counters.copied >= before + done.len);
        assert_eq!(counters.most_mapped, 24 * PAGE);
        desk.machine.receiver.asleep = false;
        for connection in 0..3 {
            assert_eq!(desk.done(connection).delivered, len as u64);
            assert_eq!(desk.machine.arrived(connection), content, "{kind:?}");
        }
        assert_eq!(desk.machine.arrived(3), &other_content[100..]);
        assert_eq!(desk.outbox.counters().most_mapped, 24 * PAGE, "{kind:?}");
        desk.assert_all_back();
    }
}

#[test]
fn what_cannot_be_mapped_is_read() {
    for for_ever in [false, true] {
        let mut desk = Desk::new(&Setup::new(Kind::Ixgbe, 2), limits());
        let len = 60 * PAGE as u64;
        let (file, content) = file(60 * PAGE, 2);
        let refuses = match for_ever {
            true => &desk.refuses.for_ever,
            false => &desk.refuses.as_full,
        };
        refuses.store(true, Ordering::Relaxed);
        let id = desk.id(0);
        desk.outbox
            .send(id, Message::new().file(file.try_clone().unwrap(), 0..len));
        desk.outbox.send(id, Message::new().file(file, 0..len));
        desk.run_until("half", |desk| {
            (desk.machine.arrived(0).len() > 30 * PAGE).then_some(())
        });
        desk.refuses.for_ever.store(false, Ordering::Relaxed);
        desk.refuses.as_full.store(false, Ordering::Relaxed);
        let (first, second) = (desk.done(0), desk.done(0));
        assert!(first.copied >= 30 * PAGE as u64 && first.copied < len);
        assert_eq!(first.delivered, len);
        // By then mapping had been tried again.
        assert_eq!((second.copied, second.delivered), (0, len));
        assert_eq!(desk.machine.arrived(0), [&*content, &*content].concat());
        desk.assert_all_back();
    }
}

/// A file that is shortened before its turn has its length all the same: zeros.
#[test]
fn a_file_that_became_shorter() {
    let mut setup = Setup::new(Kind::E1000e, 3);
    setup.send_limit = 8 * PAGE;
    let mut desk = Desk::new(&setup, limits());
    let len = 40 * PAGE;
    let (file, content) = file(len, 3);
    let id = desk.id(0);
    let message = Message::new().file(file.try_clone().unwrap(), 0..len as u64);
    desk.outbox.send(id, message);
    desk.round();
    file.set_len(20 * PAGE as u64).unwrap();
    let done = desk.done(0);
    assert_eq!(done.delivered, len as u64);
    let arrived = desk.machine.arrived(0);
    assert_eq!(arrived[..20 * PAGE], content[..20 * PAGE]);
    assert!(arrived[20 * PAGE..].iter().all(|byte| *byte == 0));
    desk.assert_all_back();
}

/// Buffers go round: a connection that has some leaves those that others are sure of.
#[test]
fn texts_of_many_connections_share_few_buffers() {
    let mut setup = Setup::new(Kind::Virtio, 4);
    setup.connections = 4;
    let mut desk = Desk::new(&setup, limits());
    let greedy = desk.id(0);
    for _ in 0..50 {
        desk.outbox.send(greedy, Message::new().text("much"));
    }
    let now = desk.machine.host.now();
    desk.outbox.poll(&mut desk.machine.stack, now);
    assert_eq!(desk.outbox.free_buffers(), 3, "for the other three");
    for connection in 1..4 {
        let id = desk.id(connection);
        desk.outbox.send(id, Message::new().text("little"));
        assert_eq!(desk.done(connection).delivered, 6);
    }
    for _ in 0..50 {
        assert_eq!(desk.done(0).delivered, 4);
    }
    desk.assert_all_back();
}

/// A limit counts what is locked, and that is whole pages.
#[test]
fn a_byte_of_a_file_counts_as_a_page() {
    let mut desk = Desk::new(&Setup::new(Kind::Ixgbe, 5), limits());
    let (file, content) = file(PAGE, 5);
    let id = desk.id(0);
    for byte in 0..17 {
        let mut range = byte..byte + 1;
        let (stack, now) = (&mut desk.machine.stack, desk.machine.host.now());
        let accepted = desk
            .outbox
            .sendfile(stack, now, id, &file, &mut range, byte);
        // The last one finds no room.
        assert_eq!(accepted, Ok(usize::from(byte < 16)));
    }
    assert_eq!(desk.outbox.counters().mapped, 16 * PAGE);
    for _ in 0..16 {
        assert_eq!(desk.done(0).delivered, 1);
    }
    assert_eq!(desk.machine.arrived(0), &content[..16]);
    desk.assert_all_back();
}

#[test]
fn where_nothing_may_be_mapped_all_is_read() {
    let none = Limits {
        total: 0,
        ..limits()
    };
    let mut desk = Desk::new(&Setup::new(Kind::Virtio, 6), none);
    let (file, content) = file(20_000, 6);
    let id = desk.id(0);
    desk.outbox.send(id, Message::new().file(file, 0..20_000));
    let done = desk.done(0);
    assert_eq!((done.delivered, done.copied), (20_000, 20_000));
    assert_eq!(desk.machine.arrived(0), content);
    assert_eq!(desk.outbox.counters().most_mapped, 0);
    desk.assert_all_back();
}

/// A directory can be opened, and neither mapped nor read: what was promised cannot be sent.
#[test]
fn what_cannot_even_be_read_breaks_the_connection() {
    let mut desk = Desk::new(&Setup::new(Kind::E1000e, 7), limits());
    let id = desk.id(0);
    let directory = File::open(std::env::temp_dir()).unwrap();
    let message = Message::new().text("head").file(directory, 0..9).tag(3);
    desk.outbox.send(id, message);
    desk.outbox
        .send(id, Message::new().text("behind it").tag(4));
    let error = Some(OutboxError::Read(ErrorKind::IsADirectory));
    for tag in [3, 4] {
        let done = desk.done(0);
        assert_eq!((done.tag, done.outcome), (tag, Outcome::Aborted));
        assert_eq!(done.error, error);
    }
    assert!(desk.machine.stack.error(id).is_some());
    let now = desk.machine.host.now();
    desk.outbox.remove(&mut desk.machine.stack, now, id);
    desk.assert_all_back();
}

/// What is mapped for a message whose connection breaks comes back with its end, not with the
/// connection's.
#[test]
fn a_broken_message_keeps_no_window() {
    for kind in Kind::ALL {
        let mut setup = Setup::new(kind, 8);
        setup.send_limit = 3 * PAGE;
        let mut desk = Desk::new(&setup, limits());
        let (file, _) = file(30 * PAGE, 8);
        let id = desk.id(0);
        let range = 0..30 * PAGE as u64;
        desk.outbox.send(id, Message::new().file(file, range));
        desk.run_until("some", |desk| {
            (!desk.machine.arrived(0).is_empty()).then_some(())
        });
        assert!(desk.outbox.counters().mapped > 0);
        desk.machine.receiver.abort();
        let done = desk.done(0);
        assert_eq!(done.outcome, Outcome::Aborted);
        desk.run_until("back", |desk| {
            (desk.outbox.counters().mapped == 0).then_some(())
        });
    }
}

/// Memory that may not be lent, and a stack without a copy pool: a buffer helps, and nothing fails.
#[test]
fn memory_that_cannot_be_lent_is_copied() {
    let protector = Protector::open(Choice::Best).unwrap();
    protector.set_limit(2 * PAGE as u64);
    let mut setup = Setup::new(Kind::Ixgbe, 9);
    setup.slots = 0;
    let mut desk = Desk::new(&setup, limits());
    let len = 10 * PAGE;
    let arena = protector.arena(len).unwrap();
    let mut buffer = arena.buffer(len).unwrap();
    let (_, content) = file(len, 9);
    buffer.bytes_mut(0..len).unwrap().copy_from_slice(&content);
    let region = desk.machine.host.register(arena.clone()).unwrap();
    let region = desk.machine.stack.register(region).unwrap();
    let slice = |start, len| Slice {
        region,
        start: buffer.arena_offset() + start,
        len,
    };
    let id = desk.id(0);
    let message = Message::new().slice(slice(0, PAGE)).text("between");
    desk.outbox.send(id, message.slice(slice(PAGE, len - PAGE)));
    let (stack, now) = (&mut desk.machine.stack, desk.machine.host.now());
    assert_eq!(desk.outbox.write(stack, now, id, slice(0, 1), 1), Ok(0));
    let done = desk.done(0);
    assert_eq!(
        (done.delivered, done.outcome),
        (done.len, Outcome::Delivered)
    );
    assert_eq!(done.copied, len as u64, "ten pages at once are too many");
    // One is not.
    desk.outbox.send(id, Message::new().slice(slice(5, 100)));
    let done = desk.done(0);
    assert_eq!((done.delivered, done.copied), (100, 0));
    let (head, rest) = content.split_at(PAGE);
    let expected = [head, b"between", rest, &content[5..105]].concat();
    assert_eq!(desk.machine.arrived(0), expected);
    desk.assert_all_back();
}
