//! The half of the ledger that waits for acknowledgments: what the program handed in, as loans
//! in the order of the stream.
//!
//! Positions count in the stream of one direction of a connection, in 64 bits, so that they
//! never wrap: the SYN is at 0, the first byte of data at 1, the FIN behind the last.
//!
//! A loan of a connection is trimmed as bytes are acknowledged *cumulatively* and given back
//! when nothing is left of it; what a SACK says releases nothing, as the peer may take it back
//! (RFC 2018 section 8). What the device still reads has loans of its own in the port: that is
//! rule 2, "done is not acknowledged, acknowledged is not done".

use alloc::collections::{VecDeque, vec_deque};

use pagewire_hal::{Ledger, LendError, Loan, RegionId};

/// A range of a registered region, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// The region, see [`Stack::register`](crate::Stack::register).
    pub region: RegionId,
    /// First byte, as an offset into the region.
    pub start: usize,
    /// Bytes; slices of none are skipped.
    pub len: usize,
}

/// The end of a call of [`Stack::send`](crate::Stack::send): none of its bytes is needed any
/// more, by TCP or by the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// As given to `send`.
    pub tag: u64,
    /// Bytes that `send` accepted.
    pub bytes: usize,
    /// What became of them.
    pub outcome: Outcome,
}

/// What became of the bytes of a call of [`Stack::send`](crate::Stack::send).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The peer acknowledged all of them.
    Delivered,
    /// The connection ended before; the peer may have received some of them.
    Aborted,
}

/// An accepted slice: the loan of what is not acknowledged of it.
#[derive(Debug)]
struct Accepted {
    loan: Loan,
    /// Position behind its last byte.
    end: u64,
}

#[derive(Debug)]
struct Call {
    tag: u64,
    bytes: usize,
    /// Position behind its last byte.
    end: u64,
    outcome: Outcome,
}

/// A piece of the stream: `len` bytes from offset `start` of the region of `loan`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) loan: &'a Loan,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// The stream as far as it is accepted and not acknowledged.
#[derive(Debug)]
pub(crate) struct SendBuffer {
    slices: VecDeque<Accepted>,
    calls: VecDeque<Call>,
    /// Position of the first byte that is not acknowledged.
    start: u64,
    /// Position behind the last byte accepted.
    end: u64,
}

impl SendBuffer {
    pub(crate) const fn new() -> Self {
        Self {
            slices: VecDeque::new(),
            calls: VecDeque::new(),
            start: 1,
            end: 1,
        }
    }

    /// Position behind the last byte accepted.
    #[inline]
    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    /// Bytes accepted and not acknowledged.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Borrows up to `limit` bytes of `slices`, in order, and returns how many. If the last
    /// slice taken is taken in part, the rest of it is not accepted.
    ///
    /// An error in any slice up to there undoes the whole call: no loan is left.
    pub(crate) fn accept(
        &mut self,
        ledger: &mut Ledger,
        slices: &[Slice],
        tag: u64,
        limit: usize,
    ) -> Result<usize, LendError> {
        let before = self.slices.len();
        let mut end = self.end;
        let mut left = limit;
        for slice in slices.iter().filter(|slice| slice.len > 0) {
            if left == 0 {
                break;
            }
            let len = slice.len.min(left);
            match ledger.lend(slice.region, slice.start, len) {
                Ok(loan) => {
                    end += len as u64;
                    left -= len;
                    self.slices.push_back(Accepted { loan, end });
                }
                Err(error) => {
                    for undone in self.slices.drain(before..) {
                        ledger.give_back(undone.loan);
                    }
                    return Err(error);
                }
            }
        }
        let bytes = (end - self.end) as usize;
        self.end = end;
        if bytes > 0 {
            self.calls.push_back(Call {
                tag,
                bytes,
                end,
                outcome: Outcome::Delivered,
            });
        }
        Ok(bytes)
    }

    /// Gives back what lies before `position`, which the peer has acknowledged cumulatively.
    pub(crate) fn acknowledge(&mut self, ledger: &mut Ledger, position: u64) {
        let position = position.clamp(self.start, self.end);
        while self.slices.front().is_some_and(|s| s.end <= position) {
            if let Some(slice) = self.slices.pop_front() {
                ledger.give_back(slice.loan);
            }
        }
        if let Some(slice) = self.slices.front_mut() {
            let left = (slice.end - position) as usize;
            let done = slice.loan.len().saturating_sub(left);
            if done > 0 {
                ledger.trim_front(&mut slice.loan, done);
            }
        }
        self.start = position;
    }

    /// The parts of `len` bytes from `position`; they end where the buffer does.
    #[inline]
    pub(crate) fn parts(&self, position: u64, len: usize) -> Parts<'_> {
        let first = self.slices.partition_point(|slice| slice.end <= position);
        let mut slices = self.slices.range(first..);
        Parts {
            slice: slices.next(),
            behind: slices,
            position,
            left: len,
        }
    }

    /// Gives everything back; calls that were not acknowledged are now aborted.
    pub(crate) fn abort(&mut self, ledger: &mut Ledger) {
        for slice in self.slices.drain(..) {
            ledger.give_back(slice.loan);
        }
        for call in self.calls.iter_mut().rev() {
            if call.end <= self.start {
                break;
            }
            call.outcome = Outcome::Aborted;
        }
        self.start = self.end;
    }

    /// The next call that is over: acknowledged or aborted, and all before `unread`, which is
    /// where the device's reading begins.
    pub(crate) fn completion(&mut self, unread: u64) -> Option<Completion> {
        let over = self.start.min(unread);
        let call = self.calls.front().filter(|call| call.end <= over)?;
        let completion = Completion {
            tag: call.tag,
            bytes: call.bytes,
            outcome: call.outcome,
        };
        self.calls.pop_front();
        Some(completion)
    }

    /// Whether calls are left whose completion has not been taken.
    pub(crate) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }
}

/// Iterator over the parts of a range of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'a> {
    /// The slice in which the rest begins.
    slice: Option<&'a Accepted>,
    behind: vec_deque::Iter<'a, Accepted>,
    position: u64,
    left: usize,
}

impl Parts<'_> {
    /// Only the first `len` bytes.
    #[inline]
    pub(crate) fn take_bytes(mut self, len: usize) -> Self {
        self.left = self.left.min(len);
        self
    }

    /// Without the first `len` bytes.
    #[inline]
    pub(crate) fn skip_bytes(mut self, len: usize) -> Self {
        let len = len.min(self.left);
        self.left -= len;
        self.move_on(len);
        self
    }

    #[inline]
    fn move_on(&mut self, len: usize) {
        self.position += len as u64;
        while self.slice.is_some_and(|slice| slice.end <= self.position) {
            self.slice = self.behind.next();
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    #[inline]
    fn next(&mut self) -> Option<Part<'a>> {
        if self.left == 0 {
            return None;
        }
        let slice = self.slice?;
        // From the end, as the front of the loan moves with acknowledgments.
        let behind = usize::try_from(slice.end.checked_sub(self.position)?).ok()?;
        let start = slice.loan.range().end.checked_sub(behind)?;
        let len = behind.min(self.left);
        self.left -= len;
        self.move_on(len);
        Some(Part {
            loan: &slice.loan,
            start,
            len,
        })
    }
}
