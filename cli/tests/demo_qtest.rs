//! The demo on QEMU's own 82574L, as its user sees it.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]

mod common;

use std::process::Command;

use common::*;
use rustix::process::Signal;

fn shared_percent(report: &serde_json::Value) -> f64 {
    let copied = copied(report) + number(report, "/bytes/copied_too_short");
    let shared = number(report, "/bytes/shared");
    shared as f64 * 100.0 / (shared + copied) as f64
}

#[test]
fn smoltcp_receives_from_qemus_device() {
    if !has_qemu("smoltcp_receives_from_qemus_device") {
        return;
    }
    let report = demo("--device qtest:e1000e --size 8M");
    assert!(shared_percent(&report) > 95.0, "{report}");
    let report = demo("--device qtest:e1000e --size 4M --max-fragments 2");
    assert!(number(&report, "/bytes/shared") > 0, "{report}");
    assert!(copied(&report) > 0, "{report}");
    let report = demo("--device qtest:e1000e --size 2M --max-fragments 1");
    assert_eq!(number(&report, "/bytes/shared"), 0, "{report}");
    let report = demo("--device qtest:e1000e --size 4M --no-checksum --dma-page contiguous");
    assert_eq!(copied(&report), 0, "{report}");
    assert_eq!(number(&report, "/checksums/by_device"), 0, "{report}");
    demo("--device qtest:e1000e --size 4M --mtu 9000");
    demo("--device qtest:e1000e --size 1M --loss 1");
}

/// A real file, this program itself, from QEMU's NIC to the kernel's TCP.
#[test]
fn the_kernel_receives_a_file_from_qemus_device() {
    let name = "the_kernel_receives_a_file_from_qemus_device";
    if !has_qemu(name) || !can_make_a_tap(name) {
        return;
    }
    let before = interfaces();
    let file = env!("CARGO_BIN_EXE_pagewire");
    let report = demo(&format!("--device qtest:e1000e --peer linux --file {file}"));
    assert!(shared_percent(&report) > 95.0, "{report}");
    let len = std::fs::metadata(file).unwrap().len();
    assert!(number(&report, "/bytes/shared") >= len, "{report}");
    interrupted(
        "200M",
        &["--device", "qtest:e1000e", "--peer", "linux"],
        Signal::INT,
    );
    assert_eq!(interfaces(), before);
    assert!(!children_left());
}

#[test]
fn ctrl_c_ends_qemu_and_leaves_nothing_behind() {
    if !has_qemu("ctrl_c_ends_qemu_and_leaves_nothing_behind") {
        return;
    }
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        interrupted("200M", &["--device", "qtest:e1000e"], signal);
    }
}

#[test]
fn what_qtest_cannot_do_is_said_in_one_line() {
    // Before the input is read.
    refused(&["demo", "--device", "qtest:e1000e", "--size", "3G"]);
    refused(&["demo", "--device", "pci:e1000e"]);
    refused(&["demo", "--device", "model:e1000e", "--nic", "e1000e"]);
    let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["demo", "--device", "qtest:e1000e"])
        .env("PAGEWIRE_QEMU", "none")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("PAGEWIRE_QEMU=none"), "{errors}");
    let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["demo", "--device", "qtest:e1000e", "--size", "1M"])
        .env("PAGEWIRE_QEMU", "/no/such/qemu")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("/no/such/qemu"), "{errors}");
    assert_eq!(errors.trim().lines().count(), 1, "{errors}");
}
