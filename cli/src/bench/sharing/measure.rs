//! Timing: how often, in which order, and with what in the caches.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::Broken;
use super::case::{CASES, Case, FRAME, Rewrite};
use super::lender::Held;
use super::machine::{Machine, Walk, clock_cost, cpu_time};
use super::source::{Protectors, Sources};
use super::way::{Sender, Timing, time};
use crate::error::Failure;

/// What of the bytes is in the caches when they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Cache {
    /// The same bytes were sent just before.
    Hot,
    /// None.
    Cold,
}

impl Cache {
    pub(super) const ALL: [Self; 2] = [Self::Hot, Self::Cold];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Effort {
    /// Samples of each figure, which is their median.
    pub(super) hot_samples: usize,
    pub(super) cold_samples: usize,
    /// A sample with hot bytes takes at least so long.
    pub(super) nanoseconds: u64,
    /// Each size is so many times the one before.
    pub(super) step: usize,
}

impl Effort {
    pub(super) const FULL: Self = Self {
        hot_samples: 11,
        cold_samples: 11,
        nanoseconds: 2_000_000,
        step: 2,
    };
    pub(super) const QUICK: Self = Self {
        hot_samples: 3,
        cold_samples: 1,
        nanoseconds: 100_000,
        step: 4,
    };

    /// From 256 bytes to 16 MiB.
    pub(super) fn sizes(&self) -> Vec<usize> {
        let next = |size: &usize| size.checked_mul(self.step).filter(|size| *size <= 16 << 20);
        std::iter::successors(Some(256), next).collect()
    }
}

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) case: &'static str,
    pub(super) cache: Cache,
    /// Bytes of a send.
    pub(super) size: usize,
    /// Nanoseconds of CPU for a send: the median, and between which half of the samples lie.
    pub(super) nanoseconds: f64,
    pub(super) quartiles: [f64; 2],
    /// The same for a byte.
    pub(super) nanoseconds_per_byte: f64,
}

impl Figure {
    fn new(case: &Case, cache: Cache, size: usize, mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let at = |quarter: usize| {
            samples
                .get(samples.len().saturating_sub(1) * quarter / 4)
                .copied()
        };
        let nanoseconds = at(2)?;
        Some(Self {
            case: case.name,
            cache,
            size,
            nanoseconds,
            quartiles: [at(1)?, at(3)?],
            nanoseconds_per_byte: nanoseconds / size as f64,
        })
    }
}

/// What is kept for a send as long as it is in flight, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct InFlight {
    pub(super) size: usize,
    /// If it is copied: slots of the pool.
    pub(super) copied: u64,
    /// If it is shared: pages of the program, which has them anyway; in small and in huge pages.
    pub(super) shared_pages: u64,
    pub(super) shared_huge_pages: u64,
    /// And loans, which are all that is there in addition.
    pub(super) shared_loans: u64,
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) machine: Machine,
    pub(super) effort: Effort,
    pub(super) sizes: Vec<usize>,
    pub(super) figures: Vec<Figure>,
    pub(super) in_flight: Vec<InFlight>,
    /// Why there is nothing about write-protection, if there is not.
    pub(super) no_protection: Option<String>,
}

/// Measures everything.
pub(super) fn measure(effort: Effort, stop: &AtomicBool) -> Result<Measured, Failure> {
    let machine = Machine::look();
    let (protectors, no_protection) = match Protectors::open() {
        Ok(protectors) => (Some(protectors), None),
        Err(why) => (None, Some(why.to_string())),
    };
    let sizes = effort.sizes();
    let mut watch = Stopwatch {
        effort,
        walk: Walk::new(&machine),
        clock: clock_cost(),
        cache: Cache::Hot,
        random: fastrand::Rng::with_seed(1),
        sends: 1,
        calibrated: false,
    };
    let bar = bar(sizes.len() as u64 * effort.hot_samples as u64);
    let (mut figures, mut in_flight) = (Vec::new(), Vec::new());
    for &size in &sizes {
        bar.set_message(super::table::bytes(size));
        let cannot = |why: Broken| Failure::failed(format!("sends of {size} bytes: {why}"));
        let mut sources = Sources::new(size, protectors.as_ref()).map_err(cannot)?;
        let held = sources.lender.held(sources.owned, size, FRAME);
        in_flight.push(kept(size, held.map_err(|why| cannot(why.into()))?));
        let cases: Vec<_> = CASES
            .iter()
            .filter(|case| protectors.is_some() || !case.protects())
            .collect();
        figures.extend(measure_size(&cases, &mut sources, &mut watch, stop, &bar)?);
    }
    bar.finish_and_clear();
    Ok(Measured {
        machine,
        effort,
        sizes,
        figures,
        in_flight,
        no_protection,
    })
}

fn kept(size: usize, held: Held) -> InFlight {
    InFlight {
        size,
        copied: held.copied,
        shared_pages: held.pages,
        shared_huge_pages: size.next_multiple_of(2 << 20) as u64,
        shared_loans: held.loans,
    }
}

/// All cases take turns, so that what happens on the machine meanwhile happens to all of them.
fn measure_size(
    cases: &[&'static Case],
    sources: &mut Sources,
    watch: &mut Stopwatch,
    stop: &AtomicBool,
    bar: &ProgressBar,
) -> Result<Vec<Figure>, Failure> {
    let size = sources.size;
    let mut samples = vec![[Vec::new(), Vec::new()]; cases.len()];
    let mut sends = vec![None; cases.len()];
    for turn in 0..watch.effort.hot_samples.max(watch.effort.cold_samples) {
        for ((case, samples), sends) in cases.iter().zip(&mut samples).zip(&mut sends) {
            let [hot, cold] = samples;
            for (cache, samples) in [(Cache::Hot, hot), (Cache::Cold, cold)] {
                if stop.load(Ordering::Relaxed) {
                    return Err(Failure::interrupted());
                }
                if turn < watch.samples(cache) {
                    watch.prepare(cache, *sends);
                    let cannot = |why: Broken| {
                        Failure::failed(format!("{}, {size} bytes: {why}", case.name))
                    };
                    samples.push(time(case, sources, watch).map_err(cannot)?);
                    if cache == Cache::Hot {
                        *sends = Some(watch.sends);
                    }
                }
            }
        }
        bar.inc(1);
    }
    let figures = cases.iter().zip(samples).flat_map(|(case, [hot, cold])| {
        let figure = |cache, samples| Figure::new(case, cache, size, samples);
        [figure(Cache::Hot, hot), figure(Cache::Cold, cold)]
    });
    Ok(figures.flatten().collect())
}

fn bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}  {elapsed} of about {duration}")
    {
        bar.set_style(style);
    }
    bar
}

/// Takes samples.
struct Stopwatch {
    effort: Effort,
    walk: Walk,
    /// Nanoseconds that are in every sample.
    clock: u64,
    cache: Cache,
    random: fastrand::Rng,
    /// Sends of a hot sample, and whether they take long enough.
    sends: u32,
    calibrated: bool,
}

impl Stopwatch {
    fn samples(&self, cache: Cache) -> usize {
        match cache {
            Cache::Hot => self.effort.hot_samples,
            Cache::Cold => self.effort.cold_samples,
        }
    }

    fn prepare(&mut self, cache: Cache, sends: Option<u32>) {
        self.cache = cache;
        self.calibrated = sends.is_some();
        self.sends = sends.unwrap_or(1);
    }

    fn since(&self, start: u64) -> u64 {
        (cpu_time() - start).saturating_sub(self.clock)
    }

    fn hot(&self, sender: &mut impl Sender, rewrites: bool) -> Result<u64, Broken> {
        let start = cpu_time();
        for _ in 0..self.sends {
            if rewrites {
                sender.rewrite(0)?;
            }
            sender.send(black_box(0))?;
        }
        Ok(self.since(start))
    }
}

impl Timing for Stopwatch {
    fn time(&mut self, sender: &mut impl Sender, case: &Case) -> Result<f64, Broken> {
        let rewrites = case.rewrite != Rewrite::Never;
        match self.cache {
            Cache::Hot => self.time_hot(sender, rewrites),
            Cache::Cold => self.time_cold(sender, rewrites, case.protects()),
        }
    }
}

impl Stopwatch {
    /// One slot, again and again.
    fn time_hot(&mut self, sender: &mut impl Sender, rewrites: bool) -> Result<f64, Broken> {
        // What the case before has left behind goes, and what this one wants comes.
        for _ in 0..2 {
            sender.send(0)?;
        }
        while !self.calibrated {
            let taken = self.hot(sender, rewrites)?;
            self.calibrated = taken >= self.effort.nanoseconds || self.sends >= 1 << 20;
            if !self.calibrated {
                self.sends *= 2;
            }
        }
        Ok(self.hot(sender, rewrites)? as f64 / f64::from(self.sends))
    }

    /// All slots, once each and in no order, after everything has been put out of the caches. What
    /// the program writes it writes before that.
    fn time_cold(
        &mut self,
        sender: &mut impl Sender,
        rewrites: bool,
        protects: bool,
    ) -> Result<f64, Broken> {
        let slots = sender.slots();
        let mut order: Vec<usize> = (0..slots).collect();
        self.random.shuffle(&mut order);
        let mut taken = 0;
        if rewrites {
            let start = cpu_time();
            for &slot in &order {
                sender.rewrite(slot)?;
            }
            taken += self.since(start);
        } else if protects {
            // Not for the first time.
            for &slot in &order {
                sender.send(slot)?;
            }
        }
        self.walk.walk();
        sender.warm();
        let start = cpu_time();
        for &slot in &order {
            sender.send(slot)?;
        }
        taken += self.since(start);
        Ok(taken as f64 / slots as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::sharing::case::named;

    #[test]
    fn sizes_go_from_256_bytes_to_16_mebibytes() {
        for effort in [Effort::FULL, Effort::QUICK] {
            let sizes = effort.sizes();
            assert_eq!((sizes[0], sizes[sizes.len() - 1]), (256, 16 << 20));
            assert!(sizes.contains(&65536));
        }
    }

    #[test]
    fn a_figure_is_the_median_of_its_samples() {
        let case = named("copy").unwrap();
        let figure = Figure::new(case, Cache::Hot, 10, vec![5.0, 1.0, 100.0, 3.0, 4.0]).unwrap();
        assert_eq!((figure.nanoseconds, figure.quartiles), (4.0, [3.0, 5.0]));
        assert_eq!(figure.nanoseconds_per_byte, 0.4);
        assert!(Figure::new(case, Cache::Hot, 10, Vec::new()).is_none());
    }
}
