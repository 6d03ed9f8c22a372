//! Time inside the model.

use core::time::Duration;

use pagewire_hal::Instant;

/// What the model knows of time: the host's clock, and how often it was spoken to. A driver may
/// poll a register while nobody moves the clock, so an access (or step) counts as a microsecond.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub(super) now: Instant,
    accesses: u64,
}

impl Pace {
    /// Takes note of an access or a step at `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.accesses = self.accesses.saturating_add(1);
    }

    /// A time of up to `bound` nanoseconds from now if `slow`, else now.
    pub(super) fn delay(&self, slow: bool, random: &mut fastrand::Rng, bound: u64) -> Deadline {
        let nanos = if slow { random.u64(..bound.max(1)) } else { 0 };
        Deadline {
            at: self.now + Duration::from_nanos(nanos),
            accesses: self.accesses.saturating_add(nanos.div_ceil(1000)),
        }
    }
}

/// A point in the model's future.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    accesses: u64,
}

impl Deadline {
    pub(super) fn has_passed(&self, pace: &Pace) -> bool {
        pace.now >= self.at || pace.accesses >= self.accesses
    }
}
