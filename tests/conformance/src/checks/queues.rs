//! Two pairs of queues, each on a thread of its own.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use pagewire_hal::{Nic, PostError, TxQueue};

use super::Check;
use crate::Bench;
use crate::session::{ETHERNET, SHORTEST, Session, Solo};
use crate::verdict::{Verdict, ensure, failed, not_run};

/// Frames that each thread sends.
const FRAMES: usize = 400;
const MEND: &str = "queues share nothing that two threads may write: a context, an index, a \
                    register that is read and written back";

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![Check {
        name: "two queues, two threads",
        promise: "pairs of queues work at once on threads of their own, also one that was taken \
                  after a reset",
        run: two_threads,
    }]
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
    session.settle();
    frames.extend(std::iter::from_fn(|| session.bench.far_end().take()));
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
