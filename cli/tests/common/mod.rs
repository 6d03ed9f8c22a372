//! What the tests of the demo share.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]
#![allow(unreachable_pub, reason = "a module of test programs")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use pagewire_models::qtest::find_qemu;
use serde_json::Value;

pub fn pagewire(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(args)
        .output()
        .unwrap()
}

/// Runs a demo that must succeed and returns its report.
pub fn demo(args: &str) -> Value {
    let words: Vec<_> = ["demo", "--json"]
        .into_iter()
        .chain(args.split_whitespace())
        .collect();
    let output = pagewire(&words);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "demo {args}: {}\n{text}\n{errors}",
        output.status
    );
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args}: {e}\n{text}"));
    assert_eq!(report["digests"]["equal"], true, "demo {args}\n{text}");
    assert_eq!(
        report["digests"]["sent"], report["digests"]["received"],
        "demo {args}"
    );
    assert_eq!(report["pages"]["pinned_now"], 0, "demo {args}\n{text}");
    assert!(
        number(&report, "/pages/pinned_at_most") > 0,
        "demo {args}\n{text}"
    );
    let shared = number(&report, "/bytes/shared");
    // QEMU's device counts neither, nor does one in another process.
    if !args.contains("qtest:") && !args.contains("vfio-user:") {
        assert_eq!(
            shared,
            number(&report, "/bytes/shared_as_fetched"),
            "demo {args}\n{text}"
        );
        let limit = number(&report, "/limits/max_fragments");
        assert!(
            number(&report, "/frames/most_fragments_seen") <= limit,
            "demo {args}\n{text}"
        );
    }
    report
}

pub fn number(report: &Value, pointer: &str) -> u64 {
    report
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{pointer}: {report}"))
}

/// Bytes of payload that the device cuts into segments, per request.
pub fn mean_request(report: &Value) -> u64 {
    number(report, "/requests/bytes") / number(report, "/requests/posted").max(1)
}

pub fn copied(report: &Value) -> u64 {
    number(report, "/bytes/copied_to_rescue")
        + number(report, "/bytes/copied_over_budget")
        + number(report, "/bytes/copied_no_gather")
}

/// Status 2, nothing on standard output, one line (clap adds how to get help) on the other.
pub fn refused(args: &[&str]) {
    let output = pagewire(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {errors}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert!(!errors.contains("panicked"), "{args:?}: {errors}");
    let own = errors.lines().filter(|line| {
        !line.is_empty() && !line.starts_with("For more information") && !line.starts_with("Usage")
    });
    assert_eq!(own.count(), 1, "{args:?}: {errors}");
}

/// Waits until `pagewire model`, whose standard output is a pipe, says that it serves: the file of
/// its socket is there a little before.
pub fn await_serving(model: &mut Child) {
    let mut line = String::new();
    let output = model.stdout.as_mut().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert!(line.starts_with("serving "), "{line}");
}

/// Waits until a process, which is to run for long, has a handler for a signal.
pub fn await_handler(child: &mut Child, signal: rustix::process::Signal) {
    let path = format!("/proc/{}/status", child.id());
    loop {
        let status = std::fs::read_to_string(&path).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        if caught.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1) {
            return;
        }
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended by itself");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Interrupts a long demo, as a terminal does: the whole process group; and looks at what is
/// left.
pub fn interrupted(size: &str, more: &[&str], signal: rustix::process::Signal) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("out.pcapng");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pagewire"))
        .args(["demo", "--size", size, "--loss", "0.5"])
        .args(["--pcap", path.to_str().unwrap()])
        .args(more)
        // Temporary folders would be left here.
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    await_handler(&mut child, signal);
    // In the middle of it.
    std::thread::sleep(Duration::from_millis(300));
    rustix::process::kill_process_group(pid, signal).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert_eq!(errors.trim().lines().count(), 1, "{errors}");
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Whether a namespace and a TAP can be had; in CI they must.
pub fn can_make_a_tap(test: &str) -> bool {
    let able =
        rustix::process::geteuid().is_root() && std::path::Path::new("/dev/net/tun").exists();
    if !able {
        assert!(
            std::env::var_os("CI").is_none(),
            "{test}: CI must be root and have /dev/net/tun"
        );
        eprintln!("{test}: skipped: it needs root and /dev/net/tun");
    }
    able
}

/// Network interfaces of the machine, which must be the same before and after.
pub fn interfaces() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub fn children_left() -> bool {
    let own = std::process::id().to_string();
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&command).into_owned();
        entry.file_name().to_string_lossy() != own && text.contains("__receive\0")
    })
}

/// Whether QEMU is there; in CI it must be.
pub fn has_qemu(test: &str) -> bool {
    match find_qemu() {
        Ok(_) => true,
        Err(missing) => {
            assert!(std::env::var_os("CI").is_none(), "{test}: {missing}");
            eprintln!("{test}: skipped: {missing}");
            false
        }
    }
}
