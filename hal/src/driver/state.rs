//! Where a device is between running and quiet, and whether it hangs.

use core::time::Duration;

use crate::{Instant, NicError, Phase};

/// Where the device is. `S` is what is waited for on the way to quiet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State<S> {
    /// It works.
    Running,
    /// On its way to quiet.
    Stopping(S),
    /// It reaches no memory.
    Quiet,
    /// It did not become quiet, or is gone.
    Failed,
}

/// How a step towards quiet ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<S> {
    /// Wait for this.
    Wait(S),
    /// The device is quiet.
    Quiet,
    /// It does not become quiet.
    NotQuiet,
}

impl<S> Step<S> {
    /// Waits for `stop`, as has been done since `since`, or gives up after `limit`.
    pub fn wait_or_give_up(stop: S, since: Instant, limit: Duration, now: Instant) -> Self {
        if now.saturating_since(since) >= limit {
            Self::NotQuiet
        } else {
            Self::Wait(stop)
        }
    }
}

impl<S> State<S> {
    /// Whether the device may be restarted or released.
    ///
    /// # Errors
    /// [`NicError::WrongPhase`] if it is not quiet.
    pub fn check_quiet(&self) -> Result<(), NicError> {
        match self {
            Self::Quiet => Ok(()),
            _ => Err(NicError::WrongPhase),
        }
    }

    /// Takes note that the device, called `name`, has failed by `error`, which is returned.
    pub fn fail(&mut self, name: &str, error: NicError) -> NicError {
        log::warn!("{name}: {error}");
        *self = Self::Failed;
        error
    }

    /// Takes note of how a step of the device called `name` ended, and says what
    /// [`poll`](crate::Nic::poll) answers.
    ///
    /// # Errors
    /// [`NicError::NotQuiet`].
    pub fn go_on(&mut self, name: &str, step: Step<S>) -> Result<Phase, NicError> {
        match step {
            Step::Wait(stop) => {
                *self = Self::Stopping(stop);
                Ok(Phase::Stopping)
            }
            Step::Quiet => {
                *self = Self::Quiet;
                Ok(Phase::Quiet)
            }
            Step::NotQuiet => Err(self.fail(name, NicError::NotQuiet)),
        }
    }
}

/// Time between two looks at a transmit head that does not move, at least.
pub const HANG_INTERVAL: Duration = Duration::from_millis(500);

/// Watches a transmit queue by the device's head: with work to do and no progress in two looks in
/// a row it hangs.
///
/// Descriptors that wait for a link count as well: their pages are stranded until a reset. But a
/// device whose head runs ahead, as it fetches before it sends, may show a head that has reached
/// the tail while frames wait inside: those are not noticed here.
#[derive(Clone, Copy, Debug, Default)]
pub struct HangWatch {
    /// When the head was first seen here, the head, and the frames sent by then.
    seen: Option<(Instant, u32, u64)>,
}

impl HangWatch {
    /// Forgets what was seen.
    pub fn restart(&mut self) {
        self.seen = None;
    }

    /// One look at `head` and `tail` as the device has them. `sent` yields the number of frames
    /// sent so far; it is asked for only while there is work, and tells a head that stands still
    /// from one that has gone round.
    pub fn is_hung(
        &mut self,
        [head, tail]: [u32; 2],
        now: Instant,
        sent: impl FnOnce() -> u64,
    ) -> bool {
        if head == tail {
            self.seen = None;
            return false;
        }
        let sent = sent();
        match self.seen {
            Some((since, at, before)) if at == head && before == sent => {
                now.saturating_since(since) >= HANG_INTERVAL
            }
            _ => {
                self.seen = Some((now, head, sent));
                false
            }
        }
    }
}
