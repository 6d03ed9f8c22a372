//! PCI functions by the two ports of a PC (PCI Local Bus 3.0; Linux calls it "type 1").

use crate::port;

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;
/// Bytes that the ports reach; the rest of PCI Express's 4096 is not seen.
const CONFIG_LEN: u16 = 256;
/// Functions on 256 buses of 32 devices of 8.
const FUNCTIONS: u32 = 1 << 16;
const COMMAND: u16 = 0x04;
const MEMORY: u32 = 1 << 1;
const HEADER_TYPE: u16 = 0x0c;
const MULTIFUNCTION: u32 = 1 << 23;
const BAR0: u16 = 0x10;
const BARS: u8 = 6;
/// Zeros for a memory BAR of 32 bits, [`BAR_64`] for one of 64, which takes the next BAR's place
/// for its upper half.
const BAR_KIND: u32 = 0b111;
const BAR_64: u32 = 0b100;
const BAR_FLAGS: u32 = 0b1111;

/// A PCI function of the machine.
pub(crate) struct Function {
    /// What the address port takes, for offset 0.
    address: u32,
}

impl Function {
    /// The first function that `wanted` says yes to, by vendor and device id.
    ///
    /// # Safety
    /// No other value is made for the same function.
    pub(crate) unsafe fn find(wanted: impl Fn(u16, u16) -> bool) -> Option<Self> {
        let mut index = 0;
        while index < FUNCTIONS {
            let function = Self {
                address: ENABLE | index << 8,
            };
            let id = function.read(0);
            if wanted(id as u16, (id >> 16) as u16) {
                return Some(function);
            }
            // A device without a first function has none; most have no other.
            let alone = id == u32::MAX || function.read(HEADER_TYPE) & MULTIFUNCTION == 0;
            index += if alone && index.is_multiple_of(8) {
                8
            } else {
                1
            };
        }
        None
    }

    /// Lets the data port reach the word at `offset`; `false` if it cannot.
    fn select(&self, offset: u16) -> bool {
        let reached = offset < CONFIG_LEN && offset.is_multiple_of(4);
        if reached {
            // SAFETY: selects a word of configuration space, no more.
            unsafe { port::write32(CONFIG_ADDRESS, self.address | u32::from(offset)) };
        }
        reached
    }

    /// The word at `offset`; all ones where there is none.
    pub(crate) fn read(&self, offset: u16) -> u32 {
        if !self.select(offset) {
            return u32::MAX;
        }
        // SAFETY: reads what was selected; reading configuration space has no effects.
        unsafe { port::read32(CONFIG_DATA) }
    }

    /// Writes the word at `offset`; nothing where there is none.
    ///
    /// # Safety
    /// What it makes the function do is what its driver wants, and its BARs stay where they are.
    pub(crate) unsafe fn write(&mut self, offset: u16, value: u32) {
        if self.select(offset) {
            // SAFETY: the caller vouches for it.
            unsafe { port::write32(CONFIG_DATA, value) };
        }
    }

    /// Physical address and bytes of memory BAR `index`, where the firmware has put it.
    pub(crate) fn bar(&mut self, index: u8) -> Option<(u64, u32)> {
        let place = |index: u8| BAR0 + u16::from(index) * 4;
        let mut first = 0;
        while first < index.min(BARS) {
            let wide = self.read(place(first)) & BAR_KIND == BAR_64;
            first += if wide { 2 } else { 1 };
        }
        // In between is the upper half of another.
        if first != index || index >= BARS {
            return None;
        }
        let at = place(index);
        let low = self.read(at);
        let wide = match low & BAR_KIND {
            0 => false,
            BAR_64 => index + 1 < BARS,
            _ => return None,
        };
        let high = if wide { self.read(at + 4) } else { 0 };
        let command = self.read(COMMAND) & 0xffff;
        let mut write = |offset, value| {
            // SAFETY: the length is asked for while the function decodes no memory, and the
            // firmware's address is back before it does so again.
            unsafe { self.write(offset, value) };
            self.read(offset)
        };
        write(COMMAND, command & !MEMORY);
        let mut mask = u64::from(write(at, u32::MAX) & !BAR_FLAGS) | u64::from(u32::MAX) << 32;
        write(at, low);
        if wide {
            mask &= u64::from(write(at + 4, u32::MAX)) << 32 | u64::from(u32::MAX);
            write(at + 4, high);
        }
        write(COMMAND, command);
        let base = u64::from(high) << 32 | u64::from(low & !BAR_FLAGS);
        let len = u32::try_from(mask.wrapping_neg()).ok()?;
        (base != 0 && len != 0).then_some((base, len))
    }
}
