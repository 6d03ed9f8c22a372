//! A run for a terminal.

use std::fmt::Write as _;

use super::Report;
use super::case::Group;
use super::crossover::{BreakEven, Crossover, Threshold};
use super::measure::{Cache, Measured};
use super::table::{bytes, costs, crossings};

/// Heights of a bar, from much cheaper than copying to much dearer; the first four are cheaper.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How a ratio looks: each step is a factor of two, and the outer ones have what lies beyond.
fn mark(ratio: f64) -> char {
    let step = (ratio.log2().floor() + 4.0).clamp(0.0, 7.0);
    BARS.get(step as usize).copied().unwrap_or('?')
}

/// A line of bars for each way to share, a bar for each size.
pub(super) fn plot(measured: &Measured, crossovers: &[Crossover]) -> String {
    let (first, last) = (measured.sizes.first(), measured.sizes.last());
    let ends = [first, last].map(|size| size.copied().map_or_else(String::new, bytes));
    let mut all = format!(
        "{:<20}  {:<4}  {} … {}\n",
        "cost against copying", "", ends[0], ends[1]
    );
    for crossover in crossovers {
        let bars: String = crossover.ratios.iter().map(|ratio| mark(*ratio)).collect();
        let _ = writeln!(
            all,
            "{:<20}  {:<4}  {bars}",
            crossover.case,
            crossover.cache.name()
        );
    }
    all + "▁ an eighth of copying or less   ▄ a little less   ▅ a little more   █ eight times or more"
}

/// All of it.
pub(super) fn text(report: &Report) -> String {
    let Report {
        measured,
        crossovers,
        thresholds,
        break_even,
    } = report;
    let mut all = String::new();
    for group in Group::ALL {
        for cache in Cache::ALL {
            let _ = writeln!(
                all,
                "{}, {} bytes: picoseconds of CPU for a byte\n{}\n",
                group.title(),
                cache.name(),
                costs(measured, group, cache).text()
            );
        }
    }
    let _ = writeln!(all, "{}\n", plot(measured, crossovers));
    let _ = writeln!(
        all,
        "Sharing costs less, from this size on, than what the sender would do instead, and than the least \
         that copying could cost:\n{}\n",
        crossings(crossovers).text()
    );
    let _ = writeln!(all, "{}", pays_after(break_even));
    if let Some(warning) = measured.machine.warning() {
        let _ = writeln!(all, "{warning}\n");
    }
    if let Some(why) = &measured.no_protection {
        let _ = writeln!(all, "Write-protection was not measured: {why}\n");
    }
    all + &options(thresholds)
}

/// After how many sends of the same bytes protecting them has paid.
fn pays_after(break_even: &[BreakEven]) -> String {
    let mut all = String::new();
    for group in break_even.chunk_by(|a, b| (a.case, a.cache) == (b.case, b.cache)) {
        let Some(first) = group.first() else {
            continue;
        };
        let cells: Vec<_> = group
            .iter()
            .map(|found| {
                let sends = found
                    .sends
                    .map_or("never".into(), |sends| sends.to_string());
                format!("{} {sends}", bytes(found.size))
            })
            .collect();
        let _ = writeln!(
            all,
            "{}, {}: sends between two writes from which on it pays: {}",
            first.case,
            first.cache.name(),
            cells.join(", ")
        );
    }
    all
}

/// What to tell a sender.
pub(super) fn options(thresholds: &[Threshold]) -> String {
    let value = |threshold: &Threshold| match threshold.bytes {
        Some(bytes) => format!("{}={bytes}", threshold.policy),
        None => format!("{}=never", threshold.policy),
    };
    let of_sender = |policy: &str| ["owned", "watched", "live"].contains(&policy);
    let (options, more): (Vec<_>, Vec<_>) = thresholds
        .iter()
        .partition(|threshold| of_sender(threshold.policy));
    let list = |all: Vec<&Threshold>| all.into_iter().map(value).collect::<Vec<_>>().join(",");
    format!(
        "Thresholds for a sender on this machine (pagewire::tcp::Thresholds; usize::MAX for never):\n  \
         {}\nFor programs that know more of their memory: {}{}",
        list(options),
        list(more),
        option(thresholds).unwrap_or_default()
    )
}

/// What to tell `pagewire send`, whose files are live.
fn option(thresholds: &[Threshold]) -> Option<String> {
    let live = thresholds
        .iter()
        .find(|threshold| threshold.policy == "live")?;
    Some(match live.bytes {
        Some(bytes) => format!("\nFor `pagewire send`: --share-min {bytes}"),
        None => "\nFor `pagewire send`: --copy all".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_change_where_sharing_costs_as_much() {
        assert_eq!(mark(0.99), '▄');
        assert_eq!(mark(1.0), '▅');
        assert_eq!(mark(0.001), '▁');
        assert_eq!(mark(1000.0), '█');
        assert_eq!(mark(0.0), '▁');
    }

    #[test]
    fn thresholds_are_options() {
        let threshold = |policy, bytes| Threshold {
            policy,
            bytes,
            case: "",
            why: "",
        };
        let options = options(&[
            threshold("owned", Some(1024)),
            threshold("watched", None),
            threshold("huge", Some(4096)),
        ]);
        assert_eq!(option(&[threshold("owned", None)]), None);
        let never = option(&[threshold("live", None)]).unwrap();
        assert!(never.ends_with("--copy all"), "{never}");
        let some = option(&[threshold("live", Some(512))]).unwrap();
        assert!(some.ends_with("--share-min 512"), "{some}");
        let first = "\n  owned=1024,watched=never\n";
        assert!(options.contains(first), "{options}");
        assert!(options.ends_with(": huge=4096"), "{options}");
    }
}
