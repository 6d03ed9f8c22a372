//! The bits of the registers.
//!
//! Source, unless an item says otherwise: Linux ixgbe and DPDK ixgbe (`ixgbe_type.h` of both), and
//! the machine-readable map (see [`regs`](crate::regs)) where that has the register.

use bitflags::bitflags;

bitflags! {
    /// Bits of [`CTRL`](crate::regs::CTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Ctrl: u32 {
        /// Blocks new requests of the device on the bus.
        const GIO_MASTER_DISABLE = 1 << 2;
        /// Link reset; clears itself.
        const LRST = 1 << 3;
        /// Software reset; clears itself.
        const RST = 1 << 26;
    }

    /// Bits of [`STATUS`](crate::regs::STATUS).
    #[derive(Clone, Copy)]
    pub(crate) struct Status: u32 {
        /// The second port of the chip.
        const LAN_1 = 1 << 2;
        /// Requests of the device are pending or not blocked.
        const GIO_MASTER_ENABLE = 1 << 19;
    }

    /// Bits of [`CTRL_EXT`](crate::regs::CTRL_EXT).
    #[derive(Clone, Copy)]
    pub(crate) struct CtrlExt: u32 {
        /// No access skips the snooping of caches.
        const NS_DIS = 1 << 16;
        /// A driver is there: the firmware leaves the device to it.
        const DRV_LOAD = 1 << 28;
    }

    /// Bits of [`ESDP`](crate::regs::ESDP).
    #[derive(Clone, Copy)]
    pub(crate) struct Esdp: u32 {
        /// An SFP+ module is in the cage (82599).
        const MODULE_PRESENT = 1 << 2;
        /// The laser of the module is off (82599).
        const LASER_OFF = 1 << 3;
    }

    /// Bits of [`I2CCTL`](crate::regs::I2CCTL). A wire that is let go is high.
    #[derive(Clone, Copy)]
    pub(crate) struct I2c: u32 {
        /// The clock as it is.
        const CLOCK_IN = 1 << 0;
        /// Lets the clock go.
        const CLOCK_OUT = 1 << 1;
        /// The data wire as it is.
        const DATA_IN = 1 << 2;
        /// Lets the data wire go.
        const DATA_OUT = 1 << 3;
    }

    /// Bits of [`EICR`](crate::regs::EICR), [`EIMS`](crate::regs::EIMS),
    /// [`EIMC`](crate::regs::EIMC), [`EIAC`](crate::regs::EIAC). With MSI-X bits 15:0 stand for
    /// vectors 0 to 15.
    #[derive(Clone, Copy)]
    pub(crate) struct Cause: u32 {
        /// Vectors 0 to 15.
        const VECTORS = 0xFFFF;
        /// A packet buffer was full.
        const RX_MISS = 1 << 17;
        /// The link changed.
        const LSC = 1 << 20;
        /// All that the mask registers have: bits 30:0 (machine-readable map).
        const ALL = 0x7FFF_FFFF;
    }

    /// Bits of [`EITR`](crate::regs::EITR). The interval is in bits 11:3.
    #[derive(Clone, Copy)]
    pub(crate) struct Eitr: u32 {
        /// The interval, in units of 2.048 µs (DPDK ixgbe `EITR_INTERVAL_US`).
        const INTERVAL = 0x0FF8;
        /// The counter that runs is left alone by the write.
        const COUNTER_WRITE_DISABLE = 1 << 31;
    }

    /// Bits of [`GPIE`](crate::regs::GPIE).
    #[derive(Clone, Copy)]
    pub(crate) struct Gpie: u32 {
        /// Several vectors.
        const MULTIPLE_MSIX = 1 << 4;
        /// Reading the causes clears those alone that are not the vectors' own.
        const OTHER_CLEAR_DISABLE = 1 << 5;
        /// [`EIAM_EX`](crate::regs::EIAM_EX) is in force.
        const EIAME = 1 << 30;
        /// Setting a mask bit clears the pending bit of its vector.
        const PBA_SUPPORT = 1 << 31;
    }

    /// Bits of a byte of [`IVAR`](crate::regs::IVAR) and [`IVAR_MISC`](crate::regs::IVAR_MISC).
    #[derive(Clone, Copy)]
    pub(crate) struct Ivar: u32 {
        /// There is a vector, in bits 5:0.
        const VALID = 1 << 7;
    }

    /// Bits of [`SRRCTL`](crate::regs::SRRCTL). The buffer size in KiB is in bits 4:0.
    #[derive(Clone, Copy)]
    pub(crate) struct Srrctl: u32 {
        /// Size of a header buffer in units of 64 bytes. Linux sets 256 bytes though no header
        /// is split, "needed for RSC"; the reset value is 256 bytes, too.
        const HEADER_256 = 4 << 8;
        /// Advanced descriptors, one buffer for each.
        const ADVANCED_ONE_BUFFER = 1 << 25;
        /// Frames for a queue without a buffer are dropped and hold up no other queue.
        const DROP_ENABLE = 1 << 28;
    }

    /// Bits of [`DCA_RXCTRL`](crate::regs::DCA_RXCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct DcaRxctrl: u32 {
        /// Set by the reset, to be cleared by software ("Special_Reserved" of the
        /// machine-readable map; ixy clears it, too, by the datasheet as it says). Linux leaves
        /// it.
        const RESERVED_12 = 1 << 12;
        /// Data may be written out of order. Off, as in Linux: a descriptor must not overtake
        /// its data.
        const DATA_WRITE_RELAXED = 1 << 13;
        /// Headers may be written out of order. Off, as above.
        const HEADER_WRITE_RELAXED = 1 << 15;
    }

    /// Bits of [`DCA_TXCTRL`](crate::regs::DCA_TXCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct DcaTxctrl: u32 {
        /// Descriptors may be written back out of order. Off, as in Linux: "this hoses
        /// bookkeeping" (DPDK).
        const WRITE_BACK_RELAXED = 1 << 11;
    }

    /// Bits of [`RXDCTL`](crate::regs::RXDCTL).
    #[derive(Clone, Copy)]
    pub(crate) struct Rxdctl: u32 {
        /// The queue is on; reads as set when it is.
        const ENABLE = 1 << 25;
        /// Writes back what is held (DPDK ixgbe, at the stop).
        const SWFLSH = 1 << 26;
        /// VLAN tags are stripped.
        const VME = 1 << 30;
    }

    /// Bits of [`TXDCTL`](crate::regs::TXDCTL). Prefetch threshold in bits 6:0, host threshold in
    /// 14:8, write-back threshold in 22:16.
    #[derive(Clone, Copy)]
    pub(crate) struct Txdctl: u32 {
        /// Prefetch when fewer than 32 descriptors are on chip (Linux).
        const PTHRESH_32 = 32;
        /// Prefetch only if at least one descriptor waits in memory (Linux).
        const HTHRESH_1 = 1 << 8;
        /// The queue is on; reads as set when it is.
        const ENABLE = 1 << 25;
        /// Writes back what is held.
        const SWFLSH = 1 << 26;
    }

    /// Bits of [`RDRXCTL`](crate::regs::RDRXCTL).
    #[derive(Clone, Copy)]
    pub(crate) struct Rdrxctl: u32 {
        /// The frame check sequence is stripped; to agree with
        /// [`Hlreg0::RXCRCSTRP`].
        const CRC_STRIP = 1 << 1;
        /// The initialisation of the DMA is done.
        const DMAIDONE = 1 << 3;
        /// To be 0 (Linux; reset value 8).
        const RSCFRSTSIZE = 0x1F << 17;
        /// "Hardware requires" it (Linux).
        const RSCACKC = 1 << 25;
        /// "Hardware requires" it (Linux).
        const FCOE_WRFIX = 1 << 26;
    }

    /// Bits of [`HLREG0`](crate::regs::HLREG0). Bits 9:3 are reserved and keep their value.
    #[derive(Clone, Copy)]
    pub(crate) struct Hlreg0: u32 {
        /// The frame check sequence is appended.
        const TXCRCEN = 1 << 0;
        /// The frame check sequence is stripped.
        const RXCRCSTRP = 1 << 1;
        /// Frames as long as [`MAXFRS`](crate::regs::MAXFRS) says.
        const JUMBOEN = 1 << 2;
        /// Short frames are padded to 64 bytes with the frame check sequence.
        const TXPADEN = 1 << 10;
        /// What is transmitted comes back, and nothing leaves.
        const LPBK = 1 << 15;
    }

    /// Bits of [`MFLCN`](crate::regs::MFLCN).
    #[derive(Clone, Copy)]
    pub(crate) struct Mflcn: u32 {
        /// Discards PAUSE frames.
        const DPF = 1 << 1;
        /// PAUSE frames with priorities stop the transmitter.
        const RPFCE = 1 << 2;
        /// PAUSE frames stop the transmitter.
        const RFCE = 1 << 3;
    }

    /// Bits of [`AUTOC`](crate::regs::AUTOC).
    #[derive(Clone, Copy)]
    pub(crate) struct Autoc: u32 {
        /// Negotiates again; clears itself.
        const RESTART_AN = 1 << 12;
        /// Link mode: 10 Gbit/s on one lane.
        const LMS_10G_SERIAL = 3 << 13;
        /// Link mode.
        const LMS = 7 << 13;
    }

    /// Bits of [`AUTOC2`](crate::regs::AUTOC2).
    #[derive(Clone, Copy)]
    pub(crate) struct Autoc2: u32 {
        /// Serial interface at 10 Gbit/s: SFI.
        const SERIAL_SFI = 2 << 16;
        /// Serial interface at 10 Gbit/s.
        const SERIAL = 3 << 16;
        /// The EEPROM has switched the link off.
        const LINK_DISABLE = 7 << 28;
    }

    /// Bits of [`LINKS`](crate::regs::LINKS).
    #[derive(Clone, Copy)]
    pub(crate) struct Links: u32 {
        /// 100 Mbit/s, if the next bit is clear.
        const SPEED_100M = 1 << 28;
        /// 1 Gbit/s; with the bit before 10 Gbit/s.
        const SPEED_1G = 1 << 29;
        /// Link up.
        const UP = 1 << 30;
    }

    /// Bits of [`RTTDCS`](crate::regs::RTTDCS).
    #[derive(Clone, Copy)]
    pub(crate) struct Rttdcs: u32 {
        /// No arbitration: to be set while [`MTQC`](crate::regs::MTQC) is written (Linux, DPDK).
        const ARBDIS = 1 << 6;
    }

    /// Bits of [`RXCSUM`](crate::regs::RXCSUM). The device verifies IPv4, TCP and UDP checksums
    /// without being asked.
    #[derive(Clone, Copy)]
    pub(crate) struct Rxcsum: u32 {
        /// The descriptor holds the RSS hash, and no checksum of the packet.
        const PCSD = 1 << 13;
    }

    /// Bits of [`RFCTL`](crate::regs::RFCTL).
    #[derive(Clone, Copy)]
    pub(crate) struct Rfctl: u32 {
        /// Joins no segments.
        const RSC_DIS = 1 << 5;
        /// No filtering of NFS writes.
        const NFSW_DIS = 1 << 6;
        /// No filtering of NFS reads.
        const NFSR_DIS = 1 << 7;
    }

    /// Bits of [`FCTRL`](crate::regs::FCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Fctrl: u32 {
        /// All multicast frames.
        const MPE = 1 << 8;
        /// All unicast frames.
        const UPE = 1 << 9;
        /// Broadcast frames.
        const BAM = 1 << 10;
    }

    /// Bits of [`VLNCTRL`](crate::regs::VLNCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Vlnctrl: u32 {
        /// Frames with a VLAN tag have to be in the table.
        const VFE = 1 << 30;
    }

    /// Bits of [`MRQC`](crate::regs::MRQC).
    #[derive(Clone, Copy)]
    pub(crate) struct Mrqc: u32 {
        /// Queues by hash.
        const RSS = 1;
        /// Hash of addresses and ports of TCP over IPv4.
        const IPV4_TCP = 1 << 16;
        /// Hash of IPv4 addresses.
        const IPV4 = 1 << 17;
        /// Hash of IPv6 addresses.
        const IPV6 = 1 << 20;
        /// Hash of addresses and ports of TCP over IPv6.
        const IPV6_TCP = 1 << 21;
    }

    /// Bits of [`SECRXCTRL`](crate::regs::SECRXCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Secrx: u32 {
        /// Holds the receive data path up.
        const RX_DIS = 1 << 1;
    }

    /// Bits of [`EEC`](crate::regs::EEC).
    #[derive(Clone, Copy)]
    pub(crate) struct Eec: u32 {
        /// There is an EEPROM.
        const PRESENT = 1 << 8;
        /// The device has read its configuration from the EEPROM.
        const AUTO_RD = 1 << 9;
        /// Size of the EEPROM: 2 to the power of this and 6, in words.
        const SIZE = 0xF << 11;
    }

    /// Bits of [`SWSM`](crate::regs::SWSM).
    #[derive(Clone, Copy)]
    pub(crate) struct Swsm: u32 {
        /// Of the drivers of both ports; a read that finds it clear sets it.
        const SMBI = 1 << 0;
        /// Of software and firmware; sticks when it is granted (82599).
        const SWESMBI = 1 << 1;
    }

    /// Bits of [`GCR_EXT`](crate::regs::GCR_EXT).
    #[derive(Clone, Copy)]
    pub(crate) struct GcrExt: u32 {
        /// Clears the buffers of this function towards the bus.
        const BUFFERS_CLEAR = 1 << 30;
    }
}

/// [`RXCTRL`](crate::regs::RXCTRL): the receiver is on.
pub(crate) const RXEN: u32 = 1 << 0;
/// [`DMATXCTL`](crate::regs::DMATXCTL): transmit DMA is on.
pub(crate) const TX_ENABLE: u32 = 1 << 0;
/// [`SECRXSTAT`](crate::regs::SECRXSTAT): the receive data path is empty.
pub(crate) const SECRX_READY: u32 = 1 << 0;
/// [`RSCDBU`](crate::regs::RSCDBU): no acknowledgement is joined.
pub(crate) const RSC_ACK_DISABLE: u32 = 1 << 7;
/// [`SW_FW_SYNC`](crate::regs::SW_FW_SYNC): semaphore to the register itself (X540).
pub(crate) const REGSMP: u32 = 1 << 31;
