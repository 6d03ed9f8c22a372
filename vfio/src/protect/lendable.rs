//! What the hardware layer's ledgers ask of memory that is watched.

use std::ops::Range;
use std::ptr::NonNull;

use pagewire_hal::{Granule, Lendable, Refused, Sharing, Watch};

use super::memory::Memory;
use super::{Arena, MappedMemory, ProtectError, Registered};

impl From<ProtectError> for Refused {
    fn from(error: ProtectError) -> Self {
        match error {
            ProtectError::Away => Self::Busy,
            ProtectError::OverLimit => Self::OverLimit,
            ProtectError::TooMany => Self::TooMany,
            ProtectError::OutOfRange => Self::OutOfRange,
            error => {
                log::debug!("nothing is lent: {error}");
                Self::Unavailable
            }
        }
    }
}

impl Memory {
    fn check(&self, range: &Range<usize>) -> Result<(), Refused> {
        if range.start <= range.end && range.end <= self.watch.twin().len() {
            Ok(())
        } else {
            Err(Refused::OutOfRange)
        }
    }
}

// SAFETY: where the memory is lent from nobody can write (or it is where the program writes, see
// `MappedMemory`). Where the program has the same pages, they are protected from the moment `lend` returns until as many releases, also when the handler has died,
// or others are in their place there; what those have goes to the lent page only when it is lent no
// more. Each page has its own count. What is never released keeps its page as it is, for `Memory`
// goes with the last share of it, of which the region has one.
unsafe impl Watch for Memory {
    fn page(&self) -> Granule {
        // The page of every system, and a huge one, is a power of two.
        Granule::from_bytes(self.watch.page()).unwrap_or(Granule::CONTIGUOUS)
    }

    fn lend(&self, range: Range<usize>) -> Result<(), Refused> {
        self.check(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        Ok(self.watch.lend(self.protector.shared(), &range)?)
    }

    unsafe fn release(&self, range: Range<usize>) {
        if self.check(&range).is_ok() && !range.is_empty() {
            Memory::release(self, &range);
        } else {
            log::error!("{range:?} was never lent");
        }
    }

    fn copy_to(&self, start: usize, into: &mut [u8]) -> Result<(), Refused> {
        let end = start.checked_add(into.len()).ok_or(Refused::OutOfRange)?;
        self.check(&(start..end))?;
        // Where the program has a slice to write to it must not be read, so it is read where it is
        // lent from, which nobody has for writing. Only pages of which the program has others have
        // to be read there: those are of the thread that polls, which is the one that asks.
        let from = if !into.is_empty() && self.watch.is_away(&(start..end)) {
            // SAFETY: the range lies in the memory.
            unsafe { self.at(start) }
        } else {
            // SAFETY: as above.
            unsafe { self.lent_at(start) }
        };
        // SAFETY: as above; these bytes are initialised and stay there as long as `self`.
        unsafe { copy_volatile(from, into) };
        Ok(())
    }

    fn is_outdated(&self, range: Range<usize>) -> bool {
        self.check(&range).is_ok() && !range.is_empty() && self.watch.is_outdated(&range)
    }

    fn first_wanted(&self, range: Range<usize>) -> Option<Range<usize>> {
        self.watch.first_wanted(&range)
    }

    fn has_wanted(&self) -> bool {
        self.watch.has_wanted()
    }

    fn wanted(&self, each: &mut dyn FnMut(Range<usize>)) {
        self.watch.wanted(each);
    }
}

/// Copies bytes that others may write meanwhile: of each word what it was before or after.
///
/// # Safety
/// As many initialised bytes as `into` has can be read there.
unsafe fn copy_volatile(from: NonNull<u8>, into: &mut [u8]) {
    const WORD: usize = size_of::<u64>();
    let lead = from.align_offset(WORD).min(into.len());
    let (first, rest) = into.split_at_mut(lead);
    let (words, last) = rest.as_chunks_mut::<WORD>();
    let mut place = from.as_ptr().cast_const();
    let bytes = |bytes: &mut [u8], place: &mut *const u8| {
        for byte in bytes {
            // SAFETY: the caller's promise.
            *byte = unsafe { place.read_volatile() };
            *place = place.wrapping_add(1);
        }
    };
    bytes(first, &mut place);
    for word in words {
        // SAFETY: as above; it is aligned, as `lead` bytes are before it.
        *word = unsafe { place.cast::<u64>().read_volatile() }.to_ne_bytes();
        place = place.wrapping_add(WORD);
    }
    bytes(last, &mut place);
}

// SAFETY: the base is that of a read-only mapping of all bytes, initialised, which lives as long as
// the memory, of which the value is a share; the length was one of `mmap`. Neither changes, nor
// does who watches it.
unsafe impl Lendable for Arena {
    fn base(&self) -> NonNull<u8> {
        Arena::base(self)
    }

    fn len(&self) -> usize {
        Arena::len(self)
    }

    fn sharing(&self) -> Sharing<'_> {
        Sharing::Watched(self.memory())
    }
}

// SAFETY: `MappedMemory` promises initialised bytes that stay there as long as their owner, which the
// value keeps; they are read there, or by a mapping of our own of the same bytes, as long. Base and
// length were taken once.
unsafe impl<M: MappedMemory> Lendable for Registered<M> {
    fn base(&self) -> NonNull<u8> {
        Registered::base(self)
    }

    fn len(&self) -> usize {
        Registered::len(self)
    }

    fn sharing(&self) -> Sharing<'_> {
        Sharing::Watched(self.shared_memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_and_length_is_copied() {
        let from: Vec<u8> = (0..64).collect();
        for start in 0..24 {
            for len in 0..40 {
                let mut into = vec![0xee; len];
                let place = NonNull::from(&from[start..]).cast::<u8>();
                // SAFETY: at most 63 bytes from the first of 64 on.
                unsafe { copy_volatile(place, &mut into) };
                assert_eq!(into, from[start..start + len]);
            }
        }
    }
}
