//! The bits of the registers.
//!
//! Sources. A name in brackets is the macro in `ixgbe_type.h` of Linux ixgbe and of DPDK ixgbe,
//! without its `IXGBE_`; both have the same value. Where the machine-readable map (see
//! [`regs`](crate::regs)) has the register it agrees, but for what an item says. What has no name
//! there says where it was learned. Numbers are sections of the 82599 datasheet as TinyNF cites
//! or quotes them.

use bitflags::bitflags;

bitflags! {
    /// Bits of [`CTRL`](crate::regs::CTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Ctrl: u32 {
        /// Blocks new requests of the device on the bus (`CTRL_GIO_DIS`).
        const GIO_MASTER_DISABLE = 1 << 2;
        /// Link reset; clears itself (`CTRL_LNK_RST`).
        const LRST = 1 << 3;
        /// Software reset; clears itself (`CTRL_RST`).
        const RST = 1 << 26;
    }

    /// Bits of [`STATUS`](crate::regs::STATUS).
    #[derive(Clone, Copy)]
    pub(crate) struct Status: u32 {
        /// The second port of the chip (`STATUS_LAN_ID_1`).
        const LAN_1 = 1 << 2;
        /// Requests of the device are pending or not blocked (`STATUS_GIO`).
        const GIO_MASTER_ENABLE = 1 << 19;
    }

    /// Bits of [`CTRL_EXT`](crate::regs::CTRL_EXT).
    #[derive(Clone, Copy)]
    pub(crate) struct CtrlExt: u32 {
        /// No access skips the snooping of caches (`CTRL_EXT_NS_DIS`).
        const NS_DIS = 1 << 16;
        /// A driver is there: the firmware leaves the device to it (`CTRL_EXT_DRV_LOAD`).
        const DRV_LOAD = 1 << 28;
    }

    /// Bits of [`ESDP`](crate::regs::ESDP).
    #[derive(Clone, Copy)]
    pub(crate) struct Esdp: u32 {
        /// The laser of the module is off (`ESDP_SDP3` on the 82599; that it is the laser: Linux
        /// and DPDK `ixgbe_disable_tx_laser_multispeed_fiber`). There are boards where it is
        /// something else (DPDK has an option for them, `fiber_sdp3_no_tx_disable`). That the
        /// pin is an output is the EEPROM's affair, as in both drivers.
        const LASER_OFF = 1 << 3;
    }

    /// Bits of [`I2CCTL`](crate::regs::I2CCTL). A wire that is let go is high.
    #[derive(Clone, Copy)]
    pub(crate) struct I2c: u32 {
        /// The clock as it is (`I2C_CLK_IN`).
        const CLOCK_IN = 1 << 0;
        /// Lets the clock go (`I2C_CLK_OUT`).
        const CLOCK_OUT = 1 << 1;
        /// The data wire as it is (`I2C_DATA_IN`).
        const DATA_IN = 1 << 2;
        /// Lets the data wire go (`I2C_DATA_OUT`).
        const DATA_OUT = 1 << 3;
    }

    /// Bits of [`EICR`](crate::regs::EICR), [`EIMS`](crate::regs::EIMS),
    /// [`EIMC`](crate::regs::EIMC), [`EIAC`](crate::regs::EIAC). With MSI-X bits 15:0 stand for
    /// vectors 0 to 15.
    #[derive(Clone, Copy)]
    pub(crate) struct Cause: u32 {
        /// Vectors 0 to 15 (`EICR_RTX_QUEUE`).
        const VECTORS = 0xFFFF;
        /// A packet buffer was full (`EICR_RX_MISS`).
        const RX_MISS = 1 << 17;
        /// The link changed (`EICR_LSC`).
        const LSC = 1 << 20;
        /// All that the mask registers have: bits 30:0 (machine-readable map; 8.2.3.5.4 has bit 31
        /// reserved. Linux and DPDK write ones to all 32, `IRQ_CLEAR_MASK`).
        const ALL = 0x7FFF_FFFF;
    }

    /// Bits of [`EITR`](crate::regs::EITR). The interval is in bits 11:3 (`EITR_ITR_INT_MASK`).
    #[derive(Clone, Copy)]
    pub(crate) struct Eitr: u32 {
        /// The interval, in units of 2.048 µs (DPDK ixgbe `EITR_INTERVAL_UNIT_NS`; X550 datasheet
        /// 8.2.2.6.4, for 1 and 10 Gbit/s). For 100 Mbit/s no source was at hand; the same is
        /// taken, as Linux and DPDK do.
        const INTERVAL = 0x0FF8;
        /// The counter that runs is left alone by the write (`EITR_CNT_WDIS`).
        const COUNTER_WRITE_DISABLE = 1 << 31;
    }

    /// Bits of [`GPIE`](crate::regs::GPIE).
    #[derive(Clone, Copy)]
    pub(crate) struct Gpie: u32 {
        /// Several vectors (`GPIE_MSIX_MODE`).
        const MULTIPLE_MSIX = 1 << 4;
        /// Reading the causes clears those alone that are not the vectors' own (`GPIE_OCD`).
        const OTHER_CLEAR_DISABLE = 1 << 5;
        /// [`EIAM_EX`](crate::regs::EIAM_EX) is in force (`GPIE_EIAME`).
        const EIAME = 1 << 30;
        /// Setting a mask bit clears the pending bit of its vector (`GPIE_PBA_SUPPORT`).
        const PBA_SUPPORT = 1 << 31;
    }

    /// Bits of a byte of [`IVAR`](crate::regs::IVAR) and [`IVAR_MISC`](crate::regs::IVAR_MISC)
    /// (Linux `ixgbe_set_ivar`).
    #[derive(Clone, Copy)]
    pub(crate) struct Ivar: u32 {
        /// There is a vector, in bits 5:0 (`IVAR_ALLOC_VAL`).
        const VALID = 1 << 7;
    }

    /// Bits of [`SRRCTL`](crate::regs::SRRCTL). The buffer size in KiB, 1 to 16, is in bits 4:0
    /// (machine-readable map; 8.2.3.8.7. `SRRCTL_BSIZEPKT_MASK` has bits 6:0, which is the same up
    /// to 16).
    #[derive(Clone, Copy)]
    pub(crate) struct Srrctl: u32 {
        /// Size of a header buffer in units of 64 bytes (`SRRCTL_BSIZEHDR_MASK`, bits 13:8). Linux
        /// sets 256 bytes though no header is split, "needed for RSC"; the reset value is 256
        /// bytes, too.
        const HEADER_256 = 4 << 8;
        /// Advanced descriptors, one buffer for each (`SRRCTL_DESCTYPE_ADV_ONEBUF`).
        const ADVANCED_ONE_BUFFER = 1 << 25;
        /// Frames for a queue without a buffer are dropped and hold up no other queue
        /// (`SRRCTL_DROP_EN`).
        const DROP_ENABLE = 1 << 28;
    }

    /// Bits of [`DCA_RXCTRL`](crate::regs::DCA_RXCTRL). Bits 13 and 15 are set by the reset
    /// (machine-readable map). Reads out of order (bit 9) stay on.
    #[derive(Clone, Copy)]
    pub(crate) struct DcaRxctrl: u32 {
        /// Set by the reset. "Must be set to 0" (8.2.3.11.1; "Special_Reserved" of the
        /// machine-readable map; ixy clears it by the last sentence of 4.6.7). Linux and DPDK have
        /// no name for it and leave it. Cleared, as the datasheet has the say.
        const RESERVED_12 = 1 << 12;
        /// Data may be written out of order. Off, as in Linux: a descriptor must not overtake its
        /// data (`DCA_RXCTRL_DATA_WRO_EN`).
        const DATA_WRITE_RELAXED = 1 << 13;
        /// Headers may be written out of order. Off, as above (`DCA_RXCTRL_HEAD_WRO_EN`).
        const HEADER_WRITE_RELAXED = 1 << 15;
    }

    /// Bits of [`DCA_TXCTRL`](crate::regs::DCA_TXCTRL). The reset sets bits 9, 11 and 13
    /// (machine-readable map); reads out of order (9 and 13) stay on.
    #[derive(Clone, Copy)]
    pub(crate) struct DcaTxctrl: u32 {
        /// Descriptors may be written back out of order (`DCA_TXCTRL_DESC_WRO_EN`). Off, as in
        /// Linux and DPDK (`ixgbe_start_hw_gen2`); DPDK says of the head's write-back: "this
        /// hoses bookkeeping".
        const WRITE_BACK_RELAXED = 1 << 11;
    }

    /// Bits of [`RXDCTL`](crate::regs::RXDCTL).
    #[derive(Clone, Copy)]
    pub(crate) struct Rxdctl: u32 {
        /// The queue is on; reads as set when it is (`RXDCTL_ENABLE`).
        const ENABLE = 1 << 25;
        /// Writes back what is held (`RXDCTL_SWFLSH`; DPDK and Linux `ixgbe_stop_adapter_generic`
        /// set it). The machine-readable map has no such bit here; done as the drivers do.
        const SWFLSH = 1 << 26;
        /// VLAN tags are stripped (`RXDCTL_VME`).
        const VME = 1 << 30;
    }

    /// Bits of [`TXDCTL`](crate::regs::TXDCTL). Prefetch threshold in bits 6:0, host threshold in
    /// 14:8, write-back threshold in 22:16 (machine-readable map).
    #[derive(Clone, Copy)]
    pub(crate) struct Txdctl: u32 {
        /// Prefetch when fewer than 32 descriptors are on chip (Linux `ixgbe_configure_tx_ring`: it
        /// "improves performance and avoids a TX hang"). With the write-back threshold at most
        /// 40, as many as the device holds (Linux, at the same place).
        const PTHRESH_32 = 32;
        /// Prefetch only if at least one descriptor waits in memory (Linux, at the same place). "A
        /// non-zero value each time PTHRESH is used" (8.2.3.9.10).
        const HTHRESH_1 = 1 << 8;
        /// The queue is on; reads as set when it is (`TXDCTL_ENABLE`).
        const ENABLE = 1 << 25;
        /// Writes back what is held (`TXDCTL_SWFLSH`).
        const SWFLSH = 1 << 26;
    }

    /// Bits of [`RDRXCTL`](crate::regs::RDRXCTL).
    #[derive(Clone, Copy)]
    pub(crate) struct Rdrxctl: u32 {
        /// The frame check sequence is stripped; to agree with [`Hlreg0::RXCRCSTRP`]
        /// (4.6.7; `RDRXCTL_CRCSTRIP`).
        const CRC_STRIP = 1 << 1;
        /// The initialisation of the DMA is done (`RDRXCTL_DMAIDONE`).
        const DMAIDONE = 1 << 3;
        /// To be 0, against the reset value of 8 (4.6.7; Linux; `RDRXCTL_RSCFRSTSIZE`).
        const RSCFRSTSIZE = 0x1F << 17;
        /// "Software should set this bit" (8.2.3.8.8; "hardware requires" it: Linux). By the
        /// comment in `ixgbe_type.h` it must be set where segments are joined. Set in any case, as
        /// Linux and TinyNF do (`RDRXCTL_RSCACKC`).
        const RSCACKC = 1 << 25;
        /// As above (`RDRXCTL_FCOE_WRFIX`).
        const FCOE_WRFIX = 1 << 26;
    }

    /// Bits of [`HLREG0`](crate::regs::HLREG0). Bits 9:3 are reserved and keep their value (reset
    /// value 1, machine-readable map).
    #[derive(Clone, Copy)]
    pub(crate) struct Hlreg0: u32 {
        /// The frame check sequence is appended (`HLREG0_TXCRCEN`).
        const TXCRCEN = 1 << 0;
        /// The frame check sequence is stripped (`HLREG0_RXCRCSTRP`).
        const RXCRCSTRP = 1 << 1;
        /// Frames as long as [`MAXFRS`](crate::regs::MAXFRS) says (`HLREG0_JUMBOEN`).
        const JUMBOEN = 1 << 2;
        /// Short frames are padded to 64 bytes with the frame check sequence (`HLREG0_TXPADEN`).
        const TXPADEN = 1 << 10;
        /// What is transmitted comes back, and nothing leaves (`HLREG0_LPBK`).
        const LPBK = 1 << 15;
    }

    /// Bits of [`MFLCN`](crate::regs::MFLCN).
    #[derive(Clone, Copy)]
    pub(crate) struct Mflcn: u32 {
        /// Discards PAUSE frames (`MFLCN_DPF`).
        const DPF = 1 << 1;
        /// PAUSE frames with priorities stop the transmitter (`MFLCN_RPFCE`).
        const RPFCE = 1 << 2;
        /// PAUSE frames stop the transmitter (`MFLCN_RFCE`).
        const RFCE = 1 << 3;
        /// Priority by priority (X540, of `MFLCN_RPFCE_MASK`; reserved on the 82599 by the
        /// machine-readable map, where Linux and DPDK clear them all the same).
        const RPFCE_CLASSES = 0xFF << 4;
    }

    /// Bits of [`AUTOC`](crate::regs::AUTOC).
    #[derive(Clone, Copy)]
    pub(crate) struct Autoc: u32 {
        /// The link is up whatever the lanes say (`AUTOC_FLU`).
        const FORCE_LINK = 1 << 0;
        /// Negotiates again; clears itself (`AUTOC_AN_RESTART`).
        const RESTART_AN = 1 << 12;
        /// Link mode: 10 Gbit/s on one lane (`AUTOC_LMS_10G_SERIAL`).
        const LMS_10G_SERIAL = 3 << 13;
        /// Link mode (`AUTOC_LMS_MASK`).
        const LMS = 7 << 13;
    }

    /// Bits of [`AUTOC2`](crate::regs::AUTOC2).
    #[derive(Clone, Copy)]
    pub(crate) struct Autoc2: u32 {
        /// Serial interface at 10 Gbit/s: SFI (`AUTOC2_10G_SFI`).
        const SERIAL_SFI = 2 << 16;
        /// Serial interface at 10 Gbit/s (`AUTOC2_10G_SERIAL_PMA_PMD_MASK`).
        const SERIAL = 3 << 16;
        /// The EEPROM has switched the link off (`AUTOC2_LINK_DISABLE_MASK`).
        const LINK_DISABLE = 7 << 28;
    }

    /// Bits of [`LINKS`](crate::regs::LINKS).
    #[derive(Clone, Copy)]
    pub(crate) struct Links: u32 {
        /// 100 Mbit/s, if the next bit is clear (`LINKS_SPEED_100_82599`).
        const SPEED_100M = 1 << 28;
        /// 1 Gbit/s; with the bit before 10 Gbit/s (`LINKS_SPEED_1G_82599`).
        const SPEED_1G = 1 << 29;
        /// Link up (`LINKS_UP`).
        const UP = 1 << 30;
    }

    /// Bits of [`RTTDCS`](crate::regs::RTTDCS).
    #[derive(Clone, Copy)]
    pub(crate) struct Rttdcs: u32 {
        /// No arbitration: to be set while [`MTQC`](crate::regs::MTQC) is written
        /// (`RTTDCS_ARBDIS`; Linux, DPDK).
        const ARBDIS = 1 << 6;
    }

    /// Bits of [`RXCSUM`](crate::regs::RXCSUM). The device verifies IPv4, TCP and UDP checksums
    /// without being asked: Linux sets no other bit here and takes the verdicts (TinyNF reads
    /// 8.2.3.7.5 otherwise, but looks at none).
    #[derive(Clone, Copy)]
    pub(crate) struct Rxcsum: u32 {
        /// The descriptor holds the RSS hash, and no checksum of the packet (`RXCSUM_PCSD`).
        const PCSD = 1 << 13;
    }

    /// Bits of [`RFCTL`](crate::regs::RFCTL).
    #[derive(Clone, Copy)]
    pub(crate) struct Rfctl: u32 {
        /// Joins no segments (`RFCTL_RSC_DIS`).
        const RSC_DIS = 1 << 5;
        /// No filtering of NFS writes (`RFCTL_NFSW_DIS`).
        const NFSW_DIS = 1 << 6;
        /// No filtering of NFS reads (`RFCTL_NFSR_DIS`).
        const NFSR_DIS = 1 << 7;
    }

    /// Bits of [`FCTRL`](crate::regs::FCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Fctrl: u32 {
        /// All multicast frames (`FCTRL_MPE`).
        const MPE = 1 << 8;
        /// All unicast frames (`FCTRL_UPE`).
        const UPE = 1 << 9;
        /// Broadcast frames (`FCTRL_BAM`).
        const BAM = 1 << 10;
    }

    /// Bits of [`VLNCTRL`](crate::regs::VLNCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Vlnctrl: u32 {
        /// Frames with a VLAN tag have to be in the table (`VLNCTRL_VFE`).
        const VFE = 1 << 30;
    }

    /// Bits of [`MRQC`](crate::regs::MRQC).
    #[derive(Clone, Copy)]
    pub(crate) struct Mrqc: u32 {
        /// Queues by hash (`MRQC_RSSEN`).
        const RSS = 1;
        /// Hash of addresses and ports of TCP over IPv4 (`MRQC_RSS_FIELD_IPV4_TCP`).
        const IPV4_TCP = 1 << 16;
        /// Hash of IPv4 addresses (`MRQC_RSS_FIELD_IPV4`).
        const IPV4 = 1 << 17;
        /// Hash of IPv6 addresses (`MRQC_RSS_FIELD_IPV6`).
        const IPV6 = 1 << 20;
        /// Hash of addresses and ports of TCP over IPv6 (`MRQC_RSS_FIELD_IPV6_TCP`).
        const IPV6_TCP = 1 << 21;
    }

    /// Bits of [`SECRXCTRL`](crate::regs::SECRXCTRL).
    #[derive(Clone, Copy)]
    pub(crate) struct Secrx: u32 {
        /// Holds the receive data path up (`SECRXCTRL_RX_DIS`).
        const RX_DIS = 1 << 1;
    }

    /// Bits of [`EEC`](crate::regs::EEC).
    #[derive(Clone, Copy)]
    pub(crate) struct Eec: u32 {
        /// The device has read its configuration from the EEPROM (`EEC_ARD`). Set as well
        /// where there is none, by TinyNF: then the checksum is wrong.
        const AUTO_RD = 1 << 9;
        /// Size of the EEPROM: 2 to the power of this and 6, in words (`EEC_SIZE`).
        const SIZE = 0xF << 11;
    }

    /// Bits of [`SWSM`](crate::regs::SWSM).
    #[derive(Clone, Copy)]
    pub(crate) struct Swsm: u32 {
        /// Of the drivers of both ports; a read that finds it clear sets it (`SWSM_SMBI`).
        const SMBI = 1 << 0;
        /// Of software and firmware; sticks when it is granted (82599, `SWSM_SWESMBI`).
        const SWESMBI = 1 << 1;
    }

    /// Bits of [`GCR_EXT`](crate::regs::GCR_EXT).
    #[derive(Clone, Copy)]
    pub(crate) struct GcrExt: u32 {
        /// Clears the buffers of this function towards the bus (`GCR_EXT_BUFFERS_CLEAR`).
        const BUFFERS_CLEAR = 1 << 30;
    }
}

/// [`RXCTRL`](crate::regs::RXCTRL): the receiver is on (`RXCTRL_RXEN`).
pub(crate) const RXEN: u32 = 1 << 0;
/// [`DMATXCTL`](crate::regs::DMATXCTL): transmit DMA is on (`DMATXCTL_TE`).
pub(crate) const TX_ENABLE: u32 = 1 << 0;
/// [`MACC`](crate::regs::MACC): the link of an X540 is up whatever its PHY says (`MACC_FLU`).
pub(crate) const MACC_FORCE_LINK: u32 = 1 << 0;
/// [`SECRXSTAT`](crate::regs::SECRXSTAT): the receive data path is empty (`SECRXSTAT_SECRX_RDY`).
pub(crate) const SECRX_READY: u32 = 1 << 0;
/// [`RSCDBU`](crate::regs::RSCDBU): no acknowledgement is joined (`RSCDBU_RSCACKDIS`).
pub(crate) const RSC_ACK_DISABLE: u32 = 1 << 7;
/// [`SW_FW_SYNC`](crate::regs::SW_FW_SYNC): semaphore to the register itself (X540,
/// `SWFW_REGSMP`).
pub(crate) const REGSMP: u32 = 1 << 31;
