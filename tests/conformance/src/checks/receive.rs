//! Receive: whole, judged rightly, dropped and counted where it must be.

use pagewire_hal::{ChecksumOffload, Nic, RxQueue, Verdict as Judged};

use super::Check;
use crate::Bench;
use crate::packet::{Kind, Transport, put};
use crate::session::{ETHERNET, FAR_MAC, OTHER_MAC, Received, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, not_run};

/// Frames in a burst that is to be more than a ring holds.
pub(super) const BURST: usize = 1500;

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
            name: "received checksums",
            promise: "a verdict on a checksum is never wrong, and there is one where it is \
                      offered",
            run: verdicts,
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
            promise: "without buffers frames are dropped and counted; the others are whole, and \
                      it goes on afterwards",
            run: bursts,
        },
        Check {
            name: "address filter",
            promise: "frames for this station and for all are received, those for others are not",
            run: filter,
        },
        Check {
            name: "groups",
            promise: "frames for groups are received, or are not, as the device was opened",
            run: groups,
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
        let got = session.receive_single()?;
        ensure!(
            got.is_some_and(|got| got.is(&frame)),
            super::RECEIVE,
            "frame {index} of those received one by one did not come, or as another"
        );
    }
    Ok(())
}

/// What was judged, if it was received at all.
fn judge<B: Bench>(session: &mut Session<'_, B>, frame: &[u8], what: &str) -> Verdict<Received> {
    session.deliver(frame);
    let received = session.receive(1)?;
    match received.into_iter().next() {
        Some(got) if got.is(frame) => Ok(got),
        Some(got) => super::wrong(format!("{what} came with {} bytes", got.bytes.len())),
        None => super::wrong(format!(
            "{what} was not received: it is for the stack to drop"
        )),
    }
}

fn verdicts<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const MEND: &str = "a verdict needs both bits of the device: checked, and good or bad; \
                        without the first it is `Unknown`";
    let offered = session.capabilities.rx_checksum;
    if offered.is_empty() {
        return not_run("the device verifies no checksum");
    }
    for kind in super::checksum::kinds() {
        for len in [1, 2, 33, super::checksum::room(session, kind).min(1000)] {
            for broken in [false, true] {
                let payload = session.random.bytes(len);
                let mut frame = kind.frame(session.mac, FAR_MAC, &payload);
                let last = frame.len() - 1;
                if broken && let Some(byte) = frame.get_mut(last) {
                    *byte ^= 0x10;
                }
                let what = format!("{kind:?} with {len} bytes, broken: {broken},");
                let got = judge(session, &frame, &what)?;
                let (right, wrong) = match broken {
                    false => (Judged::Good, Judged::Bad),
                    true => (Judged::Bad, Judged::Good),
                };
                let judged = got.checksum.transport;
                ensure!(judged != wrong, MEND, "{what} was judged {judged:?}");
                let plain = kind.extra == 0 && !kind.vlan;
                let due = plain && kind.request().is_some_and(|bit| offered.contains(bit));
                ensure!(
                    !due || judged == right,
                    "what `rx_checksum` offers is judged (rule 8)",
                    "{what} was judged {judged:?}"
                );
                ensure!(
                    got.checksum.ipv4_header != Judged::Bad,
                    MEND,
                    "{what} has a good IPv4 header, or none, and it was judged bad"
                );
            }
        }
    }
    ipv4_headers(session, offered)?;
    unsummed(session)
}

/// Bad IPv4 headers.
fn ipv4_headers<B: Bench>(session: &mut Session<'_, B>, offered: ChecksumOffload) -> Verdict {
    for broken in [false, true] {
        let kind = Kind::new(false, 0, Transport::Udp);
        let mut frame = kind.frame(session.mac, FAR_MAC, &[5; 50]);
        if broken {
            // The time to live: not in the pseudo-header.
            put(&mut frame, ETHERNET + 8, 0x0711);
        }
        let what = format!("an IPv4 header, broken: {broken},");
        let judged = judge(session, &frame, &what)?.checksum.ipv4_header;
        let (right, wrong) = match broken {
            false => (Judged::Good, Judged::Bad),
            true => (Judged::Bad, Judged::Good),
        };
        let due = offered.contains(ChecksumOffload::IPV4_HEADER);
        ensure!(
            judged != wrong && (!due || judged == right),
            "the header's verdict is a bit of its own",
            "{what} was judged {judged:?}"
        );
    }
    Ok(())
}

/// Writes the checksum of an IPv4 header of 20 bytes anew.
fn sum_header(frame: &mut [u8]) {
    put(frame, ETHERNET + 10, 0);
    let header = frame.get(ETHERNET..ETHERNET + 20).unwrap_or_default();
    let sum = !crate::packet::sum(header);
    put(frame, ETHERNET + 10, sum);
}

/// Frames whose transport checksum means nothing: none may be called bad, nor good where there
/// is none to be good.
fn unsummed<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let udp = Kind::new(false, 0, Transport::Udp);
    let mut without = udp.frame(session.mac, FAR_MAC, &[5; 50]);
    put(&mut without, ETHERNET + 20 + 6, 0);
    // The second half of a datagram: its first bytes are no header.
    let mut fragment = udp.frame(session.mac, FAR_MAC, &[5; 50]);
    put(&mut fragment, ETHERNET + 6, 0x2010);
    sum_header(&mut fragment);
    // Protocol 253, for experiments (RFC 3692).
    let mut unknown = udp.frame(session.mac, FAR_MAC, &[5; 50]);
    put(&mut unknown, ETHERNET + 8, 0x40fd);
    sum_header(&mut unknown);
    let mac = session.mac;
    let other = session.frame_to(mac, 100);
    for (frame, may_be_good, what) in [
        // A host may vouch for it without a sum.
        (without, true, "a UDP datagram without a checksum"),
        (fragment, false, "an IPv4 fragment"),
        (unknown, false, "a packet of an unknown protocol"),
        (other, false, "a frame that is not IP"),
    ] {
        let checksum = judge(session, &frame, what)?.checksum;
        ensure!(
            checksum.ipv4_header != Judged::Bad
                && match checksum.transport {
                    Judged::Bad => false,
                    Judged::Good => may_be_good,
                    Judged::Unknown => true,
                },
            "without a checksum to check the verdict is `Unknown`",
            "{what} was judged {checksum:?}"
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
    let mac = session.mac;
    for len in giants(session.longest()) {
        let before = drops(session);
        let lengths = session.nic.statistics().rx_length_errors;
        let frame = session.frame_to(mac, len);
        let came = must_be_whole_or_gone(session, &frame)?;
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
    }
    Ok(())
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

/// Whether the frame came; not in part, and not as something else.
fn must_be_whole_or_gone<B: Bench>(session: &mut Session<'_, B>, frame: &[u8]) -> Verdict<bool> {
    session.deliver(frame);
    session.settle();
    session.settle();
    let received = session.received()?;
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
    Ok(received.len() == 1)
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
    Ok(received)
}

fn bursts<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let mac = session.mac;
    let longest = session.longest();
    for round in 0..2 {
        let before = drops(session);
        let mut sent = Vec::new();
        for _ in 0..BURST {
            let len = session.random.within(SHORTEST, longest.min(300));
            sent.push(session.frame_to(mac, len));
        }
        // Nobody looks while all of them come.
        for frame in &sent {
            session.deliver(frame);
        }
        for _ in 0..4 {
            session.settle();
        }
        let received = drain(session)?;
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
        let lost = sent.len() - received.len();
        let counted = drops(session) - before;
        ensure!(
            counted >= lost as u64,
            "what is dropped for want of buffers is counted",
            "round {round}: of {BURST} frames {lost} were lost, {counted} counted"
        );
        let after = [session.frame_to(mac, 300), session.frame_to(mac, 60)];
        session.must_receive(&after, "after a burst beyond the ring")?;
    }
    Ok(())
}

fn filter<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let mac = session.mac;
    let own = session.frame_to(mac, 100);
    let all = session.frame_to([0xff; 6], 100);
    session.must_receive(&[own, all], "a frame for this station and one for all")?;
    if session.bench.is_promiscuous() {
        return Ok(());
    }
    // A third party, and the neighbours of our own address in each byte.
    let mut others = vec![OTHER_MAC];
    for index in 0..mac.len() {
        let mut other = mac;
        if let Some(byte) = other.get_mut(index) {
            // Not the bit that makes a group address.
            *byte ^= 2;
        }
        others.push(other);
    }
    for other in others {
        let frame = session.frame_to(other, 100);
        session.deliver(&frame);
        session.settle();
        let received = session.received()?;
        ensure!(
            received.is_empty(),
            "the receive address registers hold our address in the right byte order, and \
             nothing else is let through",
            "a frame for {other:02x?} was received by {mac:02x?}"
        );
    }
    Ok(())
}

fn groups<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let Some(kept) = session.bench.keeps_groups() else {
        return not_run("the bench does not say whether frames for groups are kept");
    };
    // All nodes of IPv6 (RFC 2464), all systems of IPv4 (RFC 1112), and others.
    let mut groups = vec![[0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0, 0, 1]];
    for _ in 0..24 {
        let mut group = [0; 6];
        for (byte, random) in group.iter_mut().zip(session.random.bytes(6)) {
            *byte = random;
        }
        group[0] |= 1;
        groups.push(group);
    }
    for group in groups {
        let frame = session.frame_to(group, 100);
        if kept {
            session.must_receive(&[frame], &format!("a frame for the group {group:02x?}"))?;
            continue;
        }
        session.deliver(&frame);
        session.settle();
        let received = session.received()?;
        ensure!(
            received.is_empty(),
            "the whole of the group filter is written when the device is opened: what is in it \
             after a reset is not defined",
            "a frame for the group {group:02x?} was received, and none was asked for"
        );
    }
    Ok(())
}
