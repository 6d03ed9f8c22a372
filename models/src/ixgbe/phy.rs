//! The PHY of an X540, as far as Linux's ixgbe asks for it: it says what it is, and stores what is
//! written. Without one Linux looks for a PHY at 32 addresses at every reset, for seconds.
//!
//! The registers are those of IEEE 802.3 clause 45, behind MSCA and MSRWD (X550 datasheet 8.2.2.16.4
//! and 5; opcodes 802.3 table 45-78). The link is LINKS alone: nothing is negotiated here.

use std::collections::BTreeMap;

use super::bits::msca;

/// Devices of the PHY: PMA/PMD, PCS, PHY XS and auto-negotiation.
const DEVICES: u16 = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 7;
/// 10 Gb/s, 1 Gb/s and 100 Mb/s.
const SPEEDS: u16 = 1 << 0 | 1 << 4 | 1 << 5;
/// Its identifier (Linux ixgbe, `X540_PHY_ID`).
const IDENTIFIER: [u16; 2] = [0x0154, 0x0200];
/// Registers that are stored at most.
const MOST_STORED: usize = 256;
/// Bits of register 0 that clear themselves: reset, and the restart of auto-negotiation.
const SELF_CLEARING: u16 = 1 << 15 | 1 << 9;

#[derive(Debug, Default)]
pub(super) struct Phy {
    /// Of the last address cycle.
    address: u16,
    /// What was written, by device and register.
    stored: BTreeMap<(u32, u16), u16>,
}

impl Phy {
    /// A command in MSCA; what is read, if it is a reading. All ones where there is no PHY.
    pub(super) fn command(&mut self, command: u32, data: u16) -> Option<u16> {
        let is_ours = command >> msca::PORT_SHIFT & 0x1f == 0;
        let device = command >> msca::DEVICE_SHIFT & 0x1f;
        match command >> msca::OPCODE_SHIFT & 0b11 {
            msca::ADDRESS => {
                self.address = command as u16;
                None
            }
            msca::WRITE => {
                if is_ours {
                    self.write(device, data);
                }
                None
            }
            opcode => {
                let value = if is_ours { self.read(device) } else { u16::MAX };
                if opcode == msca::READ_INCREMENT {
                    self.address = self.address.wrapping_add(1);
                }
                Some(value)
            }
        }
    }

    fn write(&mut self, device: u32, data: u16) {
        let kept = if self.address == 0 {
            data & !SELF_CLEARING
        } else {
            data
        };
        let key = (device, self.address);
        if self.stored.len() < MOST_STORED || self.stored.contains_key(&key) {
            self.stored.insert(key, kept);
        }
    }

    fn read(&self, device: u32) -> u16 {
        if device > 15 || DEVICES >> device & 1 == 0 {
            // The vendor's devices 30 and 31 are there, without an identifier.
            let stored = self.stored.get(&(device, self.address)).copied();
            return if device >= 30 {
                stored.unwrap_or(0)
            } else {
                u16::MAX
            };
        }
        match self.address {
            2 => IDENTIFIER[0],
            3 => IDENTIFIER[1],
            4 if device == 1 => SPEEDS,
            5 => DEVICES,
            // A device answers at this address.
            8 => 1 << 15,
            _ => self
                .stored
                .get(&(device, self.address))
                .copied()
                .unwrap_or(0),
        }
    }
}
