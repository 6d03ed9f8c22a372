//! The link: up, with a speed, and following the wire.

use alloc::format;
use core::time::Duration;

use pagewire_hal::{LinkState, Nic};

use crate::selftest::outcome::{Checked, Stop, fault};
use crate::selftest::session::{Route, Session, Setup, with};
use crate::selftest::station::Station;

/// How long a link may take to come up.
const UP_LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to go down.
const DOWN_LIMIT: Duration = Duration::from_secs(3);

/// The link comes up; and where the wire can be cut, it goes down and up with that.
pub(super) fn run<S: Station>(station: &mut S) -> Checked {
    let setup = Setup {
        config: station.config(),
        route: Route::Nowhere,
        interrupts: false,
    };
    with(station, &setup, |session| {
        let Some(link) = wait(session, true, UP_LIMIT)? else {
            return fault(
                format!("the link is not up {UP_LIMIT:?} after the device was opened"),
                "the link",
                "plug a cable in whose other end is up; for SFP+ see whether the module is known",
            );
        };
        if cut(session, false) {
            let down = wait(session, false, DOWN_LIMIT);
            cut(session, true);
            if down?.is_none() {
                return fault(
                    format!("the link stays up {DOWN_LIMIT:?} after the wire was cut"),
                    "the link",
                    "link changes cannot be relied on: report it",
                );
            }
            if wait(session, true, UP_LIMIT)?.is_none() {
                return fault(
                    format!("the link is not up {UP_LIMIT:?} after the wire was mended"),
                    "the link",
                    "reset the device; if that helps, report it",
                );
            }
            return Ok(format!("{}, down and up with the wire", text(link)));
        }
        Ok(text(link))
    })
}

fn cut<S: Station>(session: &mut Session<'_, S>, on: bool) -> bool {
    session
        .station
        .peer()
        .is_some_and(|peer| peer.set_carrier(on))
}

fn wait<S: Station>(
    session: &mut Session<'_, S>,
    up: bool,
    limit: Duration,
) -> Result<Option<LinkState>, Stop> {
    session.until(limit, |session| {
        let link = session.nic.link();
        (link.up == up).then_some(link)
    })
}

fn text(link: LinkState) -> alloc::string::String {
    match (link.speed_mbps, link.full_duplex) {
        (0, _) => "up (the device does not tell its speed)".into(),
        (speed, true) => format!("up, {speed} Mbit/s, full duplex"),
        (speed, false) => format!("up, {speed} Mbit/s, half duplex"),
    }
}
