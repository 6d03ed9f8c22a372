//! Resets in flight.

use alloc::format;

use pagewire_hal::{Nic, Offload};

use super::setup;
use crate::selftest::outcome::{Checked, Stop, fault};
use crate::selftest::session::{Session, with};
use crate::selftest::station::Station;
use crate::selftest::traffic::{pieces, plain_header};

/// Resets.
const ROUNDS: usize = 3;
/// Frames that are under way when a reset begins.
const IN_FLIGHT: usize = 8;

/// Several resets while frames are under way: each ends, all is given back, and frames go both
/// ways again.
pub(super) fn run<S: Station>(station: &mut S) -> Checked {
    let setup = setup(station)?;
    with(station, &setup, |session| {
        session.both_ways("before the first reset")?;
        for round in 1..=ROUNDS {
            burst(session)?;
            session.reset()?;
            let out = session.pairs.iter().map(|pair| pair.port.outstanding());
            let out: usize = out.sum();
            if out > 0 {
                return fault(
                    format!("{out} frames were not given back"),
                    format!("reset {round} of {ROUNDS}"),
                    "a fault of the driver: report it",
                );
            }
            session.both_ways(&format!("after reset {round} of {ROUNDS}"))?;
        }
        Ok(format!(
            "{ROUNDS} resets with up to {IN_FLIGHT} frames under way; frames go both ways after each"
        ))
    })
}

/// Posts frames and does not wait for them.
fn burst<S: Station>(session: &mut Session<'_, S>) -> Result<(), Stop> {
    for _ in 0..IN_FLIGHT {
        let sequence = session.next_sequence();
        let (to, from) = (session.far_address(), session.nic.mac_address());
        let header = plain_header(to, from, sequence);
        session.post(0, &header, &pieces(1000, 2), Offload::NONE)?;
    }
    session.ring(0);
    Ok(())
}
