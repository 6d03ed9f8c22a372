//! What may happen to a connection, and the oracle: what the peer has said, and what follows.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::machine::{self, Fault};

/// A page of the books, in bytes.
pub(crate) const PAGE: usize = 64;
/// Start in its block and length of each region: a half and a whole page, and one page.
pub(crate) const REGIONS: [(usize, usize); 2] = [(32, 96), (0, 64)];
/// Bytes of the stream. With segments of 64 bytes the second has bytes of both regions.
pub(crate) const STREAM: usize = 160;
/// Where segments end, and one place in the middle of the first.
pub(crate) const BOUNDARIES: [usize; 4] = [32, 64, 128, STREAM];
/// What the peer may say to hold beyond a hole.
pub(crate) const BLOCKS: [Range<usize>; 2] = [64..128, 128..STREAM];
/// The first timeout gives up after this many more.
pub(crate) const MAX_RETRIES: u32 = 2;
/// Longer than the retransmission timeout, which is always 1 s here.
pub(crate) const WAIT: Duration = Duration::from_millis(1100);
pub(crate) const WINDOW: u16 = 60_000;

/// What may happen.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Fragments that a frame may have: with 2, segments that cross a page are copied.
    pub(crate) max_fragments: u16,
    /// The device may be stopped and restarted.
    pub(crate) resets: bool,
    /// The peer sends SACK, duplicates and what is out of place; it shuts its window.
    pub(crate) chatter: bool,
    pub(crate) fault: Fault,
    /// What has happened before the exploration begins.
    pub(crate) begin: &'static [Action],
    /// A wrong oracle, for a test of the explorer: SACK releases.
    pub(crate) sack_releases: bool,
}

/// What may be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Poll,
    /// The device completes the n-th frame that it knows.
    Complete(usize),
    /// The peer acknowledges up to a position of the stream.
    Ack(usize),
    /// A duplicate, with a block of `BLOCKS`.
    Sack(usize),
    /// A duplicate.
    Duplicate,
    Shut,
    Open,
    /// Time for a timeout goes by.
    Wait,
    Reset,
    /// An RST with a number that is not the expected one.
    ForgedReset,
    PeerFin,
    Abort,
    Close,
    Remove,
    /// The device is reset, and becomes quiet.
    Stop,
    Restart,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Complete(n) => return write!(f, "Complete{n}"),
            Self::Ack(n) => return write!(f, "Ack{n}"),
            Self::Sack(n) => return write!(f, "Sack{n}"),
            Self::Poll => "Poll",
            Self::Duplicate => "Duplicate",
            Self::Shut => "Shut",
            Self::Open => "Open",
            Self::Wait => "Wait",
            Self::Reset => "Reset",
            Self::ForgedReset => "ForgedReset",
            Self::PeerFin => "PeerFin",
            Self::Abort => "Abort",
            Self::Close => "Close",
            Self::Remove => "Remove",
            Self::Stop => "Stop",
            Self::Restart => "Restart",
        };
        f.write_str(name)
    }
}

/// The oracle: what the peer has said, and what follows from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// Bytes acknowledged cumulatively; a FIN is one more.
    pub(crate) una: usize,
    /// Highest position posted, a FIN included.
    pub(crate) next: usize,
    /// The connection holds what is not acknowledged.
    pub(crate) live: bool,
    pub(crate) removed: bool,
    pub(crate) closed: bool,
    pub(crate) peer_finished: bool,
    pub(crate) shut: bool,
    /// Bytes that the peer has told of by SACK.
    pub(crate) sacked: [bool; 2],
    /// Time has gone by since the last poll.
    pub(crate) waited: bool,
    pub(crate) waits: u32,
    /// Duplicates since the last new acknowledgment.
    pub(crate) duplicates: u8,
    /// What was said to the stack since the last poll, of which the next one may send something.
    /// The order is another question.
    pub(crate) since_poll: Vec<String>,
    /// Completions taken.
    pub(crate) told: usize,
}

impl Books {
    /// What the connection holds of the stream.
    pub(crate) fn held(&self, setup: &Setup) -> Vec<Range<usize>> {
        if !self.live {
            return Vec::new();
        }
        let mut rest = self.una.min(STREAM)..STREAM;
        if setup.sack_releases && self.sacked[1] {
            rest.end = 128;
        }
        vec![rest]
    }
}

/// Ranges of the blocks in which a range of the stream lies.
pub(crate) fn blocks(stream: Range<usize>) -> Vec<(usize, Range<usize>)> {
    let mut from = 0;
    let mut parts = Vec::new();
    for (region, (start, len)) in REGIONS.iter().enumerate() {
        let low = stream.start.clamp(from, from + len) - from;
        let high = stream.end.clamp(from, from + len) - from;
        if low < high {
            parts.push((region, start + low..start + high));
        }
        from += len;
    }
    parts
}

pub(crate) fn stream(range: Range<usize>) -> Vec<u8> {
    let parts = blocks(range).into_iter();
    let bytes = parts.map(|(region, r)| machine::bytes(region, r.start, r.len()));
    bytes.collect::<Vec<_>>().concat()
}

/// Position behind the last byte of a call.
pub(crate) fn call_end(tag: usize) -> usize {
    REGIONS.iter().take(tag + 1).map(|(_, len)| len).sum()
}
