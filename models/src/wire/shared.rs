//! A wire between processes: a directory with a datagram socket for each end.
//!
//! An end sends each frame to the sockets of all others, as a hub does; there is no process in the
//! middle, and ends come and go in any order.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Clock};

use pagewire_hal::Instant;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::Wire;

/// More than any frame of a model.
const LONGEST_FRAME: usize = 66_000;
/// How often the directory is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a frame waits for room at an end that is slow, before it is lost there: Linux lets as
/// few as ten datagrams wait at a socket.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 5_000_000,
};

/// One end of a wire between processes. There is a carrier as long as there is another end.
#[derive(Debug)]
pub struct SharedWire {
    directory: PathBuf,
    name: OsString,
    socket: UnixDatagram,
    others: RefCell<Others>,
    buffer: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Others {
    all: Vec<Other>,
    looked: Option<Clock>,
    dropped: u64,
}

/// Another end.
#[derive(Debug)]
struct Other {
    name: OsString,
    socket: UnixDatagram,
}

impl SharedWire {
    /// Joins the wire in `directory`, which is made if it is not there, and goes away with the last
    /// end.
    ///
    /// # Errors
    /// What the system said.
    pub fn join(directory: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let made = fs::create_dir(directory);
        if let Err(error) = made
            && !directory.is_dir()
        {
            return Err(error);
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = OsString::from(format!("{}-{number}", std::process::id()));
        let place = directory.join(&name);
        // Left by a killed process of the same number.
        let _ = fs::remove_file(&place);
        let socket = UnixDatagram::bind(&place)?;
        socket.set_nonblocking(true)?;
        let wire = Self {
            directory: directory.to_owned(),
            name,
            socket,
            others: RefCell::default(),
            buffer: vec![0; LONGEST_FRAME].into_boxed_slice(),
        };
        wire.look();
        Ok(wire)
    }

    /// Frames that some other end had no room for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.others.borrow().dropped
    }

    /// Looks for other ends, if it is time to.
    fn look(&self) {
        let mut others = self.others.borrow_mut();
        if others.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        others.looked = Some(Clock::now());
        let Ok(entries) = fs::read_dir(&self.directory) else {
            others.all.clear();
            return;
        };
        let names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        others.all.retain(|other| names.contains(&other.name));
        for name in names {
            let is_known = others.all.iter().any(|other| other.name == name);
            if is_known || name == self.name {
                continue;
            }
            match self.connect(&name) {
                Ok(socket) => others.all.push(Other { name, socket }),
                Err(error) => self.clear_away(&name, &error),
            }
        }
    }

    fn connect(&self, name: &OsString) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(self.directory.join(name))?;
        Ok(socket)
    }

    /// Removes the socket of an end whose process was killed.
    fn clear_away(&self, name: &OsString, error: &io::Error) {
        if error.kind() == ErrorKind::ConnectionRefused {
            let _ = fs::remove_file(self.directory.join(name));
        }
    }
}

/// Sends a frame, and waits a moment if there is no room; whether it has left.
fn send(socket: &UnixDatagram, frame: &[u8]) -> io::Result<bool> {
    match socket.send(frame) {
        Ok(_) => return Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    let mut wanted = [PollFd::new(socket, PollFlags::OUT)];
    let _ = rustix::event::poll(&mut wanted, Some(&PATIENCE));
    match socket.send(frame) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        sent => sent.map(|_| true),
    }
}

impl AsFd for SharedWire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Wire for SharedWire {
    fn transmit(&mut self, frame: &mut Vec<u8>, _now: Instant) {
        self.look();
        let mut others = self.others.borrow_mut();
        let mut lost = 0;
        others.all.retain(|other| match send(&other.socket, frame) {
            Ok(sent) => {
                lost += u64::from(!sent);
                true
            }
            Err(error) => {
                self.clear_away(&other.name, &error);
                false
            }
        });
        others.dropped += lost;
    }

    fn receive(&mut self, frame: &mut Vec<u8>, _now: Instant) -> bool {
        match self.socket.recv(&mut self.buffer) {
            Ok(len) if len > 0 => {
                frame.clear();
                frame.extend_from_slice(self.buffer.get(..len).unwrap_or_default());
                true
            }
            _ => false,
        }
    }

    fn carrier(&self) -> bool {
        self.look();
        !self.others.borrow().all.is_empty()
    }
}

impl Drop for SharedWire {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.directory.join(&self.name));
        // Not empty while there are other ends.
        let _ = fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn settle() {
        std::thread::sleep(LOOK + Duration::from_millis(10));
    }

    #[test]
    fn a_frame_reaches_all_other_ends() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("wire");
        let mut one = SharedWire::join(&directory).unwrap();
        assert!(!one.carrier());
        let mut ends: Vec<_> = (0..3)
            .map(|_| SharedWire::join(&directory).unwrap())
            .collect();
        settle();
        assert!(one.carrier());
        let mut frame = Vec::new();
        // Of all lengths, up to the longest that a model makes.
        for len in [60, 1514, 9018, 65_549] {
            one.transmit(&mut vec![7; len], NOW);
            for end in &mut ends {
                assert!(end.carrier());
                assert!(end.receive(&mut frame, NOW));
                assert_eq!(frame, vec![7; len]);
            }
        }
        assert!(!one.receive(&mut frame, NOW));
        ends[1].transmit(&mut vec![8; 60], NOW);
        assert!(one.receive(&mut frame, NOW));
        drop(ends);
        settle();
        assert!(!one.carrier());
        assert_eq!(one.dropped(), 0);
        drop(one);
        assert!(!directory.exists());
    }

    #[test]
    fn an_end_that_takes_nothing_loses_frames_and_a_killed_one_is_cleared_away() {
        let place = tempfile::tempdir().unwrap();
        let mut one = SharedWire::join(place.path()).unwrap();
        let slow = SharedWire::join(place.path()).unwrap();
        settle();
        let room = (0..100_000).find(|_| {
            one.transmit(&mut vec![1; 1514], NOW);
            one.dropped() > 0
        });
        assert!(room.is_some());
        drop(slow);
        // As SIGKILL leaves it: the file is there, and nobody reads.
        let left = place.path().join("1-99");
        drop(UnixDatagram::bind(&left).unwrap());
        settle();
        assert!(!one.carrier());
        assert!(!left.exists());
    }
}
