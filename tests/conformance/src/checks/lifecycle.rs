//! Link, reset, release, statistics, interrupts.

use pagewire_hal::{Causes, Nic, NicError, Phase, PostError, QueueError, RxQueue, TxQueue};

use super::Check;
use super::gather::any_cut;
use crate::Bench;
use crate::session::{ETHERNET, Piece, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "queues are taken once",
            promise: "`take_queues` yields each pair once, and none beyond queue_pairs",
            run: taken_once,
        },
        Check {
            name: "interrupts",
            promise: "receive, transmit and a change of the link interrupt, again and again",
            run: interrupts,
        },
        Check {
            name: "link down and up",
            promise: "a link that goes in mid-burst loses no token, and all works when it is back",
            run: link,
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
            name: "statistics",
            promise: "frames and bytes are those of the wire, also over a reset",
            run: statistics,
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
        let len = session.random.within(SHORTEST, 1000);
        let pieces = any_cut(session, len);
        session.post_or_wait(&pieces, &format!("a frame {when}"))?;
    }
    session.doorbell();
    session.finish()?;
    let mac = session.mac;
    let frames = [session.frame_to(mac, 60), session.frame_to(mac, 1000)];
    session.must_receive(&frames, when)
}

fn wait_for<B: Bench>(session: &mut Session<'_, B>, cause: Causes, what: &str) -> Verdict {
    let mut all = Causes::empty();
    let came = session.wait(|session| {
        all |= session.nic.take_interrupts();
        session.collect()?;
        Ok(all.contains(cause))
    })?;
    ensure!(
        came,
        "each cause has a vector that is unmasked, and `take_interrupts` lets it fire again",
        "{what}: no interrupt for {cause:?}, only {all:?}"
    );
    Ok(())
}

fn interrupts<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    match session.nic.enable_interrupts() {
        Ok(0) => {
            return super::wrong("`enable_interrupts` returned no vector and no error".to_owned());
        }
        Ok(_) => {}
        Err(error) => return not_run(format!("interrupts: {error}")),
    }
    let mac = session.mac;
    for round in 0..12 {
        if round == 6 {
            // A reset leaves them on.
            session.reset()?;
        }
        session.nic.take_interrupts();
        let what = format!("round {round}, a frame was sent");
        let frame = session.header(100);
        session.must_post(&[Piece::Own(frame)], "a frame of 100 bytes")?;
        session.doorbell();
        wait_for(session, Causes::TRANSMIT, &what)?;
        session.finish()?;
        session.nic.take_interrupts();
        let frame = session.frame_to(mac, 100);
        session.deliver(&frame);
        wait_for(
            session,
            Causes::RECEIVE,
            &format!("round {round}, a frame came"),
        )?;
        ensure!(
            session.receive(1)?.len() == 1,
            super::RECEIVE,
            "round {round}: an interrupt, and no frame after it"
        );
        if session.bench.set_link(false) {
            wait_for(
                session,
                Causes::LINK,
                &format!("round {round}, the link went"),
            )?;
            session.bench.set_link(true);
            session.wait_for_link(true)?;
            session.settle();
        }
    }
    Ok(())
}

/// Posts up to `count` frames and rings the doorbell now and then.
fn burst<B: Bench>(session: &mut Session<'_, B>, count: usize) -> Verdict {
    for _ in 0..count {
        let len = session.random.within(SHORTEST, 1200);
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

fn link<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    if !session.bench.set_link(true) {
        return not_run("the bench has no hand on the link");
    }
    for round in 0..4 {
        session.lossy = true;
        burst(session, 10)?;
        session.doorbell();
        let step = session.options.step;
        session.bench.advance(step * round);
        session.bench.set_link(false);
        session.wait_for_link(false)?;
        burst(session, 10)?;
        session.doorbell();
        session.settle();
        session.reclaim()?;
        session.bench.set_link(true);
        session.wait_for_link(true)?;
        let mut hung = false;
        let done = session.wait(|session| {
            let now = session.bench.now();
            hung |= session.nic.poll(now) == Ok(Phase::Hung);
            session.collect()?;
            session.reclaim()?;
            Ok(hung || session.outstanding() == 0)
        })?;
        ensure!(
            done,
            "frames that a link change has left in the device complete when the link is back, \
             or `poll` says `Hung` so that a reset frees them",
            "round {round}: {} frames are stranded",
            session.outstanding()
        );
        if hung {
            session.reset()?;
        }
        session.forget_lost()?;
        works(session, "after the link was down")?;
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
    if session.restart_released()? {
        session.received()?;
        works(session, "after release and restart")?;
    }
    Ok(())
}

fn statistics<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let longest = session.capabilities.max_frame_len as usize;
    let shortest = (session.capabilities.min_frame_len as usize).max(ETHERNET);
    let mac = session.mac;
    let device = session.nic.statistics();
    let wire = session.seen;
    for round in 0..3 {
        for _ in 0..25 {
            let len = session.random.within(shortest, longest);
            let pieces = any_cut(session, len);
            session.post_or_wait(&pieces, &format!("a frame of {len} bytes"))?;
            session.doorbell();
            let len = session.random.within(SHORTEST, longest);
            let frame = session.frame_to(mac, len);
            session.deliver(&frame);
            session.receive(1)?;
        }
        session.finish()?;
        let now = session.nic.statistics();
        let seen = session.seen;
        let pairs = [
            (
                "tx_frames",
                now.tx_frames - device.tx_frames,
                seen.tx_frames - wire.tx_frames,
            ),
            (
                "tx_bytes",
                now.tx_bytes - device.tx_bytes,
                seen.tx_bytes - wire.tx_bytes,
            ),
            (
                "rx_frames",
                now.rx_frames - device.rx_frames,
                seen.rx_frames - wire.rx_frames,
            ),
            (
                "rx_bytes",
                now.rx_bytes - device.rx_bytes,
                seen.rx_bytes - wire.rx_bytes,
            ),
        ];
        for (name, counted, on_wire) in pairs {
            ensure!(
                counted == on_wire,
                "counters add up what the device has counted since it was opened; bytes include \
                 the 4 of the frame check sequence, and a reset is bridged",
                "round {round}: {name} is {counted}, on the wire were {on_wire}"
            );
        }
        let again = session.nic.statistics();
        ensure!(
            again == now,
            "reading counters changes nothing, also where that clears the device's",
            "round {round}: {now:?} became {again:?} without traffic"
        );
        session.reset()?;
    }
    Ok(())
}
