//! The registers of a device: a BAR, mapped where the kernel allows it.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use pagewire_hal::{MappedRegisters, Registers};
use rustix::mm::{MapFlags, ProtFlags};

use crate::VfioError;
use crate::answers::{Area, Region};
use crate::device::Device;

/// One memory BAR of a device behind VFIO.
///
/// What the kernel lets programs map is accessed by the CPU's own instructions; what it does not
/// (the table of MSI-X on some machines, a BAR smaller than a page) by a system call each.
#[derive(Clone)]
pub struct VfioRegisters {
    /// The mapping from the BAR's first byte on: nearly always all of it.
    first: MappedRegisters<Arc<Bar>>,
    first_len: u32,
    bar: Arc<Bar>,
}

/// A BAR and its mappings, which go with the value.
struct Bar {
    device: Arc<Device>,
    /// Bytes that can be accessed: a register's offset has 32 bits.
    len: u32,
    /// Where it begins in the device's file.
    offset: u64,
    windows: Vec<Window>,
}

/// A part of a BAR that is mapped.
struct Window {
    offset: u32,
    len: u32,
    start: NonNull<u8>,
}

// SAFETY: the pointers are for volatile accesses to a device, from whatever thread.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

impl VfioRegisters {
    /// Maps what can be mapped of `region`, a BAR of `device`.
    pub(crate) fn map(device: &Arc<Device>, region: &Region) -> Result<Self, VfioError> {
        let len = u32::try_from(region.len).unwrap_or(u32::MAX);
        let mut bar = Bar {
            device: Arc::clone(device),
            len,
            offset: region.offset,
            windows: Vec::new(),
        };
        for area in &region.mappable {
            // What lies beyond 32 bits has no registers that could be named.
            let Ok(offset) = u32::try_from(area.offset) else {
                break;
            };
            bar.windows
                .push(map_window(device, region.offset, offset, area)?);
        }
        let bar = Arc::new(bar);
        let start = bar.windows.first().filter(|window| window.offset == 0);
        let (start, first_len) = match start {
            Some(window) => (window.start, window.len),
            None => (NonNull::<u32>::dangling().cast(), 0),
        };
        // SAFETY: `first_len` bytes are mapped from `start` on, at the beginning of a page, as long
        // as `bar` lives, which is kept; or there are none. VFIO maps BARs uncached. The device is
        // open once, by its one platform.
        let first = unsafe { MappedRegisters::new(start, first_len, Arc::clone(&bar)) };
        Ok(Self {
            first,
            first_len,
            bar,
        })
    }

    /// Bytes in the BAR.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.bar.len
    }

    /// Whether there is no byte; never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bar.len == 0
    }

    /// The parts that are mapped, as offsets: the rest costs a system call per access.
    pub fn mapped(&self) -> impl Iterator<Item = std::ops::Range<u32>> + '_ {
        let windows = self.bar.windows.iter();
        windows.map(|window| window.offset..window.offset + window.len)
    }

    /// Whether the register lies in what is mapped from the first byte on.
    #[inline(always)]
    fn is_first(&self, offset: u32) -> bool {
        offset < self.first_len
    }
}

fn map_window(device: &Device, region: u64, offset: u32, area: &Area) -> Result<Window, VfioError> {
    // So that the end of the window is an offset too.
    let most = u32::MAX - 0xffff - offset.min(u32::MAX - 0xffff);
    let len = u32::try_from(area.len).unwrap_or(u32::MAX).min(most);
    let place = std::ptr::null_mut();
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let (bytes, at) = (len as usize, region + area.offset);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let start = unsafe { rustix::mm::mmap(place, bytes, access, MapFlags::SHARED, device, at) }
        .map_err(|errno| VfioError::system("cannot map a BAR", errno))?;
    let start = NonNull::new(start.cast()).ok_or(VfioError::Nonsense("a BAR at address 0"))?;
    Ok(Window { offset, len, start })
}

impl Drop for Bar {
    fn drop(&mut self) {
        for window in &self.windows {
            let start = window.start.as_ptr().cast();
            // SAFETY: mapped by `map_window`; all registers that use it hold the BAR.
            let unmapped = unsafe { rustix::mm::munmap(start, window.len as usize) };
            if let Err(errno) = unmapped {
                log::warn!("part of a BAR could not be unmapped: {errno}");
            }
        }
    }
}

impl Bar {
    /// The window with all `width` bytes at `offset`, as registers, and the offset there.
    fn window(&self, offset: u32, width: u32) -> Option<(MappedRegisters<()>, u32)> {
        let inside = |window: &&Window| {
            let within = offset.checked_sub(window.offset);
            within.is_some_and(|within| {
                within
                    .checked_add(width)
                    .is_some_and(|end| end <= window.len)
            })
        };
        let window = self.windows.iter().find(inside)?;
        // SAFETY: the window is mapped, from the beginning of a page on, as long as `self` is
        // borrowed, and the registers do not leave the access that they were asked for.
        let registers = unsafe { MappedRegisters::new(window.start, window.len, ()) };
        Some((registers, offset - window.offset))
    }

    /// Where in the device's file the register is; `None` outside the BAR or if not aligned.
    fn place(&self, offset: u32, width: u32) -> Option<u64> {
        let end = offset.checked_add(width)?;
        let inside = end <= self.len && offset.is_multiple_of(width);
        inside.then(|| self.offset + u64::from(offset))
    }

    #[cold]
    fn read<const WIDTH: usize>(&self, offset: u32) -> Option<[u8; WIDTH]> {
        let place = self.place(offset, WIDTH as u32)?;
        let mut bytes = [0xff; WIDTH];
        self.device.read(place, &mut bytes).then_some(bytes)
    }

    #[cold]
    fn write<const WIDTH: usize>(&self, offset: u32, bytes: [u8; WIDTH]) {
        if let Some(place) = self.place(offset, WIDTH as u32) {
            self.device.write(place, &bytes);
        }
    }
}

impl Registers for VfioRegisters {
    #[inline(always)]
    fn read(&self, offset: u32) -> u32 {
        if self.is_first(offset) {
            return self.first.read(offset);
        }
        match self.bar.window(offset, 4) {
            Some((registers, offset)) => registers.read(offset),
            None => self.bar.read(offset).map_or(u32::MAX, u32::from_le_bytes),
        }
    }

    #[inline(always)]
    unsafe fn write(&self, offset: u32, value: u32) {
        if self.is_first(offset) {
            // SAFETY: the caller's promise.
            unsafe { self.first.write(offset, value) };
            return;
        }
        match self.bar.window(offset, 4) {
            // SAFETY: the caller's promise.
            Some((registers, offset)) => unsafe { registers.write(offset, value) },
            None => self.bar.write(offset, value.to_le_bytes()),
        }
    }

    #[inline(always)]
    fn read16(&self, offset: u32) -> u16 {
        if self.is_first(offset) {
            return self.first.read16(offset);
        }
        match self.bar.window(offset, 2) {
            Some((registers, offset)) => registers.read16(offset),
            None => self.bar.read(offset).map_or(u16::MAX, u16::from_le_bytes),
        }
    }

    #[inline(always)]
    unsafe fn write16(&self, offset: u32, value: u16) {
        if self.is_first(offset) {
            // SAFETY: the caller's promise.
            unsafe { self.first.write16(offset, value) };
            return;
        }
        match self.bar.window(offset, 2) {
            // SAFETY: the caller's promise.
            Some((registers, offset)) => unsafe { registers.write16(offset, value) },
            None => self.bar.write(offset, value.to_le_bytes()),
        }
    }

    #[inline(always)]
    fn read8(&self, offset: u32) -> u8 {
        if self.is_first(offset) {
            return self.first.read8(offset);
        }
        match self.bar.window(offset, 1) {
            Some((registers, offset)) => registers.read8(offset),
            None => self.bar.read(offset).map_or(u8::MAX, u8::from_le_bytes),
        }
    }

    #[inline(always)]
    unsafe fn write8(&self, offset: u32, value: u8) {
        if self.is_first(offset) {
            // SAFETY: the caller's promise.
            unsafe { self.first.write8(offset, value) };
            return;
        }
        match self.bar.window(offset, 1) {
            // SAFETY: the caller's promise.
            Some((registers, offset)) => unsafe { registers.write8(offset, value) },
            None => self.bar.write(offset, value.to_le_bytes()),
        }
    }
}

impl fmt::Debug for VfioRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioRegisters")
            .field("device", &self.bar.device.address())
            .field("len", &self.bar.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "bar_tests.rs"]
mod tests;
