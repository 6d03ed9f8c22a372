//! The transmit ring: full, partly full, doorbells, completions.

use pagewire_hal::{PostError, TxQueue};

use super::Check;
use super::checksum::{a_request, cut_payload, kinds, least, post_packet, requests, room};
use super::gather::{any_cut, cut};
use crate::Bench;
use crate::session::{ETHERNET, Piece, SHORTEST, Session};
use crate::verdict::{Verdict, ensure, not_run};

/// More frames than any ring holds.
const MORE_THAN_A_RING: usize = 1 << 17;

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
        Check {
            name: "ring full",
            promise: "a full ring refuses with `Full`, changes nothing, and has room again after \
                      completions",
            run: ring_full,
        },
        Check {
            name: "ring partly full",
            promise: "a gather frame is posted wholly or not at all, wherever the ring wraps",
            run: partly_full,
        },
        Check {
            name: "an empty ring takes any frame",
            promise: "a frame of max_fragments with a request fits the empty ring, so that \
                      nothing blocks for ever",
            run: empty_ring,
        },
        Check {
            name: "doorbell",
            promise: "nothing is sent before the doorbell; a burst costs one, nothing new none",
            run: doorbell,
        },
        Check {
            name: "no later traffic needed",
            promise: "the last frame before a doorbell completes by itself",
            run: no_later_traffic,
        },
        Check {
            name: "completions out of step",
            promise: "what was sent is not done before the device says so, in whatever lumps it \
                      says it",
            run: out_of_step,
        },
        Check {
            name: "mixed traffic",
            promise: "frames of all sorts, both ways at once, arrive as they were sent",
            run: mixed,
        },
    ]
}

fn ring_full<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    for _ in 0..3 {
        let mut held = 0;
        loop {
            let frame = session.header(SHORTEST);
            match session.post(&[Piece::Own(frame)])? {
                Ok(()) => held += 1,
                Err(PostError::Full) => break,
                Err(error) => return super::refused("a frame of 60 bytes", error),
            }
            ensure!(
                held < MORE_THAN_A_RING,
                "a ring has an end: `post` says `Full` before it overwrites what is out",
                "{held} frames were taken and none had completed"
            );
        }
        ensure!(held > 0, super::RING, "an empty ring was full");
        for _ in 0..3 {
            let frame = session.header(SHORTEST);
            let again = session.post(&[Piece::Own(frame)])?;
            ensure!(
                again == Err(PostError::Full),
                "what `post` refuses changes nothing",
                "a full ring answered {again:?} when it was asked once more"
            );
        }
        session.doorbell();
        session.finish()?;
    }
    Ok(())
}

fn partly_full<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let longest = session.longest();
    let max = usize::from(session.capabilities.max_fragments).min(longest - ETHERNET - 5);
    let held = session.bench.hold_completions(true);
    for round in 0..60 {
        let count = session.random.within(1, max);
        let len = session
            .random
            .within(SHORTEST.max(ETHERNET + 4 + count), longest.min(1500));
        // With a request, which may cost a descriptor, or without.
        let request = match session.random.below(2) {
            0 => a_request(session, count, len),
            _ => None,
        };
        let posted = match request {
            Some((pieces, offload, whole)) => session.post_as(&pieces, offload, vec![whole])?,
            None => {
                let pieces = cut(session, count, len);
                session.post(&pieces)?
            }
        };
        match posted {
            Ok(()) => {}
            Err(PostError::Full) => {
                // What is smaller may still fit; then the ring is emptied.
                let small = session.header(SHORTEST);
                let _ = session.post(&[Piece::Own(small)])?;
                session.doorbell();
                if held {
                    session.bench.hold_completions(false);
                }
                if round % 2 == 0 {
                    session.finish()?;
                } else {
                    session.settle();
                    session.reclaim()?;
                }
                if held {
                    session.bench.hold_completions(true);
                }
            }
            Err(error) => return super::refused("a frame in a ring partly full", error),
        }
        if session.random.below(3) == 0 {
            session.doorbell();
        }
    }
    if held {
        session.bench.hold_completions(false);
    }
    session.doorbell();
    session.finish()
}

fn empty_ring<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let max = usize::from(session.capabilities.max_fragments);
    let longest = session.longest();
    if max + 200 > longest {
        return not_run(format!(
            "a frame of {longest} bytes is not cut into {max} fragments"
        ));
    }
    let offered = session.capabilities.tx_checksum;
    // At many places of the ring, as a frame may wrap.
    for _ in 0..20 {
        let kind = kinds().into_iter().find_map(|kind| {
            let bits = requests(kind, offered).first().copied();
            bits.map(|bits| (kind, bits))
        });
        ensure!(
            session.tx.has_room(max) && !session.tx.has_room(max + 1),
            super::RING,
            "`has_room({max})` or `has_room({})` is wrong for an empty ring",
            max + 1
        );
        if let Some((kind, bits)) = kind {
            let least = least(session, kind).max(max);
            let len = session.random.within(least, room(session, kind).min(1400));
            let payload = cut_payload(session, len, max - 1);
            post_packet(session, kind, bits, &payload)?;
        } else {
            let len = session.longest().min(1400);
            let pieces = cut(session, max, len);
            session.must_post(&pieces, "a frame of max_fragments")?;
        }
        session.doorbell();
        session.finish()?;
    }
    Ok(())
}

fn doorbell<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    for burst in [1, 2, 5] {
        let before = session.bench.doorbells();
        let mut posted = 0;
        for _ in 0..burst {
            let frame = session.header(100);
            match session.post(&[Piece::Own(frame)])? {
                Ok(()) => posted += 1,
                Err(PostError::Full) if posted > 0 => break,
                Err(error) => return super::refused("a frame of 100 bytes", error),
            }
        }
        session.settle();
        let count = session.collect()?;
        ensure!(
            count == 0,
            "`post` writes descriptors, only `doorbell` shows them to the device",
            "{count} frames of {posted} were on the wire before the doorbell"
        );
        session.doorbell();
        session.doorbell();
        if let (Some(before), Some(after)) = (before, session.bench.doorbells()) {
            let rung = after - before;
            ensure!(
                rung == 1 || rung == 0 && session.bench.waives_doorbells(),
                "one doorbell for many posts, and none when nothing is new",
                "{posted} posts and two calls of `doorbell` rang it {rung} times"
            );
        }
        session.finish()?;
    }
    Ok(())
}

fn no_later_traffic<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    for burst in 1..40 {
        // Bursts of every length: drivers ask for a completion every so many frames.
        for _ in 0..burst {
            let frame = session.header(SHORTEST);
            session.post_or_wait(&[Piece::Own(frame)], "a frame of 60 bytes")?;
        }
        session.doorbell();
        session.finish()?;
    }
    Ok(())
}

fn out_of_step<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    if !session.bench.hold_completions(true) {
        return not_run("the bench cannot hold completions back");
    }
    for round in 0..8 {
        let frames = session.random.within(1, 12);
        let mut posted = 0;
        for _ in 0..frames {
            let len = session.random.within(SHORTEST, session.longest().min(1000));
            let pieces = any_cut(session, len);
            match session.post(&pieces)? {
                Ok(()) => posted += 1,
                Err(PostError::Full) => break,
                Err(error) => return super::refused("a frame of a burst", error),
            }
            if session.random.below(3) == 0 {
                session.doorbell();
            }
        }
        session.doorbell();
        let mut seen = 0;
        let sent = session.wait(|session| {
            seen += session.collect()?;
            Ok(seen >= posted)
        })?;
        ensure!(
            sent,
            "frames are sent whether or not completions are looked at",
            "{seen} of {posted} frames were sent"
        );
        session.settle();
        let early = session.reclaim()?;
        ensure!(
            early == 0,
            "a token comes back on the device's word for *that* frame, not on its position in \
             the ring or on the head register",
            "round {round}: {early} tokens came back while the device had reported none"
        );
        session.bench.hold_completions(false);
        session.finish()?;
        session.bench.hold_completions(true);
    }
    session.bench.hold_completions(false);
    Ok(())
}

fn mixed<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let offered = session.capabilities.tx_checksum;
    let shortest = session.shortest().max(ETHERNET + 4);
    let longest = session.longest();
    let kinds = kinds();
    let mac = session.mac;
    let mut sent = Vec::new();
    let mut received = Vec::new();
    for _ in 0..300 {
        let index = session.random.below(kinds.len());
        let choice = kinds
            .get(index)
            .map(|kind| (*kind, requests(*kind, offered)));
        match choice {
            Some((kind, requests)) if !requests.is_empty() && session.random.below(2) == 0 => {
                let index = session.random.below(requests.len());
                let bits = requests.get(index).copied().unwrap_or_default();
                let len = session
                    .random
                    .within(least(session, kind), room(session, kind));
                let cuts = session.random.within(1, 6);
                let payload = cut_payload(session, len, cuts);
                post_packet(session, kind, bits, &payload)?;
            }
            _ => {
                let len = session.random.within(shortest, longest);
                let pieces = any_cut(session, len);
                session.post_or_wait(&pieces, &format!("a frame of {len} bytes"))?;
            }
        }
        if session.random.below(3) == 0 {
            session.doorbell();
        }
        if session.random.below(4) == 0 {
            // One at a time, so that no ring is short of buffers.
            let len = session.random.within(SHORTEST, longest);
            let frame = session.frame_to(mac, len);
            session.deliver(&frame);
            sent.push(frame);
            let missing = sent.len() - received.len();
            received.append(&mut session.receive(missing)?);
        }
    }
    session.doorbell();
    session.finish()?;
    let same =
        sent.len() == received.len() && sent.iter().zip(&received).all(|(sent, got)| got.is(sent));
    ensure!(
        same,
        "receive does not depend on what is transmitted",
        "{} frames were sent to the NIC, {} received, or they differ",
        sent.len(),
        received.len()
    );
    Ok(())
}
