//! Layouts: register offsets, their fields, and the fields of descriptors. Nothing else.
//!
//! Sources, where no other is named: Linux e1000e (`regs.h`, `defines.h`, `hw.h`) and QEMU
//! (`e1000x_regs.h`, `e1000e_core.c`) for offsets and bits; the PCI/PCI-X family software
//! developer's manual (8254x SDM) sections 3.2 and 3.3 for descriptors; the datasheet of the
//! 82583V, the single-queue sibling of the 82574, for what differs from the 8254x. The sections
//! that were read are named where they decide something.

/// Offsets in BAR 0.
pub(super) mod offset {
    pub(crate) const CTRL: u32 = 0x0000;
    pub(crate) const CTRL_DUP: u32 = 0x0004;
    pub(crate) const STATUS: u32 = 0x0008;
    pub(crate) const EECD: u32 = 0x0010;
    pub(crate) const EERD: u32 = 0x0014;
    pub(crate) const CTRL_EXT: u32 = 0x0018;
    pub(crate) const MDIC: u32 = 0x0020;
    pub(crate) const VET: u32 = 0x0038;
    pub(crate) const ICR: u32 = 0x00c0;
    pub(crate) const ITR: u32 = 0x00c4;
    pub(crate) const ICS: u32 = 0x00c8;
    pub(crate) const IMS: u32 = 0x00d0;
    pub(crate) const IMC: u32 = 0x00d8;
    pub(crate) const EIAC: u32 = 0x00dc;
    pub(crate) const IAM: u32 = 0x00e0;
    pub(crate) const IVAR: u32 = 0x00e4;
    /// One per vector, up to 0xf8.
    pub(crate) const EITR: u32 = 0x00e8;
    pub(crate) const RCTL: u32 = 0x0100;
    pub(crate) const PSRCTL: u32 = 0x2170;
    pub(crate) const TCTL: u32 = 0x0400;
    pub(crate) const TIPG: u32 = 0x0410;
    pub(crate) const LEDCTL: u32 = 0x0e00;
    pub(crate) const EXTCNF_CTRL: u32 = 0x0f00;
    pub(crate) const PBA: u32 = 0x1000;
    pub(crate) const PBS: u32 = 0x1008;
    pub(crate) const EEMNGCTL: u32 = 0x1010;
    /// Receive ring 0; ring 1 is 0x100 further on.
    pub(crate) const RX_RING: u32 = 0x2800;
    /// Transmit ring 0; ring 1 is 0x100 further on.
    pub(crate) const TX_RING: u32 = 0x3800;
    pub(crate) const TIDV: u32 = 0x3820;
    pub(crate) const TARC0: u32 = 0x3840;
    pub(crate) const TARC1: u32 = 0x3940;
    /// First and last of the statistics.
    pub(crate) const CRCERRS: u32 = 0x4000;
    pub(crate) const ICRXOC: u32 = 0x4124;
    pub(crate) const RXCSUM: u32 = 0x5000;
    pub(crate) const RFCTL: u32 = 0x5008;
    /// 128 words.
    pub(crate) const MTA: u32 = 0x5200;
    /// 16 pairs RAL, RAH.
    pub(crate) const RAL: u32 = 0x5400;
    /// 128 words.
    pub(crate) const VFTA: u32 = 0x5600;
    pub(crate) const MRQC: u32 = 0x5818;
    pub(crate) const FACTPS: u32 = 0x5b30;
    pub(crate) const SWSM: u32 = 0x5b50;
    pub(crate) const FWSM: u32 = 0x5b54;
    pub(crate) const PBACLR: u32 = 0x5b68;

    /// Within a ring: base, length, head, tail, descriptor control.
    pub(crate) mod ring {
        pub(crate) const BASE_LOW: u32 = 0x00;
        pub(crate) const BASE_HIGH: u32 = 0x04;
        pub(crate) const LENGTH: u32 = 0x08;
        pub(crate) const HEAD: u32 = 0x10;
        pub(crate) const TAIL: u32 = 0x18;
        pub(crate) const CONTROL: u32 = 0x28;
        /// From one ring to the next.
        pub(crate) const STRIDE: u32 = 0x100;
    }
}

/// Statistics: offsets of those that the model counts.
pub(super) mod statistic {
    pub(crate) const MPC: u32 = 0x4010;
    pub(crate) const RLEC: u32 = 0x4040;
    pub(crate) const PRC64: u32 = 0x405c;
    pub(crate) const GPRC: u32 = 0x4074;
    pub(crate) const BPRC: u32 = 0x4078;
    pub(crate) const MPRC: u32 = 0x407c;
    pub(crate) const GPTC: u32 = 0x4080;
    pub(crate) const GORC: u32 = 0x4088;
    pub(crate) const GOTC: u32 = 0x4090;
    pub(crate) const RNBC: u32 = 0x40a0;
    pub(crate) const RUC: u32 = 0x40a4;
    pub(crate) const ROC: u32 = 0x40ac;
    pub(crate) const TOR: u32 = 0x40c0;
    pub(crate) const TOT: u32 = 0x40c8;
    pub(crate) const TPR: u32 = 0x40d0;
    pub(crate) const TPT: u32 = 0x40d4;
    pub(crate) const PTC64: u32 = 0x40d8;
    pub(crate) const MPTC: u32 = 0x40f0;
    pub(crate) const BPTC: u32 = 0x40f4;
    pub(crate) const TSCTC: u32 = 0x40f8;
    pub(crate) const TSCTFC: u32 = 0x40fc;
}

/// Device control.
pub(super) mod ctrl {
    pub(crate) const FD: u32 = 1 << 0;
    pub(crate) const GIO_MASTER_DISABLE: u32 = 1 << 2;
    pub(crate) const SLU: u32 = 1 << 6;
    pub(crate) const SPEED_1000: u32 = 0b10 << 8;
    pub(crate) const SPEED_MASK: u32 = 0b11 << 8;
    pub(crate) const FRCSPD: u32 = 1 << 11;
    pub(crate) const FRCDPX: u32 = 1 << 12;
    pub(crate) const RST: u32 = 1 << 26;
    pub(crate) const VME: u32 = 1 << 30;
    pub(crate) const PHY_RST: u32 = 1 << 31;
}

/// Extended device control.
pub(super) mod ctrl_ext {
    pub(crate) const ASDCHK: u32 = 1 << 12;
    pub(crate) const EE_RST: u32 = 1 << 13;
    pub(crate) const IAME: u32 = 1 << 27;
}

/// Device status.
pub(super) mod status {
    pub(crate) const FD: u32 = 1 << 0;
    pub(crate) const LU: u32 = 1 << 1;
    pub(crate) const SPEED_SHIFT: u32 = 6;
    pub(crate) const ASDV_1000: u32 = 0b10 << 8;
    pub(crate) const PHYRA: u32 = 1 << 10;
    pub(crate) const GIO_MASTER_ENABLE: u32 = 1 << 19;
}

/// EEPROM control.
pub(super) mod eecd {
    pub(crate) const PRES: u32 = 1 << 8;
    pub(crate) const AUTO_RD: u32 = 1 << 9;
    /// What software may write: the four pins and the request.
    pub(crate) const WRITABLE: u32 = 0x4f;
}

/// EEPROM read.
pub(super) use crate::intel::nvm::eerd;

/// MDI control.
pub(super) mod mdic {
    pub(crate) const DATA: u32 = 0xffff;
    pub(crate) const REGISTER_SHIFT: u32 = 16;
    pub(crate) const PHY_SHIFT: u32 = 21;
    pub(crate) const OP_SHIFT: u32 = 26;
    pub(crate) const OP_WRITE: u32 = 0b01;
    pub(crate) const OP_READ: u32 = 0b10;
    pub(crate) const READY: u32 = 1 << 28;
    pub(crate) const INTERRUPT: u32 = 1 << 29;
    pub(crate) const ERROR: u32 = 1 << 30;
}

/// Interrupt causes, alike in ICR, ICS, IMS and IMC.
pub(super) mod cause {
    pub(crate) const TXDW: u32 = 1 << 0;
    pub(crate) const TXQE: u32 = 1 << 1;
    pub(crate) const LSC: u32 = 1 << 2;
    pub(crate) const RXDMT0: u32 = 1 << 4;
    pub(crate) const RXO: u32 = 1 << 6;
    pub(crate) const RXT0: u32 = 1 << 7;
    pub(crate) const MDAC: u32 = 1 << 9;
    pub(crate) const TXD_LOW: u32 = 1 << 15;
    pub(crate) const SRPD: u32 = 1 << 16;
    pub(crate) const ACK: u32 = 1 << 17;
    pub(crate) const MNG: u32 = 1 << 18;
    pub(crate) const RXQ0: u32 = 1 << 20;
    pub(crate) const RXQ1: u32 = 1 << 21;
    pub(crate) const TXQ0: u32 = 1 << 22;
    pub(crate) const TXQ1: u32 = 1 << 23;
    pub(crate) const OTHER: u32 = 1 << 24;
    pub(crate) const INT_ASSERTED: u32 = 1 << 31;
    /// Those that also set OTHER.
    pub(crate) const OTHERS: u32 = LSC | RXO | MDAC | SRPD | ACK | MNG;
    /// Without a name here: no event sets them, but software can, as Linux's interrupt test
    /// (`e1000_intr_test`) does on the 82574.
    pub(crate) const UNNAMED: u32 = 1 << 3 | 1 << 5 | 1 << 8;
    /// All that can be enabled.
    pub(crate) const ALL: u32 = OTHERS
        | UNNAMED
        | TXDW
        | TXQE
        | RXDMT0
        | RXT0
        | TXD_LOW
        | RXQ0
        | RXQ1
        | TXQ0
        | TXQ1
        | OTHER;
    /// Those of EIAC.
    pub(crate) const AUTO_CLEAR: u32 = 0x01f0_0000;
}

/// Receive control.
pub(super) mod rctl {
    pub(crate) const EN: u32 = 1 << 1;
    pub(crate) const UPE: u32 = 1 << 3;
    pub(crate) const MPE: u32 = 1 << 4;
    pub(crate) const LPE: u32 = 1 << 5;
    pub(crate) const LBM: u32 = 0b11 << 6;
    /// The MAC sends back to itself; the other two values are reserved here (8254x SDM 13.4.22).
    pub(crate) const LBM_MAC: u32 = 0b01 << 6;
    pub(crate) const RDMTS_SHIFT: u32 = 8;
    pub(crate) const DTYP: u32 = 0b11 << 10;
    /// Packet split; the values above are reserved.
    pub(crate) const DTYP_SPLIT: u32 = 0b01 << 10;
    pub(crate) const MO_SHIFT: u32 = 12;
    pub(crate) const BAM: u32 = 1 << 15;
    pub(crate) const BSIZE_SHIFT: u32 = 16;
    pub(crate) const VFE: u32 = 1 << 18;
    pub(crate) const CFIEN: u32 = 1 << 19;
    pub(crate) const CFI: u32 = 1 << 20;
    pub(crate) const BSEX: u32 = 1 << 25;
    pub(crate) const SECRC: u32 = 1 << 26;
    pub(crate) const FLXBUF_SHIFT: u32 = 27;
    /// What decides the size of a buffer.
    pub(crate) const BUFFER: u32 = 0b11 << BSIZE_SHIFT | BSEX | 0xf << FLXBUF_SHIFT;
    /// Bits that neither Linux nor QEMU has a name for.
    pub(crate) const RESERVED: u32 = 1 << 0 | 1 << 21 | 1 << 24 | 1 << 31;
}

/// Packet split receive control: bytes of each buffer.
pub(super) mod psrctl {
    /// In units of 128 bytes.
    pub(crate) const BSIZE0: u32 = 0x7f;
    /// These in units of 1024 bytes.
    pub(crate) const BSIZE1: u32 = 0x3f << 8;
    pub(crate) const BSIZE2: u32 = 0x3f << 16;
    pub(crate) const BSIZE3: u32 = 0x3f << 24;
}

/// Transmit control.
pub(super) mod tctl {
    pub(crate) const EN: u32 = 1 << 1;
    pub(crate) const PSP: u32 = 1 << 3;
    pub(crate) const RESERVED: u32 = 1 << 0 | 1 << 2 | 1 << 31;
}

/// Transmit descriptor control.
pub(super) mod txdctl {
    pub(crate) const WTHRESH_SHIFT: u32 = 16;
    pub(crate) const WTHRESH_MASK: u32 = 0x3f;
    /// Must be 1 (Linux: `COUNT_DESC`).
    pub(crate) const BIT_22: u32 = 1 << 22;
    pub(crate) const GRAN: u32 = 1 << 24;
}

/// Transmit arbitration.
pub(super) mod tarc {
    pub(crate) const ENABLE: u32 = 1 << 10;
}

/// Receive checksum control.
pub(super) mod rxcsum {
    pub(crate) const PCSS: u32 = 0xff;
    pub(crate) const IPOFL: u32 = 1 << 8;
    pub(crate) const TUOFL: u32 = 1 << 9;
    pub(crate) const PCSD: u32 = 1 << 13;
}

/// Receive filter control.
pub(super) mod rfctl {
    pub(crate) const IPV6_XSUM_DIS: u32 = 1 << 11;
    /// Fragments are not split.
    pub(crate) const IPFRSP_DIS: u32 = 1 << 14;
    pub(crate) const EXSTEN: u32 = 1 << 15;
}

/// Header status of a packet split descriptor.
pub(super) mod header_status {
    /// Bytes of the header.
    pub(crate) const HLEN: u16 = 0x3ff;
    /// It was split off.
    pub(crate) const HDRSP: u16 = 1 << 15;
}

/// Bytes of any descriptor but packet split ones, which have twice as many.
pub(super) const DESCRIPTOR: u32 = 16;

/// Command bits of a transmit descriptor (CMD, DCMD and TUCMD; bits 31:24 of its third dword).
pub(super) mod command {
    pub(crate) const EOP: u8 = 1 << 0;
    pub(crate) const IFCS: u8 = 1 << 1;
    /// Legacy: insert checksum. Data and context: TCP segmentation.
    pub(crate) const IC: u8 = 1 << 2;
    pub(crate) const TSE: u8 = 1 << 2;
    pub(crate) const RS: u8 = 1 << 3;
    pub(crate) const RESERVED: u8 = 1 << 4;
    pub(crate) const DEXT: u8 = 1 << 5;
    /// Legacy and data: insert a VLAN tag.
    pub(crate) const VLE: u8 = 1 << 6;
    pub(crate) const IDE: u8 = 1 << 7;
    /// Context: the packet is TCP, else UDP.
    pub(crate) const TCP: u8 = 1 << 0;
    /// Context: the packet is IPv4, else IPv6.
    pub(crate) const IPV4: u8 = 1 << 1;
}

/// Packet options, in the first data descriptor.
pub(super) mod popts {
    pub(crate) const IXSM: u8 = 1 << 0;
    pub(crate) const TXSM: u8 = 1 << 1;
    pub(crate) const RESERVED: u8 = !(IXSM | TXSM);
}

/// Descriptor done, in the status of any descriptor.
pub(super) const DD: u8 = 1 << 0;

/// Status of a receive descriptor; the low byte is the whole of the legacy one.
pub(super) mod rx_status {
    pub(crate) const DD: u32 = 1 << 0;
    pub(crate) const EOP: u32 = 1 << 1;
    pub(crate) const IXSM: u32 = 1 << 2;
    /// A VLAN tag was taken off.
    pub(crate) const VP: u32 = 1 << 3;
    pub(crate) const UDPCS: u32 = 1 << 4;
    pub(crate) const TCPCS: u32 = 1 << 5;
    pub(crate) const IPCS: u32 = 1 << 6;
    pub(crate) const PIF: u32 = 1 << 7;
    /// Errors: bits 31:24 of the extended status, the error byte of the legacy descriptor.
    pub(crate) const TCPE: u32 = 1 << 29;
    pub(crate) const IPE: u32 = 1 << 30;
    /// All that is said about checksums, but IXSM.
    pub(crate) const CHECKED: u32 = UDPCS | TCPCS | IPCS | TCPE | IPE;
}
