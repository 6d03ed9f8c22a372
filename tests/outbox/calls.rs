//! write, writev, sendfile, and all in one.

use pagewire::hal::RegionId;
use pagewire::tcp::{Outcome, SendError, SendOptions, Slice};
use pagewire_outbox::{Limits, Message, OutboxError};

use super::desk::{Desk, file};
use super::machine::{Kind, PAGE, Setup};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
const TAIL: &[u8] = b"\r\n--end--\r\n";

fn memory(desk: &mut Desk, bytes: &[u8]) -> RegionId {
    let region = desk.machine.host.register(bytes.to_vec()).unwrap();
    desk.machine.stack.register(region).unwrap()
}

#[test]
fn write_and_writev_send_ranges_of_memory() {
    for kind in Kind::ALL {
        let mut desk = Desk::new(&Setup::new(kind, 1), Limits::default());
        let bytes: Vec<u8> = (0..5 * PAGE).map(|i| ((i * 31) >> 3) as u8).collect();
        let region = memory(&mut desk, &bytes);
        let slice = |start, len| Slice { region, start, len };
        let (now, id) = (desk.machine.host.now(), desk.id(0));
        let stack = &mut desk.machine.stack;
        assert_eq!(
            desk.outbox.write(stack, now, id, slice(7, 9000), 1),
            Ok(9000)
        );
        let slices = [slice(0, 1), slice(5, 0), slice(PAGE - 1, 3), slice(3, 5000)];
        assert_eq!(desk.outbox.writev(stack, now, id, &slices, 2), Ok(5004));
        assert_eq!(desk.outbox.writev(stack, now, id, &[], 3), Ok(0));
        let (first, second) = (desk.done(0), desk.done(0));
        assert_eq!((first.tag, first.len, first.delivered), (1, 9000, 9000));
        assert_eq!((second.tag, second.len, second.delivered), (2, 5004, 5004));
        assert_eq!(second.outcome, Outcome::Delivered);
        let all = [
            &bytes[7..9007],
            &bytes[..1],
            &bytes[PAGE - 1..PAGE + 2],
            &bytes[3..5003],
        ];
        assert_eq!(desk.machine.arrived(0), all.concat(), "{kind:?}");
        desk.assert_all_back();
    }
}

/// Partial acceptance keeps its place: the range of the file, as Linux' sendfile does with an offset.
#[test]
fn sendfile_goes_on_where_it_stopped() {
    for kind in Kind::ALL {
        let mut setup = Setup::new(kind, 2);
        setup.send_limit = 10_000;
        let mut desk = Desk::new(&setup, Limits::default());
        let (file, content) = file(100_000, 2);
        let mut range = 4321..99_999;
        let (mut calls, mut done) = (0, 0);
        let id = desk.id(0);
        desk.run_until("sent", |desk| {
            let (stack, now) = (&mut desk.machine.stack, desk.machine.host.now());
            let start = range.start;
            let accepted = desk
                .outbox
                .sendfile(stack, now, id, &file, &mut range, calls);
            let accepted = accepted.unwrap();
            assert_eq!(range.start, start + accepted as u64);
            calls += u64::from(accepted > 0);
            while let Some(over) = desk.outbox.done(id) {
                assert_eq!((over.tag, over.delivered), (done, over.len));
                done += 1;
            }
            (range.is_empty() && done == calls).then_some(())
        });
        assert!(calls > 9, "{calls} calls of 10,000 bytes at most");
        assert_eq!(desk.machine.arrived(0), &content[4321..99_999], "{kind:?}");
        assert_eq!(desk.outbox.counters().copied, 0);
        desk.assert_all_back();
    }
}

/// Apache's header and first chunk, NT's head and tail around a file: one call, and the head is in one
/// frame with the beginning of the file.
#[test]
fn a_head_a_file_and_a_tail_in_one_call() {
    for kind in Kind::ALL {
        let mut desk = Desk::new(&Setup::new(kind, 3), Limits::default());
        let (file, content) = file(30_000, 3);
        let mut options = SendOptions::default();
        options.explain = true;
        let message = Message::new().text(HEAD).file(file, 10..30_000).text(TAIL);
        let (now, id) = (desk.machine.host.now(), desk.id(0));
        let mut message = message.options(options).tag(9);
        let sent = desk
            .outbox
            .try_send(&mut desk.machine.stack, now, id, &mut message);
        let len = HEAD.len() + 29_990 + TAIL.len();
        assert_eq!((sent, message.len()), (Ok(len), 0));
        let mut first = None;
        let done = desk.run_until("done", |desk| {
            let mut frames = desk.machine.receiver.frames().iter();
            first = first
                .take()
                .or_else(|| frames.find(|frame| frame.len() > 66).cloned());
            desk.outbox.done(id)
        });
        let first = first.unwrap();
        let behind = &content[10..10 + 500];
        assert!(
            first.windows(520).any(|w| w.ends_with(behind)),
            "{kind:?}: in one frame"
        );
        assert!(first.windows(HEAD.len()).any(|w| w == HEAD));
        let expected = [HEAD, &content[10..], TAIL].concat();
        assert_eq!(desk.machine.arrived(0), expected, "{kind:?}");
        let account = done.explanation.unwrap();
        assert_eq!((account.lent, done.copied), (len as u64, 0));
        assert_eq!(account.copied_early.total(), 0);
        desk.assert_all_back();
    }
}

/// A queued message is longer than all that is taken at once, and goes by itself.
#[test]
fn messages_of_any_length_wait_their_turn() {
    let mut setup = Setup::new(Kind::Ixgbe, 4);
    setup.send_limit = 20_000;
    let limits = Limits {
        window: 3 * PAGE,
        ..Limits::default()
    };
    let mut desk = Desk::new(&setup, limits);
    let (a, content_a) = file(300_001, 4);
    let (b, content_b) = file(5, 5);
    let text: Vec<u8> = (0..50_000).map(|i| (i / 7) as u8).collect();
    let id = desk.id(0);
    desk.outbox.send(id, Message::new().tag(1));
    desk.outbox
        .send(id, Message::new().file(a, 0..300_001).tag(2));
    desk.outbox.send(id, Message::new().tag(3));
    desk.outbox
        .send(id, Message::new().text(&*text).file(b, 0..5).tag(4));
    assert_eq!(desk.outbox.waiting(id), 4);
    // Nothing passes what waits.
    let region = memory(&mut desk, b"x");
    let slice = Slice {
        region,
        start: 0,
        len: 1,
    };
    let now = desk.machine.host.now();
    let sent = desk
        .outbox
        .write(&mut desk.machine.stack, now, id, slice, 5);
    assert_eq!(sent, Ok(0));
    let told: Vec<_> = (0..4)
        .map(|_| {
            let done = desk.done(0);
            (done.tag, done.len, done.delivered)
        })
        .collect();
    let expected = [
        (1, 0, 0),
        (2, 300_001, 300_001),
        (3, 0, 0),
        (4, 50_005, 50_005),
    ];
    assert_eq!(told, expected);
    assert_eq!(
        desk.machine.arrived(0),
        [content_a, text, content_b].concat()
    );
    desk.assert_all_back();
}

#[test]
fn the_end_of_the_sending_direction_comes_behind_all_that_waits() {
    let mut setup = Setup::new(Kind::Virtio, 5);
    setup.send_limit = 5000;
    let mut desk = Desk::new(&setup, Limits::default());
    let (file, content) = file(20_000, 5);
    let id = desk.id(0);
    desk.outbox.send(id, Message::new().file(file, 0..20_000));
    let now = desk.machine.host.now();
    desk.outbox.close(&mut desk.machine.stack, now, id);
    assert_eq!(desk.done(0).delivered, 20_000);
    assert_eq!(desk.machine.arrived(0), content);
    // Its FIN is out; what comes now is refused, and told.
    desk.round();
    let now = desk.machine.host.now();
    let mut late = Message::new().text("late");
    let sent = desk
        .outbox
        .try_send(&mut desk.machine.stack, now, id, &mut late);
    assert_eq!(sent, Err(OutboxError::Send(SendError::Closed)));
    desk.outbox.send(id, Message::new().text("late").tag(7));
    let done = desk.done(0);
    assert_eq!((done.tag, done.outcome), (7, Outcome::Aborted));
    assert_eq!(
        (done.delivered, done.error),
        (0, Some(OutboxError::Send(SendError::Closed)))
    );
}

/// A region that the stack does not know breaks the message, and with it the connection: the peer would
/// take what comes next for the rest of it.
#[test]
fn an_unknown_region_breaks_a_message() {
    let mut desk = Desk::new(&Setup::new(Kind::E1000e, 6), Limits::default());
    let region = memory(&mut desk, b"gone");
    desk.machine.stack.release_region(region).unwrap();
    let slice = Slice {
        region,
        start: 0,
        len: 4,
    };
    let (now, id) = (desk.machine.host.now(), desk.id(0));
    let stack = &mut desk.machine.stack;
    let sent = desk.outbox.write(stack, now, id, slice, 1);
    assert!(
        matches!(sent, Err(OutboxError::Send(SendError::Lend(_)))),
        "{sent:?}"
    );
    assert!(stack.is_established(id), "nothing of it was sent");
    let message = Message::new().text("head").slice(slice).tag(2);
    desk.outbox.send(id, message);
    let done = desk.done(0);
    assert_eq!((done.tag, done.outcome), (2, Outcome::Aborted));
    assert!(matches!(
        done.error,
        Some(OutboxError::Send(SendError::Lend(_)))
    ));
    assert!(desk.machine.stack.error(id).is_some());
    let rest = desk.outbox.remove(&mut desk.machine.stack, now, id);
    assert!(rest.is_empty());
    assert_eq!(desk.outbox.take_released().map(|(id, _)| id), Some(region));
    desk.assert_all_back();
}
