//! Reset and release.

use pagewire_hal::{Nic, NicError, Phase, PostError, QueueError, RxQueue, TxQueue};

use super::Check;
use super::checksum::a_request;
use super::gather::any_cut;
use crate::Bench;
use crate::session::{Piece, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "queues are taken once",
            promise: "`take_queues` yields each pair once, and none beyond queue_pairs",
            run: taken_once,
        },
        Check {
            name: "reset in mid-burst",
            promise: "a reset gives each token back exactly once, and all works afterwards",
            run: reset,
        },
        Check {
            name: "reset out of order",
            promise: "`restart` and `release` refuse a device that is not quiet, and queues that \
                      are not all there",
            run: wrong_phase,
        },
        Check {
            name: "release and restart",
            promise: "a released device sends and receives nothing, and may be started again",
            run: release,
        },
        Check {
            name: "offloads over a reset",
            promise: "the first frame after a reset has its checksums, also where it asks for \
                      the same as the last one before",
            run: offloads,
        },
    ]
}

fn taken_once<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let pairs = session.capabilities.queue_pairs;
    for index in [0, pairs, pairs.saturating_add(1), u16::MAX] {
        ensure!(
            session.nic.take_queues(index).is_none(),
            "`take_queues` yields `None` for what was taken and what there is not",
            "queue pair {index} of {pairs} was handed out, pair 0 has been taken before"
        );
    }
    works(session, "after asking for queues")
}

/// One burst each way.
pub(super) fn works<B: Bench>(session: &mut Session<'_, B>, when: &str) -> Verdict {
    for _ in 0..4 {
        let len = session.random.within(SHORTEST, session.longest().min(1000));
        let pieces = any_cut(session, len);
        session.post_or_wait(&pieces, &format!("a frame {when}"))?;
    }
    session.doorbell();
    session.finish()?;
    let mac = session.mac;
    let len = session.longest().min(1000);
    let frames = [session.frame_to(mac, 60), session.frame_to(mac, len)];
    session.must_receive(&frames, when)
}

/// Posts up to `count` frames and rings the doorbell now and then.
pub(super) fn burst<B: Bench>(session: &mut Session<'_, B>, count: usize) -> Verdict {
    for _ in 0..count {
        let len = session.random.within(SHORTEST, session.longest().min(1200));
        let pieces = any_cut(session, len);
        match session.post(&pieces)? {
            Ok(()) => {}
            Err(PostError::Full) => break,
            Err(error) => return super::refused("a frame of a burst", error),
        }
        if session.random.below(3) == 0 {
            session.doorbell();
        }
    }
    Ok(())
}

fn reset<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let mac = session.mac;
    for round in 0..8 {
        if round % 2 == 1 {
            session.bench.hold_completions(true);
        }
        let count = session.random.within(1, 20);
        burst(session, count)?;
        if round % 3 != 0 {
            session.doorbell();
        }
        let came = session.frame_to(mac, 500);
        session.deliver(&came);
        let step = session.options.step;
        session.bench.advance(step * round);
        session.collect()?;
        if round % 4 == 2 {
            session.reclaim()?;
        }
        session.bench.hold_completions(false);
        session.reset()?;
        // What came before the reset may still come up, or be lost.
        session.received()?;
        works(session, &format!("after reset {round}"))?;
    }
    Ok(())
}

fn wrong_phase<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const MEND: &str = "`restart` and `release` look at the phase and the queues before they \
                        change anything";
    for start_again in [true, false] {
        let running = session.try_reset_call(start_again, true);
        ensure!(
            running == Err(NicError::WrongPhase),
            MEND,
            "a running device answered {running:?} to restart ({start_again}) or release"
        );
    }
    works(session, "after a restart that was refused")?;
    burst(session, 5)?;
    session.lossy = true;
    session.quiesce()?;
    for start_again in [true, false] {
        let without = session.try_reset_call(start_again, false);
        ensure!(
            matches!(without, Err(NicError::QueueMissing { .. })),
            MEND,
            "a quiet device answered {without:?} to restart ({start_again}) or release without \
             its queue"
        );
    }
    session.nic.begin_reset(session.bench.now());
    let polled = session.nic.poll(session.bench.now());
    ensure!(
        polled == Ok(Phase::Quiet),
        "`begin_reset` does nothing in any phase but `Running` and `Hung`",
        "`poll` answered {polled:?} after a second `begin_reset` of a quiet device"
    );
    session.reset()?;
    works(session, "after a reset that was refused first")
}

fn release<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const DOWN: &str = "`release` leaves the queues down: they answer `Down` and do nothing";
    let mac = session.mac;
    burst(session, 8)?;
    session.doorbell();
    session.release()?;
    let frame = session.header(100);
    let posted = session.post(&[Piece::Own(frame)])?;
    ensure!(
        posted == Err(PostError::Down),
        DOWN,
        "`post` answered {posted:?}"
    );
    ensure!(!session.tx.has_room(1), DOWN, "`has_room(1)` says yes");
    session.tx.doorbell();
    let came = session.frame_to(mac, 100);
    session.deliver(&came);
    session.settle();
    let received = session.rx.receive(8, &mut |_| {});
    ensure!(
        received == Err(QueueError::Down),
        DOWN,
        "`receive` answered {received:?}"
    );
    let reclaimed = session.tx.reclaim(&mut |_| {});
    ensure!(
        matches!(reclaimed, Ok(0) | Err(QueueError::Down)),
        DOWN,
        "`reclaim` answered {reclaimed:?}"
    );
    let sent = session.collect()?;
    ensure!(sent == 0, DOWN, "{sent} frames were sent after the release");
    for _ in 0..2 {
        let polled = session.nic.poll(session.bench.now());
        ensure!(
            polled == Ok(Phase::Quiet),
            "the phase stays `Quiet` until `restart`",
            "`poll` of a released device answered {polled:?}"
        );
        session.release_again()?;
    }
    if session.restart_released()? {
        session.received()?;
        works(session, "after release and restart")?;
    }
    Ok(())
}

fn offloads<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    if session.capabilities.tx_checksum.is_empty() {
        return not_run("the device offers no checksum");
    }
    let count = usize::from(session.capabilities.max_fragments).min(3);
    for round in 0..4 {
        let Some((pieces, offload, whole)) = a_request(session, count, 300) else {
            continue;
        };
        for when in ["before", "after"] {
            let what = format!(
                "round {round}, a frame with {:?} {when} a reset",
                offload.checksum
            );
            session.post_packet_or_wait(&pieces, offload, vec![whole.clone()], &what)?;
            session.doorbell();
            session.finish()?;
            if when == "before" {
                session.reset()?;
            }
        }
    }
    Ok(())
}
