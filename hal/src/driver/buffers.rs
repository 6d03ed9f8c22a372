//! Receive buffers: one for each descriptor of a ring, for ever.

use core::ptr::NonNull;

use crate::{Custody, DeviceAddress, DmaMemory, NicError, Platform};

/// Where the first buffer begins: on a page of 4 KiB at least, so that of buffers of 2 or 4 KiB,
/// which follow each other, none lies across two.
const ALIGN: usize = 4096;

/// A power of two of buffers, each a power of two bytes long, in one piece of memory, which is in
/// [`Custody`].
#[derive(Debug)]
pub struct Buffers<M: DmaMemory> {
    memory: Custody<M>,
    /// Base-2 logarithm of the bytes in a buffer.
    shift: u32,
    mask: u32,
}

impl<M: DmaMemory> Buffers<M> {
    /// `count` buffers of `len` bytes, both powers of two, that the device has not been told of.
    ///
    /// # Errors
    /// What the platform said; [`NicError::Config`] if `count` or `len` is no power of two, or
    /// they do not fit the address space or the platform's memory.
    pub fn new<P: Platform<Memory = M>>(
        platform: &mut P,
        count: u32,
        len: u32,
    ) -> Result<Self, NicError> {
        const UNFIT: NicError = NicError::Config {
            what: "the receive buffers do not fit the address space or the platform's memory",
        };
        if !count.is_power_of_two() || !len.is_power_of_two() {
            return Err(UNFIT);
        }
        let bytes = (count as usize).checked_mul(len as usize).ok_or(UNFIT)?;
        let mut memory = Custody::new(platform.allocate(bytes, ALIGN)?);
        // SAFETY: the device has not been told of this memory.
        unsafe { memory.set_quiet(true) };
        if memory.memory().len() < bytes {
            return Err(UNFIT);
        }
        Ok(Self {
            memory,
            shift: len.trailing_zeros(),
            mask: count - 1,
        })
    }

    /// Bytes in a buffer.
    #[must_use]
    #[inline(always)]
    #[expect(
        clippy::len_without_is_empty,
        reason = "no buffer has a length of zero"
    )]
    pub const fn len(&self) -> u32 {
        1 << self.shift
    }

    #[inline(always)]
    fn offset(&self, index: u32) -> usize {
        ((index & self.mask) as usize) << self.shift
    }

    /// Where the device finds buffer `index`, taken modulo their number.
    #[must_use]
    #[inline(always)]
    pub fn address(&self, index: u32) -> DeviceAddress {
        let address = self.memory.memory().address();
        address.offset(self.offset(index) as u64)
    }

    /// As [`address`](Self::address), of an index that is below their number: for the hot path.
    #[inline(always)]
    pub(super) fn address_below(&self, index: u32) -> DeviceAddress {
        debug_assert!(index <= self.mask);
        let address = self.memory.memory().address();
        address.offset(u64::from(index) << self.shift)
    }

    /// Where the CPU finds buffer `index`, taken modulo their number: valid for reads of
    /// [`len`](Self::len) bytes, also if the device writes them meanwhile, as long as the buffers
    /// are not dropped.
    #[must_use]
    #[inline(always)]
    pub fn pointer(&self, index: u32) -> NonNull<u8> {
        // SAFETY: `new` checked that the memory holds all buffers, and `offset` masks the index.
        unsafe { self.memory.memory().pointer().add(self.offset(index)) }
    }

    /// Says whether the device does not reach them, see [`Custody::set_quiet`].
    ///
    /// # Safety
    /// As there.
    pub unsafe fn set_quiet(&mut self, quiet: bool) {
        // SAFETY: the caller makes the same promise.
        unsafe { self.memory.set_quiet(quiet) };
    }
}
