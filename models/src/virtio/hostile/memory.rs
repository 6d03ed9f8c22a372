//! Lies that a step tells in memory, beside its work.

use super::known::KnownRing;
use super::liar::{IN_MEMORY, Liar};
use super::lies::Lie;
use crate::Bus;
use crate::virtio::bits::flag;

/// Bytes of the largest scribble, less one.
const SCRIBBLE_MASK: u16 = 0x7ff;

/// A write; a fault is nothing to a hostile device.
fn put(bus: &mut dyn Bus, address: u64, bytes: &[u8]) {
    let _ = bus.write(address, bytes);
}

impl Liar {
    /// Tells what a step may tell in memory, and by interrupts.
    pub(super) fn act(&mut self, lie: Lie, bus: &mut dyn Bus) {
        match lie {
            Lie::InterruptAtRandom => {
                let vector = self.source.choose(8) as u16;
                bus.interrupt(vector);
            }
            Lie::WriteWhileQuiet => {
                let choice = self.source.choose(IN_MEMORY.len() as usize);
                let form = IN_MEMORY.iter().nth(choice);
                if form.is_some_and(|form| self.tell(form, bus).is_some()) {
                    self.told.count(lie);
                }
            }
            lie if IN_MEMORY.contains(lie) && self.tell(lie, bus).is_some() => {
                self.told.count(lie);
            }
            _ => {}
        }
    }

    /// Tells a lie of [`IN_MEMORY`]; `None` if there is nothing to write it to.
    fn tell(&mut self, lie: Lie, bus: &mut dyn Bus) -> Option<()> {
        match lie {
            Lie::UsedAtRandom => {
                let ring = self.any_ring()?;
                self.use_at_random(ring, bus)?;
            }
            Lie::EventNonsense => {
                let ring = self.any_ring()?;
                self.ask_for_nonsense(ring, bus);
            }
            Lie::ScribbleRing => {
                let ring = self.any_ring()?;
                let offset = u64::from(self.source.half()).checked_rem(ring.len())?;
                let address = ring.base.wrapping_add(offset);
                self.scribble(address, ring.len() - offset, bus);
            }
            Lie::ScribbleBuffer => {
                let choice = usize::from(self.source.byte());
                let buffer = self.known.buffer(choice)?;
                let offset = u64::from(self.source.half() & SCRIBBLE_MASK);
                self.scribble(buffer.wrapping_add(offset), u64::MAX, bus);
            }
            Lie::WildWrite => {
                let address = self.wild_address();
                self.scribble(address, u64::MAX, bus);
            }
            _ => return None,
        }
        Some(())
    }

    fn any_ring(&mut self) -> Option<KnownRing> {
        let choice = usize::from(self.source.byte());
        self.known.ring(choice)
    }

    /// Buffers become used ones that are not.
    fn use_at_random(&mut self, ring: KnownRing, bus: &mut dyn Bus) -> Option<()> {
        if !ring.packed {
            let index = self.source.half().to_le_bytes();
            put(bus, ring.base.wrapping_add(2), &index);
            return Some(());
        }
        let slot = self.source.half().checked_rem(ring.size)?;
        let round = if self.source.byte() & 1 == 0 {
            flag::AVAIL | flag::USED
        } else {
            0
        };
        let mut raw = [0; 8];
        self.source.fill(&mut raw);
        if let Some(flags) = raw.last_chunk_mut::<2>() {
            *flags = (round | flag::WRITE).to_le_bytes();
        }
        let at = 16 * u64::from(slot) + 8;
        put(bus, ring.base.wrapping_add(at), &raw);
        Some(())
    }

    /// Nonsense where the device asks for doorbells.
    fn ask_for_nonsense(&mut self, ring: KnownRing, bus: &mut dyn Bus) {
        let place = self.source.half();
        let flags = u16::from(self.source.byte()) & 0x3;
        let (flags_at, flags) = if ring.packed {
            // Always, never, at a descriptor, reserved.
            (ring.events.wrapping_add(2), flags)
        } else {
            (ring.base, flags & 1)
        };
        put(bus, ring.events, &place.to_le_bytes());
        put(bus, flags_at, &flags.to_le_bytes());
    }

    /// Random bytes at `address`, `most` at most.
    fn scribble(&mut self, address: u64, most: u64, bus: &mut dyn Bus) {
        let mut bytes = [0; SCRIBBLE_MASK as usize + 1];
        let len = 1 + u64::from(self.source.half() & SCRIBBLE_MASK);
        let len = len.min(most) as usize;
        let target = bytes.get_mut(..len).unwrap_or_default();
        self.source.fill(target);
        put(bus, address, target);
    }

    /// A known address, off by a little, by a lot, or replaced by any.
    fn wild_address(&mut self) -> u64 {
        let choice = usize::from(self.source.byte());
        let ring = self.known.ring(choice).map(|ring| ring.base);
        let known = if choice & 1 == 0 { ring } else { None };
        let known = known.or_else(|| self.known.buffer(choice / 2));
        let known = known.unwrap_or(0);
        match self.source.choose(5) {
            0 => known.wrapping_add(u64::from(self.source.half())),
            1 => known.wrapping_sub(u64::from(self.source.half())),
            2 => known & 0xffff_ffff,
            3 => known ^ 1 << (self.source.byte() & 63),
            _ => self.source.long(),
        }
    }
}
