//! Registers by name: those that tell the device of memory apart from all others.

use crate::Registers;

/// A register that tells the device of no memory: it holds no address, length or index of a ring.
/// The number is its offset in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register(pub u32);

impl Register {
    /// The `n`-th register of an array that begins with this one.
    #[must_use]
    #[inline(always)]
    pub const fn at(self, n: u32) -> Self {
        Self(self.0 + 4 * n)
    }
}

/// A register that tells the device which memory to reach: written only by the owner of the
/// ring that it describes. The number is its offset in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingRegister(pub u32);

/// The registers of one device. `ALIVE` is the offset of one that never reads all ones as long as
/// the device is there.
#[derive(Clone, Debug)]
pub struct Bar<R: Registers, const ALIVE: u32>(R);

impl<R: Registers, const ALIVE: u32> Bar<R, ALIVE> {
    /// Names the registers of a device.
    ///
    /// # Safety
    /// The caller is the driver of the device. Of the registers that it writes through this value
    /// and its clones, it has made a [`Register`] of those alone that hold no address, length or
    /// index of memory: all that they can do is to let the device go on with the rings that
    /// [`write_ring`](Self::write_ring) told it of.
    pub const unsafe fn new(registers: R) -> Self {
        Self(registers)
    }

    /// Reads a register.
    #[inline(always)]
    pub fn read(&self, register: Register) -> u32 {
        self.0.read(register.0)
    }

    /// Reads a register of a ring.
    #[inline(always)]
    pub fn read_ring(&self, register: RingRegister) -> u32 {
        self.0.read(register.0)
    }

    /// Writes a register.
    #[inline(always)]
    pub fn write(&self, register: Register, value: u32) {
        // SAFETY: by the promise made to `new`, the register can at most let the device go on with
        // the rings that `write_ring` told it of, whose owners answer for that memory as long as
        // the device is not quiet.
        unsafe { self.0.write(register.0, value) };
    }

    /// Clears `clear`, then sets `set`.
    pub fn change(&self, register: Register, clear: u32, set: u32) {
        self.write(register, (self.read(register) & !clear) | set);
    }

    /// Writes `value` to `count` registers that begin with `first`.
    pub fn fill(&self, first: Register, count: u32, value: u32) {
        for n in 0..count {
            self.write(first.at(n), value);
        }
    }

    /// Writes a register that tells the device of memory.
    ///
    /// # Safety
    /// The ring that results lies in memory that is the caller's, and stays mapped until the
    /// device is quiet; and so does all memory that the descriptors between head and tail name.
    #[inline(always)]
    pub unsafe fn write_ring(&self, register: RingRegister, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.write(register.0, value) };
    }

    /// Whether all registers read ones: the device is no longer there.
    pub fn is_gone(&self) -> bool {
        self.read(Register(ALIVE)) == u32::MAX
    }
}
