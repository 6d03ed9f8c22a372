//! Frames in fragments: through the MAC, and to the other end.

use alloc::format;
use alloc::string::String;

use super::{by, setup};
use crate::selftest::outcome::{Checked, Fault, Stop, not_run};
use crate::selftest::session::{Route, Setup, with};
use crate::selftest::station::Station;

/// Lengths of frames in the test of the loopback.
const LENGTHS: [usize; 6] = [60, 61, 128, 300, 1000, 1514];

/// Frames of several lengths come back through the MAC.
pub(super) fn loopback<S: Station>(station: &mut S) -> Checked {
    let setup = Setup {
        config: station.config(),
        route: Route::Loopback,
        interrupts: false,
    };
    with(station, &setup, |session| {
        for len in LENGTHS {
            session.there(0, len, 2).map_err(explain)?;
        }
        session.set_loopback(false)?;
        Ok(format!("{} frames came back as sent", LENGTHS.len()))
    })
}

/// Loopback is for tests alone: what it means that it fails.
fn explain(stop: Stop) -> Stop {
    match stop {
        Stop::Fault(fault) => Stop::Fault(Fault {
            advice:
                "if the other tests pass with a peer the device can be used; nobody has seen this \
                     mode on hardware: report it"
                    .into(),
            ..fault
        }),
        other => other,
    }
}

/// Frames of each number of fragments, from one to the most, arrive as sent.
pub(super) fn run<S: Station>(station: &mut S) -> Checked {
    let setup = setup(station)?;
    with(station, &setup, |session| {
        let limits = session.capabilities();
        let most = session.pairs.first().map_or(0, |p| p.port.max_fragments());
        // A byte for each fragment behind the header at least.
        let room = (limits.max_frame_len as usize).saturating_sub(22);
        let most = most.min(room + 1);
        if most == 0 {
            return not_run("the device takes no frame");
        }
        for count in 1..=most {
            // Short and long frames by turns; a frame in one fragment is a header buffer.
            let len = match count {
                1 => 120,
                count if count % 2 == 0 => limits.max_frame_len as usize,
                count => (22 + 3 * count).max(60),
            };
            session.there(0, len, count)?;
        }
        let advertised = usize::from(limits.max_fragments);
        let rest = match advertised > most {
            true => format!(" ({advertised} are advertised: more than a frame of the test has)"),
            false => String::new(),
        };
        Ok(format!(
            "frames of 1 to {most} fragments{rest} arrived as sent, {}",
            by(session.route)
        ))
    })
}
