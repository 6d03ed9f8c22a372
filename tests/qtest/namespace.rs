//! A network namespace without a name, for one thread: nothing of the machine's own network is
//! touched, and all of it is gone with the thread and what it has opened there.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// So that nobody else says anything there, and frames stay as they are: no IPv6, and no filter of
/// a bridge, which would look into packets, and drop or trim what it does not like (Linux
/// `br_netfilter`).
const SETTINGS: [(&str, &str); 5] = [
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("bridge/bridge-nf-call-iptables", "0"),
    ("bridge/bridge-nf-call-ip6tables", "0"),
    ("bridge/bridge-nf-call-arptables", "0"),
];

/// Runs `f` on a thread with a namespace of its own. Needs root.
pub(crate) fn in_a_namespace<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> JoinHandle<io::Result<T>> {
    std::thread::spawn(|| {
        enter()?;
        f()
    })
}

fn enter() -> io::Result<()> {
    // SAFETY: a new network namespace for this thread changes no memory and no file descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| {
        let hint = "a network namespace needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN)";
        io::Error::new(io::Error::from(error).kind(), format!("{error}: {hint}"))
    })?;
    for (name, value) in SETTINGS {
        // The settings of the thread's own namespace. Not there: nothing that could disturb.
        match fs::write(format!("/proc/sys/net/{name}"), value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io::Error::other(format!("{name}: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Runs commands of iproute2's `ip`; a child is in the namespace of the thread that starts it.
pub(crate) fn ip(commands: &str) -> io::Result<()> {
    let explain = |error: String| io::Error::other(format!("ip: {error}"));
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| explain(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(commands.as_bytes())?;
    }
    let status = child.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(explain(status.to_string()))
    }
}
