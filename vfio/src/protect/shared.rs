//! What all that is watched by one descriptor shares.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::PollingThread;
use super::userfault::{Stopped, UserFault};
use super::watch::Watch;
use crate::space::lock;

/// A descriptor, and what it watches.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) userfault: UserFault,
    pub(crate) watches: Mutex<Vec<Arc<Watch>>>,
    /// Whether somebody serves the faults.
    pub(crate) alive: AtomicBool,
    pub(crate) tally: Tally,
    /// Bytes in pages that are lent now, and as many as may be.
    lent: AtomicU64,
    limit: AtomicU64,
    /// Lets the handler die of a panic.
    #[cfg(test)]
    pub(crate) doomed: AtomicBool,
}

/// What has happened, for whoever asks.
#[derive(Default, Debug)]
pub(crate) struct Tally {
    pub(crate) faults: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) protects: AtomicU64,
    pub(crate) clears: AtomicU64,
    pub(crate) departures: AtomicU64,
    pub(crate) returns: AtomicU64,
}

impl Tally {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(userfault: UserFault) -> Self {
        Self {
            userfault,
            watches: Mutex::new(Vec::new()),
            alive: AtomicBool::new(true),
            tally: Tally::default(),
            lent: AtomicU64::new(0),
            limit: AtomicU64::new(u64::MAX),
            #[cfg(test)]
            doomed: AtomicBool::new(false),
        }
    }

    /// How many bytes may be lent at once.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that begin to be lent; false if that would be too many.
    pub(crate) fn begin(&self, bytes: usize) -> bool {
        let limit = self.limit();
        let more = |lent: u64| lent.checked_add(bytes as u64).filter(|lent| *lent <= limit);
        let counted = self
            .lent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        bytes == 0 || counted.is_ok()
    }

    /// Counts bytes that are lent no more.
    pub(crate) fn end(&self, bytes: usize) {
        self.lent.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    /// Serves a write that was stopped.
    pub(crate) fn serve(&self, stopped: Stopped) {
        Tally::add(&self.tally.faults);
        let polls = PollingThread::has(stopped.thread);
        let watches = lock(&self.watches);
        // Nobody: an old message of memory that is gone, whose writers have been woken.
        let _ = watches
            .iter()
            .any(|watch| watch.serve(self, stopped.address, polls));
    }

    /// What has this address.
    pub(crate) fn find(&self, address: usize) -> Option<Arc<Watch>> {
        let watches = lock(&self.watches);
        let found = watches
            .iter()
            .find(|watch| watch.page_at(address).is_some());
        found.map(Arc::clone)
    }

    /// Says that nobody serves faults any more. Writers that wait for what is not lent go on now,
    /// others when it is released; or now as well, if one of them may be a thread that polls the
    /// NIC.
    pub(crate) fn bury(&self) {
        self.alive.store(false, Ordering::SeqCst);
        for watch in lock(&self.watches).iter() {
            watch.leave(self);
        }
    }
}
