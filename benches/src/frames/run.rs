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
pub type Cost = (Case, BTreeMap<String, f64>);
/// Those of several cases.
pub type Costs = Vec<Cost>;

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
        let same = |case: &&Case| case.kind == kind;
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
        let of = |layer: Layer| self.cases.iter().filter(move |case| case.layer == layer);
        let headers = Raw::<N::Tx>::headers(&mut nic)?;
        for case in of(Layer::Raw) {
            let mut raw = Raw::new(&mut tx, &headers, &table(case), &regions);
            self.costs
                .extend(measure(case, self.mode, &mut |range, meter| {
                    raw.round(range, &mut device, meter)
                })?);
        }
        let mut port = Port::new(&mut nic, tx, &regions)?;
        for case in of(Layer::Port) {
            let frames = table(case);
            let mut port = port.with(&frames);
            self.costs
                .extend(measure(case, self.mode, &mut |range, meter| {
                    port.round(range, &mut device, meter)
                })?);
        }
        let lens = draw_lengths(SEED);
        for case in of(Layer::Receive) {
            self.costs
                .extend(measure(case, self.mode, &mut |range, meter| {
                    let lens = lens.get(range).unwrap_or_default();
                    receive::round(&mut rx, lens, &mut device, meter)
                })?);
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

/// What a case costs, unless callgrind counts.
fn measure(case: &Case, mode: Mode, round: Round<'_>) -> Result<Option<Cost>, String> {
    let mut frames = |count: usize, meter: &mut AnyMeter| {
        for first in (0..count).step_by(case.burst) {
            let first = first % FRAMES;
            round(first..first + case.burst, meter).map_err(|what| format!("{case}: {what}"))?;
        }
        Ok::<(), String>(())
    };
    if mode == Mode::Counted {
        let meter = &mut AnyMeter::Untimed(Untimed);
        frames(FRAMES, meter)?;
        callgrind::case_begins();
        frames(COUNTED, meter)?;
        callgrind::case_over();
        return Ok(None);
    }
    let mut runs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..=RUNS {
        let mut meter = AnyMeter::Timed(Timed::default());
        frames(TIMED, &mut meter)?;
        if let AnyMeter::Timed(timed) = &mut meter {
            for (part, nanos) in timed.take() {
                runs.entry(part).or_default().push(nanos / TIMED as f64);
            }
        }
    }
    let median = |(part, mut runs): (&str, Vec<f64>)| {
        runs.sort_unstable_by(f64::total_cmp);
        let middle = runs.get(runs.len() / 2).copied();
        (part.to_owned(), middle.unwrap_or(f64::NAN))
    };
    Ok(Some((*case, runs.into_iter().map(median).collect())))
}
