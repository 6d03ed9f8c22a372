//! Real time, for the driver and for QEMU's timers.

use pagewire_hal::Instant;

/// Time since QEMU was started. Copies tell the same time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(std::time::Instant);

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Time since the start.
    pub(super) fn now(self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
