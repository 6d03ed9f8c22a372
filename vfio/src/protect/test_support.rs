//! Writers that scribble over lent memory, waits that end, and a device.

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types::Fd};

use super::{Arena, Choice, Lent, Mode, ProtectError, Protector};

/// Waits until something holds; false if it does not for so long that it never will.
pub(super) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > Duration::from_secs(60) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// One of each mode that can be had here: the full one needs a privilege.
pub(super) fn protectors() -> Vec<Protector> {
    let user = Protector::open(Choice::UserOnly).expect("needs no privilege");
    assert_eq!(user.mode(), Mode::UserOnly);
    let signal = Protector::open(Choice::Signal).expect("needs no privilege");
    assert_eq!(signal.mode(), Mode::Signal);
    full().into_iter().chain([user, signal]).collect()
}

/// The full one; `None` if this user may not have it, which root always may.
pub(super) fn full() -> Option<Protector> {
    match Protector::open(Choice::Full) {
        Err(ProtectError::NoUserfault(attempts)) if !rustix::process::geteuid().is_root() => {
            println!("without a full userfaultfd: {attempts:?}");
            None
        }
        opened => {
            let full = opened.expect("root may have it");
            assert_eq!(full.mode(), Mode::Full);
            Some(full)
        }
    }
}

/// A pointer that crosses threads.
#[derive(Clone, Copy)]
pub(super) struct Place(pub(super) NonNull<u8>);

// SAFETY: a number; who uses it says why he may.
unsafe impl Send for Place {}

impl Place {
    pub(super) fn at(self, offset: usize) -> Self {
        Self(NonNull::new(self.0.as_ptr().wrapping_byte_add(offset)).expect("not at the end"))
    }
}

/// A thread that does one thing, and says when it has.
pub(super) struct Writer<T> {
    done: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Writer<T> {
    pub(super) fn doing(what: impl FnOnce() -> T + Send + 'static) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let says = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let result = what();
            says.store(true, Ordering::SeqCst);
            result
        });
        Self { done, thread }
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }

    /// What it did, when it has.
    pub(super) fn join(self) -> T {
        assert!(eventually(|| self.is_done()), "a writer still sleeps");
        self.thread.join().expect("it does not panic")
    }

    /// Looks for a while whether it is still at it. It may pass by chance, but not fail by chance.
    pub(super) fn sleeps(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            if self.is_done() {
                return false;
            }
            std::thread::yield_now();
        }
        !self.is_done()
    }
}

impl Writer<()> {
    /// Writes one byte.
    pub(super) fn poking(place: Place, byte: u8) -> Self {
        Self::doing(move || {
            let place = place;
            // SAFETY: each test pokes memory that a buffer or a loan of it keeps, of which no
            // slice is in use but those of loans.
            unsafe { place.0.write_volatile(byte) };
        })
    }
}

/// Waits until so many writes have been found waiting for a release.
pub(super) fn waits(protector: &Protector, count: u64) {
    assert!(
        eventually(|| protector.counters().waits >= count),
        "{count} writers should wait: {:?}",
        protector.counters()
    );
}

/// A device that reads the arena by pages that are pinned. io_uring plays it: it pins the memory that
/// is registered with it for long, as VFIO does, and reads the pinned pages, not the mapping.
pub(super) struct Device {
    ring: IoUring,
    reader: OwnedFd,
    writer: OwnedFd,
    arena: Arena,
}

impl Device {
    /// Pins all of an arena, before anything of it is lent: at the address of the program, as io_uring
    /// pins for writing too. `None` where io_uring is forbidden.
    pub(super) fn new(arena: &Arena) -> Option<Self> {
        let ring = match IoUring::new(2) {
            Ok(ring) => ring,
            Err(error) => {
                println!("without io_uring: {error}");
                return None;
            }
        };
        let buffer = libc::iovec {
            iov_base: arena.program().as_ptr().cast(),
            iov_len: arena.len(),
        };
        // SAFETY: the memory stays as long as the arena, of which the device keeps a clone.
        unsafe { ring.submitter().register_buffers(&[buffer]) }.expect("the memory can be pinned");
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        Some(Self {
            ring,
            reader,
            writer,
            arena: arena.clone(),
        })
    }

    /// What the device reads of a loan, of its first 4 KiB at most.
    pub(super) fn read(&mut self, lent: &Lent) -> Vec<u8> {
        let mut bytes = vec![0; lent.len().min(4096)];
        assert!(lent.arena_offset() + bytes.len() <= self.arena.len());
        let place = self
            .arena
            .program()
            .as_ptr()
            .wrapping_add(lent.arena_offset());
        let write = opcode::WriteFixed::new(
            Fd(self.writer.as_raw_fd()),
            place.cast_const(),
            bytes.len() as u32,
            0,
        );
        // SAFETY: the bytes are in the registered memory, and it is waited for.
        unsafe { self.ring.submission().push(&write.offset(u64::MAX).build()) }.unwrap();
        self.ring.submit_and_wait(1).unwrap();
        let done = self.ring.completion().next().expect("it is done");
        assert_eq!(done.result(), bytes.len() as i32);
        assert_eq!(rustix::io::read(&self.reader, &mut bytes), Ok(bytes.len()));
        bytes
    }
}
