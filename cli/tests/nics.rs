//! `list`, `bind` and `unbind` as their user sees them, on made-up machines in folders.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]
#![allow(unreachable_pub, reason = "a module of another test program as well")]
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::process::{Command, Output};

use serde_json::Value;

#[path = "../../vfio/tests/bind/tree.rs"]
mod tree;

use tree::{NIC, Tree};

/// Runs `pagewire WORDS --sysroot TREE`.
fn on(tree: &Tree, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(words.split_whitespace())
        .arg("--sysroot")
        .arg(tree.path())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs it with `--json`; the status must be this.
fn json(tree: &Tree, words: &str, status: i32) -> Value {
    let output = on(tree, &format!("{words} --json"));
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{words}: {out}{errors}");
    assert_eq!(errors.lines().count(), usize::from(status != 0), "{errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{words}: {error}: {out}"))
}

/// Runs it; nothing is printed but one line of why not, with this in it.
fn refused(tree: &Tree, words: &str, why: &str) {
    let before = tree.snapshot();
    let output = on(tree, words);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}: {errors}");
    assert!(output.stdout.is_empty(), "{words}");
    assert!(errors.contains(why), "{words}: {errors}");
    let own = errors.lines().filter(|line| {
        let clap = ["For more information", "Usage"];
        !line.is_empty() && !clap.iter().any(|begin| line.starts_with(begin))
    });
    assert_eq!(own.count(), 1, "{words}: {errors}");
    assert_eq!(tree.snapshot(), before);
}

fn codes(reasons: &Value) -> Vec<&str> {
    let reasons = reasons.as_array().unwrap().iter();
    reasons
        .map(|reason| reason["code"].as_str().unwrap())
        .collect()
}

#[test]
fn list_bind_list_unbind() {
    let tree = Tree::usual();
    tree.folder("sys/bus/pci/drivers/vfio-pci");
    tree.file("dev/iommu", "0\n");
    let before = tree.snapshot();

    let list = json(&tree, "list", 0);
    let nic = &list["nics"][0];
    assert_eq!(nic["address"], NIC);
    assert_eq!(nic["driver"], "e1000e");
    assert_eq!(nic["interfaces"][0]["name"], "eth1");
    assert_eq!(nic["iommu_group"], 7);
    assert_eq!(
        (&nic["can_be_bound"], &nic["bound"]),
        (&true.into(), &false.into())
    );
    assert_eq!(nic["pagewire"]["driver"], "e1000e");
    assert!(
        nic["pagewire"]["tried_on"]
            .as_str()
            .unwrap()
            .contains("the model")
    );

    let bound = json(&tree, "bind eth1 --user maria", 0);
    assert_eq!(bound["address"], NIC);
    assert_eq!(bound["previous_driver"], "e1000e");
    assert_eq!(bound["changed"], true);
    for (index, path) in ["/dev/vfio/7", "/dev/vfio/devices/vfio0"]
        .iter()
        .enumerate()
    {
        assert_eq!(bound["device_files"][index]["path"], *path);
        assert_eq!(bound["device_files"][index]["owner"], 1042);
    }
    assert_eq!(tree.driver_of(NIC).as_deref(), Some("vfio-pci"));

    let list = json(&tree, "list", 0);
    let nic = &list["nics"][0];
    assert_eq!(nic["bound"], true);
    assert_eq!(nic["interfaces"].as_array().unwrap().len(), 0);
    assert_eq!(nic["device_files"][0]["owner"], 1042);

    assert_eq!(json(&tree, &format!("bind {NIC}"), 0)["changed"], false);
    let unbound = json(&tree, &format!("unbind {NIC}"), 0);
    assert_eq!(unbound["driver"], "e1000e");
    assert_eq!(unbound["remembered"], true);
    assert_eq!(tree.snapshot(), before);
    assert_eq!(json(&tree, &format!("unbind {NIC}"), 0)["changed"], false);
}

#[test]
fn the_same_for_people() {
    let tree = Tree::usual();
    tree.nic("0000:03:00.1", "ixgbe", 9);
    tree.interface("eth2", "0000:03:00.1", true);
    tree.ipv4("eth2", [192, 168, 1, 5]);
    tree.bridge("0000:00:1c.0", "pcieport", 9);
    let list = text(&on(&tree, "list").stdout);
    for line in [
        "0000:03:00.0  e1000e 82574L (8086:10d3)",
        "  driver       e1000e",
        "  interface    eth1, down",
        "  IOMMU group  7, alone",
        "  can be bound yes",
        "  interface    eth2, up, link at 1000 Mb/s, 192.168.1.5",
        "  IOMMU group  9, with 0000:00:1c.0 (class 0604, pcieport)",
        "  can be bound no: interface eth2 is up, which has 192.168.1.5 (--force overrides)",
        "This machine: Linux 6.12.1-made-up, IOMMU on, vfio-pci loadable.",
        "  has-address: ip link set eth2 down; or --force, if the connection you use is another",
    ] {
        assert!(list.lines().any(|l| l == line), "{line}\n{list}");
    }
    let bound = text(&on(&tree, "bind 03:00.0").stdout);
    for line in [
        "0000:03:00.0 is bound to vfio-pci; it had e1000e",
        "  done: load module vfio-pci",
        "  done: take it from e1000e (unbind)",
        "  device files: /dev/vfio/7 (root)",
    ] {
        assert!(bound.lines().any(|l| l == line), "{line}\n{bound}");
    }
    let list = text(&on(&tree, "list").stdout);
    assert!(
        list.contains("  bound        yes: /dev/vfio/7 (root)"),
        "{list}"
    );
    let again = text(&on(&tree, "bind 03:00.0").stdout);
    assert!(again.contains("already; nothing was changed"), "{again}");
    let unbound = text(&on(&tree, "unbind 03:00.0").stdout);
    assert!(
        unbound.starts_with("0000:03:00.0 is back with e1000e\n"),
        "{unbound}"
    );
}

#[test]
fn refusals_say_what_helps() {
    let tree = Tree::usual();
    tree.interface("eth1", NIC, true);
    tree.ipv4("eth1", [192, 168, 1, 5]);
    tree.route("eth1", [0; 4], [192, 168, 1, 1], 0);
    refused(&tree, "bind eth1", "ip link set eth1 down");
    let failed = json(&tree, "bind eth1", 2);
    assert_eq!(codes(&failed["refusals"]), ["has-address", "default-route"]);
    assert_eq!(failed["refusals"][0]["can_be_forced"], true);
    assert_eq!(failed["address"], NIC);
    let forced = json(&tree, "bind eth1 --force", 0);
    assert_eq!(codes(&forced["notes"]), ["forced", "forced"]);
    // A name that is gone with its driver.
    refused(&tree, "unbind eth1", "named by its PCI address");
}

#[test]
fn a_shared_group_is_listed_and_not_forced() {
    let tree = Tree::usual();
    tree.nic("0000:03:00.1", "ixgbe", 7);
    refused(
        &tree,
        "bind eth1 --force",
        "0000:03:00.1 (class 0200, driver ixgbe)",
    );
    let failed = json(&tree, "bind eth1 --force", 2);
    assert_eq!(codes(&failed["refusals"]), ["group-in-use"]);
    assert_eq!(failed["refusals"][0]["can_be_forced"], false);
    let list = json(&tree, "list", 0);
    assert_eq!(list["nics"][0]["can_be_bound"], false);
    assert_eq!(list["nics"][0]["group_shared_with"][0]["usage"], "in use");
}

#[test]
fn what_is_bound_and_of_no_use_is_said() {
    let tree = Tree::usual();
    json(&tree, "bind eth1", 0);
    let list = json(&tree, "list", 0);
    assert_eq!(list["nics"][0]["can_be_bound"], true);
    tree.file("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    tree.file("dev/vfio/noiommu-7", "0\n");
    let list = json(&tree, "list", 0);
    let nic = &list["nics"][0];
    assert_eq!(
        (&nic["can_be_bound"], &nic["bound"]),
        (&false.into(), &true.into())
    );
    assert_eq!(codes(&nic["notes"]), ["unusable"]);
    let list = text(&on(&tree, "list").stdout);
    for line in [
        "  bound        yes, of no use: /dev/vfio/noiommu-7 (root)",
        "  note         bound, yet Pagewire cannot use it: VFIO's mode without an IOMMU is on",
    ] {
        assert!(list.contains(line), "{line}\n{list}");
    }
    refused(
        &tree,
        &format!("bind {NIC} --user maria"),
        "can write all memory",
    );
    tree.file("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\n");
    refused(&tree, &format!("unbind {NIC}"), "is not unbound: only root");
    let failed = json(&tree, &format!("unbind {NIC}"), 2);
    assert_eq!(failed["refusals"][0]["mend"], "run it with sudo");
}

#[test]
fn what_is_remembered_is_nobody_elses_to_write() {
    use std::os::unix::fs::PermissionsExt;
    let tree = Tree::usual();
    // With a umask that leaves everything to everybody.
    let status = Command::new("sh")
        .args(["-c", "umask 0; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_pagewire"))
        .args(["bind", "eth1", "--json", "--sysroot"])
        .arg(tree.path())
        .output()
        .unwrap()
        .status;
    assert!(status.success());
    for (path, mode) in [
        ("run/pagewire", 0o755),
        ("run/pagewire/bind", 0o755),
        ("run/pagewire/bind/lock", 0o600),
        ("run/pagewire/bind/0000:03:00.0", 0o644),
    ] {
        let found = tree.at(path).metadata().unwrap().permissions().mode();
        assert_eq!(found & 0o7777, mode, "{path}");
    }
    let folder = tree.at("run/pagewire/bind");
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
    refused(
        &tree,
        &format!("unbind {NIC}"),
        "run/pagewire/bind is not to be trusted",
    );
}

#[test]
fn a_device_in_use_by_a_process() {
    let tree = Tree::usual();
    json(&tree, "bind eth1", 0);
    tree.file("proc/4711/comm", "selftest\n");
    tree.link("proc/4711/fd/9", "/dev/vfio/7");
    refused(
        &tree,
        &format!("unbind {NIC}"),
        "process 4711 (selftest, /dev/vfio/7)",
    );
    let failed = json(&tree, &format!("unbind {NIC}"), 2);
    assert_eq!(failed["in_use_by"][0]["process"], 4711);
}

#[test]
fn a_step_that_fails_is_status_1() {
    let tree = Tree::usual();
    tree.remove("lib/modules");
    let before = tree.snapshot();
    let failed = json(&tree, "bind eth1", 1);
    assert!(
        failed["error"]
            .as_str()
            .unwrap()
            .contains("load module vfio-pci"),
        "{failed}"
    );
    assert_eq!(tree.snapshot(), before);
}

#[test]
fn what_names_no_device() {
    let tree = Tree::usual();
    for (words, why) in [
        ("bind 0000:03:00.0 0000:03:00.1", "unexpected argument"),
        ("bind 0000:03:20.0", "is no PCI address"),
        ("bind 3:0", "is no PCI address"),
        ("bind model:e1000e", "is no PCI address"),
        ("bind ../../etc", "neither a PCI address"),
        ("bind 0000:09:00.0", "there is no PCI device 0000:09:00.0"),
        ("unbind 0000:09:00.0", "there is no PCI device 0000:09:00.0"),
        ("bind eth9", "there is no network interface eth9"),
        ("bind eth1 --user nobody-here", "there is no user"),
    ] {
        refused(&tree, words, why);
    }
    let output = on(&tree, "bind");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_machine_without_nics_and_a_folder_without_a_machine() {
    let tree = Tree::empty();
    let list = text(&on(&tree, "list").stdout);
    assert!(list.starts_with("There is no NIC on PCI"), "{list}");
    tree.remove("sys");
    refused(&tree, "list", "is no tree of a machine");
    refused(&tree, "bind eth1", "is no tree of a machine");
}

#[test]
fn nothing_odd_reaches_the_terminal() {
    let tree = Tree::usual();
    tree.file(
        "usr/share/misc/pci.ids",
        "8086  \u{1b}[2JIntel\n\t10fb  82\u{7}599\n",
    );
    tree.file(&Tree::of(NIC, "device"), "0x1533\n");
    tree.device("0000:04:00.0", ("0x8086", "0x10fb"), "0x020000", "");
    tree.file(&Tree::of("0000:04:00.0", "reset_method"), "\u{1b}[2J\n");
    tree.link(&Tree::of("0000:04:00.0", "driver"), "a\u{1b}[2J");
    for words in [
        "list",
        "list --json",
        "bind 0000:04:00.0",
        "unbind 0000:04:00.0",
    ] {
        let output = on(&tree, words);
        for stream in [output.stdout, output.stderr] {
            let odd = text(&stream).contains(['\u{1b}', '\u{7}']);
            assert!(!odd, "{words}: {}", text(&stream).escape_debug());
        }
    }
}

#[test]
fn the_help_has_examples_and_statuses() {
    for command in ["list", "bind", "unbind"] {
        let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
            .args([command, "--help"])
            .output()
            .unwrap();
        let help = text(&output.stdout);
        assert!(
            help.contains("Examples:\n") && help.contains("Exit status:"),
            "{help}"
        );
    }
}

#[test]
fn this_machine_is_listed() {
    // It is only looked at. A container may have no sysfs.
    let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["list", "--json"])
        .output()
        .unwrap();
    if output.status.code() == Some(0) {
        let list: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(list["machine"]["kernel"].is_string(), "{list}");
    } else {
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("/sys/bus/pci/devices"));
    }
}
