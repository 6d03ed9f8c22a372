//! Receive: whole, dropped and counted where it must be.

use pagewire_hal::{Nic, RxQueue};

use super::Check;
use super::statistics::counts;
use crate::Bench;
use crate::session::{ETHERNET, Received, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, not_run};

/// Frames in a burst that is to be more than a ring holds.
pub(super) const BURST: usize = 1500;

/// Frames of which one must come, where the first may be lost.
const MARKERS: u32 = 8;

/// Frames that are received one by one: more than common rings hold.
const FRAMES: usize = 600;

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "received lengths",
            promise: "frames of every length up to max_frame_len are received as they were sent",
            run: lengths,
        },
        Check {
            name: "a budget of one",
            promise: "buffers return to the ring at once, whatever the budget of `receive`",
            run: budget_of_one,
        },
        Check {
            name: "runts and giants",
            promise: "what is too short or too long is received whole or dropped, and does no \
                      harm",
            run: runts_and_giants,
        },
        Check {
            name: "giants are counted",
            promise: "what is dropped for being too long is counted",
            run: giants_are_counted,
        },
        Check {
            name: "giants in a row",
            promise: "what is dropped keeps no buffer, however much of it comes one after the \
                      other",
            run: giants_in_a_row,
        },
        Check {
            name: "bursts beyond the ring",
            promise: "without buffers frames are dropped; the others are whole, in order, and it \
                      goes on afterwards",
            run: bursts,
        },
        Check {
            name: "lost frames are counted",
            promise: "what is dropped for want of buffers is counted, and not among what was \
                      received",
            run: bursts_are_counted,
        },
    ]
}

fn lengths<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let longest = session.longest();
    let mac = session.mac;
    let mut lengths = vec![
        SHORTEST,
        SHORTEST + 1,
        64,
        65,
        255,
        256,
        257,
        longest - 1,
        longest,
    ];
    lengths.extend((0..40).map(|_| session.random.within(SHORTEST, longest)));
    if session.options.thorough {
        lengths.extend(SHORTEST..=longest);
    }
    for len in lengths {
        if len > longest {
            continue;
        }
        let frame = session.frame_to(mac, len);
        session.must_receive(&[frame], &format!("a frame of {len} bytes"))?;
    }
    // Small bursts, which the smallest ring takes.
    for count in 1..=5 {
        let mut frames = Vec::new();
        for _ in 0..count {
            let len = session.random.within(SHORTEST, longest);
            frames.push(session.frame_to(mac, len));
        }
        session.must_receive(&frames, &format!("a burst of {count}"))?;
    }
    Ok(())
}

fn budget_of_one<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let mac = session.mac;
    for index in 0..FRAMES {
        let frame = session.frame_to(mac, SHORTEST);
        session.deliver(&frame);
        if index % 64 == 0 {
            session.settle();
            let mut handed_up = 0;
            let result = session.rx.receive(0, &mut |_| handed_up += 1);
            ensure!(
                result == Ok(0) && handed_up == 0,
                "`receive` looks at its budget before it takes a frame",
                "`receive(0)` answered {result:?} and handed up {handed_up}"
            );
        }
        let got = session.receive_single()?;
        ensure!(
            got.is_some_and(|got| got.is(&frame)),
            super::RECEIVE,
            "frame {index} of those received one by one did not come, or as another"
        );
    }
    Ok(())
}

/// All that device and driver say they have dropped.
pub(super) fn drops<B: Bench>(session: &mut Session<'_, B>) -> u64 {
    let device = session.nic.statistics();
    let driver = session.rx.counters();
    device.rx_length_errors
        + device.rx_crc_errors
        + device.rx_missed
        + device.rx_no_buffer
        + driver.damaged
        + driver.too_long
        + driver.nonsense
}

fn runts_and_giants<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let longest = session.longest();
    let mac = session.mac;
    for len in [0, 1, 6, 13, 14, 15, 33, 59] {
        let mut frame = session.frame_to(mac, len.max(ETHERNET));
        frame.truncate(len);
        must_be_whole_or_gone(session, &frame)?;
    }
    for len in giants(longest) {
        let frame = session.frame_to(mac, len);
        must_be_whole_or_gone(session, &frame)?;
        // And the next one is as if nothing had been.
        let after = session.frame_to(mac, 200);
        session.must_receive(&[after], &format!("a frame after one of {len} bytes"))?;
    }
    Ok(())
}

/// Lengths beyond the longest frame: with room for a VLAN tag, and far beyond.
fn giants(longest: usize) -> [usize; 6] {
    [
        longest + 1,
        longest + 4,
        longest + 5,
        2 * longest,
        16_000,
        40_000,
    ]
}

fn giants_are_counted<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    counts(session)?;
    let mac = session.mac;
    let sendable = session.bench.far_end().longest();
    let mut sent = 0;
    for len in giants(session.longest()) {
        if len > sendable {
            continue;
        }
        sent += 1;
        // If a frame behind it was lost as well, that may be what was counted.
        let mut tries = MARKERS;
        let mut is_alone = false;
        while !is_alone && tries > 0 {
            tries -= 1;
            let frame = session.frame_to(mac, len);
            is_alone = must_be_counted(session, &frame)?;
        }
    }
    if sent == 0 {
        return not_run("the far end cannot send a frame that is too long");
    }
    Ok(())
}

/// A frame that is too long comes or is counted, once; whether nothing was lost behind it.
fn must_be_counted<B: Bench>(session: &mut Session<'_, B>, frame: &[u8]) -> Verdict<bool> {
    let len = frame.len();
    let before = drops(session);
    let lengths = session.nic.statistics().rx_length_errors;
    let (came, lost) = must_be_whole_or_gone(session, frame)?;
    let counted = drops(session) > before;
    let lengths = session.nic.statistics().rx_length_errors - lengths;
    ensure!(
        lengths <= 1,
        "two counters of the device may count the same frame",
        "one frame of {len} bytes was counted {lengths} times in `rx_length_errors`"
    );
    ensure!(
        came || counted,
        "add the device's counter of oversized frames to `rx_length_errors`, or count in \
         `RxCounters`",
        "a frame of {len} bytes was dropped, and nothing counted it"
    );
    Ok(lost == 0)
}

fn giants_in_a_row<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let mac = session.mac;
    let len = 2 * session.longest();
    let step = session.options.step;
    for _ in 0..FRAMES {
        let frame = session.frame_to(mac, len);
        session.deliver(&frame);
        session.bench.advance(4 * step);
        for got in session.received()? {
            ensure!(
                got.bytes.len() == len,
                "a frame in several buffers is put together or dropped whole",
                "of frames of {len} bytes came one of {}",
                got.bytes.len()
            );
        }
    }
    drain(session)?;
    let after = [session.frame_to(mac, 300), session.frame_to(mac, 60)];
    session.must_receive(&after, &format!("after {FRAMES} frames of {len} bytes"))
}

/// Whether the frame came; not in part, and not as something else. And how many frames were lost
/// behind it.
fn must_be_whole_or_gone<B: Bench>(
    session: &mut Session<'_, B>,
    frame: &[u8],
) -> Verdict<(bool, usize)> {
    session.deliver(frame);
    session.settle();
    session.settle();
    let mut received = session.received()?;
    let lost = until_marker(session, &mut received)?;
    for got in &received {
        ensure!(
            got.is(frame),
            "a frame in several buffers is put together or dropped whole",
            "of a frame of {} bytes came {} bytes",
            frame.len(),
            got.bytes.len()
        );
    }
    ensure!(
        received.len() <= 1,
        "a frame comes once",
        "a frame of {} bytes came {} times",
        frame.len(),
        received.len()
    );
    Ok((received.len() == 1, lost))
}

/// Sends frames, one after the other, until one has come: what was sent before has come by then, or
/// never will, however seldom the device or the far end has its turn. What came of that is appended
/// to `received`. Returns how many of the frames were lost.
fn until_marker<B: Bench>(
    session: &mut Session<'_, B>,
    received: &mut Vec<Received>,
) -> Verdict<usize> {
    let mac = session.mac;
    let patience = session.options.patience / MARKERS;
    let mut markers = Vec::new();
    let mut came = false;
    while !came {
        ensure!(
            markers.len() < MARKERS as usize,
            super::RECEIVE,
            "of {MARKERS} frames of 100 bytes behind it none came"
        );
        let marker = session.frame_to(mac, 100);
        session.deliver(&marker);
        came = session.wait_for(patience, |session| {
            let mut more = session.received()?;
            let came = more.iter().any(|got| got.is(&marker));
            received.append(&mut more);
            Ok(came)
        })?;
        markers.push(marker);
    }
    let all = received.len();
    received.retain(|got| !markers.iter().any(|marker| got.is(marker)));
    Ok(markers.len() - (all - received.len()).min(markers.len()))
}

/// Everything that is still coming.
pub(super) fn drain<B: Bench>(session: &mut Session<'_, B>) -> Verdict<Vec<Received>> {
    let mut received = Vec::new();
    let mut quiet = 0;
    while quiet < 3 {
        let mut more = session.received()?;
        quiet = if more.is_empty() { quiet + 1 } else { 0 };
        received.append(&mut more);
        session.settle();
    }
    until_marker(session, &mut received)?;
    Ok(received)
}

/// A burst that is more than the ring holds: how many frames were lost, and how many drops were
/// counted.
fn burst<B: Bench>(session: &mut Session<'_, B>, round: usize) -> Verdict<(u64, u64)> {
    let mac = session.mac;
    let longest = session.longest().min(300);
    let before = drops(session);
    let mut sent = Vec::new();
    for _ in 0..BURST {
        let len = session.random.within(SHORTEST, longest);
        sent.push(session.frame_to(mac, len));
    }
    for frame in &sent {
        session.deliver(frame);
    }
    let mut received = Vec::new();
    if round.is_multiple_of(2) {
        // Nobody looks while all of them come.
        for _ in 0..4 {
            session.settle();
        }
    } else {
        // More are waiting whenever a buffer becomes free.
        for _ in 0..BURST {
            received.append(&mut session.received()?);
            session.bench.advance(session.options.step);
        }
    }
    received.append(&mut drain(session)?);
    let mut left = sent.iter();
    for (index, got) in received.iter().enumerate() {
        ensure!(
            left.any(|frame| got.is(frame)),
            "a buffer goes back to the device only after it was copied, and descriptors are \
             taken in order",
            "round {round}: frame {index} of {} bytes was not sent, or came out of order",
            got.bytes.len()
        );
    }
    ensure!(
        !received.is_empty(),
        super::RECEIVE,
        "round {round}: none came"
    );
    let after = [session.frame_to(mac, 300), session.frame_to(mac, 60)];
    session.must_receive(&after, "after a burst beyond the ring")?;
    let lost = sent.len() - received.len();
    Ok((lost as u64, drops(session) - before))
}

fn bursts<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    for round in 0..4 {
        burst(session, round)?;
    }
    Ok(())
}

fn bursts_are_counted<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    counts(session)?;
    session.take_all()?;
    let (device, wire) = (session.nic.statistics(), session.seen);
    for round in 0..2 {
        let (lost, counted) = burst(session, round)?;
        ensure!(
            counted >= lost,
            "what is dropped for want of buffers is counted",
            "round {round}: of {BURST} frames {lost} were lost, {counted} counted"
        );
        let now = session.nic.statistics();
        let counted = [
            now.rx_frames.wrapping_sub(device.rx_frames),
            now.rx_bytes.wrapping_sub(device.rx_bytes),
        ];
        let seen = [
            session.seen.rx_frames - wire.rx_frames,
            session.seen.rx_bytes - wire.rx_bytes,
        ];
        ensure!(
            counted == seen,
            "`rx_frames` and `rx_bytes` are those that were received: what a filter has let \
             through may have been lost behind it",
            "round {round}: {counted:?} frames and bytes were counted, {seen:?} received, and \
             {lost} frames lost"
        );
    }
    Ok(())
}
