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
}

/// The pages of one piece of memory. What has to be cleared is told to a function: of those pages
/// the protection goes, and who waits there is woken.
pub(crate) struct Book {
    pages: Box<[Page]>,
    protected: usize,
    lent: usize,
    wanted: usize,
}

/// What is to be done about a write that was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The page is lent: the writer sleeps, its release will wake it.
    Wait,
    /// The page is not lent, and has been cleared.
    Clear,
}

impl Book {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: vec![Page::default(); pages].into_boxed_slice(),
            protected: 0,
            lent: 0,
            wanted: 0,
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

    fn some(&self, pages: Range<usize>) -> &[Page] {
        self.pages.get(pages).unwrap_or_default()
    }

    /// Whether any of these is lent.
    pub(crate) fn is_lent(&self, pages: Range<usize>) -> bool {
        self.some(pages).iter().any(|page| page.loans > 0)
    }

    /// The first pages in a row, from `from` on, that are lent and that somebody has tried to write.
    pub(crate) fn next_wanted(&self, from: usize) -> Option<Range<usize>> {
        let rest = self.pages.get(from..)?;
        let start = rest.iter().position(|page| page.wanted)?;
        let count = rest.iter().skip(start).take_while(|page| page.wanted);
        let count = count.count();
        Some(from + start..from + start + count)
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

    /// Lends pages, which have all been protected.
    pub(crate) fn lend(&mut self, pages: Range<usize>) {
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            self.lent += usize::from(page.loans == 0);
            self.protected += usize::from(!page.protected);
            page.protected = true;
            page.loans = page.loans.saturating_add(1);
        }
    }

    /// Gives pages back. Those that are lent no more stay protected, but if somebody waits for
    /// them (or `lazy` is false) they are cleared, in runs.
    pub(crate) fn release(
        &mut self,
        pages: Range<usize>,
        lazy: bool,
        clear: &mut impl FnMut(Range<usize>),
    ) {
        for page in self.pages.get_mut(pages.clone()).unwrap_or_default() {
            self.lent -= usize::from(page.loans == 1);
            page.loans = page.loans.saturating_sub(1);
        }
        self.clear_where(pages, |page| page.wanted || !lazy, clear);
    }

    /// Clears what is protected and not lent, in runs; says whether anything is lent.
    pub(crate) fn open(
        &mut self,
        pages: Range<usize>,
        clear: &mut impl FnMut(Range<usize>),
    ) -> bool {
        self.clear_where(pages.clone(), |_| true, clear);
        self.is_lent(pages)
    }

    /// Somebody wants to write to these pages: those that are lent are cleared by their release.
    pub(crate) fn want(&mut self, pages: Range<usize>) {
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            let new = page.loans > 0 && !page.wanted;
            self.wanted += usize::from(new);
            page.wanted |= new;
        }
    }

    /// A write to a page was stopped: clears it, or has the writer wait for the release.
    pub(crate) fn fault(&mut self, index: usize, clear: &mut impl FnMut(Range<usize>)) -> Verdict {
        let pages = index..index + 1;
        if self.is_lent(pages.clone()) {
            self.want(pages);
            return Verdict::Wait;
        }
        if let Some(page) = self.pages.get_mut(index) {
            self.protected -= usize::from(page.protected);
            *page = Page::default();
        }
        // Also where it was not known to be protected.
        clear(pages);
        Verdict::Clear
    }

    /// Clears pages that are protected, not lent, and that `which` names.
    fn clear_where(
        &mut self,
        pages: Range<usize>,
        which: impl Fn(&Page) -> bool,
        clear: &mut impl FnMut(Range<usize>),
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
                clear(run);
            }
        }
        if let Some(run) = run {
            clear(run);
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
