//! What a program hears: when it asks, when it is called, and in its event loop.

use std::sync::{Arc, Mutex};

use pagewire::tcp::Outcome;
use pagewire_outbox::{Completions, Limits, Message, Notice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::desk::Desk;
use super::machine::{Kind, Setup};

fn is_readable(completions: &Completions) -> bool {
    let mut fds = [PollFd::new(completions, PollFlags::IN)];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&at_once)).unwrap() == 1
}

#[test]
fn an_event_loop_sees_an_eventfd() {
    let mut setup = Setup::new(Kind::Ixgbe, 1);
    setup.connections = 2;
    let mut desk = Desk::new(&setup, Limits::default());
    let completions = Completions::new().unwrap();
    for connection in 0..2 {
        let id = desk.id(connection);
        let notice = Notice::Queue(completions.clone());
        desk.outbox.notify(id, notice);
        desk.outbox
            .send(id, Message::new().text("hello").tag(connection as u64));
        desk.outbox.send(id, Message::new().text("again").tag(10));
    }
    assert!(!is_readable(&completions), "nothing has arrived");
    assert!(completions.take().is_none());
    let readable = |desk: &mut Desk| {
        let _ = desk;
        is_readable(&completions).then_some(())
    };
    desk.run_until("readable", readable);
    // Another thread takes them, while there are any.
    let mut told = Vec::new();
    while told.len() < 4 {
        desk.run_until("readable", readable);
        let taken = std::thread::scope(|scope| {
            let taker = scope.spawn(|| {
                let mut taken = Vec::new();
                while is_readable(&completions) {
                    taken.extend(completions.take());
                }
                taken
            });
            taker.join().unwrap()
        });
        assert!(!taken.is_empty());
        told.extend(taken);
        assert!(!is_readable(&completions));
    }
    for connection in 0..2 {
        let id = desk.id(connection);
        let of_it = told.iter().filter(|done| done.connection == id);
        let tags: Vec<_> = of_it.map(|done| (done.tag, done.delivered)).collect();
        assert_eq!(tags, [(connection as u64, 5), (10, 5)]);
        assert!(desk.outbox.done(id).is_none(), "it went to the queue");
    }
    assert!(completions.take().is_none());
}

#[test]
fn a_function_is_called() {
    let mut desk = Desk::new(&Setup::new(Kind::E1000e, 2), Limits::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let id = desk.id(0);
    let for_call = Arc::clone(&told);
    let notice = Notice::Call(Box::new(move |done| {
        for_call.lock().unwrap().push(done.tag)
    }));
    desk.outbox.notify(id, notice);
    (0..5).for_each(|tag| desk.outbox.send(id, Message::new().text("x").tag(tag)));
    desk.run_until("told", |_| (told.lock().unwrap().len() == 5).then_some(()));
    assert_eq!(*told.lock().unwrap(), [0, 1, 2, 3, 4]);
    desk.assert_all_back();
}

/// On every way out each message is told of once, and all its bytes come back.
#[test]
fn a_connection_that_breaks_tells_of_each_message() {
    for way in 0..3 {
        let mut setup = Setup::new(Kind::Virtio, 3);
        setup.send_limit = 4000;
        let mut desk = Desk::new(&setup, Limits::default());
        let id = desk.id(0);
        let text = vec![7; 1500];
        for tag in 0..6 {
            desk.outbox.send(id, Message::new().text(&*text).tag(tag));
        }
        let first = desk.done(0);
        assert_eq!((first.tag, first.delivered), (0, 1500));
        let now = desk.machine.host.now();
        let told = match way {
            0 => desk.outbox.remove(&mut desk.machine.stack, now, id),
            1 => {
                desk.machine.receiver.abort();
                (1..6).map(|_| desk.done(0)).collect()
            }
            _ => {
                desk.machine.stack.remove(now, id);
                (1..6).map(|_| desk.done(0)).collect()
            }
        };
        let tags: Vec<_> = told.iter().map(|done| done.tag).collect();
        assert_eq!(tags, [1, 2, 3, 4, 5], "way {way}");
        let last = told.last().unwrap();
        assert_eq!((last.outcome, last.delivered), (Outcome::Aborted, 0));
        desk.outbox.remove(&mut desk.machine.stack, now, id);
        desk.assert_all_back();
    }
}
