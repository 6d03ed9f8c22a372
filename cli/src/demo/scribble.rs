//! `demo --scribble`: the input lies in memory that threads go on writing to while it is sent.
//!
//! Each page is protected while it is lent: whoever writes to it sleeps. What the receiver gets is
//! what was there when each call of `send` returned, of which a digest is made then, and no write is
//! lost: at the end each byte is what was written there last.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use clap::ValueEnum;
use pagewire::tcp::{CopyRule, OnWrite, SendOptions, Slice};
use pagewire_vfio::protect::{Arena, Buffer, Choice, Mode, Protector};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Failure;

/// Threads that write.
const WRITERS: usize = 2;

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

/// The input, and those who write to it.
pub(crate) struct Scribble {
    policy: Policy,
    protector: Protector,
    pub(crate) arena: Arena,
    buffer: Buffer,
    stop: AtomicBool,
    writes: AtomicU64,
    writers: Mutex<Vec<JoinHandle<Vec<Option<u8>>>>>,
}

/// A place in the buffer, for another thread.
struct Place(*mut u8);

// SAFETY: a number; who uses it says why he may.
unsafe impl Send for Place {}

impl Scribble {
    /// Memory with these bytes in it.
    pub(crate) fn new(bytes: &[u8], policy: Policy) -> Result<Arc<Self>, Failure> {
        let failed = |error| Failure::usage(format!("--scribble: {error}"));
        let protector = Protector::open(Choice::Best).map_err(failed)?;
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
            writes: AtomicU64::new(0),
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
            let random = fastrand::Rng::with_seed(seed ^ index as u64);
            let writer = std::thread::Builder::new()
                .name("scribbler".into())
                .spawn(move || scribble.write(&place, index, random))
                .map_err(|error| failed(&error))?;
            writers.push(writer);
        }
        Ok(())
    }

    /// Writes to the bytes whose offsets are `index` modulo the number of writers; returns what was
    /// written there last.
    fn write(&self, place: &Place, index: usize, mut random: fastrand::Rng) -> Vec<Option<u8>> {
        let own = (self.buffer.len() + WRITERS - 1 - index) / WRITERS;
        let mut last = vec![None; own];
        while !self.stop.load(Ordering::Relaxed) && own > 0 {
            let at = random.usize(..own);
            let value = random.u8(..);
            // SAFETY: the offset is less than the length of the buffer, which `self` keeps. No slice
            // of it is in use before all writers have ended: what is lent is read elsewhere.
            unsafe {
                place
                    .0
                    .wrapping_add(at * WRITERS + index)
                    .write_volatile(value)
            };
            if let Some(last) = last.get_mut(at) {
                *last = Some(value);
            }
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        last
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
            let Ok(last) = last else {
                no_write_lost = false;
                continue;
            };
            let own = bytes.iter().skip(index).step_by(WRITERS);
            let kept = |(now, last): (&u8, &Option<u8>)| last.is_none_or(|last| last == *now);
            no_write_lost &= own.zip(&last).all(kept);
        }
        let counters = self.protector.counters();
        Scribbling {
            policy: self.policy,
            mode: match self.protector.mode() {
                Mode::Full => "full",
                Mode::UserOnly => "user mode only",
                Mode::Signal => "signal",
            },
            writes: self.writes.load(Ordering::Relaxed),
            faults: counters.faults,
            waits: counters.waits,
            moved,
            protects: counters.protects,
            no_write_lost,
        }
    }
}
