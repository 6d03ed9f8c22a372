//! Runs cases: for callgrind, or by the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use pagewire_hal::{Nic, Region};

use super::Device;
use super::case::{Case, Kind, Layer};
use super::draw::{FRAMES, draw, draw_lengths};
use super::meter::{Meter, Timed, Untimed};
use super::open::{Visitor, open};
use super::receive;
use super::transmit::{Port, Raw, Transmit};
use crate::callgrind;
use crate::platform::NotedMemory;

/// Frames of a case that are counted: four times the table.
pub const COUNTED: usize = 4 * FRAMES;
/// Frames of a case in one run by the clock.
const TIMED: usize = 16 * FRAMES;
/// Runs by the clock, of which the median is taken.
const RUNS: usize = 15;
/// From which frames are drawn.
const SEED: u64 = 0x5eed;

/// A case, and its cost per frame by part.
pub type Costs = Vec<(Case, BTreeMap<String, f64>)>;

/// How cases are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// In callgrind, which counts.
    Counted,
    /// By the clock.
    Timed,
}

struct Runner<'c> {
    cases: &'c [Case],
    mode: Mode,
    costs: Costs,
}

/// Runs all `cases`, which are sorted by driver and layer.
///
/// # Errors
/// What went wrong, for the user.
pub fn run(cases: &[Case], mode: Mode) -> Result<Costs, String> {
    let mut costs = Costs::new();
    for kind in Kind::ALL {
        for layer in [Layer::Raw, Layer::Port, Layer::Receive] {
            let same = |case: &&Case| case.kind == kind && case.layer == layer;
            let chosen: Vec<Case> = cases.iter().filter(same).copied().collect();
            if !chosen.is_empty() {
                let runner = Runner {
                    cases: &chosen,
                    mode,
                    costs: Costs::new(),
                };
                let run = open(kind, runner);
                costs.extend(run.map_err(|error| format!("{}: {error}", kind.name()))?);
            }
        }
    }
    Ok(costs)
}

impl Visitor for Runner<'_> {
    type Output = Costs;

    fn visit<N: Nic<Memory = NotedMemory>, D: Device>(
        mut self,
        mut nic: N,
        mut device: D,
        regions: Vec<Arc<dyn Region>>,
    ) -> Result<Costs, String> {
        let (mut tx, mut rx) = nic.take_queues(0).ok_or("there are no queues")?;
        let capabilities = *nic.capabilities();
        let table = |case: &Case| draw(case.fragments, case.asked, &capabilities, SEED);
        match self.cases.first().map(|case| case.layer) {
            Some(Layer::Raw) => {
                let headers = Raw::<N::Tx>::headers(&mut nic)?;
                for case in self.cases {
                    let mut raw = Raw::new(&mut tx, &headers, &table(case), &regions);
                    self.bursts(case, &mut device, &mut raw)?;
                }
            }
            Some(Layer::Port) => {
                let mut port = Port::new(&mut nic, tx, &regions)?;
                for case in self.cases {
                    self.bursts(case, &mut device, &mut port.with(&table(case)))?;
                }
            }
            Some(Layer::Receive) => {
                let lens = draw_lengths(SEED);
                for case in self.cases {
                    self.measure(case, &mut |range, meter| {
                        let lens = lens.get(range).unwrap_or_default();
                        receive::round(&mut rx, lens, &mut device, meter)
                    })?;
                }
            }
            None => {}
        }
        Ok(self.costs)
    }
}

/// Runs one burst: the frames of a part of the table.
type Round<'r> =
    &'r mut dyn FnMut(std::ops::Range<usize>, &mut AnyMeter) -> Result<(), &'static str>;

/// One of the two.
enum AnyMeter {
    Untimed(Untimed),
    Timed(Timed),
}

impl Meter for AnyMeter {
    #[inline(always)]
    fn begin(&mut self) {
        match self {
            Self::Untimed(meter) => meter.begin(),
            Self::Timed(meter) => meter.begin(),
        }
    }

    #[inline(always)]
    fn end(&mut self, part: &'static str) {
        match self {
            Self::Untimed(meter) => meter.end(part),
            Self::Timed(meter) => meter.end(part),
        }
    }
}

impl Runner<'_> {
    fn bursts<T: Transmit, D: Device>(
        &mut self,
        case: &Case,
        device: &mut D,
        transmit: &mut T,
    ) -> Result<(), String> {
        self.measure(case, &mut |range, meter| {
            transmit.round(range, device, meter)
        })
    }

    fn measure(&mut self, case: &Case, round: Round<'_>) -> Result<(), String> {
        let mut frames = |count: usize, meter: &mut AnyMeter| {
            for first in (0..count).step_by(case.burst) {
                let first = first % FRAMES;
                round(first..first + case.burst, meter)
                    .map_err(|what| format!("{case}: {what}"))?;
            }
            Ok::<(), String>(())
        };
        match self.mode {
            Mode::Counted => {
                let meter = &mut AnyMeter::Untimed(Untimed);
                frames(FRAMES, meter)?;
                callgrind::case_begins();
                frames(COUNTED, meter)?;
                callgrind::case_over();
            }
            Mode::Timed => {
                let mut runs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
                for _ in 0..=RUNS {
                    let mut meter = AnyMeter::Timed(Timed::default());
                    frames(TIMED, &mut meter)?;
                    let AnyMeter::Timed(mut timed) = meter else {
                        continue;
                    };
                    for (part, nanos) in timed.take() {
                        runs.entry(part).or_default().push(nanos / TIMED as f64);
                    }
                }
                let median = |(part, mut runs): (&str, Vec<f64>)| {
                    runs.sort_unstable_by(f64::total_cmp);
                    let middle = runs.get(runs.len() / 2).copied();
                    (part.to_owned(), middle.unwrap_or(f64::NAN))
                };
                let costs = runs.into_iter().map(median).collect();
                self.costs.push((*case, costs));
            }
        }
        Ok(())
    }
}
