//! What is to be sent, in order, and how far it is.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;

use pagewire_hal::RegionId;
use pagewire_tcp::{SendOptions, Slice};

/// Memory, texts and ranges of files, in the order in which they are to be sent.
#[derive(Debug, Default)]
pub struct Message {
    pub(crate) pieces: VecDeque<Piece>,
    pub(crate) tag: u64,
    pub(crate) options: SendOptions,
}

impl Message {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a range of a region that the stack knows ([`Stack::register`](pagewire_tcp::Stack::register)).
    #[must_use]
    pub fn slice(self, slice: Slice) -> Self {
        // What no region has is not taken for nothing: the stack refuses it.
        let start = (slice.start as u64).min(u64::MAX - 1);
        let range = start..start.saturating_add(slice.len as u64);
        self.piece(Source::Memory(slice.region), range)
    }

    /// Adds bytes that are copied when their turn has come.
    #[must_use]
    pub fn text(self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let range = 0..bytes.len() as u64;
        self.piece(Source::Text(bytes), range)
    }

    /// Adds a range of a regular file that is open for reading, as it is at the moment when the device
    /// reads it. What lies beyond its end then is zeros. One that cannot be read any more, neither by the
    /// device nor by the system, breaks the connection ([`OutboxError::Read`](crate::OutboxError::Read)).
    #[must_use]
    pub fn file(self, file: File, range: Range<u64>) -> Self {
        self.piece(Source::File(file), range)
    }

    fn piece(mut self, source: Source, range: Range<u64>) -> Self {
        if !range.is_empty() {
            self.pieces.push_back(Piece {
                source,
                position: range.start,
                end: range.end,
                placed: None,
                copy_until: 0,
            });
        }
        self
    }

    /// A number by which [`Done`](crate::Done) names it; 0 if none is given.
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// How its bytes are borrowed, and whether that is to be explained.
    #[must_use]
    pub fn options(mut self, options: SendOptions) -> Self {
        self.options = options;
        self
    }

    /// Bytes that are not accepted yet.
    #[must_use]
    pub fn len(&self) -> u64 {
        let rests = self.pieces.iter().map(Piece::rest);
        rests.fold(0, u64::saturating_add)
    }

    /// Whether nothing is left to accept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// Where bytes come from.
#[derive(Debug)]
pub(crate) enum Source {
    Memory(RegionId),
    Text(Vec<u8>),
    File(File),
}

/// Bytes of one source: those from `position` on are not accepted.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) source: Source,
    pub(crate) position: u64,
    pub(crate) end: u64,
    /// A part of it that was made reachable for the device.
    pub(crate) placed: Option<Placed>,
    /// Up to here bytes are copied that would be lent or mapped otherwise.
    copy_until: u64,
}

/// A region with bytes of a text or a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) region: RegionId,
    /// Which position of the source its first byte is.
    pub(crate) start: u64,
    pub(crate) len: usize,
    /// They were read from a file, or copied from memory that could not be lent.
    pub(crate) copied: bool,
}

impl Placed {
    const fn end(&self) -> u64 {
        self.start + self.len as u64
    }
}

impl Piece {
    /// Bytes that are not accepted.
    pub(crate) const fn rest(&self) -> u64 {
        self.end - self.position
    }

    /// Whether the next bytes are to be copied.
    pub(crate) const fn is_copied(&self) -> bool {
        self.position < self.copy_until
    }

    /// The next bytes are to be copied.
    pub(crate) const fn copy_next(&mut self, bytes: u64) {
        self.copy_until = self.position.saturating_add(bytes);
    }

    /// The next bytes, as far as they are reachable: `None` if none is.
    pub(crate) fn slice(&self) -> Option<Slice> {
        let (region, start, end) = match (&self.source, &self.placed) {
            (_, Some(placed)) => (placed.region, placed.start, placed.end().min(self.end)),
            (Source::Memory(region), None) => (*region, 0, self.end),
            (_, None) => return None,
        };
        Some(Slice {
            region,
            start: usize::try_from(self.position.checked_sub(start)?).ok()?,
            len: usize::try_from(end.checked_sub(self.position)?).ok()?,
        })
    }

    /// Takes note of bytes that were accepted, and says what is used up with them.
    pub(crate) fn advance(&mut self, bytes: u64) -> Option<Placed> {
        self.position = self.position.saturating_add(bytes).min(self.end);
        let position = self.position;
        self.placed
            .take_if(|placed| position >= placed.end().min(self.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pieces_are_none() {
        let message = Message::new().text("").file(tempfile(), 5..5).text("x");
        assert_eq!((message.len(), message.pieces.len()), (1, 1));
        #[allow(clippy::reversed_empty_ranges)]
        let message = Message::new().file(tempfile(), 5..4);
        assert!(message.is_empty());
    }

    fn tempfile() -> File {
        File::open("/dev/null").unwrap()
    }
}
