//! The receiver in the kernel: a child process behind a TAP, in a network namespace that has no
//! name, so that it is gone when the child and the TAP are, however this process ends.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use pagewire::hal::Instant;

use super::args::Args;
use super::peer::{Arrived, Peer, PeerError};
use crate::error::Failure;
use crate::receiver::{READY, Received};

/// Name of the TAP inside its namespace, where it is alone.
const INTERFACE: &str = "pagewire0";

/// The child, and what it has said.
pub(crate) struct LinuxPeer {
    child: Child,
    _stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    received: Option<Received>,
}

impl LinuxPeer {
    /// Makes a namespace and, with `open`, a TAP in it, starts the child there, and returns when
    /// it listens.
    pub(crate) fn start<T: Send + 'static>(
        (address, prefix_len): (SocketAddrV4, u8),
        args: &Args,
        open: impl FnOnce(&str) -> std::io::Result<T> + Send + 'static,
    ) -> Result<(T, Self), Failure> {
        let (mtu, connections) = (args.mtu, args.connections());
        // The namespace is the thread's: the rest of the process stays where it is, and the
        // child inherits it from the thread that starts it.
        let worker = std::thread::spawn(move || {
            let tap = private_tap(*address.ip(), prefix_len, mtu, open)?;
            Ok((tap, Self::spawn(address, connections)?))
        });
        let started: Result<_, Failure> = worker
            .join()
            .unwrap_or_else(|_| Err(Failure::failed("the peer's thread panicked")));
        let (tap, mut peer) = started?;
        peer.await_ready()?;
        Ok((tap, peer))
    }

    fn spawn(address: SocketAddrV4, connections: u16) -> Result<Self, Failure> {
        let failed = |error| Failure::failed(format!("cannot start the receiver: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new(program)
            .arg("__receive")
            .args(["--address", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            .args(["--connections", &connections.to_string()])
            .args(["--interface", INTERFACE])
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
        }))
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

/// Moves this thread into a new network namespace and makes a TAP there, with an address, up.
fn private_tap<T>(
    address: Ipv4Addr,
    prefix_len: u8,
    mtu: u16,
    open: impl FnOnce(&str) -> std::io::Result<T>,
) -> Result<T, Failure> {
    let refused = |what: &str, error: std::io::Error| {
        Failure::usage(format!(
            "--peer linux cannot {what}: {error} (it needs root, that is CAP_SYS_ADMIN and \
             CAP_NET_ADMIN, and /dev/net/tun; --peer smoltcp needs nothing)"
        ))
    };
    // SAFETY: a new network namespace for this thread alone changes no memory and no file
    // descriptor; the thread ends soon.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
        .map_err(|error| refused("make a network namespace", error.into()))?;
    let tap = open(INTERFACE).map_err(|error| refused("make a TAP", error))?;
    configure(address, prefix_len, mtu).map_err(|error| refused("configure the TAP", error))?;
    Ok(tap)
}

/// Address, netmask, MTU and "up" for the TAP, by the calls of netdevice(7).
fn configure(address: Ipv4Addr, prefix_len: u8, mtu: u16) -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let control = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mask = Ipv4Addr::from(
        u32::MAX
            .checked_shl(32 - u32::from(prefix_len))
            .unwrap_or(0),
    );
    let call = |request, union| -> std::io::Result<()> {
        let mut interface = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: union,
        };
        for (to, from) in interface.ifr_name.iter_mut().zip(INTERFACE.bytes()) {
            *to = from as libc::c_char;
        }
        // SAFETY: the request reads an `ifreq`, which lives through the call; the descriptor is
        // an open socket.
        let result = unsafe { libc::ioctl(control.as_raw_fd(), request, &raw mut interface) };
        if result < 0 {
            Err(std::io::Error::last_os_error())
        } else {
            Ok(())
        }
    };
    let up = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    call(
        libc::SIOCSIFADDR,
        libc::__c_anonymous_ifr_ifru {
            ifru_addr: sockaddr(address),
        },
    )?;
    call(
        libc::SIOCSIFNETMASK,
        libc::__c_anonymous_ifr_ifru {
            ifru_netmask: sockaddr(mask),
        },
    )?;
    call(
        libc::SIOCSIFMTU,
        libc::__c_anonymous_ifr_ifru {
            ifru_mtu: i32::from(mtu),
        },
    )?;
    call(
        libc::SIOCSIFFLAGS,
        libc::__c_anonymous_ifr_ifru { ifru_flags: up },
    )
}

/// An IPv4 address as these calls take it.
fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr {
        sa_family: libc::AF_INET as libc::sa_family_t,
        sa_data: data,
    }
}
