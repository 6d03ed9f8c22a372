//! The table that is printed at the end.

use alloc::format;
use alloc::string::{String, ToString};

use crate::console::line;
use crate::heap;
use crate::send::Report;

/// Prints a row.
fn row(name: &str, value: &str) {
    line!("{name:<28}  {value}");
}

/// Prints what was found out.
pub(crate) fn print(report: &Report, digest: &str) {
    let stats = &report.stats;
    let (copied, rescued) = (&stats.copied, &stats.rescued);
    let payload = stats.data.bytes;
    let segments = stats.data.segments;
    let frames = report.by_fragments.iter().map(|(_, count)| count).sum();
    let over_budget = rescued.segments + copied.over_budget.segments;
    row("through", report.nic.name);
    if let Some(features) = report.nic.features {
        row("  negotiated", &features.to_string());
    }
    row("bytes of the file", &grouped(report.bytes as u64));
    row("bytes shared", &part(stats.shared_bytes, payload));
    for (name, bytes) in [
        ("bytes copied", rescued.bytes + copied.total().bytes),
        ("  to rescue a segment", rescued.bytes),
        ("  over the page budget", copied.over_budget.bytes),
        ("  device does not gather", copied.no_gather.bytes),
        ("  frame would be too short", copied.too_short.bytes),
    ] {
        row(name, &part(bytes, payload));
    }
    let budget = format!("{} fragments a frame", report.max_fragments);
    row("page budget", &budget);
    row("  segments it bound", &part(over_budget, segments));
    row("frames posted", &grouped(frames));
    for (fragments, count) in &report.by_fragments {
        let plural = if *fragments == 1 { "" } else { "s" };
        let name = format!("  of {fragments} fragment{plural}");
        row(&name, &part(*count, frames));
    }
    row(
        "TCP checksums by the device",
        &grouped(stats.checksums.tcp_device),
    );
    row("  by the CPU", &grouped(stats.checksums.tcp_cpu));
    row(
        "segments sent again",
        &grouped(stats.retransmits().segments),
    );
    let peak = grouped(report.pages.pinned_pages_peak);
    row("pages pinned at most", &format!("{peak} of 4 KiB"));
    row("  now", &grouped(report.pages.pinned_pages));
    let [link, transfer] = [report.link, report.transfer].map(|time| time.as_secs_f64());
    row("heap in use at the end", &grouped(heap::in_use() as u64));
    row("from the start to the link", &format!("{link:.3} s"));
    let speed = payload as f64 / transfer.max(1e-9) / 1e6;
    row("time", &format!("{transfer:.3} s, {speed:.0} MB/s"));
    row("SHA-256 of the file", digest);
    row("the receiver says", &report.answer);
}

/// `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and which part of the whole it is.
fn part(number: u64, whole: u64) -> String {
    let percent = number as f64 * 100.0 / (whole as f64).max(1.0);
    format!("{}  ({percent:.1} %)", grouped(number))
}
