//! The file that is linked into the image, as a program sees it and as a device does.
//!
//! Its pages lie in the image out of order (`content.rs`). A page table of our own makes them
//! neighbours for the program, at another address; a device has no page table, so it gets one
//! address per page. Nothing is copied.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::asm;
use core::ptr::{self, NonNull};

use pagewire_hal::{DeviceAddress, DomainId, Granule, PagedRegion};

use crate::content::{LEN, PAGE, PAGES, slot};
use crate::start_info::physical;

/// The file as it was linked.
#[repr(C, align(4096))]
struct Stored([u8; PAGES * PAGE]);

static STORED: Stored = Stored(*include_bytes!(concat!(env!("OUT_DIR"), "/file")));

/// Where the program sees the file: the start of the second 512 GiB, where nothing else is.
const WINDOW: usize = 1 << 39;
/// Its entry in the page map.
const WINDOW_ENTRY: usize = 1;
const ENTRIES: usize = 512;
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;

/// A table of any level.
#[repr(C, align(4096))]
struct PageTable([u64; ENTRIES]);

impl PageTable {
    /// A table of these entries, and no others.
    fn new(entries: impl IntoIterator<Item = u64>) -> Self {
        let mut table = Self([0; ENTRIES]);
        for (place, entry) in table.0.iter_mut().zip(entries) {
            *place = entry;
        }
        table
    }

    /// Keeps the table for ever; what the level above has to say of it.
    fn entry(self) -> u64 {
        let kept: &'static Self = Box::leak(Box::new(self));
        ptr::from_ref(kept).expose_provenance() as u64 | WRITABLE | PRESENT
    }
}

/// The file, mapped.
pub(crate) type File = PagedRegion<Vec<DeviceAddress>>;

/// Maps the file. `None` if the page map is not where `boot.s` left it.
///
/// # Safety
/// Called once. `domain` names physical memory.
pub(crate) unsafe fn map(domain: DomainId) -> Option<File> {
    let base = (&raw const STORED).expose_provenance() as u64;
    let pages: Vec<u64> = (0..PAGES)
        .map(|page| base + (slot(page) * PAGE) as u64)
        .collect();
    // Without WRITABLE: a write to the file is a page fault.
    let tables = pages
        .chunks(ENTRIES)
        .map(|chunk| PageTable::new(chunk.iter().map(|page| page | PRESENT)).entry());
    let directory = PageTable::new(tables).entry();
    let pointers = PageTable::new([directory]).entry();
    let page_map = page_map_address();
    let entries = physical::<[u64; ENTRIES]>(page_map)?.as_ptr();
    // SAFETY: the page map has these entries and is mapped where it is. The one that is written
    // was not present, so no reference leads through it.
    unsafe { (*entries)[WINDOW_ENTRY] = pointers };
    // SAFETY: the same page map again. What the CPU knew of it is forgotten, and the compiler
    // moves no access to memory across.
    unsafe { asm!("mov cr3, {}", in(reg) page_map, options(nostack, preserves_flags)) };
    let addresses: Vec<_> = pages.into_iter().map(DeviceAddress).collect();
    let granule = Granule::from_bytes(PAGE)?;
    let base = NonNull::new(ptr::with_exposed_provenance_mut(WINDOW))?;
    // SAFETY: the window is mapped for good and read-only, and the pages behind it are a
    // static that nobody writes. They are RAM, which any device finds at its physical address
    // as there is no IOMMU; the page table and the addresses were made of the same list.
    // Nothing is undone on drop.
    unsafe { PagedRegion::new(base, LEN, granule, domain, addresses) }
}

/// Where the page map is.
fn page_map_address() -> u64 {
    let address: u64;
    // SAFETY: reads a control register, which this program may.
    unsafe { asm!("mov {}, cr3", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address & !0xfff
}
