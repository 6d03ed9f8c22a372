//! Who receives: a TCP that nobody here wrote.

use std::fmt;
use std::time::Duration;

use pagewire::hal::Instant;
use serde::{Deserialize, Serialize};

/// What the receiver got, once all streams have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// The streams, in any order.
    pub(crate) streams: Vec<Stream>,
    /// Frames that came, all of them: as its interface counts.
    pub(crate) frames: u64,
    /// Bytes of these frames, Ethernet header included.
    pub(crate) frame_bytes: u64,
    /// Segments that came and were thrown away where some were to be lost, for whatever reason.
    pub(crate) lost: u64,
}

/// What came over one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// The sender's port.
    pub(crate) port: u16,
    /// Bytes of the stream.
    pub(crate) bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub(crate) sha256: String,
}

/// Why the receiver gave up.
#[derive(Debug)]
pub(crate) struct PeerError(pub(crate) String);

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The other end of the wire.
pub(crate) trait Peer {
    /// Lets the receiver work; whether it did anything.
    fn poll(&mut self, now: Instant) -> Result<bool, PeerError>;

    /// How long until it wants to work again without a frame; `None` if it will not.
    fn next_event(&mut self, now: Instant) -> Option<Duration>;

    /// What arrived, once all streams have ended.
    fn arrived(&mut self) -> Result<Option<Arrived>, PeerError>;

    /// Whether its interface sees a link.
    fn has_link(&mut self) -> bool {
        true
    }

    /// CPU seconds spent outside this process.
    fn foreign_cpu_seconds(&self) -> f64 {
        0.0
    }
}
