//! Counts per page: who is lent what, what is protected, who waits. No system call in here.

use std::ops::Range;

/// A page, which is what can be protected by itself.
#[derive(Clone, Copy, Default)]
struct Page {
    /// To the device, which reads the page itself.
    loans: u32,
    /// Those who want its bytes as they are, wherever.
    kept: u32,
    /// Surely protected. (After a failed call it may be although this says no, never the other way
    /// round.)
    protected: bool,
    /// Somebody has tried to write while it was lent.
    wanted: bool,
}

impl Page {
    fn is_lent(&self) -> bool {
        self.loans > 0 || self.kept > 0
    }
}

/// What a book asks for.
pub(crate) trait Effects {
    /// Clears the protection of pages, and wakes who waits there.
    fn clear(&mut self, pages: Range<usize>);

    /// Brings the bytes of a page to another place for `kept` holders; false if there is none.
    fn evacuate(&mut self, page: usize, kept: u32) -> bool;
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
        self.some(pages).iter().any(Page::is_lent)
    }

    /// Whether each of these can be lent once more.
    pub(crate) fn can_lend(&self, pages: Range<usize>) -> bool {
        let countable = |page: &Page| page.loans < u32::MAX && page.kept < u32::MAX;
        self.some(pages).iter().all(countable)
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
        self.count(pages, |page| page.loans = page.loans.saturating_add(1));
    }

    /// Keeps the bytes of pages, which have all been protected.
    pub(crate) fn keep(&mut self, pages: Range<usize>) {
        self.count(pages, |page| page.kept = page.kept.saturating_add(1));
    }

    fn count(&mut self, pages: Range<usize>, add: impl Fn(&mut Page)) {
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            self.lent += usize::from(!page.is_lent());
            self.protected += usize::from(!page.protected);
            page.protected = true;
            add(page);
        }
    }

    /// Gives pages back. Those that are lent no more stay protected, but if somebody waits for
    /// them (or `lazy` is false) they are cleared, in runs.
    pub(crate) fn release(&mut self, pages: Range<usize>, lazy: bool, effects: &mut impl Effects) {
        for page in self.pages.get_mut(pages.clone()).unwrap_or_default() {
            page.loans = page.loans.saturating_sub(1);
            self.lent -= usize::from(!page.is_lent());
        }
        self.clear_where(pages, |page| page.wanted || !lazy, effects);
    }

    /// One keeps the bytes of a page no more, which still has them: as [`release`](Self::release).
    pub(crate) fn let_go(&mut self, index: usize, lazy: bool, effects: &mut impl Effects) {
        if let Some(page) = self.pages.get_mut(index) {
            page.kept = page.kept.saturating_sub(1);
            self.lent -= usize::from(!page.is_lent());
        }
        self.clear_where(index..index + 1, |page| page.wanted || !lazy, effects);
    }

    /// Clears what is protected and not lent, in runs, and what is only kept, if there is another
    /// place for it; says whether anything is lent.
    pub(crate) fn open(&mut self, pages: Range<usize>, effects: &mut impl Effects) -> bool {
        self.clear_where(pages.clone(), |_| true, effects);
        self.is_lent(pages)
    }

    /// A write to a page was stopped: clears it, or has the writer wait for the release.
    pub(crate) fn fault(&mut self, index: usize, effects: &mut impl Effects) -> Verdict {
        let Some(page) = self.pages.get_mut(index) else {
            effects.clear(index..index + 1);
            return Verdict::Clear;
        };
        page.wanted = true;
        // Frames that are still to be posted take the bytes from elsewhere at once.
        self.evacuate(index, effects);
        self.clear_where(index..index + 1, |_| true, effects);
        match self.pages.get(index) {
            Some(page) if page.is_lent() => Verdict::Wait,
            // Also where it was not known to be protected.
            _ => {
                if let Some(page) = self.pages.get_mut(index).filter(|page| page.wanted) {
                    *page = Page::default();
                    effects.clear(index..index + 1);
                }
                Verdict::Clear
            }
        }
    }

    /// Brings what is kept of a page elsewhere; says whether nothing is kept there any more.
    fn evacuate(&mut self, index: usize, effects: &mut impl Effects) -> bool {
        let Some(page) = self.pages.get_mut(index) else {
            return true;
        };
        if page.kept == 0 {
            return true;
        }
        let moved = effects.evacuate(index, page.kept);
        if moved {
            page.kept = 0;
            self.lent -= usize::from(!page.is_lent());
        }
        moved
    }

    /// Clears pages that are not lent and that `which` names.
    fn clear_where(
        &mut self,
        pages: Range<usize>,
        which: impl Fn(&Page) -> bool,
        effects: &mut impl Effects,
    ) {
        let mut run: Option<Range<usize>> = None;
        for index in pages {
            let Some(page) = self.pages.get(index) else {
                break;
            };
            let named = page.loans == 0 && page.protected && which(page);
            let clears = named && self.evacuate(index, effects);
            if clears && let Some(page) = self.pages.get_mut(index) {
                self.protected -= 1;
                *page = Page::default();
                run = Some(run.map_or(index, |run| run.start)..index + 1);
            } else if let Some(run) = run.take() {
                effects.clear(run);
            }
        }
        if let Some(run) = run {
            effects.clear(run);
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
