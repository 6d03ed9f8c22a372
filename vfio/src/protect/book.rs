//! Counts per page: who is lent what, what is protected, who waits. No system call in here.

use std::ops::Range;

/// A page, which is what can be protected by itself.
#[derive(Clone, Copy, Default)]
struct Page {
    loans: u32,
    /// Surely protected. (After a failed call it may be although this says no, never the other way
    /// round.)
    protected: bool,
    /// Somebody has tried to write while it was lent.
    wanted: bool,
}

/// The pages of one piece of memory.
pub(crate) struct Book {
    pages: Box<[Page]>,
    protected: usize,
    lent: usize,
}

/// What is to be done about a write that was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The page is lent: the writer sleeps, its release will wake it.
    Wait,
    /// The page is not lent: clear its protection.
    Clear,
}

impl Book {
    pub(crate) fn new(pages: usize) -> Self {
        Self {
            pages: vec![Page::default(); pages].into_boxed_slice(),
            protected: 0,
            lent: 0,
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

    fn some(&self, pages: Range<usize>) -> &[Page] {
        self.pages.get(pages).unwrap_or_default()
    }

    /// Whether any of these is lent.
    pub(crate) fn is_lent(&self, pages: Range<usize>) -> bool {
        self.some(pages).iter().any(|page| page.loans > 0)
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
            page.loans = page.loans.saturating_add(1);
            page.protected = true;
        }
    }

    /// Gives pages back. Those that are lent no more stay protected, but if somebody waits for
    /// them (or `lazy` is false) they are handed to `clear`, in runs.
    pub(crate) fn release(
        &mut self,
        pages: Range<usize>,
        lazy: bool,
        clear: impl FnMut(Range<usize>),
    ) {
        for page in self.pages.get_mut(pages.clone()).unwrap_or_default() {
            page.loans = page.loans.saturating_sub(1);
            self.lent -= usize::from(page.loans == 0);
        }
        self.clear_where(pages, |page| page.wanted || !lazy, clear);
    }

    /// Hands what is protected and not lent to `clear`, in runs; says whether anything is lent.
    pub(crate) fn open(&mut self, pages: Range<usize>, clear: impl FnMut(Range<usize>)) -> bool {
        self.clear_where(pages.clone(), |_| true, clear);
        self.is_lent(pages)
    }

    /// A write to a page was stopped.
    pub(crate) fn fault(&mut self, index: usize) -> Verdict {
        let Some(page) = self.pages.get_mut(index) else {
            return Verdict::Clear;
        };
        if page.loans > 0 {
            page.wanted = true;
            return Verdict::Wait;
        }
        self.protected -= usize::from(page.protected);
        *page = Page::default();
        Verdict::Clear
    }

    /// Forgets what is protected among pages that are not lent and that `which` names.
    fn clear_where(
        &mut self,
        pages: Range<usize>,
        which: impl Fn(&Page) -> bool,
        mut clear: impl FnMut(Range<usize>),
    ) {
        let mut run: Option<Range<usize>> = None;
        for index in pages {
            let Some(page) = self.pages.get_mut(index) else {
                break;
            };
            if page.loans == 0 && page.protected && which(page) {
                self.protected -= 1;
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
