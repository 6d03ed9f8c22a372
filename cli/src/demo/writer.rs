//! A thread that writes to the input while it is sent: bytes by itself, and pieces by a system call,
//! which has the kernel write.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};

use super::scribble::Scribble;

/// Threads that write.
pub(super) const WRITERS: usize = 2;

/// Bytes in a row that are one writer's; the next are the other's. No divisor of a page: some such
/// pieces lie in two.
pub(super) const RUN: usize = 48;

/// What the kernel writes comes from a file of so many bytes.
const SOURCE: usize = 4096;

/// What all have written.
#[derive(Default)]
pub(super) struct Written {
    /// Bytes.
    pub(super) bytes: AtomicU64,
    /// Those of them that the kernel wrote.
    pub(super) by_kernel: AtomicU64,
    /// System calls that wrote less than they should, as a page was protected.
    pub(super) refused: AtomicU64,
}

/// Where the buffer is, for another thread.
pub(super) struct Place(pub(super) *mut u8);

// SAFETY: a number; who uses it says why he may.
unsafe impl Send for Place {}

/// One of those who write.
pub(super) struct Writer {
    index: usize,
    random: fastrand::Rng,
    file: File,
    /// What is in the file.
    source: Vec<u8>,
    /// What was written last to each byte that is this writer's.
    last: Vec<Option<u8>>,
}

impl Writer {
    /// The one that has the runs whose numbers are `index` modulo the number of writers.
    pub(super) fn new(index: usize, seed: u64) -> std::io::Result<Self> {
        let mut random = fastrand::Rng::with_seed(seed ^ index as u64);
        let mut source = vec![0; SOURCE];
        random.fill(&mut source);
        let mut file = File::from(memfd_create("pagewire-scribbler", MemfdFlags::CLOEXEC)?);
        file.write_all(&source)?;
        Ok(Self {
            index,
            random,
            file,
            source,
            last: Vec::new(),
        })
    }

    /// Writes until all is over; returns what is to be found in its runs then, where it has written.
    pub(super) fn run(mut self, scribble: &Scribble, place: &Place) -> Vec<Option<u8>> {
        let len = scribble.len();
        let runs = (len.div_ceil(RUN) + WRITERS - 1 - self.index) / WRITERS;
        self.last = vec![None; runs * RUN];
        while runs > 0 && !scribble.is_over() {
            let start = (self.random.usize(..runs) * WRITERS + self.index) * RUN;
            let end = len.min(start + RUN);
            let at = self.random.usize(start..end);
            // Every fourth time, more or less.
            if self.random.u8(..) < 64 {
                let count = self.random.usize(1..=end - at);
                self.by_kernel(place, at, count, scribble.written());
            } else {
                let value = self.random.u8(..);
                self.by_hand(place, at, value);
                let bytes = &scribble.written().bytes;
                bytes.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.last
    }

    fn by_hand(&mut self, place: &Place, at: usize, value: u8) {
        // SAFETY: the offset is less than the length of the buffer, which the `Scribble` keeps. No
        // slice of it is in use before all writers have ended: what is lent is read elsewhere.
        unsafe { place.0.wrapping_add(at).write_volatile(value) };
        self.remember(at, value);
    }

    /// Has the kernel write; what it does not is written by hand.
    fn by_kernel(&mut self, place: &Place, at: usize, count: usize, written: &Written) {
        let from = self.random.usize(..=SOURCE - count);
        // SAFETY: as in `by_hand`, for bytes up to the end of a run, which ends in the buffer.
        let read = unsafe {
            libc::pread(
                self.file.as_raw_fd(),
                place.0.wrapping_add(at).cast(),
                count,
                from as libc::off_t,
            )
        };
        // Negative: an error.
        let read = usize::try_from(read).unwrap_or(0);
        let add = |counter: &AtomicU64, by: usize| counter.fetch_add(by as u64, Ordering::Relaxed);
        add(&written.bytes, count);
        add(&written.by_kernel, read);
        add(&written.refused, usize::from(read < count));
        for index in 0..count {
            let value = self.source.get(from + index).copied().unwrap_or_default();
            if index < read {
                self.remember(at + index, value);
            } else {
                self.by_hand(place, at + index, value);
            }
        }
    }

    fn remember(&mut self, at: usize, value: u8) {
        let own = at / (RUN * WRITERS) * RUN + at % RUN;
        if let Some(last) = self.last.get_mut(own) {
            *last = Some(value);
        }
    }
}

/// Whether the bytes have what the writer of this index has written last.
pub(super) fn has_kept(bytes: &[u8], index: usize, last: &[Option<u8>]) -> bool {
    let own = bytes.chunks(RUN).skip(index).step_by(WRITERS).flatten();
    let kept = |(now, last): (&u8, &Option<u8>)| last.is_none_or(|last| last == *now);
    own.zip(last).all(kept)
}
