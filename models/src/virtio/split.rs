//! The split ring: descriptor table, available ring, used ring.

use super::bits::{feature, flag};
use super::ring::{Access, Chain, Putting, passes, unreachable};
use crate::DmaFault;

/// No buffer owns the descriptor.
const FREE: u16 = u16::MAX;

pub(super) struct Split {
    size: u16,
    table: u64,
    available: u64,
    used: u64,
    /// The entry of the available ring that is read next, and where the driver was last seen.
    next: u16,
    seen: u16,
    /// The used index that the driver sees.
    used_index: u16,
    /// By descriptor, the head of the chain that it is in while the device has it.
    owners: Vec<u16>,
    /// With IN_ORDER, the descriptor that must come next.
    expected: u16,
}

impl Split {
    pub(super) fn new(size: u16, table: u64, available: u64, used: u64) -> Self {
        Self {
            size,
            table,
            available,
            used,
            next: 0,
            seen: 0,
            used_index: 0,
            owners: vec![FREE; usize::from(size)],
            expected: 0,
        }
    }

    /// Whether all parts are memory that the device can reach, and the used ring can be written.
    pub(super) fn probe(&self, access: &mut Access<'_>) -> Result<(), String> {
        let size = usize::from(self.size);
        let parts = [
            ("descriptor table", self.table, 16 * size),
            ("available ring", self.available, 6 + 2 * size),
            ("used ring", self.used, 6 + 8 * size),
        ];
        for (what, address, len) in parts {
            let mut raw = vec![0; len];
            let read = access.bus.read(address, &mut raw);
            read.map_err(|fault| unreachable(what, fault))?;
        }
        let index = access.half(self.used.wrapping_add(2)).unwrap_or(0);
        if index != 0 {
            access.report(format!("the used index is {index} in a new ring"));
        }
        access
            .put_half(self.used.wrapping_add(2), 0)
            .map_err(|fault| unreachable("used ring", fault))
    }

    fn at(&self, index: u16) -> u64 {
        u64::from(index & (self.size - 1))
    }

    /// Reads where the driver is.
    fn refresh(&mut self, access: &mut Access<'_>) -> Result<(), String> {
        let index = access
            .half(self.available.wrapping_add(2))
            .map_err(|fault| unreachable("available ring", fault))?;
        let ahead = index.wrapping_sub(self.used_index);
        if ahead > self.size {
            return Err(format!(
                "the available index {index} is {ahead} ahead of the used index, in a queue of {}",
                self.size
            ));
        }
        if index.wrapping_sub(self.next) > self.size {
            return Err(format!("the available index went back to {index}"));
        }
        self.seen = index;
        Ok(())
    }

    pub(super) fn take(&mut self, access: &mut Access<'_>) -> Result<Option<Chain>, String> {
        if self.next == self.seen {
            self.refresh(access)?;
            if self.next == self.seen {
                return Ok(None);
            }
        }
        let entry = self.available.wrapping_add(4 + 2 * self.at(self.next));
        let head = access
            .half(entry)
            .map_err(|fault| unreachable("available ring", fault))?;
        self.next = self.next.wrapping_add(1);
        let chain = self.walk(head, access)?;
        access.check_length(&chain, self.size);
        Ok(Some(chain))
    }

    /// Follows a chain from its head.
    fn walk(&mut self, head: u16, access: &mut Access<'_>) -> Result<Chain, String> {
        let in_order = access.has(feature::IN_ORDER);
        let mut chain = Chain {
            id: head,
            ..Chain::default()
        };
        let mut at = head;
        loop {
            if in_order && at != self.expected {
                let expected = self.expected;
                access.report(format!(
                    "with IN_ORDER, descriptor {at} where {expected} is due"
                ));
            }
            self.claim(at, head, chain.slots == 0)?;
            self.expected = at.wrapping_add(1) & (self.size - 1);
            chain.slots += 1;
            let entry = access
                .descriptor(self.table.wrapping_add(16 * u64::from(at)))
                .map_err(|fault| unreachable("descriptor table", fault))?;
            if entry.flags & flag::INDIRECT != 0 {
                access.follow_table(&entry, &mut chain)?;
                return Ok(chain);
            }
            access.follow(&entry, &mut chain)?;
            if entry.flags & flag::NEXT == 0 {
                return Ok(chain);
            }
            at = entry.link;
        }
    }

    /// Takes a descriptor; also what keeps a chain from running in a circle.
    fn claim(&mut self, at: u16, head: u16, first: bool) -> Result<(), String> {
        let size = self.size;
        let owner = self
            .owners
            .get_mut(usize::from(at))
            .ok_or_else(|| format!("descriptor {at} in a queue of {size}"))?;
        if *owner == head && !first {
            return Err(format!(
                "a loop: descriptor {at} twice in the chain of {head}"
            ));
        }
        if *owner != FREE {
            return Err(format!("descriptor {at} is still in the chain of {owner}"));
        }
        *owner = head;
        Ok(())
    }

    pub(super) fn put(
        &mut self,
        access: &mut Access<'_>,
        putting: &Putting<'_>,
    ) -> Result<bool, DmaFault> {
        let Putting { used, shown, .. } = *putting;
        // A batch has one entry, in the place of its first buffer, with the id of its last.
        let first = if putting.batch {
            shown.len().saturating_sub(1)
        } else {
            0
        };
        for (place, entry) in shown.iter().skip(first).enumerate() {
            let mut raw = [0; 8];
            let (id, len) = raw.split_at_mut(4);
            id.copy_from_slice(&entry.id.to_le_bytes());
            len.copy_from_slice(&entry.len.to_le_bytes());
            let at = self.at(self.used_index.wrapping_add(place as u16));
            access.bus.write(self.used.wrapping_add(4 + 8 * at), &raw)?;
        }
        for entry in used {
            let mut left = entry.slots;
            for owner in &mut self.owners {
                if *owner == entry.id {
                    *owner = FREE;
                    left = left.saturating_sub(1);
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        let old = self.used_index;
        self.used_index = old.wrapping_add(shown.len() as u16);
        let told = self.used_index.wrapping_add(putting.skew as u16);
        access.put_half(self.used.wrapping_add(2), told)?;
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        let flags = access.half(self.available)?;
        if access.has(feature::EVENT_IDX) {
            if flags != 0 {
                access.report(format!("with EVENT_IDX, available ring flags {flags:#x}"));
            }
            let event = self.available.wrapping_add(4 + 2 * u64::from(self.size));
            return Ok(passes(access.half(event)?, self.used_index, old));
        }
        if flags > 1 {
            access.report(format!("available ring flags {flags:#x}"));
        }
        Ok(flags & 1 == 0)
    }

    pub(super) fn ask(
        &mut self,
        access: &mut Access<'_>,
        wanted: bool,
        far: u16,
    ) -> Result<(), DmaFault> {
        if access.has(feature::EVENT_IDX) {
            let event = if wanted {
                self.next
            } else {
                self.next.wrapping_add(far)
            };
            let at = self.used.wrapping_add(4 + 8 * u64::from(self.size));
            access.put_half(at, event)?;
        } else {
            access.put_half(self.used, u16::from(!wanted))?;
        }
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
}
