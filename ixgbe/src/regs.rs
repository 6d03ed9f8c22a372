//! The register map: offsets, and the one place that writes to the device. The bits are in
//! [`bits`](crate::bits).
//!
//! Sources. Every offset is that of the macro `IXGBE_` and the name here in `ixgbe_type.h` of
//! Linux ixgbe and of DPDK ixgbe, which agree; where they call it otherwise, the item has their
//! name in brackets. "Machine-readable map" is the list of 54 registers of the 82599 in the
//! project's facts, which was made for a verified driver: offset, fields, access and reset value.
//! A number in brackets is the section of the 82599 datasheet, as TinyNF (`regs.h`, `device.h`)
//! cites it; the datasheet itself was not at hand. `tests/sources.rs` holds the offsets against
//! the macros and the map.
//!
//! The X540 has all of these at the same places (`ixgbe_type.h`, where `_X540` names exist), but
//! for what an item says.
//!
//! Some arrays have two addresses. For receive addresses, SRRCTL, DCA_RXCTRL and PSRTYPE the
//! machine-readable map and TinyNF name the one of all 64 or 128 entries; Linux and DPDK use
//! another one for the first sixteen. Only these are used here, at the addresses of Linux, which
//! have been tried on hardware.

use pagewire_hal::Registers;
use pagewire_hal::driver::{self, Register, RingRegister};

/// Bytes between the registers of a queue and those of the next one; of receive queues for the
/// first 64 (machine-readable map: 40h, and the others at another place).
const QUEUE_STRIDE: u32 = 0x40;

/// What each queue has one of.
pub(crate) trait PerQueue {
    /// The register of queue `n`, where this is that of queue 0.
    #[must_use]
    fn of(self, n: u16) -> Self;
}

impl PerQueue for Register {
    #[inline(always)]
    fn of(self, n: u16) -> Self {
        Self(self.0 + QUEUE_STRIDE * u32::from(n))
    }
}

impl PerQueue for RingRegister {
    #[inline(always)]
    fn of(self, n: u16) -> Self {
        Self(self.0 + QUEUE_STRIDE * u32::from(n))
    }
}

/// Transmit queues of the device, and receive queues (Linux `IXGBE_82599_MAX_TX_QUEUES`, and X540
/// alike; 1.3 of the 82599 datasheet, as TinyNF cites it).
pub(crate) const QUEUES: u16 = 128;
/// Receive queues whose registers are at the stride above.
pub(crate) const LOW_RECEIVE_QUEUES: u16 = 64;

/// Device control, see [`Ctrl`](crate::bits::Ctrl) (8.2.3.1.1).
pub(crate) const CTRL: Register = Register(0x0_0000);
/// Device status, see [`Status`](crate::bits::Status). Read only (8.2.3.1.2).
pub(crate) const STATUS: Register = Register(0x0_0008);
/// Extended device control, see [`CtrlExt`](crate::bits::CtrlExt) (8.2.3.1.3).
pub(crate) const CTRL_EXT: Register = Register(0x0_0018);
/// Software-definable pins, see [`Esdp`](crate::bits::Esdp).
pub(crate) const ESDP: Register = Register(0x0_0020);
/// The two wires to an SFP+ module, see [`I2c`](crate::bits::I2c) (82599).
pub(crate) const I2CCTL: Register = Register(0x0_0028);

/// Interrupt causes, see [`Cause`](crate::bits::Cause); cleared by reading, but for the vectors'
/// with [`Gpie::OTHER_CLEAR_DISABLE`](crate::bits::Gpie::OTHER_CLEAR_DISABLE), and by writing
/// ones. (Linux reads EICS instead, which clears nothing, and writes: for erratum 26 of the 82598,
/// it says.)
pub(crate) const EICR: Register = Register(0x0_0800);
/// Causes that are cleared when their MSI-X message is sent.
pub(crate) const EIAC: Register = Register(0x0_0810);
/// Moderation of vector 0, see [`Eitr`](crate::bits::Eitr); those of vectors 0 to 23 follow each
/// other.
pub(crate) const EITR: Register = Register(0x0_0820);
/// Moderation of vector 24 and those after it (`EITR(24)`).
pub(crate) const EITR_HIGH: Register = Register(0x1_2300);
/// Interrupt mask: ones that are written let causes interrupt.
pub(crate) const EIMS: Register = Register(0x0_0880);
/// Interrupt mask: ones that are written stop causes from interrupting (8.2.3.5.4).
pub(crate) const EIMC: Register = Register(0x0_0888);
/// How interrupts work, see [`Gpie`](crate::bits::Gpie).
pub(crate) const GPIE: Register = Register(0x0_0898);
/// Which queue goes to which vector: two queues in a register, for each a byte of receive and one
/// of transmit. (Linux `ixgbe_set_ivar`.)
pub(crate) const IVAR: Register = Register(0x0_0900);
/// Which other cause goes to which vector: timer in byte 0, the rest in byte 1. (Linux
/// `ixgbe_set_ivar`.)
pub(crate) const IVAR_MISC: Register = Register(0x0_0A00);
/// Interrupt causes by vector, 0 to 31 here and 32 to 63 in the next one: ones that are written are
/// set as if they had come up.
pub(crate) const EICS_EX: Register = Register(0x0_0A90);
/// [`EIMS`] by vector: 0 to 31 here, 32 to 63 in the next one.
pub(crate) const EIMS_EX: Register = Register(0x0_0AA0);
/// [`EIMC`] by vector (8.2.3.5.9).
pub(crate) const EIMC_EX: Register = Register(0x0_0AB0);
/// Vectors that mask themselves when their message is sent.
pub(crate) const EIAM_EX: Register = Register(0x0_0AD0);

/// Receive descriptors and buffers of queue 0, see [`Srrctl`](crate::bits::Srrctl); the first 16
/// queues' follow each other (8.2.3.8.7).
pub(crate) const SRRCTL: Register = Register(0x0_2100);
/// How receive queue 0 reaches memory, see [`DcaRxctrl`](crate::bits::DcaRxctrl); the first 16
/// queues' follow each other (8.2.3.11.1).
pub(crate) const DCA_RXCTRL: Register = Register(0x0_2200);
/// Which receive queue counts where: four queues in a register, a byte each.
pub(crate) const RQSMR: Register = Register(0x0_2300);
/// Receive queue 0 on and off, see [`Rxdctl`](crate::bits::Rxdctl) (8.2.3.8.6).
pub(crate) const RXDCTL: Register = Register(0x0_1028);
/// As above, of queue 64 (`RXDCTL(64)`).
pub(crate) const RXDCTL_HIGH: Register = Register(0x0_D028);
/// Receive DMA, see [`Rdrxctl`](crate::bits::Rdrxctl) (8.2.3.8.8).
pub(crate) const RDRXCTL: Register = Register(0x0_2F00);
/// The receiver on and off: bit 0 (8.2.3.8.10).
pub(crate) const RXCTRL: Register = Register(0x0_3000);
/// Joining of segments; bit 7 keeps acknowledgements out of it (8.2.3.8.12).
pub(crate) const RSCDBU: Register = Register(0x0_3028);
/// Low mark of receive packet buffer 0 (of 8) for flow control (8.2.3.3.3; `FCRTL_82599`, as the
/// name without the suffix has the stride of the 82598).
pub(crate) const FCRTL: Register = Register(0x0_3220);
/// High mark of receive packet buffer 0 (of 8) for flow control, in bytes in bits 18:5 (8.2.3.3.4;
/// `FCRTH_82599`). The datasheet has 16 bytes as its granularity in the text and 32 by the field,
/// as TinyNF notes: the field is followed, and the mark here is a multiple of both.
pub(crate) const FCRTH: Register = Register(0x0_3260);
/// Size of receive packet buffer 0 (of 8): KiB in bits 19:10 (8.2.3.8.9). The datasheet calls the
/// sizes of the other seven meaningless without traffic classes there, and wants them to be 0 in
/// 4.6.11.3.4 (TinyNF): 0 it is, as in Linux.
pub(crate) const RXPBSIZE: Register = Register(0x0_3C00);
/// Packet buffers, of receive and of transmit (`MAX_PACKET_BUFFERS`).
pub(crate) const PACKET_BUFFERS: u32 = 8;
/// Sending of PAUSE frames; 0 is none (8.2.3.3.7).
pub(crate) const FCCFG: Register = Register(0x0_3D00);

/// MAC core, see [`Hlreg0`](crate::bits::Hlreg0) (8.2.3.22.8).
pub(crate) const HLREG0: Register = Register(0x0_4240);
/// Longest frame with frame check sequence, in bytes, in bits 31:16; counts if
/// [`Hlreg0::JUMBOEN`](crate::bits::Hlreg0::JUMBOEN) is set (4.6.7; `MHADD_MFS_MASK`).
pub(crate) const MAXFRS: Register = Register(0x0_4268);
/// Forces the link of an X540: see [`MACC_FORCE_LINK`](crate::bits::MACC_FORCE_LINK).
pub(crate) const MACC: Register = Register(0x0_4330);
/// MAC flow control, see [`Mflcn`](crate::bits::Mflcn) (8.2.3.22.34).
pub(crate) const MFLCN: Register = Register(0x0_4294);
/// Negotiation, see [`Autoc`](crate::bits::Autoc) (8.2.3.22.19).
pub(crate) const AUTOC: Register = Register(0x0_42A0);
/// The link, see [`Links`](crate::bits::Links). Read only.
pub(crate) const LINKS: Register = Register(0x0_42A4);
/// Negotiation, second part, see [`Autoc2`](crate::bits::Autoc2).
pub(crate) const AUTOC2: Register = Register(0x0_42A8);

/// Arbitration of transmit descriptors, see [`Rttdcs`](crate::bits::Rttdcs) (8.2.3.10.2).
pub(crate) const RTTDCS: Register = Register(0x0_4900);
/// Which transmit queue [`RTTDT1C`] and [`RTTBCNRC`] speak of (8.2.3.10.13).
pub(crate) const RTTDQSEL: Register = Register(0x0_4904);
/// Credits of the selected transmit queue; 0 where there are no traffic classes (8.2.3.10.14).
pub(crate) const RTTDT1C: Register = Register(0x0_4908);
/// Rate limit of the selected transmit queue; 0 is none (Linux `ixgbe_start_hw_gen2`).
pub(crate) const RTTBCNRC: Register = Register(0x0_4984);
/// Threshold of transmit packet buffer 0 (of 8), in KiB (8.2.3.9.16). No reset value in the
/// machine-readable map; 96h for the first and 0 for the others by TinyNF's quotation, which is
/// what is written here.
pub(crate) const TXPBTHRESH: Register = Register(0x0_4950);
/// Transmit DMA on and off: bit 0 (8.2.3.9.2).
pub(crate) const DMATXCTL: Register = Register(0x0_4A80);

/// Receive checksum control, see [`Rxcsum`](crate::bits::Rxcsum) (8.2.3.7.5).
pub(crate) const RXCSUM: Register = Register(0x0_5000);
/// Receive filter control, see [`Rfctl`](crate::bits::Rfctl) (8.2.3.7.6).
pub(crate) const RFCTL: Register = Register(0x0_5008);
/// Receive filters, see [`Fctrl`](crate::bits::Fctrl) (8.2.3.7.1).
pub(crate) const FCTRL: Register = Register(0x0_5080);
/// VLAN filter, see [`Vlnctrl`](crate::bits::Vlnctrl) (8.2.3.7.2).
pub(crate) const VLNCTRL: Register = Register(0x0_5088);
/// Multicast filter; 0 turns the table off (4.6.7: MFE is set where it is wanted; `MCSTCTRL_MFE`).
pub(crate) const MCSTCTRL: Register = Register(0x0_5090);
/// Multicast table, [`TABLE_WORDS`] words (8.2.3.7.7).
pub(crate) const MTA: Register = Register(0x0_5200);
/// Receive addresses: low and high word in turns. The first sixteen of [`RECEIVE_ADDRESSES`]
/// (`RAL(0)`; 8.2.3.7.9 for the high word).
pub(crate) const RAL0: Register = Register(0x0_5400);
/// High word of receive address 0: bytes 4 and 5, and whether it is valid (`RAH(0)`; 8.2.3.7.9).
pub(crate) const RAH0: Register = Register(0x0_5404);
/// All receive addresses, of which the first sixteen are at [`RAL0`] too (`RAL(n)` from 16
/// on).
pub(crate) const RAL_ALL: Register = Register(0x0_A200);
/// Number of receive addresses (machine-readable map; Linux `IXGBE_82599_RAR_ENTRIES`).
pub(crate) const RECEIVE_ADDRESSES: u32 = 128;
/// What is split off as a header. Linux writes one for each pool, and so the first alone where
/// there are no pools; DPDK writes one for each queue. 0 is written for each queue here, which is
/// right by both: "header splitting mode might cause unpredictable behavior" (82599 datasheet
/// 7.1.10, as TinyNF quotes it).
pub(crate) const PSRTYPE: Register = Register(0x0_5480);
/// Several receive queues, see [`Mrqc`](crate::bits::Mrqc) (8.2.3.7.12).
pub(crate) const MRQC: Register = Register(0x0_5818);
/// RSS table: four queues in a word.
pub(crate) const RETA: Register = Register(0x0_5C00);
/// Words in the RSS table (`ixgbe_type.h`: "32 of these").
pub(crate) const RETA_WORDS: u32 = 32;
/// RSS key, 10 words.
pub(crate) const RSSRK: Register = Register(0x0_5C80);

/// Transmit queue 0: thresholds, on and off, see [`Txdctl`](crate::bits::Txdctl) (8.2.3.9.10).
pub(crate) const TXDCTL: Register = Register(0x0_6028);
/// How transmit queue 0 reaches memory, see [`DcaTxctrl`](crate::bits::DcaTxctrl) (8.2.3.11.2;
/// `DCA_TXCTRL_82599`, as the name without the suffix is that of the 82598, elsewhere).
pub(crate) const DCA_TXCTRL: Register = Register(0x0_600C);
/// Most bytes that transmit may have requested from memory, in units of 256 bytes (8.2.3.9.1).
pub(crate) const DTXMXSZRQ: Register = Register(0x0_8100);
/// Transmit queues by class and pool; 0 is one class and no pools, with 64 queues (8.2.3.9.15).
pub(crate) const MTQC: Register = Register(0x0_8120);
/// Which transmit queue counts where: four queues in a register, a byte each.
pub(crate) const TQSM: Register = Register(0x0_8600);
/// Receive security, see [`Secrx`](crate::bits::Secrx) (8.2.3.12.5).
pub(crate) const SECRXCTRL: Register = Register(0x0_8D00);
/// Whether the receive data path is empty: bit 0 (8.2.3.12.6).
pub(crate) const SECRXSTAT: Register = Register(0x0_8D04);
/// Words in the multicast, unicast and VLAN tables, and five-tuple filters (`MAX_MTA`,
/// `MAX_FTQF_FILTERS`; the map has 128 of each but of VLANs: 4096 of them make 128 words, Linux
/// `IXGBE_82599_VFT_TBL_SIZE`).
pub(crate) const TABLE_WORDS: u32 = 128;
/// VLAN filter table, [`TABLE_WORDS`] words.
pub(crate) const VFTA: Register = Register(0x0_A000);
/// Pools of the receive addresses, two words each (8.2.3.7.10; `MPSAR_LO` and `MPSAR_HI`).
pub(crate) const MPSAR: Register = Register(0x0_A600);
/// Size of transmit packet buffer 0 (of 8): KiB in bits 19:10 (8.2.3.9.13). Of the other seven as
/// with [`RXPBSIZE`].
pub(crate) const TXPBSIZE: Register = Register(0x0_CC00);
/// Five-tuple filters; bit 31 turns one on (8.2.3.7.19).
pub(crate) const FTQF: Register = Register(0x0_E600);
/// Pool VLAN filter, 64 words (8.2.3.27.15; `VLVF`).
pub(crate) const PFVLVF: Register = Register(0x0_F100);
/// Pools of the pool VLAN filter, two words each (8.2.3.27.16; `VLVFB`).
pub(crate) const PFVLVFB: Register = Register(0x0_F200);
/// Unicast table, [`TABLE_WORDS`] words (`UTA`).
pub(crate) const PFUTA: Register = Register(0x0_F400);

/// EEPROM control, see [`Eec`](crate::bits::Eec) (8.2.3.2.1).
pub(crate) const EEC: Register = Register(0x1_0010);
/// EEPROM read: address and start go in, done and data come back.
pub(crate) const EERD: Register = Register(0x1_0014);
/// Semaphore between drivers and with the firmware, see [`Swsm`](crate::bits::Swsm).
pub(crate) const SWSM: Register = Register(0x1_0140);
/// Which resource is whose: software in bits 4:0, firmware in bits 9:5, and with the X540 the
/// hardware in bit 4 (`SWFW_SYNC` and `GSSR`, the same place).
pub(crate) const SW_FW_SYNC: Register = Register(0x1_0160);
/// PCIe control, see [`GcrExt`](crate::bits::GcrExt) (8.2.3.4.12).
pub(crate) const GCR_EXT: Register = Register(0x1_1050);

/// Received frames with a wrong frame check sequence. All counters are cleared by reading (Linux
/// `ixgbe_clear_hw_cntrs_generic`).
pub(crate) const CRCERRS: Register = Register(0x0_4000);
/// Received frames lost as packet buffer 0 (of 8) was full.
pub(crate) const MPC: Register = Register(0x0_3FA0);
/// Received frames whose length field is wrong.
pub(crate) const RLEC: Register = Register(0x0_4040);
/// Good frames transmitted.
pub(crate) const GPTC: Register = Register(0x0_4080);
/// Good bytes transmitted, low word; the high word at the next offset clears both.
pub(crate) const GOTCL: Register = Register(0x0_4090);
/// Received frames that were too short; those of less than 12 bytes are not counted (specification
/// update of the 82599, specification clarification 18, of which the title was at hand).
pub(crate) const RUC: Register = Register(0x0_40A4);
/// Received frames that were too long.
pub(crate) const ROC: Register = Register(0x0_40AC);
/// Good frames received, by [`RQSMR`].
pub(crate) const QPRC: Register = Register(0x0_1030);
/// Their bytes as they were stored, low word, by [`RQSMR`]; the high word at the next offset clears
/// both (`QBRC_L`).
pub(crate) const QBRCL: Register = Register(0x0_1034);
/// Received frames dropped as the queue had no buffer, by [`RQSMR`].
pub(crate) const QPRDC: Register = Register(0x0_1430);
/// Good frames transmitted, by [`TQSM`].
pub(crate) const QPTC: Register = Register(0x0_6030);
/// Counters by queue (`ixgbe_type.h`: "16 of these").
pub(crate) const QUEUE_COUNTERS: u16 = 16;

/// Address of receive ring 0, low word (8.2.3.8.1).
pub(crate) const RDBAL: RingRegister = RingRegister(0x0_1000);
/// Address of receive ring 0, high word (8.2.3.8.2).
pub(crate) const RDBAH: RingRegister = RingRegister(0x0_1004);
/// Bytes in receive ring 0, a multiple of 128 (8.2.3.8.3).
pub(crate) const RDLEN: RingRegister = RingRegister(0x0_1008);
/// Next descriptor of receive ring 0 that the device fills.
pub(crate) const RDH: RingRegister = RingRegister(0x0_1010);
/// First descriptor of receive ring 0 that is not the device's (8.2.3.8.5).
pub(crate) const RDT: RingRegister = RingRegister(0x0_1018);
/// Address of transmit ring 0, low word (8.2.3.9.5).
pub(crate) const TDBAL: RingRegister = RingRegister(0x0_6000);
/// Address of transmit ring 0, high word (8.2.3.9.6).
pub(crate) const TDBAH: RingRegister = RingRegister(0x0_6004);
/// Bytes in transmit ring 0, a multiple of 128 (8.2.3.9.7).
pub(crate) const TDLEN: RingRegister = RingRegister(0x0_6008);
/// Next descriptor of transmit ring 0 that the device processes.
pub(crate) const TDH: RingRegister = RingRegister(0x0_6010);
/// First descriptor of transmit ring 0 that is not the device's (8.2.3.9.9).
pub(crate) const TDT: RingRegister = RingRegister(0x0_6018);
/// Head write-back of transmit ring 0, low word: bit 0 turns it on, it stays off here (8.2.3.9.11).
pub(crate) const TDWBAL: RingRegister = RingRegister(0x0_6038);

/// The registers of one device. No bit pattern of STATUS has its reserved bits all set.
pub(crate) type Bar<R> = driver::Bar<R, { STATUS.0 }>;

/// Names the registers of the device that this crate drives.
pub(crate) const fn bar<R: Registers>(registers: R) -> Bar<R> {
    // SAFETY: this crate is the device's driver, and a `Register` above holds no address, length or
    // index of memory; those that do are each a `RingRegister`.
    unsafe { Bar::new(registers) }
}
