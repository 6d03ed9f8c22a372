//! The demo on virtio-net, our model of it and QEMU's own, as its user sees it: where the device
//! cuts the segments, frames have up to 64 KiB, and the page budget binds.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]

mod common;

use common::*;
use rustix::process::Signal;
use serde_json::Value;

fn most_fragments(report: &Value) -> u64 {
    let frames = report["frames"]["by_fragments"].as_array().unwrap();
    let fragments = frames.iter().map(|row| row[0].as_u64().unwrap());
    fragments.max().unwrap()
}

#[test]
fn the_device_cuts_what_pages_hold() {
    let report = demo("--nic virtio --size 16M");
    assert_eq!(copied(&report), 0, "{report}");
    assert!(mean_request(&report) > 30 << 10, "{report}");
    assert_eq!(number(&report, "/requests/ended_by_budget"), 0, "{report}");
    // 64 KiB lie in 17 pages at most, and the header is one piece more.
    assert!((17..=18).contains(&most_fragments(&report)), "{report}");
    assert_eq!(number(&report, "/checksums/by_cpu"), 0, "{report}");
    // The wire carries the segments that the model has cut.
    assert!(number(&report, "/arrived/mean_len") <= 1514, "{report}");
}

#[test]
fn small_pieces_bind_a_small_ring_only() {
    let options = "--nic virtio --size 16M --slice 700";
    let report = demo(&format!("{options} --tx-descriptors 64"));
    assert_eq!(number(&report, "/limits/max_fragments"), 64, "{report}");
    let bound = number(&report, "/requests/ended_by_budget");
    assert!(
        bound > number(&report, "/requests/posted") / 2,
        "bound {bound} times: {report}"
    );
    assert_eq!(most_fragments(&report), 64, "{report}");
    // A request that does not fit ends earlier; nothing is copied for it.
    assert_eq!(copied(&report), 0, "{report}");
    let report = demo(&format!("{options} --tx-descriptors 256"));
    assert_eq!(number(&report, "/requests/ended_by_budget"), 0, "{report}");
    assert!(most_fragments(&report) > 64, "{report}");
}

#[test]
fn every_ring_format_and_less() {
    for options in [
        "packed=on",
        "indirect_desc=off",
        "packed=on,indirect_desc=off,event_idx=off",
        "in_order=on,mrg_rxbuf=off",
        "host_tso4=off",
        "csum=off",
    ] {
        let report = demo(&format!("--device model:virtio,{options} --size 4M"));
        let opened = report["opened"].as_str().unwrap();
        assert_eq!(
            opened.contains("ring_packed"),
            options.contains("packed=on"),
            "{options}: {opened}"
        );
        let cuts = !options.contains("tso4") && !options.contains("csum");
        assert_eq!(
            number(&report, "/requests/posted") > 0,
            cuts,
            "{options}: {report}"
        );
        assert_eq!(
            report["limits"]["device_checksums"],
            !options.contains("csum=off"),
            "{options}: {report}"
        );
        // With or without checksums by the device: pages are shared.
        assert_eq!(copied(&report), 0, "{options}: {report}");
    }
    for more in [
        "--no-segmentation",
        "--no-checksum",
        "--loss 2",
        "--mtu 9000",
        "--max-fragments 4",
        "--dma-page contiguous",
    ] {
        demo(&format!("--nic virtio --size 4M {more}"));
    }
}

#[test]
fn all_nics_are_driven_in_turn() {
    let output = pagewire(&["demo", "--nic", "all", "--size", "1M"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for nic in ["82574L", "82599", "virtio-net"] {
        assert!(text.contains(nic), "{nic}: {text}");
    }
    let equal = text.matches("equal; every page came back").count();
    assert_eq!(equal, 3, "{text}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    refused(&["demo", "--device", "model:virtio,packed"]);
    refused(&["demo", "--device", "model:e1000e,packed=on"]);
    refused(&["demo", "--device", "model:virtio,interface=legacy"]);
    refused(&["demo", "--nic", "virtio", "--tx-descriptors", "100"]);
    refused(&["demo", "--nic", "all", "--size", "1M", "--pcap", "x.pcapng"]);
}

/// Checksums and segments reach the kernel as requests: it gets frames of up to 64 KiB.
#[test]
fn the_kernel_receives_what_qemus_device_does_not_cut() {
    let name = "the_kernel_receives_what_qemus_device_does_not_cut";
    if !has_qemu(name) || !can_make_a_tap(name) {
        return;
    }
    let before = interfaces();
    let to_kernel = "--device qtest:virtio --peer linux";
    // A plain file, this program itself.
    let file = env!("CARGO_BIN_EXE_pagewire");
    let report = demo(&format!("{to_kernel} --file {file}"));
    assert!(number(&report, "/arrived/mean_len") > 30 << 10, "{report}");
    assert_eq!(number(&report, "/requests/ended_by_budget"), 0, "{report}");
    assert!(most_fragments(&report) <= 18, "{report}");
    assert_eq!(copied(&report), 0, "{report}");
    let options = format!("{to_kernel} --size 32M --slice 700");
    let report = demo(&format!("{options} --tx-descriptors 64"));
    assert!(number(&report, "/arrived/mean_len") > 30 << 10, "{report}");
    assert!(
        number(&report, "/requests/ended_by_budget") > 100,
        "{report}"
    );
    let report = demo(&format!("{options} --tx-descriptors 256"));
    assert!(number(&report, "/arrived/mean_len") > 30 << 10, "{report}");
    assert_eq!(number(&report, "/requests/ended_by_budget"), 0, "{report}");
    interrupted(
        "200M",
        &["--device", "qtest:virtio", "--peer", "linux"],
        Signal::INT,
    );
    assert_eq!(interfaces(), before);
    assert!(!children_left());
}

#[test]
fn smoltcp_receives_from_qemus_virtio() {
    if !has_qemu("smoltcp_receives_from_qemus_virtio") {
        return;
    }
    for options in ["", ",packed=on", ",indirect_desc=off,event_idx=off"] {
        let report = demo(&format!("--device qtest:virtio{options} --size 4M"));
        assert_eq!(copied(&report), 0, "{options}: {report}");
    }
}
