//! `pagewire send` as a receiver sees it: the kernel's TCP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests: a panic is the failure"
)]

use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

mod common;
#[path = "common/site.rs"]
mod site;

use common::{can_make_a_tap, number, refused};
use serde_json::Value;
use site::*;

const RECEIVER: &str = "10.0.0.1:9000";

/// An interface for the NIC to be plugged into, and somebody who listens there.
fn listen() -> TcpListener {
    ip("tuntap add pagewire0 mode tap");
    ip("addr add 10.0.0.1/24 dev pagewire0");
    ip("link set pagewire0 up");
    TcpListener::bind(RECEIVER).unwrap()
}

fn start(site: &Site, files: &[&str], more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .arg("send")
        .args(files.iter().map(|name| site.path(name)))
        .args([
            "--to",
            RECEIVER,
            "--from",
            SERVER,
            "--wire",
            "tap:pagewire0",
        ])
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends, and returns what has arrived and what was said.
fn send(listener: &TcpListener, site: &Site, files: &[&str], more: &[&str]) -> (Vec<u8>, Output) {
    let child = start(site, files, more);
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    drop(stream);
    (bytes, child.wait_with_output().unwrap())
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn files_arrive_from_every_nic() {
    if !can_make_a_tap("files_arrive_from_every_nic") {
        return;
    }
    in_a_network_of_its_own(|| {
        let lens = [0, 1, 255, 1448, 65537, 9 << 20];
        let site = Site::new(&lens);
        let names: Vec<_> = lens.iter().map(usize::to_string).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let expected: Vec<_> = names.iter().flat_map(|name| site.bytes(name)).collect();
        let listener = listen();
        for nic in ["model:ixgbe", "model:e1000e", "model:virtio"] {
            let (bytes, output) = send(&listener, &site, &names, &["--json", "--device", nic]);
            assert!(bytes == expected, "{nic}");
            let report = report(&output);
            assert_eq!(number(&report, "/bytes"), expected.len() as u64);
            for (index, len) in lens.into_iter().enumerate() {
                let of = |what: &str| number(&report, &format!("/files/{index}/{what}"));
                assert_eq!(of("bytes"), len as u64);
                let taken = of("taken/lent") + of("taken/copied_below_threshold");
                assert_eq!(taken, len as u64, "{report}");
            }
            // The byte and the 255 bytes are copied, as that costs less, and no more of the others
            // than the end of a piece.
            assert_eq!(number(&report, "/files/1/taken/lent"), 0, "{report}");
            assert_eq!(number(&report, "/files/2/taken/lent"), 0, "{report}");
            let big = number(&report, "/files/5/taken/lent");
            assert!(big > (9 << 20) - (16 << 10), "{report}");
            let shared = number(&report, "/files/5/sent/shared");
            assert!(shared >= big, "{report}");
        }
    });
}

#[test]
fn which_way_the_bytes_went_is_explained() {
    if !can_make_a_tap("which_way_the_bytes_went_is_explained") {
        return;
    }
    in_a_network_of_its_own(|| {
        let len = 3_000_000;
        let site = Site::new(&[len]);
        let name = len.to_string();
        let listener = listen();
        let sent = |more: &[&str]| {
            let (bytes, output) = send(&listener, &site, &[&name], more);
            assert!(bytes == site.bytes(&name), "{more:?}");
            output
        };
        let lent = report(&sent(&["--json", "--copy", "never"]));
        assert_eq!(number(&lent, "/files/0/taken/lent"), len as u64);
        assert_eq!(number(&lent, "/files/0/sent/from_copies"), 0);
        assert!(number(&lent, "/files/0/fragments") > number(&lent, "/files/0/frames"));
        assert!(
            lent["files"][0]["held"]["most_ms"].as_f64() > Some(0.0),
            "{lent}"
        );
        let copied = report(&sent(&["--json", "--copy", "all"]));
        assert_eq!(
            number(&copied, "/files/0/taken/copied_as_asked"),
            len as u64
        );
        assert_eq!(number(&copied, "/files/0/sent/shared"), 0);
        // As far as there is room for copies.
        let below = |least: usize| {
            let least = least.to_string();
            let report = report(&sent(&["--json", "--share-min", &least]));
            number(&report, "/files/0/taken/copied_below_threshold")
        };
        assert_eq!(below(1), 0);
        assert!(below(len) > 0);
        // Only the CPU can sum then, and what it has summed must not change.
        let summed = report(&sent(&["--json", "--no-checksum", "--copy", "never"]));
        assert_eq!(number(&summed, "/files/0/sent/shared"), 0, "{summed}");
        assert!(
            number(&summed, "/files/0/sent/copied_live") >= len as u64,
            "{summed}"
        );
        let text = String::from_utf8(sent(&["--explain"]).stdout).unwrap();
        for words in [
            "lent where they are",
            "fetched by the NIC from the file",
            "pieces",
            "held",
        ] {
            assert!(text.contains(words), "{text}");
        }
        assert!(!text.contains("copied for a frame"), "{text}");
    });
}

#[test]
fn what_does_not_arrive_is_told() {
    if !can_make_a_tap("what_does_not_arrive_is_told") {
        return;
    }
    in_a_network_of_its_own(|| {
        let site = Site::new(&[32 << 20]);
        let name = (32 << 20).to_string();
        let listener = listen();
        let failed = |child: Child, why: &str| {
            let output = child.wait_with_output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{errors}");
            assert_eq!(errors.trim().lines().count(), 1, "{errors}");
            assert!(errors.contains(why), "{errors}");
            assert!(output.stdout.is_empty());
        };
        // A receiver that takes nothing more.
        let child = start(&site, &[&name], &["--timeout", "1"]);
        let (stream, _) = listener.accept().unwrap();
        failed(child, "has taken nothing for 1 s");
        drop(stream);
        // One that goes away.
        let child = start(&site, &[&name], &[]);
        drop(listener.accept().unwrap());
        failed(child, "reset");
        // Ctrl-C.
        let child = start(&site, &[&name], &[]);
        let (mut stream, _) = listener.accept().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        interrupt(child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        let told = stream.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(told.kind(), std::io::ErrorKind::ConnectionReset);
        // Nobody listens.
        drop(listener);
        failed(start(&site, &[&name], &[]), "refused");
    });
}

#[test]
fn bad_input_gets_one_clear_line() {
    let to = ["--to", RECEIVER, "--from", SERVER];
    let wire = ["--wire", "tap:pagewire0"];
    let all = |first: &[&'static str]| [&["send"], first, &to, &wire].concat();
    refused(&all(&["/no/such/file"]));
    refused(&all(&["/dev/zero"]));
    refused(&all(&["/"]));
    refused(&[
        "send",
        "/etc/passwd",
        "--to",
        RECEIVER,
        "--from",
        "0.0.0.0",
        "--wire",
        "tap:x",
    ]);
    refused(&["send", "/etc/passwd", "--to", "nowhere", "--from", SERVER]);
    refused(&[&["send", "/etc/passwd"][..], &to].concat());
    refused(&all(&["/etc/passwd", "--limit", "0"]));
}
