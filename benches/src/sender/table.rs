//! Costs as a table, and as JSON.

use std::fmt::Write;

use super::run::{Cost, Mode};

/// The parts, in the order of a round.
const PARTS: [&str; 5] = ["send", "poll", "reclaim", "ack", "completion"];

/// A line for each case.
#[must_use]
pub fn text(costs: &[Cost], mode: Mode) -> String {
    let mut out = format!("{:<52}", "case");
    for part in PARTS {
        let _ = write!(out, "{part:>11}");
    }
    let _ = write!(out, "{:>9}{:>9}", "segment", "an ACK");
    out.push_str(if mode == Mode::Timed {
        "     s/GB\n"
    } else {
        "\n"
    });
    for cost in costs {
        let _ = write!(out, "{:<52}", cost.case.to_string());
        for part in PARTS {
            let _ = write!(
                out,
                "{:>11.1}",
                cost.parts.get(part).copied().unwrap_or(0.0)
            );
        }
        let (segment, ack) = (cost.per_segment(), cost.per_ack());
        let _ = write!(out, "{segment:>9.1}{ack:>9.1}");
        if mode == Mode::Timed {
            let _ = write!(out, "{:>9.4}", seconds_per_gigabyte(cost));
        }
        out.push('\n');
    }
    out
}

/// Nanoseconds for a byte are seconds for a gigabyte (10^9 bytes).
fn seconds_per_gigabyte(cost: &Cost) -> f64 {
    cost.per_segment() / cost.case.size.payload() as f64
}

/// All costs.
///
/// # Errors
/// Those of serde.
pub fn json(costs: &[Cost], mode: Mode) -> serde_json::Result<String> {
    let row = |cost: &Cost| {
        let mut row = serde_json::json!({
            "case": cost.case.to_string(),
            "device": cost.case.kind.name(),
            "payload_per_segment": cost.case.size.payload(),
            "segments_per_ack": cost.case.per_ack,
            "total": cost.per_segment(),
            "ack": cost.per_ack(),
            "parts": cost.parts,
        });
        if mode == Mode::Timed {
            row["seconds_per_gigabyte"] = seconds_per_gigabyte(cost).into();
        }
        row
    };
    let unit = match mode {
        Mode::Counted => "instructions",
        Mode::Timed => "nanoseconds",
    };
    let rows: Vec<_> = costs.iter().map(row).collect();
    serde_json::to_string_pretty(
        &serde_json::json!({ "unit": unit, "per": "segment", "cases": rows }),
    )
}
