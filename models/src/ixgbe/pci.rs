//! Configuration space and the MSI-X table.
//!
//! Capabilities in the order of the 82599's: power management, MSI-X, PCI Express. Left out: MSI,
//! the I/O BAR, the expansion ROM, vital product data, extended capabilities.

use crate::intel::pci::{
    BAR0, COMMAND, ConfigSpace, Layout, MEMORY_ENABLE, PENDING_BITS, TABLE_BAR_LEN,
};

const BAR0_HIGH: u16 = 0x14;
const BAR4: u16 = 0x20;
const BAR4_HIGH: u16 = 0x24;
const PM: u16 = 0x40;
const MSIX: u16 = 0x70;
const PCIE: u16 = 0xa0;

/// In Device Capabilities.
const FLR_CAPABLE: u32 = 1 << 28;

/// MSI-X vectors.
pub(super) const VECTORS: u16 = 64;

pub(super) static LAYOUT: Layout = Layout {
    pm: PM,
    pcie: PCIE,
    msix: MSIX,
    vectors: VECTORS,
    bars: &[
        (BAR0, !(super::registers::BAR0_LEN - 1)),
        (BAR0_HIGH, u32::MAX),
        (BAR4, !(TABLE_BAR_LEN - 1)),
        (BAR4_HIGH, u32::MAX),
    ],
    function_reset: true,
};

/// The device as a system leaves it that has found it.
pub(super) fn config_space(device: u16) -> ConfigSpace {
    let initial = [
        (0x00, u32::from(device) << 16 | 0x8086),
        (COMMAND, 0x0010_0000 | MEMORY_ENABLE),
        (0x08, 0x0200_0001), // Ethernet controller, revision 1
        (0x0c, 0x0000_0010),
        (BAR0, 0xc), // 64 bits, prefetchable
        (BAR4, 0xc),
        (0x2c, 0x000c_8086),
        (0x34, u32::from(PM)),
        (0x3c, 0x0000_0100), // INTA
        // Power management 3; next: MSI-X.
        (PM, 0x4823_0001 | u32::from(MSIX) << 8),
        (LAYOUT.pmcsr(), 0x0000_2008), // no soft reset of its own
        // MSI-X: 64 vectors; table and pending bits in BAR 4; next: PCIe.
        (
            MSIX,
            0x0000_0011 | (VECTORS as u32 - 1) << 16 | (PCIE as u32) << 8,
        ),
        (MSIX + 4, 4),
        (MSIX + 8, PENDING_BITS | 4),
        // PCI Express 2, endpoint; the last one. 512-byte payloads, function level reset.
        (PCIE, 0x0002_0010),
        (PCIE + 4, 0x0000_8cc2 | FLR_CAPABLE),
        (LAYOUT.device_control(), 0x0000_2810),
        // 5 GT/s, eight lanes.
        (PCIE + 0x0c, 0x0000_0c82),
        (LAYOUT.link_control(), 0x1082_0000),
    ];
    ConfigSpace::new(&LAYOUT, &initial)
}
