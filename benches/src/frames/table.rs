//! Costs as a table, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::case::{Case, Layer, SHAPES, shape_name};
use super::run::Costs;

/// A case in the JSON file.
#[derive(Serialize)]
struct Row<'a> {
    case: String,
    device: &'static str,
    layer: &'static str,
    /// Fragments behind the header.
    fragments: usize,
    asked: &'static str,
    burst: usize,
    /// Of a frame, all parts together.
    total: f64,
    parts: &'a BTreeMap<String, f64>,
}

/// What a case costs in all.
#[must_use]
pub fn total(parts: &BTreeMap<String, f64>) -> f64 {
    parts.values().sum()
}

/// `unit` and all costs.
///
/// # Errors
/// Those of serde.
pub fn json(unit: &str, costs: &Costs) -> serde_json::Result<String> {
    let row = |(case, parts): &'_ (Case, BTreeMap<String, f64>)| {
        serde_json::to_value(Row {
            case: case.to_string(),
            device: case.kind.name(),
            layer: case.layer.name(),
            fragments: case.fragments,
            asked: case.asked.name(),
            burst: case.burst,
            total: total(parts),
            parts,
        })
    };
    let rows = costs.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    let all = serde_json::json!({ "unit": unit, "per": "frame", "cases": rows });
    serde_json::to_string_pretty(&all)
}

/// One line for each driver, layer, offload and burst; a column for each shape.
#[must_use]
pub fn text(costs: &Costs) -> String {
    let mut lines: Vec<(Case, BTreeMap<usize, f64>)> = Vec::new();
    for (case, parts) in costs {
        let line = Case {
            fragments: 0,
            ..*case
        };
        if lines.last().is_none_or(|(last, _)| *last != line) {
            lines.push((line, BTreeMap::new()));
        }
        if let Some((_, columns)) = lines.last_mut() {
            columns.insert(case.fragments, total(parts));
        }
    }
    let mut out = format!(
        "{:<24}{:<9}{:<10}{:>5} ",
        "device", "layer", "asked", "burst"
    );
    for fragments in SHAPES {
        let _ = write!(out, "{:>8}", shape_name(fragments));
    }
    out.push('\n');
    for (case, columns) in lines {
        let asked = match case.layer {
            Layer::Receive => "",
            _ => case.asked.name(),
        };
        let (kind, layer) = (case.kind.name(), case.layer.name());
        let _ = write!(out, "{kind:<24}{layer:<9}{asked:<10}{:>5} ", case.burst);
        for fragments in SHAPES {
            match columns.get(&fragments) {
                Some(cost) => {
                    let _ = write!(out, "{cost:>8.1}");
                }
                None => out.push_str("        "),
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out
}
