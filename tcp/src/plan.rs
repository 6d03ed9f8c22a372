//! The page budget (step 4b of the path of 1997): whether the pages of a segment fit the gather
//! list of the device.
//!
//! The rule of 1997 counted page crossings. That is one off: *c* crossings make *c* + 1 pieces,
//! and the header is one piece more. Here the pieces are counted as the device sees them
//! (rule 1): runs that are neighbours for the device are one, also across two slices of the
//! program, and what is longer than the longest fragment is split.
//!
//! A segment with too many pieces need not be copied whole. Its *beginning* is copied behind the
//! header, into the buffer that is the first fragment anyway, until the rest fits: a rescue. The
//! end of the segment could be copied as well, but would need a fragment of its own.
//!
//! # Whether that pays
//!
//! Measured by `examples/rescue.rs` on a Xeon at 2.8 GHz (2.5 MiB L2, 48 MiB L3): the whole path
//! of the CPU from `send` to `completion`, in ns per KiB of payload, the device doing the sums.
//! Hot / cold is where the payload is. The machine was not idle, so each figure is the least of
//! two runs; take the cold ones, and differences of a few percent, with care.
//!
//! | pieces of the data, and what fits | rescue | end the segment at a piece | copy all |
//! |---|---|---|---|
//! | 1500: 4 × 365, copies 365 | 391 / 490 | 396 / 440 | 353 / 480 |
//! | 1500: 100 + 1360, copies 100 | 270 / 430 | 342 / 450 | 260 / 350 |
//! | 1500: 948 + 512, copies 948 | 279 / 380 | 429 / 550 | 262 / 350 |
//! | 9000: 768 + 2 × 4096, copies 768 | 70 / 83 | 81 / 160 | 90 / 170 |
//! | 9000: 4 × 2240, copies 2240 | 80 / 160 | 73 / 81 | 99 / 240 |
//! | 9000: 8448 + 512, copies 8448 | 83 / 170 | 67 / 160 | 83 / 175 |
//!
//! With long segments a rescue beats the copy by a fifth when hot, by more when cold. With 1460
//! bytes it costs the CPU up to a tenth more than a copy of hot data: so does sharing itself
//! there (32 KiB slices: 166 / 167 shared, 122 / 213 copied), and like sharing it spares the
//! memory bus the second copy. Ending the segment at a piece wins only where the prefix is
//! long, and makes more and smaller packets of the same data, at every station on the way; it
//! loses a third where segments are short. So a rescue it is, down to
//! [`share_min`](Budget::share_min).

//! # Requests for segmentation
//!
//! A frame that the device cuts into segments (TSO) brings up to 64 KiB of payload, and there the
//! budget really binds: 64 KiB in pages of 4 KiB are 16 or 17 pieces, and small slices make
//! more. Too long a request is not copied, in whole or in part, but *ended* where the budget ends,
//! at a multiple of the segment length ([`request`]). That costs nothing on the wire: the device
//! would have cut there anyway, and the next request goes on from there. Only where not even one
//! segment fits is that segment planned by itself, as above.

use pagewire_hal::Run;

/// What one frame may have, and what its header takes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Fragments that one frame may gather, header included.
    pub max_fragments: usize,
    /// Longest fragment in bytes; 0 is taken as 1.
    pub max_fragment_len: usize,
    /// Bytes of Ethernet, IP and TCP header, before the payload in the first fragment.
    pub header_len: usize,
    /// Fewest bytes that must be left to share for a rescue; below, all is copied. 0 is taken
    /// as 1.
    pub share_min: usize,
}

/// How the payload of a segment gets to the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plan {
    /// All of it from the program's pages.
    Share,
    /// The first `prefix` bytes copied behind the header, the rest from the program's pages.
    Rescue {
        /// Bytes to copy: at least 1, fewer than the payload has.
        prefix: usize,
    },
    /// All of it copied behind the header.
    Copy(Reason),
}

/// Why a payload is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The device takes one fragment per frame.
    NoGather,
    /// Too many pieces, and too little would be left to share after a rescue.
    OverBudget,
    /// The frame is shorter than the device takes, and padding must follow the payload.
    TooShort,
    /// The bytes can change at any moment, and the CPU has to sum them.
    Live,
}

impl Budget {
    /// Fragments that `len` contiguous bytes make. Almost always one, without a division.
    #[inline]
    fn fragments(&self, len: usize) -> usize {
        if len <= self.max_fragment_len {
            usize::from(len > 0)
        } else {
            len.div_ceil(self.max_fragment_len.max(1))
        }
    }
}

/// Decides how a payload goes, from its runs in order (see
/// [`Translation::runs`](pagewire_hal::Translation::runs)); neighbouring runs are merged here.
///
/// The result is [`Plan::Share`] if the pieces fit beside the header; else the *shortest* prefix
/// that, copied behind the header, lets the rest fit, if at least
/// [`share_min`](Budget::share_min) bytes are left to share; else a copy. The header may take
/// more than one fragment (a longest fragment shorter than the header), and a longer prefix may
/// make it so.
#[inline]
pub fn plan<I>(budget: &Budget, runs: I) -> Plan
where
    I: Iterator<Item = Run> + Clone,
{
    if budget.max_fragments < 2 {
        return Plan::Copy(Reason::NoGather);
    }
    let mut pieces = 0;
    let mut len = 0;
    for run in Merged::new(runs.clone()) {
        pieces += budget.fragments(run.len);
        len += run.len;
    }
    if budget.fragments(budget.header_len) + pieces <= budget.max_fragments {
        return Plan::Share;
    }
    rescue(budget, Merged::new(runs), pieces, len)
}

/// The shortest prefix that is worth its copy.
///
/// The rest of a run is fewest pieces for its length when it is a multiple of the longest
/// fragment, so only prefixes that leave such a rest, or end a run, are looked at: each has one
/// piece fewer behind it than the one before.
fn rescue<I>(budget: &Budget, runs: Merged<I>, mut pieces: usize, len: usize) -> Plan
where
    I: Iterator<Item = Run>,
{
    let max = budget.max_fragment_len.max(1);
    let mut before = 0;
    for run in runs {
        let mut left = budget.fragments(run.len);
        while left > 0 {
            left -= 1;
            pieces -= 1;
            let prefix = before + (run.len - left * max);
            if len - prefix < budget.share_min.max(1) {
                return Plan::Copy(Reason::OverBudget);
            }
            if budget.fragments(budget.header_len + prefix) + pieces <= budget.max_fragments {
                return Plan::Rescue { prefix };
            }
        }
        before += run.len;
    }
    Plan::Copy(Reason::OverBudget)
}

/// How much of a request for segmentation one frame can gather.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// All of it.
    Whole,
    /// Only its beginning.
    Ended {
        /// Bytes: the longest multiple of the segment length whose pieces fit. 0 if not even one
        /// segment does.
        len: usize,
    },
}

/// Decides how far a request goes, from the runs of what might go, in order; neighbouring runs
/// are merged here. `segment_len` is the payload of each segment in bytes; 0 is taken as 1.
///
/// Nothing is copied: the pieces of what is left fit the device's gather list behind the header.
#[inline]
pub fn request<I>(budget: &Budget, segment_len: usize, runs: I) -> Request
where
    I: Iterator<Item = Run>,
{
    let header = budget.fragments(budget.header_len);
    let mut left = budget.max_fragments.saturating_sub(header);
    let mut len = 0;
    for run in Merged::new(runs) {
        let pieces = budget.fragments(run.len);
        if pieces > left {
            // Less than the run, or it would have made fewer pieces.
            len += left * budget.max_fragment_len.max(1);
            return Request::Ended {
                len: len - len % segment_len.max(1),
            };
        }
        left -= pieces;
        len += run.len;
    }
    Request::Whole
}

/// Joins runs that are neighbours for the device.
#[derive(Clone, Debug)]
struct Merged<I> {
    runs: I,
    held: Option<Run>,
}

impl<I: Iterator<Item = Run>> Merged<I> {
    #[inline]
    fn new(mut runs: I) -> Self {
        let held = runs.next();
        Self { runs, held }
    }
}

impl<I: Iterator<Item = Run>> Iterator for Merged<I> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        let mut run = self.held.take()?;
        for next in self.runs.by_ref() {
            if run.address.0.checked_add(run.len as u64) != Some(next.address.0) {
                self.held = Some(next);
                break;
            }
            run.len += next.len;
        }
        Some(run)
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
