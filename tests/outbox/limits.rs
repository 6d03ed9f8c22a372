//! What is mapped has limits, and beyond them nothing waits for others.

use std::sync::atomic::Ordering;

use pagewire_outbox::{Limits, Message};

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
            counters.read > 0,
            "the third has none, and begins by reading"
        );
        let before = counters.read;
        let id = desk.id(3);
        let (other, other_content) = file(15 * PAGE, 2);
        let range = 100..15 * PAGE as u64;
        desk.outbox.send(id, Message::new().file(other, range));
        // Its window is as good as theirs, and it is enough for this one.
        let done = desk.done(3);
        assert_eq!(
            (done.delivered, done.read),
            (done.len, done.len),
            "{kind:?}"
        );
        let counters = desk.outbox.counters();
        assert!(counters.read >= before + done.len);
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
        let read_whole = first.read == len;
        assert_eq!(read_whole, for_ever, "{first:?}");
        assert!(first.read >= 30 * PAGE as u64 && first.delivered == len);
        // The next one is tried again.
        assert_eq!((second.read, second.delivered), (0, len));
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
    desk.machine.receiver.asleep = true;
    let greedy = desk.id(0);
    for _ in 0..50 {
        desk.outbox.send(greedy, Message::new().text("much"));
    }
    (0..100).for_each(|_| desk.round());
    assert_eq!(
        desk.outbox.free_buffers(),
        4,
        "for the other three, and one"
    );
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
