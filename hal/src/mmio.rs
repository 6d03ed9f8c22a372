//! Registers that are mapped into the address space: the usual way to reach a BAR.

use core::ptr::NonNull;

use volatile::VolatilePtr;

use crate::Registers;

/// A memory-mapped BAR. Registers are little-endian, as PCI's are, on any CPU.
///
/// `K` keeps the mapping alive (an `Arc` of it; `()` for a mapping that is never undone).
#[derive(Clone, Debug)]
pub struct MappedRegisters<K> {
    base: NonNull<u8>,
    len: u32,
    _keep: K,
}

// SAFETY: the pointer is only used for volatile accesses to a device, which are as good
// from one thread as from another; `keep` travels along and is `Send` itself.
unsafe impl<K: Send> Send for MappedRegisters<K> {}

impl<K> MappedRegisters<K> {
    /// Registers of `len` bytes at `base`.
    ///
    /// # Safety
    /// `base` is aligned to 4 and valid for volatile reads and writes of `len` bytes, from any
    /// thread, for as long as `keep` or a clone of it lives, and is the BAR of a device that only
    /// the holder of this value drives. It is mapped uncached.
    pub const unsafe fn new(base: NonNull<u8>, len: u32, keep: K) -> Self {
        Self {
            base,
            len,
            _keep: keep,
        }
    }

    #[inline(always)]
    fn register<T: Copy>(&self, offset: u32) -> Option<VolatilePtr<'_, T>> {
        let width = size_of::<T>() as u32;
        let inside = offset.checked_add(width).is_some_and(|end| end <= self.len);
        if !inside || !offset.is_multiple_of(width) {
            return None;
        }
        // SAFETY: the register ends inside the BAR, as checked above.
        let pointer = unsafe { self.base.byte_add(offset as usize) }.cast::<T>();
        // SAFETY: `new` promised volatile accesses anywhere in the BAR while `keep` lives. `base`
        // is aligned to 4 and `offset` to the width, which is 1, 2 or 4.
        Some(unsafe { VolatilePtr::new(pointer) })
    }
}

impl<K: Clone + Send> Registers for MappedRegisters<K> {
    #[inline(always)]
    fn read(&self, offset: u32) -> u32 {
        self.register(offset)
            .map_or(u32::MAX, |register| u32::from_le(register.read()))
    }

    #[inline(always)]
    unsafe fn write(&self, offset: u32, value: u32) {
        if let Some(register) = self.register(offset) {
            register.write(value.to_le());
        }
    }

    #[inline(always)]
    fn read16(&self, offset: u32) -> u16 {
        self.register(offset)
            .map_or(u16::MAX, |register| u16::from_le(register.read()))
    }

    #[inline(always)]
    unsafe fn write16(&self, offset: u32, value: u16) {
        if let Some(register) = self.register(offset) {
            register.write(value.to_le());
        }
    }

    #[inline(always)]
    fn read8(&self, offset: u32) -> u8 {
        self.register(offset)
            .map_or(u8::MAX, |register| register.read())
    }

    #[inline(always)]
    unsafe fn write8(&self, offset: u32, value: u8) {
        if let Some(register) = self.register(offset) {
            register.write(value);
        }
    }
}

#[cfg(all(test, feature = "alloc"))]
#[path = "mmio_tests.rs"]
mod tests;
