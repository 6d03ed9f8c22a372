//! The cage of an SFP+ port and the module in it: the two wires of I2CCTL, driven bit by bit, and
//! the module's memory at address A0h.
//!
//! I2C by its specification: a byte is eight bits, the highest first, and an acknowledgement by
//! whoever receives it; data changes while the clock is low, and where it does not, a fall begins
//! and a rise ends a transfer. Bytes of the module: SFF-8472 as Linux ixgbe reads it.

use super::bits::i2c;
use super::pace::{Deadline, Pace, Random};

/// What is in the cage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Module {
    /// Nothing: nobody answers.
    None,
    /// 10GBASE-SR.
    #[default]
    ShortReach,
    /// A passive copper cable.
    Cable,
    /// 1000BASE-SX: no module for 10 Gbit/s.
    Gigabit,
}

/// Address of the module, with the bit for a read clear.
const ADDRESS: u8 = 0xa0;
/// Nanoseconds that the module may hold the clock down (SFF-8431, by the 500 µs in Linux).
const LONGEST_STRETCH: u64 = 400_000;

impl Module {
    /// Byte `at` of its memory.
    fn byte(self, at: u8) -> u8 {
        match (self, at) {
            // Identifier: SFP or SFP+.
            (_, 0) => 0x03,
            // 10GBASE-SR.
            (Self::ShortReach, 3) => 0x10,
            // 1000BASE-SX.
            (Self::Gigabit, 6) => 0x01,
            // A passive cable.
            (Self::Cable, 8) => 0x04,
            _ => 0,
        }
    }
}

/// What the module does with the bits that come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Nothing, until a transfer begins.
    Idle,
    /// It takes the address.
    Address,
    /// It takes the number of a byte; what is written after that is ignored.
    Offset,
    /// It gives bytes.
    Read,
}

/// The wires and the module.
#[derive(Debug)]
pub(super) struct Cage {
    module: Module,
    /// What the host lets go.
    clock: bool,
    data: bool,
    /// The clock as it is.
    is_high: bool,
    phase: Phase,
    /// Bits of the byte under way, the acknowledgement being the ninth.
    bits: u32,
    byte: u8,
    offset: u8,
    /// What the module does to the data wire: false pulls it down.
    released: bool,
    /// The module holds the clock down until then.
    stretch: Deadline,
    /// Bytes that it was told so far: at some of them it is busy.
    count: u32,
}

impl Cage {
    pub(super) fn new(module: Module, pace: &Pace) -> Self {
        Self {
            module,
            clock: true,
            data: true,
            is_high: true,
            phase: Phase::Idle,
            bits: 0,
            byte: 0,
            offset: 0,
            released: true,
            stretch: Deadline::after(pace, 0),
            count: 0,
        }
    }

    /// Whether there is a module.
    pub(super) fn is_full(&self) -> bool {
        self.module != Module::None
    }

    /// What the bits of the wires read: both are high unless somebody pulls them down.
    pub(super) fn wires(&mut self, pace: &Pace) -> u32 {
        self.settle(pace);
        let mut value = 0;
        if self.is_high {
            value |= i2c::CLOCK_IN;
        }
        if self.data && self.released {
            value |= i2c::DATA_IN;
        }
        value
    }

    /// The host lets wires go or pulls them down. A module that takes its `freedoms` is busy now
    /// and then, and holds the clock down.
    pub(super) fn drive(&mut self, value: u32, pace: &Pace, freedoms: Option<&mut Random>) {
        self.settle(pace);
        let (was_high, was_data) = (self.is_high, self.data);
        (self.clock, self.data) = (value & i2c::CLOCK_OUT != 0, value & i2c::DATA_OUT != 0);
        if was_high && !self.clock {
            self.is_high = false;
            self.fall(pace, freedoms);
        } else if was_high && was_data != self.data && self.is_full() {
            self.begin_or_end(self.data);
        }
        self.settle(pace);
    }

    /// The clock rises when both ends have let it go.
    fn settle(&mut self, pace: &Pace) {
        if self.clock && !self.is_high && self.stretch.has_passed(pace) {
            self.is_high = true;
            self.rise();
        }
    }

    fn begin_or_end(&mut self, ends: bool) {
        self.phase = if ends { Phase::Idle } else { Phase::Address };
        self.bits = 0;
        self.byte = 0;
        self.released = true;
    }

    /// The clock has risen: a bit is on the wire.
    fn rise(&mut self) {
        if self.phase == Phase::Idle {
            return;
        }
        self.bits += 1;
        let bit = self.data && self.released;
        match (self.phase, self.bits) {
            (_, 1..=8) => self.byte = self.byte << 1 | u8::from(bit),
            // The host acknowledges what it has read, or wants no more.
            (Phase::Read, _) if bit => self.phase = Phase::Idle,
            _ => {}
        }
    }

    /// The clock has fallen: the module puts its next bit on the wire.
    fn fall(&mut self, pace: &Pace, freedoms: Option<&mut Random>) {
        if self.phase == Phase::Idle {
            self.released = true;
            return;
        }
        if self.bits == 9 {
            self.bits = 0;
        }
        if self.bits == 8 {
            self.end_byte(pace, freedoms);
        } else if self.phase == Phase::Read {
            if self.bits == 0 {
                self.byte = self.module.byte(self.offset);
                self.offset = self.offset.wrapping_add(1);
            }
            // `rise` shifts the bit that was read into the other end.
            self.released = self.byte & 0x80 != 0;
        } else {
            self.released = true;
        }
    }

    /// A byte is whole: the acknowledgement of whoever has received it.
    fn end_byte(&mut self, pace: &Pace, freedoms: Option<&mut Random>) {
        let is_told = self.phase != Phase::Read;
        self.released = match self.phase {
            Phase::Address if self.byte & 0xfe == ADDRESS => {
                let reads = self.byte & 1 != 0;
                self.phase = if reads { Phase::Read } else { Phase::Offset };
                false
            }
            Phase::Offset => {
                self.offset = self.byte;
                false
            }
            // The host's.
            Phase::Read => true,
            Phase::Address | Phase::Idle => {
                self.phase = Phase::Idle;
                true
            }
        };
        if let Some(random) = freedoms {
            self.stretch = Deadline::after(pace, random.below(LONGEST_STRETCH));
            self.count = self.count.wrapping_add(u32::from(is_told));
            // Two bytes in a row at most, as it is asked three times.
            if is_told && self.count % 8 < 2 && random.one_in(2) {
                self.phase = Phase::Idle;
                self.released = true;
            }
        }
    }
}
