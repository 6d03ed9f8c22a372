//! Two pairs of queues, each on a thread of its own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use pagewire_hal::{Nic, Phase, PostError, Token, TxQueue};

use super::Check;
use crate::Bench;
use crate::session::{ETHERNET, SHORTEST, Session, Solo};
use crate::verdict::{Verdict, ensure, failed, not_run};

/// Frames that each thread sends.
const FRAMES: usize = 400;
const MEND: &str = "queues share nothing that two threads may write: a context, an index, a \
                    register that is read and written back";

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "two queues, two threads",
            promise: "pairs of queues work at once on threads of their own, also one that was taken \
                  after a reset",
            run: two_threads,
        },
        Check {
            name: "each pair by itself",
            promise: "a hang of any pair is noticed, and what is in flight on it comes back with the \
                  position of that pair, whatever the order in which they are lent",
            run: each_pair,
        },
    ]
}

/// Frames that hang on a pair.
const STRANDED: usize = 3;

fn each_pair<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    if session.capabilities.queue_pairs < 2 {
        return not_run("the device has one pair of queues");
    }
    if session.longest_fragment() < SHORTEST {
        return not_run("a frame of 60 bytes is more than one fragment");
    }
    if !session.bench.stall(false) {
        return not_run("the bench cannot make the device stand still");
    }
    session.take_all()?;
    let last = session.others.len();
    for pair in [last, session.random.within(1, last)] {
        let solo = session.solo(STRANDED, 7)?;
        let judged = hangs_and_comes_back(session, pair, &solo);
        if judged.is_err() {
            // Some may be out: what the device may still read is never freed.
            std::mem::forget(solo);
            return judged;
        }
    }
    Ok(())
}

/// Posts all of `solo` on pair `pair`, which the device does not look at.
fn strand<B: Bench>(session: &mut Session<'_, B>, pair: usize, solo: &Solo<B::Memory>) -> Verdict {
    session.bench.stall(true);
    let Some((tx, _)) = session.others.get_mut(pair - 1) else {
        return not_run("there is no such pair");
    };
    for index in 0..solo.len() {
        match solo.post(tx, index) {
            Some(Ok(())) => {}
            // The shortest of rings holds fewer.
            Some(Err(PostError::Full)) => break,
            other => return Err(failed(MEND, format!("a frame was not taken: {other:?}"))),
        }
    }
    tx.doorbell();
    Ok(())
}

fn hangs_and_comes_back<B: Bench>(
    session: &mut Session<'_, B>,
    pair: usize,
    solo: &Solo<B::Memory>,
) -> Verdict {
    strand(session, pair, solo)?;
    let out = session
        .others
        .get(pair - 1)
        .map_or(0, |(tx, _)| tx.outstanding());
    let hung = session.wait(|session| {
        session.bench.advance(Duration::from_millis(100));
        let now = session.bench.now();
        Ok(session.nic.poll(now) == Ok(Phase::Hung))
    })?;
    session.bench.stall(false);
    ensure!(
        hung,
        "`poll` watches every transmit queue",
        "{out} frames have waited on pair {pair}, and `poll` has not said `Hung`"
    );
    let mut frames = Vec::new();
    let mut tokens = session.reset_with_others(&mut frames)?;
    // In which order nobody promises.
    tokens.sort_unstable_by_key(|(pair, token)| (*pair, token.0));
    let expected: Vec<_> = (0..out)
        .map(|index| (pair, Token(u32::from(solo.mark()) << 24 | index as u32)))
        .collect();
    ensure!(
        tokens == expected
            && frames
                .iter()
                .all(|frame| solo.frames().any(|sent| sent == frame)),
        "each token comes back once, with its pair's position in what was lent",
        "{out} frames were out on pair {pair}, and (pair, token) came back: {tokens:?}"
    );
    // And it works again.
    let Some((tx, _)) = session.others.get_mut(pair - 1) else {
        return not_run("there is no such pair");
    };
    let posted = solo.post(tx, 0);
    tx.doorbell();
    let mut tokens = Vec::new();
    session.wait(|session| {
        let (tx, _) = session
            .others
            .get_mut(pair - 1)
            .ok_or_else(|| failed(MEND, String::new()))?;
        let reclaimed = tx.reclaim(&mut |token| tokens.push(token));
        reclaimed.map_err(|error| failed(MEND, format!("`reclaim` failed: {error}")))?;
        Ok(!tokens.is_empty())
    })?;
    let frames = seen(session, 1)?;
    ensure!(
        posted == Some(Ok(())) && tokens.len() == 1 && frames.iter().eq(solo.frames().take(1)),
        MEND,
        "after a reset a frame was posted on pair {pair} ({posted:?}): {} tokens came back, {} \
         frames were on the wire",
        tokens.len(),
        frames.len()
    );
    Ok(())
}

/// What comes to the far end: waits for `count` frames, and then a while for what must not come.
fn seen<B: Bench>(session: &mut Session<'_, B>, count: usize) -> Verdict<Vec<Vec<u8>>> {
    let mut frames = Vec::new();
    session.wait(|session| {
        frames.extend(std::iter::from_fn(|| session.bench.far_end().take()));
        Ok(frames.len() >= count)
    })?;
    session.settle();
    frames.extend(std::iter::from_fn(|| session.bench.far_end().take()));
    Ok(frames)
}

/// What a thread has to say at its end: its tokens, in the order in which they came back.
type Returned = Result<Vec<u32>, String>;

/// Sends all frames of `solo` and waits for their tokens, until it is told to stop.
fn send_all<Q: TxQueue, M: pagewire_hal::DmaMemory + 'static>(
    queue: &mut Q,
    solo: &Solo<M>,
    stop: &AtomicBool,
) -> Returned {
    let mut tokens = Vec::new();
    let mut next = 0;
    while tokens.len() < solo.len() && !stop.load(Ordering::Relaxed) {
        match solo.post(queue, next) {
            Some(Ok(())) => next += 1,
            Some(Err(PostError::Full)) | None => {
                queue.doorbell();
                let taken = queue.reclaim(&mut |token| tokens.push(token.0));
                taken.map_err(|error| format!("`reclaim` failed: {error}"))?;
                thread::yield_now();
            }
            Some(Err(error)) => return Err(format!("a frame was not taken: {error}")),
        }
    }
    Ok(tokens)
}

fn two_threads<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    if session.capabilities.queue_pairs < 2 {
        return not_run("the device has one pair of queues");
    }
    if session.longest_fragment() < SHORTEST {
        return not_run("a frame of 60 bytes is more than one fragment");
    }
    // Nobody has taken it yet: it is started again with the others.
    session.reset()?;
    let (tx, rx) = session
        .nic
        .take_queues(1)
        .ok_or_else(|| failed(MEND, "queue pair 1 of two cannot be taken".to_owned()))?;
    session.others.push((tx, rx));
    let one = session.solo(FRAMES, 1)?;
    let two = session.solo(FRAMES, 2)?;
    let stop = AtomicBool::new(false);
    let mut frames = Vec::new();
    let (returned, in_time) = {
        let Session {
            tx,
            others,
            bench,
            options,
            ..
        } = &mut *session;
        let Some((other, _)) = others.first_mut() else {
            return not_run("there is no second pair");
        };
        thread::scope(|scope| {
            let threads = [
                scope.spawn(|| send_all(tx, &one, &stop)),
                scope.spawn(|| send_all(other, &two, &stop)),
            ];
            // The threads run by the clock of this computer, the device by that of the bench.
            let start = Instant::now();
            let mut waited = Duration::ZERO;
            let mut in_time = true;
            while in_time && !threads.iter().all(ScopedJoinHandle::is_finished) {
                bench.advance(options.step);
                waited += options.step;
                frames.extend(std::iter::from_fn(|| bench.far_end().take()));
                thread::yield_now();
                in_time = waited < options.patience || start.elapsed() < options.patience;
            }
            stop.store(true, Ordering::Relaxed);
            (threads.map(ScopedJoinHandle::join), in_time)
        })
    };
    let solos = [&one, &two];
    let judged = judge(returned, in_time, &mut frames, solos);
    if judged.is_err() {
        // Some may be out: what the device may still read is never freed.
        std::mem::forget([one, two]);
        return judged;
    }
    let missing = (2 * FRAMES).saturating_sub(frames.len());
    frames.append(&mut seen(session, missing)?);
    order(&frames, solos)
}

fn judge<M: pagewire_hal::DmaMemory + 'static>(
    returned: [thread::Result<Returned>; 2],
    in_time: bool,
    frames: &mut [Vec<u8>],
    solos: [&Solo<M>; 2],
) -> Verdict {
    for (queue, (result, solo)) in returned.into_iter().zip(solos).enumerate() {
        let tokens = result
            .map_err(|_| failed(MEND, format!("queue {queue} panicked")))?
            .map_err(|what| failed(MEND, format!("queue {queue}: {what}")))?;
        let own = |token: &&u32| **token >> 24 == u32::from(solo.mark());
        let different: HashSet<_> = tokens.iter().filter(own).collect();
        ensure!(
            in_time && tokens.len() == solo.len() && different.len() == solo.len(),
            MEND,
            "queue {queue}: of {} tokens {} came back, {} of its own and different; {} frames were \
             seen",
            solo.len(),
            tokens.len(),
            different.len(),
            frames.len()
        );
    }
    Ok(())
}

/// Each frame of each queue once, in the order of its queue.
fn order<M: pagewire_hal::DmaMemory + 'static>(
    frames: &[Vec<u8>],
    solos: [&Solo<M>; 2],
) -> Verdict {
    ensure!(
        frames.len() == 2 * FRAMES,
        MEND,
        "{} frames were posted on two queues, {} were on the wire",
        2 * FRAMES,
        frames.len()
    );
    for (queue, solo) in solos.into_iter().enumerate() {
        let mark = solo.mark();
        let own = frames
            .iter()
            .filter(|frame| frame.get(ETHERNET) == Some(&mark));
        ensure!(
            own.eq(solo.frames()),
            MEND,
            "queue {queue}: its frames are not on the wire as they were posted, in order"
        );
    }
    Ok(())
}
