//! Randomness and time inside the models of Intel NICs.

use core::time::Duration;

use pagewire_hal::Instant;

/// A seeded generator (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// What the model knows of time: the host's clock, and how often it was spoken to.
///
/// A driver may poll a register while nobody moves the clock. An access over PCIe takes about a
/// microsecond, so one access (or step) counts as that much for the device's own delays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    pub(crate) now: Instant,
    accesses: u64,
}

impl Pace {
    /// Takes note of an access or a step at `now`.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.accesses = self.accesses.wrapping_add(1);
    }
}

/// A point in the model's future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    accesses: u64,
}

impl Deadline {
    /// `nanos` nanoseconds from now. With 0 it has passed already.
    pub(crate) fn after(pace: &Pace, nanos: u64) -> Self {
        Self {
            at: pace.now + Duration::from_nanos(nanos),
            accesses: pace.accesses.saturating_add(nanos.div_ceil(1000)),
        }
    }

    pub(crate) fn has_passed(&self, pace: &Pace) -> bool {
        pace.now >= self.at || pace.accesses >= self.accesses
    }
}
