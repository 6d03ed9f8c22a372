//! From a range of bytes to the pieces that the device sees: the only source of device
//! addresses.

use crate::{DeviceAddress, Fragment};

/// How far memory is certain to be contiguous for the device: the size of the unit by which
/// the platform translates, a power of two in bytes (4 KiB, 16 KiB, 64 KiB, 2 MiB, or
/// everything).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granule(u8);

impl Granule {
    /// The whole region is one run of device addresses.
    pub const CONTIGUOUS: Self = Self((usize::BITS - 1) as u8);

    /// A granule of `bytes`, a power of two; `None` for anything else.
    #[must_use]
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        if bytes.is_power_of_two() {
            Some(Self(bytes.trailing_zeros() as u8))
        } else {
            None
        }
    }

    /// The granule in bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        1 << self.0
    }

    /// The base-2 logarithm of [`bytes`](Self::bytes).
    #[must_use]
    #[inline]
    pub const fn log2(self) -> u8 {
        self.0
    }
}

/// The device's view of a region: one address per granule that the region touches.
#[derive(Clone, Copy, Debug)]
pub struct Translation<'a> {
    granule: Granule,
    lead: usize,
    len: usize,
    addresses: &'a [DeviceAddress],
}

impl<'a> Translation<'a> {
    /// `len` bytes that begin `lead` bytes into the first granule; `addresses[i]` is where the
    /// device finds the first byte of the `i`-th granule (for a contiguous region: of byte 0
    /// less `lead`).
    ///
    /// `None` if `lead` is not inside a granule, or if there are not exactly as many addresses
    /// as granules touched.
    #[must_use]
    pub fn new(
        granule: Granule,
        lead: usize,
        len: usize,
        addresses: &'a [DeviceAddress],
    ) -> Option<Self> {
        let end = lead.checked_add(len)?;
        let touched = if len == 0 {
            0
        } else {
            end.div_ceil(granule.bytes())
        };
        (lead < granule.bytes() && touched == addresses.len()).then_some(Self {
            granule,
            lead,
            len,
            addresses,
        })
    }

    /// `len` bytes that are one run for the device, from the first of `addresses` on (which is
    /// not looked at if `len` is 0).
    #[must_use]
    pub const fn contiguous(len: usize, addresses: &'a [DeviceAddress]) -> Self {
        Self {
            granule: Granule::CONTIGUOUS,
            lead: 0,
            len,
            addresses,
        }
    }

    /// Bytes in the region.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the region has no byte.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The unit of translation.
    #[must_use]
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// The runs of contiguous device addresses in `len` bytes from `start`, in order:
    /// neighbouring granules that are contiguous for the device have been merged, nothing has
    /// been split yet. Empty if the range does not lie in the region.
    #[inline]
    #[must_use]
    pub fn runs(&self, start: usize, len: usize) -> Runs<'a> {
        let inside = start.checked_add(len).is_some_and(|end| end <= self.len);
        let left = if inside { len } else { 0 };
        Runs {
            translation: *self,
            position: self.lead.wrapping_add(start),
            left,
        }
    }

    /// Granules that `len` bytes from `start` touch, as a range of indices; empty if the range
    /// has no byte or does not lie in the region.
    #[inline]
    #[must_use]
    pub fn granules(&self, start: usize, len: usize) -> core::ops::Range<usize> {
        let inside = start.checked_add(len).is_some_and(|end| end <= self.len);
        if len == 0 || !inside {
            return 0..0;
        }
        let first = self.lead + start;
        first >> self.granule.0..((first + (len - 1)) >> self.granule.0) + 1
    }
}

/// Iterator over the runs of a range, see [`Translation::runs`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    translation: Translation<'a>,
    position: usize,
    left: usize,
}

/// Contiguous bytes for the device, of any length (a [`Fragment`] may be shorter).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where the device finds the first byte.
    pub address: DeviceAddress,
    /// Bytes, at least 1.
    pub len: usize,
}

impl Iterator for Runs<'_> {
    type Item = Run;

    #[inline]
    fn next(&mut self) -> Option<Run> {
        if self.left == 0 {
            return None;
        }
        let granule = self.translation.granule;
        let mask = granule.bytes() - 1;
        let mut index = self.position >> granule.log2();
        let within = self.position & mask;
        let address = self.translation.addresses.get(index)?.offset(within as u64);
        let mut len = (granule.bytes() - within).min(self.left);
        while len < self.left {
            index += 1;
            let Some(next) = self.translation.addresses.get(index) else {
                break;
            };
            if !follows(address, len as u64, *next) {
                break;
            }
            len += granule.bytes().min(self.left - len);
        }
        self.position += len;
        self.left -= len;
        Some(Run { address, len })
    }
}

/// Whether `next` is the first address behind `len` bytes at `address`. Address 0 is behind
/// nothing: a fragment does not reach around the end of the address space.
#[inline]
fn follows(address: DeviceAddress, len: u64, next: DeviceAddress) -> bool {
    address.0.checked_add(len) == Some(next.0)
}

/// A gather list under construction, with room for [`MAX_GATHER`] fragments.
///
/// Pushing merges a run into the last fragment where the device sees them as neighbours, and
/// splits what exceeds the longest fragment, so that the count is that of the *translated*
/// list (rule 1).
#[derive(Debug)]
pub struct GatherList {
    fragments: [Fragment; MAX_GATHER],
    count: usize,
    /// Of all fragments.
    bytes: u64,
    /// The address behind the last fragment; 0 if there is none.
    end: u64,
    max_fragments: usize,
    max_fragment_len: u32,
}

/// The most fragments that the safe layer puts into one frame, whatever the device could do.
pub const MAX_GATHER: usize = 256;

/// The list has no room for the run: the frame would need more than `max_fragments`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GatherFull;

impl GatherList {
    /// An empty list for a device that takes `max_fragments` (at most [`MAX_GATHER`] are used)
    /// of at most `max_fragment_len` bytes each.
    #[must_use]
    pub const fn new(max_fragments: usize, max_fragment_len: u32) -> Self {
        Self {
            fragments: [Fragment::EMPTY; MAX_GATHER],
            count: 0,
            bytes: 0,
            end: 0,
            max_fragments: if max_fragments < MAX_GATHER {
                max_fragments
            } else {
                MAX_GATHER
            },
            max_fragment_len: if max_fragment_len == 0 {
                1
            } else {
                max_fragment_len
            },
        }
    }

    /// Forgets all fragments.
    #[inline(always)]
    pub fn clear(&mut self) {
        (self.count, self.bytes, self.end) = (0, 0, 0);
    }

    /// Bytes of all fragments.
    #[inline(always)]
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many fragments there are.
    #[inline(always)]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a run at the end.
    ///
    /// # Errors
    /// [`GatherFull`] if it does not fit; the list may then hold a part of the run and is to be
    /// cleared.
    #[inline(always)]
    pub fn push(&mut self, run: Run) -> Result<(), GatherFull> {
        let Run { address, len } = run;
        // What could be joined, or must be split, or is no fragment, goes the long way.
        if self.end != address.0
            && len.wrapping_sub(1) < self.max_fragment_len as usize
            && self.count < self.max_fragments
        {
            // Not a check more: `max_fragments` is not above the length.
            let place = &mut self.fragments[self.count % MAX_GATHER];
            let len = len as u32;
            *place = Fragment { address, len };
            self.count += 1;
            self.bytes += u64::from(len);
            self.end = address.0.wrapping_add(u64::from(len));
            return Ok(());
        }
        self.push_slowly(run)
    }

    #[cold]
    #[inline(never)]
    fn push_slowly(&mut self, run: Run) -> Result<(), GatherFull> {
        let Run {
            mut address,
            mut len,
        } = run;
        let max = self.max_fragment_len as usize;
        if let Some(last) = self
            .count
            .checked_sub(1)
            .and_then(|i| self.fragments.get_mut(i))
            && follows(last.address, u64::from(last.len), address)
        {
            let joined = len.min(max - (last.len as usize).min(max));
            last.len += joined as u32;
            self.bytes += joined as u64;
            self.end = self.end.wrapping_add(joined as u64);
            address = address.offset(joined as u64);
            len -= joined;
        }
        while len > 0 {
            if self.count >= self.max_fragments {
                return Err(GatherFull);
            }
            let part = len.min(max);
            let slot = self.fragments.get_mut(self.count).ok_or(GatherFull)?;
            *slot = Fragment {
                address,
                len: part as u32,
            };
            self.count += 1;
            self.bytes += part as u64;
            address = address.offset(part as u64);
            self.end = address.0;
            len -= part;
        }
        Ok(())
    }

    /// The fragments so far.
    #[inline(always)]
    #[must_use]
    pub fn as_slice(&self) -> &[Fragment] {
        // `count` is not above the length.
        &self.fragments[..self.count.min(MAX_GATHER)]
    }
}

#[cfg(all(test, feature = "alloc"))]
#[path = "translation_tests.rs"]
mod tests;
