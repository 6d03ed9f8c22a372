//! Counters.

use pagewire_hal::{Nic, Phase, RxQueue, Statistics};

use super::Check;
use super::gather::any_cut;
use crate::Bench;
use crate::session::{SHORTEST, Seen, Session};
use crate::verdict::{Verdict, ensure, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "statistics",
            promise: "frames and bytes are those of the wire, also over a reset, whoever polls",
            run: statistics,
        },
        Check {
            name: "a reset loses no count",
            promise: "what was counted before a reset is there after it, though nobody asked",
            run: reset_keeps,
        },
    ]
}

/// Frames both ways, each length by chance.
fn traffic<B: Bench>(session: &mut Session<'_, B>, count: usize) -> Verdict {
    let (shortest, longest) = (session.shortest(), session.longest());
    let mac = session.mac;
    for _ in 0..count {
        let len = session.random.within(shortest, longest);
        let pieces = any_cut(session, len);
        session.post_or_wait(&pieces, &format!("a frame of {len} bytes"))?;
        session.doorbell();
        // With work in the ring: who watches the device must not eat what it counts.
        let now = session.bench.now();
        let polled = session.nic.poll(now);
        ensure!(
            matches!(polled, Ok(Phase::Running(_))),
            "`poll` of a device that works says so",
            "`poll` answered {polled:?}"
        );
        let len = session.random.within(SHORTEST, longest);
        let frame = session.frame_to(mac, len);
        session.deliver(&frame);
        session.receive(1)?;
    }
    session.finish()
}

/// Compares what the device has counted since `device` with what was seen since `wire`.
fn compare<B: Bench>(
    session: &mut Session<'_, B>,
    (device, wire): (Statistics, Seen),
    when: &str,
) -> Verdict {
    let now = session.nic.statistics();
    let seen = session.seen;
    for (name, counted, on_wire) in [
        (
            "tx_frames",
            now.tx_frames.wrapping_sub(device.tx_frames),
            seen.tx_frames - wire.tx_frames,
        ),
        (
            "tx_bytes",
            now.tx_bytes.wrapping_sub(device.tx_bytes),
            seen.tx_bytes - wire.tx_bytes,
        ),
        (
            "rx_frames",
            now.rx_frames.wrapping_sub(device.rx_frames),
            seen.rx_frames - wire.rx_frames,
        ),
        (
            "rx_bytes",
            now.rx_bytes.wrapping_sub(device.rx_bytes),
            seen.rx_bytes - wire.rx_bytes,
        ),
        (
            "RxCounters::delivered",
            session.rx.counters().delivered,
            seen.rx_frames,
        ),
    ] {
        ensure!(
            counted == on_wire,
            "counters add up what has been counted since the device was opened; bytes include \
             the 4 of the frame check sequence; neither a reset nor `poll` takes anything away",
            "{when}: {name} is {counted}, on the wire were {on_wire}"
        );
    }
    let again = session.nic.statistics();
    ensure!(
        again == now,
        "reading counters changes nothing, also where that clears the device's",
        "{when}: {now:?} became {again:?} without traffic"
    );
    Ok(())
}

/// Not run where the device does not count.
pub(super) fn counts<B: Bench>(session: &Session<'_, B>) -> Verdict {
    if session.capabilities.statistics {
        return Ok(());
    }
    not_run("the device does not count")
}

fn statistics<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    counts(session)?;
    let begin = (session.nic.statistics(), session.seen);
    for round in 0..3 {
        traffic(session, 25)?;
        compare(session, begin, &format!("round {round}"))?;
        session.reset()?;
    }
    Ok(())
}

fn reset_keeps<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    counts(session)?;
    let begin = (session.nic.statistics(), session.seen);
    for round in 0..2 {
        traffic(session, 5)?;
        session.reset()?;
        traffic(session, 5)?;
        compare(session, begin, &format!("after reset {round}"))?;
    }
    Ok(())
}
