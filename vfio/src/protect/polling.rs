//! Which threads must not sleep.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Mutex;

use super::watch::Patience;
use crate::space::lock;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// The numbers by which the kernel knows them. There are few.
static THREADS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Says, as long as it exists, that this thread polls the NIC: if it slept until a page is released,
/// it would sleep for ever, for only this thread sees completions. So its writes to lent pages go
/// to other pages, at once; where that cannot be, a [`Buffer`](super::Buffer) refuses them here, with
/// [`ProtectError::Lent`](super::ProtectError::Lent).
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
        if DEPTH.get() == 0 {
            lock(&THREADS).push(here());
        }
        DEPTH.set(DEPTH.get().saturating_add(1));
        Self { _here: PhantomData }
    }

    /// Whether this thread must not sleep.
    #[must_use]
    pub fn is_here() -> bool {
        DEPTH.get() > 0
    }

    /// How a write to what is lent goes on here.
    pub(crate) fn patience() -> Patience {
        if Self::is_here() {
            Patience::Depart
        } else {
            Patience::Wait
        }
    }

    /// Whether the thread that the kernel knows by this number must not sleep.
    pub(crate) fn has(thread: u32) -> bool {
        lock(&THREADS).contains(&thread)
    }
}

fn here() -> u32 {
    rustix::thread::gettid().as_raw_pid().cast_unsigned()
}

impl Drop for PollingThread {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
        if DEPTH.get() == 0 {
            let here = here();
            let mut threads = lock(&THREADS);
            if let Some(index) = threads.iter().position(|thread| *thread == here) {
                threads.swap_remove(index);
            }
        }
    }
}
