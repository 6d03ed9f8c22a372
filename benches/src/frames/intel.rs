//! What stands for an 82599 or an 82574L: it writes DD where a report was asked for, and fills
//! receive descriptors.

use super::Device;
use crate::platform::{Freezer, View};

/// Report status, in both devices' transmit descriptors.
const REPORT: u64 = 1 << 27;
/// Descriptor done, in both devices' transmit descriptors.
const DONE: u64 = 1 << 32;
const DESCRIPTOR: usize = 16;

/// Registers of a ring: address, length, tail.
#[derive(Clone, Copy, Debug)]
struct RingRegisters {
    address: u32,
    len: u32,
    tail: u32,
}

impl RingRegisters {
    const fn at(first: u32) -> Self {
        Self {
            address: first,
            len: first + 8,
            tail: first + 0x18,
        }
    }
}

#[derive(Debug)]
struct Ring {
    descriptors: View,
    /// Descriptors.
    count: usize,
    next: usize,
}

impl Ring {
    fn new(freezer: &Freezer, registers: RingRegisters) -> Self {
        let low = u64::from(freezer.last(registers.address));
        let high = u64::from(freezer.last(registers.address + 4));
        Self {
            descriptors: freezer.memory(low | high << 32),
            count: freezer.last(registers.len) as usize / DESCRIPTOR,
            next: 0,
        }
    }

    /// Offset of the next descriptor, which is not the next any more.
    fn take(&mut self) -> usize {
        let offset = DESCRIPTOR * self.next;
        self.next = (self.next + 1) % self.count;
        offset
    }
}

/// The device.
#[derive(Debug)]
pub struct Intel {
    registers: View,
    transmit: Ring,
    transmit_tail: usize,
    receive: Ring,
    /// What a filled descriptor says; the first word stays if it is `None`.
    filled: fn(u32) -> (Option<u64>, u64),
}

/// DD, EOP, both checksums looked at; the hash of a TCP packet in the first word.
fn filled_ixgbe(len: u32) -> (Option<u64>, u64) {
    let first = 1 | 1 << 4 | 1 << 8 | 0x1234_5678 << 32;
    (Some(first), 0b110_0011 | u64::from(len) << 32)
}

/// DD, EOP, both checksums looked at.
fn filled_e1000e(len: u32) -> (Option<u64>, u64) {
    (None, 0b110_0011 << 32 | u64::from(len))
}

impl Intel {
    /// An 82599 with one pair of queues.
    #[must_use]
    pub fn ixgbe(freezer: &Freezer) -> Self {
        Self::new(freezer, (0x6000, 0x1000), filled_ixgbe)
    }

    /// An 82574L.
    #[must_use]
    pub fn e1000e(freezer: &Freezer) -> Self {
        Self::new(freezer, (0x3800, 0x2800), filled_e1000e)
    }

    fn new(
        freezer: &Freezer,
        (transmit, receive): (u32, u32),
        filled: fn(u32) -> (Option<u64>, u64),
    ) -> Self {
        let transmit = RingRegisters::at(transmit);
        Self {
            registers: freezer.registers(),
            transmit: Ring::new(freezer, transmit),
            transmit_tail: transmit.tail as usize,
            receive: Ring::new(freezer, RingRegisters::at(receive)),
            filled,
        }
    }
}

impl Device for Intel {
    fn complete(&mut self) {
        let tail = self.registers.read::<u32>(self.transmit_tail) as usize;
        while self.transmit.next != tail {
            let high = self.transmit.take() + 8;
            let word = self.transmit.descriptors.read::<u64>(high);
            if word & REPORT != 0 {
                self.transmit.descriptors.write(high, word | DONE);
            }
        }
    }

    fn deliver(&mut self, lens: &[u32]) {
        for len in lens {
            let at = self.receive.take();
            let (first, second) = (self.filled)(*len);
            if let Some(first) = first {
                self.receive.descriptors.write(at, first);
            }
            self.receive.descriptors.write(at + 8, second);
        }
    }
}
