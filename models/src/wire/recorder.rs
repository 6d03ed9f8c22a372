//! Records what passes on a wire, in the pcapng format.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pagewire_hal::Instant;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};

use crate::Wire;
use crate::host::lock;

/// Timestamps count units of 10^-9 seconds.
const RESOLUTION: u8 = 9;

/// The direction of a frame: the lowest two bits of the flags option of an enhanced packet block
/// (IETF draft-ietf-opsawg-pcapng).
#[derive(Clone, Copy)]
enum Direction {
    Inbound = 1,
    Outbound = 2,
}

/// A wire of which every frame is recorded, as seen from this end: transmitted frames are
/// outbound, received ones inbound. Times are those of the simulation, counted from 1970.
///
/// A recording that fails does not stop the traffic: the error is kept for
/// [`Recording::finish`].
pub struct Recorder<W, O: Write> {
    wire: W,
    recording: Recording<O>,
}

impl<W: Wire, O: Write + Send> Recorder<W, O> {
    /// Begins to record what passes on `wire`. `output` had better be buffered.
    ///
    /// # Errors
    /// The header of the file could not be written.
    pub fn new(wire: W, output: O) -> io::Result<Self> {
        let mut writer = PcapNgWriter::new(output).map_err(into_io)?;
        writer
            .write_pcapng_block(InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options: vec![
                    InterfaceDescriptionOption::IfName(Cow::Borrowed("pagewire")),
                    InterfaceDescriptionOption::IfTsResol(RESOLUTION),
                ],
            })
            .map_err(into_io)?;
        let state = State {
            writer: Some(writer),
            error: None,
            frames: 0,
        };
        Ok(Self {
            wire,
            recording: Recording(Arc::new(Mutex::new(state))),
        })
    }

    /// The recording, to finish it while a device owns the wire.
    #[must_use]
    pub fn recording(&self) -> Recording<O> {
        Recording(Arc::clone(&self.recording.0))
    }

    /// The wire behind.
    #[must_use]
    pub fn wire(&self) -> &W {
        &self.wire
    }
}

impl<W: Wire, O: Write + Send> Wire for Recorder<W, O> {
    fn transmit(&mut self, frame: &mut Vec<u8>, now: Instant) {
        lock(&self.recording.0).record(frame, now, Direction::Outbound);
        self.wire.transmit(frame, now);
    }

    fn receive(&mut self, frame: &mut Vec<u8>, now: Instant) -> bool {
        let received = self.wire.receive(frame, now);
        if received {
            lock(&self.recording.0).record(frame, now, Direction::Inbound);
        }
        received
    }

    fn carrier(&self) -> bool {
        self.wire.carrier()
    }

    fn lost(&self) -> u64 {
        self.wire.lost()
    }
}

impl<W: fmt::Debug, O: Write> fmt::Debug for Recorder<W, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("wire", &self.wire)
            .finish_non_exhaustive()
    }
}

/// What a [`Recorder`] writes.
pub struct Recording<O: Write>(Arc<Mutex<State<O>>>);

impl<O: Write> Recording<O> {
    /// Ends the recording: later frames pass without being recorded. Returns the output, flushed;
    /// `None` if the recording was finished before.
    ///
    /// # Errors
    /// The first error since the recording began; frames after it are missing.
    pub fn finish(&self) -> io::Result<Option<O>> {
        let mut state = lock(&self.0);
        let writer = state.writer.take();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let Some(writer) = writer else {
            return Ok(None);
        };
        let mut output = writer.into_inner();
        output.flush()?;
        Ok(Some(output))
    }

    /// Frames recorded.
    #[must_use]
    pub fn frames(&self) -> u64 {
        lock(&self.0).frames
    }
}

impl<O: Write> Clone for Recording<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O: Write> fmt::Debug for Recording<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording")
            .field("frames", &self.frames())
            .finish_non_exhaustive()
    }
}

struct State<O: Write> {
    /// `None` once the recording has been finished or has failed.
    writer: Option<PcapNgWriter<O>>,
    error: Option<io::Error>,
    frames: u64,
}

impl<O: Write> State<O> {
    fn record(&mut self, frame: &[u8], now: Instant, direction: Direction) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let block = EnhancedPacketBlock {
            interface_id: 0,
            // The crate writes nanoseconds, whatever the interface says; so it says so.
            timestamp: Duration::from_nanos(now.as_nanos()),
            original_len: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(frame),
            options: vec![EnhancedPacketOption::Flags(direction as u32)],
        };
        match writer.write_pcapng_block(block) {
            Ok(_) => self.frames += 1,
            Err(error) => {
                let error = into_io(error);
                log::error!("the recording ends here: {error}");
                self.error = Some(error);
                self.writer = None;
            }
        }
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}
