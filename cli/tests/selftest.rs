//! `pagewire selftest` as a command: what it prints, writes, and ends with.

#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{await_serving, can_make_a_tap, pagewire};
use serde_json::Value;

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Runs with `--json`, and must end with `status`.
fn json(words: &[&str], status: i32) -> Value {
    let words: Vec<_> = ["selftest", "--json"]
        .iter()
        .chain(words)
        .copied()
        .collect();
    let output = pagewire(&words);
    let (out, errors) = text(&output);
    assert_eq!(
        output.status.code(),
        Some(status),
        "{words:?}\n{out}\n{errors}"
    );
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words:?}: {error}\n{out}"))
}

fn names(report: &Value) -> Vec<&str> {
    let tests = report["tests"].as_array().unwrap().iter();
    tests.map(|test| test["name"].as_str().unwrap()).collect()
}

#[test]
fn every_model_passes() {
    for (device, not_run) in [
        ("model:e1000e", vec!["segmentation"]),
        ("model:ixgbe", vec![]),
        ("model:ixgbe,device=x540t", vec![]),
        ("model:ixgbe,device=sfp", vec![]),
        (
            "model:virtio",
            vec!["eeprom", "loopback", "checksum-receive"],
        ),
        (
            "model:virtio,packed=on,queue_pairs=2",
            vec!["eeprom", "loopback", "checksum-receive"],
        ),
    ] {
        let report = json(&[device], 0);
        assert_eq!(report["failed"], 0, "{device}: {report:#}");
        let tests = report["tests"].as_array().unwrap();
        let skipped: Vec<_> = tests
            .iter()
            .filter(|test| test["result"] == "not run")
            .map(|test| test["name"].as_str().unwrap())
            .collect();
        assert_eq!(skipped, not_run, "{device}");
        assert_eq!(report["violations"], serde_json::json!([]), "{device}");
        assert_eq!(tests.len(), 13);
        for test in tests {
            assert!(!test["detail"].as_str().unwrap().is_empty(), "{test}");
            assert!(test["seconds"].is_number());
        }
    }
}

#[test]
fn only_what_is_asked_for_is_run() {
    let report = json(&["model:virtio", "--only", "gather,registers"], 0);
    assert_eq!(names(&report), ["registers", "gather"]);
    assert_eq!(
        (&report["passed"], &report["not_run"]),
        (&2.into(), &0.into())
    );
    assert_eq!(report["facts"]["ids"], "1af4:1041");
    let report = json(&["model:virtio", "--only", "gather", "--peer", "none"], 0);
    assert_eq!(report["not_run"], 1);
    let why = report["tests"][0]["detail"].as_str().unwrap();
    assert!(
        why.contains("needs a peer") && why.contains("--peer"),
        "{why}"
    );
}

#[test]
fn the_table_and_the_list_are_for_people() {
    let output = pagewire(&["selftest", "model:e1000e", "--only", "eeprom,segmentation"]);
    let (out, errors) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    for words in [
        "8086:10d3",
        "virtual",
        "eeprom             passed",
        "segmentation       not run",
        "2 tests: 1 passed, 0 failed, 1 not run",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let (out, _) = text(&pagewire(&["selftest", "--list"]));
    assert_eq!(out.lines().count(), 13);
    assert!(
        out.contains("dma-write") && out.contains("not mapped"),
        "{out}"
    );
    let (out, _) = text(&pagewire(&["selftest", "--help"]));
    assert!(
        out.contains("Examples:") && out.contains("--report nic.md"),
        "{out}"
    );
}

#[test]
fn a_report_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nic.md");
    let path = file.to_str().unwrap();
    let report = json(
        &["model:ixgbe", "--only", "registers,link", "--report", path],
        0,
    );
    assert_eq!(report["passed"], 2);
    let written = std::fs::read_to_string(&file).unwrap();
    for words in [
        "# Pagewire self-test: model:ixgbe",
        "| PCI ids | 8086:10f7 |",
        "| registers | passed |",
        "| kernel |",
        "| IOMMU |",
        "37 fragments",
        "02:00:00:…",
    ] {
        assert!(written.contains(words), "{words}: {written}");
    }
    // Known before anything is tested.
    let output = pagewire(&["selftest", "model:ixgbe", "--report", "/nowhere/nic.md"]);
    let (out, errors) = text(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        out.is_empty() && errors.contains("--report /nowhere/nic.md"),
        "{errors}"
    );
}

/// A NIC that another process plays, which ends with the value.
struct Model(Child);

impl Model {
    fn start(nic: &str, socket: &Path, wire: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pagewire"))
            .args(["model", nic, "--wire", &format!("pair:{}", wire.display())])
            .arg("--socket")
            .arg(socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        await_serving(&mut child);
        Self(child)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_nic_in_another_process_passes() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, wire) = (folder.path().join("nic.sock"), folder.path().join("wire"));
    std::fs::create_dir(&wire).unwrap();
    let _model = Model::start("e1000e", &socket, &wire);
    let device = format!("vfio-user:{}", socket.display());
    let peer = format!("pair:{}", wire.display());
    let report = json(&[&device, "--peer", &peer], 0);
    assert_eq!(
        (&report["failed"], &report["passed"]),
        (&0.into(), &10.into()),
        "{report:#}"
    );
    // There is no IOMMU, and it says so.
    let why = report["tests"][9]["detail"].as_str().unwrap();
    assert!(why.contains("no IOMMU"), "{why}");
    // Without a peer it is the loopback again.
    let report = json(&[&device, "--only", "gather"], 0);
    let detail = report["tests"][0]["detail"].as_str().unwrap();
    assert!(detail.contains("loopback"), "{detail}");
}

/// `pagewire model … --wire tap:NAME`: the kernel's interface is at the other end, in a network
/// namespace of its own, which ends with the last process there.
#[test]
fn a_nic_in_another_process_on_a_tap_passes() {
    if !can_make_a_tap("a_nic_in_another_process_on_a_tap_passes") {
        return;
    }
    let script = r#"
        mount -t sysfs sys /sys || exit 99
        "$0" model "$1" --socket "$2/nic" --wire tap:pwt0 --violations report --json >"$2/report" &
        model=$!
        trap 'kill -KILL $model' EXIT
        # In this list a socket that listens has this flag.
        until grep -q "00010000 .*$2/nic" /proc/net/unix; do kill -0 $model || exit 98; sleep 0.01; done
        echo 1 >/proc/sys/net/ipv6/conf/pwt0/disable_ipv6
        ip link set pwt0 up || exit 97
        "$0" selftest vfio-user:"$2/nic" --peer pwt0 --json || exit 96
        kill -INT $model
        trap - EXIT
        wait $model
    "#;
    for nic in ["e1000e", "ixgbe", "virtio"] {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                script,
            ])
            .args([env!("CARGO_BIN_EXE_pagewire"), nic])
            .arg(folder.path())
            .output()
            .unwrap();
        let (out, errors) = text(&output);
        assert_eq!(output.status.code(), Some(0), "{nic}\n{out}\n{errors}");
        let report: Value = serde_json::from_str(&out).unwrap();
        let gather = report["tests"].as_array().unwrap().iter();
        let gather = gather.filter(|test| test["name"] == "gather" || test["name"] == "throughput");
        let gather: Vec<_> = gather.collect();
        assert_eq!(gather.len(), 2, "{nic}: {report:#}");
        for test in gather {
            assert_eq!(test["result"], "passed", "{nic}: {report:#}");
            let detail = test["detail"].as_str().unwrap();
            assert!(!detail.contains("loopback"), "{nic}: {detail}");
        }
        let served = std::fs::read_to_string(folder.path().join("report")).unwrap();
        let served: Value = serde_json::from_str(&served).unwrap();
        assert!(
            served["received_frames"].as_u64().unwrap() >= 2000,
            "{served:#}"
        );
        assert_eq!(served["violations"], 0, "{served:#}");
    }
}

#[test]
fn what_cannot_be_tested_ends_with_2() {
    for (words, why) in [
        (vec!["selftest"], "DEVICE"),
        (vec!["selftest", "model:82574"], "model:e1000e"),
        (
            vec!["selftest", "model:e1000e", "--only", "everything"],
            "registers",
        ),
        (
            vec!["selftest", "model:e1000e", "--peer", "eth1"],
            "a peer of its own",
        ),
        (vec!["selftest", "0000:ff:1f.7"], "0000:ff:1f.7"),
        (
            vec!["selftest", "vfio-user:/nowhere/nic.sock"],
            "/nowhere/nic.sock",
        ),
        (
            vec!["selftest", "0000:ff:1f.7", "--peer", "no-such-if0"],
            "--peer no-such-if0",
        ),
    ] {
        let output = pagewire(&words);
        let (_, errors) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {errors}");
        assert!(errors.contains(why), "{words:?}: {errors}");
    }
}
