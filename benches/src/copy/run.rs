//! Runs cases: for callgrind, or by the clock.

use std::hint::black_box;
use std::time::Instant;

use pagewire_hal::sum;

use super::case::{Case, Source, Work};
use crate::callgrind;

/// Times that each case is done in callgrind.
pub const COUNTED: usize = 64;
/// Bytes in one run by the clock, about.
const TIMED: usize = 8 << 20;
/// Runs by the clock, of which the median is taken.
const RUNS: usize = 11;
/// Bytes of the cold source: more than any cache has.
const COLD: usize = 128 << 20;
/// Bytes that targets are in, in turn, as buffers of a ring are.
const TARGETS: usize = 256 << 10;

/// Sources and targets.
pub struct Memory {
    bytes: Vec<u8>,
    targets: Vec<u8>,
    random: fastrand::Rng,
}

impl Memory {
    /// For cases whose bytes are there.
    #[must_use]
    pub fn new(source: Source) -> Self {
        let mut random = fastrand::Rng::with_seed(0x5eed);
        let len = match source {
            Source::Hot => 64 << 10,
            Source::Cold => COLD,
        };
        let mut bytes = vec![0; len];
        // Pages of their own, with something in them.
        for page in bytes.chunks_mut(4096) {
            random.fill(page.get_mut(..64).unwrap_or_default());
        }
        Self {
            bytes,
            targets: vec![0; TARGETS],
            random,
        }
    }

    /// Where the next bytes and their target begin: at a multiple of 64 bytes, in no order.
    fn places(&mut self, len: usize) -> (usize, usize) {
        let place = |random: &mut fastrand::Rng, all: usize| random.usize(..=(all - len) / 64) * 64;
        let source = place(&mut self.random, self.bytes.len());
        // As a payload behind headers of 66 bytes.
        let target = place(&mut self.random, self.targets.len() - 64) + 2;
        (source, target)
    }
}

#[inline(never)]
fn measured_work(work: Work, source: &[u8], target: &mut [u8]) -> u16 {
    match work {
        Work::Memcpy => {
            target.copy_from_slice(source);
            0
        }
        Work::MemcpyAndSum => {
            target.copy_from_slice(source);
            sum::sum(target)
        }
        Work::Fused => sum::copy(source, target),
        Work::FusedPortable => sum::fold(sum::portable::copy(source, target)),
        Work::Sum => sum::sum(source),
        Work::SumPortable => sum::fold(sum::portable::sum(source)),
    }
}

/// Does a case in callgrind.
pub fn count(case: &Case, memory: &mut Memory) {
    let mut go = |times: usize| {
        for _ in 0..times {
            let (from, to) = memory.places(case.len);
            let source = &memory.bytes[from..from + case.len];
            let target = &mut memory.targets[to..to + case.len];
            black_box(measured_work(case.work, source, target));
        }
    };
    // So that everything has been called before.
    go(2);
    callgrind::case_begins();
    go(COUNTED);
    callgrind::case_over();
}

/// Nanoseconds of a case: the median of many runs.
pub fn time(case: &Case, memory: &mut Memory) -> f64 {
    let times = (TIMED / case.len).min(20_000);
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let places: Vec<_> = (0..times).map(|_| memory.places(case.len)).collect();
            let begun = Instant::now();
            for &(from, to) in &places {
                let source = &memory.bytes[from..from + case.len];
                let target = &mut memory.targets[to..to + case.len];
                black_box(measured_work(black_box(case.work), source, target));
            }
            begun.elapsed().as_nanos() as f64 / times as f64
        })
        .collect();
    runs.sort_unstable_by(f64::total_cmp);
    runs[RUNS / 2]
}
