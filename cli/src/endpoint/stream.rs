//! A range of a file on its way: mapped piece by piece as it goes.

use std::fs::File;
use std::ops::Range;

use pagewire::hal::RegionId;
use pagewire::tcp::Slice;

use super::{Claims, Endpoint, Home, NoRoom};

/// A range of a file, and how far it is accepted by the stack.
pub(crate) struct FileStream {
    file: File,
    position: u64,
    end: u64,
    window: Option<Window>,
}

struct Window {
    id: RegionId,
    /// Where in the file it begins.
    start: u64,
    len: usize,
}

impl FileStream {
    pub(crate) fn new(file: File, range: Range<u64>) -> Self {
        Self {
            file,
            position: range.start,
            end: range.end,
            window: None,
        }
    }

    /// Whether all of it is accepted.
    pub(crate) fn is_done(&self) -> bool {
        self.position >= self.end
    }

    /// The next bytes: to the end of what is mapped.
    pub(crate) fn slice<H: Home>(
        &mut self,
        endpoint: &mut Endpoint<H>,
        claims: &mut Claims,
    ) -> Result<Slice, NoRoom> {
        let window = match &self.window {
            Some(window) => window,
            None => {
                let range = (self.position, self.end);
                let (id, start, len) = endpoint.map_window(&self.file, range, claims)?;
                self.window.insert(Window { id, start, len })
            }
        };
        let start = (self.position - window.start) as usize;
        Ok(Slice {
            region: window.id,
            start,
            len: window.len.saturating_sub(start),
        })
    }

    /// Takes note of bytes that were accepted, and says what is used up with them.
    pub(crate) fn advance(&mut self, bytes: usize) -> Option<RegionId> {
        self.position += bytes as u64;
        let is_used_up = |window: &mut Window| self.position >= window.start + window.len as u64;
        self.window.take_if(is_used_up).map(|window| window.id)
    }
}
