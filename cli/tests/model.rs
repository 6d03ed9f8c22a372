//! `pagewire model` as its user sees it: the socket, its end, what it prints.

#![allow(clippy::unwrap_used, reason = "a panic is the failure")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pagewire_vfio_user::{CONFIG_REGION, Client, ClientError};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// Ended with the test, whatever happens.
struct Model(Option<Child>);

impl Model {
    /// `pagewire model NIC --socket PATH OPTIONS`.
    fn start(nic: &str, socket: &Path, options: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_pagewire"))
            .args(["model", nic, "--socket"])
            .arg(socket)
            .args(options.split_whitespace())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(Some(child.unwrap()))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.0.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    fn end(mut self) -> (Output, String, String) {
        let output = self.0.take().unwrap().wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (out, errors) = (text(&output.stdout), text(&output.stderr));
        (output, out, errors)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Connects as soon as somebody listens and has time.
fn connect(socket: &Path) -> Client {
    loop {
        match Client::connect(socket, PATIENCE) {
            Err(ClientError::NoServer { .. } | ClientError::InUse) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other.unwrap(),
        }
    }
}

#[test]
fn it_serves_until_it_is_interrupted_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("nic");
    for (nic, id) in [
        ("e1000e", 0x10d3_8086_u32),
        ("ixgbe,device=x540t", 0x1528_8086),
        ("virtio,packed=on", 0x1041_1af4),
    ] {
        let wire = format!("--wire pair:{} --json", place.path().join("wire").display());
        let model = Model::start(nic, &socket, &wire);
        let mut client = connect(&socket);
        let mut word = [0; 4];
        client.read(CONFIG_REGION, 0, &mut word).unwrap();
        assert_eq!(u32::from_le_bytes(word), id);
        model.signal(Signal::INT);
        let (output, out, errors) = model.end();
        assert_eq!(output.status.code(), Some(0), "{out}{errors}");
        assert_eq!(errors, "");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["nic"], nic);
        assert_eq!(report["clients"], 1);
        assert_eq!(report["violations"], 0);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
        assert_eq!(client.reset(), Err(ClientError::Gone));
    }
}

#[test]
fn a_killed_one_is_not_in_the_way_of_the_next_and_a_live_one_is() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("nic");
    let killed = Model::start("e1000e", &socket, "--wire none");
    drop(connect(&socket));
    killed.signal(Signal::KILL);
    killed.end();
    assert!(socket.exists());
    let model = Model::start("e1000e", &socket, "--wire none");
    let mut client = connect(&socket);
    let (output, out, errors) = Model::start("virtio", &socket, "--wire none").end();
    assert_eq!(output.status.code(), Some(2), "{out}");
    assert!(errors.contains("another server listens"), "{errors}");
    assert_eq!(
        Client::connect(&socket, PATIENCE).map(drop),
        Err(ClientError::InUse)
    );
    client.read(CONFIG_REGION, 0, &mut [0; 4]).unwrap();
    drop(client);
    connect(&socket);
    model.signal(Signal::TERM);
    let (_, out, _) = model.end();
    assert!(out.contains("a second client was turned away"), "{out}");
    assert!(out.contains("2 clients"), "{out}");
    assert!(!socket.exists());
}

#[test]
fn a_violation_is_named_and_ends_it_if_that_is_wanted() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("nic");
    let model = Model::start("e1000e", &socket, "--wire none --violations stop");
    let mut client = connect(&socket);
    // There is no register.
    let _ = client.read(0, 0xc, &mut [0; 4]);
    let (output, out, errors) = model.end();
    assert_eq!(output.status.code(), Some(1), "{out}{errors}");
    assert!(out.contains("violation: read of 0xc"), "{out}");
    assert!(
        errors.contains("violated the specification once"),
        "{errors}"
    );
    assert!(!socket.exists());
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("nic");
    let nowhere = place.path().join("no").join("nic");
    for (nic, socket, options, why) in [
        (
            "e100",
            &socket,
            "--wire none",
            "NICs are e1000e, ixgbe and virtio",
        ),
        ("e1000e", &socket, "--wire socket:x", "pair:DIRECTORY"),
        (
            "e1000e",
            &nowhere,
            "--wire none",
            "does its directory exist?",
        ),
        (
            "e1000e",
            &socket,
            "--wire pair:/proc/x/y",
            "no wire: /proc/x/y",
        ),
        ("e1000e", &socket, "--wire pcap:/proc/x", "no wire: /proc/x"),
    ] {
        let (output, out, errors) = Model::start(nic, socket, options).end();
        assert_eq!(output.status.code(), Some(2), "{out}{errors}");
        assert!(errors.contains(why), "{errors}");
        assert_eq!(out, "");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn what_is_sent_goes_into_a_file() {
    let place = tempfile::tempdir().unwrap();
    let (socket, file) = (place.path().join("nic"), place.path().join("sent.pcapng"));
    let wire = format!("--wire pcap:{}", file.display());
    let model = Model::start("ixgbe", &socket, &wire);
    drop(connect(&socket));
    model.signal(Signal::INT);
    let (output, _, errors) = model.end();
    assert!(output.status.success(), "{errors}");
    // The header of the section (pcapng, section 4.1).
    let written = std::fs::read(&file).unwrap();
    assert_eq!(written.get(..4), Some(&[0x0a, 0x0d, 0x0d, 0x0a][..]));
}
