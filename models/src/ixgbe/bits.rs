//! Layouts: register offsets, their fields, and the fields of descriptors. Nothing else.
//!
//! Sources, where no other is named: Linux ixgbe (`ixgbe_type.h`) for offsets and bits, and the
//! machine-readable specification of the 82599 in the project's facts for fields and initial
//! values. Sections "82599 datasheet n.n" were read as TinyNF's driver quotes them; "X550
//! datasheet n.n" as the project's facts have them, those of its chapter 8 in the datasheet
//! (333369-009).

/// Offsets in BAR 0.
pub(super) mod offset {
    pub(crate) const CTRL: u32 = 0x0000;
    pub(crate) const STATUS: u32 = 0x0008;
    pub(crate) const CTRL_EXT: u32 = 0x0018;
    pub(crate) const ESDP: u32 = 0x0020;
    pub(crate) const I2CCTL: u32 = 0x0028;
    pub(crate) const EICR: u32 = 0x0800;
    pub(crate) const EICS: u32 = 0x0808;
    pub(crate) const EIAC: u32 = 0x0810;
    /// Vectors 0 to 23; the others are at [`EITR_HIGH`].
    pub(crate) const EITR: u32 = 0x0820;
    pub(crate) const EIMS: u32 = 0x0880;
    pub(crate) const EIMC: u32 = 0x0888;
    pub(crate) const EIAM: u32 = 0x0890;
    pub(crate) const GPIE: u32 = 0x0898;
    /// 64 registers, two queues each.
    pub(crate) const IVAR: u32 = 0x0900;
    pub(crate) const IVAR_MISC: u32 = 0x0a00;
    /// Two registers each, for vectors 0 to 31 and 32 to 63.
    pub(crate) const EICS_EX: u32 = 0x0a90;
    pub(crate) const EIMS_EX: u32 = 0x0aa0;
    pub(crate) const EIMC_EX: u32 = 0x0ab0;
    pub(crate) const EIAM_EX: u32 = 0x0ad0;
    /// Receive rings 0 to 63, and 64 to 127.
    pub(crate) const RX_RING: u32 = 0x1000;
    pub(crate) const RX_RING_HIGH: u32 = 0xd000;
    /// Which counters a receive queue has: 32 registers of four queues.
    pub(crate) const RQSMR: u32 = 0x2300;
    pub(crate) const RDRXCTL: u32 = 0x2f00;
    pub(crate) const RXCTRL: u32 = 0x3000;
    pub(crate) const RXPBSIZE: u32 = 0x3c00;
    pub(crate) const HLREG0: u32 = 0x4240;
    pub(crate) const MSCA: u32 = 0x425c;
    pub(crate) const MSRWD: u32 = 0x4260;
    pub(crate) const MAXFRS: u32 = 0x4268;
    pub(crate) const AUTOC: u32 = 0x42a0;
    pub(crate) const LINKS: u32 = 0x42a4;
    pub(crate) const ANLP1: u32 = 0x42b0;
    pub(crate) const MACC: u32 = 0x4330;
    pub(crate) const RTTDCS: u32 = 0x4900;
    pub(crate) const TXPBTHRESH: u32 = 0x4950;
    pub(crate) const DMATXCTL: u32 = 0x4a80;
    pub(crate) const DTXTCPFLGL: u32 = 0x4a88;
    pub(crate) const DTXTCPFLGH: u32 = 0x4a8c;
    pub(crate) const RXCSUM: u32 = 0x5000;
    pub(crate) const FCTRL: u32 = 0x5080;
    pub(crate) const VLNCTRL: u32 = 0x5088;
    pub(crate) const VFTA: u32 = 0xa000;
    pub(crate) const MCSTCTRL: u32 = 0x5090;
    /// 128 words.
    pub(crate) const MTA: u32 = 0x5200;
    /// 128 rings.
    pub(crate) const TX_RING: u32 = 0x6000;
    pub(crate) const DTXMXSZRQ: u32 = 0x8100;
    pub(crate) const MTQC: u32 = 0x8120;
    /// Which counters a transmit queue has: 32 registers of four queues.
    pub(crate) const TQSM: u32 = 0x8600;
    pub(crate) const SECTXCTRL: u32 = 0x8800;
    pub(crate) const SECTXSTAT: u32 = 0x8804;
    pub(crate) const SECRXCTRL: u32 = 0x8d00;
    pub(crate) const SECRXSTAT: u32 = 0x8d04;
    /// 128 pairs RAL, RAH.
    pub(crate) const RAL: u32 = 0xa200;
    /// 256 words.
    pub(crate) const MPSAR: u32 = 0xa600;
    pub(crate) const TXPBSIZE: u32 = 0xcc00;
    /// 32 words of four entries.
    pub(crate) const RETA: u32 = 0xeb00;
    /// Ten words.
    pub(crate) const RSSRK: u32 = 0xeb80;
    pub(crate) const MRQC: u32 = 0xec80;
    pub(crate) const FDIRCTRL: u32 = 0xee00;
    /// 64 words.
    pub(crate) const PFVLVF: u32 = 0xf100;
    /// 128 words.
    pub(crate) const PFVLVFB: u32 = 0xf200;
    /// 128 words.
    pub(crate) const PFUTA: u32 = 0xf400;
    pub(crate) const EEC: u32 = 0x1_0010;
    pub(crate) const EERD: u32 = 0x1_0014;
    pub(crate) const SWSM: u32 = 0x1_0140;
    pub(crate) const FWSM: u32 = 0x1_0148;
    pub(crate) const SW_FW_SYNC: u32 = 0x1_0160;
    /// Vectors from 24 on.
    pub(crate) const EITR_HIGH: u32 = 0x1_2300;

    /// From the first register of a ring.
    pub(crate) mod ring {
        pub(crate) const STRIDE: u32 = 0x40;
        pub(crate) const BASE_LOW: u32 = 0x00;
        pub(crate) const BASE_HIGH: u32 = 0x04;
        pub(crate) const LENGTH: u32 = 0x08;
        /// DCA_RXCTRL, DCA_TXCTRL.
        pub(crate) const DCA: u32 = 0x0c;
        pub(crate) const HEAD: u32 = 0x10;
        /// SRRCTL; receive rings only.
        pub(crate) const SPLIT: u32 = 0x14;
        pub(crate) const TAIL: u32 = 0x18;
        /// RXDCTL, TXDCTL.
        pub(crate) const CONTROL: u32 = 0x28;
        /// RSCCTL; receive rings only.
        pub(crate) const COALESCE: u32 = 0x2c;
        /// TDWBAL, TDWBAH; transmit rings only.
        pub(crate) const HEAD_LOW: u32 = 0x38;
        pub(crate) const HEAD_HIGH: u32 = 0x3c;
    }
}

/// Registers that count. They clear when they are read.
pub(super) mod statistic {
    pub(crate) const MPC: u32 = 0x3fa0;
    /// The smallest of six classes of size.
    pub(crate) const PRC64: u32 = 0x405c;
    pub(crate) const GPRC: u32 = 0x4074;
    pub(crate) const BPRC: u32 = 0x4078;
    pub(crate) const MPRC: u32 = 0x407c;
    pub(crate) const GPTC: u32 = 0x4080;
    pub(crate) const GORC: u32 = 0x4088;
    pub(crate) const GOTC: u32 = 0x4090;
    pub(crate) const RUC: u32 = 0x40a4;
    pub(crate) const ROC: u32 = 0x40ac;
    pub(crate) const TOR: u32 = 0x40c0;
    pub(crate) const TPR: u32 = 0x40d0;
    pub(crate) const TPT: u32 = 0x40d4;
    pub(crate) const PTC64: u32 = 0x40d8;
    pub(crate) const MPTC: u32 = 0x40f0;
    pub(crate) const BPTC: u32 = 0x40f4;
    /// From one set of receive counters to the next; there are 16.
    pub(crate) const RX_STRIDE: u32 = 0x40;
    pub(crate) const QPRC: u32 = 0x1030;
    pub(crate) const QBRC: u32 = 0x1034;
    pub(crate) const QPRDC: u32 = 0x1430;
    /// 16 words, and 16 pairs.
    pub(crate) const QPTC: u32 = 0x8680;
    pub(crate) const QBTC: u32 = 0x8700;
}

pub(super) mod ctrl {
    pub(crate) const MASTER_DISABLE: u32 = 1 << 2;
    pub(crate) const LRST: u32 = 1 << 3;
    pub(crate) const RST: u32 = 1 << 26;
}

pub(super) mod status {
    pub(crate) const LINK_UP: u32 = 1 << 7;
    pub(crate) const MASTER_ENABLE: u32 = 1 << 19;
}

/// CTRL_EXT.NS_DIS.
pub(super) const NO_SNOOP_DISABLE: u32 = 1 << 16;

/// ESDP, as 82599 boards use the pins: SDP2 says that a module is there, SDP3 that its laser is off
/// (Linux ixgbe).
pub(super) mod esdp {
    pub(crate) const MODULE: u32 = 1 << 2;
    pub(crate) const LASER_OFF: u32 = 1 << 3;
}

/// I2CCTL (Linux ixgbe `IXGBE_I2C_CLK_IN` and the following).
pub(super) mod i2c {
    pub(crate) const CLOCK_IN: u32 = 1 << 0;
    pub(crate) const CLOCK_OUT: u32 = 1 << 1;
    pub(crate) const DATA_IN: u32 = 1 << 2;
    pub(crate) const DATA_OUT: u32 = 1 << 3;
}

/// SW_FW_SYNC of an X540: somebody has the register itself (Linux ixgbe `IXGBE_SWFW_REGSMP`).
pub(super) const SYNC_REGISTER: u32 = 1 << 31;
/// SW_FW_SYNC: software has the PHY of port 0, or the wires to its module.
pub(super) const SYNC_PHY: u32 = 1 << 1;

pub(super) mod eec {
    pub(crate) const PRES: u32 = 1 << 8;
    pub(crate) const AUTO_RD: u32 = 1 << 9;
    pub(crate) const SIZE_2: u32 = 2 << 11;
    /// PCI_ANA_done to MAC_DONE.
    pub(crate) const DONE: u32 = 0x7f << 15;
    pub(crate) const WRITABLE: u32 = 0x77;
}

/// EEPROM read.
pub(super) use crate::intel::nvm::eerd;

pub(super) mod swsm {
    pub(crate) const SMBI: u32 = 1 << 0;
    pub(crate) const SWESMBI: u32 = 1 << 1;
}

pub(super) mod rdrxctl {
    pub(crate) const CRC_STRIP: u32 = 1 << 1;
    pub(crate) const DMAIDONE: u32 = 1 << 3;
    pub(crate) const RSCFRSTSIZE: u32 = 0x1f << 17;
    pub(crate) const RSCACKC: u32 = 1 << 25;
    pub(crate) const FCOE_WRFIX: u32 = 1 << 26;
}

pub(super) const RXEN: u32 = 1 << 0;
/// DMATXCTL.TE.
pub(super) const TE: u32 = 1 << 0;
/// DMATXCTL.GDV: double VLAN; so has CTRL_EXT a bit.
pub(super) const DOUBLE_VLAN: u32 = 1 << 3;
pub(super) const EXTENDED_VLAN: u32 = 1 << 26;
/// DMATXCTL.VT: the type of the tags that the device puts on.
pub(super) const VT_SHIFT: u32 = 16;
/// RTTDCS.ARBDIS.
pub(super) const ARBDIS: u32 = 1 << 6;
/// SECRXCTRL.RX_DIS and SECTXCTRL.TX_DIS; the status registers say ready in bit 0.
pub(super) const PATH_DISABLE: u32 = 1 << 1;
pub(super) const PATH_READY: u32 = 1 << 0;

pub(super) mod hlreg0 {
    pub(crate) const TXCRCEN: u32 = 1 << 0;
    pub(crate) const RXCRCSTRP: u32 = 1 << 1;
    pub(crate) const JUMBOEN: u32 = 1 << 2;
    pub(crate) const TXPADEN: u32 = 1 << 10;
    pub(crate) const LPBK: u32 = 1 << 15;
}

/// MSCA: the address of a register in the lowest 16 bits.
pub(super) mod msca {
    pub(crate) const DEVICE_SHIFT: u32 = 16;
    pub(crate) const PORT_SHIFT: u32 = 21;
    pub(crate) const OPCODE_SHIFT: u32 = 26;
    pub(crate) const ADDRESS: u32 = 0;
    pub(crate) const WRITE: u32 = 1;
    pub(crate) const READ_INCREMENT: u32 = 2;
    /// It clears itself.
    pub(crate) const COMMAND: u32 = 1 << 30;
}

pub(super) mod autoc {
    pub(crate) const FLU: u32 = 1 << 0;
    pub(crate) const RESTART: u32 = 1 << 12;
    pub(crate) const LMS_SHIFT: u32 = 13;
    /// 10 Gb/s without auto-negotiation.
    pub(crate) const LMS_10G: u32 = 1 << LMS_SHIFT;
    /// KX4 in the field for the 10 Gb/s PMA.
    pub(crate) const PMA_KX4: u32 = 1 << 7;
}

pub(super) mod links {
    pub(crate) const SPEED_1G: u32 = 2 << 28;
    pub(crate) const SPEED_10G: u32 = 3 << 28;
    pub(crate) const UP: u32 = 1 << 30;
}

pub(super) mod fctrl {
    pub(crate) const MPE: u32 = 1 << 8;
    pub(crate) const UPE: u32 = 1 << 9;
    pub(crate) const BAM: u32 = 1 << 10;
}

/// MCSTCTRL.
pub(super) mod mcstctrl {
    pub(crate) const MO: u32 = 0b11;
    pub(crate) const MFE: u32 = 1 << 2;
}

/// RXCSUM.PCSD: the hash, not the fragment checksum, is written back.
pub(super) const PCSD: u32 = 1 << 13;
/// VLNCTRL.
pub(super) mod vlnctrl {
    pub(crate) const VET: u32 = 0xffff;
    pub(crate) const VFE: u32 = 1 << 30;
}

pub(super) mod mrqc {
    /// MRQE.
    pub(crate) const MODE: u32 = 0xf;
    pub(crate) const RSS: u32 = 1;
    pub(crate) const TCP_IPV4: u32 = 1 << 16;
    pub(crate) const IPV4: u32 = 1 << 17;
    pub(crate) const IPV6: u32 = 1 << 20;
    pub(crate) const TCP_IPV6: u32 = 1 << 21;
    pub(crate) const UDP_IPV4: u32 = 1 << 22;
    pub(crate) const UDP_IPV6: u32 = 1 << 23;
}

pub(super) mod srrctl {
    /// In units of 1 KiB, 1 to 16.
    pub(crate) const BUFFER: u32 = 0x1f;
    pub(crate) const TYPE_SHIFT: u32 = 25;
    pub(crate) const ADVANCED: u32 = 1;
    pub(crate) const DROP_EN: u32 = 1 << 28;
}

/// DCA_RXCTRL: 1 after a reset, "must be set to 0" (82599 datasheet 8.2.3.11.1).
pub(super) const DCA_RX_RESERVED: u32 = 1 << 12;
/// DCA_TXCTRL.TXdescWBROen.
pub(super) const WRITE_BACK_RELAXED: u32 = 1 << 11;

/// RXDCTL and TXDCTL.
pub(super) mod dctl {
    pub(crate) const PTHRESH: u32 = 0x7f;
    pub(crate) const HTHRESH_SHIFT: u32 = 8;
    pub(crate) const WTHRESH_SHIFT: u32 = 16;
    pub(crate) const ENABLE: u32 = 1 << 25;
    pub(crate) const SWFLSH: u32 = 1 << 26;
    pub(crate) const VME: u32 = 1 << 30;
}

/// TDWBAL.Head_WB_En.
pub(super) const HEAD_WRITE_BACK: u32 = 1 << 0;

pub(super) mod cause {
    /// RTxQ.
    pub(crate) const QUEUES: u32 = 0xffff;
    pub(crate) const RX_MISS: u32 = 1 << 17;
    pub(crate) const LSC: u32 = 1 << 20;
    /// Everything that has no queue.
    pub(crate) const OTHERS: u32 = 0x7fff_0000;
}

pub(super) mod gpie {
    pub(crate) const MSIX: u32 = 1 << 4;
    /// Reading EICR clears the causes without a queue only.
    pub(crate) const OCD: u32 = 1 << 5;
    pub(crate) const EIAME: u32 = 1 << 30;
}

/// An entry of IVAR.
pub(super) mod ivar {
    pub(crate) const VALID: u8 = 0x80;
    pub(crate) const VECTOR: u8 = 0x3f;
    /// Bits in between.
    pub(crate) const RESERVED: u8 = 0x40;
}

/// Bytes of a descriptor.
pub(super) const DESCRIPTOR: u32 = 16;

/// The third word of a transmit descriptor.
pub(super) mod command {
    pub(crate) const TYPE_SHIFT: u32 = 20;
    pub(crate) const CONTEXT: u32 = 2;
    pub(crate) const DATA: u32 = 3;
    pub(crate) const EOP: u32 = 1 << 24;
    pub(crate) const IFCS: u32 = 1 << 25;
    pub(crate) const RS: u32 = 1 << 27;
    pub(crate) const DEXT: u32 = 1 << 29;
    pub(crate) const VLE: u32 = 1 << 30;
    pub(crate) const TSE: u32 = 1 << 31;
    /// Bits 26 and 28, and those above DTALEN.
    pub(crate) const RESERVED: u32 = 1 << 26 | 1 << 28 | 0b11 << 16;
    /// MAC: security and time stamps.
    pub(crate) const MAC: u32 = 0b11 << 18;
}

/// The fourth word of a data descriptor.
pub(super) mod option {
    pub(crate) const STATUS: u32 = 0xf;
    pub(crate) const DD: u32 = 1 << 0;
    pub(crate) const SLOT_SHIFT: u32 = 4;
    pub(crate) const CC: u32 = 1 << 7;
    pub(crate) const IXSM: u32 = 1 << 8;
    pub(crate) const TXSM: u32 = 1 << 9;
    /// POPTS beyond the two.
    pub(crate) const RESERVED: u32 = 0xf << 10;
    pub(crate) const PAYLEN_SHIFT: u32 = 14;
}

/// The third word of a context descriptor.
pub(super) mod tucmd {
    pub(crate) const SNAP: u32 = 1 << 9;
    pub(crate) const IPV4: u32 = 1 << 10;
    pub(crate) const L4T_SHIFT: u32 = 11;
    pub(crate) const UDP: u32 = 0;
    pub(crate) const TCP: u32 = 1;
}

/// Status and errors of a receive descriptor that was written back.
pub(super) mod rx_status {
    pub(crate) const DD: u32 = 1 << 0;
    pub(crate) const EOP: u32 = 1 << 1;
    pub(crate) const VP: u32 = 1 << 3;
    pub(crate) const UDPCS: u32 = 1 << 4;
    pub(crate) const L4CS: u32 = 1 << 5;
    pub(crate) const IPCS: u32 = 1 << 6;
    pub(crate) const PIF: u32 = 1 << 7;
    pub(crate) const LOOPED: u32 = 1 << 18;
    pub(crate) const TCPE: u32 = 1 << 30;
    pub(crate) const IPE: u32 = 1 << 31;
}

/// The packet type in a receive descriptor that was written back.
pub(super) mod packet_type {
    pub(crate) const IPV4: u32 = 1 << 4;
    pub(crate) const IPV4_OPTIONS: u32 = 1 << 5;
    pub(crate) const IPV6: u32 = 1 << 6;
    pub(crate) const TCP: u32 = 1 << 8;
    pub(crate) const UDP: u32 = 1 << 9;
}
