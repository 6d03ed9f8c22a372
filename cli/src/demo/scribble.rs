//! `demo --scribble`: the input lies in memory that threads go on writing to while it is sent.
//!
//! Each page is protected while it is lent: whoever writes to it sleeps, the kernel too if it may be
//! stopped. What the receiver gets is what was there when each call of `send` returned, of which a
//! digest is made then, and no write is lost: at the end each byte is what was written there last.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use clap::ValueEnum;
use pagewire::tcp::{CopyRule, OnWrite, SendOptions, Slice};
use pagewire_vfio::protect::{Arena, Buffer, Choice, Mode, Protector};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::writer::{Place, WRITERS, Writer, Written, has_kept};
use crate::error::Failure;

/// What happens to bytes that somebody wants to write over while they are lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Policy {
    /// the writer sleeps until the peer has acknowledged them
    Wait,
    /// they move elsewhere, and the writer sleeps only until the NIC has read what is in its ring
    Copy,
}

/// What came of it, for the report.
#[derive(Debug, Serialize)]
pub(crate) struct Scribbling {
    pub(crate) policy: Policy,
    /// Whose writes are stopped.
    pub(crate) mode: &'static str,
    /// Bytes written by the program's threads while the input was sent.
    pub(crate) writes: u64,
    /// Those of them that the kernel wrote, by system calls.
    pub(crate) kernel_writes: u64,
    /// System calls that failed or ended too early, as a page was protected: in the mode "full" none.
    pub(crate) kernel_refused: u64,
    /// Writes that met a protected page.
    pub(crate) faults: u64,
    /// Those of them that had to wait for a release.
    pub(crate) waits: u64,
    /// Bytes that moved to a place of their own because somebody wanted to write over them.
    pub(crate) moved: u64,
    /// Calls that set protections.
    pub(crate) protects: u64,
    pub(crate) no_write_lost: bool,
}

/// The kernel's writes are stopped too.
const FULL: &str = "full";

impl Scribbling {
    /// Whether writes of the kernel have slept as any other, where that can be had.
    pub(crate) fn kernel_was_patient(&self) -> bool {
        self.mode != FULL || self.kernel_refused == 0
    }
}

/// The input, and those who write to it.
pub(crate) struct Scribble {
    policy: Policy,
    protector: Protector,
    pub(crate) arena: Arena,
    buffer: Buffer,
    stop: AtomicBool,
    written: Written,
    writers: Mutex<Vec<JoinHandle<Vec<Option<u8>>>>>,
}

impl Scribble {
    /// Memory with these bytes in it.
    pub(crate) fn new(bytes: &[u8], policy: Policy, choice: Choice) -> Result<Arc<Self>, Failure> {
        let failed = |error| Failure::usage(format!("--scribble: {error}"));
        let protector = Protector::open(choice).map_err(failed)?;
        let arena = protector.arena(bytes.len()).map_err(failed)?;
        // The first, so its offsets are those of the arena.
        let mut buffer = arena.buffer(bytes.len()).map_err(failed)?;
        let all = buffer.bytes_mut(0..bytes.len()).map_err(failed)?;
        all.copy_from_slice(bytes);
        Ok(Arc::new(Self {
            policy,
            protector,
            arena,
            buffer,
            stop: AtomicBool::new(false),
            written: Written::default(),
            writers: Mutex::default(),
        }))
    }

    /// How its bytes are sent.
    pub(crate) fn options(&self) -> SendOptions {
        let mut options = SendOptions::default();
        options.copy = CopyRule::Never;
        options.on_write = match self.policy {
            Policy::Wait => OnWrite::Wait,
            Policy::Copy => OnWrite::MoveAway,
        };
        options
    }

    /// Lets the writers begin.
    pub(crate) fn start(self: &Arc<Self>, seed: u64) -> Result<(), Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure::failed(format!("--scribble: {why}"));
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        for index in 0..WRITERS {
            let place = self.buffer.as_ptr().map_err(|error| failed(&error))?;
            let (place, scribble) = (Place(place.as_ptr()), Arc::clone(self));
            let writer = Writer::new(index, seed).map_err(|error| failed(&error))?;
            let thread = std::thread::Builder::new()
                .name("scribbler".into())
                .spawn(move || writer.run(&scribble, &place))
                .map_err(|error| failed(&error))?;
            writers.push(thread);
        }
        Ok(())
    }

    /// Bytes of the input.
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether the writers should end.
    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn written(&self) -> &Written {
        &self.written
    }

    /// Adds the bytes of slices to a digest that have just been lent, and are lent still.
    pub(crate) fn hash(
        &self,
        hash: &mut Sha256,
        slices: &[Slice],
        accepted: usize,
    ) -> Result<(), Failure> {
        let mut left = accepted;
        for slice in slices {
            let len = slice.len.min(left);
            left -= len;
            if len == 0 {
                continue;
            }
            let range: Range<usize> = slice.start..slice.start + len;
            let lent = self.buffer.lend(range);
            let lent = lent.map_err(|error| Failure::failed(format!("--scribble: {error}")))?;
            hash.update(lent.bytes());
        }
        Ok(())
    }

    /// Ends the writers; `moved` is what the senders have counted. If something is lent still, writers
    /// may sleep for ever: they are not waited for, and their writes not vouched for.
    pub(crate) fn finish(&self, moved: u64, all_back: bool) -> Scribbling {
        self.stop.store(true, Ordering::Relaxed);
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut no_write_lost = all_back;
        if !all_back {
            writers.clear();
        }
        let told: Vec<_> = writers.drain(..).map(JoinHandle::join).collect();
        let bytes = self.buffer.bytes();
        for (index, last) in told.into_iter().enumerate() {
            no_write_lost &= last.is_ok_and(|last| has_kept(bytes, index, &last));
        }
        let written = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = self.protector.counters();
        Scribbling {
            policy: self.policy,
            mode: match self.protector.mode() {
                Mode::Full => FULL,
                Mode::UserOnly => "user mode only",
                Mode::Signal => "signal",
            },
            writes: written(&self.written.bytes),
            kernel_writes: written(&self.written.by_kernel),
            kernel_refused: written(&self.written.refused),
            faults: counters.faults,
            waits: counters.waits,
            moved,
            protects: counters.protects,
            no_write_lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::RUN;
    use super::*;

    /// Lends all of it again and again until something has come of it.
    fn until(scribble: &Scribble, enough: impl Fn(&Written) -> bool) {
        while !enough(&scribble.written) {
            let lent = scribble.buffer.lend(0..scribble.len()).unwrap();
            let bytes = lent.bytes().to_vec();
            std::thread::yield_now();
            assert!(lent.bytes() == bytes);
        }
    }

    /// Two pages, and a run that is cut off.
    const LEN: usize = 8200;

    #[test]
    fn the_kernel_waits_or_is_refused_and_no_write_is_lost() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        for choice in [Choice::Best, Choice::UserOnly, Choice::Signal] {
            let scribble = Scribble::new(&[7; LEN], Policy::Wait, choice).unwrap();
            let full = scribble.protector.mode() == Mode::Full;
            scribble.start(seed).unwrap();
            until(&scribble, |written| {
                let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                read(&written.by_kernel) > 100_000 && (full || read(&written.refused) > 0)
            });
            let said = scribble.finish(0, true);
            println!("{said:?}");
            assert!(said.no_write_lost && said.kernel_was_patient());
            assert!(said.writes > said.kernel_writes);
            assert_eq!(full, said.kernel_refused == 0);
        }
    }

    #[test]
    fn so_little_that_only_one_has_something_to_write_to() {
        let scribble = Scribble::new(&[7; 5], Policy::Copy, Choice::Best).unwrap();
        scribble.start(1).unwrap();
        until(&scribble, |written| {
            written.by_kernel.load(Ordering::Relaxed) > 0
        });
        assert!(scribble.finish(0, true).no_write_lost);
    }

    #[test]
    fn a_write_that_is_lost_is_found() {
        let mut bytes = [7; LEN];
        let last = vec![Some(7); LEN / 2 + RUN];
        assert!((0..WRITERS).all(|index| has_kept(&bytes, index, &last)));
        for at in [0, RUN - 1, RUN, 4096, LEN - 1] {
            bytes[at] = 8;
            let owner = at / RUN % WRITERS;
            assert!(!has_kept(&bytes, owner, &last), "{at}");
            assert!(has_kept(&bytes, 1 - owner, &last), "{at}");
            bytes[at] = 7;
        }
    }
}
