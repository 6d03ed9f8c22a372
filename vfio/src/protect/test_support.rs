//! Writers that scribble over lent memory, and waits that end.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Choice, Mode, ProtectError, Protector};

/// Waits until something holds; false if it does not for so long that it never will.
pub(super) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > Duration::from_secs(60) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// One of each mode that can be had here: the full one needs a privilege.
pub(super) fn protectors() -> Vec<Protector> {
    let user = Protector::open(Choice::UserOnly).expect("needs no privilege");
    assert_eq!(user.mode(), Mode::UserOnly);
    full().into_iter().chain([user]).collect()
}

/// The full one; `None` if this user may not have it, which root always may.
pub(super) fn full() -> Option<Protector> {
    match Protector::open(Choice::Full) {
        Err(ProtectError::NoUserfault(attempts)) if !rustix::process::geteuid().is_root() => {
            println!("without a full userfaultfd: {attempts:?}");
            None
        }
        opened => {
            let full = opened.expect("root may have it");
            assert_eq!(full.mode(), Mode::Full);
            Some(full)
        }
    }
}

/// A pointer that crosses threads.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) NonNull<u8>);

// SAFETY: a number; who uses it says why he may.
unsafe impl Send for Place {}

impl Place {
    pub(super) fn at(self, offset: usize) -> Self {
        Self(NonNull::new(self.0.as_ptr().wrapping_byte_add(offset)).expect("not at the end"))
    }
}

/// A thread that does one thing, and says when it has.
pub(super) struct Writer<T> {
    done: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Writer<T> {
    pub(super) fn doing(what: impl FnOnce() -> T + Send + 'static) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let result = what();
            says.store(true, Ordering::SeqCst);
            result
        });
        Self { done, thread }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// What it did, when it has.
    pub(super) fn join(self) -> T {
        assert!(eventually(|| self.is_done()), "a writer still sleeps");
        self.thread.join().expect("it does not panic")
    }

    /// Looks for a while whether it is still at it. It may pass by chance, but not fail by chance.
    pub(super) fn sleeps(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            if self.is_done() {
                return false;
            }
            std::thread::yield_now();
        }
        !self.is_done()
    }
}

impl Writer<()> {
    /// Writes one byte.
    pub(super) fn poking(place: Place, byte: u8) -> Self {
        Self::doing(move || {
            let place = place;
            // SAFETY: each test pokes memory that a buffer or a loan of it keeps, of which no
            // slice is in use but those of loans.
            unsafe { place.0.write_volatile(byte) };
        })
    }
}

/// Waits until so many writes have been found waiting for a release.
pub(super) fn waits(protector: &Protector, count: u64) {
    assert!(
        eventually(|| protector.counters().waits >= count),
        "{count} writers should wait: {:?}",
        protector.counters()
    );
}
