//! One piece of memory that is watched: its book and its protections change together.

use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::io::Errno;

use super::ProtectError;
use super::book::{Book, Effects, Verdict};
use super::pool::Pool;
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
    pub(crate) copies: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Memory that is registered with the descriptor, page by page.
pub(crate) struct Watch {
    base: NonNull<u8>,
    /// All that can be lent. The pages of the pool follow, which are never protected.
    len: usize,
    /// Bytes of a page, a power of two.
    page: usize,
    state: Mutex<State>,
    /// Something was released, and there are sleepers.
    released: Condvar,
}

// SAFETY: the pointer is used under the lock only, for as long as the memory is there.
unsafe impl Send for Watch {}
// SAFETY: as above.
unsafe impl Sync for Watch {}

struct State {
    book: Book,
    pool: Pool,
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
    /// Watches `len` bytes at `base`, in pages of `page` bytes: all three multiples of it. `pool`
    /// pages more follow, for old bytes.
    ///
    /// # Safety
    /// The memory belongs to the caller, who keeps it until after [`close`](Self::close).
    pub(crate) unsafe fn new(
        shared: &Shared,
        base: NonNull<u8>,
        len: usize,
        page: usize,
        pool: usize,
    ) -> Result<Arc<Self>, ProtectError> {
        let watch = Arc::new(Self {
            base,
            len,
            page,
            state: Mutex::new(State {
                book: Book::new(len / page),
                pool: Pool::new(pool),
                closed: false,
                sleepers: 0,
            }),
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

    /// The slot of the pool in which these bytes lie.
    fn slot(&self, bytes: &Range<usize>) -> Option<usize> {
        Some(bytes.start.checked_sub(self.len)? / self.page)
    }

    /// Lends bytes: when this returns, no write changes them before they are released.
    pub(crate) fn lend(&self, shared: &Shared, bytes: &Range<usize>) -> Result<(), ProtectError> {
        let mut state = lock(&self.state);
        if let Some(slot) = self.slot(bytes) {
            let lent = state.pool.lend(slot);
            return if lent {
                Ok(())
            } else {
                Err(ProtectError::TooMany)
            };
        }
        self.protect(&mut state, shared, bytes)?;
        state.book.lend(self.pages(bytes));
        Ok(())
    }

    /// Keeps bytes as they are now, in the page or elsewhere, until they are let go; returns the
    /// time.
    pub(crate) fn keep(&self, shared: &Shared, bytes: &Range<usize>) -> Result<u64, ProtectError> {
        let mut state = lock(&self.state);
        self.protect(&mut state, shared, bytes)?;
        state.book.keep(self.pages(bytes));
        Ok(state.pool.now())
    }

    fn protect(
        &self,
        state: &mut State,
        shared: &Shared,
        bytes: &Range<usize>,
    ) -> Result<(), ProtectError> {
        let pages = self.pages(bytes);
        if !shared.alive.load(Ordering::SeqCst) {
            return Err(ProtectError::HandlerGone);
        }
        if !state.book.can_lend(pages.clone()) {
            return Err(ProtectError::TooMany);
        }
        let Some(bare) = state.book.to_protect(pages) else {
            return Ok(());
        };
        let (base, len) = self.address(&bare);
        Tally::add(&shared.tally.protects);
        shared.userfault.protect(base, len).map_err(|errno| {
            // Some of them may be protected now, and nobody is to wait for a release.
            state.book.doubt(bare.clone());
            self.with(state, shared, |book, hands| book.open(bare, hands));
            ProtectError::system("cannot protect pages", errno)
        })
    }

    /// Gives bytes back that were lent by [`lend`](Self::lend), and wakes who waits for them if
    /// these were the last loans.
    pub(crate) fn release(&self, shared: &Shared, bytes: &Range<usize>) {
        let mut state = lock(&self.state);
        if let Some(slot) = self.slot(bytes) {
            state.pool.release(slot);
        } else {
            // With nobody to clear them later they are cleared now.
            let lazy = shared.alive.load(Ordering::SeqCst);
            let pages = self.pages(bytes);
            self.with(&mut state, shared, |book, hands| {
                book.release(pages, lazy, hands);
            });
        }
        self.rouse(&state);
    }

    /// Keeps the pages of these bytes no more, which were kept at the time `since`.
    pub(crate) fn let_go(&self, shared: &Shared, bytes: &Range<usize>, since: u64) {
        let mut state = lock(&self.state);
        let lazy = shared.alive.load(Ordering::SeqCst);
        for page in self.pages(bytes) {
            if let Some(slot) = state.pool.find(page, since) {
                state.pool.let_go(slot);
            } else {
                self.with(&mut state, shared, |book, hands| {
                    book.let_go(page, lazy, hands);
                });
            }
        }
        self.rouse(&state);
    }

    /// Lends the first of these bytes, which were kept at the time `since`, as far as they lie in
    /// one place; returns where that is. At least one byte.
    pub(crate) fn lend_kept(
        &self,
        bytes: &Range<usize>,
        since: u64,
    ) -> Result<Range<usize>, ProtectError> {
        let mut state = lock(&self.state);
        let pages = self.pages(bytes);
        if let Some(slot) = state.pool.find(pages.start, since) {
            if !state.pool.lend(slot) {
                return Err(ProtectError::TooMany);
            }
            let into = bytes.start % self.page;
            let len = bytes.len().min(self.page - into);
            let start = self.len + slot * self.page + into;
            return Ok(start..start + len);
        }
        let moved = |page: &usize| state.pool.find(*page, since).is_some();
        let end = pages.clone().find(moved).unwrap_or(pages.end);
        if !state.book.can_lend(pages.start..end) {
            return Err(ProtectError::TooMany);
        }
        // Protected already, as they are kept.
        state.book.lend(pages.start..end);
        Ok(bytes.start..bytes.end.min(end * self.page))
    }

    fn rouse(&self, state: &State) {
        if state.sleepers > 0 {
            self.released.notify_all();
        }
    }

    /// Clears the protection of what is not lent of these bytes, until nothing is if `wait`; says
    /// whether nothing is.
    pub(crate) fn open(&self, shared: &Shared, bytes: &Range<usize>, wait: bool) -> bool {
        let mut state = lock(&self.state);
        loop {
            let pages = self.pages(bytes);
            let lent = self.with(&mut state, shared, |book, hands| book.open(pages, hands));
            if !lent || !wait {
                return !lent;
            }
            state.sleepers += 1;
            let woken = self.released.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.sleepers -= 1;
        }
    }

    /// Whether something of these bytes is lent.
    pub(crate) fn is_lent(&self, bytes: &Range<usize>) -> bool {
        lock(&self.state).book.is_lent(self.pages(bytes))
    }

    /// Bytes that are registered, in protected pages, in lent pages, and in the pool as old bytes.
    pub(crate) fn bytes(&self) -> [usize; 4] {
        let state = lock(&self.state);
        let counted = [state.book.protected(), state.book.lent(), state.pool.used()];
        let [protected, lent, used] = counted.map(|pages| pages * self.page);
        [self.len, protected, lent, used]
    }

    fn address(&self, pages: &Range<usize>) -> (usize, usize) {
        let base = self.base.addr().get() + pages.start * self.page;
        (base, pages.len() * self.page)
    }

    /// Changes the book, and does what it asks for.
    fn with<T>(
        &self,
        state: &mut State,
        shared: &Shared,
        change: impl FnOnce(&mut Book, &mut Hands<'_>) -> T,
    ) -> T {
        let mut hands = Hands {
            watch: self,
            shared,
            pool: &mut state.pool,
        };
        change(&mut state.book, &mut hands)
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
        let fault = |book: &mut Book, hands: &mut Hands<'_>| book.fault(index, hands);
        if self.with(&mut state, shared, fault) == Verdict::Wait {
            Tally::add(&shared.tally.waits);
        }
        true
    }
}

/// Does what a book asks for.
struct Hands<'a> {
    watch: &'a Watch,
    shared: &'a Shared,
    pool: &'a mut Pool,
}

impl Effects for Hands<'_> {
    fn clear(&mut self, pages: Range<usize>) {
        let (base, len) = self.watch.address(&pages);
        Tally::add(&self.shared.tally.clears);
        match self.shared.userfault.clear(base, len) {
            // Unmapped behind our back: nobody can write there.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => log::error!("pages stay protected, writers may hang: {errno}"),
        }
    }

    fn evacuate(&mut self, page: usize, kept: u32) -> bool {
        let Some(slot) = self.pool.take(page, kept) else {
            return false;
        };
        let Watch {
            base,
            len,
            page: bytes,
            ..
        } = *self.watch;
        // SAFETY: the page is one of the book's, so it lies in the memory.
        let from = unsafe { base.byte_add(page * bytes) };
        // SAFETY: so does the slot, behind all that can be lent.
        let to = unsafe { base.byte_add(len + slot * bytes) };
        // SAFETY: both are initialised and long enough. The page is kept, so it is protected and
        // nobody writes it; the slot was free, so nobody reads it, and it is never protected.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Tally::add(&self.shared.tally.copies);
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
            watch.open(self, &(0..watch.len), false);
        }
    }
}
