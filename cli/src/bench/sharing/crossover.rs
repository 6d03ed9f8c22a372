//! From how many bytes on sharing costs less than copying, and what follows from it.

use std::collections::HashMap;

use serde::Serialize;

use super::case::CASES;
use super::measure::{Cache, Measured};

/// Where a way to share begins to cost less than copying, and stays so.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Crossover {
    pub(super) case: &'static str,
    /// What the sender would do instead.
    pub(super) against: &'static str,
    pub(super) cache: Cache,
    /// The smallest size that was measured from which on it does; none if it does not at the largest.
    pub(super) from: Option<usize>,
    /// Cost of sharing over cost of copying, for each size.
    pub(super) ratios: Vec<f64>,
    /// The least that copying could cost, and the same against that.
    pub(super) floor: Option<&'static str>,
    pub(super) from_floor: Option<usize>,
}

/// For each way to share, hot and cold.
pub(super) fn crossovers(measured: &Measured) -> Vec<Crossover> {
    let costs: HashMap<_, _> = measured
        .figures
        .iter()
        .map(|figure| ((figure.case, figure.cache, figure.size), figure.nanoseconds))
        .collect();
    let mut all = Vec::new();
    for case in &CASES {
        let Some(against) = case.against else {
            continue;
        };
        for cache in Cache::ALL {
            let ratios = |against| {
                let ratio = |size: &usize| {
                    let share = costs.get(&(case.name, cache, *size))?;
                    let copy: &f64 = costs.get(&(against, cache, *size))?;
                    Some(share / copy.max(0.01))
                };
                measured
                    .sizes
                    .iter()
                    .map(ratio)
                    .collect::<Option<Vec<f64>>>()
            };
            let Some(found) = ratios(against) else {
                continue;
            };
            let floor = case.floor.and_then(ratios);
            all.push(Crossover {
                case: case.name,
                against,
                cache,
                from: from(&measured.sizes, &found),
                ratios: found,
                floor: case.floor,
                from_floor: floor.and_then(|floor| from(&measured.sizes, &floor)),
            });
        }
    }
    all
}

/// The smallest size from which on all ratios are below one.
fn from(sizes: &[usize], ratios: &[f64]) -> Option<usize> {
    let wins = sizes.iter().zip(ratios).rev();
    let wins = wins.take_while(|(_, ratio)| **ratio < 1.0);
    wins.last().map(|(size, _)| *size)
}

/// From how many bytes on a policy shares.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Threshold {
    pub(super) policy: &'static str,
    /// None: never.
    pub(super) bytes: Option<usize>,
    /// The measurement that it is from.
    pub(super) case: &'static str,
    pub(super) why: &'static str,
}

/// Policies, and the case whose worse crossover (hot or cold) is the threshold. The first three are
/// those of `pagewire::tcp::Thresholds`.
const POLICIES: [(&str, &str, &str); 7] = [
    ("owned", "owned", "memory that cannot change"),
    (
        "watched",
        "protected-value",
        "write-protect, where the program writes to every page between any two sends",
    ),
    ("live", "live", "a file that is mapped once"),
    (
        "watched-still",
        "protected",
        "write-protect, where nobody has written since the last send",
    ),
    (
        "watched-page",
        "protected-page",
        "write-protect, where it writes to one page between any two sends",
    ),
    ("huge", "huge-value", "as watched, in huge pages"),
    ("huge-still", "huge", "as watched-still, in huge pages"),
];

/// A policy shares from where that does not cost more, hot or cold.
pub(super) fn thresholds(crossovers: &[Crossover]) -> Vec<Threshold> {
    let threshold = |&(policy, case, why)| {
        let mut of_case = crossovers
            .iter()
            .filter(|crossover| crossover.case == case)
            .peekable();
        of_case.peek()?;
        let worst = of_case.map(|crossover| crossover.from);
        let worst = worst.reduce(|one, other| Some(one?.max(other?)));
        Some(Threshold {
            policy,
            bytes: worst.flatten(),
            case,
            why,
        })
    };
    POLICIES.iter().filter_map(threshold).collect()
}

/// How often a protected buffer must be sent between two writes, so that sharing costs less.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct BreakEven {
    pub(super) case: &'static str,
    pub(super) cache: Cache,
    pub(super) size: usize,
    /// None: sharing never does, as a send of what is protected costs as much as copying it.
    pub(super) sends: Option<u64>,
}

/// For write-protection: the first send pays for the protection (and for its end), each one after
/// it for counts alone.
pub(super) fn break_even(measured: &Measured) -> Vec<BreakEven> {
    let cost = |case: &str, cache: Cache, size: usize| {
        let mut figures = measured.figures.iter();
        let figure = figures.find(|f| f.case == case && f.cache == cache && f.size == size);
        figure.map(|figure| figure.nanoseconds)
    };
    let mut all = Vec::new();
    for (case, still) in [
        ("protected-value", "protected"),
        ("protected-pointer", "protected"),
        ("huge-value", "huge"),
    ] {
        for cache in Cache::ALL {
            for &size in &measured.sizes {
                let costs = (
                    cost(case, cache, size),
                    cost(still, cache, size),
                    cost("copy-watched", cache, size),
                );
                if let (Some(first), Some(again), Some(copy)) = costs {
                    let sends = sends(first, again, copy);
                    all.push(BreakEven {
                        case,
                        cache,
                        size,
                        sends,
                    });
                }
            }
        }
    }
    all
}

/// The smallest `n` with `first + (n - 1) * again < n * copy`.
fn sends(first: f64, again: f64, copy: f64) -> Option<u64> {
    let gain = copy - again;
    if gain <= 0.0 {
        return (first < copy).then_some(1);
    }
    let least = ((first - again) / gain).floor() + 1.0;
    Some(least.max(1.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sharing_wins_from_where_it_keeps_winning() {
        let sizes = [256, 512, 1024];
        assert_eq!(from(&sizes, &[2.0, 0.9, 0.5]), Some(512));
        assert_eq!(from(&sizes, &[0.5, 1.0, 0.5]), Some(1024));
        assert_eq!(from(&sizes, &[0.1, 0.1, 1.2]), None);
        assert_eq!(from(&sizes, &[0.9, 0.9, 0.9]), Some(256));
    }

    #[test]
    fn a_policy_shares_where_neither_hot_nor_cold_loses() {
        let crossover = |case, cache, from| Crossover {
            case,
            against: "copy",
            cache,
            from,
            ratios: Vec::new(),
            floor: None,
            from_floor: None,
        };
        let all = [
            crossover("owned", Cache::Hot, Some(1024)),
            crossover("owned", Cache::Cold, Some(256)),
            crossover("live", Cache::Hot, None),
            crossover("live", Cache::Cold, Some(256)),
        ];
        let found = thresholds(&all);
        let bytes: Vec<_> = found
            .iter()
            .map(|found| (found.policy, found.bytes))
            .collect();
        assert_eq!(bytes, [("owned", Some(1024)), ("live", None)]);
    }

    #[test]
    fn protecting_pays_after_some_sends() {
        // 100 + 9 * 10 = 190 < 10 * 20 = 200; 100 + 8 * 10 = 180 = 9 * 20.
        assert_eq!(sends(100.0, 10.0, 20.0), Some(10));
        assert_eq!(sends(15.0, 10.0, 20.0), Some(1));
        assert_eq!(sends(100.0, 20.0, 20.0), None);
    }
}
