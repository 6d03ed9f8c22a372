//! Who keeps bytes as they are while they are lent: nobody needs to, a watcher, or nobody can.

use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;

use crate::{FixedBytes, Granule};

/// How the bytes of a region are kept as they are while they are lent.
#[derive(Clone, Copy)]
pub enum Sharing<'a> {
    /// They cannot change: moved in, immutable and shared, or sealed.
    Owned,
    /// They can change whenever they are not lent, and somebody sees to it that they do not while
    /// they are.
    Watched(&'a dyn Watch),
    /// They can change at any moment, lent or not, and can become shorter: a file of which others
    /// write. What is sent is whatever is there when the device reads it, a retransmission may
    /// differ from the first transmission. Nothing reads them but the device and
    /// [`Live::copy_to`].
    Live(&'a dyn Live),
}

impl fmt::Debug for Sharing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owned => "Owned",
            Self::Watched(_) => "Watched",
            Self::Live(_) => "Live",
        })
    }
}

/// Sees to it that bytes do not change while they are lent. Told by a
/// [`Ledger`](crate::Ledger) of pages that begin to be lent and that are lent no more; several
/// ledgers may lend the same pages.
///
/// # Safety
/// From the return of [`lend`](Self::lend) with `Ok` until as many calls of
/// [`release`](Self::release) for the same page, none of the bytes of those pages that were
/// initialised then changes where the region has them, for the device and for the CPU. If they are
/// never released, that stays so for ever.
pub unsafe trait Watch: Send + Sync {
    /// What is lent by itself: ranges begin and end at multiples of it, counted from an address
    /// that is one, or where the region does. The ledger counts the region's pages in this or in
    /// its own unit, whichever is longer.
    fn page(&self) -> Granule;

    /// Pages begin to be lent: all that touch this range of offsets into the region.
    ///
    /// # Errors
    /// [`Refused`]: nothing of them is lent, and the bytes are to be copied.
    fn lend(&self, range: Range<usize>) -> Result<(), Refused>;

    /// Pages are lent no more, by the one who asks. Ranges need not be cut as they were when they
    /// were lent.
    ///
    /// # Safety
    /// The caller has lent each of these pages, and not released it as often.
    unsafe fn release(&self, range: Range<usize>);

    /// Fills `into` with the bytes from offset `start` on as they are now, lent or not.
    ///
    /// # Errors
    /// [`Refused::OutOfRange`], or [`Refused::Unavailable`].
    fn copy_to(&self, start: usize, into: &mut [u8]) -> Result<(), Refused>;

    /// Whether the program has other bytes by now than those that are lent, at any of these offsets:
    /// then they are not lent once more, as whoever lends bytes means those of this moment.
    fn is_outdated(&self, range: Range<usize>) -> bool {
        let _ = range;
        false
    }

    /// Whether somebody may be waiting to write to what is lent. Costs next to nothing.
    fn has_wanted(&self) -> bool {
        false
    }

    /// Calls `each` for the ranges that are lent and that somebody waits to write to: whoever can
    /// give them back sooner is asked to.
    fn wanted(&self, each: &mut dyn FnMut(Range<usize>)) {
        let _ = each;
    }

    /// The first of these bytes in a row that are lent and that somebody waits to write to, of those
    /// that [`wanted`](Self::wanted) tells: whoever lends them once more lets him wait for longer.
    /// Costs next to nothing where nobody waits.
    fn first_wanted(&self, range: Range<usize>) -> Option<Range<usize>> {
        if !self.has_wanted() {
            return None;
        }
        let mut first: Option<Range<usize>> = None;
        self.wanted(&mut |run| {
            let run = run.start.max(range.start)..run.end.min(range.end);
            let sooner = |first: &Range<usize>| run.start < first.start;
            if !run.is_empty() && first.as_ref().is_none_or(sooner) {
                first = Some(run);
            }
        });
        first
    }
}

/// Bytes that may change and vanish at any moment.
pub trait Live: Send + Sync {
    /// Fills `into` with the bytes that are at offset `start` now. What is not there any more is
    /// zero.
    fn copy_to(&self, start: usize, into: &mut [u8]);
}

/// Why pages were not lent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// The range does not lie in the region, or not in what can be lent of it.
    OutOfRange,
    /// The program has other bytes than those that are lent of a page; when they are lent no more,
    /// the new ones can be.
    Busy,
    /// As many bytes are lent as may be.
    OverLimit,
    /// Nobody can keep the bytes as they are: who did is gone, or the system has refused.
    Unavailable,
    /// More loans than can be counted.
    TooMany,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfRange => "the range cannot be lent",
            Self::Busy => "older bytes of a page are lent still",
            Self::OverLimit => "as many bytes are lent as may be",
            Self::Unavailable => "nobody keeps the bytes from being changed",
            Self::TooMany => "too many loans",
        })
    }
}

impl core::error::Error for Refused {}

/// Memory that a platform can map for a device and make a [`Region`](crate::Region) of.
///
/// # Safety
/// [`base`](Self::base) is valid for reads of [`len`](Self::len) initialised bytes (at most
/// `isize::MAX`), on any thread, until the value is dropped; both stay the same, also when the
/// value is moved *after* the platform has put it where it stays (on the heap). Only of what is
/// [`Live`](Sharing::Live) may reads fail, with a signal or another fault of the system.
/// [`sharing`](Self::sharing) is always the same kind, and true.
pub unsafe trait Lendable: Send + Sync + 'static {
    /// First byte.
    fn base(&self) -> NonNull<u8>;
    /// Bytes.
    fn len(&self) -> usize;
    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Who keeps the bytes as they are while they are lent.
    fn sharing(&self) -> Sharing<'_>;
}

// SAFETY: `FixedBytes` promises the same memory each time, valid as long as the value exists, and
// that no byte changes while nobody has `&mut` to it: so nobody needs to keep them.
unsafe impl<B: FixedBytes> Lendable for B {
    fn base(&self) -> NonNull<u8> {
        NonNull::from(self.bytes()).cast()
    }

    fn len(&self) -> usize {
        self.bytes().len()
    }

    fn sharing(&self) -> Sharing<'_> {
        Sharing::Owned
    }
}
