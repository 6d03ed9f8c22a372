//! A run as JSON.

use pagewire::drivers::selftest::{Facts, Outcome, Report};
use serde::Serialize;
use serde_json::{Value, json};

use super::summary::{Counts, Summary};
use crate::error::Failure;

/// A test.
#[derive(Serialize)]
struct TestReport {
    name: &'static str,
    description: &'static str,
    /// `passed`, `failed` or `not run`.
    result: &'static str,
    /// What was seen, is wrong, or why it was not run.
    detail: String,
    /// Of a fault: where.
    place: Option<String>,
    /// Of a fault: how to go on.
    advice: Option<String>,
    seconds: f64,
}

impl TestReport {
    fn of(report: &Report) -> Self {
        let (result, detail, place, advice) = match &report.outcome {
            Outcome::Passed(detail) => ("passed", detail.clone(), None, None),
            Outcome::NotRun(why) => ("not run", why.clone(), None, None),
            Outcome::Failed(fault) => (
                "failed",
                fault.what.clone(),
                Some(fault.place.clone()),
                Some(fault.advice.clone()),
            ),
        };
        Self {
            name: report.test.name(),
            description: report.test.description(),
            result,
            detail,
            place,
            advice,
            seconds: report.duration.as_secs_f64(),
        }
    }
}

/// All of it.
pub(super) fn text(summary: &Summary) -> Result<String, Failure> {
    let Counts {
        passed,
        failed,
        not_run,
    } = summary.counts();
    let tests: Vec<_> = summary.reports.iter().map(TestReport::of).collect();
    let around = &summary.surroundings;
    let all = json!({
        "pagewire": env!("CARGO_PKG_VERSION"),
        "device": summary.device,
        "backend": around.backend,
        "iommu": around.iommu,
        "peer": around.peer,
        "virtual_time": around.virtual_time,
        "facts": facts(&summary.facts),
        "tests": tests,
        "passed": passed,
        "failed": failed,
        "not_run": not_run,
        "violations": summary.violations,
        "interrupted": summary.interrupted,
    });
    serde_json::to_string_pretty(&all)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))
}

fn facts(facts: &Facts) -> Value {
    let ids = |(vendor, device): (u16, u16)| format!("{vendor:04x}:{device:04x}");
    let mut value = json!({
        "ids": ids(facts.ids),
        "subsystem": ids(facts.subsystem),
        "revision": facts.revision,
        "pci_capabilities": facts.pci_capabilities,
        "msix_vectors": facts.msix_vectors,
        "not_opened": facts.opened.as_ref().err(),
    });
    if let Ok(opened) = &facts.opened {
        let can = &opened.capabilities;
        let names = |flags: pagewire::hal::ChecksumOffload| {
            let names = flags.iter_names().map(|(name, _)| name.to_lowercase());
            names.collect::<Vec<_>>()
        };
        value["description"] = json!(opened.description);
        value["mac"] = json!(opened.mac.to_string());
        value["link_up"] = json!(opened.link.up);
        value["link_mbps"] = json!(opened.link.speed_mbps);
        value["max_fragments"] = json!(can.max_fragments);
        value["max_fragment_len"] = json!(can.max_fragment_len);
        value["max_frame_len"] = json!(can.max_frame_len);
        value["queue_pairs"] = json!(can.queue_pairs);
        value["tx_checksum"] = json!(names(can.tx_checksum));
        value["rx_checksum"] = json!(names(can.rx_checksum));
        value["segmentation"] = json!(can.segmentation.map(|limits| limits.max_payload_len));
    }
    value
}
