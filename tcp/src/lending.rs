//! How the bytes of a call of `send` are borrowed: lent where that pays, copied where it does not or
//! cannot be.

use core::time::Duration;

use pagewire_hal::{DmaMemory, Granule, Ledger, LendError, Loan, Sharing};

use crate::plan::Reason;
use crate::send_buffer::Slice;
use crate::share::Copier;

/// What a call of [`Stack::send_with`](crate::Stack::send_with) wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct SendOptions {
    /// What happens to bytes that somebody wants to write over while they are lent.
    pub on_write: OnWrite,
    /// Which bytes are copied at once.
    pub copy: CopyRule,
    /// Keep an account of the call, see [`Stack::explained`](crate::Stack::explained).
    pub explain: bool,
}

/// What happens when somebody wants to write to memory whose bytes are lent, and that has a watcher
/// ([`Watch`](pagewire_hal::Watch)): he sleeps until none of the page is lent, if his thread may.
/// What is sent of the page meanwhile is copied to the copy pool instead of lent, or he might sleep for
/// ever; where that cannot be, see [`CopyRule`], who lends a page again and again before earlier loans
/// of it are over keeps him waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnWrite {
    /// They stay lent until they are acknowledged: the writer waits for the peer.
    #[default]
    Wait,
    /// The next poll moves what is not acknowledged to the copy pool, if there is one with room
    /// ([`StackConfig::copy_limit`](crate::StackConfig::copy_limit)): the writer waits for that poll
    /// and for frames that are in the ring, and not for the peer. While such loans are out, polls
    /// name a time that is no more than a millisecond away.
    MoveAway,
}

/// Which bytes are copied to the copy pool ([`Stack::set_copy_pool`](crate::Stack::set_copy_pool))
/// at the call, instead of being lent. Without a pool none is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CopyRule {
    /// Slices below the threshold of their kind ([`Thresholds`]), what is beyond the limit of the
    /// connection, and pages that somebody waits to write to (lent once more if the pool is full of
    /// what other connections have).
    #[default]
    BelowThreshold,
    /// Only what cannot be lent, whatever the limit of the connection and whoever waits.
    Never,
    /// All.
    Always,
}

/// Slices that are shorter than this many bytes are copied rather than lent, by the kind of their
/// memory. `pagewire bench sharing` measures them on a machine; `docs/sharing.md` has the figures
/// that the defaults come from. For owned memory the whole sender spends less on lending than on
/// copying from 128 bytes on, the shortest measured, hot or cold (`cargo run -p pagewire-benches --bin
/// sender -- --only ixgbe time`); the default is twice that, as the device fetches each piece by itself,
/// which nothing here measures. That for watched memory is for a program that writes to one page of
/// a buffer between two sends; for one that writes to all of them it is `usize::MAX`, for one that
/// writes to none 256.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thresholds {
    /// Memory that cannot change: lending is a count.
    pub owned: usize,
    /// Memory with a watcher: lending may be a system call, and a fault of the next writer.
    pub watched: usize,
    /// Files as they are at the moment: lending is a count.
    pub live: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            owned: 256,
            watched: 128 << 10,
            live: 256,
        }
    }
}

impl Thresholds {
    const fn of(&self, sharing: Sharing<'_>) -> usize {
        match sharing {
            Sharing::Owned => self.owned,
            Sharing::Watched(_) => self.watched,
            Sharing::Live(_) => self.live,
        }
    }
}

/// Why bytes were copied before they were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Early {
    Asked,
    BelowThreshold,
    OverLimit,
    Refused,
    Wanted,
    Written,
}

/// Bytes that were copied before they were sent, by the reason. They are sent from the copy pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CopiedEarly {
    /// The call wanted it so.
    pub asked: u64,
    /// Slices that were too short.
    pub below_threshold: u64,
    /// The connection had as much lent as it may.
    pub over_limit: u64,
    /// Nobody could keep them as they are.
    pub refused: u64,
    /// Somebody had tried already to write to their page, which was lent by an earlier call: he waits,
    /// or has another page meanwhile.
    pub wanted: u64,
    /// They were lent, and somebody wanted to write over them.
    pub written: u64,
}

impl CopiedEarly {
    pub(crate) const fn add(&mut self, why: Early, bytes: usize) {
        let counter = match why {
            Early::Asked => &mut self.asked,
            Early::BelowThreshold => &mut self.below_threshold,
            Early::OverLimit => &mut self.over_limit,
            Early::Refused => &mut self.refused,
            Early::Wanted => &mut self.wanted,
            Early::Written => &mut self.written,
        };
        *counter += bytes as u64;
    }

    pub(crate) const fn join(&mut self, other: &Self) {
        self.asked += other.asked;
        self.below_threshold += other.below_threshold;
        self.over_limit += other.over_limit;
        self.refused += other.refused;
        self.wanted += other.wanted;
        self.written += other.written;
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        let at_the_call = self.asked + self.below_threshold + self.over_limit;
        at_the_call + self.refused + self.wanted + self.written
    }
}

/// Which way the bytes of a call went, and why. What is sent again counts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Explanation {
    /// Bytes that were lent by the call.
    pub lent: u64,
    /// Bytes that were copied to the copy pool, at the call or later.
    pub copied_early: CopiedEarly,
    /// Frames posted that carried some of them.
    pub frames: u64,
    /// Pieces of these frames, those of headers and of other calls included.
    pub fragments: u64,
    /// Bytes posted that the device fetched from where they were lent.
    pub shared: u64,
    /// Bytes posted from the copy pool.
    pub from_pool: u64,
    /// Bytes posted in frames that had to be copied: the device takes one fragment per frame, …
    pub no_gather: u64,
    /// … or their pieces were too many (only the beginning of some is copied), …
    pub over_budget: u64,
    /// … or the frame was too short, …
    pub too_short: u64,
    /// … or nobody but the CPU could sum them, and they might change meanwhile.
    pub live: u64,
    /// From the call until none of its bytes was needed any more.
    pub held: Duration,
}

impl Explanation {
    pub(crate) const fn add_copied(&mut self, reason: Reason, bytes: usize) {
        let counter = match reason {
            Reason::NoGather => &mut self.no_gather,
            Reason::OverBudget => &mut self.over_budget,
            Reason::TooShort => &mut self.too_short,
            Reason::Live => &mut self.live,
        };
        *counter += bytes as u64;
    }

    /// Adds that of another call; `held` is the longest.
    pub fn join(&mut self, other: &Self) {
        self.lent += other.lent;
        self.copied_early.join(&other.copied_early);
        self.frames += other.frames;
        self.fragments += other.fragments;
        self.shared += other.shared;
        self.from_pool += other.from_pool;
        self.no_gather += other.no_gather;
        self.over_budget += other.over_budget;
        self.too_short += other.too_short;
        self.live += other.live;
        self.held = self.held.max(other.held);
    }
}

/// How bytes were borrowed.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) loan: Loan,
    /// Why they are a copy, if they are, and the size of the slots that they are in.
    pub(crate) copied: Option<(Early, Granule)>,
}

/// Whether somebody waits to write to the first of `len` bytes of a slice, and for how many that is
/// so.
fn wanted(ledger: &Ledger, slice: &Slice, len: usize) -> (bool, usize) {
    let start = slice.start;
    match ledger.first_wanted(slice.region, start..start.saturating_add(len)) {
        Some(first) if first.start > start => (false, first.start - start),
        Some(first) => (true, first.len()),
        None => (false, len),
    }
}

/// Borrows for one call.
pub(crate) struct Lender<'a, M: DmaMemory> {
    pub(crate) ledger: &'a mut Ledger,
    /// The copy pool, if there is one.
    pub(crate) copier: Option<Copier<'a, M>>,
    pub(crate) thresholds: Thresholds,
    pub(crate) rule: CopyRule,
    /// Bytes that the connection may still have lent.
    pub(crate) room: usize,
}

impl<M: DmaMemory> Lender<'_, M> {
    /// Borrows the first of up to `len` bytes of the rest of a slice that had `whole` when the call
    /// began. `None`: there is no room now.
    #[inline]
    pub(crate) fn take(
        &mut self,
        slice: &Slice,
        whole: usize,
        len: usize,
    ) -> Result<Option<Taken>, LendError> {
        // Without a pool nobody is asked anything: this is the way of every slice.
        let (why, len) = match self.copier {
            Some(_) => self.why_not(slice, whole, len)?,
            None => (None, len),
        };
        if let Some(why) = why {
            let copied = self.copy(slice, len, why)?;
            if copied.is_some() || !self.may_be_lent(slice, why) {
                return Ok(copied);
            }
        }
        match self.ledger.lend(slice.region, slice.start, len) {
            Ok(loan) => {
                self.room = self.room.saturating_sub(len);
                Ok(Some(Taken { loan, copied: None }))
            }
            Err(LendError::Refused(_)) if self.copier.is_some() => {
                self.copy(slice, len, Early::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Why the first bytes of a slice are not to be lent, and for how many of `len` that is so.
    fn why_not(
        &self,
        slice: &Slice,
        whole: usize,
        len: usize,
    ) -> Result<(Option<Early>, usize), LendError> {
        let sharing = self.ledger.sharing(slice.region);
        let sharing = sharing.ok_or(LendError::UnknownRegion)?;
        match self.rule {
            CopyRule::Always => return Ok((Some(Early::Asked), len)),
            CopyRule::Never => return Ok((None, len)),
            CopyRule::BelowThreshold => {}
        }
        let (wanted, len) = match sharing {
            Sharing::Watched(_) => wanted(self.ledger, slice, len),
            Sharing::Owned | Sharing::Live(_) => (false, len),
        };
        let why = if wanted {
            Some(Early::Wanted)
        } else if whole < self.thresholds.of(sharing) {
            Some(Early::BelowThreshold)
        } else if slice.len > self.room {
            Some(Early::OverLimit)
        } else {
            None
        };
        Ok((why, len))
    }

    /// Whether a slice that was not to be lent is lent, as the pool is full, or the connection has
    /// as much of it as it may.
    fn may_be_lent(&self, slice: &Slice, why: Early) -> bool {
        match why {
            // Costs more, but waits for nobody.
            Early::BelowThreshold => slice.len <= self.room,
            // Room comes as the peer acknowledges what is copied, if something is: else nobody knows
            // when.
            Early::Wanted => {
                let waits = self.copier.as_ref().is_some_and(Copier::has_some);
                !waits && slice.len <= self.room
            }
            _ => false,
        }
    }

    fn copy(&mut self, slice: &Slice, len: usize, why: Early) -> Result<Option<Taken>, LendError> {
        let Some(copier) = &mut self.copier else {
            return Ok(None);
        };
        let slot = copier.slot();
        let fill =
            |ledger: &Ledger, bytes: &mut [u8]| ledger.copy_now(slice.region, slice.start, bytes);
        let copied = copier.copy(self.ledger, len, fill)?;
        Ok(copied.map(|loan| Taken {
            loan,
            copied: Some((why, slot)),
        }))
    }
}
