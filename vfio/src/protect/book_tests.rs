use super::*;

/// Remembers what was asked for; has other places for so many pages.
#[derive(Default)]
struct Played {
    room: usize,
    cleared: Vec<Range<usize>>,
    moved: Vec<(usize, u32)>,
}

impl Effects for Played {
    fn clear(&mut self, pages: Range<usize>) {
        self.cleared.push(pages);
    }

    fn evacuate(&mut self, page: usize, kept: u32) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.moved.push((page, kept));
        true
    }
}

/// The same, in the most simple-minded way: who has lent what, and how many keep each page.
struct Plain {
    loans: Vec<Range<usize>>,
    kept: [u32; PAGES],
    protected: [bool; PAGES],
    wanted: [bool; PAGES],
}

impl Plain {
    fn has_loans(&self, page: usize) -> bool {
        self.loans.iter().any(|loan| loan.contains(&page))
    }

    fn is_lent(&self, page: usize) -> bool {
        self.has_loans(page) || self.kept[page] > 0
    }

    /// Moves what is kept of a page, if there is room; says whether nothing is kept there any more.
    fn leave(&mut self, page: usize, should: &mut Played) -> bool {
        if self.kept[page] > 0 && should.evacuate(page, self.kept[page]) {
            self.kept[page] = 0;
        }
        self.kept[page] == 0
    }

    fn clear(&mut self, page: usize, should: &mut Played) {
        self.protected[page] = false;
        self.wanted[page] = false;
        match should.cleared.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => should.cleared.push(page..page + 1),
        }
    }

    fn clear_some(&mut self, pages: Range<usize>, all: bool, should: &mut Played) {
        for page in pages {
            let named = self.protected[page] && (all || self.wanted[page]);
            if named && !self.has_loans(page) && self.leave(page, should) {
                self.clear(page, should);
            }
        }
    }
}

const PAGES: usize = 12;

fn some(random: &mut fastrand::Rng) -> Range<usize> {
    let first = random.usize(..PAGES);
    first..random.usize(first + 1..=PAGES)
}

#[test]
fn the_book_counts_as_a_list_of_loans_would() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..2_000 {
        let mut book = Book::new(PAGES);
        let mut plain = Plain {
            loans: Vec::new(),
            kept: [0; PAGES],
            protected: [false; PAGES],
            wanted: [false; PAGES],
        };
        for _ in 0..60 {
            step(&mut book, &mut plain, &mut random);
            let protected = plain.protected.iter().filter(|page| **page).count();
            let lent = (0..PAGES).filter(|page| plain.is_lent(*page)).count();
            assert_eq!((book.protected(), book.lent()), (protected, lent));
        }
    }
}

fn step(book: &mut Book, plain: &mut Plain, random: &mut fastrand::Rng) {
    let pages = some(random);
    let lazy = random.bool();
    let room = random.usize(..4);
    let played = || Played {
        room,
        ..Played::default()
    };
    let (mut did, mut should) = (played(), played());
    match random.u8(..8) {
        0..3 => {
            let bare = |page: &usize| !plain.protected[*page];
            let bare: Vec<_> = pages.clone().filter(bare).collect();
            let wanted = bare
                .first()
                .zip(bare.last())
                .map(|(from, to)| *from..to + 1);
            assert_eq!(book.to_protect(pages.clone()), wanted);
            plain.protected[pages.clone()].fill(true);
            if random.bool() {
                book.lend(pages.clone());
                plain.loans.push(pages);
            } else {
                book.keep(pages.clone());
                pages.for_each(|page| plain.kept[page] += 1);
            }
        }
        3 | 4 if !plain.loans.is_empty() => {
            let loan = plain.loans.swap_remove(random.usize(..plain.loans.len()));
            book.release(loan.clone(), lazy, &mut did);
            plain.clear_some(loan, !lazy, &mut should);
        }
        5 if plain.kept[pages.start] > 0 => {
            book.let_go(pages.start, lazy, &mut did);
            plain.kept[pages.start] -= 1;
            plain.clear_some(pages.start..pages.start + 1, !lazy, &mut should);
        }
        6 => {
            let lent = book.open(pages.clone(), &mut did);
            plain.clear_some(pages.clone(), true, &mut should);
            assert_eq!(lent, pages.clone().any(|page| plain.is_lent(page)));
        }
        _ => {
            let page = pages.start;
            plain.wanted[page] = true;
            let verdict = if plain.leave(page, &mut should) && !plain.has_loans(page) {
                plain.clear(page, &mut should);
                Verdict::Clear
            } else {
                Verdict::Wait
            };
            assert_eq!(book.fault(page, &mut did), verdict);
        }
    }
    assert_eq!((did.cleared, did.moved), (should.cleared, should.moved));
}

#[test]
fn a_page_is_lent_as_often_as_can_be_counted() {
    let mut book = Book::new(2);
    book.lend(0..1);
    book.pages[0].loans = u32::MAX - 1;
    assert!(book.can_lend(0..2));
    book.lend(0..2);
    assert!(!book.can_lend(0..2));
    assert!(book.can_lend(1..2));
    assert_eq!(book.fault(7, &mut Played::default()), Verdict::Clear);
}

#[test]
fn what_may_be_protected_after_an_error_is_cleared() {
    let mut book = Book::new(4);
    book.lend(1..2);
    book.doubt(0..4);
    let mut cleared = Played::default();
    assert!(book.open(0..4, &mut cleared));
    assert_eq!(cleared.cleared, [0..1, 2..4]);
    assert_eq!(book.protected(), 1);
}
