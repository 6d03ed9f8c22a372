//! The register map: which register an offset is, and the words behind those that store.

use std::sync::LazyLock;

use super::bits::{
    DCA_RX_RESERVED, DESCRIPTOR, autoc, eec, hlreg0, offset, offset::ring, statistic,
};
use super::pace::Random;

/// Bytes of BAR 0.
pub(super) const BAR0_LEN: u32 = 512 * 1024;
/// Queues in each direction.
pub(super) const QUEUES: usize = 128;

/// A register as the model handles it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Register {
    Ctrl,
    Status,
    Esdp,
    I2c,
    Eec,
    Eerd,
    Swsm,
    SwFwSync,
    Eicr,
    Eics,
    Eims,
    Eimc,
    Eiac,
    Eiam,
    EicsEx(u32),
    EimsEx(u32),
    EimcEx(u32),
    EiamEx(u32),
    Ivar,
    Rdrxctl,
    Rxctrl,
    Dmatxctl,
    SecrxStatus,
    SectxStatus,
    Mrqc,
    Autoc,
    Links,
    Msca,
    FdirControl,
    /// Written only while the transmit arbiter is off.
    Arbitrated,
    /// A register of a descriptor ring.
    Ring(Ring, RingRegister),
    /// A counter, cleared by reading.
    Statistic,
    /// The lower half of a long counter: reading leaves it.
    StatisticLow,
    /// The upper half: reading clears both.
    StatisticHigh,
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
            Self::Receive(queue) if queue < 64 => offset::RX_RING + queue as u32 * ring::STRIDE,
            Self::Receive(queue) => offset::RX_RING_HIGH + (queue as u32 - 64) * ring::STRIDE,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RingRegister {
    BaseLow,
    BaseHigh,
    Length,
    Dca,
    Head,
    Split,
    Tail,
    Control,
    Coalesce,
    HeadLow,
    HeadHigh,
}

/// The place where the register at `at` really is. Some have a second one, where the 82598 has
/// them (Linux ixgbe uses those for queues and addresses up to 15; CTRL has one at 4; those of the
/// counters of frames sent: X550 datasheet 8.2.2.17.87).
pub(super) fn canonical(at: u32) -> u32 {
    match at {
        0x0004 => offset::CTRL,
        0x2100..=0x213c => offset::RX_RING + ring::SPLIT + (at - 0x2100) / 4 * ring::STRIDE,
        0x2200..=0x223c => offset::RX_RING + ring::DCA + (at - 0x2200) / 4 * ring::STRIDE,
        0x6030..=0x63f0 if at & 0x3f == 0x30 => statistic::QPTC + (at - 0x6030) / ring::STRIDE * 4,
        0x5400..=0x547c => offset::RAL + (at - 0x5400),
        0x5480..=0x54bc => 0xea00 + (at - 0x5480),
        0x5818 => offset::MRQC,
        0x5c00..=0x5c7c => offset::RETA + (at - 0x5c00),
        0x5c80..=0x5ca4 => offset::RSSRK + (at - 0x5c80),
        _ => at,
    }
}

impl Register {
    /// The register at `at`, a multiple of 4 and canonical; `None` where the model knows of none.
    pub(super) fn at(at: u32) -> Option<Self> {
        Some(match at {
            offset::CTRL => Self::Ctrl,
            offset::STATUS => Self::Status,
            offset::ESDP => Self::Esdp,
            offset::I2CCTL => Self::I2c,
            offset::EEC => Self::Eec,
            offset::EERD => Self::Eerd,
            offset::SWSM => Self::Swsm,
            offset::SW_FW_SYNC => Self::SwFwSync,
            offset::EICR => Self::Eicr,
            offset::EICS => Self::Eics,
            offset::EIMS => Self::Eims,
            offset::EIMC => Self::Eimc,
            offset::EIAC => Self::Eiac,
            offset::EIAM => Self::Eiam,
            0x0a90 | 0x0a94 => Self::EicsEx((at - offset::EICS_EX) / 4),
            0x0aa0 | 0x0aa4 => Self::EimsEx((at - offset::EIMS_EX) / 4),
            0x0ab0 | 0x0ab4 => Self::EimcEx((at - offset::EIMC_EX) / 4),
            0x0ad0 | 0x0ad4 => Self::EiamEx((at - offset::EIAM_EX) / 4),
            offset::IVAR..=offset::IVAR_MISC => Self::Ivar,
            offset::RDRXCTL => Self::Rdrxctl,
            offset::RXCTRL => Self::Rxctrl,
            offset::DMATXCTL => Self::Dmatxctl,
            offset::SECRXSTAT => Self::SecrxStatus,
            offset::SECTXSTAT => Self::SectxStatus,
            offset::MRQC => Self::Mrqc,
            offset::AUTOC => Self::Autoc,
            offset::LINKS => Self::Links,
            offset::MSCA => Self::Msca,
            offset::FDIRCTRL => Self::FdirControl,
            offset::TXPBSIZE..=0xcc1c
            | offset::TXPBTHRESH..=0x496c
            | offset::DTXMXSZRQ
            | offset::MTQC => Self::Arbitrated,
            offset::FWSM | offset::ANLP1 | 0x42b4 | 0x4324 | 0x3190 | 0x1_0150 => Self::ReadOnly,
            _ => match Self::statistic_at(at).or_else(|| Self::ring_at(at)) {
                Some(register) => register,
                None if is_storage(at) => Self::Storage,
                None => return None,
            },
        })
    }

    /// Counters, at the places where Linux ixgbe has them.
    fn statistic_at(at: u32) -> Option<Self> {
        Some(match at {
            // Receive queues: frames, bytes; and, 16 rings further on, frames dropped.
            0x1000..=0x1fff => match at & 0x3f {
                0x30 => Self::Statistic,
                0x34 if at < 0x1400 => Self::StatisticLow,
                0x38 if at < 0x1400 => Self::StatisticHigh,
                _ => return None,
            },
            // Transmit queues.
            statistic::QPTC..=0x86bc => Self::Statistic,
            statistic::QBTC..=0x877c if at & 4 == 0 => Self::StatisticLow,
            statistic::QBTC..=0x877c => Self::StatisticHigh,
            statistic::GORC | statistic::GOTC | statistic::TOR => Self::StatisticLow,
            0x408c | 0x4094 | 0x40c4 => Self::StatisticHigh,
            // DMA counters, flow control, missed frames, management; then the MAC.
            0x241c
            | 0x2424..=0x242c
            | 0x2f50..=0x2f98
            | 0x3240..=0x325c
            | 0x3f00..=0x3fdc
            | 0x4000..=0x415c // with PXONRXCNT and PXOFFRXCNT, eight each
            | 0x4160..=0x417c
            | 0x41a4
            | 0x41a8
            | 0x41b0..=0x41c4
            | 0x5118
            | 0x8780..=0x8788
            | 0x87a0..=0x87b0
            | 0xcf00..=0xcf90
            | 0xee58
            | 0xe810..=0xe82c => Self::Statistic,
            _ => return None,
        })
    }

    fn ring_at(at: u32) -> Option<Self> {
        let (which, receives) = match at {
            0x1000..=0x1fff => (Ring::Receive((at as usize - 0x1000) / 0x40), true),
            0xd000..=0xdfff => (Ring::Receive((at as usize - 0xd000) / 0x40 + 64), true),
            0x6000..=0x7fff => (Ring::Transmit((at as usize - 0x6000) / 0x40), false),
            _ => return None,
        };
        let register = match (at & 0x3f, receives) {
            (ring::BASE_LOW, _) => RingRegister::BaseLow,
            (ring::BASE_HIGH, _) => RingRegister::BaseHigh,
            (ring::LENGTH, _) => RingRegister::Length,
            (ring::DCA, _) => RingRegister::Dca,
            (ring::HEAD, _) => RingRegister::Head,
            (ring::SPLIT, true) => RingRegister::Split,
            (ring::TAIL, _) => RingRegister::Tail,
            (ring::CONTROL, _) => RingRegister::Control,
            (ring::COALESCE, true) => RingRegister::Coalesce,
            (ring::HEAD_LOW, false) => RingRegister::HeadLow,
            (ring::HEAD_HIGH, false) => RingRegister::HeadHigh,
            _ => return None,
        };
        Some(Self::Ring(which, register))
    }
}

/// Registers that hold what is written: those of features that the model has not (flow control,
/// traffic classes, virtualisation, security, wake-up, management, time stamps, flash, flow
/// director, diagnostics), and those that another part of it looks up.
fn is_storage(at: u32) -> bool {
    matches!(
        at,
        offset::CTRL_EXT
            | 0x0024 | 0x002c..=0x005c // timers
            | 0x0200                   // LEDCTL
            | 0x0820..=0x087c          // EITR 0 to 23
            | 0x0894 | offset::GPIE    // EITRSEL
            | 0x0a04..=0x0a8c
            | 0x2140..=0x215c          // RTRPT4C
            | 0x2300..=0x237c          // RQSMR
            | 0x2410..=0x2430
            | 0x2f04 | 0x2f08..=0x2f34 // PFQDE
            | 0x3008 | 0x3020 | 0x3028 // RSCDBU, RTRUP2TC
            | 0x3200..=0x323c | 0x3260..=0x32a0 // flow control
            | offset::RXPBSIZE..=0x3c1c
            | 0x3d00 | 0x3d04          // FCCFG, DROPEN
            | 0x4200..=0x423c          // 1 Gb/s
            | 0x4240..=0x4258
            | 0x4260..=0x4298 | 0x429c | 0x42a8 | 0x42ac | 0x42b8..=0x42d0
            | 0x4314 | offset::MACC | 0x4334..=0x437c | 0x4800
            | 0x4900..=0x494c | 0x4970..=0x4a7c // RTTDCS and others
            | 0x4a84..=0x4aac | 0x4b00..=0x4cfc
            | offset::RXCSUM | 0x5008 | 0x5078 | 0x507c
            | offset::FCTRL | 0x5084 | offset::VLNCTRL | offset::MCSTCTRL
            | 0x5098..=0x5114 | 0x5120..=0x51fc
            | offset::MTA..=0x53fc
            | 0x5800..=0x5814 | 0x581c..=0x5bfc // wake-up, management
            | 0x5d00..=0x5ffc
            | 0x8000..=0x80fc | 0x8104..=0x811c | 0x8124..=0x85fc // virtualisation
            | 0x8600..=0x867c          // TQSM
            | 0x878c..=0x879c | 0x87b4..=0x87fc
            | offset::SECTXCTRL | 0x8808..=0x8cfc // security, time stamps
            | offset::SECRXCTRL | 0x8d08..=0x8f8c
            | 0x9000..=0x9ffc
            | offset::VFTA..=0xa1fc
            | offset::RAL..=0xa9fc     // with MPSAR
            | 0xb000..=0xc7fc
            | 0xc800..=0xcbfc          // RTTUP2TC
            | 0xcc20..=0xcefc          // RTTPCS and others
            | 0xe000..=0xe7fc          // filters, SYNQF
            | 0xea00..=0xeafc          // PSRTYPE
            | offset::RETA..=0xec7c
            | 0xec84..=0xecfc
            | 0xee04..=0xee54 | 0xee5c..=0xeefc // flow director
            | 0xf000..=0xffec
            | 0x1_0000..=0x1_000c | 0x1_0018..=0x1_013c | 0x1_0144
            | 0x1_014c | 0x1_0154..=0x1_015c | 0x1_0164..=0x1_0ffc
            | 0x1_1000..=0x1_1ffc      // PCIe
            | 0x1_2300..=0x1_24a0      // EITR 24 to 128
            | 0x1_3000..=0x1_5ffc // mailboxes, firmware
    )
}

/// Tables without an initial value (access X in the machine-readable specification), by name.
/// Software initialises them before the receiver is enabled (82599 datasheet 4.6.7).
pub(super) const TABLES: [(&str, u32, u32); 5] = [
    ("MTA", offset::MTA, 0x53fc),
    ("MPSAR", offset::MPSAR, 0xa9fc),
    ("PFVLVF", offset::PFVLVF, 0xf1fc),
    ("PFVLVFB", offset::PFVLVFB, 0xf3fc),
    ("PFUTA", offset::PFUTA, 0xf5fc),
];

/// The words behind the registers.
pub(super) struct RegisterFile {
    words: Box<[u32]>,
    /// Words of the tables and ring bases that were written since power-up.
    written: Box<[bool]>,
}

impl RegisterFile {
    /// As after power-up; what has no initial value is rubbish if there is a source of it.
    pub(super) fn new(rubbish: Option<&mut Random>) -> Self {
        let words = BAR0_LEN as usize / 4;
        let mut file = Self {
            words: vec![0; words].into_boxed_slice(),
            // Everything without an initial value lies below 64 KiB.
            written: vec![false; 0x1_0000 / 4].into_boxed_slice(),
        };
        if let Some(random) = rubbish {
            for at in UNDEFINED.iter().copied() {
                let value = random.next() as u32;
                // The low bits of a ring base read 0.
                let is_base_low = !is_table(at) && at & 4 == 0;
                file.set(at, if is_base_low { value & !0x7f } else { value });
            }
        }
        file
    }

    /// The word at `at`; 0 beyond the last one.
    #[inline]
    pub(super) fn get(&self, at: u32) -> u32 {
        self.words.get(at as usize / 4).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn set(&mut self, at: u32, value: u32) {
        if let Some(word) = self.words.get_mut(at as usize / 4) {
            *word = value;
        }
    }

    /// The driver has written the word at `at`.
    pub(super) fn note_written(&mut self, at: u32) {
        if let Some(written) = self.written.get_mut(at as usize / 4) {
            *written = true;
        }
    }

    fn was_written(&self, at: u32) -> bool {
        self.written.get(at as usize / 4).copied().unwrap_or(true)
    }

    /// The first table that was not written as a whole since power-up.
    pub(super) fn unwritten_table(&self) -> Option<&'static str> {
        let unwritten = TABLES
            .iter()
            .find(|(_, first, last)| (*first..=*last).step_by(4).any(|at| !self.was_written(at)));
        unwritten.map(|(name, _, _)| *name)
    }

    /// Whether a ring was given a place.
    pub(super) fn is_based(&self, which: Ring) -> bool {
        let base = which.base();
        self.was_written(base + ring::BASE_LOW) && self.was_written(base + ring::BASE_HIGH)
    }

    /// Sets what a reset sets. Initial values: the machine-readable specification; those of
    /// DTXTCPFLGL, DTXTCPFLGH and MAXFRS as Linux ixgbe expects to find them.
    pub(super) fn reset(&mut self) {
        let kept: Vec<u32> = UNDEFINED.iter().map(|at| self.get(*at)).collect();
        self.words.fill(0);
        for (at, word) in UNDEFINED.iter().zip(kept) {
            self.set(*at, word);
        }
        let fixed = [
            (offset::EEC, 1 << 4 | eec::SIZE_2),
            (offset::RDRXCTL, 8 << 17),
            (offset::RTTDCS, 1 << 22 | 1 << 23),
            (offset::DTXMXSZRQ, 0x10),
            (offset::TXPBTHRESH, 0x96),
            (
                offset::HLREG0,
                hlreg0::TXCRCEN | hlreg0::RXCRCSTRP | hlreg0::TXPADEN | 1 << 3 | 1 << 16,
            ),
            (offset::DMATXCTL, 0x8100 << 16),
            (offset::DTXTCPFLGL, 0x0f76_0ff6),
            (offset::DTXTCPFLGH, 0x0f7f),
            (offset::VLNCTRL, 0x8100),
            (offset::MAXFRS, 1518 << 16),
            (offset::SECRXCTRL, 1),
            (offset::SECTXCTRL, 1),
            (offset::AUTOC, autoc::LMS_10G | autoc::PMA_KX4),
            // Auto-negotiation is not in a state that Linux would wait for.
            (offset::ANLP1, 0x000f_0000),
            // Firmware is there, in no mode that manages anything.
            (offset::FWSM, 1 << 15),
            // Every packet buffer is empty.
            (0x3190, 0x8888_8888),
            (offset::FDIRCTRL, 0),
        ];
        for (at, value) in fixed {
            self.set(at, value);
        }
        for buffer in 0..8 {
            self.set(offset::RXPBSIZE + 4 * buffer, 512 << 10);
            self.set(offset::TXPBSIZE + 4 * buffer, 160 << 10);
        }
        for queue in 0..QUEUES {
            let receive = Ring::Receive(queue).base();
            self.set(receive + ring::SPLIT, 4 << 8 | 2);
            self.set(
                receive + ring::DCA,
                1 << 9 | DCA_RX_RESERVED | 1 << 13 | 1 << 15,
            );
            let transmit = Ring::Transmit(queue).base();
            self.set(transmit + ring::DCA, 1 << 9 | 1 << 11 | 1 << 13);
        }
    }

    /// Where a ring lies, and how many descriptors it has.
    pub(super) fn ring(&self, which: Ring) -> (u64, u32) {
        let base = which.base();
        let low = u64::from(self.get(base + ring::BASE_LOW));
        let high = u64::from(self.get(base + ring::BASE_HIGH));
        let entries = self.get(base + ring::LENGTH) / DESCRIPTOR;
        (high << 32 | low, entries)
    }

    /// The set of counters that a queue has: four bits in a byte of RQSMR or TQSM.
    pub(super) fn counter_set(&self, map: u32, queue: usize) -> u32 {
        let word = self.get(map + (queue as u32 / 4) * 4);
        word >> (queue % 4 * 8) & 0xf
    }

    /// Counts one in the register at `at`, which stops at its greatest value.
    pub(super) fn count(&mut self, at: u32) {
        let value = self.get(at).saturating_add(1);
        self.set(at, value);
    }

    /// The long counter whose lower half is at `at`.
    pub(super) fn long(&self, at: u32) -> u64 {
        u64::from(self.get(at + 4)) << 32 | u64::from(self.get(at))
    }

    /// Adds to the long counter whose lower half is at `at`: 36 bits, of which the upper four are
    /// in the next register.
    pub(super) fn add(&mut self, at: u32, bytes: u64) {
        let sum = self.long(at).wrapping_add(bytes);
        self.set(at, sum as u32);
        self.set(at + 4, (sum >> 32) as u32 & 0xf);
    }

    /// Counts a frame of `len` bytes, check sequence included, by its size; `first` is the
    /// register of the smallest size.
    pub(super) fn count_size(&mut self, first: u32, len: usize) {
        let class = match len {
            0..=64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            _ => 5,
        };
        self.count(first + 4 * class);
    }

    /// Bytes of the first receive packet buffer.
    pub(super) fn receive_buffer(&self) -> usize {
        (self.get(offset::RXPBSIZE) >> 10 & 0x3ff) as usize * 1024
    }
}

/// Where the words without an initial value are: found once, as a reset looks at all of them.
static UNDEFINED: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let all = (0..BAR0_LEN).step_by(4);
    all.filter(|at| is_undefined(*at)).collect()
});

/// Whether the word at `at` has no initial value.
fn is_undefined(at: u32) -> bool {
    let is_base = at & 0x3f <= 4;
    let is_ring = matches!(at, 0x1000..=0x1fff | 0xd000..=0xdfff | 0x6000..=0x7fff);
    is_ring && is_base || is_table(at)
}

fn is_table(at: u32) -> bool {
    TABLES
        .iter()
        .any(|(_, first, last)| (*first..=*last).contains(&at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_finds_registers_by_their_offsets() {
        let at = |offset| Register::at(canonical(offset));
        assert_eq!(at(0x0004), Some(Register::Ctrl));
        let tail = |ring| Some(Register::Ring(ring, RingRegister::Tail));
        assert_eq!(at(0x1018), tail(Ring::Receive(0)));
        assert_eq!(at(0x1fd8), tail(Ring::Receive(63)));
        assert_eq!(at(0xd018), tail(Ring::Receive(64)));
        assert_eq!(at(0xdfd8), tail(Ring::Receive(127)));
        assert_eq!(at(0x7fd8), tail(Ring::Transmit(127)));
        let split = |queue| Some(Register::Ring(Ring::Receive(queue), RingRegister::Split));
        assert_eq!(at(0x2104), split(1));
        assert_eq!(at(0x1054), split(1));
        assert_eq!(at(0x1030), Some(Register::Statistic));
        assert_eq!(at(0x1430), Some(Register::Statistic));
        assert_eq!(at(0x1038), Some(Register::StatisticHigh));
        assert_eq!(at(0x8704), Some(Register::StatisticHigh));
        assert_eq!(at(0x5208), Some(Register::Storage));
        assert_eq!(at(0x0900), Some(Register::Ivar));
        assert_eq!(at(0x0100), None);
        assert_eq!(at(0x2_0000), None);
        assert_eq!(canonical(0x6030), 0x8680);
        assert_eq!(canonical(0x63f0), 0x86bc);
        assert_eq!(canonical(0x6038), 0x6038);
        assert_eq!(canonical(0x5408), 0xa208);
        assert_eq!(canonical(0x5818), 0xec80);
        assert_eq!(canonical(0x5c80), 0xeb80);
    }

    #[test]
    fn a_reset_keeps_what_has_no_default() {
        let mut file = RegisterFile::new(Some(&mut Random::new(1)));
        let mta = file.get(offset::MTA);
        assert_ne!(mta, 0, "seed 1");
        assert_eq!(file.get(0x1000) & 0x7f, 0, "seed 1");
        assert_eq!(file.get(0x7fc0) & 0x7f, 0, "seed 1");
        file.set(offset::FCTRL, 7);
        file.reset();
        assert_eq!(file.get(offset::MTA), mta, "seed 1");
        assert_eq!(file.get(offset::FCTRL), 0, "seed 1");
        assert_eq!(file.get(offset::TXPBSIZE + 28), 160 << 10);
        assert_eq!(file.unwritten_table(), Some("MTA"));
    }

    #[test]
    fn a_long_counter_has_36_bits() {
        let mut file = RegisterFile::new(None);
        file.add(statistic::GOTC, 0xf_ffff_ffff);
        assert_eq!(file.get(statistic::GOTC + 4), 0xf);
        file.add(statistic::GOTC, 2);
        assert_eq!(file.get(statistic::GOTC), 1);
        assert_eq!(file.get(statistic::GOTC + 4), 0);
    }
}
