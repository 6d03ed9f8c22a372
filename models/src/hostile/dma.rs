//! Lies in memory and interrupts.

use super::known::{DESCRIPTOR, KnownRing};
use super::liar::{Held, IN_MEMORY, Liar, Moment};
use super::lies::Lie;
use crate::{Bus, DmaFault};

/// Most write-backs that are held back, and places of write-backs that are remembered.
const MOST_HELD: usize = 64;
/// Bytes of the largest scribble, less one.
const SCRIBBLE_MASK: u16 = 0x7ff;
/// The status byte of a descriptor, but of an extended receive descriptor where it is at 8.
const STATUS: u64 = 12;

/// DD and EOP of the status byte.
const DD: u8 = 1 << 0;
const EOP: u8 = 1 << 1;

/// A bus between the engine of the device and the real one.
pub(crate) struct LyingBus<'a> {
    bus: &'a mut dyn Bus,
    liar: &'a mut Liar,
    /// Receive descriptors are extended ones.
    extended: bool,
}

impl<'a> LyingBus<'a> {
    pub(crate) fn new(bus: &'a mut dyn Bus, liar: &'a mut Liar, extended: bool) -> Self {
        Self {
            bus,
            liar,
            extended,
        }
    }

    /// Tells `lie`, after the honest part of the step, and writes what was held back. Whether
    /// anything is left to be written.
    pub(crate) fn finish(&mut self, lie: Option<Lie>) -> bool {
        match lie {
            Some(Lie::InterruptAtRandom) => {
                let vector = self.liar.source.choose(8) as u16;
                self.bus.interrupt(vector);
            }
            Some(Lie::WriteWhileQuiet) => {
                let choice = self.liar.source.choose(IN_MEMORY.len() as usize);
                let form = IN_MEMORY.iter().nth(choice);
                if form.is_some_and(|form| self.tell(form)) {
                    self.liar.told.count(Lie::WriteWhileQuiet);
                }
            }
            Some(lie) if IN_MEMORY.contains(lie) && self.tell(lie) => {
                self.liar.told.count(lie);
            }
            _ => {}
        }
        self.release();
        !self.liar.held.is_empty()
    }

    /// A write; a fault is nothing.
    fn put(&mut self, address: u64, bytes: &[u8]) {
        let _ = self.bus.write(address, bytes);
    }

    fn release(&mut self) {
        let mut left = self.liar.held.len();
        while left > 0 {
            left -= 1;
            let Some(held) = self.liar.held.pop_front() else {
                return;
            };
            if held.due <= self.liar.clock {
                self.put(held.address, held.bytes.get(..held.len).unwrap_or_default());
            } else {
                self.liar.held.push_back(held);
            }
        }
    }

    fn hold(&mut self, address: u64, source: &[u8]) {
        if self.liar.held.len() == MOST_HELD {
            self.liar.held.pop_front();
        }
        let delay = 1 << self.liar.source.choose(10);
        let mut bytes = [0; 16];
        for (target, byte) in bytes.iter_mut().zip(source) {
            *target = *byte;
        }
        self.liar.held.push_back(Held {
            due: self.liar.clock + delay,
            address,
            bytes,
            len: source.len().min(bytes.len()),
        });
    }

    /// Tells a lie of [`IN_MEMORY`]. False if there is nothing to write it to.
    fn tell(&mut self, lie: Lie) -> bool {
        self.try_to_tell(lie).is_some()
    }

    fn try_to_tell(&mut self, lie: Lie) -> Option<()> {
        match lie {
            Lie::DoneAtRandom => self.done_at_random()?,
            Lie::DoneTakenAway => {
                let choice = usize::from(self.liar.source.byte());
                let index = choice.checked_rem(self.liar.done.len())?;
                let address = *self.liar.done.get(index)?;
                self.put(address, &[0]);
            }
            Lie::RandomDescriptor => {
                let (ring, offset) = self.any_descriptor()?;
                let bytes = self.sixteen();
                self.put(ring.base.wrapping_add(offset), &bytes);
            }
            Lie::ScribbleRing => {
                let (ring, offset) = self.any_descriptor()?;
                let offset = offset.wrapping_add(u64::from(self.liar.source.byte() & 0xf));
                let most = ring.len().saturating_sub(offset);
                self.scribble(ring.base.wrapping_add(offset), most);
            }
            Lie::ScribbleBuffer => {
                let choice = usize::from(self.liar.source.byte());
                let buffer = self.liar.known.buffer(choice)?;
                let offset = u64::from(self.liar.source.half() & SCRIBBLE_MASK);
                self.scribble(buffer.wrapping_add(offset), u64::MAX);
            }
            Lie::WildWrite => {
                let address = self.wild_address();
                self.scribble(address, u64::MAX);
            }
            _ => return None,
        }
        Some(())
    }

    /// DD, perhaps with EOP and a length, on any descriptor.
    fn done_at_random(&mut self) -> Option<()> {
        let (ring, offset) = self.any_descriptor()?;
        let descriptor = ring.base.wrapping_add(offset);
        if !ring.receive {
            self.put(descriptor.wrapping_add(STATUS), &[DD]);
            return Some(());
        }
        let [low, high] = self.length().to_le_bytes();
        let flags = match self.liar.source.byte() & 1 {
            0 => DD,
            _ => DD | EOP,
        };
        let upper = if self.extended {
            [flags, 0, 0, 0, low, high, 0, 0]
        } else {
            [low, high, 0, 0, flags, 0, 0, 0]
        };
        self.put(descriptor.wrapping_add(8), &upper);
        Some(())
    }

    /// A length that no buffer has, or that any might.
    fn length(&mut self) -> u16 {
        match self.liar.source.choose(5) {
            0 => 0,
            1 => u16::MAX,
            2 => 16 * 1024 + 1,
            3 => 2049,
            _ => self.liar.source.half(),
        }
    }

    fn sixteen(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            *byte = self.liar.source.byte();
        }
        bytes
    }

    /// A ring, and the offset of one of its descriptors.
    fn any_descriptor(&mut self) -> Option<(KnownRing, u64)> {
        let choice = usize::from(self.liar.source.byte());
        let ring = self.liar.known.ring(choice)?;
        let index = u32::from(self.liar.source.half()).checked_rem(ring.entries)?;
        Some((ring, u64::from(index) * u64::from(DESCRIPTOR)))
    }

    /// Random bytes at `address`, `most` at most.
    fn scribble(&mut self, address: u64, most: u64) {
        let mut bytes = [0; SCRIBBLE_MASK as usize + 1];
        let len = 1 + u64::from(self.liar.source.half() & SCRIBBLE_MASK);
        let len = len.min(most) as usize;
        let target = bytes.get_mut(..len).unwrap_or_default();
        self.liar.source.fill(target);
        self.put(address, target);
    }

    /// A known address, off by a little, by a lot, or replaced by any.
    fn wild_address(&mut self) -> u64 {
        let choice = usize::from(self.liar.source.byte());
        let ring = self.liar.known.ring(choice).map(|ring| ring.base);
        let known = if choice & 1 == 0 { ring } else { None };
        let known = known.or_else(|| self.liar.known.buffer(choice / 2));
        let known = known.unwrap_or(0);
        match self.liar.source.choose(5) {
            0 => known.wrapping_add(u64::from(self.liar.source.half())),
            1 => known.wrapping_sub(u64::from(self.liar.source.half())),
            2 => known & 0xffff_ffff,
            3 => known ^ 1 << (self.liar.source.byte() & 63),
            _ => self.liar.source.long(),
        }
    }

    /// A write-back of the honest part, into `ring`.
    fn write_back(&mut self, ring: KnownRing, address: u64, source: &[u8]) -> Result<(), DmaFault> {
        let receive = ring.receive;
        let lie = self.liar.turn(Moment::WriteBack { receive });
        self.remember(ring, address);
        match lie {
            Some(Lie::WriteBackLost) => Ok(()),
            Some(Lie::WriteBackOutOfOrder) => {
                self.hold(address, source);
                Ok(())
            }
            Some(Lie::WriteBackTwice) => {
                self.hold(address, source);
                self.bus.write(address, source)
            }
            Some(Lie::OtherRing) => {
                let address = self.in_other_ring(ring, address);
                self.put(address, source);
                Ok(())
            }
            Some(Lie::RandomDescriptor) => {
                let start = address & !u64::from(DESCRIPTOR - 1);
                let bytes = self.sixteen();
                self.put(start, &bytes);
                Ok(())
            }
            Some(lie @ (Lie::WrongLength | Lie::ErrorBits)) => {
                self.forge(lie, address, source);
                Ok(())
            }
            _ => self.bus.write(address, source),
        }
    }

    /// Keeps the place of the status byte, for [`Lie::DoneTakenAway`].
    fn remember(&mut self, ring: KnownRing, address: u64) {
        if !self.liar.allows(Lie::DoneTakenAway) && !self.liar.allows(Lie::WriteWhileQuiet) {
            return;
        }
        if self.liar.done.len() == MOST_HELD {
            self.liar.done.pop_front();
        }
        let start = address & !u64::from(DESCRIPTOR - 1);
        let place = if ring.receive && self.extended {
            8
        } else {
            STATUS
        };
        self.liar.done.push_back(start.wrapping_add(place));
    }

    /// The same place in a ring that is not `ring`, or the same place if there is none.
    fn in_other_ring(&mut self, ring: KnownRing, address: u64) -> u64 {
        let choice = usize::from(self.liar.source.byte());
        let others = self.liar.known.rings.iter().filter(|other| **other != ring);
        let count = others.clone().count();
        let Some(other) = others.clone().nth(choice.checked_rem(count).unwrap_or(0)) else {
            return address;
        };
        let offset = address.wrapping_sub(ring.base).checked_rem(other.len());
        other.base.wrapping_add(offset.unwrap_or(0))
    }

    /// Writes a receive write-back with a wrong length or all errors.
    fn forge(&mut self, lie: Lie, address: u64, source: &[u8]) {
        let mut bytes = [0; 16];
        for (target, byte) in bytes.iter_mut().zip(source) {
            *target = *byte;
        }
        // Extended write-backs are whole, those of the legacy format are the upper half.
        let (length, errors) = if source.len() == bytes.len() {
            (12, 11)
        } else {
            (0, 5)
        };
        if lie == Lie::ErrorBits {
            if let Some(byte) = bytes.get_mut(errors) {
                *byte = 0xff;
            }
        } else {
            let value = self.length().to_le_bytes();
            if let Some(field) = bytes.get_mut(length..length + 2) {
                field.copy_from_slice(&value);
            }
        }
        self.put(address, bytes.get(..source.len()).unwrap_or_default());
    }
}

impl Bus for LyingBus<'_> {
    fn read(&mut self, address: u64, target: &mut [u8]) -> Result<(), DmaFault> {
        self.bus.read(address, target)?;
        if let Some(ring) = self.liar.known.ring_at(address) {
            self.liar.known.add_descriptors(ring, target);
        }
        Ok(())
    }

    fn append(&mut self, address: u64, len: usize, frame: &mut Vec<u8>) -> Result<(), DmaFault> {
        self.bus.append(address, len, frame)
    }

    fn write(&mut self, address: u64, source: &[u8]) -> Result<(), DmaFault> {
        match self.liar.known.ring_at(address) {
            Some(ring) if source.len() <= DESCRIPTOR as usize => {
                self.write_back(ring, address, source)
            }
            _ => {
                self.liar.known.add_buffer(address);
                self.bus.write(address, source)
            }
        }
    }

    fn interrupt(&mut self, vector: u16) {
        let lost = self.liar.turn(Moment::Interrupt).is_some();
        if !lost && !self.liar.lasts(Lie::InterruptLost) {
            self.bus.interrupt(vector);
        }
    }
}
