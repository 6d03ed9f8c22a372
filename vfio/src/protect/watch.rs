//! One piece of memory that is watched: its book and its protections change together.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::book::{Book, Hands, Verdict};
use super::shared::{Shared, Tally};
use super::twin::Twin;
use super::userfault::UserFault;
use super::{PollingThread, ProtectError};
use crate::pages::HUGE;
use crate::space::lock;

/// Memory that is registered with the descriptor, page by page.
pub(crate) struct Watch {
    twin: Twin,
    /// Bytes of a page, a power of two.
    page: usize,
    /// Its huge pages are mapped whole again after they have been protected, if they are unmapped.
    whole: bool,
    state: Mutex<State>,
    /// Pages that are lent and that somebody has tried to write, as the book says.
    wanted: AtomicUsize,
    /// Something can be written again, and there are sleepers.
    opened: Condvar,
    /// How often one of them was woken.
    #[cfg(test)]
    pub(super) naps: AtomicUsize,
}

struct State {
    book: Book,
    /// The memory may belong to others by now: nothing of it is touched any more.
    closed: bool,
    /// Those who wait for a release without a fault.
    sleepers: usize,
    /// Something of it was lent by a thread that polls a NIC, and so perhaps written by it.
    polled: bool,
    row: Row,
}

/// Writes that were stopped one behind the other.
///
/// Who fills a buffer by a pointer would be stopped at each of its pages. From the second in a row on
/// twice as many are cleared each time, so at most as many in vain as were written.
#[derive(Default)]
struct Row {
    /// The page behind those that were cleared last, and how many these were.
    next: usize,
    len: usize,
}

impl Row {
    /// The pages to be cleared after a write to the first of them was stopped, `most` at the most, of
    /// `pages` that there are.
    fn grow(&mut self, index: usize, most: usize, pages: usize) -> Range<usize> {
        let more = if index == self.next { self.len * 2 } else { 0 };
        let end = index + more.clamp(1, most);
        self.next = end;
        self.len = end - index;
        index..end.min(pages)
    }
}

/// Bytes that are cleared at once: the thread that polls the NIC waits for that, some 200 µs in small
/// pages.
const MOST: usize = 2 << 20;

/// What is done about pages that are lent when somebody wants to write to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// Sleep until they are released.
    Wait,
    /// Give the program others in their place.
    Depart,
    /// Nothing.
    None,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?})", self.twin)
    }
}

impl Watch {
    /// Watches memory in pages of `page` bytes; its addresses and its length are multiples of it.
    ///
    /// # Safety
    /// The memory belongs to the caller, who keeps it until after [`close`](Self::close).
    pub(crate) unsafe fn new(
        shared: &Shared,
        twin: Twin,
        page: usize,
    ) -> Result<Arc<Self>, ProtectError> {
        let (base, len) = (twin.program().addr().get(), twin.len());
        let mut watches = lock(&shared.watches);
        if !shared.alive.load(Ordering::SeqCst) {
            return Err(ProtectError::HandlerGone);
        }
        // SAFETY: the caller's promise.
        unsafe { shared.userfault.register(base, len) }
            .map_err(|errno| ProtectError::system("cannot watch memory for writes", errno))?;
        let watch = Arc::new(Self {
            whole: comes_back_whole(&twin, &shared.userfault),
            twin,
            page,
            state: Mutex::new(State {
                book: Book::new(len / page),
                closed: false,
                sleepers: 0,
                polled: false,
                row: Row::default(),
            }),
            wanted: AtomicUsize::new(0),
            opened: Condvar::new(),
            #[cfg(test)]
            naps: AtomicUsize::new(0),
        });
        watches.push(Arc::clone(&watch));
        Ok(watch)
    }

    /// The memory.
    pub(crate) fn twin(&self) -> &Twin {
        &self.twin
    }

    /// What is protected by itself, in bytes.
    pub(crate) fn page(&self) -> usize {
        self.page
    }

    /// Whether huge pages that were protected are mapped whole again.
    #[cfg(test)]
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Clears all protections, and watches no more.
    pub(crate) fn close(&self, shared: &Shared) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.book = Book::new(0);
        self.publish(&state);
        let (base, len) = (self.twin.program().addr().get(), self.twin.len());
        if let Err(errno) = shared.userfault.unregister(base, len) {
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

    /// Lends bytes: when this returns, no write changes them, where they are lent from, before they
    /// are released.
    pub(crate) fn lend(&self, shared: &Shared, bytes: &Range<usize>) -> Result<(), ProtectError> {
        let mut state = lock(&self.state);
        let pages = self.pages(bytes);
        if !shared.alive.load(Ordering::SeqCst) {
            return Err(ProtectError::HandlerGone);
        }
        if !state.book.can_lend(pages.clone()) {
            return Err(ProtectError::TooMany);
        }
        if !state.book.gather(pages.clone(), &mut self.hands(shared)) {
            return Err(ProtectError::Away);
        }
        let begins = state.book.bare(pages.clone()) * self.page;
        if !shared.begin(begins) {
            return Err(ProtectError::OverLimit);
        }
        if let Some(bare) = state.book.to_protect(pages.clone()) {
            let (base, len) = self.address(&bare);
            Tally::add(&shared.tally.protects);
            shared.userfault.protect(base, len).map_err(|errno| {
                shared.end(begins);
                // Some of them may be protected now, and nobody is to wait for a release.
                state.book.doubt(bare.clone());
                state.book.open(bare, &mut self.hands(shared));
                ProtectError::system("cannot protect pages", errno)
            })?;
        }
        state.book.lend(pages);
        state.polled |= PollingThread::is_here();
        Ok(())
    }

    /// Lends bytes once more that are lent, as they were when they were lent.
    pub(crate) fn lend_again(
        &self,
        shared: &Shared,
        bytes: &Range<usize>,
    ) -> Result<(), ProtectError> {
        let mut state = lock(&self.state);
        let pages = self.pages(bytes);
        if !shared.alive.load(Ordering::SeqCst) {
            return Err(ProtectError::HandlerGone);
        }
        if !state.book.can_lend(pages.clone()) {
            return Err(ProtectError::TooMany);
        }
        state.book.lend(pages);
        Ok(())
    }

    /// Gives bytes back that were lent. If these were the last loans, wakes
    /// who waits for them, or has the page return home.
    pub(crate) fn release(&self, shared: &Shared, bytes: &Range<usize>) {
        let mut state = lock(&self.state);
        // With nobody to clear them later they are cleared now.
        let lazy = shared.alive.load(Ordering::SeqCst);
        let (pages, before) = (self.pages(bytes), state.book.lent());
        state.book.release(pages, lazy, &mut self.hands(shared));
        shared.end((before - state.book.lent()) * self.page);
        self.publish(&state);
    }

    /// Makes these bytes writable, with as much patience as there is where they are lent; says
    /// whether they are. What is lent is wanted.
    pub(crate) fn open(&self, shared: &Shared, bytes: &Range<usize>, patience: Patience) -> bool {
        let pages = self.pages(bytes);
        let mut first = pages.start;
        // In pieces, between which others have their turn: a thread that waits for the lock gets it only
        // if this one does not ask for it again at once. What is lent meanwhile is seen below.
        while pages.end.saturating_sub(first) > self.most() {
            let piece = first..first + self.most();
            first = piece.end;
            lock(&self.state).book.open(piece, &mut self.hands(shared));
            std::thread::yield_now();
        }
        let mut state = lock(&self.state);
        loop {
            let pages = pages.clone();
            let hands = &mut self.hands(shared);
            let mut shut = state.book.open(pages.clone(), hands);
            if shut {
                state.book.want(pages.clone());
                if patience == Patience::Depart {
                    shut = state.book.depart(pages, hands);
                    self.publish(&state);
                }
                self.show_wanted(&state);
            }
            if !shut || patience != Patience::Wait {
                return !shut;
            }
            state = self.sleep(state);
        }
    }

    /// Pages that are cleared at once.
    fn most(&self) -> usize {
        (MOST / self.page).max(1)
    }

    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let woken = self.opened.wait(state);
        state = woken.unwrap_or_else(PoisonError::into_inner);
        state.sleepers -= 1;
        #[cfg(test)]
        self.naps.fetch_add(1, Ordering::Relaxed);
        state
    }

    /// With nobody to serve faults any more: clears all that is not lent, and if one of those who
    /// wait may be a thread that polls the NIC, lets all of them go on.
    pub(crate) fn leave(&self, shared: &Shared) {
        let mut state = lock(&self.state);
        let (all, hands) = (0..self.twin.len() / self.page, &mut self.hands(shared));
        if !state.closed && state.book.open(all.clone(), hands) && state.polled {
            state.book.depart(all, hands);
            self.publish(&state);
        }
    }

    /// Tells those who lend that somebody waits.
    fn show_wanted(&self, state: &State) {
        self.wanted.store(state.book.wanted(), Ordering::Relaxed);
    }

    /// Tells of what has changed, also those who sleep.
    fn publish(&self, state: &State) {
        self.show_wanted(state);
        if state.sleepers > 0 {
            self.opened.notify_all();
        }
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

    /// The first of these bytes in a row that are lent and that somebody has tried to write.
    pub(crate) fn first_wanted(&self, bytes: &Range<usize>) -> Option<Range<usize>> {
        if !self.has_wanted() {
            return None;
        }
        let run = lock(&self.state).book.first_wanted(self.pages(bytes))?;
        let (start, end) = (run.start * self.page, run.end * self.page);
        Some(start.max(bytes.start)..end.min(bytes.end))
    }

    /// Whether something of these bytes is lent.
    pub(crate) fn is_lent(&self, bytes: &Range<usize>) -> bool {
        lock(&self.state).book.is_lent(self.pages(bytes))
    }

    /// Whether the program has other pages in the place of some of these bytes.
    pub(crate) fn is_away(&self, bytes: &Range<usize>) -> bool {
        lock(&self.state).book.is_away(self.pages(bytes))
    }

    /// Whether older bytes of some of these are lent than the program has.
    pub(crate) fn is_outdated(&self, bytes: &Range<usize>) -> bool {
        lock(&self.state).book.is_outdated(self.pages(bytes))
    }

    /// Bytes that are registered, in protected pages, in lent pages, and in pages that are away.
    pub(crate) fn bytes(&self) -> [usize; 4] {
        let state = lock(&self.state);
        let book = &state.book;
        let counted = [book.protected(), book.lent(), book.away()];
        let [protected, lent, away] = counted.map(|pages| pages * self.page);
        [self.twin.len(), protected, lent, away]
    }

    /// Where the program has pages, and their bytes.
    fn address(&self, pages: &Range<usize>) -> (usize, usize) {
        let base = self.twin.program().addr().get() + pages.start * self.page;
        (base, pages.len() * self.page)
    }

    fn hands<'a>(&'a self, shared: &'a Shared) -> Doing<'a> {
        Doing {
            watch: self,
            shared,
        }
    }

    /// The page that the program has at an address.
    pub(crate) fn page_at(&self, address: usize) -> Option<usize> {
        let offset = address.checked_sub(self.twin.program().addr().get())?;
        (offset < self.twin.len()).then_some(offset / self.page)
    }

    /// What is done about a write to a page that was stopped.
    fn fault(&self, state: &mut State, shared: &Shared, index: usize, polls: bool) -> Verdict {
        let all = self.twin.len() / self.page;
        let row = state.row.grow(index, self.most(), all);
        let hands = &mut self.hands(shared);
        state.book.fault_in_row(row, polls, hands)
    }

    /// Serves a write of this thread that was stopped, if it was here: comes back when it can be
    /// tried again.
    pub(crate) fn serve_here(&self, shared: &Shared, address: usize) -> bool {
        let Some(index) = self.page_at(address) else {
            return false;
        };
        Tally::add(&shared.tally.faults);
        let polls = PollingThread::is_here();
        let mut waited = false;
        let mut state = lock(&self.state);
        // If it is closed, the memory is not protected any more.
        while !state.closed {
            let verdict = self.fault(&mut state, shared, index, polls);
            if verdict == Verdict::GoOn {
                self.publish(&state);
                break;
            }
            // Nothing has been released: two who wait would wake each other for ever.
            self.show_wanted(&state);
            if !waited {
                Tally::add(&shared.tally.waits);
                waited = true;
            }
            state = self.sleep(state);
        }
        true
    }

    /// Serves a write that was stopped, if it was here, by a thread that must not sleep if it
    /// `polls`.
    pub(crate) fn serve(&self, shared: &Shared, address: usize, polls: bool) -> bool {
        let Some(index) = self.page_at(address) else {
            return false;
        };
        let mut state = lock(&self.state);
        if state.closed {
            return false;
        }
        let verdict = self.fault(&mut state, shared, index, polls);
        if verdict == Verdict::Wait {
            Tally::add(&shared.tally.waits);
            if polls {
                log::error!(
                    "a thread that polls the NIC waits for itself: it wrote to what is lent"
                );
            }
        }
        self.publish(&state);
        true
    }
}

/// Whether the kernel maps a transparent huge page whole again that was protected and then unmapped,
/// as some do (x86, Linux 6.14 or later) that give back the table of its small pages: tried with the
/// first one, which nobody has been given yet.
fn comes_back_whole(twin: &Twin, userfault: &UserFault) -> bool {
    if !twin.is_collapsed() {
        return false;
    }
    let base = twin.program().addr().get();
    let unmapped = userfault
        .protect(base, HUGE)
        .and_then(|()| userfault.clear(base, HUGE))
        .and_then(|()| twin.unmap(0, HUGE));
    let before = minor_faults();
    for offset in [0, HUGE / 2] {
        let place = twin.program().as_ptr().wrapping_add(offset);
        // SAFETY: what is collapsed has a huge page at least, which is initialised.
        unsafe { place.read_volatile() };
    }
    unmapped.is_ok() && minor_faults() - before < 2
}

/// Faults of this thread that the kernel has served by itself.
pub(super) fn minor_faults() -> i64 {
    // SAFETY: numbers, of which any are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is that of the call, which cannot fail for this thread.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    usage.ru_minflt
}

/// A run of so many bytes is cleared by mapping it anew. Less costs as much either way: two calls,
/// or a fault for each page.
const MAP_ANEW: usize = 16 << 10;

/// Does what a book asks for.
struct Doing<'a> {
    watch: &'a Watch,
    shared: &'a Shared,
}

impl Doing<'_> {
    /// Clears the protection of pages by unmapping them and mapping them as they were. An error if
    /// there is something that was not cleared.
    ///
    /// `UFFDIO_WRITEPROTECT` leaves pages of shared memory read-only, so that there is a fault at the
    /// first write to each: the kernel (6.18, `vma_wants_manual_pte_write_upgrade`) asks whether the
    /// mapping is one in which pages become writable by a fault only, and takes it for another kind,
    /// as userfaultfd has made it read-only beforehand. Pages that are mapped by `UFFDIO_CONTINUE`
    /// are writable at once. Measured, for 1 MiB: 850 ns a page with the fault, 330 this way.
    ///
    /// Whoever writes between the two calls finds the mark of the protection, and waits as before.
    fn map_anew(&self, start: usize, len: usize) -> Result<(), Errno> {
        let Watch { twin, .. } = self.watch;
        twin.unmap(start, len)?;
        self.shared
            .userfault
            .map(twin.program().addr().get() + start, len)
    }

    /// Watches a page that has just taken its place, and wakes who waits there.
    fn begin(&self, base: usize, len: usize) {
        let userfault = &self.shared.userfault;
        // SAFETY: as in `Watch::new`.
        if let Err(errno) = unsafe { userfault.register(base, len) } {
            log::error!("a page cannot be lent any more, as it cannot be watched: {errno}");
        }
        if let Err(errno) = userfault.wake(base, len) {
            log::error!("writers may hang, as they cannot be woken: {errno}");
        }
    }
}

impl Hands for Doing<'_> {
    fn clear(&mut self, pages: Range<usize>) {
        let (base, len) = self.watch.address(&pages);
        Tally::add(&self.shared.tally.clears);
        let (twin, start) = (&self.watch.twin, pages.start * self.watch.page);
        if len >= MAP_ANEW && !self.watch.whole && self.map_anew(start, len).is_ok() {
            return;
        }
        match self.shared.userfault.clear(base, len) {
            // Unmapped behind our back: nobody can write there.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => log::error!("pages stay protected, writers may hang: {errno}"),
        }
        if self.watch.whole {
            // The protection has split the mapping. If this fails it stays so.
            let _ = twin.unmap(start, len);
        }
    }

    fn depart(&mut self, page: usize) -> bool {
        let Watch {
            twin, page: len, ..
        } = self.watch;
        if !twin.can_depart() {
            return false;
        }
        // Nobody can write: it is lent, so it is protected.
        if let Err(errno) = twin.depart(page * len, *len) {
            log::error!("no other page for one that is lent: {errno}");
            return false;
        }
        let (base, len) = self.watch.address(&(page..page + 1));
        self.begin(base, len);
        Tally::add(&self.shared.tally.departures);
        true
    }

    fn return_home(&mut self, page: usize) -> bool {
        let pages = page..page + 1;
        let (base, len) = self.watch.address(&pages);
        // Nobody can write to the stand-in from here on, and the old page is lent no more.
        let protected = self.shared.userfault.protect(base, len);
        let returned =
            protected.and_then(|()| self.watch.twin.return_home(page * self.watch.page, len));
        match returned {
            Ok(()) => {
                self.begin(base, len);
                Tally::add(&self.shared.tally.returns);
                true
            }
            Err(errno) => {
                log::warn!("a page cannot be lent, as it cannot return home yet: {errno}");
                self.clear(pages);
                false
            }
        }
    }
}
