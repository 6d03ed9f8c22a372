//! Waiting, at open: afterwards nothing waits.

use core::time::Duration;

use crate::{NicError, Platform};

/// Waits in steps until `done`, for `limit` at most; `what` is waited for, for the error. Counts
/// its own steps, so that it ends even with a clock that stands still.
///
/// # Errors
/// [`NicError::Timeout`].
pub fn wait_until<P: Platform>(
    platform: &P,
    what: &'static str,
    limit: Duration,
    step: Duration,
    mut done: impl FnMut() -> bool,
) -> Result<(), NicError> {
    let mut waited = Duration::ZERO;
    while !done() {
        if waited >= limit {
            return Err(NicError::Timeout { what, after: limit });
        }
        platform.wait(step);
        waited += step;
    }
    Ok(())
}
