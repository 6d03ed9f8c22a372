//! What the loader says: how much memory there is, and the command line.
//!
//! The layout is that of Xen's public header `arch-x86/hvm/start_info.h`, version 1. The loader
//! (QEMU and its firmware) is believed: it is what put this program into memory.

use core::ops::Range;
use core::ptr::{self, NonNull};

/// The first word of the start info.
const MAGIC: u32 = 0x336e_c578;
/// The kind of memory that is RAM and free.
const RAM: u32 = 1;
/// What `boot.s` has mapped as memory; devices are above.
const MOST: u64 = 2 << 30;
/// The longest command line.
const LINE: usize = 256;

/// The start info, as far as it is used here.
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// An entry of the memory map.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapEntry {
    address: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

/// A piece of physical memory as a pointer: it is mapped where it is.
///
/// `None` for address 0, and for what is not mapped as memory.
pub(crate) fn physical<T>(address: u64) -> Option<NonNull<T>> {
    let end = address.checked_add(size_of::<T>() as u64)?;
    if end > MOST {
        return None;
    }
    NonNull::new(ptr::with_exposed_provenance_mut(address as usize))
}

/// What the loader said. All of it is copied: the loader's own may lie in RAM that it calls free.
pub(crate) struct Boot {
    /// Free RAM behind the image.
    pub(crate) ram: Range<u64>,
    line: [u8; LINE],
}

impl Boot {
    /// Reads the start info at `address`; `None` if there is none with a memory map, or no free RAM
    /// at `image_end`.
    pub(crate) fn read(address: u64, image_end: u64) -> Option<Self> {
        let pointer = physical::<StartInfo>(address)?;
        // SAFETY: `boot.s` hands on the address that the loader left, which is mapped.
        let info = unsafe { pointer.read_unaligned() };
        if info.magic != MAGIC || info.version < 1 {
            return None;
        }
        Some(Self {
            ram: ram_behind(&info, image_end)?,
            line: command_line(info.command_line),
        })
    }

    /// The value of `name=value` on the command line.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        let text = self.line.split(|byte| *byte == 0).next()?;
        let words = core::str::from_utf8(text).ok()?.split_ascii_whitespace();
        words
            .filter_map(|word| word.split_once('='))
            .find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// Free RAM behind `start`, to the end of the piece in which that lies.
fn ram_behind(info: &StartInfo, start: u64) -> Option<Range<u64>> {
    (0..u64::from(info.memory_map_entries)).find_map(|index| {
        let offset = index.checked_mul(size_of::<MapEntry>() as u64)?;
        let entry = physical::<MapEntry>(info.memory_map.checked_add(offset)?)?;
        // SAFETY: the loader has so many entries there.
        let entry = unsafe { entry.read_unaligned() };
        let end = entry.address.saturating_add(entry.len).min(MOST);
        let inside = entry.kind == RAM && entry.address <= start && start < end;
        inside.then_some(start..end)
    })
}

/// The string at `address`, to its zero or to the end of the room for it.
fn command_line(address: u64) -> [u8; LINE] {
    let mut line = [0; LINE];
    for (place, offset) in line.iter_mut().zip(0..) {
        let byte = address.checked_add(offset).and_then(physical::<u8>);
        // SAFETY: the loader put a string there; what is behind its zero is not read.
        *place = byte.map_or(0, |byte| unsafe { byte.read() });
        if *place == 0 {
            break;
        }
    }
    line
}
