//! Descriptors that are done and not yet written back.

use std::collections::VecDeque;

use super::pace::Deadline;
use super::work::Work;

/// Nanoseconds (or steps, in thousands) that a write-back may be late.
const LATEST: u64 = 6_000;
/// Most write-backs in a batch.
const LARGEST_BATCH: u64 = 8;

/// A descriptor that is to be written back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    /// Its number in the ring.
    pub(super) index: u32,
    /// What it holds then.
    pub(super) bytes: [u8; 16],
    deadline: Deadline,
}

/// The write-backs of a ring, in order.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    pending: VecDeque<Pending>,
    /// How many must wait before any is written ahead of its deadline.
    batch: usize,
}

impl WriteBack {
    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Appends the write-back of descriptor `index`.
    pub(super) fn push(&mut self, index: u32, bytes: [u8; 16], work: &mut Work<'_>) {
        let late = work.latitude.late_write_back || work.latitude.batched_write_back;
        let nanos = if late { work.random.below(LATEST) } else { 0 };
        self.pending.push_back(Pending {
            index,
            bytes,
            deadline: Deadline::after(&work.pace, nanos),
        });
    }

    /// The next write-back that is due now. When the first one is, a batch of others goes along.
    pub(super) fn next(&mut self, done: &mut usize, work: &mut Work<'_>) -> Option<Pending> {
        let batched = work.latitude.batched_write_back;
        let next = self.pending.front()?;
        let due = next.deadline.has_passed(&work.pace)
            || batched && *done > 0 && *done < self.batch
            || batched && *done == 0 && self.pending.len() >= self.batch.max(1);
        if !due {
            return None;
        }
        if *done == 0 && batched {
            self.batch = 1 + work.random.below(LARGEST_BATCH) as usize;
        }
        *done += 1;
        self.pending.pop_front()
    }
}
