//! What may be done to a port and its regions, and the oracle: who holds what.

use std::fmt;
use std::ops::Range;

use pagewire::hal::{FrameId, Token};

use crate::machine::{Fault, Stage};

/// A page of the books, in bytes.
pub(crate) const PAGE: usize = 16;
/// What a partial acknowledgment trims: half a page.
pub(crate) const TRIM: usize = 8;
/// An Ethernet header.
pub(crate) const HEADER: usize = 14;
/// Buffers of the port.
pub(crate) const BUFFERS: usize = 4;
/// Start in its block and length of each region: two whole pages; half a page and a whole one.
pub(crate) const REGIONS: [(usize, usize); 2] = [(0, 32), (8, 24)];

/// How many of everything, and what may happen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) regions: usize,
    /// Loans of the connection at a time.
    pub(crate) loans: usize,
    /// Frames that the ring takes.
    pub(crate) frames: usize,
    /// The device may complete in any order.
    pub(crate) any_order: bool,
    /// The device may be reset.
    pub(crate) resets: bool,
    /// Loans may be forgotten, callbacks may unwind, builders are dropped.
    pub(crate) mishaps: bool,
    pub(crate) fault: Fault,
}

/// What a frame carries behind its header. Loans are named by their places.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing.
    Bare,
    /// All of a loan.
    Whole(usize),
    /// The last half page of one loan, then all of another.
    Gather(usize, usize),
}

/// What may be done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Lend(usize),
    Again(usize),
    Trim(usize),
    GiveBack(usize),
    Forget(usize),
    Post(Shape),
    /// A builder that is dropped.
    Undo(Shape),
    Doorbell,
    /// The device completes the n-th frame that it knows.
    Complete(usize),
    Reclaim,
    /// The callback of reclaim unwinds.
    Unwind,
    Release(usize),
    Begin,
    Quiet,
    /// The device does not become quiet.
    Stuck,
    Restart,
    /// Initialisation fails.
    RestartFails,
    /// The device is released.
    Stop,
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare => write!(f, "Bare"),
            Self::Whole(loan) => write!(f, "Whole{loan}"),
            Self::Gather(a, b) => write!(f, "Gather{a}+{b}"),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lend(n) => write!(f, "Lend{n}"),
            Self::Again(n) => write!(f, "Again{n}"),
            Self::Trim(n) => write!(f, "Trim{n}"),
            Self::GiveBack(n) => write!(f, "GiveBack{n}"),
            Self::Forget(n) => write!(f, "Forget{n}"),
            Self::Post(shape) => write!(f, "Post{shape:?}"),
            Self::Undo(shape) => write!(f, "Undo{shape:?}"),
            Self::Doorbell => write!(f, "Doorbell"),
            Self::Complete(n) => write!(f, "Complete{n}"),
            Self::Reclaim => write!(f, "Reclaim"),
            Self::Unwind => write!(f, "Unwind"),
            Self::Release(n) => write!(f, "Release{n}"),
            Self::Begin => write!(f, "Begin"),
            Self::Quiet => write!(f, "Quiet"),
            Self::Stuck => write!(f, "Stuck"),
            Self::Restart => write!(f, "Restart"),
            Self::RestartFails => write!(f, "RestartFails"),
            Self::Stop => write!(f, "Stop"),
        }
    }
}

/// A range of a region, held by somebody.
pub(crate) type Part = (usize, Range<usize>);

/// A frame in the books.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) id: FrameId,
    pub(crate) token: Token,
    pub(crate) parts: Vec<Part>,
    pub(crate) stage: Stage,
}

/// The oracle: who holds what, as plain lists. It knows nothing of counts.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Released by the program.
    pub(crate) closing: Vec<bool>,
    /// Loans of the connection, by place.
    pub(crate) loans: Vec<Part>,
    /// Loans that were forgotten.
    pub(crate) lost: Vec<Part>,
    /// Frames out, in the order of posting.
    pub(crate) frames: Vec<Frame>,
    /// Those of them that the device has completed, in the order in which it did.
    pub(crate) done: Vec<FrameId>,
    /// Frames that were out.
    pub(crate) over: Vec<FrameId>,
    pub(crate) posted: u64,
    /// A callback has unwound: the port does nothing before a reset.
    pub(crate) interrupted: bool,
    /// That frame's token will come once more.
    pub(crate) strays_to_come: u64,
    pub(crate) strays: u64,
    pub(crate) peak: usize,
}

impl Books {
    pub(crate) fn holders(&self) -> impl Iterator<Item = &Part> {
        let frames = self.frames.iter().flat_map(|frame| &frame.parts);
        self.loans.iter().chain(&self.lost).chain(frames)
    }

    pub(crate) fn held(&self, region: usize) -> bool {
        self.holders().any(|(of, _)| *of == region)
    }

    /// Whether the region must have been given back by now: nobody holds any of it.
    pub(crate) fn free(&self, region: usize) -> bool {
        self.closing[region] && !self.held(region)
    }

    pub(crate) fn pinned(&self) -> usize {
        let mut pages = [[false; 2]; 2];
        for (region, range) in self.holders() {
            let first = REGIONS[*region].0;
            let (from, to) = (first + range.start, first + range.end - 1);
            pages[*region][from / PAGE..=to / PAGE].fill(true);
        }
        pages.iter().flatten().filter(|held| **held).count()
    }

    pub(crate) fn end_frames(&mut self, over: impl Fn(&Frame) -> bool) {
        let ended = self.frames.iter().filter(|frame| over(frame));
        self.over.extend(ended.map(|frame| frame.id));
        self.frames.retain(|frame| !over(frame));
    }

    /// The parts of a shape, `None` if its loans are not there or too short.
    pub(crate) fn parts(&self, shape: Shape) -> Option<Vec<Part>> {
        let part = |loan: usize| self.loans.get(loan).cloned();
        match shape {
            Shape::Bare => Some(Vec::new()),
            Shape::Whole(loan) => Some(vec![part(loan)?]),
            Shape::Gather(a, b) => {
                let (region, range) = part(a)?;
                let tail = range.end.checked_sub(TRIM)?.max(range.start)..range.end;
                Some(vec![(region, tail), part(b)?])
            }
        }
    }
}
