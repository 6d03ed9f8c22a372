//! Configuration space and the MSI-X table.
//!
//! Capabilities in the order of the 82599's: power management, MSI-X, PCI Express. Left out: MSI,
//! the I/O BAR, the expansion ROM, vital product data, extended capabilities. Going from D3hot to
//! D0, and a function level reset, reset the device.

/// Where the capabilities are.
pub(super) const PM: u16 = 0x40;
pub(super) const MSIX: u16 = 0x70;
pub(super) const PCIE: u16 = 0xa0;

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const BAR0_HIGH: u16 = 0x14;
const BAR4: u16 = 0x20;
const BAR4_HIGH: u16 = 0x24;
const PMCSR: u16 = PM + 4;
const DEVICE_CAPABILITIES: u16 = PCIE + 4;
pub(super) const DEVICE_CONTROL: u16 = PCIE + 8;
const LINK_CONTROL: u16 = PCIE + 0x10;

const MEMORY_ENABLE: u32 = 1 << 1;
const BUS_MASTER_ENABLE: u32 = 1 << 2;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;
/// In Device Capabilities.
const FLR_CAPABLE: u32 = 1 << 28;
/// In Device Control; reads 0.
pub(super) const INITIATE_FLR: u32 = 1 << 15;
/// In Device Status, the upper half of its word.
pub(super) const TRANSACTIONS_PENDING: u32 = 1 << (16 + 5);

/// MSI-X vectors.
pub(super) const VECTORS: u16 = 64;
/// Bytes of BAR 4, and where the pending bits are in it.
pub(super) const BAR4_LEN: u32 = 16 * 1024;
const PENDING_BITS: u32 = 0x2000;

/// What a write to configuration space makes the device do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    None,
    /// From D3hot to D0, or a function level reset: reset.
    Reset,
}

pub(super) struct ConfigSpace {
    words: [u32; 64],
    /// Address, upper address, data, mask; for each vector.
    table: [u32; 4 * VECTORS as usize],
    pending: u64,
}

impl ConfigSpace {
    /// As a system leaves it that has found the device: memory enabled, bus mastering and MSI-X
    /// off, no vector masked (the table is the system's, and out of the driver's sight).
    pub(super) fn new(device: u16) -> Self {
        let mut words = [0; 64];
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
            (PMCSR, 0x0000_2008), // no soft reset of its own
            // MSI-X: 64 vectors; table and pending bits in BAR 4; next: PCIe.
            (
                MSIX,
                0x0000_0011 | (VECTORS as u32 - 1) << 16 | (PCIE as u32) << 8,
            ),
            (MSIX + 4, 4),
            (MSIX + 8, PENDING_BITS | 4),
            // PCI Express 2, endpoint; the last one. 512-byte payloads, function level reset.
            (PCIE, 0x0002_0010),
            (DEVICE_CAPABILITIES, 0x0000_8cc2 | FLR_CAPABLE),
            (DEVICE_CONTROL, 0x0000_2810),
            // 5 GT/s, eight lanes.
            (PCIE + 0x0c, 0x0000_0c82),
            (LINK_CONTROL, 0x1082_0000),
        ];
        for (at, value) in initial {
            words[at as usize / 4] = value;
        }
        Self {
            words,
            table: [0; 4 * VECTORS as usize],
            pending: 0,
        }
    }

    fn word(&self, at: u16) -> u32 {
        self.words.get(usize::from(at) / 4).copied().unwrap_or(0)
    }

    pub(super) fn read(&self, at: u16, transactions_pending: bool) -> u32 {
        let word = self.word(at & !3);
        if at & !3 == DEVICE_CONTROL && transactions_pending {
            word | TRANSACTIONS_PENDING
        } else {
            word
        }
    }

    pub(super) fn write(&mut self, at: u16, value: u32) -> Effect {
        let writable = match at & !3 {
            COMMAND => 0x0000_0547,
            0x0c => 0x0000_00ff,
            BAR0 => !(super::registers::BAR0_LEN - 1),
            BAR4 => !(BAR4_LEN - 1),
            BAR0_HIGH | BAR4_HIGH => u32::MAX,
            0x3c => 0x0000_00ff,
            PMCSR => 0x0000_0103,
            DEVICE_CONTROL => 0x0000_7fff,
            LINK_CONTROL => 0x0000_01fb,
            MSIX => MSIX_ENABLE | MSIX_FUNCTION_MASK,
            _ => 0,
        };
        let slept = self.sleeps();
        if let Some(word) = self.words.get_mut(usize::from(at) / 4) {
            *word = *word & !writable | value & writable;
        }
        let restarts = at & !3 == DEVICE_CONTROL && value & INITIATE_FLR != 0;
        if restarts || slept && !self.sleeps() {
            self.forget();
            return Effect::Reset;
        }
        Effect::None
    }

    /// A reset takes bus mastering and MSI-X with it. (The BARs and the memory enable bit as
    /// well, which the system would write again: here they stay.)
    fn forget(&mut self) {
        for (at, bits) in [
            (COMMAND, BUS_MASTER_ENABLE),
            (MSIX, MSIX_ENABLE | MSIX_FUNCTION_MASK),
        ] {
            if let Some(word) = self.words.get_mut(usize::from(at) / 4) {
                *word &= !bits;
            }
        }
        self.pending = 0;
    }

    fn sleeps(&self) -> bool {
        self.word(PMCSR) & 0b11 != 0
    }

    /// Whether the device answers at its BARs.
    pub(super) fn answers(&self) -> bool {
        self.word(COMMAND) & MEMORY_ENABLE != 0 && !self.sleeps()
    }

    /// Whether the device may start requests of its own.
    pub(super) fn is_bus_master(&self) -> bool {
        self.word(COMMAND) & BUS_MASTER_ENABLE != 0 && !self.sleeps()
    }

    pub(super) fn has_msix(&self) -> bool {
        self.word(MSIX) & MSIX_ENABLE != 0
    }

    /// Reads BAR 4.
    pub(super) fn table_read(&self, at: u32) -> u32 {
        match at {
            PENDING_BITS => self.pending as u32,
            at if at == PENDING_BITS + 4 => (self.pending >> 32) as u32,
            _ => self.table.get(at as usize / 4).copied().unwrap_or(0),
        }
    }

    /// Writes BAR 4.
    pub(super) fn table_write(&mut self, at: u32, value: u32) {
        if let Some(word) = self.table.get_mut(at as usize / 4) {
            *word = value;
        }
    }

    fn is_masked(&self, vector: u16) -> bool {
        let mask = self.table.get(usize::from(vector) * 4 + 3);
        self.word(MSIX) & MSIX_FUNCTION_MASK != 0 || mask.is_some_and(|word| word & 1 != 0)
    }

    /// Whether `vector` may be sent now; if it is masked it is remembered.
    pub(super) fn offer(&mut self, vector: u16) -> bool {
        let bit = 1u64 << (vector & 63);
        if self.is_masked(vector) {
            self.pending |= bit;
            return false;
        }
        self.pending &= !bit;
        true
    }

    /// A vector that was remembered and is masked no more.
    pub(super) fn take_unmasked(&mut self) -> Option<u16> {
        if self.pending == 0 {
            return None;
        }
        let vector = (0..VECTORS).find(|v| self.pending >> v & 1 != 0 && !self.is_masked(*v))?;
        self.pending &= !(1 << vector);
        Some(vector)
    }
}
