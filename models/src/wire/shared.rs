//! A wire between processes: a directory with a datagram socket for each end.
//!
//! An end sends each frame to the sockets of all others, as a hub does; there is no process in the
//! middle, and ends come and go in any order.

use std::cell::RefCell;
use std::collections::VecDeque;
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
/// few as ten datagrams wait at a socket, and its process may not have its turn. No longer, as it may
/// wait for us: who drives a model and is the far end of its wire as well takes no frame meanwhile.
const PATIENCE: Duration = Duration::from_millis(200);
/// Frames that are taken from the socket while a frame of ours waits; then it is lost.
const WAITING: usize = 4096;

/// One end of a wire between processes. There is a carrier as long as there is another end.
#[derive(Debug)]
pub struct SharedWire {
    directory: PathBuf,
    name: OsString,
    socket: UnixDatagram,
    others: RefCell<Others>,
    /// Frames that came while one of ours waited: else two ends could wait for each other.
    waiting: VecDeque<Vec<u8>>,
    buffer: Box<[u8]>,
    patience: Duration,
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
    /// Has not taken the last frame, in all that time: no other waits for it, until one gets in.
    stalled: bool,
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
            waiting: VecDeque::new(),
            buffer: vec![0; LONGEST_FRAME].into_boxed_slice(),
            patience: PATIENCE,
        };
        wire.look();
        Ok(wire)
    }

    /// How long a frame waits for room at an end that is slow, before it is lost there: 200 ms if
    /// nothing else was said. More where no end waits for another one; but QEMU gives a vfio-user
    /// device up that has not answered for five seconds, and Linux's drivers look every two seconds
    /// whether a frame has left.
    pub const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
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
                Ok(socket) => others.all.push(Other {
                    name,
                    socket,
                    stalled: false,
                }),
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

/// Sends a frame, and waits with `patience` if there is no room, while `take` takes what comes in,
/// as long as it can; whether the frame has left.
fn send(
    other: &mut Other,
    frame: &[u8],
    patience: Duration,
    own: &UnixDatagram,
    mut take: impl FnMut() -> bool,
) -> io::Result<bool> {
    let begin = Clock::now();
    loop {
        match other.socket.send(frame) {
            Ok(_) => {
                other.stalled = false;
                return Ok(true);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        let left = patience.saturating_sub(begin.elapsed());
        if other.stalled || left.is_zero() || !take() {
            other.stalled = true;
            return Ok(false);
        }
        let mut wanted = [
            PollFd::new(&other.socket, PollFlags::OUT),
            PollFd::new(own, PollFlags::IN),
        ];
        let left = Timespec::try_from(left).unwrap_or_default();
        // Interrupted or not, the loop looks again.
        let _ = rustix::event::poll(&mut wanted, Some(&left));
    }
}

/// Takes the next frame from a socket.
fn receive(socket: &UnixDatagram, buffer: &mut [u8], frame: &mut Vec<u8>) -> bool {
    match socket.recv(buffer) {
        Ok(len) if len > 0 => {
            frame.clear();
            frame.extend_from_slice(buffer.get(..len).unwrap_or_default());
            true
        }
        _ => false,
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
        let (own, waiting, buffer) = (&self.socket, &mut self.waiting, &mut self.buffer);
        let patience = self.patience;
        let mut take = || {
            let mut frame = Vec::new();
            while waiting.len() < WAITING && receive(own, buffer, &mut frame) {
                waiting.push_back(std::mem::take(&mut frame));
            }
            waiting.len() < WAITING
        };
        let mut gone = Vec::new();
        let mut others = self.others.borrow_mut();
        let mut lost = 0;
        others
            .all
            .retain_mut(|other| match send(other, frame, patience, own, &mut take) {
                Ok(sent) => {
                    lost += u64::from(!sent);
                    true
                }
                Err(error) => {
                    gone.push((std::mem::take(&mut other.name), error));
                    false
                }
            });
        others.dropped += lost;
        drop(others);
        for (name, error) in gone {
            self.clear_away(&name, &error);
        }
    }

    fn receive(&mut self, frame: &mut Vec<u8>, _now: Instant) -> bool {
        if let Some(first) = self.waiting.pop_front() {
            *frame = first;
            return true;
        }
        receive(&self.socket, &mut self.buffer, frame)
    }

    fn carrier(&self) -> bool {
        self.look();
        !self.others.borrow().all.is_empty()
    }

    /// Once for each other end that had none.
    fn lost(&self) -> u64 {
        self.others.borrow().dropped
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
        assert_eq!(one.lost(), 0);
        drop(one);
        assert!(!directory.exists());
    }

    /// Each sends far more than a socket holds before it takes anything.
    #[test]
    fn two_ends_that_talk_at_once_lose_nothing() {
        const FRAMES: u32 = 2_000;
        let place = tempfile::tempdir().unwrap();
        let ends = [(); 2].map(|()| SharedWire::join(place.path()).unwrap());
        settle();
        let talk = |mut end: SharedWire| {
            // What is asked is whether they wait for each other, not how soon each has its turn.
            end.patience = Duration::from_secs(60);
            std::thread::spawn(move || {
                let mut frame = Vec::new();
                for number in 0..FRAMES {
                    frame.clear();
                    frame.extend_from_slice(&number.to_le_bytes());
                    end.transmit(&mut frame, NOW);
                }
                let begin = Clock::now();
                for number in 0..FRAMES {
                    while !end.receive(&mut frame, NOW) {
                        assert!(begin.elapsed() < Duration::from_secs(60), "{number} came");
                        std::thread::yield_now();
                    }
                    assert_eq!(frame, number.to_le_bytes());
                }
                assert_eq!(end.lost(), 0);
                // The other one may still be waiting for room here.
                end
            })
        };
        let talking = ends.map(talk);
        let _ends = talking.map(|thread| thread.join().unwrap());
    }

    #[test]
    fn an_end_that_takes_nothing_loses_frames_and_a_killed_one_is_cleared_away() {
        let place = tempfile::tempdir().unwrap();
        let mut one = SharedWire::join(place.path()).unwrap();
        let slow = SharedWire::join(place.path()).unwrap();
        one.patience = Duration::from_millis(200);
        settle();
        let room = (0..100_000).find(|_| {
            one.transmit(&mut vec![1; 1514], NOW);
            one.lost() > 0
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
