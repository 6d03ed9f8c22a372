//! A run as a report in Markdown, for who has not seen the machine.

use std::fmt::Write as _;

use pagewire::drivers::selftest::{Facts, Outcome};
use pagewire_vfio::bind::{Environment, Machine, System};

use super::summary::Summary;
use crate::model::Names;

/// A report.
pub(super) fn text(summary: &Summary) -> String {
    let machine = Machine::new();
    let mut all = format!("# Pagewire self-test: {}\n\n", cell(&summary.device));
    let mut rows = facts(&machine, &summary.facts);
    rows.extend(surroundings(&machine, summary));
    table(&mut all, ["", ""], rows);
    all.push_str("\n## Tests\n\n");
    let rows = summary.reports.iter().map(|report| {
        let (result, text) = match &report.outcome {
            Outcome::Passed(detail) => ("passed", detail.clone()),
            Outcome::NotRun(why) => ("not run", why.clone()),
            Outcome::Failed(fault) => ("**failed**", format!("{fault}. {}", fault.advice)),
        };
        let seconds = format!("{:.3}", report.duration.as_secs_f64());
        [report.test.name().to_owned(), result.into(), seconds, text]
    });
    table(
        &mut all,
        ["test", "result", "seconds", "what was seen"],
        rows,
    );
    let _ = writeln!(all, "\n{}.", summary.last_line());
    for violation in &summary.violations {
        let _ = writeln!(all, "- the driver must not: {}", cell(violation));
    }
    all
}

fn table<const N: usize>(
    all: &mut String,
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) {
    let mut line = |cells: Vec<String>| {
        let _ = writeln!(all, "| {} |", cells.join(" | "));
    };
    line(head.iter().map(ToString::to_string).collect());
    line(vec!["---".into(); N]);
    for row in rows {
        line(row.iter().map(|text| cell(text)).collect());
    }
}

/// A text that does not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn facts(machine: &dyn System, facts: &Facts) -> Vec<[String; 2]> {
    let row = |name: &str, value: String| [name.to_owned(), value];
    let ids = |(vendor, device): (u16, u16)| format!("{vendor:04x}:{device:04x}");
    let (vendor, device) = facts.ids;
    let name = Names::read(machine).of(Some(vendor), Some(device));
    let capabilities = facts.pci_capabilities.iter();
    let capabilities: Vec<_> = capabilities.map(|id| format!("{id:#04x}")).collect();
    let mut rows = vec![
        row("model", name.unwrap_or_else(|| "unknown".into())),
        row("PCI ids", ids(facts.ids)),
        row("subsystem", ids(facts.subsystem)),
        row("revision", format!("{:#04x}", facts.revision)),
        row(
            "command and status",
            format!("{:#010x}", facts.command_status),
        ),
        row("PCI capabilities", capabilities.join(" ")),
        row("MSI-X vectors", facts.msix_vectors.to_string()),
    ];
    let opened = match &facts.opened {
        Ok(opened) => opened,
        Err(why) => {
            rows.push(row("not opened", why.clone()));
            return rows;
        }
    };
    let can = &opened.capabilities;
    let sums = |flags: pagewire::hal::ChecksumOffload| {
        let names: Vec<_> = flags
            .iter_names()
            .map(|(name, _)| name.to_lowercase())
            .collect();
        if names.is_empty() {
            "none".into()
        } else {
            names.join(" ")
        }
    };
    let link = match (opened.link.up, opened.link.speed_mbps) {
        (false, _) => "down".into(),
        (true, 0) => "up".into(),
        (true, speed) => format!("up, {speed} Mbit/s"),
    };
    rows.extend([
        row("driver and device", opened.description.clone()),
        // Half of it names the maker; all of it would name the machine.
        row("station address", half(&opened.mac.to_string())),
        row("link when opened", link),
        row(
            "gather",
            format!(
                "{} fragments of up to {} bytes, frames of up to {}",
                can.max_fragments, can.max_fragment_len, can.max_frame_len
            ),
        ),
        row("checksums inserted", sums(can.tx_checksum)),
        row("checksums verified", sums(can.rx_checksum)),
        row(
            "segmentation",
            can.segmentation.map_or("not offered".into(), |limits| {
                format!(
                    "up to {} bytes, IPv4 {}, IPv6 {}",
                    limits.max_payload_len,
                    yes(limits.ipv4),
                    yes(limits.ipv6)
                )
            }),
        ),
        row("queue pairs as opened", can.queue_pairs.to_string()),
        row("DMA address bits", can.dma_address_bits.to_string()),
    ]);
    rows
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn half(mac: &str) -> String {
    format!("{}:…", mac.get(..8).unwrap_or_default())
}

fn surroundings(machine: &dyn System, summary: &Summary) -> Vec<[String; 2]> {
    let row = |name: &str, value: &str| [name.to_owned(), value.to_owned()];
    let environment = Environment::read(machine);
    let around = &summary.surroundings;
    let time = match around.virtual_time {
        true => "virtual: durations and rates say nothing of the machine",
        false => "real",
    };
    vec![
        row("reached by", &around.backend),
        row("IOMMU", &around.iommu),
        row("peer", &around.peer),
        row("time", time),
        row(
            "kernel",
            environment.release.as_deref().unwrap_or("unknown"),
        ),
        row("architecture", std::env::consts::ARCH),
        row("pagewire", env!("CARGO_PKG_VERSION")),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::example;
    use super::text;

    #[test]
    fn a_report_has_what_is_known_and_keeps_its_tables() {
        let report = text(&example());
        for word in [
            "8086:10d3",
            "e1000e 82574L",
            "fragment 3 is \\| missing",
            "**failed**",
            "1 passed, 1 failed, 1 not run",
            "kernel",
            "64 fragments",
            env!("CARGO_PKG_VERSION"),
        ] {
            assert!(report.contains(word), "{word}: {report}");
        }
        for line in report.lines().filter(|line| line.starts_with('|')) {
            let cells = line.replace("\\|", "").matches('|').count();
            assert!(cells == 3 || cells == 5, "{line}");
        }
    }
}
