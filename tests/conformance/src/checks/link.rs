//! The carrier.

use pagewire_hal::{Nic, Phase};

use super::Check;
use super::lifecycle::{burst, works};
use crate::Bench;
use crate::session::Session;
use crate::verdict::{Verdict, ensure, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "link state",
            promise: "speed and duplex are those of the link; while it is down, 0 and half",
            run: state,
        },
        Check {
            name: "link down and up",
            promise: "a link that goes in mid-burst loses no token, and all works when it is back",
            run: down_and_up,
        },
    ]
}

fn state<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const MEND: &str = "the speed is decoded from all bits of its field, and means nothing \
                        without a carrier";
    for _ in 0..3 {
        let now = session.bench.now();
        let up = session.nic.link();
        ensure!(up.up, MEND, "the link is up: {up:?}");
        let polled = session.nic.poll(now);
        ensure!(
            polled == Ok(Phase::Running(up)),
            "`poll` reports the link as `link` does",
            "`link` says {up:?}, `poll` {polled:?}"
        );
        if let Some(speed) = session.bench.link_speed() {
            ensure!(
                up.speed_mbps == speed && up.full_duplex,
                MEND,
                "the link has {speed} Mbit/s both ways, `link` says {up:?}"
            );
        }
        if !session.bench.set_link(false) {
            return Ok(());
        }
        session.wait_for_link(false)?;
        let down = session.nic.link();
        ensure!(
            down.speed_mbps == 0 && !down.full_duplex,
            MEND,
            "the link is down: {down:?}"
        );
        session.bench.set_link(true);
        session.wait_for_link(true)?;
    }
    Ok(())
}

fn down_and_up<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
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
        burst_while_down(session)?;
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

/// Frames without a carrier: a device keeps or drops them, a driver may refuse them.
fn burst_while_down<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    for _ in 0..10 {
        let len = session.random.within(60, 590);
        let pieces = super::gather::any_cut(session, len);
        if session.post(&pieces)?.is_err() {
            break;
        }
    }
    Ok(())
}
