//! Configuration space and the MSI-X table.
//!
//! Offsets of the capabilities as in QEMU `e1000e.c`. Left out: MSI, the flash and I/O BARs (the
//! NVM can turn them off), the expansion ROM, extended capabilities. There is no function level
//! reset: the 82574 is a PCIe 1.1 device and does not offer one (nor does QEMU's). Going from
//! D3hot to D0 resets it.

/// Where the capabilities are.
pub(super) const PM: u16 = 0xc8;
pub(super) const PCIE: u16 = 0xe0;
pub(super) const MSIX: u16 = 0xa0;

const COMMAND: u16 = 0x04;
const BAR0: u16 = 0x10;
const BAR3: u16 = 0x1c;
const PMCSR: u16 = PM + 4;
pub(super) const DEVICE_CONTROL: u16 = PCIE + 8;
const LINK_CONTROL: u16 = PCIE + 0x10;

const MEMORY_ENABLE: u32 = 1 << 1;
const BUS_MASTER_ENABLE: u32 = 1 << 2;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;
/// In Device Status, the upper half of its word.
pub(super) const TRANSACTIONS_PENDING: u32 = 1 << (16 + 5);

/// MSI-X vectors.
pub(super) const VECTORS: u16 = 5;
/// Bytes of BAR 3, and where the pending bits are in it.
pub(super) const BAR3_LEN: u32 = 16 * 1024;
const PENDING_BITS: u32 = 0x2000;

/// What a write to configuration space makes the device do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    None,
    /// From D3hot to D0: reset.
    PowerUp,
}

pub(super) struct ConfigSpace {
    words: [u32; 64],
    /// Address, upper address, data, mask; five times.
    table: [u32; 4 * VECTORS as usize],
    pending: u32,
}

impl ConfigSpace {
    /// As a system leaves it that has found the device: memory enabled, bus mastering and MSI-X
    /// off, no vector masked (the table is the system's, and out of the driver's sight).
    pub(super) fn new() -> Self {
        let mut words = [0; 64];
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
            (LINK_CONTROL, 0x0011_0000),
            // MSI-X, the last capability: five vectors; table and pending bits in BAR 3.
            (MSIX, 0x0000_0011 | (VECTORS as u32 - 1) << 16),
            (MSIX + 4, 3),
            (MSIX + 8, PENDING_BITS | 3),
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
            BAR3 => !(BAR3_LEN - 1),
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
        if slept && !self.sleeps() {
            self.forget();
            return Effect::PowerUp;
        }
        Effect::None
    }

    /// A power-up takes bus mastering and MSI-X with it. (The BARs as well, which the system
    /// would write again: here they stay.)
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

    /// Reads BAR 3.
    pub(super) fn table_read(&self, at: u32) -> u32 {
        match at {
            PENDING_BITS => self.pending,
            _ => self.table.get(at as usize / 4).copied().unwrap_or(0),
        }
    }

    /// Writes BAR 3.
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
        if self.is_masked(vector) {
            self.pending |= 1 << vector;
            return false;
        }
        self.pending &= !(1 << vector);
        true
    }

    /// A vector that was remembered and is masked no more.
    pub(super) fn take_unmasked(&mut self) -> Option<u16> {
        let vector = (0..VECTORS).find(|v| self.pending & 1 << v != 0 && !self.is_masked(*v))?;
        self.pending &= !(1 << vector);
        Some(vector)
    }

    /// Forgets remembered vectors (PBACLR).
    pub(super) fn clear_pending(&mut self, vectors: u32) {
        self.pending &= !vectors;
    }
}
