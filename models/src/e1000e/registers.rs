//! The register map: which register an offset is, and the words behind those that store.

use super::bits::{ctrl, eecd, offset, offset::ring, rxcsum, tarc};
use super::pace::Random;

/// Bytes of BAR 0.
pub(super) const BAR0_LEN: u32 = 128 * 1024;

/// Kilobytes of packet buffer, receive and transmit together (82574 product features: 40 KB).
pub(super) const PACKET_BUFFER_KB: u32 = 40;

/// A register as the model handles it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    Ctrl,
    Status,
    Eecd,
    Eerd,
    CtrlExt,
    Mdic,
    Icr,
    Ics,
    Ims,
    Imc,
    Eiac,
    Ivar,
    Eitr,
    Rctl,
    Tctl,
    ExtcnfCtrl,
    Pba,
    Tidv,
    Mrqc,
    Swsm,
    /// A register of a descriptor ring.
    Ring(Ring, RingRegister),
    /// A statistic, cleared by reading.
    Statistic,
    /// Holds what was last written.
    Storage,
    /// Holds what the device put there.
    ReadOnly,
}

/// A descriptor ring, by the number of its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ring {
    Transmit(usize),
    Receive(usize),
}

impl Ring {
    /// Offset of the first register of the ring.
    pub(super) const fn base(self) -> u32 {
        match self {
            Self::Transmit(queue) => offset::TX_RING + queue as u32 * ring::STRIDE,
            Self::Receive(queue) => offset::RX_RING + queue as u32 * ring::STRIDE,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RingRegister {
    BaseLow,
    BaseHigh,
    Length,
    Head,
    Tail,
    Control,
}

impl Register {
    /// The register at `offset`, a multiple of 4; `None` where the model knows of none.
    ///
    /// Not modelled: the low aliases of registers that were elsewhere in the 82542.
    pub(super) fn at(at: u32) -> Option<Self> {
        Some(match at {
            offset::CTRL | offset::CTRL_DUP => Self::Ctrl,
            offset::STATUS => Self::Status,
            offset::EECD => Self::Eecd,
            offset::EERD => Self::Eerd,
            offset::CTRL_EXT => Self::CtrlExt,
            offset::MDIC => Self::Mdic,
            offset::ICR => Self::Icr,
            offset::ICS => Self::Ics,
            offset::IMS => Self::Ims,
            offset::IMC => Self::Imc,
            offset::EIAC => Self::Eiac,
            offset::IVAR => Self::Ivar,
            offset::EITR..=0x00f8 => Self::Eitr,
            offset::RCTL => Self::Rctl,
            offset::TCTL => Self::Tctl,
            offset::EXTCNF_CTRL => Self::ExtcnfCtrl,
            offset::PBA => Self::Pba,
            offset::TIDV => Self::Tidv,
            offset::MRQC => Self::Mrqc,
            offset::SWSM => Self::Swsm,
            offset::PBS | offset::FWSM | offset::FACTPS => Self::ReadOnly,
            offset::CRCERRS..=offset::ICRXOC => Self::Statistic,
            _ => match Self::ring_at(at) {
                Some((ring, register)) => Self::Ring(ring, register),
                None if is_storage(at) => Self::Storage,
                None => return None,
            },
        })
    }

    fn ring_at(at: u32) -> Option<(Ring, RingRegister)> {
        let ring = match at & !0xff {
            0x2800 => Ring::Receive(0),
            0x2900 => Ring::Receive(1),
            0x3800 => Ring::Transmit(0),
            0x3900 => Ring::Transmit(1),
            _ => return None,
        };
        let register = match at & 0xff {
            ring::BASE_LOW => RingRegister::BaseLow,
            ring::BASE_HIGH => RingRegister::BaseHigh,
            ring::LENGTH => RingRegister::Length,
            ring::HEAD => RingRegister::Head,
            ring::TAIL => RingRegister::Tail,
            ring::CONTROL => RingRegister::Control,
            _ => return None,
        };
        Some((ring, register))
    }
}

/// Registers that hold what is written: those of features that the model has not (flow control,
/// wake-up, management, time stamps, flash), and those that another part of it looks up.
fn is_storage(at: u32) -> bool {
    matches!(
        at,
        0x001c                        // FLA
            | 0x0028 | 0x002c | 0x0030 // FCAL, FCAH, FCT
            | offset::VET
            | offset::ITR
            | offset::IAM
            | 0x0170 | 0x0178         // FCTTV, TXCW
            | offset::TIPG
            | 0x0458                  // AIT
            | offset::LEDCTL
            | 0x0f08 | 0x0f10         // EXTCNF_SIZE, POEMB
            | offset::EEMNGCTL
            | 0x1014..=0x103c         // EEMNGDATA to FLOP: flash and EEPROM writing
            | 0x2008                  // ERT
            | 0x2160 | 0x2168         // FCRTL, FCRTH
            | offset::PSRCTL
            | 0x2410..=0x2430         // RDFH to RDFPC
            | 0x2820 | 0x282c | 0x2920 // RDTR, RADV, RDTR1
            | 0x2c00 | 0x2c08         // RSRPD, RAID
            | 0x3410..=0x3430         // TDFH to TDFPC
            | 0x382c                  // TADV
            | offset::TARC0
            | offset::TARC1
            | offset::RXCSUM
            | offset::RFCTL
            | 0x5010..=0x501c         // MAVTV
            | offset::MTA..=0x53fc
            | offset::RAL..=0x547c
            | offset::VFTA..=0x57fc
            | 0x5800 | 0x5808 | 0x5810 // WUC, WUFC, WUS
            | 0x5820..=0x5830         // MANC to MFUTP23
            | 0x5838 | 0x5840..=0x5858 // IPAV, IP4AT
            | 0x5860 | 0x5880..=0x58ac // MANC2H, IP6AT, MDEF
            | 0x5900 | 0x5a00..=0x5a7c // WUPL, WUPM
            | 0x5b00..=0x5b2c         // GCR, FUNCTAG, GSCL, GSCN
            | 0x5b58 | 0x5b5c | 0x5b64 // SWSM2, SW_FW_SYNC, GCR2
            | offset::PBACLR
            | 0x5c00..=0x5cfc         // RETA, RSSRK
            | 0x5f00..=0x5f28         // FFLT
            | 0x9000..=0x9ffc         // FFMT, FTFT, FFVT
            | 0xb600..=0xb638         // time synchronisation
            | 0x1_0000..=0x1_fffc // PBM, the packet buffer
    )
}

/// Which bits of a register that stores are there; the others read 0. Where the manuals name
/// fields only, as Linux e1000e's register test expects it of an 82574 (`ethtool.c`).
pub(super) const fn implemented(at: u32) -> u32 {
    match at {
        // FCAH, FCT, VET, FCTTV, TXCW (of a SerDes, which the 82574 has not), RDTR.
        0x002c | 0x0030 | 0x0038 | 0x0170 | 0x0178 | 0x2820 => 0xffff,
        // FCRTH: bytes, in units of 8.
        0x2168 => 0xfff8,
        offset::TIPG => 0x3fff_ffff,
        // RAH: two bytes of the address, which of its pools (AS), and whether it is valid.
        at if at >= offset::RAL && at <= 0x547c && at % 8 == 4 => 0x8003_ffff,
        _ => u32::MAX,
    }
}

/// Ranges without an initial value, kept over a reset (82575EB SDM, page 41, names them; the
/// 8254x SDM 13.4.37 gives the initial value of a ring base as unknown).
const UNDEFINED: [(u32, u32); 6] = [
    (0x2800, 0x2804),
    (0x2900, 0x2904),
    (0x3800, 0x3804),
    (0x3900, 0x3904),
    (offset::MTA, 0x53fc),
    (offset::VFTA, 0x57fc),
];

/// The words behind the registers.
pub(super) struct RegisterFile {
    words: Box<[u32]>,
}

impl RegisterFile {
    /// As after power-up; what has no initial value is rubbish if there is a source of it.
    pub(super) fn new(rubbish: Option<&mut Random>) -> Self {
        let mut file = Self {
            words: vec![0; BAR0_LEN as usize / 4].into_boxed_slice(),
        };
        file.set(offset::PBA, 0x0014_0014);
        if let Some(random) = rubbish {
            for (first, last) in UNDEFINED {
                for at in (first..=last).step_by(4) {
                    let value = random.next() as u32;
                    // The low bits of a ring base read 0.
                    let aligned = if at < offset::MTA && at % 8 == 0 {
                        !0xf
                    } else {
                        !0
                    };
                    file.set(at, value & aligned);
                }
            }
        }
        file
    }

    /// The word at `at`; 0 beyond the last one.
    #[inline]
    pub(super) fn get(&self, at: u32) -> u32 {
        self.words.get(at as usize / 4).copied().unwrap_or(0)
    }

    pub(super) fn set(&mut self, at: u32, value: u32) {
        if let Some(word) = self.words.get_mut(at as usize / 4) {
            *word = value;
        }
    }

    /// Sets what a reset sets. PBA keeps its value; Linux writes it and then resets,
    /// which is taken here as the moment from which it counts.
    ///
    /// Initial values: QEMU `e1000e_core.c`. CTRL.SLU is 0 here (there it is 1): the driver has
    /// to set it, and one that does not should see no link.
    pub(super) fn reset(&mut self) {
        for (index, word) in self.words.iter_mut().enumerate() {
            let at = index as u32 * 4;
            let kept = |&(first, last): &(u32, u32)| (first..=last).contains(&at);
            if at != offset::PBA && !UNDEFINED.iter().any(kept) {
                *word = 0;
            }
        }
        let fixed = [
            (
                offset::CTRL,
                ctrl::FD | ctrl::SPEED_1000 | 1 << 18 | 1 << 20,
            ),
            (offset::EECD, eecd::PRES),
            (offset::EXTCNF_CTRL, 1 << 3),
            (offset::LEDCTL, 0x0006_8302),
            (offset::TIPG, 8 | 8 << 10 | 6 << 20),
            (offset::PBS, PACKET_BUFFER_KB),
            (0x2828, 1 << 16),
            (0x2928, 1 << 16),
            (offset::TARC0, 3 | tarc::ENABLE),
            (offset::TARC1, 3 | tarc::ENABLE),
            (offset::RXCSUM, rxcsum::IPOFL | rxcsum::TUOFL),
            (offset::FACTPS, 0x2000_0008),
            (0x1028, 2), // FLASHT
            (offset::PSRCTL, 0x0004_0402),
            (offset::VET, 0x8100),
        ];
        for (at, value) in fixed {
            self.set(at, value);
        }
    }

    /// Bytes that a frame may have in all its descriptors: 80 less than the transmit packet
    /// buffer (8254x SDM 3.3.7, 82583V datasheet 7.2.9.1.2).
    pub(super) fn transmit_limit(pba: u32) -> usize {
        ((pba >> 16) as usize * 1024).saturating_sub(80)
    }

    /// Where a ring lies, and how many descriptors it has.
    pub(super) fn ring(&self, which: Ring) -> (u64, u32) {
        let base = which.base();
        let low = u64::from(self.get(base + ring::BASE_LOW));
        let high = u64::from(self.get(base + ring::BASE_HIGH));
        let entries = self.get(base + ring::LENGTH) / super::bits::DESCRIPTOR;
        (high << 32 | low, entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_finds_registers_by_their_offsets() {
        assert_eq!(Register::at(0x0000), Some(Register::Ctrl));
        assert_eq!(Register::at(0x0004), Some(Register::Ctrl));
        assert_eq!(Register::at(0x00f8), Some(Register::Eitr));
        assert_eq!(
            Register::at(0x3918),
            Some(Register::Ring(Ring::Transmit(1), RingRegister::Tail))
        );
        assert_eq!(Register::at(0x5208), Some(Register::Storage));
        assert_eq!(Register::at(0x4074), Some(Register::Statistic));
        assert_eq!(Register::at(0x0108), None);
        assert_eq!(Register::at(0x3834), None);
    }

    #[test]
    fn a_reset_keeps_the_packet_buffer_allocation_and_what_has_no_default() {
        let mut file = RegisterFile::new(Some(&mut Random::new(1)));
        let mta = file.get(offset::MTA);
        assert_ne!(mta, 0, "seed 1");
        file.set(offset::PBA, 0x0008_0020);
        file.set(offset::VET, 0x88a8);
        file.reset();
        assert_eq!(file.get(offset::MTA), mta, "seed 1");
        assert_eq!(file.get(offset::PBA), 0x0008_0020, "seed 1");
        assert_eq!(file.get(offset::VET), 0x8100, "seed 1");
        assert_eq!(RegisterFile::transmit_limit(0x0014_0014), 20 * 1024 - 80);
    }
}
