//! Wires by name: what a NIC in software is plugged into.

use std::fmt;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use pagewire_models::Wire;
use pagewire_models::wire::{Recorder, Recording, SharedWire, Silent, Tally, TallyHandle, Tap};

use crate::error::{Failure, shown};

/// What a NIC is plugged into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum WireName {
    Tap(String),
    Pair(PathBuf),
    Pcap(PathBuf),
    None,
}

impl FromStr for WireName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("tap", name)) if !name.is_empty() => Ok(Self::Tap(name.into())),
            Some(("pair", place)) if !place.is_empty() => Ok(Self::Pair(place.into())),
            Some(("pcap", file)) if !file.is_empty() => Ok(Self::Pcap(file.into())),
            None if text == "none" => Ok(Self::None),
            _ => Err("wires are tap:NAME, pair:DIRECTORY, pcap:FILE and none".into()),
        }
    }
}

impl fmt::Display for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tap(name) => write!(f, "tap:{name}"),
            Self::Pair(place) => write!(f, "pair:{}", shown(place)),
            Self::Pcap(file) => write!(f, "pcap:{}", shown(file)),
            Self::None => f.write_str("none"),
        }
    }
}

/// A wire, and what is left to us when the device has it.
pub(crate) struct Plugged {
    pub(crate) wire: Box<dyn Wire>,
    pub(crate) tally: TallyHandle,
    /// Readable when a frame has arrived.
    pub(crate) wake: Vec<OwnedFd>,
    pub(crate) recording: Option<Recording<BufWriter<File>>>,
}

/// Makes the wire. With `patience` a frame waits so long for an end of a pair that is slow.
pub(crate) fn plug(name: &WireName, patience: Option<Duration>) -> Result<Plugged, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("no wire: {error}"));
    let copy = |file: &dyn AsFd| file.as_fd().try_clone_to_owned().map_err(failed);
    Ok(match name {
        WireName::Tap(name) => {
            let tap = Tap::open(name).map_err(failed)?;
            let wake = copy(&tap)?;
            plugged(tap, vec![wake])
        }
        WireName::Pair(directory) => {
            let wire = SharedWire::join(directory);
            let mut wire = wire.map_err(|error| in_place(directory, &error))?;
            if let Some(patience) = patience {
                wire.set_patience(patience);
            }
            let wake = copy(&wire)?;
            plugged(wire, vec![wake])
        }
        WireName::Pcap(path) => {
            let file = File::create(path).map_err(|error| in_place(path, &error))?;
            let recorder = Recorder::new(Silent::new(), BufWriter::new(file)).map_err(failed)?;
            let recording = recorder.recording();
            let mut plugged = plugged(recorder, Vec::new());
            plugged.recording = Some(recording);
            plugged
        }
        WireName::None => plugged(Silent::unplugged(), Vec::new()),
    })
}

fn in_place(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!("no wire: {}: {error}", shown(path)))
}

fn plugged(wire: impl Wire + 'static, wake: Vec<OwnedFd>) -> Plugged {
    let wire = Tally::new(wire);
    Plugged {
        tally: wire.handle(),
        wire: Box::new(wire),
        wake,
        recording: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_are_read_by_their_names() {
        assert_eq!("none".parse(), Ok(WireName::None));
        assert_eq!("tap:t0".parse(), Ok(WireName::Tap("t0".into())));
        assert_eq!("pair:/a:b".parse(), Ok(WireName::Pair("/a:b".into())));
        assert_eq!("pcap:x".parse(), Ok(WireName::Pcap("x".into())));
        for bad in ["", "tap", "tap:", "none:", "socket:x"] {
            let error = bad.parse::<WireName>().unwrap_err();
            assert!(error.contains("pair:DIRECTORY"), "{error}");
        }
    }
}
