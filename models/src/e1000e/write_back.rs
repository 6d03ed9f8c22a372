//! Descriptors that are done and not yet written back.

use std::collections::VecDeque;

use super::pace::Deadline;
use super::work::Work;

/// Nanoseconds (or steps, in thousands) that a write-back may be late.
const LATEST: u64 = 6_000;
/// Most bytes of a write-back: a packet split descriptor.
const LONGEST: usize = 32;
/// Most write-backs in a batch.
const LARGEST_BATCH: u64 = 8;

/// A write-back: some bytes of a descriptor.
#[derive(Clone, Copy, Debug)]
struct Pending {
    index: u32,
    /// Where in the ring the bytes go, from its base.
    place: u32,
    bytes: [u8; LONGEST],
    len: u8,
    deadline: Deadline,
    causes: u32,
}

/// The write-backs of a ring, in order.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    pending: VecDeque<Pending>,
    /// How many must wait before any is written ahead of its deadline.
    batch: usize,
}

/// What has become of the write-backs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Flushed {
    /// The descriptor that was written last.
    pub(super) last: Option<u32>,
    /// How many were written.
    pub(super) count: u64,
    /// The first one left waits only for time to pass.
    pub(super) waits: bool,
}

impl WriteBack {
    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Appends the write-back of descriptor `index`: `bytes` from byte `from` of it. `causes`
    /// are raised when it has been written.
    pub(super) fn push(
        &mut self,
        index: u32,
        from: u32,
        bytes: &[u8],
        causes: u32,
        work: &mut Work<'_>,
    ) {
        let late = work.latitude.late_write_back || work.latitude.batched_write_back;
        let nanos = if late { work.random.below(LATEST) } else { 0 };
        let mut kept = [0; LONGEST];
        let len = bytes.len().min(kept.len());
        for (target, byte) in kept.iter_mut().zip(bytes) {
            *target = *byte;
        }
        self.pending.push_back(Pending {
            index,
            place: index * super::bits::DESCRIPTOR + from,
            bytes: kept,
            len: len as u8,
            deadline: Deadline::after(&work.pace, nanos),
            causes,
        });
    }

    /// Writes what is due to the ring at `base`; what cannot be written is reported as `what`.
    pub(super) fn flush(&mut self, base: u64, what: &str, work: &mut Work<'_>) -> Flushed {
        let mut flushed = Flushed::default();
        let Some(first) = self.pending.front() else {
            return flushed;
        };
        let due = first.deadline.has_passed(&work.pace)
            || work.latitude.batched_write_back && self.pending.len() >= self.batch.max(1);
        if !due {
            flushed.waits = true;
            return flushed;
        }
        let batch = if work.latitude.batched_write_back {
            self.batch
        } else {
            1
        };
        while let Some(next) = self.pending.front() {
            if flushed.count as usize >= batch && !next.deadline.has_passed(&work.pace) {
                flushed.waits = true;
                break;
            }
            let Some(next) = self.pending.pop_front() else {
                break;
            };
            let bytes = next.bytes.get(..usize::from(next.len)).unwrap_or_default();
            let address = base.wrapping_add(u64::from(next.place));
            if let Err(fault) = work.bus.write(address, bytes) {
                let index = next.index;
                work.violations.report(format!(
                    "{what} descriptor {index}: its write-back to {:#x} is outside every mapping",
                    fault.address
                ));
            }
            work.causes |= next.causes;
            flushed.last = Some(next.index);
            flushed.count += 1;
        }
        if work.latitude.batched_write_back {
            self.batch = 1 + work.random.below(LARGEST_BATCH) as usize;
        }
        flushed
    }
}
