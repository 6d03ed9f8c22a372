//! TCP segmentation: what the device makes of one long frame.

use alloc::format;
use alloc::vec::Vec;

use pagewire_hal::{ChecksumOffload, Nic, Segmentation};

use super::{by, setup};
use crate::selftest::outcome::{Checked, Stop, fault, not_run};
use crate::selftest::packet::{ETHERNET, Packet};
use crate::selftest::session::{Session, with};
use crate::selftest::station::Station;
use crate::selftest::traffic::{ARRIVAL, pieces};

/// Bytes of payload in a segment. Odd, so that segments begin at odd places too.
const SEGMENT: usize = 1201;
/// Payloads of requests: of one segment, of a few, of many.
const PAYLOADS: [usize; 3] = [SEGMENT, 4 * SEGMENT + 37, 48_000];
/// TCP's flags FIN and PSH, which belong to the last segment alone.
const LAST_ONLY: u8 = 0x09;

/// Requests of several lengths, over both versions of IP as far as the device offers them.
pub(super) fn run<S: Station>(station: &mut S) -> Checked {
    let setup = setup(station)?;
    with(station, &setup, |session| {
        let limits = session.capabilities();
        let Some(offered) = limits.segmentation else {
            return not_run("segmentation is not offered for this device");
        };
        // Frames of the tests are of pieces of 3000 bytes at most, behind a header.
        let most = usize::from(limits.max_fragments).saturating_sub(1).min(31) * 3000;
        let most = most.min(offered.max_payload_len as usize);
        // Segments come at once.
        let most = most.min((session.peer_room() as usize).saturating_mul(SEGMENT));
        let mut versions = Vec::new();
        let mut segments = 0;
        for (is_ipv6, is_offered) in [(false, offered.ipv4), (true, offered.ipv6)] {
            if !is_offered {
                continue;
            }
            for len in PAYLOADS {
                segments += request(session, offered, is_ipv6, len.min(most))?;
            }
            versions.push(if is_ipv6 { "IPv6" } else { "IPv4" });
        }
        Ok(format!(
            "{segments} segments over {} {}, summed anew",
            versions.join(" and "),
            by(session.route)
        ))
    })
}

/// One request; the number of segments that arrived.
fn request<S: Station>(
    session: &mut Session<'_, S>,
    limits: Segmentation,
    is_ipv6: bool,
    len: usize,
) -> Result<usize, Stop> {
    let packet = Packet {
        destination: session.far_address(),
        source: session.nic.mac_address(),
        is_ipv6,
        is_tcp: true,
        is_reply: false,
        port: 40_000 + (session.next_sequence() % 20_000) as u16,
        // So that the number of a later segment overflows.
        sequence: u32::MAX - 2000,
    };
    let cuts = pieces(len, len.div_ceil(3000));
    let mut header = packet.header(len);
    let mut checksum = packet.transport_request();
    packet.seed(&mut header, limits.seed_has_length.then_some(len));
    if !is_ipv6 {
        packet.fill_network(&mut header);
        let offered = session.capabilities().tx_checksum;
        if offered.contains(ChecksumOffload::IPV4_HEADER) {
            checksum |= ChecksumOffload::IPV4_HEADER;
            header.get_mut(24..26).unwrap_or_default().fill(0);
        }
    }
    if !limits.seed_has_length {
        packet.clear_lengths(&mut header);
    }
    let sent = session.post(0, &header, &cuts, packet.offload(checksum, SEGMENT as u16))?;
    session.ring(0);
    let payload = sent.get(header.len()..).unwrap_or_default();
    let count = len.div_ceil(SEGMENT);
    let place = |number: usize| {
        let version = if is_ipv6 { 6 } else { 4 };
        format!("segment {number} of {count}, a request of {len} bytes over IPv{version}")
    };
    for (number, expected) in payload.chunks(SEGMENT).enumerate() {
        let Some(got) = next(session, &packet)? else {
            return fault(
                format!("{number} of {count} segments arrived within {ARRIVAL:?}"),
                place(number + 1),
                "segmentation by this device cannot be used: report it",
            );
        };
        let start = packet.sequence.wrapping_add((number * SEGMENT) as u32);
        if let Err(what) = compare(&packet, &got, start, expected, number + 1 == count) {
            return fault(
                what,
                place(number + 1),
                "segmentation by this device cannot be used: report it",
            );
        }
    }
    Ok(count)
}

/// The segment that arrived first.
fn next<S: Station>(
    session: &mut Session<'_, S>,
    packet: &Packet,
) -> Result<Option<Vec<u8>>, Stop> {
    session.until(ARRIVAL, |session| {
        let at = session
            .arrived
            .iter()
            .position(|frame| packet.is_of(frame))?;
        Some(session.arrived.remove(at))
    })
}

/// What is wrong with a segment that begins with byte `start` and has `expected` as its payload.
fn compare(
    packet: &Packet,
    got: &[u8],
    start: u32,
    expected: &[u8],
    is_last: bool,
) -> Result<(), alloc::string::String> {
    let transport = ETHERNET + packet.network_len();
    let sequence = got
        .get(transport + 4..)
        .and_then(|rest| rest.first_chunk().copied())
        .map(u32::from_be_bytes);
    if sequence != Some(start) {
        let found = sequence.unwrap_or(0);
        return Err(format!("its sequence number is {found} instead of {start}"));
    }
    let flags = got.get(transport + 13).copied().unwrap_or(0);
    let allowed = if is_last { 0x08 } else { 0 };
    if flags & LAST_ONLY != allowed {
        return Err(format!(
            "its TCP flags are {flags:#04x}: PSH belongs to the last segment"
        ));
    }
    let at = ETHERNET + if packet.is_ipv6 { 4 } else { 2 };
    let length = got.get(at..).and_then(|rest| rest.first_chunk().copied());
    let length = length.map_or(0, |bytes| usize::from(u16::from_be_bytes(bytes)));
    let headers = packet.header_len() - ETHERNET - if packet.is_ipv6 { 40 } else { 0 };
    if length != headers + expected.len() {
        return Err(format!(
            "its IP length is {length} instead of {}",
            headers + expected.len()
        ));
    }
    packet.verify(got)?;
    let payload = got.get(packet.header_len()..).unwrap_or_default();
    if payload.get(..expected.len()) != Some(expected) {
        let differs = payload.iter().zip(expected).position(|(a, b)| a != b);
        let at = differs.unwrap_or(payload.len());
        return Err(format!("byte {at} of its payload is not what was sent"));
    }
    Ok(())
}
