//! What is done before and after each measured part.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Looks at a clock, or not.
pub trait Meter {
    /// A measured part begins.
    fn begin(&mut self);
    /// It has ended.
    fn end(&mut self, part: &'static str);
}

/// For callgrind, which knows the functions by their names.
#[derive(Debug, Default)]
pub struct Untimed;

impl Meter for Untimed {
    fn begin(&mut self) {}
    fn end(&mut self, _part: &'static str) {}
}

/// Adds up the time of each part.
#[derive(Debug)]
pub struct Timed {
    begun: Instant,
    /// What looking at the clock costs by itself.
    overhead: Duration,
    parts: BTreeMap<&'static str, Duration>,
}

/// Looks at the clock, for their own cost.
const LOOKS: usize = 10_000;

impl Default for Timed {
    fn default() -> Self {
        let mut looks: Vec<Duration> = (0..LOOKS).map(|_| Instant::now().elapsed()).collect();
        looks.sort_unstable();
        Self {
            begun: Instant::now(),
            overhead: looks.get(LOOKS / 2).copied().unwrap_or_default(),
            parts: BTreeMap::new(),
        }
    }
}

impl Timed {
    /// The time of each part in nanoseconds. It begins anew.
    pub fn take(&mut self) -> BTreeMap<&'static str, f64> {
        let parts = std::mem::take(&mut self.parts);
        let nanos = |(part, time): (_, Duration)| (part, time.as_nanos() as f64);
        parts.into_iter().map(nanos).collect()
    }
}

impl Meter for Timed {
    #[inline(always)]
    fn begin(&mut self) {
        self.begun = Instant::now();
    }

    #[inline(always)]
    fn end(&mut self, part: &'static str) {
        let time = self.begun.elapsed().saturating_sub(self.overhead);
        *self.parts.entry(part).or_default() += time;
    }
}
