//! Memory that is not mapped for the device: the IOMMU refuses it.

use alloc::boxed::Box;
use alloc::format;
use core::time::Duration;

use pagewire_hal::{Nic, Offload};

use super::setup;
use crate::selftest::outcome::{Checked, Stop, fault, not_run};
use crate::selftest::session::{PAYLOAD, Session, with, with_watch};
use crate::selftest::station::{Station, Stray};
use crate::selftest::traffic::plain_header;

/// What lies in the memory that must not be reached: no frame of the tests has it twice in a row.
const SECRET: [u8; 8] = [0xC3, 0x96, 0x5A, 0xE7, 0x1D, 0xB8, 0x42, 0x7F];
/// Receive buffers in the test of writing.
const BUFFERS: u16 = 64;
/// The least that the memory of so many receive buffers has, and that of no ring.
const LEAST: usize = BUFFERS as usize * 1024;
/// Bytes of memory for it.
const ROOM: usize = 1 << 20;
/// How long the device gets to do what it must not.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes sent from memory that is not there.
const SENT: usize = 512;

const ADVICE: &str = "the device can reach any memory of this machine: give it to no program before \
                      its IOMMU group and the kernel's parameters (intel_iommu=on, no \
                      iommu=pt for this device) are right";

/// A frame whose second fragment is not mapped any more: its bytes must not arrive.
pub(super) fn read<S: Station>(station: &mut S) -> Checked {
    let setup = setup(station)?;
    with(station, &setup, |session| {
        session.both_ways("before the test")?;
        let stray = stray(session.station, PAYLOAD)?;
        // SAFETY: `Stray` promises that nothing is mapped there while it lives. It lives until the
        // device has been reset, below, or, if that fails, for ever.
        unsafe { session.watch.divert(stray.address(), PAYLOAD, PAYLOAD) };
        let lent = session.lend_anew(0x11);
        let diverted = session.watch.end_divert();
        let result = lent.and_then(|()| match diverted {
            0 => not_run("the memory could not be put where nothing is mapped"),
            _ => steal(session),
        });
        if let Err(stop) = session.reset() {
            core::mem::forget(stray);
            return Err(stop);
        }
        drop(stray);
        result?;
        // The memory to send from is still the other one: headers have to do.
        session.header_only("after the reset")?;
        Ok(
            "a frame from memory that is not mapped did not bring its bytes; after a reset the \
            device works"
                .into(),
        )
    })
}

impl<S: Station> Session<'_, S> {
    /// A frame each way without a payload.
    fn header_only(&mut self, when: &str) -> Result<(), Stop> {
        let result = self.there(0, 120, 1).and_then(|()| self.back(120));
        result.map_err(|stop| match stop {
            Stop::Fault(mut fault) => {
                fault.place = format!("{}, {when}", fault.place);
                Stop::Fault(fault)
            }
            other => other,
        })
    }
}

/// Sends what must not be sent, and looks at what arrives.
fn steal<S: Station>(session: &mut Session<'_, S>) -> Result<(), Stop> {
    let sequence = session.next_sequence();
    let (to, from) = (session.far_address(), session.nic.mac_address());
    let header = plain_header(to, from, sequence);
    session.post(0, &header, &[(0, SENT)], Offload::NONE)?;
    session.ring(0);
    let stolen = session.until(PATIENCE, |session| {
        session.arrived.iter().find_map(|frame| position(frame))
    });
    match stolen {
        Ok(Some(at)) => fault(
            format!("memory that is not mapped for the device was sent: byte {at} of the frame"),
            "DMA read, a frame's second fragment",
            ADVICE,
        ),
        // That the queue does not like it is as it should be.
        Ok(None) | Err(Stop::Fault(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

/// Where the secret is in a frame.
fn position(frame: &[u8]) -> Option<usize> {
    frame
        .windows(SECRET.len())
        .position(|bytes| bytes == SECRET)
}

fn stray<S: Station>(station: &mut S, len: usize) -> Result<Box<dyn Stray>, Stop> {
    let stray = station.stray(len, &SECRET);
    let stray = stray.or_else(|why| not_run(format!("no memory to try it with: {why}")))?;
    if stray.len() < len {
        return not_run("the memory to try it with is too small");
    }
    Ok(stray)
}

/// Receive buffers that are not mapped any more: what is there must not change.
pub(super) fn write<S: Station>(station: &mut S) -> Checked {
    let mut setup = setup(station)?;
    setup.config.rx_descriptors = BUFFERS;
    setup.config.tx_descriptors = 32;
    setup.config.queue_pairs = 1;
    let mut canary = None;
    let tried = with_watch(
        station,
        &setup,
        |station, watch| {
            let stray = stray(station, ROOM)?;
            // SAFETY: `Stray` promises that nothing is mapped there while it lives; it lives until
            // the device has been stopped, or, if that fails, for ever.
            unsafe { watch.divert(stray.address(), LEAST, ROOM) };
            canary = Some(stray);
            Ok(())
        },
        |session| {
            if session.watch.end_divert() == 0 {
                return not_run(
                    "the driver's receive buffers could not be put where nothing is mapped",
                );
            }
            tempt(session)
        },
    );
    let Some(stray) = canary else {
        return tried.map(|()| "nothing was tried".into());
    };
    let bytes = stray.bytes();
    let changed = bytes
        .iter()
        .zip(SECRET.iter().cycle())
        .position(|(a, b)| a != b);
    match tried {
        Ok(()) => drop(stray),
        Err(stop) => {
            // Whether the device has stopped is not known.
            core::mem::forget(stray);
            if changed.is_none() {
                return Err(stop);
            }
        }
    }
    if let Some(at) = changed {
        return fault(
            format!("memory that is not mapped for the device was written: byte {at} of it"),
            "DMA write, a receive buffer",
            ADVICE,
        );
    }
    let setup = self::setup(station)?;
    with(station, &setup, |session| {
        session.both_ways("after the device was opened anew")?;
        Ok(
            "receive buffers that are not mapped stayed as they were; opened anew the device works"
                .into(),
        )
    })
}

/// Lets frames come to the device, whatever it does with them.
fn tempt<S: Station>(session: &mut Session<'_, S>) -> Result<(), Stop> {
    for _ in 0..4 {
        for result in [
            session.offer(),
            session.until(PATIENCE / 4, |_| None::<()>).map(|_| ()),
        ] {
            match result {
                Ok(()) | Err(Stop::Fault(_)) => {}
                Err(other) => return Err(other),
            }
        }
    }
    Ok(())
}

impl<S: Station> Session<'_, S> {
    /// Sends a frame to the device, from the peer or from itself.
    fn offer(&mut self) -> Result<(), Stop> {
        let sequence = self.next_sequence();
        let (own, far) = (self.nic.mac_address(), self.far_address());
        let mut frame = plain_header(own, far, sequence);
        frame.resize(120, 0x3C);
        if self.route == crate::selftest::session::Route::Peer {
            return self.peer_sends(&frame);
        }
        self.post(0, &frame, &[], Offload::NONE)?;
        self.ring(0);
        Ok(())
    }
}
