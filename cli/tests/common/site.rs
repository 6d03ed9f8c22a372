//! A network of its own with a server in it, for the tests of `serve` and `send`.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the failure"
)]
#![allow(unreachable_pub, reason = "a module of test programs")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// Where the server is; the kernel beside it is 10.0.0.1.
pub const SERVER: &str = "10.0.0.2";
const KERNEL: &str = "10.0.0.1/24";

/// Longest wait for something that must come.
pub const LONG: Duration = Duration::from_secs(60);

/// Runs `work` in a thread with a network of its own: the rest of the process stays where it is, and
/// what the thread starts is there too. It is gone when all of them are.
pub fn in_a_network_of_its_own(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        // SAFETY: a new network namespace for this thread alone changes no memory and no file
        // descriptor.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        ip("link set lo up");
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}

/// Whether a program is there; in CI it must be.
pub fn has(program: &str, test: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        assert!(
            std::env::var_os("CI").is_none(),
            "{test}: CI must have {program}"
        );
        eprintln!("{test}: skipped: {program} is missing");
    }
    found
}

/// A directory to serve.
pub struct Site {
    pub directory: tempfile::TempDir,
}

impl Site {
    /// With a file of `len` bytes for each of these, named after it.
    pub fn new(lens: &[usize]) -> Self {
        let site = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for len in lens {
            let mut bytes = vec![0; *len];
            fastrand::Rng::with_seed(*len as u64).fill(&mut bytes);
            std::fs::write(site.path(&len.to_string()), bytes).unwrap();
        }
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }
}

/// `pagewire serve --json`, on an interface of this network.
pub struct Server {
    child: Child,
    lines: Receiver<Value>,
}

impl Server {
    pub fn start(directory: &Path, more: &[&str]) -> Self {
        Self::start_under(&[], directory, more)
    }

    /// As a child of `wrapper`.
    pub fn start_under(wrapper: &[&str], directory: &Path, more: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_pagewire");
        let words: Vec<_> = wrapper.iter().copied().chain([program]).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .arg("serve")
            .arg(directory)
            .args(["--listen", &format!("{SERVER}:80")])
            .args(["--wire", "tap:pagewire0", "--json"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines(child.stdout.take().unwrap());
        let server = Self { child, lines };
        let first = server.line();
        assert_eq!(first["event"], "listening", "{first}");
        ip(&format!("addr add {KERNEL} dev pagewire0"));
        ip("link set pagewire0 up");
        server
    }

    /// The next line.
    pub fn line(&self) -> Value {
        self.lines.recv_timeout(LONG).expect("a line of the server")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As [`stop`](Self::stop), when so many more requests have been told of: a client has its
    /// response before the server knows.
    pub fn stop_after(self, requests: usize) -> Value {
        for _ in 0..requests {
            let request = self.line();
            assert_eq!(request["event"], "request", "{request}");
        }
        self.stop()
    }

    /// Presses Ctrl-C and returns the last line.
    pub fn stop(mut self) -> Value {
        interrupt(self.child.id());
        let status = self.child.wait().unwrap();
        assert_eq!(status.code(), Some(130));
        let last = self.lines.iter().last().expect("the end is told");
        assert_eq!(last["event"], "end", "{last}");
        last
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn interrupt(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

fn lines(stdout: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let value = serde_json::from_str(&line.unwrap()).unwrap();
            if sender.send(value).is_err() {
                break;
            }
        }
    });
    receiver
}

pub fn url(path: &str) -> String {
    format!("http://{SERVER}/{path}")
}

/// What curl gets, with its exit status; it gives up after a while.
pub fn curl(args: &[&str]) -> Output {
    let seconds = LONG.as_secs().to_string();
    let output = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "-m", &seconds])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "curl {args:?}: {output:?}");
    output
}

/// The status that curl is told.
pub fn status(args: &[&str]) -> String {
    let args = [&["-o", "/dev/null", "-w", "%{http_code}"], args].concat();
    String::from_utf8(curl(&args).stdout).unwrap()
}

/// Reads until the other side ends, or `len` bytes.
pub fn read_up_to(stream: &mut impl Read, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.take(len).read_to_end(&mut bytes).unwrap();
    bytes
}
