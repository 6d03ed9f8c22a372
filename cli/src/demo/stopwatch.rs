//! Where the CPU time of a thread goes.

use std::time::Duration;

/// Where the CPU time of this thread goes: what other programs take does not count.
#[derive(Default)]
pub(super) struct Stopwatch {
    pub(super) sender: Duration,
    pub(super) model: Duration,
    pub(super) peer: Duration,
    pub(super) hash: Duration,
    lap: Duration,
}

impl Stopwatch {
    /// CPU time since the last lap, which must have been on the same thread.
    pub(super) fn lap(&mut self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let now = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
        now.saturating_sub(std::mem::replace(&mut self.lap, now))
    }
}
