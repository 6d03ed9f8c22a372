use super::*;

/// Remembers what was asked for; some pages can leave and return, others cannot.
#[derive(Default, PartialEq, Debug)]
struct Played {
    cleared: Vec<Range<usize>>,
    departed: Vec<usize>,
    returned: Vec<usize>,
    /// One bit for each page that cannot.
    refuses: u64,
}

impl Played {
    fn can(&self, page: usize) -> bool {
        self.refuses & 1 << page == 0
    }
}

impl Hands for Played {
    fn clear(&mut self, pages: Range<usize>) {
        self.cleared.push(pages);
    }

    fn depart(&mut self, page: usize) -> bool {
        self.departed.push(page);
        self.can(page)
    }

    fn return_home(&mut self, page: usize) -> bool {
        self.returned.push(page);
        self.can(page)
    }
}

/// The same, in the most simple-minded way: who has lent what.
#[derive(Default)]
struct Plain {
    loans: Vec<Range<usize>>,
    protected: [bool; PAGES],
    wanted: [bool; PAGES],
    away: [bool; PAGES],
}

impl Plain {
    fn is_lent(&self, page: usize) -> bool {
        self.loans.iter().any(|loan| loan.contains(&page))
    }

    fn is_shut(&self, page: usize) -> bool {
        self.is_lent(page) && !self.away[page]
    }

    fn clear(&mut self, page: usize, should: &mut Played) {
        self.protected[page] = false;
        self.wanted[page] &= self.is_lent(page);
        match should.cleared.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            _ => should.cleared.push(page..page + 1),
        }
    }

    fn clear_some(&mut self, pages: Range<usize>, all: bool, should: &mut Played) {
        for page in pages {
            if self.protected[page] && (all || self.wanted[page]) && !self.is_lent(page) {
                self.clear(page, should);
            }
        }
    }

    fn depart(&mut self, page: usize, should: &mut Played) {
        if self.is_shut(page) && should.depart(page) {
            self.away[page] = true;
            self.protected[page] = false;
        }
    }

    fn return_home(&mut self, pages: Range<usize>, should: &mut Played) {
        for page in pages {
            if self.away[page] && !self.is_lent(page) {
                self.wanted[page] = false;
                self.away[page] = !should.return_home(page);
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
        let mut plain = Plain::default();
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
    let away = plain.away.iter().filter(|page| **page).count();
    assert_eq!(book.away(), away);
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
    let (refuses, random_bits) = (random.u8(..4) == 0, random.u64(..));
    let played = || Played {
        refuses: if refuses { random_bits } else { 0 },
        ..Played::default()
    };
    let (mut did, mut should) = (played(), played());
    match random.u8(..10) {
        0..3 => lend(book, plain, pages, &mut did, &mut should),
        3 if !plain.loans.is_empty() => {
            let loan = plain.loans.swap_remove(random.usize(..plain.loans.len()));
            book.release(loan.clone(), lazy, &mut did);
            plain.return_home(loan.clone(), &mut should);
            plain.clear_some(loan, !lazy, &mut should);
        }
        4 if !plain.loans.is_empty() => {
            let loan = plain.loans[random.usize(..plain.loans.len())].clone();
            book.lend(loan.clone());
            plain.loans.push(loan);
        }
        5 => {
            book.want(pages.clone());
            for page in pages {
                plain.wanted[page] = plain.is_lent(page);
            }
        }
        6 => {
            let shut = book.open(pages.clone(), &mut did);
            plain.clear_some(pages.clone(), true, &mut should);
            assert_eq!(shut, pages.clone().any(|page| plain.is_shut(page)));
        }
        7 => {
            let shut = book.depart(pages.clone(), &mut did);
            for page in pages.clone() {
                plain.depart(page, &mut should);
            }
            assert_eq!(shut, pages.clone().any(|page| plain.is_shut(page)));
        }
        8 if pages.len() > 1 && plain.protected[pages.start] && !plain.is_lent(pages.start) => {
            let verdict = book.fault_in_row(pages.clone(), random.bool(), &mut did);
            plain.clear_some(pages, true, &mut should);
            assert_eq!(verdict, Verdict::GoOn);
        }
        _ => {
            let (page, polls) = (pages.start, random.bool());
            // All but the case above are as if there were no row.
            let alone = plain.protected[page] && !plain.is_lent(page) || random.bool();
            plain.wanted[page] = plain.is_lent(page);
            let verdict = if plain.is_shut(page) {
                if polls {
                    plain.depart(page, &mut should);
                }
                if plain.away[page] {
                    Verdict::GoOn
                } else {
                    Verdict::Wait
                }
            } else {
                plain.clear(page, &mut should);
                Verdict::GoOn
            };
            let got = if alone {
                book.fault(page, polls, &mut did)
            } else {
                book.fault_in_row(pages, polls, &mut did)
            };
            assert_eq!(got, verdict);
        }
    }
    assert_eq!(did, should);
}

fn lend(
    book: &mut Book,
    plain: &mut Plain,
    pages: Range<usize>,
    did: &mut Played,
    should: &mut Played,
) {
    plain.return_home(pages.clone(), should);
    let home = pages.clone().all(|page| !plain.away[page]);
    assert_eq!(book.gather(pages.clone(), did), home);
    if !home {
        return;
    }
    let bare = |page: &usize| !plain.protected[*page];
    let bare: Vec<_> = pages.clone().filter(bare).collect();
    let wanted = bare.first().zip(bare.last());
    let wanted = wanted.map(|(from, to)| *from..to + 1);
    assert_eq!(book.to_protect(pages.clone()), wanted);
    plain.protected[pages.clone()].fill(true);
    book.lend(pages.clone());
    plain.loans.push(pages);
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
    let verdict = book.fault(7, true, &mut Played::default());
    assert_eq!(verdict, Verdict::GoOn);
    assert_eq!(book.next_wanted(7), None);
}

#[test]
fn what_may_be_protected_after_an_error_is_cleared() {
    let mut book = Book::new(4);
    book.lend(1..2);
    book.doubt(0..4);
    let mut did = Played::default();
    assert!(book.open(0..4, &mut did));
    assert_eq!(did.cleared, [0..1, 2..4]);
    assert_eq!(book.protected(), 1);
}
