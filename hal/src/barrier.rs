//! Ordering between the CPU and a device, as named operations.
//!
//! A fence of the language orders CPU against CPU. On x86-64 that is enough for a device too,
//! as stores to write-back and uncached memory are not reordered among each other, nor loads
//! (Intel SDM vol. 3, "Memory Ordering"). On aarch64 it is not: a fence compiles to `dmb ish`,
//! which covers the inner shareable domain, and a device is in the outer one. The instructions
//! are those that Linux has for DMA memory there (`dma_wmb`, `dma_rmb`, `dma_mb`).
//!
//! Other architectures get the fences of the language, and nobody has checked that they are
//! enough: on RISC-V, say, they do not order memory against registers. A mapping that combines
//! writes is outside all of this: registers are mapped uncached.

/// Makes every earlier store to memory visible to the device before any later store, to memory
/// or to a register: between the descriptors and the doorbell, or between a descriptor and the
/// flag in it that hands it over.
#[inline(always)]
pub fn publish() {
    audit::published();
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier has no operand and changes no register or flag.
    unsafe {
        core::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::Release);
}

/// Lets no later load happen before an earlier one: between the done bit and what it covers (the
/// rest of the descriptor, the received bytes).
#[inline(always)]
pub fn observe() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier has no operand and changes no register or flag.
    unsafe {
        core::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::Acquire);
}

/// Orders every earlier access before every later one, a store before a load included: between
/// publishing an index and reading what the device wrote about notifications.
#[inline(always)]
pub fn full() {
    audit::published();
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier has no operand and changes no register or flag.
    unsafe {
        core::arch::asm!("dmb osh", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Whether this thread has stored into a [`DescriptorRing`](crate::DescriptorRing) since its last
/// [`publish`] or [`full`]. A model asks this when it is told to look at a ring: on a CPU that
/// reorders stores the device would find old descriptors. Always `false` in release builds.
#[cfg(feature = "audit")]
#[must_use]
pub fn has_unpublished_stores() -> bool {
    audit::is_dirty()
}

/// Remembers, for the thread.
#[cfg(all(feature = "audit", debug_assertions))]
pub(crate) mod audit {
    use core::cell::Cell;

    std::thread_local! {
        static DIRTY: Cell<bool> = const { Cell::new(false) };
    }

    // While a thread ends its variable may be gone; no device is told of anything then.
    pub(crate) fn stored() {
        let _ = DIRTY.try_with(|dirty| dirty.set(true));
    }

    pub(super) fn published() {
        let _ = DIRTY.try_with(|dirty| dirty.set(false));
    }

    pub(super) fn is_dirty() -> bool {
        DIRTY.try_with(Cell::get).unwrap_or(false)
    }
}

/// Remembers nothing.
#[cfg(not(all(feature = "audit", debug_assertions)))]
pub(crate) mod audit {
    #[inline(always)]
    pub(crate) const fn stored() {}

    #[inline(always)]
    pub(super) const fn published() {}

    #[cfg(feature = "audit")]
    pub(super) const fn is_dirty() -> bool {
        false
    }
}
