//! A wire with Linux in the middle: a TAP with virtio-net headers for QEMU, a bridge, and a TAP
//! without for the test. What QEMU's device leaves to the kernel, checksums and segments to make, the
//! kernel has made when a frame leaves by that one: a judge of the requests that knows
//! nothing of this project.
//!
//! All of it is gone when both TAPs are closed.

use std::io;
use std::os::fd::OwnedFd;

use pagewire_models::wire::{Tap, open_vnet_tap, open_vnet_tap_queues};

use super::namespace::{in_a_namespace, ip};

/// The bridge learns no addresses and no groups: what comes in on one side goes out on the other.
/// Frames of any length, and as many of them as a test does not take at once.
const COMMANDS: &str = "\
link add bridge type bridge ageing_time 0 mcast_snooping 0
link set device mtu 65521 txqueuelen 20000 master bridge up
link set far mtu 65521 txqueuelen 20000 master bridge up
link set bridge up
";

/// QEMU's end, of `queues` queues, and ours. Needs root.
pub(crate) fn bridge(queues: u16) -> io::Result<(Vec<OwnedFd>, Tap)> {
    bridge_to(queues, Tap::open)
}

/// The same with an end of ours that `open` opens.
pub(crate) fn bridge_to<T: Send + 'static>(
    queues: u16,
    open: impl FnOnce(&str) -> io::Result<T> + Send + 'static,
) -> io::Result<(Vec<OwnedFd>, T)> {
    let made = in_a_namespace(move || {
        let device = match queues {
            1 => vec![open_vnet_tap("device")?],
            _ => open_vnet_tap_queues("device", queues)?,
        };
        let far = open("far")?;
        ip(COMMANDS)?;
        Ok((device, far))
    });
    let panicked = |_| Err(io::Error::other("the thread of the namespace panicked"));
    made.join().unwrap_or_else(panicked)
}

/// Whether there can be one; if not, says why. In CI that is a failure.
pub(crate) fn can_bridge() -> bool {
    let Err(error) = bridge(1) else { return true };
    assert!(std::env::var_os("CI").is_none(), "{error}");
    eprintln!("skipped: {error}");
    false
}
