//! The wire of QEMU's device: a pair of datagram sockets, a frame in each datagram.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant as RealInstant};

use pagewire_hal::Instant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Wire;

/// More than any frame that QEMU sends (`NET_BUFSIZE`, QEMU `include/net/net.h`: 68 KiB).
const LONGEST_FRAME: usize = 70 * 1024;
/// How long a frame waits for QEMU to take those before it.
const PATIENCE: Duration = Duration::from_millis(200);

/// What has passed, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct QtestWireCounters {
    /// Frames given to QEMU.
    pub transmitted: u64,
    /// Frames taken from QEMU.
    pub received: u64,
    /// Frames lost because QEMU took none for a while: its device had no receive buffer.
    pub dropped: u64,
    /// Frames that the socket refused (longer than its buffer, or QEMU has gone) or that are
    /// empty, and reads that failed.
    pub errors: u64,
}

/// The far end of the wire that QEMU's device is plugged into. Receiving never blocks;
/// transmitting waits a little while QEMU is busy, and drops the frame then.
///
/// QEMU takes frames only while its device has receive buffers: what a NIC would miss waits in
/// the socket here, until that is full.
#[derive(Debug)]
pub struct QtestWire {
    socket: UnixDatagram,
    link: Arc<AtomicBool>,
    buffer: Box<[u8]>,
    /// The last frame was dropped: no other waits before one has got through.
    is_stuck: bool,
    counters: QtestWireCounters,
}

impl QtestWire {
    /// The end at `near`, for QEMU to send to.
    pub(super) fn bind(near: &Path, link: Arc<AtomicBool>) -> io::Result<Self> {
        let socket = UnixDatagram::bind(near)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            link,
            buffer: vec![0; LONGEST_FRAME].into_boxed_slice(),
            is_stuck: false,
            counters: QtestWireCounters::default(),
        })
    }

    /// Connects to QEMU's end at `far`.
    pub(super) fn connect(&self, far: &Path) -> io::Result<()> {
        self.socket.connect(far)
    }

    /// What has passed so far.
    #[must_use]
    pub const fn counters(&self) -> QtestWireCounters {
        self.counters
    }

    /// Waits until there is a frame to receive, for `longest` at most; returns whether there is.
    #[must_use]
    pub fn wait(&self, longest: Duration) -> bool {
        self.poll(PollFlags::IN, longest)
    }

    fn poll(&self, what: PollFlags, longest: Duration) -> bool {
        let end = RealInstant::now() + longest;
        loop {
            let left = end.saturating_duration_since(RealInstant::now());
            let mut sockets = [PollFd::new(&self.socket, what)];
            match poll(&mut sockets, Timespec::try_from(left).ok().as_ref()) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let patience = if self.is_stuck {
            Duration::ZERO
        } else {
            PATIENCE
        };
        let end = RealInstant::now() + patience;
        loop {
            match self.socket.send(frame) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(RealInstant::now());
                    if left.is_zero() || !self.poll(PollFlags::OUT, left) {
                        return Err(error);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }
}

impl AsFd for QtestWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Wire for QtestWire {
    fn transmit(&mut self, frame: &mut Vec<u8>, _now: Instant) {
        // QEMU takes an empty datagram for the end of the connection, and reads no more (seen
        // with 11.1.3; `net_dgram_send`, QEMU `net/dgram.c`).
        if frame.is_empty() {
            self.counters.errors += 1;
            return;
        }
        match self.send(frame) {
            Ok(()) => {
                self.is_stuck = false;
                self.counters.transmitted += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_stuck = true;
                self.counters.dropped += 1;
            }
            Err(error) => {
                self.counters.errors += 1;
                log::debug!("a frame of {} bytes was refused: {error}", frame.len());
            }
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>, _now: Instant) -> bool {
        let len = loop {
            match self.socket.recv(&mut self.buffer) {
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

    fn carrier(&self) -> bool {
        self.link.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn wire() -> (tempfile::TempDir, QtestWire, UnixDatagram) {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (folder.path().join("near"), folder.path().join("far"));
        let wire = QtestWire::bind(&near, Arc::new(AtomicBool::new(true))).unwrap();
        let qemu = UnixDatagram::bind(&far).unwrap();
        wire.connect(&far).unwrap();
        qemu.connect(&near).unwrap();
        (folder, wire, qemu)
    }

    #[test]
    fn a_datagram_is_a_frame() {
        let (_folder, mut wire, qemu) = wire();
        let mut frame = Vec::new();
        assert!(!wire.receive(&mut frame, NOW));
        for len in [1, 60, 1514, 9014, 65_536] {
            let sent: Vec<u8> = (0..len).map(|i| (i * 13) as u8).collect();
            qemu.send(&sent).unwrap();
            assert!(wire.wait(Duration::from_secs(5)));
            assert!(wire.receive(&mut frame, NOW));
            assert_eq!(frame, sent);
            wire.transmit(&mut frame, NOW);
            let mut back = vec![0; LONGEST_FRAME];
            assert_eq!(qemu.recv(&mut back).unwrap(), len);
            assert_eq!(&back[..len], sent);
        }
        assert_eq!(
            (wire.counters().received, wire.counters().transmitted),
            (5, 5)
        );
    }

    #[test]
    fn what_nobody_takes_or_no_socket_holds_is_dropped_and_counted() {
        let (_folder, mut wire, qemu) = wire();
        for _ in 0..10_000 {
            wire.transmit(&mut vec![1; 1514], NOW);
        }
        let counters = wire.counters();
        assert!(
            counters.dropped > 0 && counters.transmitted > 0,
            "{counters:?}"
        );
        assert_eq!(counters.dropped + counters.transmitted, 10_000);
        let mut back = [0; 2000];
        qemu.recv(&mut back).unwrap();
        wire.transmit(&mut vec![2; 1514], NOW);
        assert_eq!(wire.counters().transmitted, counters.transmitted + 1);
        wire.transmit(&mut vec![3; 64 << 20], NOW);
        assert_eq!(wire.counters().errors, 1);
        wire.transmit(&mut Vec::new(), NOW);
        assert_eq!(wire.counters().errors, 2);
        drop(qemu);
        wire.transmit(&mut vec![4; 60], NOW);
        assert_eq!(wire.counters().errors, 3);
    }
}
