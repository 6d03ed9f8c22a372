//! The demo as its user sees it: options in, table or JSON and an exit status out.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

mod common;

use common::*;
use serde_json::Value;

const SIZE: u64 = 8 << 20;

#[test]
fn one_fragment_copies_everything() {
    let report = demo("--size 8M --max-fragments 1");
    assert_eq!(number(&report, "/bytes/shared"), 0);
    assert_eq!(number(&report, "/bytes/copied_no_gather"), SIZE);
}

#[test]
fn two_fragments_mix_at_4k_pages() {
    let report = demo("--size 8M --max-fragments 2 --dma-page 4k");
    let [shared, rescued, copied] = ["shared", "rescued", "copied"]
        .map(|kind| number(&report, &format!("/segments/{kind}")) as f64);
    let crossing = (rescued + copied) / (shared + rescued + copied);
    // A segment of 1460 bytes at a random place crosses a page of 4096 with 1459/4096.
    assert!((0.30..0.40).contains(&crossing), "{crossing}: {report}");
    assert!(rescued > 0.0 && copied > 0.0, "{report}");
}

#[test]
fn three_fragments_share_everything() {
    let report = demo("--size 8M --max-fragments 3 --dma-page 4k");
    assert_eq!(copied(&report), 0, "{report}");
    assert_eq!(number(&report, "/bytes/shared"), SIZE);
}

#[test]
fn three_fragments_mix_at_mtu_9000() {
    let report = demo("--size 8M --max-fragments 3 --mtu 9000");
    assert!(
        number(&report, "/bytes/shared") > 0 && copied(&report) > 0,
        "{report}"
    );
    // 8960 bytes lie in up to four pages.
    let report = demo("--size 8M --max-fragments 5 --mtu 9000");
    assert_eq!(copied(&report), 0, "{report}");
}

#[test]
fn contiguous_memory_shares_everything() {
    let report = demo("--size 8M --max-fragments 2 --dma-page contiguous");
    assert_eq!(copied(&report), 0, "{report}");
    for page in ["16k", "64k", "2m"] {
        let mixed = demo(&format!("--size 8M --max-fragments 2 --dma-page {page}"));
        assert!(
            number(&mixed, "/bytes/shared") > SIZE * 8 / 10,
            "{page}: {mixed}"
        );
    }
}

#[test]
fn slices_bind_at_will() {
    // Segments of 1460 bytes touch 3 or 4 pieces of 700.
    let report = demo("--size 4M --slice 700 --dma-page contiguous");
    assert_eq!(copied(&report), 0, "{report}");
    let report = demo("--size 4M --slice 700 --dma-page contiguous --max-fragments 3");
    assert!(copied(&report) > 0, "{report}");
    assert!(number(&report, "/bytes/shared") > 0, "{report}");
    // With pieces of 20 bytes a segment needs 73 fragments, more than the device gathers, and
    // no rescue leaves much to share.
    let report = demo("--size 1M --slice 20");
    assert!(copied(&report) > 0, "{report}");
    assert!(
        number(&report, "/frames/most_fragments_seen") <= 64,
        "{report}"
    );
}

#[test]
fn without_device_checksums_pages_are_still_shared() {
    let report = demo("--size 8M --no-checksum");
    assert_eq!(copied(&report), 0, "{report}");
    assert_eq!(number(&report, "/checksums/by_device"), 0);
    assert!(number(&report, "/checksums/by_cpu") > SIZE / 1460);
    let report = demo("--size 8M");
    assert_eq!(number(&report, "/checksums/by_cpu"), 0, "{report}");
}

#[test]
fn losses_are_repaired() {
    for loss in [1, 5] {
        let report = demo(&format!("--size 16M --loss {loss} --seed {loss}"));
        assert!(number(&report, "/wire/lost") > 0, "{report}");
        assert!(number(&report, "/wire/reordered") > 0, "{report}");
        assert!(number(&report, "/wire/duplicated") > 0, "{report}");
        assert!(number(&report, "/retransmissions/segments") > 0, "{report}");
    }
}

/// A demo in which threads write to what is sent: how much they wrote, and how much of that by system
/// calls.
fn scribbled(nic: &str, policy: &str) -> (u64, u64) {
    let report = demo(&format!(
        "--nic {nic} --size 4M --connections 3 --loss 3 --scribble {policy}"
    ));
    let said = |name: &str| report.pointer(&format!("/scribbling/{name}")).cloned();
    assert_eq!(said("no_write_lost"), Some(Value::Bool(true)), "{report}");
    assert_eq!(said("policy"), Some(policy.into()));
    if said("mode") == Some("full".into()) {
        assert_eq!(number(&report, "/scribbling/kernel_refused"), 0, "{report}");
    }
    // Nothing is copied on the way but for writers.
    assert_eq!(copied(&report), 0, "{report}");
    if policy == "wait" {
        assert_eq!(number(&report, "/scribbling/moved"), 0, "{report}");
    }
    (
        number(&report, "/scribbling/writes"),
        number(&report, "/scribbling/kernel_writes"),
    )
}

/// Over every NIC and by both policies. Where a machine has little time for those that write, a run may be
/// over before they have: then there is another one.
#[test]
fn what_others_write_meanwhile_changes_nothing_that_was_sent() {
    const RUNS: usize = 5;
    let mut by_kernel = 0;
    for nic in ["e1000e", "ixgbe", "virtio"] {
        for policy in ["wait", "copy"] {
            let wrote = (0..RUNS).any(|_| {
                let (writes, more) = scribbled(nic, policy);
                by_kernel += more;
                writes > 0
            });
            assert!(wrote, "{nic}, {policy}: nobody wrote in {RUNS} runs");
        }
    }
    let wrote = (0..RUNS).any(|_| {
        if by_kernel == 0 {
            by_kernel += scribbled("e1000e", "wait").1;
        }
        by_kernel > 0
    });
    assert!(wrote, "no system call wrote anything");
}

#[test]
fn what_a_device_reads_a_copy_of_cannot_be_scribbled_at() {
    for device in ["qtest:e1000e", "vfio-user:nosuch.sock"] {
        refused(&[
            "demo",
            "--device",
            device,
            "--size",
            "1M",
            "--scribble",
            "wait",
        ]);
    }
}

#[test]
fn a_file_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    for len in [1usize, 511, 4096, 1_000_003] {
        let path = directory.path().join("input");
        std::fs::write(&path, (0..len).map(|i| (i * 7) as u8).collect::<Vec<_>>()).unwrap();
        demo(&format!("--file {}", path.display()));
    }
}

#[test]
fn frames_are_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.pcapng");
    let report = demo(&format!("--size 1M --pcap {}", path.display()));
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(
        bytes.get(..4),
        Some(&[0x0a, 0x0d, 0x0d, 0x0a][..]),
        "a section header block"
    );
    assert!(bytes.len() as u64 > 1 << 20);
    assert!(number(&report, "/frames/posted") > 700);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn the_table_is_for_people() {
    let output = pagewire(&["demo", "--size", "1M", "--max-fragments", "2"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for word in [
        "bytes shared",
        "rescue",
        "pinned at most",
        "retransmissions",
        "SHA-256",
        "equal",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn bad_input_gets_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    refused(&["demo", "--file", "/no/such/file"]);
    refused(&["demo", "--file", empty]);
    refused(&["demo", "--file", directory.path().to_str().unwrap()]);
    refused(&["demo", "--size", "0"]);
    refused(&["demo", "--size", "12Q"]);
    refused(&["demo", "--loss", "101"]);
    refused(&["demo", "--loss", "-1"]);
    refused(&["demo", "--loss", "nan"]);
    refused(&["demo", "--size", "64G", "--slice", "1"]); // 4 TiB with the gaps
    refused(&["demo", "--max-fragments", "0"]);
    refused(&["demo", "--mtu", "9001"]);
    refused(&["demo", "--slice", "0"]);
    refused(&[
        "demo",
        "--size",
        "1k",
        "--pcap",
        "/no/such/folder/out.pcapng",
    ]);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

/// Endless or without meaning: read, they would fill the memory; replaced by a recording, they
/// would be gone.
#[test]
fn devices_are_neither_read_nor_replaced() {
    refused(&["demo", "--file", "/dev/zero"]);
    refused(&["demo", "--file", "/dev/null"]);
    // A link, in a folder where a replacement could do no harm.
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    refused(&["demo", "--size", "1k", "--pcap", link.to_str().unwrap()]);
    assert!(link.is_symlink());
    let input = directory.path().join("input");
    std::fs::write(&input, "precious").unwrap();
    let name = input.to_str().unwrap();
    refused(&["demo", "--file", name, "--pcap", name]);
    assert_eq!(std::fs::read(&input).unwrap(), b"precious");
}

#[test]
fn a_recording_that_cannot_be_made_is_named_as_the_user_named_it() {
    let path = "/no/such/folder/out.pcapng";
    let output = pagewire(&["demo", "--size", "1k", "--pcap", path]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(path), "{errors}");
    assert!(!errors.contains(".pagewire-"), "{errors}");
}

#[test]
fn a_pipe_is_sent() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["demo", "--json", "--file", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    for part in 0..5u8 {
        std::io::Write::write_all(&mut pipe, &[part; 100_000]).unwrap();
    }
    drop(pipe);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(number(&report, "/bytes/shared"), 500_000);
}

#[test]
fn a_report_that_nobody_takes_is_a_failure_and_no_panic() {
    for extra in [&[][..], &["--json"]] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
            .args(["demo", "--size", "1k"])
            .args(extra)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}

#[test]
fn file_names_do_not_steer_the_terminal() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"a\x1b[31m\nb\xff");
    let path = directory.path().join(name);
    std::fs::write(&path, "something").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["demo", "--file"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(!output.stdout.contains(&0x1b));
}

/// Everything is lost, or nearly: the sender gives up, on the virtual clock at once.
#[test]
fn without_an_answer_it_ends() {
    for loss in ["100", "40"] {
        let output = pagewire(&["demo", "--size", "1M", "--loss", loss]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains("does not answer"), "{errors}");
    }
}

/// A pipe to which nobody writes.
#[test]
fn ctrl_c_while_it_waits_for_input() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["demo", "--file", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let silent = child.stdin.take();
    let pid = rustix::process::Pid::from_child(&child);
    await_handler(&mut child, rustix::process::Signal::INT);
    std::thread::sleep(Duration::from_millis(300));
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    drop(silent);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    use rustix::process::Signal;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        interrupted("512M", &[], signal);
    }
}

#[test]
fn the_kernel_receives() {
    if !can_make_a_tap("the_kernel_receives") {
        return;
    }
    let before = interfaces();
    let report = demo("--peer linux --size 16M");
    assert_eq!(copied(&report), 0, "{report}");
    let report = demo("--peer linux --size 4M --max-fragments 2 --no-checksum");
    assert!(
        number(&report, "/bytes/shared") > 0 && copied(&report) > 0,
        "{report}"
    );
    demo("--peer linux --size 4M --mtu 9000 --max-fragments 3");
    demo("--peer linux --size 2M --loss 1");
    let report = demo("--peer linux --size 1M");
    // The clock runs from the first frame on; it stood still until it was as late as the driver.
    let lent = report.pointer("/pages/lent_p99_us").and_then(Value::as_f64);
    assert!(lent > Some(2.0), "{report}");
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        interrupted("512M", &["--peer", "linux"], signal);
    }
    assert_eq!(interfaces(), before);
    assert!(!children_left());
}

#[test]
fn without_privileges_the_kernel_is_refused_in_one_line() {
    if !can_make_a_tap("without_privileges_the_kernel_is_refused_in_one_line") {
        return;
    }
    // Root without capabilities, as setpriv(1) makes it: user "nobody" cannot make a namespace.
    let copy = tempfile::tempdir().unwrap();
    let program = copy.path().join("pagewire");
    std::fs::copy(env!("CARGO_BIN_EXE_pagewire"), &program).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(copy.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program)
        .args(["demo", "--peer", "linux", "--size", "1M"])
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert_eq!(errors.trim().lines().count(), 1, "{errors}");
    assert!(errors.contains("root"), "{errors}");
}
