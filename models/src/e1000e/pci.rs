//! Configuration space and the MSI-X table.
//!
//! Offsets of the capabilities as in QEMU `e1000e.c`. Left out: MSI, the flash and I/O BARs (the
//! NVM can turn them off), the expansion ROM, extended capabilities. There is no function level
//! reset: the 82574 is a PCIe 1.1 device and does not offer one (nor does QEMU's).

use crate::intel::pci::{
    BAR0, COMMAND, ConfigSpace, Layout, MEMORY_ENABLE, PENDING_BITS, TABLE_BAR_LEN,
};

const BAR3: u16 = 0x1c;
const PM: u16 = 0xc8;
const PCIE: u16 = 0xe0;
const MSIX: u16 = 0xa0;

/// MSI-X vectors.
pub(super) const VECTORS: u16 = 5;

pub(super) static LAYOUT: Layout = Layout {
    pm: PM,
    pcie: PCIE,
    msix: MSIX,
    vectors: VECTORS,
    bars: &[
        (BAR0, !(super::registers::BAR0_LEN - 1)),
        (BAR3, !(TABLE_BAR_LEN - 1)),
    ],
    function_reset: false,
};

/// The device as a system leaves it that has found it.
pub(super) fn config_space() -> ConfigSpace {
    let initial = [
        (0x00, 0x10d3_8086),
        (COMMAND, 0x0010_0000 | MEMORY_ENABLE),
        (0x08, 0x0200_0000), // Ethernet controller, revision 0
        (0x0c, 0x0000_0010),
        (0x2c, 0xa01f_8086), // the desktop adapter
        (0x34, u32::from(PM)),
        (0x3c, 0x0000_0100), // INTA
        // Power management 1.1, device specific initialisation; next: PCIe.
        (PM, 0x0022_0001 | u32::from(PCIE) << 8),
        // PCI Express 1, endpoint; next: MSI-X. 256-byte payloads, role-based errors.
        (PCIE, 0x0001_0010 | u32::from(MSIX) << 8),
        (PCIE + 4, 0x0000_8001),
        // 2.5 GT/s, one lane, L0s and L1.
        (PCIE + 0x0c, 0x0000_0c11),
        (LAYOUT.link_control(), 0x0011_0000),
        // MSI-X, the last capability: five vectors; table and pending bits in BAR 3.
        (MSIX, 0x0000_0011 | (VECTORS as u32 - 1) << 16),
        (MSIX + 4, 3),
        (MSIX + 8, PENDING_BITS | 3),
    ];
    ConfigSpace::new(&LAYOUT, &initial)
}
