//! Interrupts: each vector by its cause register, where there is one, and those of the queues by
//! traffic.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use pagewire_hal::{Causes, Nic, Offload};

use super::{needs_peer, setup};
use crate::selftest::outcome::{Checked, Stop, fault};
use crate::selftest::packet::{Packet, SERVICE};
use crate::selftest::session::{Route, Session, Setup, with};
use crate::selftest::station::Station;
use crate::{AnyNic, MAX_QUEUE_PAIRS};

/// How long a vector may take to fire.
const LIMIT: Duration = Duration::from_secs(10);
/// Ports that are tried for one whose flow comes to a queue.
const PORTS: core::ops::Range<u16> = 20_000..30_000;
/// Frames that a vector gets to fire for: devices may leave out an interrupt for what was seen
/// already.
const FRAMES: u32 = 80;
/// How often a vector is fired at most: the driver's own handling may swallow one that comes at the
/// same moment.
const TRIES: u32 = 10;

/// Every vector, by all means that there are.
pub(super) fn run<S: Station>(station: &mut S) -> Checked {
    let mut setup = match setup(station) {
        Ok(setup) => setup,
        // Of a cause register no peer is needed; whether there is one the open device tells.
        Err(Stop::NotRun(_)) => Setup {
            config: station.config(),
            route: Route::Nowhere,
            interrupts: true,
        },
        Err(other) => return Err(other),
    };
    setup.config.queue_pairs = MAX_QUEUE_PAIRS;
    setup.config.tx_descriptors = 64;
    setup.config.rx_descriptors = 64;
    setup.interrupts = true;
    with(station, &setup, |session| {
        let by_register = !matches!(session.nic, AnyNic::Virtio(_));
        if by_register {
            by_cause_register(session)?;
        }
        if session.route == Route::Nowhere {
            if by_register {
                return Ok(format!(
                    "{} vectors, by the cause register",
                    session.vectors
                ));
            }
            return Err(Stop::NotRun(needs_peer(session.station)));
        }
        let seen = by_traffic(session)?;
        let rest = session.vectors.saturating_sub(1);
        let by_link = !by_register && provoke_link(session)?;
        let count = session.vectors;
        if by_register {
            return Ok(format!(
                "{count} vectors by the cause register, and {seen} by traffic"
            ));
        }
        Ok(match by_link {
            true => format!("{seen} vectors by traffic, vector {rest} by the link"),
            false => format!(
                "{seen} of {count} vectors by traffic; vector {rest}, of the configuration, \
                 cannot be provoked here"
            ),
        })
    })
}

fn silent<T>(vector: u16, how: &str) -> Result<T, Stop> {
    fault(
        format!("interrupt vector {vector} stayed silent for {LIMIT:?}"),
        format!("vector {vector}, provoked by {how}"),
        "see /proc/interrupts for the vector, and whether interrupt remapping is on; the driver \
         can poll instead",
    )
}

/// Each vector, one after the other.
fn by_cause_register<S: Station>(session: &mut Session<'_, S>) -> Result<(), Stop> {
    for vector in 0..session.vectors {
        session.pump(Duration::from_micros(100))?;
        session.watch.take_fired();
        let mut fired = 0u64;
        for _ in 0..TRIES {
            if session.nic.fire_vector(vector).is_err() {
                return Ok(());
            }
            let seen = session.until(LIMIT / TRIES, |session| {
                fired |= session.watch.take_fired();
                (fired >> vector & 1 != 0).then_some(())
            })?;
            if seen.is_some() {
                break;
            }
        }
        if fired >> vector & 1 == 0 {
            return silent(vector, "the register that sets causes");
        }
    }
    Ok(())
}

/// A frame out and one in on each pair of queues: both interrupt. The number of vectors that fired.
fn by_traffic<S: Station>(session: &mut Session<'_, S>) -> Result<u32, Stop> {
    let mut all = 0u64;
    for pair in 0..session.pairs.len() {
        let flow = flow_to(session, pair);
        let own = own_vectors(session, pair);
        let mut fired = 0u64;
        let mut found = Causes::empty();
        for _ in 0..FRAMES {
            session.causes = Causes::empty();
            exchange(session, pair, &flow)?;
            session.until(LIMIT / FRAMES, |session| {
                fired |= session.watch.take_fired();
                found |= session.causes;
                own.iter()
                    .all(|vector| fired >> vector & 1 != 0)
                    .then_some(())
            })?;
            if own.iter().all(|vector| fired >> vector & 1 != 0) {
                break;
            }
        }
        if let Some(vector) = own.iter().find(|vector| fired >> **vector & 1 == 0) {
            return silent(*vector, &format!("traffic of queue pair {pair}"));
        }
        let wanted = Causes::TRANSMIT | Causes::RECEIVE;
        if !found.contains(wanted) {
            let missing: Vec<String> = (wanted - found)
                .iter_names()
                .map(|(name, _)| name.to_lowercase())
                .collect();
            return fault(
                format!("no {} interrupt was reported", missing.join(" or ")),
                format!("queue pair {pair}"),
                "the vectors fire, and the driver reads another cause in them: report it",
            );
        }
        all |= fired;
    }
    Ok(all.count_ones())
}

/// The vectors that belong to a pair: receive and transmit in turns where there are enough (the
/// documentation of all three drivers says so), else only the first of all is known.
fn own_vectors<S: Station>(session: &Session<'_, S>, pair: usize) -> Vec<u16> {
    let pairs = session.pairs.len() as u16;
    let pair = pair as u16;
    if session.vectors > 2 * pairs {
        Vec::from([2 * pair, 2 * pair + 1])
    } else if session.vectors > pairs {
        Vec::from([pair])
    } else {
        Vec::from([0])
    }
}

/// A flow of host 1, whose port brings the reply to queue pair `pair`, as far as that can be said.
fn flow_to<S: Station>(session: &mut Session<'_, S>, pair: usize) -> Packet {
    let [near, far] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
    let loops = session.route == Route::Loopback;
    let comes_here = |port: u16| {
        let (host, service) = (
            SocketAddr::from((near, port)),
            SocketAddr::from((far, SERVICE)),
        );
        // What comes back through the MAC goes the same way as it went out.
        let (source, destination) = if loops {
            (host, service)
        } else {
            (service, host)
        };
        session
            .nic
            .receive_queue(source, destination)
            .is_none_or(|queue| usize::from(queue) == pair)
    };
    let port = PORTS.into_iter().find(|port| comes_here(*port));
    let is_virtio = matches!(session.nic, AnyNic::Virtio(_));
    let chosen = if is_virtio { pair as u16 } else { 0 };
    Packet {
        destination: session.far_address(),
        source: session.nic.mac_address(),
        is_ipv6: false,
        is_tcp: true,
        is_reply: false,
        // A device that chooses by what was sent last on a flow gets one of its own for each pair.
        port: port.unwrap_or(PORTS.start) + chosen,
        sequence: 1,
    }
}

/// A packet of the flow out on the pair, and the reply in.
fn exchange<S: Station>(
    session: &mut Session<'_, S>,
    pair: usize,
    flow: &Packet,
) -> Result<(), Stop> {
    let payload: Vec<u8> = session.payload.iter().take(64).copied().collect();
    let whole = |packet: &Packet| {
        let mut frame = packet.header(payload.len());
        packet.fill_network(&mut frame);
        packet.fill_transport(&mut frame, &payload);
        frame.extend_from_slice(&payload);
        frame
    };
    session.post(pair, &whole(flow), &[], Offload::NONE)?;
    session.ring(pair);
    if session.arrival(|frame| flow.is_of(frame))?.is_none() {
        return fault(
            "a packet did not arrive",
            format!("queue pair {pair}"),
            "see the test gather: if that passes, this queue does not send",
        );
    }
    if session.route == Route::Peer {
        let reply = Packet {
            destination: flow.source,
            source: flow.destination,
            is_reply: true,
            ..*flow
        };
        session.peer_sends(&whole(&reply))?;
        if session.reception(|frame| reply.is_of(frame))?.is_none() {
            return fault(
                "a packet from the peer was not received",
                format!("queue pair {pair}"),
                "see the test reset: if that passes, this queue does not receive",
            );
        }
    }
    Ok(())
}

/// Cuts the wire and mends it, if the peer can; the last vector must fire then.
fn provoke_link<S: Station>(session: &mut Session<'_, S>) -> Result<bool, Stop> {
    let rest = session.vectors.saturating_sub(1);
    session.watch.take_fired();
    let cut = |session: &mut Session<'_, S>, on| {
        let peer = session.station.peer();
        peer.is_some_and(|peer| peer.set_carrier(on))
    };
    if !cut(session, false) {
        return Ok(false);
    }
    let seen = session.until(LIMIT, |session| {
        (session.watch.take_fired() >> rest & 1 != 0).then_some(())
    });
    cut(session, true);
    match seen? {
        Some(()) => Ok(true),
        None => silent(rest, "a change of the link"),
    }
}
