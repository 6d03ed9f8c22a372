//! Whose frames are received.

use super::Check;
use crate::Bench;
use crate::session::{OTHER_MAC, Session};
use crate::verdict::{Verdict, ensure, not_run};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![
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
