//! A network namespace that has no name and one TAP: nothing of the machine's own network is
//! touched, and all of it is gone with the process.
#![allow(dead_code, unreachable_pub, missing_docs)] // some use this, some that

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use pagewire_models::wire::Tap;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The kernel's addresses on the TAP. Neighbours of smoltcp have those that end with 1.
pub const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const ADDRESSES: [&[&str]; 2] = [
    &["10.77.0.2/24"],
    // Nobody else is there who could have the same address: no detection of duplicates.
    &["fd77::2/64", "nodad"],
];
/// The name of the TAP in its namespace.
const INTERFACE: &str = "pagewire0";
/// The MTU of the TAP in bytes.
pub const LONGEST_PACKET: u16 = 1500;

/// A network namespace, which lives as long as this value or a thread in it.
#[derive(Clone)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// A namespace with a TAP, which is up and has [`KERNEL`].
    pub fn with_tap() -> io::Result<(Self, Tap)> {
        // The namespace is a thread's: this one stays where it is.
        let made = std::thread::spawn(make).join();
        made.unwrap_or_else(|_| Err(io::Error::other("the thread of the namespace panicked")))
    }

    /// Runs `f` on a thread in the namespace.
    pub fn spawn<R: Send + 'static>(
        &self,
        f: impl FnOnce() -> R + Send + 'static,
    ) -> JoinHandle<io::Result<R>> {
        let namespace = Arc::clone(&self.0);
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        })
    }

    /// What to write before a command for it to run there.
    pub fn prefix(&self) -> String {
        let (process, fd) = (std::process::id(), self.0.as_raw_fd());
        format!("nsenter --net=/proc/{process}/fd/{fd}")
    }
}

fn make() -> io::Result<(Namespace, Tap)> {
    // SAFETY: a new network namespace for this thread changes no memory and no file descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| {
        let hint = "a network namespace and a TAP need root (CAP_SYS_ADMIN, CAP_NET_ADMIN)";
        io::Error::new(io::Error::from(error).kind(), format!("{error}: {hint}"))
    })?;
    let namespace = Namespace(Arc::new(File::open("/proc/thread-self/ns/net")?));
    let tap = Tap::open(INTERFACE)?;
    let mtu = LONGEST_PACKET.to_string();
    for address in ADDRESSES {
        ip(&[&["address", "add", "dev", INTERFACE], address].concat())?;
    }
    ip(&["link", "set", INTERFACE, "mtu", &mtu, "up"])?;
    Ok((namespace, tap))
}

/// Runs iproute2's `ip`; a child is in the namespace of the thread that starts it.
fn ip(arguments: &[&str]) -> io::Result<()> {
    let explain = |error| io::Error::other(format!("ip {}: {error}", arguments.join(" ")));
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .map_err(|error| explain(error.to_string()))?;
    if status.success() {
        Ok(())
    } else {
        Err(explain(status.to_string()))
    }
}
