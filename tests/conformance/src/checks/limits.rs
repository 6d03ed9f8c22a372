//! What the capabilities say, before any of it is tried.

use pagewire_hal::{Nic, TxQueue};

use super::Check;
use crate::Bench;
use crate::session::{ETHERNET, SHORTEST, Session};
use crate::verdict::{Verdict, ensure};

/// Least that `max_frame_len` may be: 576 bytes of IP (RFC 791) behind an Ethernet header.
const LEAST_LONGEST: usize = 590;

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![Check {
        name: "limits",
        promise: "capabilities are in their ranges, fit each other, are those of the queues, and \
                  those for which the device was opened; the station address is one",
        run: limits,
    }]
}

fn limits<B: Bench>(session: &mut Session<'_, B>) -> Verdict {
    let found = session.capabilities;
    ensure!(
        *session.tx.capabilities() == found,
        "queues hand out a copy of the device's capabilities",
        "the queue says {:?}, the device {found:?}",
        session.tx.capabilities()
    );
    ensure!(
        session.tx.domain() == session.nic.domain(),
        "queues and device are in the same domain",
        "the queue is in {:?}, the device in {:?}",
        session.tx.domain(),
        session.nic.domain()
    );
    let mac = session.mac;
    ensure!(
        mac != [0; 6] && mac[0] & 1 == 0,
        "a station address is not zero, and not that of a group",
        "the station address is {mac:02x?}"
    );
    let (shortest, longest) = (found.min_frame_len as usize, session.longest());
    for (holds, what) in [
        (found.queue_pairs >= 1, "queue_pairs is at least 1"),
        (found.max_fragments >= 1, "max_fragments is at least 1"),
        (
            found.max_fragment_len >= 1,
            "max_fragment_len is at least 1",
        ),
        (
            (ETHERNET..=SHORTEST).contains(&shortest),
            "min_frame_len is from 14 to 60",
        ),
        (longest >= LEAST_LONGEST, "max_frame_len is at least 590"),
        (
            u64::from(found.max_fragments) * u64::from(found.max_fragment_len)
                >= u64::from(found.max_frame_len),
            "max_fragments of max_fragment_len hold a frame of max_frame_len",
        ),
        (
            (1..=64).contains(&found.dma_address_bits),
            "dma_address_bits is from 1 to 64",
        ),
    ] {
        ensure!(holds, what, "the capabilities are {found:?}");
    }
    if let Some(chosen) = session.bench.longest_frame() {
        ensure!(
            found.max_frame_len == chosen,
            "max_frame_len has the Ethernet header in it and the frame check sequence not",
            "max_frame_len is {}, the device was opened for {chosen}",
            found.max_frame_len
        );
    }
    Ok(())
}
