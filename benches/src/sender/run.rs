//! Runs cases: for callgrind, or by the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use pagewire_hal::{Nic, Region, TxQueue};

use super::case::{Case, Payload, Sums};
use super::stage::Stage;
use crate::callgrind;
use crate::frames::Device;
use crate::frames::meter::{Meter, Timed, Untimed};
use crate::frames::open::{Opening, Visitor, open_with};
use crate::platform::NotedMemory;

/// Segments of a case that are counted, at least: whole rounds.
const COUNTED: usize = 4096;
/// Segments of a case in one run by the clock.
const TIMED: usize = 8 * 1024;
/// Runs by the clock, of which the least disturbed is taken, part by part.
const RUNS: usize = 31;

/// What a case cost.
#[derive(Clone, Debug)]
pub struct Cost {
    /// The case.
    pub case: Case,
    /// By part, per segment.
    pub parts: BTreeMap<String, f64>,
}

impl Cost {
    /// Of a segment, with its share of everything.
    #[must_use]
    pub fn per_segment(&self) -> f64 {
        self.parts.values().sum()
    }

    /// Of the input of an ACK.
    #[must_use]
    pub fn per_ack(&self) -> f64 {
        self.parts.get("ack").copied().unwrap_or_default() * self.case.per_ack as f64
    }
}

/// How cases are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// In callgrind, which counts.
    Counted,
    /// By the clock.
    Timed,
}

/// Rounds for at least so many segments.
fn rounds(case: &Case, acks: usize, segments: usize) -> usize {
    segments.div_ceil(acks * case.per_ack)
}

/// Segments of a case that are counted.
#[must_use]
pub fn counted(case: &Case) -> usize {
    let acks = case.acks();
    rounds(case, acks, COUNTED) * acks * case.per_ack
}

struct Runner<'c> {
    case: &'c Case,
    mode: Mode,
}

/// Runs all `cases`; counted, there are no costs but in callgrind's dumps.
///
/// # Errors
/// What went wrong, for the user.
pub fn run(cases: &[Case], mode: Mode) -> Result<Vec<Cost>, String> {
    let mut costs = Vec::new();
    for case in cases {
        let (regions, region_len) = match case.payload {
            Payload::Hot => (1, 64 << 10),
            Payload::Cold => (2, 64 << 20),
        };
        let opening = Opening {
            mtu: case.size.mtu(),
            checksum: case.sums == Sums::Device,
            regions,
            region_len,
        };
        let cost = open_with(case.kind, &opening, Runner { case, mode });
        costs.extend(cost.map_err(|error| format!("{case}: {error}"))?);
    }
    Ok(costs)
}

/// Runs some rounds.
fn go<Q: TxQueue, D: Device>(
    stage: &mut Stage<Q>,
    device: &mut D,
    rounds: usize,
    meter: &mut impl Meter,
) -> Result<(), String> {
    (0..rounds).try_for_each(|_| stage.round(device, meter))
}

impl Visitor for Runner<'_> {
    type Output = Option<Cost>;

    fn visit<N: Nic<Memory = NotedMemory>, D: Device>(
        self,
        mut nic: N,
        mut device: D,
        regions: Vec<Arc<dyn Region>>,
    ) -> Result<Option<Cost>, String> {
        let Self { case, mode } = self;
        let (tx, _rx) = nic.take_queues(0).ok_or("there are no queues")?;
        let mut stage = Stage::new(case, &mut nic, tx, &mut device, &regions)?;
        let acks = case.acks();
        let counted = rounds(case, acks, COUNTED);
        // All connections have had their turn twice.
        let warm = counted.max((2 * case.connections).div_ceil(acks));
        go(&mut stage, &mut device, warm, &mut Untimed)?;
        let cost = match mode {
            Mode::Counted => {
                callgrind::case_begins();
                go(&mut stage, &mut device, counted, &mut Untimed)?;
                callgrind::case_over();
                None
            }
            Mode::Timed => {
                let rounds = rounds(case, acks, TIMED);
                let segments = (rounds * acks * case.per_ack) as f64;
                let mut runs: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
                for _ in 0..RUNS {
                    let mut timed = Timed::default();
                    go(&mut stage, &mut device, rounds, &mut timed)?;
                    for (part, nanos) in timed.take() {
                        runs.entry(part).or_default().push(nanos / segments);
                    }
                }
                let least = |(part, runs): (&str, Vec<f64>)| {
                    let least = runs.into_iter().min_by(f64::total_cmp);
                    (part.to_owned(), least.unwrap_or(f64::NAN))
                };
                Some(Cost {
                    case: *case,
                    parts: runs.into_iter().map(least).collect(),
                })
            }
        };
        stage.check()?;
        Ok(cost)
    }
}
