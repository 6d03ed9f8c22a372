//! The PHY behind MDIC: IEEE 802.3 clause 22 registers and auto-negotiation.
//!
//! Identifiers and defaults as in QEMU `e1000e_core.c` (the PHY of the 82574). Pages 0, 2, 3, 5
//! and 6 are there; their registers store.

use super::bits::mdic;
use super::pace::{Deadline, Pace, Random};

/// Its address on the management bus.
const ADDRESS: u32 = 1;

const BMCR: usize = 0;
const BMSR: usize = 1;
const ID1: usize = 2;
const ID2: usize = 3;
const ANLPAR: usize = 5;
const GIGABIT_STATUS: usize = 10;
const EXTENDED_STATUS: usize = 15;
const COPPER_STATUS: usize = 17;
const PAGE_SELECT: usize = 22;

const BMCR_RESET: u16 = 1 << 15;
const BMCR_LOOPBACK: u16 = 1 << 14;
const BMCR_AUTO_NEGOTIATION: u16 = 1 << 12;
const BMCR_POWER_DOWN: u16 = 1 << 11;
const BMCR_RESTART: u16 = 1 << 9;
const BMSR_LINK: u16 = 1 << 2;
const BMSR_NEGOTIATED: u16 = 1 << 5;

pub(super) struct Phy {
    pages: [[u16; 32]; 7],
    link: bool,
    negotiation: Option<Deadline>,
    /// BMSR shows a lost link once (802.3 clause 22.2.4.2.13).
    latched_down: bool,
}

impl Phy {
    pub(super) fn new() -> Self {
        let mut phy = Self {
            pages: [[0; 32]; 7],
            link: false,
            negotiation: None,
            latched_down: true,
        };
        phy.reset();
        phy
    }

    pub(super) fn reset(&mut self) {
        self.pages = [[0; 32]; 7];
        for (at, value) in [
            (BMCR, 0x1140),
            (BMSR, 0x7949),
            (ID1, 0x0141),
            (ID2, 0x0cb1),
            (4, 0x0de1),
            (6, 0x0004),
            (7, 0x2001),
            (9, 0x0f00),
            (EXTENDED_STATUS, 0x3000),
            (16, 0x3360),
        ] {
            self.pages[0][at] = value;
        }
        self.lose();
    }

    /// Whether there is a link to the partner.
    pub(super) fn has_link(&self) -> bool {
        self.link
    }

    /// Whether it sends back what it gets from the MAC, and nothing to the wire (802.3 clause
    /// 22.2.4.1.2).
    pub(super) fn loops_back(&self) -> bool {
        self.pages[0][BMCR] & BMCR_LOOPBACK != 0
    }

    fn lose(&mut self) {
        self.link = false;
        self.latched_down = true;
        self.negotiation = None;
    }

    /// Follows the carrier of the wire; `nanos` is how long a negotiation takes.
    pub(super) fn follow(&mut self, carrier: bool, held: bool, pace: &Pace, nanos: u64) {
        let off = self.pages[0][BMCR] & BMCR_POWER_DOWN != 0;
        if !carrier || off || held {
            if self.link || self.negotiation.is_some() {
                self.lose();
            }
        } else if !self.link {
            let deadline = *self
                .negotiation
                .get_or_insert_with(|| Deadline::after(pace, nanos));
            if deadline.has_passed(pace) {
                self.link = true;
                self.negotiation = None;
            }
        }
    }

    /// Carries out what was written to MDIC and returns what MDIC reads afterwards.
    pub(super) fn access(&mut self, value: u32) -> u32 {
        let register = (value >> mdic::REGISTER_SHIFT & 0x1f) as usize;
        let page = match (register, self.pages[0][PAGE_SELECT]) {
            // These are the same on every page.
            (0..=15 | PAGE_SELECT, _) => 0,
            (_, page @ (0 | 2 | 3 | 5 | 6)) => usize::from(page),
            _ => return value | mdic::READY | mdic::ERROR,
        };
        if value >> mdic::PHY_SHIFT & 0x1f != ADDRESS {
            return value | mdic::READY | mdic::ERROR;
        }
        if value >> mdic::OP_SHIFT & 0b11 == mdic::OP_READ {
            let data = u32::from(self.read(page, register));
            return value & !mdic::DATA | data | mdic::READY;
        }
        self.write(page, register, (value & mdic::DATA) as u16);
        value | mdic::READY
    }

    fn read(&mut self, page: usize, register: usize) -> u16 {
        let stored = self.pages.get(page).and_then(|p| p.get(register));
        let stored = stored.copied().unwrap_or(0);
        match (page, register) {
            (0, BMSR) => {
                let link = self.link && !core::mem::take(&mut self.latched_down);
                let mut value = stored;
                if link {
                    value |= BMSR_LINK;
                }
                if self.link {
                    value |= BMSR_NEGOTIATED;
                }
                value
            }
            // The partner can do everything too.
            (0, ANLPAR) if self.link => 0x4de1,
            (0, GIGABIT_STATUS) if self.link => 0x3c00,
            // 1000 Mb/s, full duplex, resolved, link.
            (0, COPPER_STATUS) if self.link => 0b10 << 14 | 1 << 13 | 1 << 11 | 1 << 10,
            _ => stored,
        }
    }

    fn write(&mut self, page: usize, register: usize, value: u16) {
        match (page, register) {
            (0, BMCR) => {
                if value & BMCR_RESET != 0 {
                    self.reset();
                    return;
                }
                if value & BMCR_RESTART != 0 && value & BMCR_AUTO_NEGOTIATION != 0 {
                    self.lose();
                }
                self.pages[0][BMCR] = value & !(BMCR_RESTART | 0x3f);
            }
            (0, BMSR | ID1 | ID2 | ANLPAR | GIGABIT_STATUS | EXTENDED_STATUS | COPPER_STATUS) => {}
            _ => {
                if let Some(word) = self.pages.get_mut(page).and_then(|p| p.get_mut(register)) {
                    *word = value;
                }
            }
        }
    }

    /// How long the next negotiation takes.
    pub(super) fn patience(slow: bool, random: &mut Random) -> u64 {
        if slow { random.below(5_000_000) } else { 0 }
    }
}
