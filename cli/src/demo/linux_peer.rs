//! The receiver in the kernel: a child process behind a TAP, or behind an interface of this machine,
//! in a network namespace that has no name, so that it is gone when the child and the TAP are,
//! however this process ends.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use pagewire::hal::Instant;

use super::args::Args;
use super::borrowed::Borrowed;
use super::namespace::Namespace;
use super::peer::{Arrived, Peer, PeerError};
use crate::error::Failure;
use crate::receiver::{READY, Received};

/// Name of the TAP inside its namespace, where it is alone.
const TAP: &str = "pagewire0";

/// The child, and what it has said.
pub(crate) struct LinuxPeer {
    child: Child,
    _stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    received: Option<Received>,
    /// Its interface, if that is not a TAP. It goes back when the child has ended.
    interface: Option<Borrowed>,
}

impl LinuxPeer {
    /// Makes a namespace and, with `open`, a TAP in it, starts the child there, and returns when
    /// it listens.
    pub(crate) fn behind_tap<T: Send + 'static>(
        (address, prefix_len): (SocketAddrV4, u8),
        args: &Args,
        open: impl FnOnce(&str) -> std::io::Result<T> + Send + 'static,
    ) -> Result<(T, Self), Failure> {
        let (mtu, connections) = (args.mtu, args.connections());
        let (tap, mut peer) = in_a_thread(move || {
            let tap = private_tap((*address.ip(), prefix_len), mtu, open)?;
            // The wire before the TAP loses what is to be lost.
            Ok((tap, Self::spawn(address, connections, TAP, 0.0)?))
        })?;
        peer.await_ready()?;
        Ok((tap, peer))
    }

    /// The same with an interface of this machine instead of a TAP.
    pub(crate) fn behind(
        interface: &str,
        (address, prefix_len): (SocketAddrV4, u8),
        args: &Args,
    ) -> Result<Self, Failure> {
        let (mtu, connections, loss) = (args.mtu, args.connections(), args.loss);
        let interface = interface.to_owned();
        let mut peer = in_a_thread(move || {
            let interface = Borrowed::take(&interface)?;
            let name = interface.name();
            let configured =
                interface
                    .namespace()
                    .configure(name, (*address.ip(), prefix_len), mtu);
            configured.map_err(|error| {
                Failure::usage(format!(
                    "--peer-interface {name}: cannot give it an address and the MTU {mtu}: {error}"
                ))
            })?;
            let mut peer = Self::spawn(address, connections, name, loss)?;
            peer.interface = Some(interface);
            Ok(peer)
        })?;
        peer.await_ready()?;
        Ok(peer)
    }

    fn spawn(
        address: SocketAddrV4,
        connections: u16,
        interface: &str,
        loss: f64,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot start the receiver: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("__receive")
            .args(["--address", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            .args(["--connections", &connections.to_string()])
            .args(["--interface", interface])
            .args(["--loss", &loss.to_string()])
            // A process group of its own: Ctrl-C and timeout(1) are for us; it ends with us.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self {
            child,
            _stdin: stdin,
            stdout,
            received: None,
            interface: None,
        })
    }

    fn await_ready(&mut self) -> Result<(), Failure> {
        let mut line = String::new();
        if let Some(stdout) = self.stdout.as_mut() {
            // On an error the line stays empty.
            let _ = stdout.read_line(&mut line);
        }
        if line.trim() == READY {
            return Ok(());
        }
        Err(Failure::failed(
            "the receiver did not start; its message is above",
        ))
    }
}

impl Peer for LinuxPeer {
    fn poll(&mut self, _: Instant) -> Result<bool, PeerError> {
        if self.received.is_some() {
            return Ok(false);
        }
        let status = self.child.try_wait();
        let Some(status) = status.map_err(|why| PeerError(format!("the receiver: {why}")))? else {
            return Ok(false);
        };
        let mut report = String::new();
        if let Some(mut stdout) = self.stdout.take() {
            stdout
                .read_to_string(&mut report)
                .map_err(|why| PeerError(format!("the receiver's report: {why}")))?;
        }
        match serde_json::from_str(&report) {
            Ok(received) if status.success() => self.received = Some(received),
            _ => return Err(PeerError(format!("the receiver ended early ({status})"))),
        }
        Ok(true)
    }

    fn next_event(&mut self, _: Instant) -> Option<Duration> {
        // Its end is only seen by asking.
        Some(Duration::from_millis(1))
    }

    fn arrived(&mut self) -> Result<Option<Arrived>, PeerError> {
        let received = self.received.as_ref();
        Ok(received.map(|r| Arrived {
            streams: r.streams.clone(),
            frames: r.frames,
            frame_bytes: r.frame_bytes,
            lost: r.lost,
        }))
    }

    fn has_link(&mut self) -> bool {
        self.interface.as_ref().is_none_or(Borrowed::has_link)
    }

    fn foreign_cpu_seconds(&self) -> f64 {
        self.received
            .as_ref()
            .map_or(0.0, |received| received.cpu_seconds)
    }
}

impl Drop for LinuxPeer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `work` in a thread that may move into another network namespace: the rest of the process
/// stays where it is, and a child inherits it from the thread that starts it.
fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let worker = std::thread::spawn(work);
    let panicked = |_| Err(Failure::failed("the peer's thread panicked"));
    worker.join().unwrap_or_else(panicked)
}

/// Moves this thread into a new network namespace and makes a TAP there, with an address, up.
fn private_tap<T>(
    address: (Ipv4Addr, u8),
    mtu: u16,
    open: impl FnOnce(&str) -> std::io::Result<T>,
) -> Result<T, Failure> {
    let refused = |what: &str, error: std::io::Error| {
        Failure::usage(format!(
            "--peer linux cannot {what}: {error} (it needs root, that is CAP_SYS_ADMIN and \
             CAP_NET_ADMIN, and /dev/net/tun; --peer smoltcp needs nothing)"
        ))
    };
    let namespace =
        Namespace::enter_new().map_err(|error| refused("make a network namespace", error))?;
    let tap = open(TAP).map_err(|error| refused("make a TAP", error))?;
    namespace
        .configure(TAP, address, mtu)
        .map_err(|error| refused("configure the TAP", error))?;
    Ok(tap)
}
