//! Devices that fail, queues that are another's, callbacks that unwind.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pagewire_hal::{Nic, NicError, Phase, QueuePair, RxQueue, Token, TxQueue};

use super::Check;
use super::lifecycle::{burst, works};
use crate::Bench;
use crate::session::{Piece, Received, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, failed, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "queues of another device",
            promise: "`restart` and `release` refuse queues of another device before anything is \
                      handed back",
            run: queues_of_another,
        },
        Check {
            name: "callbacks that unwind",
            promise: "a token whose callback has unwound is not handed back again, the others are",
            run: unwinding,
        },
        Check {
            name: "a receiver that unwinds",
            promise: "of the frames received, the one whose callback has unwound may be lost or \
                      come again, no other",
            run: receiver_unwinds,
        },
        Check {
            name: "a device that does not stop",
            promise: "of a device that goes on reaching for memory `poll` says `NotQuiet`, then \
                      `Failed`, and nothing is handed back any more",
            run: never_quiet,
        },
        Check {
            name: "a device that is taken out",
            promise: "`poll` says `Removed`, then `Failed`; no call panics, and nothing is handed \
                      back",
            run: removed,
        },
    ]
}

fn queues_of_another<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const MEND: &str = "queues and device carry the same `QueueOwner`; `restart` and `release` \
                        compare it for both halves of every pair first";
    let seed = session.random.next();
    let Some(second) = session.bench.open_second(seed) else {
        return not_run("the bench has no second device");
    };
    let opening = |what: String| failed("a second device can be opened beside the first", what);
    let mut other = second.map_err(opening)?;
    let Some((mut tx, mut rx)) = other.take_queues(0) else {
        return Err(opening(
            "its first pair of queues cannot be taken".to_owned(),
        ));
    };
    burst(session, 4)?;
    session.lossy = true;
    session.quiesce()?;
    let mut handed_back = 0;
    for mix in 0..4 {
        for start_again in [true, false] {
            let (own_tx, own_rx) = (&mut session.tx, &mut session.rx);
            let mut pairs: Vec<QueuePair<'_, _, _>> = match mix {
                0 => vec![QueuePair {
                    tx: &mut tx,
                    rx: &mut rx,
                }],
                1 => vec![QueuePair {
                    tx: own_tx,
                    rx: &mut rx,
                }],
                2 => vec![QueuePair {
                    tx: &mut tx,
                    rx: own_rx,
                }],
                _ => vec![
                    QueuePair {
                        tx: own_tx,
                        rx: own_rx,
                    },
                    QueuePair {
                        tx: &mut tx,
                        rx: &mut rx,
                    },
                ],
            };
            let mut released = |_: u16, _: Token| handed_back += 1;
            let result = if start_again {
                session.nic.restart(&mut pairs, &mut released)
            } else {
                session.nic.release(&mut pairs, &mut released)
            };
            ensure!(
                matches!(result, Err(NicError::Config { .. })) && handed_back == 0,
                MEND,
                "mixture {mix}, restart ({start_again}) or release: {result:?}, {handed_back} \
                 tokens"
            );
        }
    }
    session.reset()?;
    works(session, "after queues of another device were refused")?;
    // The other one goes as it came.
    other.begin_reset(session.bench.now());
    let quiet = session.wait(|session| Ok(other.poll(session.bench.now()) == Ok(Phase::Quiet)))?;
    ensure!(quiet, MEND, "the other device does not stop");
    let mut pairs = [QueuePair {
        tx: &mut tx,
        rx: &mut rx,
    }];
    let gone = other.release(&mut pairs, &mut |_, _| handed_back += 1);
    ensure!(
        gone == Ok(()) && handed_back == 0,
        MEND,
        "the other device: {gone:?}, {handed_back} tokens"
    );
    Ok(())
}

/// Posts `count` frames, or fewer if the ring is short, and waits until they have been sent and
/// probably reported.
fn sent<B: Bench>(session: &mut Session<'_, B>, count: usize) -> Verdict {
    for _ in 0..count {
        let frame = session.header(SHORTEST);
        if session.post(&[Piece::Own(frame)])?.is_err() {
            break;
        }
    }
    session.doorbell();
    for _ in 0..3 {
        session.settle();
    }
    session.collect()?;
    Ok(())
}

fn unwinding<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    for round in 0..3 {
        sent(session, 6)?;
        let mut tokens = Vec::new();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            session.tx.reclaim(&mut |token| {
                tokens.push(token);
                if tokens.len() > round {
                    resume_unwind(Box::new("unwinding"));
                }
            })
        }));
        drop(unwound);
        for token in tokens {
            session.take_back(token)?;
        }
        // The queue is used no more before a reset. That may be interrupted as well.
        session.lossy = true;
        session.quiesce()?;
        let mut tokens = Vec::new();
        let mut pairs = [QueuePair {
            tx: &mut session.tx,
            rx: &mut session.rx,
        }];
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            session.nic.restart(&mut pairs, &mut |_, token| {
                tokens.push(token);
                resume_unwind(Box::new("unwinding"));
            })
        }));
        drop(unwound);
        for token in tokens {
            session.take_back(token)?;
        }
        session.reset()?;
        works(session, "after callbacks that unwound")?;
    }
    Ok(())
}

fn receiver_unwinds<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let mac = session.mac;
    let count = session.bench.frames_at_once().clamp(1, 3);
    // More often than a ring is long: it must not lose a buffer each time.
    for round in 0..300 {
        let mut frames = Vec::new();
        for _ in 0..count {
            let frame = session.frame_to(mac, SHORTEST);
            session.deliver(&frame);
            frames.push(frame);
        }
        let mut unwound = false;
        let came = session.wait(|session| {
            let result = catch_unwind(AssertUnwindSafe(|| {
                session.rx.receive(8, &mut |_| {
                    resume_unwind(Box::new("unwinding"));
                })
            }));
            unwound = result.is_err();
            Ok(unwound)
        })?;
        ensure!(came, super::RECEIVE, "round {round}: none came");
        let mut received = session.receive(count - 1)?;
        // The first one may come again, before the others.
        if count == 1 {
            session.settle();
            received.append(&mut session.received()?);
        }
        let is_first = |got: &Received| frames.first().is_some_and(|sent| got.is(sent));
        let again = received.first().is_some_and(is_first);
        if again && received.len() < count {
            received.append(&mut session.receive(count - received.len())?);
        }
        let skipped = usize::from(!again);
        let due = frames.get(skipped..).unwrap_or_default();
        let same =
            received.len() == due.len() && received.iter().zip(due).all(|(got, sent)| got.is(sent));
        ensure!(
            same,
            "a frame is taken off the ring, and its buffer given back, whatever becomes of the \
             callback; the next one is not touched before its turn",
            "round {round}: {count} frames were sent, the callback of the first unwound, and {} \
             came afterwards, or others",
            received.len()
        );
    }
    works(session, "after a receiver that unwound")
}

/// A device that has failed: `poll` says so for ever, and no reset call hands anything back.
fn has_failed<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const MEND: &str = "once a device has failed, what it was lent is never given back (rule 6)";
    for _ in 0..3 {
        session.settle();
        let polled = session.nic.poll(session.bench.now());
        ensure!(
            polled == Ok(Phase::Failed),
            "the error comes once, afterwards the answer is `Phase::Failed`",
            "`poll` answered {polled:?} after its error"
        );
        for start_again in [true, false] {
            let out = session.tx.outstanding();
            let result = session.try_reset_call(start_again, true);
            ensure!(
                result.is_err() && session.tx.outstanding() == out,
                MEND,
                "restart ({start_again}) or release of a device that has failed: {result:?}, and \
                 of {out} frames {} are out",
                session.tx.outstanding()
            );
        }
        session.nic.begin_reset(session.bench.now());
    }
    session.abandon();
    Ok(())
}

fn never_quiet<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const MEND: &str = "a device that has not stopped after its time is `NotQuiet`, and never \
                        `Quiet`";
    burst(session, 4)?;
    session.doorbell();
    if !session.bench.never_quiet() {
        session.finish()?;
        return not_run("the bench cannot make a device that does not stop");
    }
    session.lossy = true;
    session.nic.begin_reset(session.bench.now());
    let ended = session.wait(|session| match session.nic.poll(session.bench.now()) {
        Ok(Phase::Stopping) => Ok(false),
        Err(NicError::NotQuiet) => Ok(true),
        other => Err(failed(MEND, format!("`poll` said {other:?}"))),
    })?;
    ensure!(
        ended,
        MEND,
        "`poll` says `Stopping` for {:?}",
        session.options.patience
    );
    has_failed(session)
}

fn removed<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    burst(session, 4)?;
    session.doorbell();
    session.settle();
    session.collect()?;
    session.reclaim()?;
    burst(session, 4)?;
    if !session.bench.remove() {
        session.doorbell();
        session.finish()?;
        return not_run("the bench cannot take the device out");
    }
    session.lossy = true;
    session.doorbell();
    session.settle();
    // What these say is the driver's affair; that they end is not.
    let _ = session.rx.receive(4, &mut |_| {});
    let link = session.nic.link();
    ensure!(
        !link.up,
        "a register that reads all ones is no register",
        "a device that is gone has a link: {link:?}"
    );
    let before = session.nic.statistics();
    session.nic.take_interrupts();
    ensure!(
        session.nic.statistics() == before,
        "a counter that reads all ones is not added",
        "{before:?} became {:?} when the device was gone",
        session.nic.statistics()
    );
    let polled = session.nic.poll(session.bench.now());
    ensure!(
        polled == Err(NicError::Removed),
        "registers that read all ones are a device that is gone",
        "`poll` answered {polled:?}"
    );
    has_failed(session)
}
