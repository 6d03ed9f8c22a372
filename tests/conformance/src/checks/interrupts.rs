//! Interrupts and their causes.

use pagewire_hal::{Causes, Nic};

use super::Check;
use super::receive::{BURST, drain};
use crate::Bench;
use crate::session::{Piece, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "interrupts",
            promise: "receive, transmit and a change of the link interrupt, again and again, also \
                      after a reset",
            run: interrupts,
        },
        Check {
            name: "causes together",
            promise: "of causes that come together none is lost",
            run: together,
        },
    ]
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
        "each cause has a vector that is unmasked, `take_interrupts` lets it fire again, and \
         `restart` sets up all that a reset has cleared",
        "{what}: no interrupt for {cause:?}, only {all:?}"
    );
    Ok(())
}

/// Turns them on; `false` if the device has none.
fn enable<B: Bench>(session: &mut Session<'_, B>) -> Verdict<()> {
    const MEND: &str = "`enable_interrupts` returns the number of vectors, at least 1, and may be \
                        called again";
    let before = session.nic.take_interrupts();
    ensure!(
        before.is_empty(),
        "there are no causes while interrupts are off",
        "`take_interrupts` says {before:?} before `enable_interrupts`"
    );
    let vectors = match session.nic.enable_interrupts() {
        Ok(vectors) => vectors,
        Err(error) => return not_run(format!("interrupts: {error}")),
    };
    ensure!(vectors > 0, MEND, "it returned no vector and no error");
    // A message may be there already: the second call must not lose it.
    session.settle();
    let again = session.nic.enable_interrupts();
    ensure!(
        again == Ok(vectors),
        MEND,
        "it returned {vectors}, then {again:?}"
    );
    Ok(())
}

fn interrupts<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    enable(session)?;
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
        let what = format!("round {round}, a frame came");
        wait_for(session, Causes::RECEIVE, &what)?;
        ensure!(
            session.receive(1)?.len() == 1,
            super::RECEIVE,
            "round {round}: an interrupt, and no frame after it"
        );
        if session.bench.set_link(false) {
            let what = format!("round {round}, the link went");
            wait_for(session, Causes::LINK, &what)?;
            session.bench.set_link(true);
            session.wait_for_link(true)?;
            session.settle();
        }
    }
    Ok(())
}

fn together<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    enable(session)?;
    if !session.bench.set_link(true) {
        return not_run("the bench has no hand on the link");
    }
    let mac = session.mac;
    for round in 0..3 {
        session.settle();
        session.nic.take_interrupts();
        let before = session.nic.statistics().rx_missed;
        // More than any ring holds, and then the link, and only then does anybody look.
        for _ in 0..BURST {
            let frame = session.frame_to(mac, SHORTEST);
            session.deliver(&frame);
        }
        for _ in 0..4 {
            session.settle();
        }
        session.bench.set_link(false);
        session.wait_for_link(false)?;
        let mut due = Causes::RECEIVE | Causes::LINK;
        if session.nic.statistics().rx_missed > before {
            due |= Causes::OVERRUN;
        }
        let what = format!("round {round}, receive ran over and the link went");
        wait_for(session, due, &what)?;
        session.bench.set_link(true);
        session.wait_for_link(true)?;
        drain(session)?;
    }
    Ok(())
}
