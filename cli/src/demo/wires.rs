//! The cable between the NIC and the peer: recorded and impaired as asked for.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pagewire::hal::Instant;
use pagewire_models::Wire;
use pagewire_models::wire::{Impaired, Impairment, Recorder, Recording};
use tempfile::NamedTempFile;

use super::args::Args;
use super::report::WireCounts;
use crate::error::{Failure, shown};

/// A wire of which the demo keeps a second handle, to read its counters at the end.
struct Shared<W>(Arc<Mutex<W>>);

impl<W> Clone for Shared<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<W: Wire> Shared<W> {
    fn new(wire: W) -> Self {
        Self(Arc::new(Mutex::new(wire)))
    }

    fn lock(&self) -> MutexGuard<'_, W> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Wire> Wire for Shared<W> {
    fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant) {
        self.lock().transmit(frame, now);
    }

    fn receive(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        self.lock().receive(frame, now)
    }

    fn carrier(&self) -> bool {
        self.lock().carrier()
    }
}

/// What lies between the NIC and the far end, and what is known of it.
#[derive(Default)]
pub(crate) struct Cable {
    impaired: Option<Shared<Impaired<Box<dyn Wire>>>>,
    recording: Option<(Recording<BufWriter<File>>, NamedTempFile, PathBuf)>,
}

impl Cable {
    /// Lays a cable to `far`; returns it and the end for the NIC.
    pub(crate) fn lay(far: Box<dyn Wire>, args: &Args) -> Result<(Self, Box<dyn Wire>), Failure> {
        let mut cable = Self::default();
        let mut end = far;
        if let Some(impairment) = impairment(args) {
            let shared = Shared::new(Impaired::new(end, args.seed, impairment, impairment));
            cable.impaired = Some(shared.clone());
            end = Box::new(shared);
        }
        if let Some(path) = &args.pcap {
            let refused = |error: std::io::Error| {
                Failure::usage(format!("cannot record to {}: {error}", shown(path)))
            };
            let path = &resolved(path, args.file.as_deref())?;
            // Under another name until it is whole: an interrupted demo leaves nothing.
            let file = temporary_beside(path).map_err(refused)?;
            let writer = BufWriter::new(file.as_file().try_clone().map_err(refused)?);
            let recorder = Recorder::new(end, writer).map_err(refused)?;
            cable.recording = Some((recorder.recording(), file, path.clone()));
            end = Box::new(recorder);
        }
        Ok((cable, end))
    }

    /// Whether it does anything that is asked for; without, it only lies there.
    pub(crate) fn is_wanted(args: &Args) -> bool {
        args.pcap.is_some() || impairment(args).is_some()
    }

    /// When the cable will deliver a frame that it holds back.
    pub(crate) fn next_event(&self, now: Instant) -> Option<Duration> {
        let due = self.impaired.as_ref()?.lock().next_due()?;
        Some(due.saturating_since(now))
    }

    /// What the cable did to frames.
    pub(crate) fn counts(&self) -> WireCounts {
        let Some(impaired) = &self.impaired else {
            return WireCounts::default();
        };
        let impaired = impaired.lock();
        let (to, from) = (impaired.transmit_counters(), impaired.receive_counters());
        WireCounts {
            lost: to.lost + from.lost,
            reordered: to.reordered + from.reordered,
            duplicated: to.duplicated + from.duplicated,
        }
    }

    /// Ends the recording and gives the file its name.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let Some((recording, file, path)) = self.recording.take() else {
            return Ok(());
        };
        let failed = |error: std::io::Error| {
            Failure::failed(format!(
                "the recording {} is not whole: {error}",
                shown(&path)
            ))
        };
        recording.finish().map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}

/// Where the recording goes: behind symbolic links, and never over what is no regular file (a
/// device would be replaced, not written) or is the input.
fn resolved(path: &Path, input: Option<&Path>) -> Result<PathBuf, Failure> {
    let refused = |why| {
        let text = format!("cannot record to {}: {why}", shown(path));
        Err(Failure::usage(text))
    };
    let Ok(place) = path.canonicalize() else {
        return Ok(path.to_owned()); // It does not exist yet.
    };
    if place.is_dir() {
        return refused("is a directory");
    }
    if !place.is_file() {
        return refused("it exists and is no regular file");
    }
    if input.is_some_and(|input| input.canonicalize().is_ok_and(|input| input == place)) {
        return refused("it is the file to send");
    }
    Ok(place)
}

fn temporary_beside(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    // With the permissions of any new file, and the system's own words when it refuses.
    tempfile::Builder::new()
        .prefix(".pagewire-")
        .make_in(folder.unwrap_or(Path::new(".")), |path| {
            File::create_new(path)
        })
}

/// How late a frame is that is reordered.
const LATE_FRAMES: u32 = 3;
const LATE: Duration = Duration::from_millis(2);

fn impairment(args: &Args) -> Option<Impairment> {
    let loss = args.loss / 100.0;
    let reordering = args.reorder.unwrap_or(args.loss) / 100.0;
    let duplication = args.duplicate.unwrap_or(args.loss) / 100.0;
    if loss + reordering + duplication == 0.0 {
        return None;
    }
    Some(Impairment {
        loss,
        reordering,
        duplication,
        reorder_frames: LATE_FRAMES,
        reorder_time: LATE,
        ..Impairment::default()
    })
}
