//! How much the device moves.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use pagewire_hal::{Nic, Offload};

use super::{by, setup};
use crate::selftest::outcome::{Checked, Stop, fault};
use crate::selftest::session::{Route, Session, with};
use crate::selftest::station::Station;
use crate::selftest::traffic::{ARRIVAL, pieces, plain_header, sequence_of};

/// Frames in each direction.
const FRAMES: u32 = 2000;
/// Frames under way at once, unless the peer has room for fewer.
const WINDOW: u32 = 32;

/// Frames out, and in if there is a peer.
pub(super) fn run<S: Station>(station: &mut S) -> Checked {
    let setup = setup(station)?;
    with(station, &setup, |session| {
        let out = direction(session, true)?;
        if session.route != Route::Peer {
            return Ok(format!("{out} {}", by(session.route)));
        }
        let back = direction(session, false)?;
        Ok(format!("{out} out, {back} in"))
    })
}

/// Moves frames one way, never more than a window of them at once; the rate in words.
fn direction<S: Station>(session: &mut Session<'_, S>, out: bool) -> Result<String, Stop> {
    let len = session.capabilities().max_frame_len.min(1514) as usize;
    let (own, far) = (session.nic.mac_address(), session.far_address());
    let (to, from) = if out { (far, own) } else { (own, far) };
    let first = session.sequence + 1;
    session.sequence += FRAMES;
    session.arrived.clear();
    session.received.clear();
    let mut frame = plain_header(to, from, 0);
    frame.resize(len, 0x77);
    let cuts = pieces(len - plain_header(to, from, 0).len(), 1);
    let window = WINDOW.min(session.peer_room());
    let start = session.now();
    let (mut sent, mut come, mut last_news) = (0, 0, start);
    let mut there = alloc::vec![false; FRAMES as usize];
    while come < FRAMES {
        while sent < FRAMES && sent - come < window {
            let header = plain_header(to, from, first + sent);
            if out {
                session.post(0, &header, &cuts, Offload::NONE)?;
            } else {
                frame.splice(..header.len(), header);
                session.peer_sends(&frame)?;
            }
            sent += 1;
        }
        session.ring(0);
        session.pump(Duration::from_micros(10))?;
        let news = take(session, out, to, from, len);
        for sequence in news {
            let index = sequence
                .checked_sub(first)
                .map_or(usize::MAX, |n| n as usize);
            if let Some(place) = there.get_mut(index)
                && !*place
            {
                *place = true;
                come += 1;
                last_news = session.now();
            }
        }
        let quiet = session.now().saturating_since(last_news);
        if quiet > ARRIVAL || session.station.is_cancelled() {
            return lost(&there, sent, out);
        }
    }
    let elapsed = session.now().saturating_since(start);
    let bits = u64::from(FRAMES) * len as u64 * 8;
    let rate = bits.saturating_mul(1000) / (elapsed.as_nanos() as u64).max(1);
    Ok(format!("{FRAMES} frames of {len} bytes at {rate} Mbit/s"))
}

/// The numbers of the frames that have come, of the right length.
fn take<S: Station>(
    session: &mut Session<'_, S>,
    out: bool,
    to: pagewire_hal::MacAddress,
    from: pagewire_hal::MacAddress,
    len: usize,
) -> Vec<u32> {
    let number = |frame: &[u8]| sequence_of(frame, to, from).filter(|_| frame.len() == len);
    let come = match out {
        true => session
            .arrived
            .iter()
            .filter_map(|frame| number(frame))
            .collect(),
        false => session
            .received
            .iter()
            .filter_map(|got| number(&got.bytes))
            .collect(),
    };
    session.arrived.clear();
    session.received.clear();
    come
}

fn lost<T>(there: &[bool], sent: u32, out: bool) -> Result<T, Stop> {
    let sent = sent as usize;
    let missing: Vec<usize> = (0..sent)
        .filter(|n| there.get(*n) == Some(&false))
        .collect();
    let first = missing.first().copied().unwrap_or(0) + 1;
    let count = missing.len();
    let way = if out { "to the peer" } else { "from the peer" };
    fault(
        format!("{count} of {sent} frames were lost"),
        format!("the way {way}, first frame {first}"),
        "see the counters of both ends; no more than 32 frames were under way at once",
    )
}
