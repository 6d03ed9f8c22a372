//! `pagewire demo` with a NIC of this machine: what is refused, and how. It is seen at work in
//! guests (`tests/lab`).

mod common;

use std::process::Command;

use common::{can_make_a_tap, pagewire};

/// An address that no machine has something at.
const NOWHERE: &str = "0000:ff:1f.7";

/// Runs a demo that must be refused in one line, with status 2, and returns the line.
fn refused(words: &[&str]) -> String {
    let output = pagewire(&[&["demo", "--size", "1M"], words].concat());
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words:?}: {errors}");
    assert_eq!(errors.trim().lines().count(), 1, "{words:?}: {errors}");
    errors
}

#[test]
fn a_cable_has_another_interface_at_its_end() {
    for words in [
        &["--device", NOWHERE][..],
        &["--device", "ff:1f.7", "--peer", "linux"],
        &[
            "--device",
            NOWHERE,
            "--peer",
            "smoltcp",
            "--peer-interface",
            "eth1",
        ],
    ] {
        let why = refused(words);
        assert!(why.contains(NOWHERE), "{why}");
        assert!(why.contains("--peer linux --peer-interface eth1"), "{why}");
    }
    let why = refused(&["--device", NOWHERE, "--peer-interface", "nosuch0"]);
    assert!(
        why.contains("--peer-interface nosuch0: there is none"),
        "{why}"
    );
    let why = refused(&["--peer-interface", "eth1"]);
    assert!(
        why.contains("no cable leads there from model:e1000e"),
        "{why}"
    );
    let why = refused(&["--device", "qtest:e1000e", "--peer-interface", "eth1"]);
    assert!(why.contains("no cable leads there"), "{why}");
}

#[test]
fn what_is_for_devices_in_software_is_refused() {
    for option in [
        "--loss=1",
        "--reorder=1",
        "--duplicate=1",
        "--pcap=x",
        "--dma-page=4k",
    ] {
        let why = refused(&["--device", NOWHERE, "--peer-interface", "eth1", option]);
        let (name, _) = option.split_once('=').unwrap();
        assert!(why.contains(name), "{why}");
        assert!(why.contains("devices in software"), "{why}");
    }
}

/// In network and mount namespaces of its own, where /sys shows the interfaces that are made here.
#[test]
fn the_nic_is_looked_at_before_the_interface_is_taken() {
    if !can_make_a_tap("the_nic_is_looked_at_before_the_interface_is_taken") {
        return;
    }
    let script = r#"
        mount -t sysfs sys /sys && ip link add pw0 type veth peer name pw1 || exit 99
        "$0" demo --size 1M --device ff:1f.7 --peer-interface pw0; echo "status $?"
        ip link show pw0 >&2 || exit 98
        ip link set pw0 up && ip addr add 192.0.2.1/24 dev pw0 || exit 97
        "$0" demo --size 1M --device ff:1f.7 --peer-interface pw0; echo "status $?"
    "#;
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_pagewire"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, "status 2\nstatus 2\n", "{errors}");
    let missing = format!("cannot open the NIC: there is no PCI function {NOWHERE}");
    assert!(errors.contains(&missing), "{errors}");
    assert!(errors.contains("which has 192.0.2.1"), "{errors}");
    assert!(errors.contains("ip link set pw0 down"), "{errors}");
}
