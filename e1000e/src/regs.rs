//! The register map: offsets, bits, and the one place that writes to the device.
//!
//! Source, unless an item says otherwise: Linux e1000e (`regs.h`, `hw.h` for the offsets,
//! `defines.h` for the bits). "8254x manual" is the PCI/PCI-X Family of Gigabit Ethernet
//! Controllers Software Developer's Manual, of which the 82574 keeps the registers named here.

use bitflags::bitflags;
use pagewire_hal::Registers;
use pagewire_hal::driver::{self, Register, RingRegister};

/// Device control, see [`Ctrl`].
pub(crate) const CTRL: Register = Register(0x0_0000);
/// Device status, see [`Status`]. Read only.
pub(crate) const STATUS: Register = Register(0x0_0008);
/// EEPROM control, see [`Eecd`].
pub(crate) const EECD: Register = Register(0x0_0010);
/// EEPROM read: address and start go in, done and data come back.
pub(crate) const EERD: Register = Register(0x0_0014);
/// Extended device control, see [`CtrlExt`].
pub(crate) const CTRL_EXT: Register = Register(0x0_0018);
/// Access to the PHY's registers, see [`Mdic`].
pub(crate) const MDIC: Register = Register(0x0_0020);
/// Interrupt causes, see [`Cause`]; cleared by reading or by writing ones, on conditions.
pub(crate) const ICR: Register = Register(0x0_00C0);
/// Interrupt causes: ones that are written are set as if they had come up.
pub(crate) const ICS: Register = Register(0x0_00C8);
/// Interrupt mask: ones that are written let causes interrupt.
pub(crate) const IMS: Register = Register(0x0_00D0);
/// Interrupt mask: ones that are written stop causes from interrupting.
pub(crate) const IMC: Register = Register(0x0_00D8);
/// Causes that are cleared when their MSI-X message is sent (`E1000_EIAC_82574`).
pub(crate) const EIAC: Register = Register(0x0_00DC);
/// Causes that are masked automatically.
pub(crate) const IAM: Register = Register(0x0_00E0);
/// Which cause goes to which MSI-X vector, see [`Ivar`].
pub(crate) const IVAR: Register = Register(0x0_00E4);
/// Receive control, see [`Rctl`].
pub(crate) const RCTL: Register = Register(0x0_0100);
/// Transmit control, see [`Tctl`].
pub(crate) const TCTL: Register = Register(0x0_0400);
/// Inter-packet gap.
pub(crate) const TIPG: Register = Register(0x0_0410);
/// Extended configuration: who owns the PHY's management interface.
pub(crate) const EXTCNF_CTRL: Register = Register(0x0_0F00);
/// Packet buffer allocation: receive KiB in bits 15:0, transmit KiB in bits 31:16 (8254x
/// manual 13.4.16).
pub(crate) const PBA: Register = Register(0x0_1000);
/// Early receive threshold; 0 turns it off.
pub(crate) const ERT: Register = Register(0x0_2008);
/// Flow control: low and high mark of the receive FIFO; 0 turns sending of PAUSE off.
pub(crate) const FCRTL: Register = Register(0x0_2160);
/// See [`FCRTL`].
pub(crate) const FCRTH: Register = Register(0x0_2168);
/// Receive interrupt delay.
pub(crate) const RDTR: Register = Register(0x0_2820);
/// Receive descriptor thresholds, see [`Thresholds`].
pub(crate) const RXDCTL: Register = Register(0x0_2828);
/// Absolute receive interrupt delay.
pub(crate) const RADV: Register = Register(0x0_282C);
/// Transmit interrupt delay, and the limit to how long a write-back is put off; 0 is not
/// allowed (8254x manual 13.4.41).
pub(crate) const TIDV: Register = Register(0x0_3820);
/// Transmit descriptor thresholds of queue 0, see [`Thresholds`].
pub(crate) const TXDCTL0: Register = Register(0x0_3828);
/// Transmit descriptor thresholds of queue 1, see [`Thresholds`].
pub(crate) const TXDCTL1: Register = Register(0x0_3928);
/// Transmit arbitration of queue 0.
pub(crate) const TARC0: Register = Register(0x0_3840);
/// Receive checksum control, see [`Rxcsum`].
pub(crate) const RXCSUM: Register = Register(0x0_5000);
/// Receive filter control, see [`Rfctl`].
pub(crate) const RFCTL: Register = Register(0x0_5008);
/// Multicast table, [`MTA_WORDS`] words.
pub(crate) const MTA: Register = Register(0x0_5200);
/// Words in the multicast table.
pub(crate) const MTA_WORDS: u32 = 128;
/// Receive addresses: low and high word in turns, [`RECEIVE_ADDRESSES`] pairs.
pub(crate) const RAL0: Register = Register(0x0_5400);
/// High word of receive address 0: bytes 4 and 5, and whether it is valid.
pub(crate) const RAH0: Register = Register(0x0_5404);
/// Receive addresses that are ours to use.
pub(crate) const RECEIVE_ADDRESSES: u32 = 15;
/// VLAN filter table, [`VFTA_WORDS`] words.
pub(crate) const VFTA: Register = Register(0x0_5600);
/// Words in the VLAN filter table.
pub(crate) const VFTA_WORDS: u32 = 128;
/// Multiple receive queues; 0 is one queue and no hash.
pub(crate) const MRQC: Register = Register(0x0_5818);
/// PCIe control.
pub(crate) const GCR: Register = Register(0x0_5B00);
/// PCIe control 2.
pub(crate) const GCR2: Register = Register(0x0_5B64);

/// Received frames with a wrong frame check sequence. All counters are cleared by reading.
pub(crate) const CRCERRS: Register = Register(0x0_4000);
/// Received frames lost as the FIFO was full.
pub(crate) const MPC: Register = Register(0x0_4010);
/// Received frames of wrong length.
pub(crate) const RLEC: Register = Register(0x0_4040);
/// Good frames received.
pub(crate) const GPRC: Register = Register(0x0_4074);
/// Good frames transmitted.
pub(crate) const GPTC: Register = Register(0x0_4080);
/// Good bytes received, low word; the high word at the next offset clears both.
pub(crate) const GORCL: Register = Register(0x0_4088);
/// Good bytes transmitted, low word; the high word at the next offset clears both.
pub(crate) const GOTCL: Register = Register(0x0_4090);
/// Times that a frame arrived and no receive buffer was there.
pub(crate) const RNBC: Register = Register(0x0_40A0);
/// Received frames that were too long (Linux e1000e `regs.h`, E1000_ROC).
pub(crate) const ROC: Register = Register(0x0_40AC);
/// All bytes received, low and high word.
pub(crate) const TORL: Register = Register(0x0_40C0);
/// All bytes transmitted, low and high word.
pub(crate) const TOTL: Register = Register(0x0_40C8);
/// All frames received.
pub(crate) const TPR: Register = Register(0x0_40D0);
/// All frames transmitted.
pub(crate) const TPT: Register = Register(0x0_40D4);

/// Address of the receive ring, low word.
pub(crate) const RDBAL: RingRegister = RingRegister(0x0_2800);
/// Address of the receive ring, high word.
pub(crate) const RDBAH: RingRegister = RingRegister(0x0_2804);
/// Bytes in the receive ring, a multiple of 128.
pub(crate) const RDLEN: RingRegister = RingRegister(0x0_2808);
/// Next receive descriptor that the device fills.
pub(crate) const RDH: RingRegister = RingRegister(0x0_2810);
/// First receive descriptor that is not the device's.
pub(crate) const RDT: RingRegister = RingRegister(0x0_2818);
/// Address of the transmit ring, low word.
pub(crate) const TDBAL: RingRegister = RingRegister(0x0_3800);
/// Address of the transmit ring, high word.
pub(crate) const TDBAH: RingRegister = RingRegister(0x0_3804);
/// Bytes in the transmit ring, a multiple of 128.
pub(crate) const TDLEN: RingRegister = RingRegister(0x0_3808);
/// Next transmit descriptor that the device processes.
pub(crate) const TDH: RingRegister = RingRegister(0x0_3810);
/// First transmit descriptor that is not the device's (8254x manual 13.4.40).
pub(crate) const TDT: RingRegister = RingRegister(0x0_3818);

bitflags! {
    /// Bits of [`CTRL`].
    #[derive(Clone, Copy)]
    pub(crate) struct Ctrl: u32 {
        /// Full duplex, where it is forced.
        const FD = 1 << 0;
        /// Blocks new requests of the device on the bus.
        const GIO_MASTER_DISABLE = 1 << 2;
        /// Sets the link up.
        const SLU = 1 << 6;
        /// Speed, where it is forced: bits 9:8.
        const SPEED = 0b11 << 8;
        /// 1000 Mbit/s (`E1000_CTRL_SPD_1000`).
        const SPEED_1000 = 0b10 << 8;
        /// Speed is forced.
        const FRCSPD = 1 << 11;
        /// Duplex is forced.
        const FRCDPX = 1 << 12;
        /// Global reset; clears itself.
        const RST = 1 << 26;
        /// PAUSE frames that are received stop the transmitter.
        const RFCE = 1 << 27;
        /// PAUSE frames are sent.
        const TFCE = 1 << 28;
        /// Reserved; Linux clears it on 82573, 82574 and 82583.
        const BIT_29 = 1 << 29;
        /// VLAN tags are stripped and inserted.
        const VME = 1 << 30;
    }

    /// Bits of [`STATUS`].
    #[derive(Clone, Copy)]
    pub(crate) struct Status: u32 {
        /// Full duplex.
        const FD = 1 << 0;
        /// Link up.
        const LU = 1 << 1;
        /// 100 Mbit/s, if the next bit is clear.
        const SPEED_100 = 1 << 6;
        /// 1000 Mbit/s.
        const SPEED_1000 = 1 << 7;
        /// Requests of the device are pending or not blocked.
        const GIO_MASTER_ENABLE = 1 << 19;
    }

    /// Bits of [`EECD`].
    #[derive(Clone, Copy)]
    pub(crate) struct Eecd: u32 {
        /// The device has read its configuration from the EEPROM.
        const AUTO_RD = 1 << 9;
    }

    /// Bits of [`CTRL_EXT`].
    #[derive(Clone, Copy)]
    pub(crate) struct CtrlExt: u32 {
        /// Set by Linux on 82573, 82574 and 82583 without a name.
        const BIT_22 = 1 << 22;
        /// Cleared by Linux on 82573, 82574 and 82583 without a name.
        const BIT_23 = 1 << 23;
        /// Causes of MSI-X are masked as `IAM` says.
        const EIAME = 1 << 24;
        /// Reading the causes masks them as `IAM` says.
        const IAME = 1 << 27;
        /// Setting a mask bit clears the pending bit of its vector.
        const PBA_CLR = 1 << 31;
    }

    /// Bits of [`MDIC`]; the register number is in bits 20:16, the PHY's in 25:21.
    #[derive(Clone, Copy)]
    pub(crate) struct Mdic: u32 {
        /// Write.
        const OP_WRITE = 1 << 26;
        /// Read.
        const OP_READ = 1 << 27;
        /// Finished.
        const READY = 1 << 28;
        /// Failed.
        const ERROR = 1 << 30;
    }

    /// Bits of [`ICR`], [`IMS`], [`IMC`], [`EIAC`].
    #[derive(Clone, Copy)]
    pub(crate) struct Cause: u32 {
        /// The link changed.
        const LSC = 1 << 2;
        /// Receive overrun (DPDK e1000 `e1000_defines.h`).
        const RXO = 1 << 6;
        /// Receive queue 0.
        const RXQ0 = 1 << 20;
        /// Transmit queue 0.
        const TXQ0 = 1 << 22;
        /// Any of the causes that have no vector of their own.
        const OTHER = 1 << 24;
    }

    /// Bits of [`IVAR`]: three bits of vector and one of validity per cause (Linux e1000e
    /// `netdev.c`).
    #[derive(Clone, Copy)]
    pub(crate) struct Ivar: u32 {
        /// Receive queue 0 has a vector, in bits 2:0.
        const RXQ0_VALID = 1 << 3;
        /// Transmit queue 0 has a vector, in bits 10:8.
        const TXQ0_VALID = 1 << 11;
        /// Other causes have a vector, in bits 18:16.
        const OTHER_VALID = 1 << 19;
        /// A transmit interrupt on every write-back. QEMU then also writes DD to descriptors
        /// without RS, which the transmit queue does not look at.
        const TX_EVERY_WRITE_BACK = 1 << 31;
    }

    /// Bits of [`RCTL`].
    #[derive(Clone, Copy)]
    pub(crate) struct Rctl: u32 {
        /// Receiver on.
        const EN = 1 << 1;
        /// All unicast frames.
        const UPE = 1 << 3;
        /// All multicast frames.
        const MPE = 1 << 4;
        /// Frames of more than 1522 bytes.
        const LPE = 1 << 5;
        /// Loopback: bits 7:6 (8254x manual 13.4.22).
        const LBM = 0b11 << 6;
        /// What is transmitted comes back from the MAC, and nothing leaves (`E1000_RCTL_LBM_MAC`).
        const LBM_MAC = 0b01 << 6;
        /// Broadcast frames.
        const BAM = 1 << 15;
        /// Low bit of the buffer size: with BSEX 16384 bytes.
        const BSIZE_LOW = 1 << 16;
        /// High bit of the buffer size: with BSEX 8192 bytes, both bits 4096 bytes.
        const BSIZE_HIGH = 1 << 17;
        /// Discards PAUSE frames.
        const DPF = 1 << 22;
        /// Buffer sizes times 16.
        const BSEX = 1 << 25;
        /// Strips the frame check sequence.
        const SECRC = 1 << 26;
    }

    /// Bits of [`TCTL`].
    #[derive(Clone, Copy)]
    pub(crate) struct Tctl: u32 {
        /// Transmitter on.
        const EN = 1 << 1;
        /// Pads short frames to 64 bytes with the frame check sequence.
        const PSP = 1 << 3;
        /// Collision threshold, bits 11:4.
        const CT = 0x0000_0FF0;
        /// Collision threshold of 15 tries.
        const CT_15 = 15 << 4;
        /// Collision distance, bits 21:12.
        const COLD = 0x003F_F000;
        /// Collision distance of 63 byte times.
        const COLD_63 = 63 << 12;
        /// Retransmits on late collision.
        const RTLC = 1 << 24;
    }

    /// Bits of [`TXDCTL0`], [`TXDCTL1`] and [`RXDCTL`].
    #[derive(Clone, Copy)]
    pub(crate) struct Thresholds: u32 {
        /// Prefetch when fewer than 31 descriptors are on chip.
        const PTHRESH_31 = 31;
        /// Prefetch when fewer than 32 descriptors are on chip.
        const PTHRESH_32 = 32;
        /// Prefetch only if at least one descriptor waits in memory.
        const HTHRESH_1 = 1 << 8;
        /// Prefetch only if at least four descriptors wait in memory.
        const HTHRESH_4 = 4 << 8;
        /// Write back each descriptor. Linux e1000e (`e1000.h`): larger values save bus cycles,
        /// 1 avoids stalls.
        const WTHRESH_1 = 1 << 16;
        /// Linux e1000e: counts descriptors still to be processed; to be set on this family.
        const COUNT_DESC = 1 << 22;
        /// Thresholds count descriptors, not cache lines.
        const GRAN = 1 << 24;
    }

    /// Bits of [`RXCSUM`].
    #[derive(Clone, Copy)]
    pub(crate) struct Rxcsum: u32 {
        /// Verifies the IPv4 header checksum (DPDK e1000 `e1000_defines.h`).
        const IPOFL = 1 << 8;
        /// Verifies TCP and UDP checksums.
        const TUOFL = 1 << 9;
    }

    /// Bits of [`RFCTL`].
    #[derive(Clone, Copy)]
    pub(crate) struct Rfctl: u32 {
        /// No filtering of NFS writes.
        const NFSW_DIS = 1 << 6;
        /// No filtering of NFS reads.
        const NFSR_DIS = 1 << 7;
        /// No early interrupt on a TCP acknowledgement; Linux sets it as 82574 interrupts
        /// spuriously with MSI-X otherwise.
        const ACK_DIS = 1 << 12;
        /// Parses no IPv6 extension headers: malformed ones hang the receiver of 82571 to 82573.
        const IPV6_EX_DIS = 1 << 16;
        /// As above, for newer extension headers.
        const NEW_IPV6_EXT_DIS = 1 << 17;
    }
}

/// [`EXTCNF_CTRL`]: software owns the PHY's management interface.
pub(crate) const MDIO_SW_OWNERSHIP: u32 = 1 << 5;

/// [`TARC0`]: bits 30:27, cleared by Linux without a name.
pub(crate) const TARC_30_27: u32 = 0xF << 27;
/// [`TARC0`]: set by Linux on 82574 and 82583 without a name.
pub(crate) const TARC_26: u32 = 1 << 26;
/// [`TARC0`]: bits 26:23, set by Linux on 82571 and 82572 without a name.
pub(crate) const TARC_26_23: u32 = 0xF << 23;

/// [`GCR`]: set by Linux on 82574 and 82583 without a name.
pub(crate) const GCR_22: u32 = 1 << 22;
/// [`GCR`]: L1 is entered without L0s on the receive side; Linux sets it.
pub(crate) const GCR_L1_WITHOUT_L0S_RX: u32 = 1 << 27;
/// [`GCR2`]: Linux sets it against unreliable PCIe completions, "with ASPM especially".
pub(crate) const GCR2_COMPLETION_FIX: u32 = 1;

/// [`TIPG`] for copper: IPGT 8, IPGR1 8, IPGR2 6 (Linux e1000e; QEMU's reset value as well).
pub(crate) const TIPG_COPPER: u32 = 8 | 8 << 10 | 6 << 20;

/// The registers of one device. No bit pattern of STATUS has its reserved bits all set.
pub(crate) type Bar<R> = driver::Bar<R, { STATUS.0 }>;

/// Names the registers of the device that this crate drives.
pub(crate) const fn bar<R: Registers>(registers: R) -> Bar<R> {
    // SAFETY: this crate is the device's driver, and a `Register` above holds no address, length or
    // index of memory; those that do are each a `RingRegister`.
    unsafe { Bar::new(registers) }
}
