//! A run as a page of the documentation.

use std::fmt::Write as _;
use std::path::Path;

use super::Report;
use super::case::{CASES, Group};
use super::claim::findings;
use super::measure::{Cache, InFlight};
use super::table::{Table, bytes, costs, crossings, ranges};

/// The page, with a reference to its plot.
pub(super) fn text(report: &Report, plot: &Path, quick: bool) -> String {
    let name = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let page = name(&plot.with_extension("md"));
    let quick = if quick { " --quick" } else { "" };
    let mut all = format!(
        "# Sharing against copying\n\nMade by `pagewire bench sharing{quick} --markdown docs/{page}`; \
         do not edit.\n\n"
    );
    all += &machine(report);
    all += &crossing(report, &name(plot));
    all += &claim(report);
    all += &sends(report);
    all += &memory(&report.measured.in_flight);
    all += &all_costs(report);
    all += METHOD;
    all
}

fn machine(report: &Report) -> String {
    let (machine, effort) = (&report.measured.machine, &report.measured.effort);
    let known = if machine.cache_known {
        ""
    } else {
        " (taken for granted)"
    };
    let mut all = format!(
        "Measured on: {}, {} CPUs, largest cache {}{known}, pages of {}, Linux {}, {}. Each figure is \
         the median of {} samples (hot) or {} (cold). Compare ratios; another machine has other \
         figures, which this command shows.\n\n",
        machine.cpu,
        machine.cpus,
        bytes(machine.cache),
        bytes(machine.page),
        machine.kernel,
        machine.architecture,
        effort.hot_samples,
        effort.cold_samples,
    );
    if let Some(warning) = machine.warning() {
        let _ = writeln!(all, "{warning}\n");
    }
    if let Some(why) = &report.measured.no_protection {
        let _ = writeln!(all, "Write-protection was not measured: {why}\n");
    }
    all
}

fn crossing(report: &Report, plot: &str) -> String {
    let mut all = format!(
        "## From where on sharing costs less\n\nThe smallest size of a send from which on, at all larger \
         sizes too, sharing costs less CPU: than what the sender would do *instead* (copy to its pool, and \
         lend from there), and than the *least* that copying could cost (the copy of each frame behind \
         its header, and no books at all).\n\n{}\n",
        crossings(&report.crossovers).markdown()
    );
    let _ = writeln!(
        all,
        "![CPU time for a byte against the size of a send]({plot})\n"
    );
    let _ = writeln!(
        all,
        "```text\n{}\n```\n",
        super::text::plot(&report.measured, &report.crossovers)
    );
    let _ = write!(
        all,
        "### Thresholds\n\nA policy shares from the size on where that costs less than what the sender \
         would do instead, hot and cold; below it bytes are copied. {} is the least that was measured. \
         The first three are the fields of `pagewire::tcp::Thresholds`; its default for watched memory is \
         that of `watched-page`.\n\n",
        report
            .measured
            .sizes
            .first()
            .copied()
            .map_or("–".into(), bytes)
    );
    let rows = report.thresholds.iter().map(|threshold| {
        let from = threshold.bytes.map_or("never".into(), bytes);
        vec![threshold.policy.into(), from, threshold.why.into()]
    });
    all += &table(&["policy", "shares from", "for"], rows);
    let options = super::text::options(&report.thresholds);
    let _ = writeln!(all, "\n```text\n{options}\n```\n");
    all
}

fn claim(report: &Report) -> String {
    let mut all = String::from(
        "## The claim of 1997\n\nThat sharing is \"a win even without hardware checksums, if only in \
         memory\": the CPU reads every byte to sum it, whether it copies or not; a copy sums in the same \
         pass. So each way to share, with the sum made where the bytes lie, against the least that copying \
         could cost, `memcpy-sum`: copy and sum in one pass, frame by frame, and no books:\n\n",
    );
    let found = findings(report);
    let all_sizes = &report.measured.sizes;
    let list = |sizes: &[usize]| ranges(sizes, all_sizes);
    let rows = found.iter().map(|found| {
        vec![
            found.case.into(),
            found.cache.name().into(),
            format!("{:.2} to {:.2}", found.ratios[0], found.ratios[1]),
            list(&found.wins_at),
            list(&found.loses_at),
        ]
    });
    all += &table(
        &[
            "way to share",
            "bytes",
            "cost against copying",
            "wins",
            "loses",
        ],
        rows,
    );
    let _ = writeln!(all, "\n{}\n", verdict(report));
    all
}

/// What the figures say of the claim, in words.
fn verdict(report: &Report) -> String {
    let found = findings(report);
    let sizes = &report.measured.sizes;
    let words: Vec<_> = found
        .iter()
        .map(|found| {
            let how = match (found.wins_at.len(), found.loses_at.len()) {
                (_, 0) => "it holds at every size".into(),
                (0, _) => "it holds at no size".into(),
                _ => format!("it holds for {}", ranges(&found.wins_at, sizes)),
            };
            format!("- {}, {} bytes: {how}.\n", found.case, found.cache.name())
        })
        .collect();
    let mut all = format!("Of CPU time:\n\n{}\n", words.concat());
    let least = report
        .measured
        .in_flight
        .iter()
        .map(loans)
        .fold(f64::INFINITY, f64::min);
    let most = report
        .measured
        .in_flight
        .iter()
        .map(loans)
        .fold(0.0, f64::max);
    let _ = write!(
        all,
        "Of memory: while a byte is in flight a copy takes another byte, a share {least:.3} to {most:.3} of \
         one for its loans, if the program keeps its bytes anyway (a cache, a file). If it would free \
         them at once, it keeps whole pages until they are acknowledged, see below."
    );
    all
}

fn loans(kept: &InFlight) -> f64 {
    kept.shared_loans as f64 / kept.size as f64
}

fn sends(report: &Report) -> String {
    let mut all = String::from(
        "## How often a protected buffer must be sent between two writes\n\nThe first send after a write \
         pays for the protection and for its end, each one after it for counts alone. From so many sends \
         between two writes on sharing costs less than copying each time:\n\n",
    );
    let groups: Vec<_> = report
        .break_even
        .chunk_by(|a, b| (a.case, a.cache) == (b.case, b.cache))
        .collect();
    let head = groups.iter().filter_map(|group| group.first());
    let head = head.map(|first| format!("{}, {}", first.case, first.cache.name()));
    let rows = report
        .measured
        .sizes
        .iter()
        .enumerate()
        .map(|(index, size)| {
            let cells = groups.iter().map(|group| {
                let found = group.get(index).and_then(|found| found.sends);
                found.map_or("never".into(), |sends| sends.to_string())
            });
            std::iter::once(bytes(*size)).chain(cells).collect()
        });
    let head = std::iter::once("a send of".to_owned())
        .chain(head)
        .collect();
    let table = Table {
        head,
        rows: rows.collect(),
    };
    let _ = writeln!(all, "{}", table.markdown());
    all
}

fn memory(in_flight: &[InFlight]) -> String {
    let mut all = String::from(
        "## Memory in use for a byte in flight\n\nCounted while all of a send is on its way, in frames of \
         1448 bytes. *Copied*: the copy, and the program may write or free its own bytes at once. *Loans* \
         are all that sharing takes in addition; *pages* are those of the program that stay as they are \
         meanwhile.\n\n",
    );
    let rows = in_flight.iter().map(|kept| {
        let per_byte = |count: u64| format!("{:.3}", count as f64 / kept.size as f64);
        vec![
            bytes(kept.size),
            per_byte(kept.copied),
            per_byte(kept.shared_loans),
            per_byte(kept.shared_pages),
            per_byte(kept.shared_huge_pages),
        ]
    });
    let head = ["a send of", "copied", "loans", "pages", "huge pages"];
    all += &table(&head, rows);
    all.push('\n');
    all
}

fn all_costs(report: &Report) -> String {
    let mut all = String::from("## All figures\n\nPicoseconds of CPU for a byte.\n\n");
    for group in Group::ALL {
        for cache in Cache::ALL {
            let table = costs(&report.measured, group, cache);
            let _ = writeln!(
                all,
                "### {}, {}\n\n{}",
                group.title(),
                cache.name(),
                table.markdown()
            );
        }
    }
    all += "## What is measured\n\n";
    let rows = CASES.iter().map(|case| {
        let against = case.against.unwrap_or("–");
        vec![case.name.into(), case.about.into(), against.into()]
    });
    all += &table(&["name", "what", "against"], rows);
    all
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let table = Table {
        head: head.iter().map(ToString::to_string).collect(),
        rows: rows.collect(),
    };
    table.markdown()
}

const METHOD: &str = "
CPU time is that of the whole process (`CLOCK_PROCESS_CPUTIME_ID`): the thread that sends, the thread \
that serves faults, and the kernel for both. Time in which a processor waits for another is in it, sleep \
is not. All ways take turns at each size, and each figure is a median.

- *Hot*: the same bytes are sent again and again. *Cold*: each send has bytes of its own (up to 32 MiB \
in all, 64 in huge pages, in no order), after memory of twice the largest cache has been walked through. \
What bytes are copied to is hot in both (256 KiB, used again and again), as a driver's buffers are.
- A frame has 1448 bytes of payload. A share takes a loan for the connection and one for each frame from \
`hal::Ledger`, looks up the frame's pieces, and gives all of it back in bursts of 32 frames. A copy to the \
pool (`hal::CopyPool`) takes the same loans, of the pool's memory.
- *Written* means that the program writes one byte of each page between two sends, so the cost of the page \
is seen and not that of writing. The same is done where bytes are copied instead. Write-protection then \
costs two calls that clear (below 16 KiB one, and a fault of each page that is written, also by value: \
what Linux clears of shared memory it maps for writing only then; so more is mapped anew instead), and a \
call that protects. By pointer there is a fault that is served as well, of the first page and, as more \
is cleared ahead of who writes page after page, of the one behind each doubling.
- *In flight*: the order is that of the policy, but nobody sleeps: the bytes move to the pool, the loan \
ends, then the write faults and the page is cleared. One thread sends and writes.

Not in the figures: descriptors (a share has one more for each page that a frame touches; copies are in a row), doorbells, the \
IOMMU (memory is mapped for the device once; a live file that is mapped for each send would pay for that \
too), what the device itself reads over the bus, and what protection costs other threads of a program \
(interrupts between processors, a mapping in huge pages that is split).
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loans_are_told_for_a_byte() {
        let kept = InFlight {
            size: 1000,
            copied: 1000,
            shared_pages: 4096,
            shared_huge_pages: 2 << 20,
            shared_loans: 64,
        };
        assert_eq!(loans(&kept), 0.064);
        let page = memory(&[kept]);
        assert!(
            page.contains("| 1000 B | 1.000 | 0.064 | 4.096 | 2097.152 |"),
            "{page}"
        );
    }
}
