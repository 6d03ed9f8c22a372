//! The PCI function of QEMU's device: configuration space by the two I/O ports of a PC, BARs,
//! and the MSI-X table. (PCI Local Bus Specification 3.0; names and bits as in Linux,
//! `pci_regs.h`.)

use std::io::{self, ErrorKind};

use super::connection::{Connection, Session};

/// Where the device is plugged in on the root bus.
pub(super) const DEVICE: u32 = 4;

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u32 = 1 << 1;
/// The upper half of the command register's word, whose bits are cleared by writing ones.
const STATUS: u32 = 0xffff_0000;
const STATUS_CAPABILITIES: u32 = 1 << 20;
const BAR0: u16 = 0x10;
const BARS: usize = 6;
const BAR_IO: u32 = 1;
const BAR_TYPE: u32 = 0b110;
const BAR_TYPE_64: u32 = 0b100;
const BAR_FLAGS: u32 = 0xf;
const CAPABILITIES_POINTER: u16 = 0x34;
/// Most capabilities that fit configuration space; ends a list that is a circle.
const MOST_CAPABILITIES: usize = 48;
const CAPABILITY_MSIX: u32 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;
const MSIX_ENTRY_LEN: u32 = 16;

/// The hole for memory BARs of the q35 machine, above its memory and below its interrupt
/// controllers.
const BAR_SPACE: u32 = 0xe000_0000;
const BAR_SPACE_END: u32 = 0xfe00_0000;

/// Configuration space by ports 0xcf8 and 0xcfc, which reach 256 bytes of it: the extended
/// capabilities of PCI Express are not seen.
impl Session {
    pub(super) fn read_config(&mut self, offset: u16) -> io::Result<u32> {
        self.select(offset)?;
        Ok(self.command(format_args!("inl 0xcfc"))? as u32)
    }

    pub(super) fn write_config(&mut self, offset: u16, value: u32) -> io::Result<()> {
        self.select(offset)?;
        self.command(format_args!("outl 0xcfc {value:#x}"))
            .map(drop)
    }

    fn select(&mut self, offset: u16) -> io::Result<()> {
        let address = 1 << 31 | DEVICE << 11 | u32::from(offset & 0xfc);
        self.command(format_args!("outl 0xcf8 {address:#x}"))
            .map(drop)
    }

    fn write_memory(&mut self, address: u32, value: u32) -> io::Result<()> {
        self.command(format_args!("writel {address:#x} {value:#x}"))
            .map(drop)
    }
}

/// Whether configuration space has a word at `offset` that the ports reach.
pub(super) const fn is_config_word(offset: u16) -> bool {
    offset < 256 && offset.is_multiple_of(4)
}

/// A memory BAR in the machine's address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bar {
    pub(super) base: u32,
    pub(super) len: u32,
}

impl Bar {
    /// Where the `len` bytes at `offset` of the BAR are in the address space; `None` if they do
    /// not lie in it.
    pub(super) fn address(self, offset: u32, len: u32) -> Option<u32> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| self.base.wrapping_add(offset))
    }
}

/// Gives every memory BAR a place, as firmware does, and lets the device answer there.
pub(super) fn place_bars(connection: &Connection) -> io::Result<[Option<Bar>; BARS]> {
    let placed = connection.together(|session| {
        let mut bars = [None; BARS];
        let mut next = BAR_SPACE;
        let mut index = 0;
        while let Some(bar) = bars.get_mut(index) {
            let at = BAR0 + 4 * index as u16;
            session.write_config(at, u32::MAX)?;
            let found = session.read_config(at)?;
            let wide = found & (BAR_IO | BAR_TYPE) == BAR_TYPE_64;
            // I/O BARs, and those that are not there, are left alone: there is no use for them.
            if found & BAR_IO != 0 || found == 0 {
                session.write_config(at, 0)?;
            } else {
                let placed = place(&mut next, found & !BAR_FLAGS)?;
                session.write_config(at, placed.base)?;
                if wide {
                    session.write_config(at + 4, 0)?;
                }
                *bar = Some(placed);
            }
            index += if wide { 2 } else { 1 };
        }
        let command = session.read_config(COMMAND)? & !STATUS;
        session.write_config(COMMAND, command | COMMAND_MEMORY)?;
        Ok(bars)
    });
    placed.ok_or_else(|| io::Error::new(ErrorKind::BrokenPipe, "the BARs could not be placed"))
}

/// The next free place for a BAR whose size bits are `size_bits`.
fn place(next: &mut u32, size_bits: u32) -> io::Result<Bar> {
    let len = size_bits.wrapping_neg();
    let full = || {
        io::Error::new(
            ErrorKind::InvalidData,
            format!("no place for a BAR of {len:#x}"),
        )
    };
    if !len.is_power_of_two() {
        return Err(full());
    }
    let base = next.checked_next_multiple_of(len).ok_or_else(full)?;
    let end = base
        .checked_add(len)
        .filter(|end| *end <= BAR_SPACE_END)
        .ok_or_else(full)?;
    *next = end;
    Ok(Bar { base, len })
}

/// The MSI-X capability of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Msix {
    capability: u16,
    /// Vectors that the device has.
    pub(super) vectors: u16,
    table: u32,
}

impl Msix {
    /// Finds it; `None` if the device has none, or one whose table is in no BAR.
    pub(super) fn find(connection: &Connection, bars: &[Option<Bar>]) -> Option<Self> {
        let (capability, control, place) = connection.together(find_msix)??;
        let vectors = (control >> 16 & 0x7ff) as u16 + 1;
        let bar = (*bars.get((place & 7) as usize)?)?;
        let table = bar.address(place & !7, u32::from(vectors) * MSIX_ENTRY_LEN)?;
        Some(Self {
            capability,
            vectors,
            table,
        })
    }

    /// Writes the first `count` entries of the table, masked by nothing, and turns MSI-X on;
    /// `message` yields address and data of a vector. Off, if `count` is 0.
    pub(super) fn enable(
        self,
        connection: &Connection,
        count: u16,
        message: impl Fn(u16) -> (u64, u32),
    ) -> Option<()> {
        connection.together(|session| {
            let control = session.read_config(self.capability)?;
            let off = control & !(MSIX_ENABLE | MSIX_FUNCTION_MASK);
            if count == 0 {
                return session.write_config(self.capability, off);
            }
            let masked = off | MSIX_ENABLE | MSIX_FUNCTION_MASK;
            session.write_config(self.capability, masked)?;
            for vector in 0..count {
                let entry = self.table + u32::from(vector) * MSIX_ENTRY_LEN;
                let (address, data) = message(vector);
                session.write_memory(entry, address as u32)?;
                session.write_memory(entry + 4, (address >> 32) as u32)?;
                session.write_memory(entry + 8, data)?;
                session.write_memory(entry + 12, 0)?;
            }
            session.write_config(self.capability, off | MSIX_ENABLE)
        })
    }
}

/// Offset of the MSI-X capability, its first and its second word.
fn find_msix(session: &mut Session) -> io::Result<Option<(u16, u32, u32)>> {
    if session.read_config(COMMAND)? & STATUS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut at = session.read_config(CAPABILITIES_POINTER)? as u16 & 0xfc;
    for _ in 0..MOST_CAPABILITIES {
        if at < 0x40 {
            return Ok(None);
        }
        let word = session.read_config(at)?;
        if word & 0xff == CAPABILITY_MSIX {
            let place = session.read_config(at.wrapping_add(4))?;
            return Ok(Some((at, word, place)));
        }
        at = (word >> 8) as u16 & 0xfc;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_aligned_to_their_size_and_stay_in_the_hole() {
        let mut next = BAR_SPACE;
        let small = place(&mut next, 0xffff_c000).unwrap();
        assert_eq!(
            small,
            Bar {
                base: 0xe000_0000,
                len: 0x4000
            }
        );
        let large = place(&mut next, 0xfffe_0000).unwrap();
        assert_eq!(
            large,
            Bar {
                base: 0xe002_0000,
                len: 0x2_0000
            }
        );
        assert!(place(&mut next, 0x8000_0000).is_err());
        assert!(place(&mut next, 0xffff_0010).is_err());
        assert!(place(&mut next, 0).is_err());
    }

    #[test]
    fn accesses_outside_a_bar_are_refused() {
        let bar = Bar {
            base: 0xe000_0000,
            len: 0x100,
        };
        assert_eq!(bar.address(0xfc, 4), Some(0xe000_00fc));
        assert_eq!(bar.address(0xfd, 4), None);
        assert_eq!(bar.address(u32::MAX, 4), None);
    }
}
