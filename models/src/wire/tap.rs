//! A TAP interface of Linux: a wire whose other end is the kernel's network stack.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use pagewire_hal::Instant;

use crate::Wire;

const CLONE_DEVICE: &str = "/dev/net/tun";
/// More than any frame of a TAP interface: Linux limits the MTU to 65,521 bytes, to which the
/// link header and a VLAN tag come.
const LONGEST_FRAME: usize = 66_000;
/// Attempts to write a frame while the kernel has no room.
const WRITE_ATTEMPTS: u32 = 8;

/// What has passed, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct TapCounters {
    /// Frames given to the kernel.
    pub transmitted: u64,
    /// Frames taken from the kernel.
    pub received: u64,
    /// Frames lost because the kernel had no room.
    pub dropped: u64,
    /// Frames that the kernel refused (shorter than an Ethernet header, or the interface is
    /// down), and reads that failed.
    pub errors: u64,
}

/// A TAP interface. What the device transmits on it the kernel receives on the interface, and
/// the other way round. Never blocks; to sleep until there is something to receive, poll its
/// file descriptor ([`AsFd`]) for reading.
#[derive(Debug)]
pub struct Tap {
    file: File,
    buffer: Box<[u8]>,
    counters: TapCounters,
    /// Of the errors, frames that the kernel refused.
    refused: u64,
}

impl Tap {
    /// Attaches to TAP interface `name`, or makes it, in the network namespace of the calling
    /// thread. An interface made here is down, and goes away with this value.
    ///
    /// # Errors
    /// What the system said, and what can be done about it. [`ErrorKind::InvalidInput`] if
    /// `name` is empty, has a NUL, or is longer than 15 bytes.
    pub fn open(name: &str) -> io::Result<Self> {
        Ok(Self::new(attach(name, 0)?))
    }

    /// A TAP interface that somebody else has opened and attached (`IFF_TAP | IFF_NO_PI`), a
    /// privileged parent say. The descriptor is made non-blocking.
    ///
    /// # Errors
    /// What the system said when asked to make it so.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open; F_GETFL has no further argument.
        let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is open; F_SETFL takes an integer.
        let set = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self::new(File::from(fd)))
    }

    fn new(file: File) -> Self {
        Self {
            file,
            buffer: vec![0; LONGEST_FRAME].into_boxed_slice(),
            counters: TapCounters::default(),
            refused: 0,
        }
    }

    /// What has passed so far.
    #[must_use]
    pub const fn counters(&self) -> TapCounters {
        self.counters
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Wire for Tap {
    fn transmit(&mut self, frame: &mut Vec<u8>, _now: Instant) {
        for _ in 0..WRITE_ATTEMPTS {
            // One write is one frame.
            match self.file.write(frame) {
                Ok(_) => {
                    self.counters.transmitted += 1;
                    return;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.counters.errors += 1;
                    self.refused += 1;
                    log::debug!("a frame of {} bytes was refused: {error}", frame.len());
                    return;
                }
            }
        }
        self.counters.dropped += 1;
    }

    fn receive(&mut self, frame: &mut Vec<u8>, _now: Instant) -> bool {
        let len = loop {
            match self.file.read(&mut self.buffer) {
                Ok(len) => break len,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => {
                    self.counters.errors += 1;
                    log::debug!("nothing could be received: {error}");
                    return false;
                }
            }
        };
        let Some(received) = self.buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return false;
        };
        frame.clear();
        frame.extend_from_slice(received);
        self.counters.received += 1;
        true
    }

    fn lost(&self) -> u64 {
        self.counters.dropped + self.refused
    }
}

/// Attaches to TAP interface `name`, or makes it, as [`Tap::open`] does, but for another program
/// (QEMU): before each frame there is a virtio-net header, so that checksums and TCP segments
/// that are still to be made are the kernel's work, and may be left to the reader.
///
/// Until that program says otherwise (TUNSETOFFLOAD), the kernel leaves nothing to the reader.
///
/// # Errors
/// As [`Tap::open`].
pub fn open_vnet_tap(name: &str) -> io::Result<OwnedFd> {
    Ok(attach(name, libc::IFF_VNET_HDR)?.into())
}

/// As [`open_vnet_tap`], with `queues` descriptors for one interface, each a queue of its own
/// (Linux has up to 256). All are attached: the kernel spreads connections over them.
///
/// # Errors
/// As [`Tap::open`], also if `queues` is 0 or more than Linux has.
pub fn open_vnet_tap_queues(name: &str, queues: u16) -> io::Result<Vec<OwnedFd>> {
    if queues == 0 {
        let what = "a TAP interface has at least one queue";
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    let flags = libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    (0..queues)
        .map(|_| Ok(attach(name, flags)?.into()))
        .collect()
}

/// A descriptor that does not block, attached to TAP interface `name` with `flags` of TUNSETIFF
/// beside those that say that a frame begins with its Ethernet header.
fn attach(name: &str, flags: libc::c_int) -> io::Result<File> {
    let mut request = interface_request(name, flags)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(CLONE_DEVICE)
        .map_err(|error| explain_open(&error))?;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which
    // `request` is.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    if result < 0 {
        return Err(explain_attach(name, &io::Error::last_os_error()));
    }
    Ok(file)
}

/// What TUNSETIFF is told: the name, frames with their Ethernet header, no packet information
/// before it, and `flags`.
fn interface_request(name: &str, flags: libc::c_int) -> io::Result<libc::ifreq> {
    // SAFETY: an `ifreq` is integers, arrays and unions of such: all zeros are a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.as_bytes();
    // The last byte of the field stays zero.
    let fits = !bytes.is_empty() && bytes.len() < request.ifr_name.len() && !bytes.contains(&0);
    if !fits {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!("{name:?} is no interface name: 1 to 15 bytes, none of them NUL"),
        ));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char;
    }
    // The flags are small; the field has 16 bits.
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags) as libc::c_short;
    Ok(request)
}

fn explain_open(error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        ErrorKind::NotFound => "load the kernel module `tun`, or pass the device to the container",
        ErrorKind::PermissionDenied => "allow this user to read and write the device",
        _ => "is `tun` built into this kernel?",
    };
    io::Error::new(error.kind(), format!("{CLONE_DEVICE}: {error}; {hint}"))
}

fn explain_attach(name: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "this needs CAP_NET_ADMIN, or an interface made for this user \
             (`ip tuntap add … mode tap user …`)"
        }
        Some(libc::EBUSY) => "another program is attached to it",
        Some(libc::EINVAL) => {
            "an interface of this name exists and is no TAP interface, or one of other options"
        }
        _ => "the system gives no reason that we know",
    };
    io::Error::new(
        error.kind(),
        format!("TAP interface {name}: {error}; {hint}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As an interface that is down does.
    #[test]
    fn a_frame_that_is_refused_is_lost() {
        let read_only = File::open("/dev/null").unwrap();
        let mut tap = Tap::from_fd(read_only.into()).unwrap();
        tap.transmit(&mut vec![1; 60], Instant::ZERO);
        assert_eq!((tap.counters().errors, tap.lost()), (1, 1));
    }
}
