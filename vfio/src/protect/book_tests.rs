use super::*;

/// The same, in the most simple-minded way: who has lent what.
struct Plain {
    loans: Vec<Range<usize>>,
    protected: [bool; PAGES],
    wanted: [bool; PAGES],
}

impl Plain {
    fn is_lent(&self, page: usize) -> bool {
        self.loans.iter().any(|loan| loan.contains(&page))
    }

    fn clear(&mut self, page: usize, should: &mut Vec<Range<usize>>) {
        self.protected[page] = false;
        self.wanted[page] = false;
        match should.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => should.push(page..page + 1),
        }
    }

    fn clear_some(&mut self, pages: Range<usize>, all: bool, should: &mut Vec<Range<usize>>) {
        for page in pages {
            if self.protected[page] && (all || self.wanted[page]) && !self.is_lent(page) {
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
            protected: [false; PAGES],
            wanted: [false; PAGES],
        };
        for _ in 0..60 {
            step(&mut book, &mut plain, &mut random);
            check(&book, &plain);
        }
    }
}

fn check(book: &Book, plain: &Plain) {
    let protected = plain.protected.iter().filter(|page| **page).count();
    let lent = (0..PAGES).filter(|page| plain.is_lent(*page)).count();
    assert_eq!((book.protected(), book.lent()), (protected, lent));
    let wanted: Vec<_> = (0..PAGES).filter(|page| plain.wanted[*page]).collect();
    assert!(wanted.iter().all(|page| plain.is_lent(*page)));
    assert_eq!(book.wanted(), wanted.len());
    let mut runs = Vec::new();
    while let Some(run) = book.next_wanted(runs.last().map_or(0, |run: &Range<usize>| run.end)) {
        runs.push(run);
    }
    assert!(runs.windows(2).all(|two| two[0].end < two[1].start));
    assert_eq!(runs.into_iter().flatten().collect::<Vec<_>>(), wanted);
}

fn step(book: &mut Book, plain: &mut Plain, random: &mut fastrand::Rng) {
    let pages = some(random);
    let lazy = random.bool();
    let (mut did, mut should) = (Vec::new(), Vec::new());
    let mut clear = |run| did.push(run);
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
            book.lend(pages.clone());
            plain.loans.push(pages);
        }
        3 | 4 if !plain.loans.is_empty() => {
            let loan = plain.loans.swap_remove(random.usize(..plain.loans.len()));
            book.release(loan.clone(), lazy, &mut clear);
            plain.clear_some(loan, !lazy, &mut should);
        }
        5 => {
            book.want(pages.clone());
            for page in pages {
                plain.wanted[page] = plain.is_lent(page);
            }
        }
        6 => {
            let lent = book.open(pages.clone(), &mut clear);
            plain.clear_some(pages.clone(), true, &mut should);
            assert_eq!(lent, pages.clone().any(|page| plain.is_lent(page)));
        }
        _ => {
            let page = pages.start;
            let verdict = if plain.is_lent(page) {
                plain.wanted[page] = true;
                Verdict::Wait
            } else {
                plain.clear(page, &mut should);
                Verdict::Clear
            };
            assert_eq!(book.fault(page, &mut clear), verdict);
        }
    }
    assert_eq!(did, should);
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
    assert_eq!(book.fault(7, &mut |_| {}), Verdict::Clear);
    assert_eq!(book.next_wanted(7), None);
}

#[test]
fn what_may_be_protected_after_an_error_is_cleared() {
    let mut book = Book::new(4);
    book.lend(1..2);
    book.doubt(0..4);
    let mut cleared = Vec::new();
    assert!(book.open(0..4, &mut |run| cleared.push(run)));
    assert_eq!(cleared, [0..1, 2..4]);
    assert_eq!(book.protected(), 1);
}
