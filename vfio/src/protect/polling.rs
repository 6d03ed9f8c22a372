//! Which threads must not sleep.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Says, as long as it exists, that this thread polls the NIC: a write to a lent page would sleep
/// until a completion that only this thread sees. So a [`Buffer`](super::Buffer) refuses such
/// writes here, with [`ProtectError::Lent`](super::ProtectError::Lent), and they never sleep.
///
/// ```compile_fail
/// fn send<T: Send>(_: T) {}
/// send(pagewire_vfio::protect::PollingThread::enter());
/// ```
#[derive(Debug)]
pub struct PollingThread {
    /// Stays on its thread.
    _here: PhantomData<*const ()>,
}

impl PollingThread {
    /// From now on this thread must not sleep. May be nested.
    #[must_use]
    pub fn enter() -> Self {
        DEPTH.set(DEPTH.get().saturating_add(1));
        Self { _here: PhantomData }
    }

    /// Whether this thread must not sleep.
    #[must_use]
    pub fn is_here() -> bool {
        DEPTH.get() > 0
    }
}

impl Drop for PollingThread {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}
