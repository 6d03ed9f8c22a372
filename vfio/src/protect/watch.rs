//! One piece of memory that is watched: its book and its protections change together.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::io::Errno;

use super::ProtectError;
use super::book::{Book, Verdict};
use super::userfault::UserFault;
use crate::space::lock;

/// What all that is watched by one descriptor shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) userfault: UserFault,
    pub(crate) watches: Mutex<Vec<Arc<Watch>>>,
    /// Whether somebody serves the faults.
    pub(crate) alive: AtomicBool,
    pub(crate) tally: Tally,
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
}

impl Tally {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory that is registered with the descriptor, page by page.
pub(crate) struct Watch {
    base: NonNull<u8>,
    len: usize,
    /// Bytes of a page, a power of two.
    page: usize,
    state: Mutex<State>,
    /// Pages that are lent and that somebody has tried to write, as the book says.
    wanted: AtomicUsize,
    /// Something was released, and there are sleepers.
    released: Condvar,
}

// SAFETY: the pointer is used under the lock only, for as long as the memory is there.
unsafe impl Send for Watch {}
// SAFETY: as above.
unsafe impl Sync for Watch {}

struct State {
    book: Book,
    /// The memory may belong to others by now: nothing of it is touched any more.
    closed: bool,
    /// Those who wait for a release without a fault.
    sleepers: usize,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, {} bytes)", self.base, self.len)
    }
}

impl Watch {
    /// Watches `len` bytes at `base`, in pages of `page` bytes: all three multiples of it.
    ///
    /// # Safety
    /// The memory belongs to the caller, who keeps it until after [`close`](Self::close).
    pub(crate) unsafe fn new(
        shared: &Shared,
        base: NonNull<u8>,
        len: usize,
        page: usize,
    ) -> Result<Arc<Self>, ProtectError> {
        let watch = Arc::new(Self {
            base,
            len,
            page,
            state: Mutex::new(State {
                book: Book::new(len / page),
                closed: false,
                sleepers: 0,
            }),
            wanted: AtomicUsize::new(0),
            released: Condvar::new(),
        });
        let mut watches = lock(&shared.watches);
        if !shared.alive.load(Ordering::SeqCst) {
            return Err(ProtectError::HandlerGone);
        }
        // SAFETY: the caller's promise.
        unsafe { shared.userfault.register(base.addr().get(), len) }
            .map_err(|errno| ProtectError::system("cannot watch memory for writes", errno))?;
        watches.push(Arc::clone(&watch));
        Ok(watch)
    }

    /// Clears all protections, and watches no more.
    pub(crate) fn close(&self, shared: &Shared) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.book = Book::new(0);
        self.publish(&state);
        if let Err(errno) = shared
            .userfault
            .unregister(self.base.addr().get(), self.len)
        {
            // Whoever unmapped it has done that too.
            log::warn!("memory could not be unregistered from userfaultfd: {errno}");
        }
        drop(state);
        lock(&shared.watches).retain(|watch| !std::ptr::eq(Arc::as_ptr(watch), self));
    }

    /// The pages that these bytes touch.
    fn pages(&self, bytes: &Range<usize>) -> Range<usize> {
        bytes.start / self.page..bytes.end.div_ceil(self.page)
    }

    /// Lends bytes: when this returns, no write changes them before they are released.
    pub(crate) fn lend(&self, shared: &Shared, bytes: &Range<usize>) -> Result<(), ProtectError> {
        let mut state = lock(&self.state);
        let pages = self.pages(bytes);
        if !shared.alive.load(Ordering::SeqCst) {
            return Err(ProtectError::HandlerGone);
        }
        if !state.book.can_lend(pages.clone()) {
            return Err(ProtectError::TooMany);
        }
        if let Some(bare) = state.book.to_protect(pages.clone()) {
            let (base, len) = self.address(&bare);
            Tally::add(&shared.tally.protects);
            shared.userfault.protect(base, len).map_err(|errno| {
                // Some of them may be protected now, and nobody is to wait for a release.
                state.book.doubt(bare.clone());
                state.book.open(bare, &mut |run| self.clear(shared, &run));
                ProtectError::system("cannot protect pages", errno)
            })?;
        }
        state.book.lend(pages);
        Ok(())
    }

    /// Gives bytes back that were lent by [`lend`](Self::lend), and wakes who waits for them if
    /// these were the last loans.
    pub(crate) fn release(&self, shared: &Shared, bytes: &Range<usize>) {
        let mut state = lock(&self.state);
        // With nobody to clear them later they are cleared now.
        let lazy = shared.alive.load(Ordering::SeqCst);
        let mut clear = |run| self.clear(shared, &run);
        state.book.release(self.pages(bytes), lazy, &mut clear);
        self.publish(&state);
        if state.sleepers > 0 {
            self.released.notify_all();
        }
    }

    /// Clears the protection of what is not lent of these bytes, until nothing is if `wait`; says
    /// whether nothing is. What is lent is wanted.
    pub(crate) fn open(&self, shared: &Shared, bytes: &Range<usize>, wait: bool) -> bool {
        let mut state = lock(&self.state);
        loop {
            let pages = self.pages(bytes);
            let mut clear = |run| self.clear(shared, &run);
            if !state.book.open(pages.clone(), &mut clear) {
                return true;
            }
            state.book.want(pages);
            self.publish(&state);
            if !wait {
                return false;
            }
            state.sleepers += 1;
            let woken = self.released.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.sleepers -= 1;
        }
    }

    /// Tells [`has_wanted`](Self::has_wanted) what the book says.
    fn publish(&self, state: &State) {
        self.wanted.store(state.book.wanted(), Ordering::Relaxed);
    }

    /// Whether somebody has tried to write to something that is lent still. One relaxed load.
    pub(crate) fn has_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// Tells the bytes of all pages that are lent and that somebody has tried to write, in runs.
    /// They may be released meanwhile, also by `each` itself.
    pub(crate) fn wanted(&self, each: &mut dyn FnMut(Range<usize>)) {
        let mut from = 0;
        loop {
            let run = lock(&self.state).book.next_wanted(from);
            let Some(run) = run else { return };
            from = run.end;
            each(run.start * self.page..run.end * self.page);
        }
    }

    /// Whether something of these bytes is lent.
    pub(crate) fn is_lent(&self, bytes: &Range<usize>) -> bool {
        lock(&self.state).book.is_lent(self.pages(bytes))
    }

    /// Bytes that are registered, in protected pages, and in lent pages.
    pub(crate) fn bytes(&self) -> [usize; 3] {
        let state = lock(&self.state);
        let [protected, lent] =
            [state.book.protected(), state.book.lent()].map(|pages| pages * self.page);
        [self.len, protected, lent]
    }

    fn address(&self, pages: &Range<usize>) -> (usize, usize) {
        let base = self.base.addr().get() + pages.start * self.page;
        (base, pages.len() * self.page)
    }

    /// Clears the protection of pages, and wakes who waits there.
    fn clear(&self, shared: &Shared, pages: &Range<usize>) {
        let (base, len) = self.address(pages);
        Tally::add(&shared.tally.clears);
        match shared.userfault.clear(base, len) {
            // Unmapped behind our back: nobody can write there.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => log::error!("pages stay protected, writers may hang: {errno}"),
        }
    }

    /// Serves a write that was stopped, if it was here.
    fn serve(&self, shared: &Shared, address: usize) -> bool {
        let Some(offset) = address
            .checked_sub(self.base.addr().get())
            .filter(|at| *at < self.len)
        else {
            return false;
        };
        let index = offset / self.page;
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        let mut clear = |run| self.clear(shared, &run);
        if state.book.fault(index, &mut clear) == Verdict::Wait {
            self.publish(&state);
            Tally::add(&shared.tally.waits);
        }
        true
    }
}

impl Shared {
    pub(crate) fn new(userfault: UserFault) -> Self {
        Self {
            userfault,
            watches: Mutex::new(Vec::new()),
            alive: AtomicBool::new(true),
            tally: Tally::default(),
            #[cfg(test)]
            doomed: AtomicBool::new(false),
        }
    }

    /// Serves a write that was stopped at `address`.
    pub(crate) fn serve(&self, address: usize) {
        Tally::add(&self.tally.faults);
        let watches = lock(&self.watches);
        // Nobody: an old message of memory that is gone, whose writers have been woken.
        let _ = watches.iter().any(|watch| watch.serve(self, address));
    }

    /// Says that nobody serves faults any more. Writers that wait for what is not lent go on now,
    /// others when it is released.
    pub(crate) fn bury(&self) {
        self.alive.store(false, Ordering::SeqCst);
        for watch in lock(&self.watches).iter() {
            let mut clear = |run| watch.clear(self, &run);
            let all = 0..watch.len / watch.page;
            lock(&watch.state).book.open(all, &mut clear);
        }
    }
}
