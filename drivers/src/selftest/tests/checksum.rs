//! Checksums: those that the device inserts, summed anew at the far end, and what it says of those
//! that it receives.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use pagewire_hal::{ChecksumOffload, Nic, RxChecksum, Verdict};

use super::{by, setup};
use crate::selftest::outcome::{Checked, Stop, fault, not_run};
use crate::selftest::packet::Packet;
use crate::selftest::session::{Route, Session, with};
use crate::selftest::station::Station;
use crate::selftest::traffic::{ARRIVAL, difference, pieces};

/// Payloads: bytes, and pieces that they are in. Of odd and even length, cut at odd places.
const PAYLOADS: [(usize, usize); 4] = [(64, 1), (101, 1), (1001, 3), (1400, 2)];
/// A device need not look at each frame that it receives; of so many it looks at one at least.
const TRIES: usize = 4;

/// Each request for a checksum, alone and together.
pub(super) fn transmit<S: Station>(station: &mut S) -> Checked {
    let setup = setup(station)?;
    with(station, &setup, |session| {
        let offered = session.capabilities().tx_checksum;
        if offered.is_empty() {
            return not_run("the device offers to insert no checksum");
        }
        let mut count = 0;
        for (is_ipv6, is_tcp) in [(false, true), (false, false), (true, true), (true, false)] {
            for request in requests(session, is_ipv6, is_tcp) {
                for payload in PAYLOADS {
                    insert(session, (is_ipv6, is_tcp), request, payload)?;
                    count += 1;
                }
            }
        }
        let names: Vec<String> = offered.iter_names().map(|(name, _)| spoken(name)).collect();
        Ok(format!(
            "{}: {count} packets {}, summed anew",
            names.join(", "),
            by(session.route)
        ))
    })
}

fn spoken(name: &str) -> String {
    name.replace('_', " ").to_lowercase()
}

/// The requests that a packet can make of this device.
fn requests<S: Station>(
    session: &mut Session<'_, S>,
    is_ipv6: bool,
    is_tcp: bool,
) -> Vec<ChecksumOffload> {
    let offered = session.capabilities().tx_checksum;
    let packet = packet(session, is_ipv6, is_tcp);
    let header = match is_ipv6 {
        true => ChecksumOffload::empty(),
        false => ChecksumOffload::IPV4_HEADER & offered,
    };
    // A generic sum does not know UDP, where 0 means that there is none.
    let generic = match is_tcp {
        true => ChecksumOffload::GENERIC & offered,
        false => ChecksumOffload::empty(),
    };
    let transport = packet.transport_request() & offered;
    let mut all = Vec::new();
    for request in [header, transport, header | transport, generic] {
        if !request.is_empty() && !all.contains(&request) {
            all.push(request);
        }
    }
    all
}

/// A packet of a flow of its own, from the device to the far end.
fn packet<S: Station>(session: &mut Session<'_, S>, is_ipv6: bool, is_tcp: bool) -> Packet {
    Packet {
        destination: session.far_address(),
        source: session.nic.mac_address(),
        is_ipv6,
        is_tcp,
        is_reply: false,
        port: 20_000 + (session.next_sequence() % 20_000) as u16,
        sequence: 1000,
    }
}

/// Sends a packet with a request, and sums what arrives.
fn insert<S: Station>(
    session: &mut Session<'_, S>,
    (is_ipv6, is_tcp): (bool, bool),
    request: ChecksumOffload,
    (len, count): (usize, usize),
) -> Result<(), Stop> {
    let packet = packet(session, is_ipv6, is_tcp);
    let cuts = pieces(len, count);
    let bytes = |(start, len): &(usize, usize)| session.payload.get(*start..start + len);
    let payload: Vec<u8> = cuts.iter().filter_map(bytes).flatten().copied().collect();
    let mut whole = packet.header(len);
    packet.fill_network(&mut whole);
    packet.fill_transport(&mut whole, &payload);
    let mut header = whole.clone();
    whole.extend_from_slice(&payload);
    if request.intersects(ChecksumOffload::TRANSPORT) {
        packet.seed(&mut header, Some(len));
    }
    if request.contains(ChecksumOffload::IPV4_HEADER) {
        header.get_mut(24..26).unwrap_or_default().fill(0);
    }
    session.post(0, &header, &cuts, packet.offload(request, 0))?;
    session.ring(0);
    let names: Vec<String> = request.iter_names().map(|(name, _)| spoken(name)).collect();
    let place = format!("request {}, payload of {len} bytes", names.join(" + "));
    let Some(got) = session.arrival(|frame| packet.is_of(frame))? else {
        return fault(
            format!("the packet did not arrive within {ARRIVAL:?}"),
            place,
            "if frames without a request arrive (test gather), the offload is at fault",
        );
    };
    let advice = "switch checksum offload off for this device (configuration `checksum_offload`), \
                  and report it";
    if let Err(what) = packet.verify(&got) {
        return fault(what, place, advice);
    }
    match difference(&whole, &got) {
        None => Ok(()),
        Some((_, what)) => fault(format!("the packet arrived changed: {what}"), place, advice),
    }
}

/// What the device says of good and of wrong checksums.
pub(super) fn receive<S: Station>(station: &mut S) -> Checked {
    let setup = setup(station)?;
    with(station, &setup, |session| {
        let offered = session.capabilities().rx_checksum;
        if offered.is_empty() {
            return not_run("the device does not promise to look at received checksums");
        }
        let mut said = Vec::new();
        for (is_ipv6, is_tcp) in [(false, true), (false, false), (true, true), (true, false)] {
            let transport = packet(session, is_ipv6, is_tcp).transport_request();
            if offered.contains(transport) {
                judge(session, (is_ipv6, is_tcp), false)?;
                said.extend(transport.iter_names().map(|(name, _)| spoken(name)));
            }
        }
        if offered.contains(ChecksumOffload::IPV4_HEADER) {
            judge(session, (false, true), true)?;
            said.push(spoken("IPV4_HEADER"));
        }
        Ok(format!(
            "good and wrong ones told apart: {}",
            said.join(", ")
        ))
    })
}

/// Good packets must be said to be good, some of them at least; wrong ones never.
fn judge<S: Station>(
    session: &mut Session<'_, S>,
    kind: (bool, bool),
    network: bool,
) -> Result<(), Stop> {
    let name = match (network, kind) {
        (true, _) => "IPv4 header",
        (_, (false, true)) => "TCP over IPv4",
        (_, (false, false)) => "UDP over IPv4",
        (_, (true, true)) => "TCP over IPv6",
        (_, (true, false)) => "UDP over IPv6",
    };
    let advice = "do not rely on the device's verdict for received frames, and report it";
    let mut good = 0;
    for _ in 0..TRIES {
        let place = format!("a received packet with a right checksum, {name}");
        match verdict(session, kind, network, false, &place)? {
            Verdict::Good => good += 1,
            Verdict::Unknown => {}
            Verdict::Bad => return fault("the device calls it wrong", place, advice),
        }
        let place = format!("a received packet with a wrong checksum, {name}");
        if verdict(session, kind, network, true, &place)? == Verdict::Good {
            return fault("the device calls it good", place, advice);
        }
    }
    if good == 0 {
        let place = format!("received packets with right checksums, {name}");
        return fault("the device calls none of them good", place, advice);
    }
    Ok(())
}

/// What the device says of one packet.
fn verdict<S: Station>(
    session: &mut Session<'_, S>,
    (is_ipv6, is_tcp): (bool, bool),
    network: bool,
    wrong: bool,
    place: &str,
) -> Result<Verdict, Stop> {
    let mut packet = packet(session, is_ipv6, is_tcp);
    if session.route == Route::Peer {
        core::mem::swap(&mut packet.source, &mut packet.destination);
    }
    // In one piece in a header's buffer, where the device sends it itself.
    let payload: Vec<u8> = session.payload.iter().take(101).copied().collect();
    let mut frame = packet.header(payload.len());
    packet.fill_network(&mut frame);
    packet.fill_transport(&mut frame, &payload);
    frame.extend_from_slice(&payload);
    if wrong {
        packet.spoil(&mut frame, network);
    }
    if session.route == Route::Peer {
        session.peer_sends(&frame)?;
    } else {
        session.post(0, &frame, &[], pagewire_hal::Offload::NONE)?;
        session.ring(0);
    }
    let Some(got) = session.reception(|bytes| packet.is_of(bytes))? else {
        return fault(
            format!("the device did not receive it within {ARRIVAL:?}"),
            place,
            "see the counters in the log",
        );
    };
    let RxChecksum {
        ipv4_header,
        transport,
    } = got.checksum;
    Ok(if network { ipv4_header } else { transport })
}
