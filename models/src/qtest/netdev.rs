//! What QEMU's device is plugged into.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::io::{FdFlags, fcntl_setfd};

/// The name of the network backend, which QEMU's monitor knows it by.
pub(super) const NETDEV: &str = "wire";

/// What QEMU's device is plugged into.
#[derive(Clone, Debug, Default)]
pub enum Netdev {
    /// A pair of datagram sockets, of which [`QtestWire`](super::QtestWire) is the far end. Frames
    /// only: a virtio device offers neither checksums nor segmentation.
    #[default]
    Dgram,
    /// A TAP interface of Linux, with the kernel at the far end. If it has virtio-net headers
    /// ([`open_vnet_tap`](crate::wire::open_vnet_tap)), requests for checksums and segmentation
    /// reach the kernel as the driver made them, and those of received frames reach the driver.
    Tap(TapQueues),
}

/// The open queues of a TAP interface, for QEMU to inherit.
///
/// QEMU sets their options (TUNSETOFFLOAD, the length of the header) as its driver negotiates.
/// They stay open here as long as this value or a clone: frames that nobody has read wait for the
/// next QEMU.
#[derive(Clone, Debug)]
pub struct TapQueues(Arc<[OwnedFd]>);

impl From<OwnedFd> for TapQueues {
    /// The only queue of an interface.
    fn from(queue: OwnedFd) -> Self {
        Self(Arc::new([queue]))
    }
}

impl From<Vec<OwnedFd>> for TapQueues {
    /// Queues of one interface that was opened with IFF_MULTI_QUEUE, also if it is one
    /// ([`open_vnet_tap_queues`](crate::wire::open_vnet_tap_queues)). The device needs as many
    /// ([`VirtioOptions::queue_pairs`](super::VirtioOptions::queue_pairs)). Without any, QEMU does
    /// not start.
    fn from(queues: Vec<OwnedFd>) -> Self {
        Self(queues.into())
    }
}

impl Netdev {
    /// Adds the backend to QEMU's command line. `near` and `far` are the paths of the two sockets,
    /// escaped.
    pub(super) fn add(&self, command: &mut Command, near: &str, far: &str) {
        command.arg("-netdev");
        match self {
            Self::Dgram => command.arg(format!(
                "dgram,id={NETDEV},local.type=unix,local.path={far},\
                 remote.type=unix,remote.path={near}"
            )),
            Self::Tap(queues) => {
                command.arg(tap_argument(&queues.0));
                inherit(command, Arc::clone(&queues.0))
            }
        };
    }
}

/// `vhost=off`: the frames are to go through QEMU's own device.
fn tap_argument(queues: &[OwnedFd]) -> String {
    let numbers: Vec<_> = queues
        .iter()
        .map(|queue| queue.as_raw_fd().to_string())
        .collect();
    let option = if numbers.len() == 1 { "fd" } else { "fds" };
    format!("tap,id={NETDEV},{option}={},vhost=off", numbers.join(":"))
}

/// Keeps the queues open when the command is executed. Here they are closed on that as before, so
/// that no other child has them.
fn inherit(command: &mut Command, queues: Arc<[OwnedFd]>) -> &mut Command {
    let keep = move || {
        for queue in queues.iter() {
            fcntl_setfd(queue, FdFlags::empty())?;
        }
        Ok(())
    };
    // SAFETY: in the child, between fork and exec, `keep` makes system calls on descriptors that
    // are open, as it owns them; it takes no memory and no lock, also not for its error.
    unsafe { command.pre_exec(keep) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a child of `command` has a descriptor of the file `name`.
    fn has(mut command: Command, name: &str) -> bool {
        let output = command.args(["-l", "/proc/self/fd"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains(name)
    }

    #[test]
    fn a_child_inherits_the_queues_and_no_other_does() {
        let files = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        let names = files
            .each_ref()
            .map(|file| file.path().display().to_string());
        let queues: Arc<[OwnedFd]> = Arc::new(files.map(|file| file.into_file().into()));
        for name in &names {
            let mut command = Command::new("ls");
            inherit(&mut command, Arc::clone(&queues));
            assert!(has(command, name), "{name}");
            assert!(!has(Command::new("ls"), name), "{name}");
        }
    }

    #[test]
    fn qemu_is_told_of_one_queue_or_several() {
        let queue = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let arguments = |netdev: Netdev| {
            let mut command = Command::new("qemu");
            netdev.add(&mut command, "n", "f");
            let words = command.get_args().map(|word| word.to_str().unwrap());
            words.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            arguments(Netdev::Dgram),
            "-netdev dgram,id=wire,local.type=unix,local.path=f,\
             remote.type=unix,remote.path=n"
        );
        let (first, second) = (queue(), queue());
        let (a, b) = (first.as_raw_fd(), second.as_raw_fd());
        assert_eq!(
            arguments(Netdev::Tap(vec![first, second].into())),
            format!("-netdev tap,id=wire,fds={a}:{b},vhost=off")
        );
        let only = queue();
        let number = only.as_raw_fd();
        assert_eq!(
            arguments(Netdev::Tap(only.into())),
            format!("-netdev tap,id=wire,fd={number},vhost=off")
        );
    }
}
