//! The watch on the transmitter.

use std::time::Duration;

use pagewire_hal::{Nic, Phase, PostError};

use super::Check;
use super::lifecycle::works;
use crate::Bench;
use crate::session::{Piece, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, not_run};

/// Between two polls: "a few times a second".
const INTERVAL: Duration = Duration::from_millis(300);
/// Longer than any driver waits.
const LONG: Duration = Duration::from_secs(2);
/// Rings longer than this are not gone round.
const LONGEST_RING: usize = 1100;
const FALSE: &str = "a hang is work in the ring and no progress for a time, since the device was \
                     started: neither the head alone nor what was seen before a reset tells";

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "a device that hangs",
            promise: "`poll` says `Hung` of a device that stands still with work in its ring, a \
                      reset cures it, and what was before the reset is not held against it",
            run: hangs,
        },
        Check {
            name: "a device that does not hang",
            promise: "`poll` does not say `Hung` while frames are sent, however they fall in the \
                      ring, nor of a device without work",
            run: does_not_hang,
        },
        Check {
            name: "a device that asks for a reset",
            promise: "`poll` says `Hung` of a device that says it needs a reset, and a reset cures \
                      it",
            run: asks_for_reset,
        },
    ]
}

/// What `poll` says now; an error is a failure.
fn poll<B: Bench>(session: &mut Session<'_, B>) -> Verdict<Phase> {
    let now = session.bench.now();
    let polled = session.nic.poll(now);
    polled.map_err(|error| {
        let what = format!("`poll` of a device that is there failed: {error}");
        crate::verdict::failed("a hang is a phase, not an error", what)
    })
}

/// A frame that the device is told of and does not look at.
fn strand<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    session.bench.stall(true);
    let frame = session.header(100);
    session.must_post(&[Piece::Own(frame)], "a frame of 100 bytes")?;
    session.doorbell();
    Ok(())
}

fn hangs<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    if !session.bench.stall(false) {
        return not_run("the bench cannot make the device stand still");
    }
    for round in 0..3 {
        strand(session)?;
        // As often as one likes: it is time that counts.
        for count in 1..=8 {
            let phase = poll(session)?;
            ensure!(
                matches!(phase, Phase::Running(_)),
                FALSE,
                "round {round}: `poll` {count} after a frame was posted, at once, said {phase:?}"
            );
        }
        let mut waited = Duration::ZERO;
        while poll(session)? != Phase::Hung {
            ensure!(
                waited < session.options.patience,
                "`poll` compares what the device has done with what it had done at the last \
                 check, as long as there is work",
                "round {round}: a frame has waited for {waited:?}, and `poll` has not said `Hung`"
            );
            session.bench.advance(INTERVAL);
            waited += INTERVAL;
        }
        session.bench.stall(false);
        if round == 1 {
            // It goes by itself if the device moves again.
            session.finish()?;
            let phase = poll(session)?;
            ensure!(
                matches!(phase, Phase::Running(_)),
                FALSE,
                "all frames have been sent, and `poll` says {phase:?}"
            );
        }
        session.reset()?;
    }
    works(session, "after a hang")
}

/// Posts `count` frames of one fragment, and waits for them but for the last, of which the
/// device is told while it stands still.
fn go_round<B: Bench>(session: &mut Session<'_, B>, count: usize) -> Verdict {
    session.bench.stall(false);
    session.finish()?;
    for index in 1..count {
        let frame = session.header(SHORTEST);
        session.post_or_wait(&[Piece::Own(frame)], "a frame of 60 bytes")?;
        if index % 8 == 0 {
            session.doorbell();
        }
    }
    session.doorbell();
    session.finish()?;
    strand(session)
}

fn does_not_hang<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    if !session.bench.stall(false) {
        return not_run("the bench cannot make the device stand still");
    }
    for _ in 0..3 {
        session.bench.advance(LONG);
        let phase = poll(session)?;
        ensure!(
            matches!(phase, Phase::Running(_)),
            FALSE,
            "nothing is in the ring, and `poll` said {phase:?}"
        );
    }
    let mut held = 0;
    loop {
        let frame = session.header(SHORTEST);
        match session.post(&[Piece::Own(frame)])? {
            Ok(()) => held += 1,
            Err(PostError::Full) => break,
            Err(error) => return super::refused("a frame of 60 bytes", error),
        }
        if held > LONGEST_RING {
            return not_run("the ring is too long to go round");
        }
    }
    session.doorbell();
    session.finish()?;
    // Between two looks just one ring's length: with a gap or without.
    let mut lengths: Vec<usize> = (held..held + 4).collect();
    lengths.push((held + 1).next_power_of_two());
    strand(session)?;
    for count in lengths {
        poll(session)?;
        // The same frame has not been there for long: the device has moved in between.
        go_round(session, count)?;
        session.bench.advance(LONG);
        let phase = poll(session)?;
        ensure!(
            matches!(phase, Phase::Running(_)),
            FALSE,
            "{count} frames have been sent since `poll` was called last, and it said {phase:?}"
        );
    }
    session.bench.stall(false);
    session.finish()?;
    works(session, "after standing still")
}

fn asks_for_reset<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    for round in 0..3 {
        let phase = poll(session)?;
        ensure!(
            matches!(phase, Phase::Running(_)),
            FALSE,
            "round {round}: a device that works, and `poll` says {phase:?}"
        );
        if round == 1 {
            // With work in the ring, some of it undone.
            super::lifecycle::burst(session, 4)?;
            session.doorbell();
        }
        if !session.bench.needs_reset() {
            return not_run("the device cannot say that it needs a reset");
        }
        for count in 1..=2 {
            let phase = poll(session)?;
            ensure!(
                phase == Phase::Hung,
                "`poll` looks at what the device says of itself",
                "round {round}: the device needs a reset, and `poll` {count} says {phase:?}"
            );
        }
        session.reset()?;
        works(session, "after a reset that the device has asked for")?;
    }
    Ok(())
}
