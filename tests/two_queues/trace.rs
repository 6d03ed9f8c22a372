//! Which cache lines two threads touch: read from the memory trace of valgrind's tool lackey.

use std::collections::BTreeMap;
use std::io::BufRead;

/// Bytes of a cache line.
const LINE: usize = 64;

/// What a thread did to a cache line.
#[derive(Clone, Copy, Default, Debug)]
struct Touched {
    read: bool,
    written: bool,
}

/// Where to look: a window of a thread begins and ends with a store to an address of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places {
    /// What lies here (first byte, bytes) does not count.
    aside: (usize, usize),
    /// Begin and end of the windows: of each thread, in each part of the run.
    windows: [[(usize, usize); 2]; 2],
}

impl Places {
    /// Reads them from the first line of ten hexadecimal numbers; what came before, or all if there
    /// is none, is added to `text`.
    pub(crate) fn read(said: &mut impl BufRead, text: &mut String) -> Option<Self> {
        let mut line = String::new();
        while said.read_line(&mut line).ok()? > 0 {
            let numbers = line
                .split_whitespace()
                .map(|n| usize::from_str_radix(n, 16));
            let numbers: Result<Vec<_>, _> = numbers.collect();
            if let Ok(&[from, len, a, b, c, d, e, f, g, h]) = numbers.as_deref() {
                return Some(Self {
                    aside: (from, len),
                    windows: [[(a, b), (c, d)], [(e, f), (g, h)]],
                });
            }
            text.push_str(&std::mem::take(&mut line));
        }
        None
    }

    /// Which window begins with a store to `address`: part and thread.
    fn begins(&self, address: usize) -> Option<(usize, usize)> {
        let all = [(0, 0), (0, 1), (1, 0), (1, 1)];
        all.into_iter()
            .find(|(part, thread)| self.windows[*part][*thread].0 == address)
    }
}

/// The lines that each of two threads touched in its windows.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    touched: [BTreeMap<usize, Touched>; 2],
}

/// A line of the trace that is a load, a store or both: ` L 04222cac,8`.
fn parse(line: &str) -> Option<(u8, usize, usize)> {
    let what = *line.as_bytes().get(1)?;
    let (address, len) = line.get(3..)?.split_once(',')?;
    let address = usize::from_str_radix(address, 16).ok()?;
    matches!(what, b'L' | b'S' | b'M').then_some((what, address, len.trim().parse().ok()?))
}

impl Lines {
    /// Reads a trace, for each part of the run. The places must be known when the first window begins.
    pub(crate) fn read<'p>(
        trace: impl BufRead,
        places: impl Fn() -> Option<&'p Option<Places>>,
    ) -> [Self; 2] {
        let mut lines = [Self::default(), Self::default()];
        let mut open = None;
        for line in trace.lines().map_while(Result::ok) {
            let (Some(&Some(places)), Some((what, address, len))) = (places(), parse(&line)) else {
                continue;
            };
            match open {
                None => open = places.begins(address),
                Some((part, thread)) if address == places.windows[part][thread].1 => open = None,
                Some(_) if address.wrapping_sub(places.aside.0) < places.aside.1 => {}
                Some((part, thread)) => lines[part].note(thread, what, address, len),
            }
        }
        lines
    }

    fn note(&mut self, thread: usize, what: u8, address: usize, len: usize) {
        for line in address / LINE..=(address + len.max(1) - 1) / LINE {
            let touched = self.touched[thread].entry(line * LINE).or_default();
            touched.read |= what != b'S';
            touched.written |= what != b'L';
        }
    }

    /// How many lines a thread has touched, and how many of them it has written.
    pub(crate) fn count(&self, thread: usize) -> (usize, usize) {
        let lines = &self.touched[thread];
        (lines.len(), lines.values().filter(|t| t.written).count())
    }

    /// Addresses of lines that both have touched and at least one has written.
    pub(crate) fn shared(&self) -> Vec<usize> {
        let [ours, theirs] = &self.touched;
        let both = ours
            .iter()
            .filter_map(|(line, a)| Some((*line, *a, *theirs.get(line)?)));
        both.filter(|(_, a, b)| a.written || b.written)
            .map(|(line, ..)| line)
            .collect()
    }
}
