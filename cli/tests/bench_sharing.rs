//! `pagewire bench sharing` as a command: what it reports, and that the page of the documentation is
//! one of its own. How long anything takes is not looked at.

#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{await_handler, pagewire, refused};
use serde_json::Value;

fn strings<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    let list = list.as_array().unwrap().iter();
    list.map(|entry| entry[key].as_str().unwrap()).collect()
}

/// Headings, heads of tables and first cells: what does not depend on figures.
fn form(page: &str) -> BTreeSet<String> {
    let mut before = "";
    let mut form = BTreeSet::new();
    for line in page.lines() {
        if line.starts_with('#') {
            form.insert(line.to_owned());
        }
        if line.starts_with("| ---") {
            form.insert(before.to_owned());
        }
        before = line;
    }
    form
}

#[test]
fn a_quick_run_has_every_way_at_every_size_and_makes_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("sharing.md");
    let page_name = page.to_str().unwrap();
    let output = pagewire(&[
        "bench",
        "sharing",
        "--quick",
        "--json",
        "--markdown",
        page_name,
    ]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();

    let measured = &report["measured"];
    let protection = measured["no_protection"].is_null();
    assert!(
        protection || std::env::var_os("CI").is_none(),
        "CI can protect: {measured:#}"
    );
    let sizes: Vec<u64> = measured["sizes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|size| size.as_u64().unwrap())
        .collect();
    assert_eq!(
        (sizes.first(), sizes.last()),
        (Some(&256), Some(&(16 << 20)))
    );
    let figures = measured["figures"].as_array().unwrap();
    for case in strings(&report["cases"], "name") {
        let watched = ["protected", "huge", "signal", "copy-w"];
        if !protection && watched.iter().any(|watched| case.starts_with(watched)) {
            continue;
        }
        for cache in ["hot", "cold"] {
            for size in &sizes {
                let found: Vec<_> = figures
                    .iter()
                    .filter(|f| f["case"] == case && f["cache"] == cache && f["size"] == *size)
                    .collect();
                assert_eq!(found.len(), 1, "{case}, {cache}, {size}");
                // Below a tick of the clock at worst, and no minutes.
                let cost = found[0]["nanoseconds"].as_f64().unwrap();
                assert!(
                    (0.0..60e9).contains(&cost),
                    "{case}, {cache}, {size}: {cost}"
                );
            }
        }
    }
    let policies = strings(&report["thresholds"], "policy");
    assert!(
        policies.contains(&"owned") && policies.contains(&"live"),
        "{policies:?}"
    );
    assert_eq!(policies.len(), if protection { 7 } else { 2 });
    for crossover in report["crossovers"].as_array().unwrap() {
        assert_eq!(crossover["ratios"].as_array().unwrap().len(), sizes.len());
    }
    let claim = report["claim"].as_array().unwrap();
    assert!(
        claim.iter().any(|finding| finding["case"] == "owned-sum"),
        "{claim:#?}"
    );

    let plot = std::fs::read_to_string(page.with_extension("svg")).unwrap();
    assert!(plot.contains("<svg") && (plot.contains("protected-value") || !protection));
    let made = std::fs::read_to_string(&page).unwrap();
    assert!(made.contains("(sharing.svg)"));
    if protection {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let kept = std::fs::read_to_string(docs.join("sharing.md")).unwrap();
        assert_eq!(form(&made), form(&kept), "make docs/sharing.md anew");
        assert!(kept.contains("`pagewire bench sharing --markdown docs/sharing.md`"));
        assert!(docs.join("sharing.svg").exists());
    }
}

#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["bench", "sharing", "--markdown", page.to_str().unwrap()])
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    // Once it watches for signals, it would take minutes.
    await_handler(&mut child, rustix::process::Signal::INT);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_is_refused_at_once() {
    refused(&["bench", "sharing", "--markdown", "no/such/folder/page.md"]);
    refused(&["bench", "sharing", "--markdown", "page.svg"]);
}
