//! Figures as rows and cells, for a terminal and for Markdown.

use super::case::{CASES, Case, Group};
use super::crossover::Crossover;
use super::measure::{Cache, Measured};

/// A table with a head.
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// Bytes, in the largest unit that they are a multiple of.
pub(super) fn bytes(count: usize) -> String {
    match count {
        _ if count >= 1 << 20 && count.is_multiple_of(1 << 20) => format!("{} MiB", count >> 20),
        _ if count >= 1 << 10 && count.is_multiple_of(1 << 10) => format!("{} KiB", count >> 10),
        _ => format!("{count} B"),
    }
}

/// Some of all sizes, in the fewest words: those in a row as a range.
pub(super) fn ranges(some: &[usize], all: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let mut before = false;
    for &size in all {
        let is_in = some.contains(&size);
        match runs.last_mut() {
            Some(run) if is_in && before => run.1 = size,
            _ if is_in => runs.push((size, size)),
            _ => {}
        }
        before = is_in;
    }
    let words = runs.into_iter().map(|(first, last)| match first == last {
        true => bytes(first),
        false => format!("{} to {}", bytes(first), bytes(last)),
    });
    match words.collect::<Vec<_>>() {
        none if none.is_empty() => "nowhere".into(),
        words => words.join(", "),
    }
}

/// Three digits, or all before the point.
fn digits(value: f64) -> String {
    match value {
        _ if value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Picoseconds for a byte, of each case of a group.
pub(super) fn costs(measured: &Measured, group: Group, cache: Cache) -> Table {
    let is_there = |case: &&Case| {
        measured
            .figures
            .iter()
            .any(|figure| figure.case == case.name)
    };
    let of_group = CASES.iter().filter(|case| case.group() == group);
    let cases: Vec<_> = of_group.filter(is_there).collect();
    let cell = |case: &Case, size: usize| {
        let mut figures = measured.figures.iter();
        let found = figures.find(|f| f.case == case.name && f.cache == cache && f.size == size);
        found.map_or("–".into(), |figure| {
            digits(figure.nanoseconds_per_byte * 1000.0)
        })
    };
    let names = cases.iter().map(|case| case.name.to_owned());
    let row = |&size: &usize| {
        let cells = cases.iter().map(|case| cell(case, size));
        std::iter::once(bytes(size)).chain(cells).collect()
    };
    Table {
        head: std::iter::once("a send of".into()).chain(names).collect(),
        rows: measured.sizes.iter().map(row).collect(),
    }
}

/// From where on each way to share costs less than what the sender would do instead, and than the
/// least that copying could cost.
pub(super) fn crossings(crossovers: &[Crossover]) -> Table {
    let size = |from: Option<usize>| from.map_or("never".into(), bytes);
    let rows = crossovers
        .chunk_by(|one, other| one.case == other.case)
        .filter_map(|pair| {
            let first = pair.first()?;
            let name = |name: &str| vec![name.to_owned()];
            let from = pair.iter().map(|crossover| size(crossover.from));
            let floor = pair.iter().map(|crossover| match crossover.floor {
                Some(_) => size(crossover.from_floor),
                None => "–".into(),
            });
            let mut row = [name(first.case), name(first.against)].concat();
            row.extend(from);
            row.push(first.floor.unwrap_or("–").into());
            row.extend(floor);
            Some(row)
        });
    let head = [
        "way to share",
        "instead of",
        "hot",
        "cold",
        "least",
        "hot",
        "cold",
    ];
    Table {
        head: head.map(Into::into).to_vec(),
        rows: rows.collect(),
    }
}

impl Table {
    /// For a terminal: columns as wide as they must be, the first to the left.
    pub(super) fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells = cells.map(|(column, (cell, &width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ")
        };
        all().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Whether a column is to begin at the left: the first, and what is no figure.
    fn is_prose(&self, column: usize) -> bool {
        let figure = |cell: &String| {
            let first = cell.chars().next();
            first.is_none_or(|first| first.is_ascii_digit()) || cell == "–" || cell == "never"
        };
        let mut cells = self.rows.iter().filter_map(|row| row.get(column));
        column == 0 || !cells.all(figure)
    }

    /// For Markdown.
    pub(super) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = (0..self.head.len())
            .map(|column| if self.is_prose(column) { "---" } else { "---:" }.into())
            .collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        line(&self.head) + &line(&rule) + &rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_the_largest_unit() {
        assert_eq!(bytes(256), "256 B");
        assert_eq!(bytes(1024), "1 KiB");
        assert_eq!(bytes(1500), "1500 B");
        assert_eq!(bytes(16 << 20), "16 MiB");
    }

    #[test]
    fn sizes_in_a_row_are_a_range() {
        let all = [256, 512, 1024, 2048];
        assert_eq!(ranges(&[256, 1024, 2048], &all), "256 B, 1 KiB to 2 KiB");
        assert_eq!(ranges(&all, &all), "256 B to 2 KiB");
        assert_eq!(ranges(&[], &all), "nowhere");
    }

    #[test]
    fn three_digits() {
        assert_eq!(digits(0.123), "0.12");
        assert_eq!(digits(12.34), "12.3");
        assert_eq!(digits(1234.5), "1234");
    }

    #[test]
    fn tables_have_a_cell_for_each_column() {
        let table = Table {
            head: vec!["a".into(), "bcd".into()],
            rows: vec![vec!["long".into(), "1".into()]],
        };
        assert_eq!(table.text(), "a     bcd\nlong    1");
        let markdown = "| a | bcd |\n| --- | ---: |\n| long | 1 |\n";
        assert_eq!(table.markdown(), markdown);
        let prose = Table {
            head: vec!["a".into(), "b".into()],
            rows: vec![vec!["1".into(), "two words".into()]],
        };
        assert!(prose.markdown().contains("| --- | --- |"));
    }
}
