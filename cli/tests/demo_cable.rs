//! `pagewire demo` with a NIC of this machine: what is refused, and how. It is seen at work in
//! guests (`tests/lab`).

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

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
    for option in ["--reorder=1", "--duplicate=1", "--pcap=x", "--dma-page=4k"] {
        let why = refused(&["--device", NOWHERE, "--peer-interface", "eth1", option]);
        let (name, _) = option.split_once('=').unwrap();
        assert!(why.contains(name), "{why}");
        assert!(why.contains("devices in software"), "{why}");
    }
    // The kernel can be made to lose frames, smoltcp behind a wire of another process cannot.
    let wire = ["--device", "vfio-user:nowhere", "--wire", "pair:nowhere"];
    let why = refused(&[&wire[..], &["--loss=1"]].concat());
    assert!(why.contains("--loss with --peer smoltcp"), "{why}");
    let why = refused(&["--device", NOWHERE, "--peer-interface", "eth1", "--loss=1"]);
    assert!(why.contains("there is no PCI function"), "{why}");
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
    "#;
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .arg(env!("CARGO_BIN_EXE_pagewire"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(said, "status 2\n", "{errors}");
    let missing = format!("cannot open the NIC: there is no PCI function {NOWHERE}");
    assert_eq!(errors.matches(&missing).count(), 1, "{errors}");
}

/// A sender that dies leaves a connection that no FIN ends. Were the receiver's socket closed in order,
/// the kernel would keep it, and the namespace with the interface, for minutes.
#[test]
fn the_receiver_ends_its_connections_with_itself() {
    // An address of its own, which nobody else takes a port of.
    let own = "127.77.0.13";
    let mut receiver = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["__receive", "--address", own, "--port", "7777"])
        .args(["--connections", "1", "--interface", "lo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(receiver.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    assert_eq!(ready, "listening\n");
    let mut connection = TcpStream::connect((own, 7777)).unwrap();
    connection.write_all(&[7; 1000]).unwrap();
    // All of it is read: what is unread would have the connection reset anyway.
    std::thread::sleep(Duration::from_millis(300));
    drop(receiver.stdin.take());
    assert!(!receiver.wait().unwrap().success());
    let ended = connection.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(ended, Err(ErrorKind::ConnectionReset));
}
