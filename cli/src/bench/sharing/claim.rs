//! The claim of 1997: sharing is "a win even without hardware checksums, if only in memory".

use serde::Serialize;

use super::Report;
use super::crossover::Crossover;
use super::measure::Cache;

/// What was found of one way to share, without a checksum by the device.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) case: &'static str,
    pub(super) cache: Cache,
    /// Sizes at which it costs less CPU than copying and summing in one pass.
    pub(super) wins_at: Vec<usize>,
    /// Sizes at which it does not.
    pub(super) loses_at: Vec<usize>,
    /// Least and greatest cost over that of copying.
    pub(super) ratios: [f64; 2],
}

/// What was found of each.
pub(super) fn findings(report: &Report) -> Vec<Finding> {
    let summed = report.crossovers.iter();
    let summed = summed.filter(|crossover| crossover.against == "memcpy-sum");
    summed
        .map(|crossover| finding(&report.measured.sizes, crossover))
        .collect()
}

fn finding(sizes: &[usize], crossover: &Crossover) -> Finding {
    let both = || sizes.iter().zip(&crossover.ratios);
    let pick = |wins: bool| {
        let those = both().filter(|(_, ratio)| (**ratio < 1.0) == wins);
        those.map(|(size, _)| *size).collect()
    };
    let ratios = crossover.ratios.iter().copied();
    Finding {
        case: crossover.case,
        cache: crossover.cache,
        wins_at: pick(true),
        loses_at: pick(false),
        ratios: [
            ratios.clone().fold(f64::INFINITY, f64::min),
            ratios.fold(0.0, f64::max),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wins_and_losses_are_told_apart() {
        let found = finding(
            &[256, 512, 1024],
            &Crossover {
                case: "owned-sum",
                against: "memcpy-sum",
                cache: Cache::Hot,
                from: None,
                ratios: vec![1.5, 0.5, 1.0],
                floor: None,
                from_floor: None,
            },
        );
        assert_eq!(found.wins_at, [512]);
        assert_eq!(found.loses_at, [256, 1024]);
        assert_eq!(found.ratios, [0.5, 1.5]);
    }
}
