//! What is said of received checksums.

use pagewire_hal::{ChecksumOffload, Verdict as Judged};

use super::Check;
use crate::Bench;
use crate::packet::{Kind, Transport, put};
use crate::session::{ETHERNET, FAR_MAC, Received, Session};
use crate::verdict::{Verdict, ensure};

pub(super) fn checks<B: Bench>() -> Vec<Check<B>> {
    vec![Check {
        name: "received checksums",
        promise: "a verdict on a checksum is never wrong, and there is one where it is \
                      offered",
        run: verdicts,
    }]
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
    // Also where nothing is offered: there may be verdicts all the same.
    let offered = session.capabilities.rx_checksum;
    session.take_all()?;
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
