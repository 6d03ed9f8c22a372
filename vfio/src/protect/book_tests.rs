use super::*;

/// Remembers what was cleared; has no other place for anything.
#[derive(Default)]
struct Cleared(Vec<Range<usize>>);

impl Effects for Cleared {
    fn clear(&mut self, pages: Range<usize>) {
        self.0.push(pages);
    }

    fn evacuate(&mut self, _page: usize, _kept: u32) -> bool {
        false
    }
}

/// The same, in the most simple-minded way: who has lent what.
#[derive(Default)]
struct Plain {
    loans: Vec<Range<usize>>,
    protected: Vec<bool>,
    wanted: Vec<bool>,
}

impl Plain {
    fn is_lent(&self, page: usize) -> bool {
        self.loans.iter().any(|loan| loan.contains(&page))
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
            protected: vec![false; PAGES],
            wanted: vec![false; PAGES],
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
    let mut cleared = Cleared::default();
    let lazy = random.bool();
    match random.u8(..5) {
        0 | 1 => {
            let bare: Vec<_> = pages
                .clone()
                .filter(|page| !plain.protected[*page])
                .collect();
            let wanted = bare
                .first()
                .zip(bare.last())
                .map(|(from, to)| *from..to + 1);
            assert_eq!(book.to_protect(pages.clone()), wanted);
            book.lend(pages.clone());
            plain.protected[pages.clone()].fill(true);
            plain.loans.push(pages);
        }
        2 if !plain.loans.is_empty() => {
            let loan = plain.loans.swap_remove(random.usize(..plain.loans.len()));
            book.release(loan.clone(), lazy, &mut cleared);
            check(plain, loan, cleared, |plain, page| {
                plain.wanted[page] || !lazy
            });
        }
        3 => {
            let lent = pages.clone().any(|page| plain.is_lent(page));
            assert_eq!(book.open(pages.clone(), &mut cleared), lent);
            check(plain, pages, cleared, |_, _| true);
        }
        _ => {
            let page = pages.start;
            if plain.is_lent(page) {
                assert_eq!(book.fault(page, &mut cleared), Verdict::Wait);
                plain.wanted[page] = true;
            } else {
                assert_eq!(book.fault(page, &mut cleared), Verdict::Clear);
                assert_eq!((cleared.0.len(), &cleared.0[0]), (1, &(page..page + 1)));
                plain.protected[page] = false;
            }
        }
    }
}

/// What was cleared is exactly what should be, in runs that are as long as can be.
fn check(
    plain: &mut Plain,
    pages: Range<usize>,
    Cleared(cleared): Cleared,
    which: impl Fn(&Plain, usize) -> bool,
) {
    assert!(cleared.windows(2).all(|two| two[0].end < two[1].start));
    let should: Vec<_> = pages
        .filter(|page| plain.protected[*page] && !plain.is_lent(*page) && which(plain, *page))
        .collect();
    assert_eq!(cleared.into_iter().flatten().collect::<Vec<_>>(), should);
    for page in should {
        plain.protected[page] = false;
        plain.wanted[page] = false;
    }
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
    assert_eq!(book.fault(7, &mut Cleared::default()), Verdict::Clear);
}

#[test]
fn what_may_be_protected_after_an_error_is_cleared() {
    let mut book = Book::new(4);
    book.lend(1..2);
    book.doubt(0..4);
    let mut cleared = Cleared::default();
    assert!(book.open(0..4, &mut cleared));
    assert_eq!(cleared.0, [0..1, 2..4]);
    assert_eq!(book.protected(), 1);
}
