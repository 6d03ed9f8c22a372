//! The packed ring: descriptors that both sides write, and two event suppression structures.

use std::collections::BTreeSet;

use super::bits::{feature, flag};
use super::ring::{Access, Chain, Putting, Shown, passes, unreachable};
use crate::DmaFault;

/// Event suppression: always, never, at a descriptor.
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT_DESCRIPTOR: u16 = 2;

/// A place in the ring, and the wrap counter there.
#[derive(Clone, Copy)]
struct Place {
    slot: u16,
    wrap: bool,
}

impl Place {
    fn advance(&mut self, slots: u32, size: u16) {
        let next = u32::from(self.slot) + slots;
        if next >= u32::from(size) {
            self.wrap = !self.wrap;
        }
        self.slot = (next % u32::from(size)) as u16;
    }

    /// Goes on or back by `slots` modulo the size.
    fn skew(&mut self, slots: i32, size: u16) {
        let size = i32::from(size);
        let next = i32::from(self.slot) + slots % size;
        if next < 0 || next >= size {
            self.wrap = !self.wrap;
        }
        self.slot = next.rem_euclid(size) as u16;
    }
}

pub(super) struct Packed {
    size: u16,
    ring: u64,
    driver_events: u64,
    device_events: u64,
    next: Place,
    used: Place,
    /// Ids of the buffers that the device has, and their slots.
    ids: BTreeSet<u16>,
    slots: u32,
}

impl Packed {
    pub(super) fn new(size: u16, ring: u64, driver_events: u64, device_events: u64) -> Self {
        let start = Place {
            slot: 0,
            wrap: true,
        };
        Self {
            size,
            ring,
            driver_events,
            device_events,
            next: start,
            used: start,
            ids: BTreeSet::new(),
            slots: 0,
        }
    }

    /// Whether all parts are memory that the device can reach, and write where it must.
    pub(super) fn probe(&self, access: &mut Access<'_>) -> Result<(), String> {
        let mut raw = vec![0; 16 * usize::from(self.size)];
        let read = access.bus.read(self.ring, &mut raw);
        read.map_err(|fault| unreachable("descriptor ring", fault))?;
        let mut raw = [0; 4];
        let read = access.bus.read(self.driver_events, &mut raw);
        read.map_err(|fault| unreachable("driver event suppression", fault))?;
        let written = access.bus.write(self.device_events, &[0; 4]);
        written.map_err(|fault| unreachable("device event suppression", fault))
    }

    fn address(&self, slot: u16) -> u64 {
        self.ring.wrapping_add(16 * u64::from(slot))
    }

    /// Whether `flags` make a descriptor available in a round with this wrap counter.
    fn is_available(flags: u16, wrap: bool) -> bool {
        (flags & flag::AVAIL != 0) == wrap && (flags & flag::USED != 0) != wrap
    }

    pub(super) fn take(&mut self, access: &mut Access<'_>) -> Result<Option<Chain>, String> {
        let lost = |fault| unreachable("descriptor ring", fault);
        let flags = self.address(self.next.slot).wrapping_add(14);
        let flags = access.half(flags).map_err(lost)?;
        if !Self::is_available(flags, self.next.wrap) {
            return Ok(None);
        }
        let mut chain = Chain::default();
        loop {
            let entry = access
                .descriptor(self.address(self.next.slot))
                .map_err(lost)?;
            let Place { slot, wrap } = self.next;
            if !Self::is_available(entry.flags, wrap) {
                return Err(format!(
                    "descriptor {slot} inside a chain is not available: flags {:#x}",
                    entry.flags
                ));
            }
            chain.slots += 1;
            if self.slots + u32::from(chain.slots) > u32::from(self.size) {
                return Err(format!("more than {} descriptors available", self.size));
            }
            self.next.advance(1, self.size);
            chain.id = entry.link;
            if entry.flags & flag::INDIRECT != 0 {
                if chain.slots > 1 {
                    return Err("an indirect descriptor inside a chain".to_owned());
                }
                access.follow_table(&entry, &mut chain)?;
                break;
            }
            access.follow(&entry, &mut chain)?;
            if entry.flags & flag::NEXT == 0 {
                break;
            }
        }
        self.slots += u32::from(chain.slots);
        if !self.ids.insert(chain.id) {
            return Err(format!("buffer id {} is still in use", chain.id));
        }
        access.check_length(&chain, self.size);
        Ok(Some(chain))
    }

    pub(super) fn put(
        &mut self,
        access: &mut Access<'_>,
        putting: &Putting<'_>,
    ) -> Result<bool, DmaFault> {
        let Putting { used, shown, .. } = *putting;
        let mut before = self.used;
        before.skew(putting.skew, self.size);
        let mut total = 0;
        let mut entries = Vec::new();
        for (index, entry) in shown.iter().enumerate() {
            // A batch has one entry, in the place of its first buffer, with the id of its last.
            if !putting.batch {
                let mut place = before;
                place.advance(total, self.size);
                entries.push((place, *entry));
            } else if index + 1 == shown.len() {
                entries.push((before, *entry));
            }
            total += u32::from(entry.slots);
        }
        for entry in used {
            self.ids.remove(&entry.id);
            self.slots = self.slots.saturating_sub(entry.slots.into());
        }
        // The first one last: the driver never sees a part.
        for (place, entry) in entries.iter().rev() {
            self.write(access, *place, entry, putting.poison)?;
        }
        self.used.advance(total, self.size);
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.wants_interrupt(access, total as u16)
    }

    fn write(
        &self,
        access: &mut Access<'_>,
        place: Place,
        entry: &Shown,
        poison: bool,
    ) -> Result<(), DmaFault> {
        let address = self.address(place.slot);
        if poison {
            access.bus.write(address, &[0xa5; 8])?;
        }
        access
            .bus
            .write(address.wrapping_add(8), &entry.len.to_le_bytes())?;
        access
            .bus
            .write(address.wrapping_add(12), &(entry.id as u16).to_le_bytes())?;
        let mut flags = if place.wrap {
            flag::AVAIL | flag::USED
        } else {
            0
        };
        if entry.len > 0 {
            flags |= flag::WRITE;
        }
        access.put_half(address.wrapping_add(14), flags ^ entry.flipped)
    }

    /// Whether the driver wants to hear of the last `slots` slots.
    fn wants_interrupt(&self, access: &mut Access<'_>, slots: u16) -> Result<bool, DmaFault> {
        let flags = access.half(self.driver_events.wrapping_add(2))?;
        match flags {
            ENABLE => Ok(true),
            DISABLE => Ok(false),
            AT_DESCRIPTOR if access.has(feature::EVENT_IDX) => {
                let place = access.half(self.driver_events)?;
                let slot = place & 0x7fff;
                if slot >= self.size {
                    access.report(format!("event at descriptor {slot} of {}", self.size));
                }
                let this_round = (place & 0x8000 != 0) == self.used.wrap;
                let event = if this_round {
                    slot
                } else {
                    slot.wrapping_sub(self.size)
                };
                let new = self.used.slot;
                Ok(passes(event, new, new.wrapping_sub(slots)))
            }
            _ => {
                access.report(format!("event suppression flags {flags:#x}"));
                Ok(true)
            }
        }
    }

    pub(super) fn ask(
        &mut self,
        access: &mut Access<'_>,
        wanted: bool,
        far: u16,
    ) -> Result<(), DmaFault> {
        let flags = if !wanted && far == 0 {
            DISABLE
        } else if access.has(feature::EVENT_IDX) {
            let mut place = self.next;
            if !wanted {
                place.advance(u32::from(far % self.size), self.size);
            }
            let place = place.slot | u16::from(place.wrap) << 15;
            access.put_half(self.device_events, place)?;
            AT_DESCRIPTOR
        } else if wanted {
            ENABLE
        } else {
            DISABLE
        };
        access.put_half(self.device_events.wrapping_add(2), flags)?;
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}
