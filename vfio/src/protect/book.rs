//! Counts per page: who is lent what, what is protected, who waits. No system call in here.

use std::ops::Range;

/// A page, which is what can be protected by itself.
#[derive(Clone, Copy, Default)]
struct Page {
    loans: u32,
    /// Surely protected. (After a failed call it may be although this says no, never the other way
    /// round.)
    protected: bool,
    /// Somebody has tried to write; only while it is lent.
    wanted: bool,
    /// The program has another page in its place, which it may write, so it is not protected.
    away: bool,
}

impl Page {
    /// Whether a writer has to wait.
    fn is_shut(&self) -> bool {
        self.loans > 0 && !self.away
    }
}

/// What a book asks for.
pub(crate) trait Hands {
    /// Clears the protection of pages, and wakes who waits there.
    fn clear(&mut self, pages: Range<usize>);

    /// Puts another page in the place of one that is lent, for the program, and wakes who waits
    /// there; false if that cannot be.
    fn depart(&mut self, page: usize) -> bool;

    /// Undoes that, for a page that is lent no more; false if that cannot be now.
    fn return_home(&mut self, page: usize) -> bool;
}

/// The pages of one piece of memory.
pub(crate) struct Book {
    pages: Box<[Page]>,
    protected: usize,
    lent: usize,
    wanted: usize,
    away: usize,
}

/// What is to be done about a write that was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The page is lent: the writer sleeps, its release will wake it.
    Wait,
    /// The page was not lent, and has been cleared, or the writer has another page: it goes on.
    GoOn,
}

impl Book {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: vec![Page::default(); pages].into_boxed_slice(),
            protected: 0,
            lent: 0,
            wanted: 0,
            away: 0,
        }
    }

    /// Pages that are protected now.
    pub(crate) fn protected(&self) -> usize {
        self.protected
    }

    /// Pages that are lent now.
    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    /// Pages that are lent now and that somebody has tried to write.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// Pages that are away now.
    pub(crate) fn away(&self) -> usize {
        self.away
    }

    fn some(&self, pages: Range<usize>) -> &[Page] {
        self.pages.get(pages).unwrap_or_default()
    }

    /// Whether any of these is lent.
    pub(crate) fn is_lent(&self, pages: Range<usize>) -> bool {
        self.some(pages).iter().any(|page| page.loans > 0)
    }

    /// Whether any of these is away.
    pub(crate) fn is_away(&self, pages: Range<usize>) -> bool {
        self.away > 0 && self.some(pages).iter().any(|page| page.away)
    }

    /// Whether any of these is away and lent: what is away otherwise only waits to be asked for, and
    /// returns then.
    pub(crate) fn is_outdated(&self, pages: Range<usize>) -> bool {
        let outdated = |page: &Page| page.away && page.loans > 0;
        self.away > 0 && self.some(pages).iter().any(outdated)
    }

    /// How many of these are not lent.
    pub(crate) fn bare(&self, pages: Range<usize>) -> usize {
        let bare = |page: &&Page| page.loans == 0;
        self.some(pages).iter().filter(bare).count()
    }

    /// Whether any of these is lent, and the program has no other page for it.
    pub(crate) fn is_shut(&self, pages: Range<usize>) -> bool {
        self.some(pages).iter().any(Page::is_shut)
    }

    /// The first pages in a row, from `from` on, that are lent and that somebody has tried to write.
    pub(crate) fn next_wanted(&self, from: usize) -> Option<Range<usize>> {
        self.first_wanted(from..self.pages.len())
    }

    /// The same among some pages.
    pub(crate) fn first_wanted(&self, pages: Range<usize>) -> Option<Range<usize>> {
        let some = self.some(pages.clone());
        let start = some.iter().position(|page| page.wanted)?;
        let count = some.iter().skip(start).take_while(|page| page.wanted);
        let start = pages.start + start;
        Some(start..start + count.count())
    }

    /// Has pages that are away and not lent any more return home, and says whether all of these are
    /// at home.
    pub(crate) fn gather(&mut self, pages: Range<usize>, hands: &mut impl Hands) -> bool {
        let stays = |index: &usize| !self.return_home(*index, hands);
        pages.filter(stays).count() == 0
    }

    /// Says whether a page is at home.
    fn return_home(&mut self, index: usize, hands: &mut impl Hands) -> bool {
        let Some(page) = self.pages.get_mut(index) else {
            return true;
        };
        if page.away && page.loans == 0 && hands.return_home(index) {
            self.away -= 1;
            *page = Page::default();
        }
        !page.away
    }

    /// Whether each of these can be lent once more.
    pub(crate) fn can_lend(&self, pages: Range<usize>) -> bool {
        self.some(pages).iter().all(|page| page.loans < u32::MAX)
    }

    /// What has to be protected before these are lent: nothing if all are, else from the first that
    /// is not to the last, in one call. What lies between and is protected stays so.
    pub(crate) fn to_protect(&self, pages: Range<usize>) -> Option<Range<usize>> {
        let bare = |page: &Page| !page.protected;
        let some = self.some(pages.clone());
        let first = some.iter().position(bare)?;
        let last = some.iter().rposition(bare)?;
        Some(pages.start + first..pages.start + last + 1)
    }

    /// After a call that failed: takes pages for protected that are not lent, so that
    /// [`open`](Self::open) clears them.
    pub(crate) fn doubt(&mut self, pages: Range<usize>) {
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            self.protected += usize::from(!page.protected);
            page.protected = true;
        }
    }

    /// Lends pages, which have all been protected, or are lent already.
    pub(crate) fn lend(&mut self, pages: Range<usize>) {
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            self.lent += usize::from(page.loans == 0);
            self.protected += usize::from(!page.protected && !page.away);
            page.protected = !page.away;
            page.loans = page.loans.saturating_add(1);
        }
    }

    /// Gives pages back. Those that are lent no more return home, if they are away; others stay
    /// protected, but if somebody waits for them (or `lazy` is false) they are cleared, in runs.
    pub(crate) fn release(&mut self, pages: Range<usize>, lazy: bool, hands: &mut impl Hands) {
        for page in self.pages.get_mut(pages.clone()).unwrap_or_default() {
            self.lent -= usize::from(page.loans == 1);
            page.loans = page.loans.saturating_sub(1);
            if page.away && page.loans == 0 {
                self.wanted -= usize::from(page.wanted);
                page.wanted = false;
            }
        }
        self.gather(pages.clone(), hands);
        self.clear_where(pages, |page| page.wanted || !lazy, hands);
    }

    /// Clears what is protected and not lent, in runs; says whether a writer has to wait for any.
    pub(crate) fn open(&mut self, pages: Range<usize>, hands: &mut impl Hands) -> bool {
        self.clear_where(pages.clone(), |_| true, hands);
        self.is_shut(pages)
    }

    /// Gives the program other pages in the place of those that are lent; says whether a writer has
    /// to wait for any all the same.
    pub(crate) fn depart(&mut self, pages: Range<usize>, hands: &mut impl Hands) -> bool {
        for index in pages.clone() {
            let shut = self.pages.get_mut(index).filter(|page| page.is_shut());
            if let Some(page) = shut
                && hands.depart(index)
            {
                self.protected -= usize::from(page.protected);
                self.away += 1;
                page.protected = false;
                page.away = true;
            }
        }
        self.is_shut(pages)
    }

    /// Somebody wants to write to these pages: those that are lent are cleared by their release, or
    /// return home by it, and had better be released soon.
    pub(crate) fn want(&mut self, pages: Range<usize>) {
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            let new = page.loans > 0 && !page.wanted;
            self.wanted += usize::from(new);
            page.wanted |= new;
        }
    }

    /// A write to a page was stopped: clears it, gives the writer another page if it must not
    /// sleep, or has it wait for the release.
    pub(crate) fn fault(&mut self, index: usize, polls: bool, hands: &mut impl Hands) -> Verdict {
        let pages = index..index + 1;
        self.want(pages.clone());
        if self.is_shut(pages.clone()) {
            let waits = !polls || self.depart(pages, hands);
            return if waits { Verdict::Wait } else { Verdict::GoOn };
        }
        if let Some(page) = self.pages.get_mut(index) {
            self.protected -= usize::from(page.protected);
            page.protected = false;
        }
        // Also where it was not known to be protected.
        hands.clear(pages);
        Verdict::GoOn
    }

    /// A write to the first of these pages was stopped, and others will follow in a row: clears all of
    /// them that are not lent, if the first is not, else as [`fault`](Self::fault).
    pub(crate) fn fault_in_row(
        &mut self,
        pages: Range<usize>,
        polls: bool,
        hands: &mut impl Hands,
    ) -> Verdict {
        let first = self.pages.get(pages.start);
        if pages.len() > 1 && first.is_some_and(|page| page.protected && page.loans == 0) {
            self.open(pages, hands);
            return Verdict::GoOn;
        }
        self.fault(pages.start, polls, hands)
    }

    /// Clears pages that are protected, not lent, and that `which` names.
    fn clear_where(
        &mut self,
        pages: Range<usize>,
        which: impl Fn(&Page) -> bool,
        hands: &mut impl Hands,
    ) {
        let mut run: Option<Range<usize>> = None;
        for index in pages {
            let Some(page) = self.pages.get_mut(index) else {
                break;
            };
            if page.loans == 0 && page.protected && which(page) {
                self.protected -= 1;
                self.wanted -= usize::from(page.wanted);
                *page = Page::default();
                run = Some(run.map_or(index, |run| run.start)..index + 1);
            } else if let Some(run) = run.take() {
                hands.clear(run);
            }
        }
        if let Some(run) = run {
            hands.clear(run);
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
