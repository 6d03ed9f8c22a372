//! Registers of 32 bits in BAR 0, and a transmit ring of descriptors of 16 bytes with DD in the
//! thirteenth.

use super::{MEMORY, Rig};
use crate::Device;

/// A device of Intel's, and where a test puts its first transmit ring.
pub(crate) trait IntelRig: Device {
    /// The ring's first byte, as an offset into memory.
    const TX_RING: usize;
    /// Descriptors in a ring.
    const ENTRIES: u32;
    /// TDT of queue 0.
    const TAIL: u32;
}

impl<D: IntelRig> Rig<D> {
    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        let now = self.time();
        self.device.read(0, offset, now)
    }

    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        let now = self.time();
        self.device.write(0, offset, value, now);
    }

    /// Tells the device of a ring at `place` by the registers that begin at `at`.
    pub(crate) fn ring(&mut self, at: u32, place: usize) {
        let base = MEMORY + place as u64;
        self.write(at, base as u32);
        self.write(at + 4, (base >> 32) as u32);
        self.write(at + 8, D::ENTRIES * 16);
        self.write(at + 0x10, 0);
        self.write(at + 0x18, 0);
    }

    /// Puts a transmit descriptor into the next slot of queue 0.
    pub(crate) fn push(&mut self, raw: [u8; 16]) -> u32 {
        let index = self.next;
        self.memory.put(D::TX_RING + index as usize * 16, &raw);
        self.next = (index + 1) % D::ENTRIES;
        index
    }

    pub(crate) fn doorbell(&mut self) {
        self.write(D::TAIL, self.next);
    }

    pub(crate) fn is_done(&self, index: u32) -> bool {
        self.memory.bytes[D::TX_RING + index as usize * 16 + 12] & 1 != 0
    }

    /// Steps until descriptor `index` has DD.
    pub(crate) fn until_done(&mut self, index: u32) {
        self.until("DD", |rig| rig.is_done(index));
    }

    /// Puts `bytes` into memory at `place` and returns their device address.
    pub(crate) fn put(&mut self, place: usize, bytes: &[u8]) -> u64 {
        self.memory.put(place, bytes);
        MEMORY + place as u64
    }
}
