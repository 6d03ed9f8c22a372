//! The demo on our model of the 82599, as its user sees it: the page budget with and without
//! segmentation by the device, and several pairs of queues, each with a sender of its own.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]

mod common;

use common::*;
use rustix::process::Signal;
use serde_json::Value;

/// What the driver computes for the device: 40 descriptors that it holds, less WTHRESH (0), two,
/// and a context.
const LIMIT: u64 = 37;

fn list<'a>(report: &'a Value, name: &str) -> &'a [Value] {
    report[name].as_array().unwrap()
}

fn sum(report: &Value, list: &str, field: &str) -> u64 {
    let numbers = self::list(report, list).iter();
    numbers.map(|row| row[field].as_u64().unwrap()).sum()
}

/// Runs a demo with `queues` pairs of queues and as many connections, each of `size` bytes; looks at
/// what must hold in any case.
fn on_queues(args: &str, queues: usize, connections: usize, size: u64) -> Value {
    let report = demo(args);
    assert_eq!(list(&report, "queues").len(), queues, "{args}: {report}");
    let streams = list(&report, "connections");
    assert_eq!(streams.len(), connections, "{args}: {report}");
    let first = &report["digests"]["sent"];
    for stream in streams {
        assert_eq!(stream["bytes"], size, "{args}: {report}");
        assert_eq!(&stream["sent"], first, "{args}: {report}");
        assert_eq!(&stream["received"], first, "{args}: {report}");
    }
    let all = sum(&report, "queues", "connections");
    assert_eq!(all, connections as u64, "{args}: {report}");
    for queue in list(&report, "queues") {
        let carried = size * queue["connections"].as_u64().unwrap();
        assert!(queue["bytes"].as_u64() >= Some(carried), "{args}: {report}");
        assert!(queue["frames"].as_u64() > Some(0), "{args}: {report}");
    }
    let posted = number(&report, "/frames/posted");
    assert_eq!(sum(&report, "queues", "frames"), posted, "{args}");
    report
}

#[test]
fn frames_of_64_kib_fit_the_page_budget() {
    let report = demo("--nic ixgbe --size 16M");
    assert_eq!(report["opened"], "ixgbe 82599 KX4");
    assert_eq!(number(&report, "/limits/max_fragments"), LIMIT);
    // 64 KiB lie in 17 pages of 4 KiB at most, and the header is one piece more.
    assert_eq!(number(&report, "/frames/most_fragments_seen"), 18);
    assert_eq!(number(&report, "/requests/ended_by_budget"), 0, "{report}");
    assert!(mean_request(&report) > 30 << 10, "{report}");
    assert_eq!(number(&report, "/bytes/shared"), 16 << 20);
    assert_eq!(copied(&report), 0, "{report}");
    assert_eq!(number(&report, "/checksums/by_cpu"), 0, "{report}");
    // The wire carries the segments that the model has cut.
    assert!(number(&report, "/arrived/mean_len") <= 1514, "{report}");
}

#[test]
fn small_pieces_bind_the_page_budget() {
    let report = demo("--nic ixgbe --size 16M --slice 700");
    assert_eq!(number(&report, "/limits/max_fragments"), LIMIT);
    assert_eq!(number(&report, "/frames/most_fragments_seen"), LIMIT);
    let bound = number(&report, "/requests/ended_by_budget");
    let posted = number(&report, "/requests/posted");
    assert!(bound > posted * 9 / 10, "bound {bound} times: {report}");
    // 36 pieces of 700 bytes at most: a request that does not fit ends earlier, nothing is copied.
    assert!(mean_request(&report) <= 36 * 700, "{report}");
    assert!(mean_request(&report) > 16 << 10, "{report}");
    assert_eq!(number(&report, "/bytes/shared"), 16 << 20);
    assert_eq!(copied(&report), 0, "{report}");
}

#[test]
fn a_bound_of_the_user_binds_as_the_devices_own() {
    let report = demo("--nic ixgbe --size 4M --max-fragments 9");
    assert_eq!(number(&report, "/frames/most_fragments_seen"), 9);
    assert!(number(&report, "/requests/ended_by_budget") > 0, "{report}");
    assert_eq!(copied(&report), 0, "{report}");
    // One segment of 1460 bytes crosses a page, or not: with two fragments some have to be copied.
    let report = demo("--nic ixgbe --size 4M --max-fragments 2 --no-segmentation");
    assert!(number(&report, "/bytes/shared") > 0, "{report}");
    assert!(copied(&report) > 0, "{report}");
}

#[test]
fn whatever_the_device_does_not_do() {
    for more in [
        "--no-segmentation",
        "--no-checksum",
        "--loss 2",
        "--mtu 9000",
        "--dma-page contiguous",
        "--tx-descriptors 64",
    ] {
        let report = demo(&format!("--nic ixgbe --size 4M {more}"));
        assert_eq!(copied(&report), 0, "{more}: {report}");
        let cuts = !more.contains("--no-");
        let requests = number(&report, "/requests/posted");
        assert_eq!(requests > 0, cuts, "{more}: {report}");
    }
    for (device, name, chip) in [
        ("xaui", "ixgbe 82599 XAUI", "82599"),
        ("sfp", "ixgbe 82599 SFP+", "82599"),
        ("x540t", "ixgbe X540T", "X540"),
    ] {
        let report = demo(&format!("--device model:ixgbe,device={device} --size 1M"));
        assert_eq!(report["opened"], name);
        let nic = report["nic"].as_str().unwrap();
        assert!(nic.contains(chip), "{device}: {nic}");
    }
}

/// Acknowledgements come to the queue that the connection is sent on: the ports were chosen so.
#[test]
fn queues_share_nothing() {
    let args = "--nic ixgbe --size 4M --queues 4";
    let report = on_queues(args, 4, 4, 4 << 20);
    assert_eq!(sum(&report, "queues", "received_for_others"), 0, "{report}");
    for queue in list(&report, "queues") {
        assert_eq!(queue["connections"], 1, "{report}");
        assert_eq!(queue["bytes"], 4 << 20, "{report}");
        assert!(queue["received"].as_u64() > Some(10), "{report}");
    }
    assert_eq!(copied(&report), 0, "{report}");
    // All that the driver has, and more connections than queues, which do not divide evenly.
    let args = "--nic ixgbe --size 256k --queues 16 --connections 21";
    let report = on_queues(args, 16, 21, 256 << 10);
    assert_eq!(sum(&report, "queues", "received_for_others"), 0, "{report}");
}

/// Any ports: acknowledgements come to queues that do not have the connection, and get there.
#[test]
fn what_comes_to_another_queue_is_handed_over() {
    let args = "--nic ixgbe --size 1M --queues 4 --connections 12 --any-port";
    let report = on_queues(args, 4, 12, 1 << 20);
    assert!(
        sum(&report, "queues", "received_for_others") > 0,
        "{report}"
    );
}

#[test]
fn queues_under_stress() {
    for more in [
        "--loss 2",
        "--slice 700",
        "--mtu 9000",
        "--no-checksum",
        "--tx-descriptors 64",
    ] {
        on_queues(
            &format!("--nic ixgbe --size 2M --queues 3 {more}"),
            3,
            3,
            2 << 20,
        );
    }
}

/// virtio-net brings what it receives to where the flow was sent from: ports do not matter.
#[test]
fn virtio_has_several_queues_too() {
    for device in ["model:virtio", "model:virtio,packed=on,queue_pairs=4"] {
        let args = format!("--device {device} --size 2M --queues 3 --connections 4");
        let report = on_queues(&args, 3, 4, 2 << 20);
        let misled = sum(&report, "queues", "received_for_others");
        assert_eq!(misled, 0, "{device}: {report}");
    }
}

#[test]
fn several_connections_on_one_queue() {
    let args = "--nic e1000e --size 2M --connections 3";
    on_queues(args, 1, 3, 2 << 20);
}

#[test]
fn the_table_has_a_row_for_each_queue() {
    let words = ["demo", "--nic", "ixgbe", "--size", "1M", "--queues", "2"];
    let output = pagewire(&words);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    for part in [
        "37 fragments a frame",
        "queue 0",
        "queue 1",
        "1 connection, 1,048,576 bytes",
        "0 of them for other queues",
        "on each of 2 connections",
        "equal; every page came back",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn queues_that_a_device_has_not_are_refused() {
    for device in ["model:e1000e", "qtest:virtio", "model:virtio,queue_pairs=2"] {
        let words = ["demo", "--size", "1M", "--device", device, "--queues", "3"];
        refused(&words);
        let output = pagewire(&words);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("model:ixgbe has up to 16"), "{errors}");
    }
    refused(&["demo", "--nic", "ixgbe", "--queues", "17"]);
    refused(&["demo", "--nic", "ixgbe", "--queues", "0"]);
    refused(&["demo", "--nic", "virtio", "--queues", "9"]);
    refused(&["demo", "--nic", "all", "--queues", "2", "--size", "1M"]);
    refused(&[
        "demo",
        "--nic",
        "ixgbe",
        "--queues",
        "3",
        "--connections",
        "2",
    ]);
    refused(&["demo", "--device", "qtest:ixgbe"]);
    refused(&["demo", "--device", "model:ixgbe,device=x550"]);
}

#[test]
fn ctrl_c_ends_all_threads() {
    interrupted("512M", &["--nic", "ixgbe", "--queues", "4"], Signal::INT);
}

#[test]
fn the_kernel_receives_from_several_queues() {
    if !can_make_a_tap("the_kernel_receives_from_several_queues") {
        return;
    }
    let before = interfaces();
    let args = "--nic ixgbe --peer linux --size 4M --queues 4";
    let report = on_queues(args, 4, 4, 4 << 20);
    let misled = sum(&report, "queues", "received_for_others");
    assert_eq!(misled, 0, "{report}");
    assert_eq!(interfaces(), before);
    assert!(!children_left());
}
