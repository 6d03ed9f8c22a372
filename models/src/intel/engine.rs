//! Whether the device is a bus master, and the arithmetic of its rings.

use crate::pace::{Deadline, Pace};

/// Whether the device is a bus master.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine {
    Running,
    /// Told to stop; requests are under way until then.
    Draining(Deadline),
    Quiet,
}

/// Whether the device may use the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// It may.
    Open,
    /// It may finish what it has begun.
    Finish,
    /// It may not.
    Closed,
}

impl Engine {
    /// What becomes of it by now, if it is to `stop` or not. Requests that are under way are over
    /// after `delay`, or `never`.
    pub(crate) fn settle(
        self,
        stop: bool,
        pace: &Pace,
        never: bool,
        delay: impl FnOnce() -> Deadline,
    ) -> Self {
        let engine = match self {
            _ if !stop => Self::Running,
            Self::Running => Self::Draining(delay()),
            engine => engine,
        };
        match engine {
            Self::Draining(deadline) if deadline.has_passed(pace) && !never => Self::Quiet,
            engine => engine,
        }
    }

    /// Whether requests have not been answered yet, where a running device has some if it is
    /// `inside_frame`.
    pub(crate) fn has_requests(self, inside_frame: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Running => inside_frame(),
            Self::Draining(_) => true,
            Self::Quiet => false,
        }
    }

    /// What a device that is a bus master, or not, may do.
    pub(crate) fn gate(self, is_bus_master: bool) -> Gate {
        match self {
            _ if !is_bus_master => Gate::Closed,
            Self::Running => Gate::Open,
            Self::Draining(_) => Gate::Finish,
            Self::Quiet => Gate::Closed,
        }
    }
}

/// The distance from `from` to `to` in a ring of `entries`, forwards.
#[inline]
pub(crate) fn distance(from: u32, to: u32, entries: u32) -> u32 {
    if to >= from {
        to - from
    } else {
        to.saturating_add(entries).saturating_sub(from)
    }
}
