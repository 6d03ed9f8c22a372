//! The register map: offsets, and the one place that writes to the device. The bits are in
//! [`bits`](crate::bits).
//!
//! Source, unless an item says otherwise: Linux ixgbe and DPDK ixgbe (`ixgbe_type.h` of both).
//! "Machine-readable map" is the list of 54 registers of the 82599 in the project's facts, which
//! was made for a verified driver: offset, fields, access and reset value.
//!
//! Some arrays have two addresses. For receive addresses, SRRCTL, DCA_RXCTRL and PSRTYPE the
//! machine-readable map names the one of all 64 or 128 entries; Linux and DPDK use another one for
//! the first sixteen. Only these are used here, at the addresses of Linux, which have been tried
//! on hardware.

use pagewire_hal::Registers;

/// A register that holds no address or index of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Register(pub(crate) u32);

impl Register {
    /// The `n`-th register of an array that begins with this one.
    pub(crate) const fn at(self, n: u32) -> Self {
        Self(self.0 + 4 * n)
    }

    /// The register of queue `n`, where this is that of queue 0.
    pub(crate) const fn of(self, n: u16) -> Self {
        Self(self.0 + QUEUE_STRIDE * n as u32)
    }
}

/// A register that tells the device which memory to reach: written only by the owner of the
/// ring that it describes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RingRegister(pub(crate) u32);

impl RingRegister {
    /// The register of queue `n`, where this is that of queue 0.
    #[inline(always)]
    pub(crate) const fn of(self, n: u16) -> Self {
        Self(self.0 + QUEUE_STRIDE * n as u32)
    }
}

/// Bytes between the registers of a queue and those of the next one; of receive queues for the
/// first 64.
const QUEUE_STRIDE: u32 = 0x40;
/// Transmit queues of the device, and receive queues.
pub(crate) const QUEUES: u16 = 128;
/// Receive queues whose registers are at the stride above.
pub(crate) const LOW_RECEIVE_QUEUES: u16 = 64;

/// Device control, see [`Ctrl`](crate::bits::Ctrl).
pub(crate) const CTRL: Register = Register(0x0_0000);
/// Device status, see [`Status`](crate::bits::Status). Read only.
pub(crate) const STATUS: Register = Register(0x0_0008);
/// Extended device control, see [`CtrlExt`](crate::bits::CtrlExt).
pub(crate) const CTRL_EXT: Register = Register(0x0_0018);
/// Software-definable pins, see [`Esdp`](crate::bits::Esdp).
pub(crate) const ESDP: Register = Register(0x0_0020);
/// The two wires to an SFP+ module, see [`I2c`](crate::bits::I2c).
pub(crate) const I2CCTL: Register = Register(0x0_0028);

/// Interrupt causes, see [`Cause`](crate::bits::Cause); cleared by reading (with
/// [`Gpie::OTHER_CLEAR_DISABLE`](crate::bits::Gpie::OTHER_CLEAR_DISABLE) the vectors' causes are
/// not, and the others by writing ones).
pub(crate) const EICR: Register = Register(0x0_0800);
/// Causes that are cleared when their MSI-X message is sent.
pub(crate) const EIAC: Register = Register(0x0_0810);
/// Moderation of vector 0; those of vectors 0 to 23 follow each other.
pub(crate) const EITR: Register = Register(0x0_0820);
/// Moderation of vector 24 and those after it.
pub(crate) const EITR_HIGH: Register = Register(0x1_2300);
/// Interrupt mask: ones that are written let causes interrupt.
pub(crate) const EIMS: Register = Register(0x0_0880);
/// Interrupt mask: ones that are written stop causes from interrupting.
pub(crate) const EIMC: Register = Register(0x0_0888);
/// How interrupts work, see [`Gpie`](crate::bits::Gpie).
pub(crate) const GPIE: Register = Register(0x0_0898);
/// Which queue goes to which vector: two queues in a register, for each a byte of receive and one
/// of transmit.
pub(crate) const IVAR: Register = Register(0x0_0900);
/// Which other cause goes to which vector: timer in byte 0, the rest in byte 1.
pub(crate) const IVAR_MISC: Register = Register(0x0_0A00);
/// [`EIMS`] by vector: 0 to 31 here, 32 to 63 in the next one.
pub(crate) const EIMS_EX: Register = Register(0x0_0AA0);
/// [`EIMC`] by vector.
pub(crate) const EIMC_EX: Register = Register(0x0_0AB0);
/// Vectors that mask themselves when their message is sent.
pub(crate) const EIAM_EX: Register = Register(0x0_0AD0);

/// Receive descriptors and buffers of queue 0, see [`Srrctl`](crate::bits::Srrctl); the first 16
/// queues' follow each other.
pub(crate) const SRRCTL: Register = Register(0x0_2100);
/// How receive queue 0 reaches memory, see [`DcaRxctrl`](crate::bits::DcaRxctrl); the first 16
/// queues' follow each other.
pub(crate) const DCA_RXCTRL: Register = Register(0x0_2200);
/// Which receive queue counts where: four queues in a register, a byte each.
pub(crate) const RQSMR: Register = Register(0x0_2300);
/// Receive queue 0 on and off, see [`Rxdctl`](crate::bits::Rxdctl).
pub(crate) const RXDCTL: Register = Register(0x0_1028);
/// As above, of queue 64.
pub(crate) const RXDCTL_HIGH: Register = Register(0x0_D028);
/// Receive DMA, see [`Rdrxctl`](crate::bits::Rdrxctl).
pub(crate) const RDRXCTL: Register = Register(0x0_2F00);
/// The receiver on and off: bit 0.
pub(crate) const RXCTRL: Register = Register(0x0_3000);
/// Joining of segments; bit 7 keeps acknowledgements out of it.
pub(crate) const RSCDBU: Register = Register(0x0_3028);
/// Low mark of receive packet buffer 0 (of 8) for flow control.
pub(crate) const FCRTL: Register = Register(0x0_3220);
/// High mark of receive packet buffer 0 (of 8) for flow control, in bytes in bits 18:5.
pub(crate) const FCRTH: Register = Register(0x0_3260);
/// Size of receive packet buffer 0 (of 8): KiB in bits 19:10.
pub(crate) const RXPBSIZE: Register = Register(0x0_3C00);
/// Packet buffers, of receive and of transmit.
pub(crate) const PACKET_BUFFERS: u32 = 8;
/// Sending of PAUSE frames; 0 is none.
pub(crate) const FCCFG: Register = Register(0x0_3D00);

/// MAC core, see [`Hlreg0`](crate::bits::Hlreg0).
pub(crate) const HLREG0: Register = Register(0x0_4240);
/// Longest frame with frame check sequence, in bytes, in bits 31:16; counts if
/// [`Hlreg0::JUMBOEN`](crate::bits::Hlreg0::JUMBOEN) is set.
pub(crate) const MAXFRS: Register = Register(0x0_4268);
/// MAC flow control, see [`Mflcn`](crate::bits::Mflcn).
pub(crate) const MFLCN: Register = Register(0x0_4294);
/// Negotiation, see [`Autoc`](crate::bits::Autoc).
pub(crate) const AUTOC: Register = Register(0x0_42A0);
/// The link, see [`Links`](crate::bits::Links). Read only.
pub(crate) const LINKS: Register = Register(0x0_42A4);
/// Negotiation, second part, see [`Autoc2`](crate::bits::Autoc2).
pub(crate) const AUTOC2: Register = Register(0x0_42A8);

/// Arbitration of transmit descriptors, see [`Rttdcs`](crate::bits::Rttdcs).
pub(crate) const RTTDCS: Register = Register(0x0_4900);
/// Which transmit queue [`RTTDT1C`] and [`RTTBCNRC`] speak of.
pub(crate) const RTTDQSEL: Register = Register(0x0_4904);
/// Credits of the selected transmit queue; 0 where there are no traffic classes.
pub(crate) const RTTDT1C: Register = Register(0x0_4908);
/// Rate limit of the selected transmit queue; 0 is none.
pub(crate) const RTTBCNRC: Register = Register(0x0_4984);
/// Threshold of transmit packet buffer 0 (of 8), in KiB.
pub(crate) const TXPBTHRESH: Register = Register(0x0_4950);
/// Transmit DMA on and off: bit 0.
pub(crate) const DMATXCTL: Register = Register(0x0_4A80);

/// Receive checksum control, see [`Rxcsum`](crate::bits::Rxcsum).
pub(crate) const RXCSUM: Register = Register(0x0_5000);
/// Receive filter control, see [`Rfctl`](crate::bits::Rfctl).
pub(crate) const RFCTL: Register = Register(0x0_5008);
/// Receive filters, see [`Fctrl`](crate::bits::Fctrl).
pub(crate) const FCTRL: Register = Register(0x0_5080);
/// VLAN filter, see [`Vlnctrl`](crate::bits::Vlnctrl).
pub(crate) const VLNCTRL: Register = Register(0x0_5088);
/// Multicast filter; 0 turns the table off.
pub(crate) const MCSTCTRL: Register = Register(0x0_5090);
/// Multicast table, [`TABLE_WORDS`] words.
pub(crate) const MTA: Register = Register(0x0_5200);
/// Receive addresses: low and high word in turns. The first sixteen of
/// [`RECEIVE_ADDRESSES`].
pub(crate) const RAL0: Register = Register(0x0_5400);
/// High word of receive address 0: bytes 4 and 5, and [`RAH_AV`].
pub(crate) const RAH0: Register = Register(0x0_5404);
/// All receive addresses, of which the first sixteen are at [`RAL0`] too.
pub(crate) const RAL_ALL: Register = Register(0x0_A200);
/// Number of receive addresses.
pub(crate) const RECEIVE_ADDRESSES: u32 = 128;
/// The receive address is valid.
pub(crate) const RAH_AV: u32 = 1 << 31;
/// What is split off as a header, of queue 0 (of 16).
pub(crate) const PSRTYPE: Register = Register(0x0_5480);
/// Several receive queues, see [`Mrqc`](crate::bits::Mrqc).
pub(crate) const MRQC: Register = Register(0x0_5818);
/// RSS table: four queues in a word.
pub(crate) const RETA: Register = Register(0x0_5C00);
/// Words in the RSS table.
pub(crate) const RETA_WORDS: u32 = 32;
/// RSS key, 10 words.
pub(crate) const RSSRK: Register = Register(0x0_5C80);

/// Transmit queue 0: thresholds, on and off, see [`Txdctl`](crate::bits::Txdctl).
pub(crate) const TXDCTL: Register = Register(0x0_6028);
/// How transmit queue 0 reaches memory, see [`DcaTxctrl`](crate::bits::DcaTxctrl).
pub(crate) const DCA_TXCTRL: Register = Register(0x0_600C);
/// Most bytes that transmit may have requested from memory, in units of 256 bytes.
pub(crate) const DTXMXSZRQ: Register = Register(0x0_8100);
/// Transmit queues by class and pool; 0 is one class and no pools, with 64 queues.
pub(crate) const MTQC: Register = Register(0x0_8120);
/// Which transmit queue counts where: four queues in a register, a byte each.
pub(crate) const TQSM: Register = Register(0x0_8600);
/// Receive security, see [`Secrx`](crate::bits::Secrx).
pub(crate) const SECRXCTRL: Register = Register(0x0_8D00);
/// Whether the receive data path is empty: bit 0.
pub(crate) const SECRXSTAT: Register = Register(0x0_8D04);
/// Words in the multicast, unicast and VLAN tables, and five-tuple filters.
pub(crate) const TABLE_WORDS: u32 = 128;
/// VLAN filter table, [`TABLE_WORDS`] words.
pub(crate) const VFTA: Register = Register(0x0_A000);
/// Pools of the receive addresses, two words each.
pub(crate) const MPSAR: Register = Register(0x0_A600);
/// Size of transmit packet buffer 0 (of 8): KiB in bits 19:10.
pub(crate) const TXPBSIZE: Register = Register(0x0_CC00);
/// Five-tuple filters; bit 31 turns one on.
pub(crate) const FTQF: Register = Register(0x0_E600);
/// Pool VLAN filter, 64 words.
pub(crate) const PFVLVF: Register = Register(0x0_F100);
/// Pools of the pool VLAN filter, two words each.
pub(crate) const PFVLVFB: Register = Register(0x0_F200);
/// Unicast table, [`TABLE_WORDS`] words.
pub(crate) const PFUTA: Register = Register(0x0_F400);

/// EEPROM control, see [`Eec`](crate::bits::Eec).
pub(crate) const EEC: Register = Register(0x1_0010);
/// EEPROM read: address and start go in, done and data come back.
pub(crate) const EERD: Register = Register(0x1_0014);
/// Semaphore between drivers and with the firmware, see [`Swsm`](crate::bits::Swsm).
pub(crate) const SWSM: Register = Register(0x1_0140);
/// Which resource is whose (SW_FW_SYNC, GSSR in Linux): software in bits 4:0, firmware in bits
/// 9:5.
pub(crate) const SW_FW_SYNC: Register = Register(0x1_0160);
/// PCIe control, see [`GcrExt`](crate::bits::GcrExt).
pub(crate) const GCR_EXT: Register = Register(0x1_1050);

/// Received frames with a wrong frame check sequence. All counters are cleared by reading.
pub(crate) const CRCERRS: Register = Register(0x0_4000);
/// Received frames lost as packet buffer 0 (of 8) was full.
pub(crate) const MPC: Register = Register(0x0_3FA0);
/// Received frames whose length field is wrong.
pub(crate) const RLEC: Register = Register(0x0_4040);
/// Good frames transmitted.
pub(crate) const GPTC: Register = Register(0x0_4080);
/// Good bytes transmitted, low word; the high word at the next offset clears both.
pub(crate) const GOTCL: Register = Register(0x0_4090);
/// Received frames that were too short.
pub(crate) const RUC: Register = Register(0x0_40A4);
/// Received frames that were too long.
pub(crate) const ROC: Register = Register(0x0_40AC);
/// Good frames received, by [`RQSMR`].
pub(crate) const QPRC: Register = Register(0x0_1030);
/// Their bytes as they were stored, low word, by [`RQSMR`]; the high word at the next offset clears
/// both.
pub(crate) const QBRCL: Register = Register(0x0_1034);
/// Received frames dropped as the queue had no buffer, by [`RQSMR`].
pub(crate) const QPRDC: Register = Register(0x0_1430);
/// Good frames transmitted, by [`TQSM`].
pub(crate) const QPTC: Register = Register(0x0_6030);
/// Counters by queue.
pub(crate) const QUEUE_COUNTERS: u16 = 16;

/// Address of receive ring 0, low word.
pub(crate) const RDBAL: RingRegister = RingRegister(0x0_1000);
/// Address of receive ring 0, high word.
pub(crate) const RDBAH: RingRegister = RingRegister(0x0_1004);
/// Bytes in receive ring 0, a multiple of 128.
pub(crate) const RDLEN: RingRegister = RingRegister(0x0_1008);
/// Next descriptor of receive ring 0 that the device fills.
pub(crate) const RDH: RingRegister = RingRegister(0x0_1010);
/// First descriptor of receive ring 0 that is not the device's.
pub(crate) const RDT: RingRegister = RingRegister(0x0_1018);
/// Address of transmit ring 0, low word.
pub(crate) const TDBAL: RingRegister = RingRegister(0x0_6000);
/// Address of transmit ring 0, high word.
pub(crate) const TDBAH: RingRegister = RingRegister(0x0_6004);
/// Bytes in transmit ring 0, a multiple of 128.
pub(crate) const TDLEN: RingRegister = RingRegister(0x0_6008);
/// Next descriptor of transmit ring 0 that the device processes.
pub(crate) const TDH: RingRegister = RingRegister(0x0_6010);
/// First descriptor of transmit ring 0 that is not the device's.
pub(crate) const TDT: RingRegister = RingRegister(0x0_6018);
/// Head write-back of transmit ring 0, low word: bit 0 turns it on, it stays off here.
pub(crate) const TDWBAL: RingRegister = RingRegister(0x0_6038);

/// [`EERD`]: start of a read.
pub(crate) const EERD_START: u32 = 1 << 0;
/// [`EERD`]: the read is done.
pub(crate) const EERD_DONE: u32 = 1 << 1;
/// [`EERD`]: shift of the word's address.
pub(crate) const EERD_ADDRESS_SHIFT: u32 = 2;
/// [`EERD`]: shift of the word's value.
pub(crate) const EERD_DATA_SHIFT: u32 = 16;

/// The registers of one device.
#[derive(Clone, Debug)]
pub(crate) struct Bar<R: Registers>(R);

impl<R: Registers> Bar<R> {
    pub(crate) const fn new(registers: R) -> Self {
        Self(registers)
    }

    #[inline(always)]
    pub(crate) fn read(&self, register: Register) -> u32 {
        self.0.read(register.0)
    }

    #[inline(always)]
    pub(crate) fn read_ring(&self, register: RingRegister) -> u32 {
        self.0.read(register.0)
    }

    #[inline(always)]
    pub(crate) fn write(&self, register: Register, value: u32) {
        // SAFETY: a `Register` holds no address, length or index of memory. All it can do is to
        // let the device go on with the rings that `write_ring` told it of, whose owner answers
        // for that memory as long as the device is not quiet. This crate is the device's driver.
        unsafe { self.0.write(register.0, value) };
    }

    /// Clears `clear`, then sets `set`.
    pub(crate) fn change(&self, register: Register, clear: u32, set: u32) {
        self.write(register, (self.read(register) & !clear) | set);
    }

    /// Writes `value` to `count` registers that begin with `first`.
    pub(crate) fn fill(&self, first: Register, count: u32, value: u32) {
        for n in 0..count {
            self.write(first.at(n), value);
        }
    }

    /// Writes a register that tells the device of memory.
    ///
    /// # Safety
    /// The ring that results lies in memory that is the caller's, and stays mapped until the
    /// device is quiet; and so does all memory that the descriptors between head and tail name.
    #[inline(always)]
    pub(crate) unsafe fn write_ring(&self, register: RingRegister, value: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.0.write(register.0, value) };
    }

    /// Whether all registers read ones: the device is no longer there. No bit pattern of
    /// STATUS has its reserved bits all set.
    pub(crate) fn is_gone(&self) -> bool {
        self.read(STATUS) == u32::MAX
    }
}
