//! The I/O ports of a PC.

use core::arch::asm;

/// Reads a byte from a port.
///
/// # Safety
/// The read has no effect on memory, and none on a device that its driver does not expect.
pub(crate) unsafe fn read8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller vouches for what the port does; the instruction touches `al` alone.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// Writes a byte to a port.
///
/// # Safety
/// As for [`read8`].
pub(crate) unsafe fn write8(port: u16, value: u8) {
    // SAFETY: the caller vouches for what the port does.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Reads 32 bits from a port.
///
/// # Safety
/// As for [`read8`].
pub(crate) unsafe fn read32(port: u16) -> u32 {
    let value;
    // SAFETY: the caller vouches for what the port does; the instruction touches `eax` alone.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags))
    };
    value
}

/// Writes 32 bits to a port.
///
/// # Safety
/// As for [`read8`]; what is written does not make a device read or write memory that is not
/// meant for it.
pub(crate) unsafe fn write32(port: u16, value: u32) {
    // SAFETY: the caller vouches for what the port does.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}
