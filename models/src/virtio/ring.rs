//! What both ring formats have in common.

use super::bits::{feature, flag};
use super::packed::Packed;
use super::report::Violations;
use super::split::Split;
use crate::{Bus, DmaFault};

/// Most descriptors of an indirect table. (QEMU's limit is 1024 as well.)
const LONGEST_TABLE: u32 = 1024;

/// One piece of a buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element {
    pub(super) address: u64,
    pub(super) len: u32,
}

/// A buffer that the driver made available.
#[derive(Clone, Debug, Default)]
pub(super) struct Chain {
    /// The index of the first descriptor (split) or the buffer id (packed).
    pub(super) id: u16,
    /// Descriptors in the ring.
    pub(super) slots: u16,
    pub(super) readable: Vec<Element>,
    pub(super) writable: Vec<Element>,
    pub(super) indirect: bool,
}

impl Chain {
    /// Adds the piece that `descriptor` tells of.
    fn push(&mut self, descriptor: &Descriptor) -> Result<(), String> {
        let Descriptor { address, len, .. } = *descriptor;
        if len == 0 {
            return Err("a descriptor of length 0".to_owned());
        }
        let element = Element { address, len };
        if descriptor.flags & flag::WRITE != 0 {
            self.writable.push(element);
        } else if self.writable.is_empty() {
            self.readable.push(element);
        } else {
            return Err("a device-readable descriptor behind a device-writable one".to_owned());
        }
        Ok(())
    }

    /// Bytes that the device may write.
    pub(super) fn capacity(&self) -> usize {
        self.writable.iter().map(|e| e.len as usize).sum()
    }

    /// Descriptors that name data.
    pub(super) fn fragments(&self) -> usize {
        self.readable.len() + self.writable.len()
    }
}

/// A descriptor; `link` is `next` (split) or the buffer id (packed).
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) link: u16,
}

/// Both ring formats have address and length in front; the two halves behind them trade places.
fn descriptor(raw: &[u8; 16], packed: bool) -> Descriptor {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *raw;
    let first = u16::from_le_bytes([m, n]);
    let second = u16::from_le_bytes([o, p]);
    let (flags, link) = if packed {
        (second, first)
    } else {
        (first, second)
    };
    Descriptor {
        address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        len: u32::from_le_bytes([i, j, k, l]),
        flags,
        link,
    }
}

/// A buffer that the device is done with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) id: u16,
    pub(super) slots: u16,
    /// Bytes written.
    pub(super) len: u32,
    /// Bytes that could have been written.
    pub(super) room: u32,
}

/// What the driver is told of it: the same, if the device is honest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    /// Packed rings have room for 16 bits of it.
    pub(super) id: u32,
    pub(super) slots: u16,
    pub(super) len: u32,
    /// Flags that are wrong (packed).
    pub(super) flipped: u16,
}

impl From<Used> for Shown {
    fn from(used: Used) -> Self {
        Self {
            id: used.id.into(),
            slots: used.slots,
            len: used.len,
            flipped: 0,
        }
    }
}

/// What is written into a ring.
pub(super) struct Putting<'a> {
    /// What the device is done with.
    pub(super) used: &'a [Used],
    /// What the driver is told, all at once.
    pub(super) shown: &'a [Shown],
    /// How far from its place; not 0 only if the device is hostile.
    pub(super) skew: i32,
    /// With IN_ORDER, in one entry.
    pub(super) batch: bool,
    /// What the driver wrote is overwritten where it may be.
    pub(super) poison: bool,
}

/// What a ring needs to reach and to know.
pub(super) struct Access<'a> {
    pub(super) bus: &'a mut dyn Bus,
    pub(super) features: u64,
    pub(super) violations: &'a mut Violations,
    /// The number of the queue, for reports.
    pub(super) queue: u16,
}

impl Access<'_> {
    pub(super) fn has(&self, bit: u64) -> bool {
        self.features & bit != 0
    }

    pub(super) fn report(&mut self, text: String) {
        self.violations
            .report(format!("queue {}: {text}", self.queue));
    }

    pub(super) fn half(&mut self, address: u64) -> Result<u16, DmaFault> {
        let mut raw = [0; 2];
        self.bus.read(address, &mut raw)?;
        // What the other side wrote before this value is read after it.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        Ok(u16::from_le_bytes(raw))
    }

    pub(super) fn put_half(&mut self, address: u64, value: u16) -> Result<(), DmaFault> {
        // Seen only after all that was written before.
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        self.bus.write(address, &value.to_le_bytes())
    }

    pub(super) fn descriptor(&mut self, address: u64) -> Result<Descriptor, DmaFault> {
        let mut raw = [0; 16];
        self.bus.read(address, &mut raw)?;
        Ok(descriptor(&raw, self.has(feature::RING_PACKED)))
    }

    /// Adds what an indirect table names.
    pub(super) fn follow_table(
        &mut self,
        table: &Descriptor,
        chain: &mut Chain,
    ) -> Result<(), String> {
        if !self.has(feature::INDIRECT_DESC) {
            return Err("an indirect descriptor without INDIRECT_DESC".to_owned());
        }
        if table.flags & flag::NEXT != 0 {
            return Err("a descriptor with both INDIRECT and NEXT".to_owned());
        }
        let count = table.len / 16;
        if !table.len.is_multiple_of(16) || count == 0 || count > LONGEST_TABLE {
            return Err(format!("an indirect table of {} bytes", table.len));
        }
        let mut raw = vec![0; table.len as usize];
        self.bus
            .read(table.address, &mut raw)
            .map_err(|fault| unreachable("indirect table", fault))?;
        let (entries, _) = raw.as_chunks::<16>();
        chain.indirect = true;
        if self.has(feature::RING_PACKED) {
            self.packed_table(entries, chain)
        } else {
            self.split_table(entries, chain)
        }
    }

    /// All entries, one after the other; WRITE is the only flag.
    fn packed_table(&mut self, entries: &[[u8; 16]], chain: &mut Chain) -> Result<(), String> {
        for raw in entries {
            let entry = descriptor(raw, true);
            if entry.flags & !flag::WRITE != 0 {
                let flags = entry.flags;
                self.report(format!(
                    "reserved flags {flags:#x} in an indirect table of a packed ring"
                ));
            }
            chain.push(&entry)?;
        }
        Ok(())
    }

    /// From entry 0 along `next`.
    fn split_table(&mut self, entries: &[[u8; 16]], chain: &mut Chain) -> Result<(), String> {
        let mut at = 0u16;
        for _ in 0..entries.len() {
            let raw = entries
                .get(usize::from(at))
                .ok_or_else(|| format!("next = {at} leads out of an indirect table"))?;
            let entry = descriptor(raw, false);
            if entry.flags & flag::INDIRECT != 0 {
                return Err("an indirect descriptor inside an indirect table".to_owned());
            }
            if entry.flags & !(flag::WRITE | flag::NEXT) != 0 {
                self.report(format!(
                    "flags {:#x} in an indirect table of a split ring",
                    entry.flags
                ));
            }
            chain.push(&entry)?;
            if entry.flags & flag::NEXT == 0 {
                return Ok(());
            }
            if self.has(feature::IN_ORDER) && entry.link != at.wrapping_add(1) {
                let next = entry.link;
                self.report(format!(
                    "with IN_ORDER, next = {next} in entry {at} of an indirect table"
                ));
            }
            at = entry.link;
        }
        Err("a loop in an indirect table".to_owned())
    }

    /// Adds an ordinary descriptor.
    pub(super) fn follow(&mut self, entry: &Descriptor, chain: &mut Chain) -> Result<(), String> {
        let known = if self.has(feature::RING_PACKED) {
            flag::NEXT | flag::WRITE | flag::AVAIL | flag::USED
        } else {
            flag::NEXT | flag::WRITE
        };
        if entry.flags & !known != 0 {
            self.report(format!(
                "descriptor flags {:#x} have no meaning in this ring",
                entry.flags
            ));
        }
        chain.push(entry)
    }

    /// After a whole chain: it may not be longer than the queue, tables included.
    pub(super) fn check_length(&mut self, chain: &Chain, size: u16) {
        if chain.fragments() > usize::from(size) {
            let count = chain.fragments();
            self.report(format!(
                "a chain of {count} descriptors in a queue of {size}"
            ));
        }
    }
}

/// In words, that memory was not there.
pub(super) fn unreachable(what: &str, fault: DmaFault) -> String {
    let done = if fault.write { "written" } else { "read" };
    format!(
        "the {what} cannot be {done}: no memory at {:#x}",
        fault.address
    )
}

/// Whether the other side wants to hear that an index went from `old` to `new`, if it asked to
/// hear when `event` is passed. All are modulo 2^16.
pub(super) fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// A ring of either format.
pub(super) enum Ring {
    Split(Split),
    Packed(Packed),
}

impl Ring {
    /// The next buffer; `None` if there is none.
    pub(super) fn take(&mut self, access: &mut Access<'_>) -> Result<Option<Chain>, String> {
        match self {
            Self::Split(ring) => ring.take(access),
            Self::Packed(ring) => ring.take(access),
        }
    }

    /// Marks buffers as used, all at once. Returns whether the driver wants an interrupt.
    pub(super) fn put(
        &mut self,
        access: &mut Access<'_>,
        putting: &Putting<'_>,
    ) -> Result<bool, DmaFault> {
        match self {
            Self::Split(ring) => ring.put(access, putting),
            Self::Packed(ring) => ring.put(access, putting),
        }
    }

    /// Asks for doorbells, or for none; `far` is where an event index goes that nobody reaches
    /// soon.
    pub(super) fn ask(
        &mut self,
        access: &mut Access<'_>,
        wanted: bool,
        far: u16,
    ) -> Result<(), DmaFault> {
        match self {
            Self::Split(ring) => ring.ask(access, wanted, far),
            Self::Packed(ring) => ring.ask(access, wanted, far),
        }
    }
}
