//! Configuration space and the MSI-X table.
//!
//! As a system leaves it that has found the device: memory enabled, bus mastering and MSI-X off, no
//! vector masked (the table is the system's, and out of the driver's sight). Going from D3hot to D0
//! resets the device, and a function level reset where it offers one.

pub(crate) const COMMAND: u16 = 0x04;
pub(crate) const BAR0: u16 = 0x10;

pub(crate) const MEMORY_ENABLE: u32 = 1 << 1;
const BUS_MASTER_ENABLE: u32 = 1 << 2;
const INTX_DISABLE: u32 = 1 << 10;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;
/// In Device Status, the upper half of its word.
pub(crate) const TRANSACTIONS_PENDING: u32 = 1 << (16 + 5);
/// In Device Control; reads 0.
const INITIATE_FLR: u32 = 1 << 15;

/// Bytes of the BAR with the table, and where the pending bits are in it.
pub(crate) const TABLE_BAR_LEN: u32 = 16 * 1024;
pub(crate) const PENDING_BITS: u32 = 0x2000;

/// Where a device has what.
pub(crate) struct Layout {
    /// Capabilities: power management, PCI Express, MSI-X.
    pub(crate) pm: u16,
    pub(crate) pcie: u16,
    pub(crate) msix: u16,
    /// MSI-X vectors, at most 64.
    pub(crate) vectors: u16,
    /// The words of BARs, and which of their bits can be written.
    pub(crate) bars: &'static [(u16, u32)],
    /// Whether it offers a function level reset.
    pub(crate) function_reset: bool,
}

impl Layout {
    /// Device Control and Device Status.
    pub(crate) const fn device_control(&self) -> u16 {
        self.pcie + 8
    }

    /// Link Control and Link Status.
    pub(crate) const fn link_control(&self) -> u16 {
        self.pcie + 0x10
    }

    /// Power Management Control and Status.
    pub(crate) const fn pmcsr(&self) -> u16 {
        self.pm + 4
    }

    /// Which bits of the word at `at` can be written.
    fn writable(&self, at: u16) -> u32 {
        match at {
            COMMAND => 0x0000_0547,
            0x0c | 0x3c => 0x0000_00ff,
            at if at == self.pmcsr() => 0x0000_0103,
            at if at == self.device_control() => 0x0000_7fff,
            at if at == self.link_control() => 0x0000_01fb,
            at if at == self.msix => MSIX_ENABLE | MSIX_FUNCTION_MASK,
            at => {
                let bar = self.bars.iter().find(|(bar, _)| *bar == at);
                bar.map_or(0, |(_, writable)| *writable)
            }
        }
    }
}

/// What a write to configuration space makes the device do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    None,
    /// From D3hot to D0, or a function level reset: reset.
    Reset,
}

pub(crate) struct ConfigSpace {
    layout: &'static Layout,
    words: [u32; 64],
    /// Address, upper address, data, mask; for each vector.
    table: Vec<u32>,
    pending: u64,
}

impl ConfigSpace {
    pub(crate) fn new(layout: &'static Layout, initial: &[(u16, u32)]) -> Self {
        let mut words = [0; 64];
        for (at, value) in initial {
            words[usize::from(*at) / 4] = *value;
        }
        Self {
            layout,
            words,
            table: vec![0; 4 * usize::from(layout.vectors)],
            pending: 0,
        }
    }

    fn word(&self, at: u16) -> u32 {
        self.words.get(usize::from(at) / 4).copied().unwrap_or(0)
    }

    pub(crate) fn read(&self, at: u16, transactions_pending: bool) -> u32 {
        let word = self.word(at & !3);
        if at & !3 == self.layout.device_control() && transactions_pending {
            word | TRANSACTIONS_PENDING
        } else {
            word
        }
    }

    pub(crate) fn write(&mut self, at: u16, value: u32) -> Effect {
        let writable = self.layout.writable(at & !3);
        let slept = self.sleeps();
        if let Some(word) = self.words.get_mut(usize::from(at) / 4) {
            *word = *word & !writable | value & writable;
        }
        let is_reset = self.layout.function_reset
            && at & !3 == self.layout.device_control()
            && value & INITIATE_FLR != 0;
        if is_reset || slept && !self.sleeps() {
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
            (self.layout.msix, MSIX_ENABLE | MSIX_FUNCTION_MASK),
        ] {
            if let Some(word) = self.words.get_mut(usize::from(at) / 4) {
                *word &= !bits;
            }
        }
        self.pending = 0;
    }

    fn sleeps(&self) -> bool {
        self.word(self.layout.pmcsr()) & 0b11 != 0
    }

    /// Whether the device answers at its BARs.
    pub(crate) fn answers(&self) -> bool {
        self.word(COMMAND) & MEMORY_ENABLE != 0 && !self.sleeps()
    }

    /// Whether the device may start requests of its own.
    pub(crate) fn is_bus_master(&self) -> bool {
        self.word(COMMAND) & BUS_MASTER_ENABLE != 0 && !self.sleeps()
    }

    /// Whether the device may assert its interrupt pin: MSI-X is off, and the pin is not.
    pub(crate) fn has_pin(&self) -> bool {
        !self.has_msix() && self.word(COMMAND) & INTX_DISABLE == 0 && !self.sleeps()
    }

    pub(crate) fn has_msix(&self) -> bool {
        self.word(self.layout.msix) & MSIX_ENABLE != 0
    }

    /// Reads the BAR with the table.
    pub(crate) fn table_read(&self, at: u32) -> u32 {
        const PENDING_BITS_HIGH: u32 = PENDING_BITS + 4;
        match at {
            PENDING_BITS => self.pending as u32,
            PENDING_BITS_HIGH => (self.pending >> 32) as u32,
            _ => self.table.get(at as usize / 4).copied().unwrap_or(0),
        }
    }

    /// Writes the BAR with the table.
    pub(crate) fn table_write(&mut self, at: u32, value: u32) {
        if let Some(word) = self.table.get_mut(at as usize / 4) {
            *word = value;
        }
    }

    fn is_masked(&self, vector: u16) -> bool {
        let mask = self.table.get(usize::from(vector) * 4 + 3);
        let function = self.word(self.layout.msix) & MSIX_FUNCTION_MASK != 0;
        function || mask.is_some_and(|word| word & 1 != 0)
    }

    /// Whether `vector` may be sent now; if it is masked it is remembered.
    pub(crate) fn offer(&mut self, vector: u16) -> bool {
        let bit = 1u64 << (vector & 63);
        if self.is_masked(vector) {
            self.pending |= bit;
            return false;
        }
        self.pending &= !bit;
        true
    }

    /// A vector that was remembered and is masked no more.
    pub(crate) fn take_unmasked(&mut self) -> Option<u16> {
        if self.pending == 0 {
            return None;
        }
        let is_due = |vector: &u16| self.pending >> vector & 1 != 0 && !self.is_masked(*vector);
        let vector = (0..self.layout.vectors).find(is_due)?;
        self.pending &= !(1 << vector);
        Some(vector)
    }

    /// Forgets remembered vectors (PBACLR).
    pub(crate) fn clear_pending(&mut self, vectors: u32) {
        self.pending &= !u64::from(vectors);
    }
}
