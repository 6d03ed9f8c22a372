//! Configuration space and the MSI-X table.
//!
//! Ids, and BARs as QEMU has them: MSI-X in BAR 1, the structures of virtio in BAR 4. Left out:
//! PCI Express and power management capabilities, MSI, and INTx beyond the ISR register.

/// Bytes of BAR 1 and where its pending bits are.
pub(super) const BAR1_LEN: u32 = 0x1000;
const PENDING_BITS: u32 = 0x800;
/// Bytes of BAR 4, and the structures in it.
pub(super) const BAR4_LEN: u32 = 0x4000;
pub(super) const COMMON: u32 = 0;
pub(super) const COMMON_LEN: u32 = 0x40;
pub(super) const ISR: u32 = 0x1000;
pub(super) const DEVICE: u32 = 0x2000;
pub(super) const DEVICE_LEN: u32 = 12;
pub(super) const NOTIFY: u32 = 0x3000;
/// Bytes from one doorbell to the next.
pub(super) const MULTIPLIER: u32 = 4;

const COMMAND: u16 = 0x04;
const MEMORY_ENABLE: u32 = 1 << 1;
const BUS_MASTER_ENABLE: u32 = 1 << 2;
const BAR1: u16 = 0x14;
const BAR4: u16 = 0x20;
const BAR4_HIGH: u16 = 0x24;
const VENDOR: u32 = 0x09;
const MSIX: u16 = 0xe0;
const MSIX_ENABLE: u32 = 1 << 31;
const MSIX_FUNCTION_MASK: u32 = 1 << 30;
/// The capability through which configuration space reaches the BARs.
const WINDOW: u16 = 0xa8;
pub(super) const WINDOW_DATA: u16 = WINDOW + 16;

/// What a word of configuration space is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Vendor and device.
    Id,
    /// Where the first capability is.
    Pointer,
    /// The first word of a capability: its kind, where the next one is, its length and type.
    Head,
    /// The BAR of a structure.
    Bar,
    /// Where a structure is in its BAR.
    Offset,
    /// Bytes of a structure.
    Length,
    /// The multiplier of the doorbells.
    Multiplier,
    Other,
}

/// What the window in configuration space shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) bar: u8,
    pub(super) offset: u32,
    pub(super) width: u32,
}

pub(super) struct ConfigSpace {
    words: [u32; 64],
    /// Address, upper address, data, mask; for each vector.
    table: Vec<u32>,
    pending: u64,
    vectors: u16,
}

impl ConfigSpace {
    /// As a system leaves it that has found the device: memory enabled, bus mastering and MSI-X
    /// off, no vector masked.
    pub(super) fn new(vectors: u16, odd: bool) -> Self {
        let mut space = Self {
            words: [0; 64],
            table: vec![0; 4 * usize::from(vectors)],
            pending: 0,
            vectors,
        };
        space.set(0x00, 0x1041_1af4);
        space.set(COMMAND, 0x0010_0000 | MEMORY_ENABLE);
        space.set(0x08, 0x0200_0001); // Ethernet controller, revision 1
        space.set(BAR4, 0xc); // 64 bits, prefetchable
        space.set(0x2c, 0x1100_1af4);
        space.set(0x34, 0x40);
        let mut at = 0x40;
        if odd {
            // A structure of a reserved type and one in a reserved BAR: a driver ignores both.
            at = space.structure(at, 0x7f, 4, 0, 0x40, 16);
            at = space.structure(at, 1, 7, 0, 0x40, 16);
        }
        let longer = if odd { 20 } else { 16 };
        at = space.structure(at, 1, 4, COMMON, COMMON_LEN, longer);
        at = space.structure(at, 3, 4, ISR, 1, 16);
        at = space.structure(at, 4, 4, DEVICE, DEVICE_LEN, 16);
        let doorbells = MULTIPLIER * u32::from(vectors);
        space.set(at + 16, MULTIPLIER);
        let notify = space.structure(at, 2, 4, NOTIFY, doorbells, 20);
        // The last ones have places of their own.
        space.link(at, WINDOW);
        debug_assert!(notify <= WINDOW);
        space.structure(WINDOW, 5, 0, 0, 0, 20);
        space.link(WINDOW, MSIX);
        space.set(MSIX, 0x11 | (u32::from(vectors) - 1) << 16);
        space.set(MSIX + 4, 1);
        space.set(MSIX + 8, PENDING_BITS | 1);
        space
    }

    /// Writes a vendor capability; where the next one goes.
    fn structure(&mut self, at: u16, kind: u32, bar: u32, offset: u32, len: u32, size: u16) -> u16 {
        let next = at + size;
        self.set(
            at,
            VENDOR | u32::from(next) << 8 | u32::from(size) << 16 | kind << 24,
        );
        self.set(at + 4, bar);
        self.set(at + 8, offset);
        self.set(at + 12, len);
        next
    }

    fn link(&mut self, at: u16, next: u16) {
        self.set(at, self.word(at) & !0xff00 | u32::from(next) << 8);
    }

    fn set(&mut self, at: u16, value: u32) {
        if let Some(word) = self.words.get_mut(usize::from(at) / 4) {
            *word = value;
        }
    }

    pub(super) fn word(&self, at: u16) -> u32 {
        self.words.get(usize::from(at) / 4).copied().unwrap_or(0)
    }

    /// What the word at `at` is about.
    pub(super) fn part(&self, at: u16) -> Part {
        match at & !3 {
            0 => return Part::Id,
            0x34 => return Part::Pointer,
            _ => {}
        }
        let mut capability = self.word(0x34) as u16 & 0xfc;
        while capability != 0 {
            let word = self.word(capability);
            let structure = word & 0xff == VENDOR;
            match (at & !3).checked_sub(capability) {
                Some(0) => return Part::Head,
                Some(4) if structure => return Part::Bar,
                Some(8) if structure => return Part::Offset,
                Some(12) if structure => return Part::Length,
                Some(16) if structure && word >> 24 == 2 => return Part::Multiplier,
                _ => {}
            }
            capability = (word >> 8) as u16 & 0xfc;
        }
        Part::Other
    }

    pub(super) fn write(&mut self, at: u16, value: u32) {
        let writable = match at & !3 {
            COMMAND => 0x0000_0547,
            0x0c => 0x0000_00ff,
            BAR1 => !(BAR1_LEN - 1),
            BAR4 => !(BAR4_LEN - 1),
            BAR4_HIGH => u32::MAX,
            0x3c => 0x0000_00ff,
            at if at == WINDOW + 4 => 0xff,
            at if at == WINDOW + 8 || at == WINDOW + 12 => u32::MAX,
            MSIX => MSIX_ENABLE | MSIX_FUNCTION_MASK,
            _ => 0,
        };
        self.set(at, self.word(at) & !writable | value & writable);
    }

    /// Where the window looks; `None` if it does not look at a register of BAR 4.
    pub(super) fn window(&self) -> Option<Window> {
        let window = Window {
            bar: self.word(WINDOW + 4) as u8,
            offset: self.word(WINDOW + 8),
            width: self.word(WINDOW + 12),
        };
        let fits = matches!(window.width, 1 | 2 | 4)
            && window.offset.is_multiple_of(window.width)
            && window.offset < BAR4_LEN
            && window.bar == 4;
        fits.then_some(window)
    }

    /// Whether the device answers at its BARs.
    pub(super) fn answers(&self) -> bool {
        self.word(COMMAND) & MEMORY_ENABLE != 0
    }

    /// Whether the device may start requests of its own.
    pub(super) fn is_bus_master(&self) -> bool {
        self.word(COMMAND) & BUS_MASTER_ENABLE != 0
    }

    pub(super) fn has_msix(&self) -> bool {
        self.word(MSIX) & MSIX_ENABLE != 0
    }

    pub(super) fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Reads BAR 1.
    pub(super) fn table_read(&self, at: u32) -> u32 {
        match at {
            PENDING_BITS => self.pending as u32,
            _ => self.table.get(at as usize / 4).copied().unwrap_or(0),
        }
    }

    /// Writes BAR 1.
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
        let bit = 1u64.checked_shl(vector.into()).unwrap_or(0);
        if self.is_masked(vector) {
            self.pending |= bit;
            return false;
        }
        self.pending &= !bit;
        true
    }

    /// A vector that was remembered and is masked no more.
    pub(super) fn take_unmasked(&mut self) -> Option<u16> {
        let vector =
            (0..self.vectors).find(|v| self.pending >> v & 1 != 0 && !self.is_masked(*v))?;
        self.pending &= !(1 << vector);
        Some(vector)
    }
}
