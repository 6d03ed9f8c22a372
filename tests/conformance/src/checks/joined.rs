//! Reception by a device that does more than put a frame into a buffer: it joins segments, and
//! sorts frames to several queues.

use std::collections::HashMap;

use pagewire_hal::Verdict as Judged;

use super::Check;
use crate::Bench;
use crate::packet::{Kind, Transport, put};
use crate::session::{ETHERNET, FAR_MAC, Received, Session};
use crate::verdict::{Verdict, ensure, not_run};

/// Connections whose segments come mixed, and segments of each.
const FLOWS: u16 = 48;
const ROUNDS: u32 = 4;

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "joined segments",
            promise: "what the device has joined, or need not part, comes whole or as segments \
                      of the same bytes, no longer than max_receive_len",
            run: joined,
        },
        Check {
            name: "received on any queue",
            promise: "frames that the device sorts to several queues come once, each connection's \
                      in order",
            run: sorted,
        },
    ]
}

/// Whether `received` is `sent`, the device's own segments of it or some of them joined: the
/// payloads add up, headers apart.
fn adds_up(kind: Kind, sent: &[u8], received: &[Received]) -> bool {
    let header = kind.header_len();
    let mut payload = Vec::new();
    for got in received {
        let (Some(start), Some(end)) = (got.bytes.get(..ETHERNET), got.bytes.get(header..)) else {
            return false;
        };
        if Some(start) != sent.get(..ETHERNET) {
            return false;
        }
        payload.extend_from_slice(end);
    }
    sent.get(header..) == Some(&payload[..])
}

fn joined<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let most = session.capabilities.max_joined_len as usize;
    if most <= session.longest() {
        return not_run("the device joins no segments");
    }
    session.take_all()?;
    let longest = session.longest();
    for ipv6 in [false, true] {
        for options in [0, 12] {
            let kind = Kind::new(ipv6, 0, Transport::Tcp(options));
            // A packet has 16 bits for its length.
            let largest = most.min(65_535 + ETHERNET - 40);
            for len in [longest + 1, 2 * longest, largest / 2, largest - 1, largest] {
                let len = len.min(largest);
                let payload = session.random.bytes(len - kind.header_len());
                let frame = kind.frame(session.mac, FAR_MAC, &payload);
                let what = format!("{kind:?} of {len} bytes");
                whole_or_parts(session, kind, &frame, &what)?;
            }
        }
    }
    // And what is short is as ever.
    let mac = session.mac;
    let after = session.frame_to(mac, 100);
    session.must_receive(&[after], "after joined segments")
}

fn whole_or_parts<B: Bench>(
    session: &mut Session<'_, B>,
    kind: Kind,
    frame: &[u8],
    what: &str,
) -> Verdict {
    session.deliver(frame);
    let mut received = session.receive(1)?;
    received.append(&mut super::receive::drain(session)?);
    let bound = session.capabilities.max_receive_len() as usize;
    for got in &received {
        ensure!(
            got.bytes.len() <= bound && got.checksum.transport != Judged::Bad,
            "`max_joined_len` is the longest that comes, and a large frame's checksum is not bad",
            "of {what} came {} bytes, judged {:?}",
            got.bytes.len(),
            got.checksum.transport
        );
    }
    let whole = matches!(&received[..], [got] if got.is(frame));
    ensure!(
        whole || received.len() > 1 && adds_up(kind, frame, &received),
        "a frame in several buffers is put together in their order, each with its length",
        "of {what} came {} frames, {} bytes in all",
        received.len(),
        received.iter().map(|got| got.bytes.len()).sum::<usize>()
    );
    Ok(())
}

/// The port of a frame's sender.
fn port(kind: Kind, frame: &[u8]) -> Option<u16> {
    let at = kind.l2_len() + kind.l3_len();
    let bytes = frame.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn sorted<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    const MEND: &str = "each pair of queues has its own buffers, index and doorbell";
    if session.capabilities.queue_pairs < 2 {
        return not_run("the device has one pair of queues");
    }
    session.take_all()?;
    let udp = Kind::new(false, 0, Transport::Udp);
    let tcp = Kind::new(false, 0, Transport::Tcp(0));
    // Devices may sort by the ports of TCP alone.
    for (kind, reset) in [(udp, false), (tcp, true)] {
        if reset {
            session.reset()?;
        }
        let mut sent: HashMap<u16, Vec<Vec<u8>>> = HashMap::new();
        let mut received = Vec::new();
        for round in 0..ROUNDS {
            for flow in 0..FLOWS {
                let payload = session.random.bytes(40 + round as usize);
                let mut frame = kind.frame(session.mac, FAR_MAC, &payload);
                put(
                    &mut frame,
                    kind.l2_len() + kind.l3_len(),
                    0x4000 + flow * 37,
                );
                kind.fill_checksums(&mut frame);
                session.deliver(&frame);
                sent.entry(0x4000 + flow * 37).or_default().push(frame);
                // No ring need hold more.
                received.append(&mut session.receive(1)?);
            }
        }
        received.append(&mut super::receive::drain(session)?);
        let mut came: HashMap<u16, Vec<Received>> = HashMap::new();
        let count = received.len();
        for got in received {
            let flow = port(kind, &got.bytes).unwrap_or(0);
            came.entry(flow).or_default().push(got);
        }
        for (flow, frames) in &sent {
            let got = came.remove(flow).unwrap_or_default();
            ensure!(
                got.len() == frames.len() && got.iter().zip(frames).all(|(got, one)| got.is(one)),
                MEND,
                "of the {} frames from port {flow} came {}, or they differ, or their order",
                frames.len(),
                got.len()
            );
        }
        ensure!(came.is_empty(), MEND, "{count} frames came, some unsent");
    }
    Ok(())
}
