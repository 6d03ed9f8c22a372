//! Descriptor layouts, sixteen bytes each, written and read as two little-endian words of 64
//! bits: advanced descriptors throughout.
//!
//! Sources: Linux ixgbe and DPDK ixgbe (`ixgbe_type.h`: `union ixgbe_adv_tx_desc`,
//! `struct ixgbe_adv_tx_context_desc`, `union ixgbe_adv_rx_desc`) for layouts and bits. A name in
//! brackets is the macro there without its `IXGBE_`; it speaks of a word of 32 bits, and where that
//! is the upper half of one of ours, 32 is added here. Section 7.2.3 of the X550 datasheet as the
//! project's facts quote it (`nics.md`) for which field is valid where, and for the ranges. That
//! the words are little-endian is said of registers only (82599 datasheet 1.5.3, as TinyNF quotes
//! it); Linux has them so (`__le64`).

use core::mem::{align_of, size_of};

use pagewire_hal::driver::{ReceiveDescriptor, TransmitDescriptor};
use pagewire_hal::{
    ChecksumOffload, DeviceAddress, FrameError, HashInput, Offload, RxChecksum, RxHash, Verdict,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ids::Family;

/// Where a ring begins: on a multiple of so many bytes, which its length is, too (82599 datasheet
/// 8.2.3.9.5 and 7.2.3.3, as TinyNF quotes them).
pub(crate) const RING_ALIGN: usize = 128;

/// End of packet: last descriptor of a frame (`TXD_CMD_EOP`).
pub(crate) const TX_EOP: u64 = 1 << 24;
/// Insert the frame check sequence. Valid in the first descriptor of a frame (`TXD_CMD_IFCS`).
pub(crate) const TX_IFCS: u64 = 1 << 25;
/// Report status: write DD when done. Only together with [`TX_EOP`] (`TXD_CMD_RS`).
pub(crate) const TX_RS: u64 = 1 << 27;
/// Descriptor extension: not a legacy descriptor (`TXD_CMD_DEXT`).
pub(crate) const TX_DEXT: u64 = 1 << 29;
/// Segment. Valid in the first descriptor of a frame (`ADVTXD_DCMD_TSE`).
pub(crate) const TX_TSE: u64 = 1 << 31;
/// Descriptor type: context (`ADVTXD_DTYP_CTXT`).
pub(crate) const TX_DTYP_CONTEXT: u64 = 2 << 20;
/// Descriptor type: data (`ADVTXD_DTYP_DATA`).
pub(crate) const TX_DTYP_DATA: u64 = 3 << 20;
/// Descriptor done, in the status field of a data descriptor (`TXD_STAT_DD`).
pub(crate) const TX_DD: u64 = 1 << 32;
/// Which of the two contexts, in a context descriptor and in the first of data
/// (`ADVTXD_IDX_SHIFT`).
pub(crate) const TX_IDX_SHIFT: u32 = 36;
/// Packet options: insert the IPv4 header checksum. Valid in the first descriptor of a frame
/// (`ADVTXD_POPTS_IXSM`).
pub(crate) const TX_POPTS_IXSM: u64 = 1 << 40;
/// Packet options: insert the TCP or UDP checksum. Valid in the first descriptor of a frame
/// (`ADVTXD_POPTS_TXSM`).
pub(crate) const TX_POPTS_TXSM: u64 = 1 << 41;
/// Payload length, 18 bits, in the first descriptor of a frame: all of its bytes, or where it is
/// segmented those after the headers (`ADVTXD_PAYLEN_SHIFT`).
pub(crate) const TX_PAYLEN_SHIFT: u32 = 46;
/// Most that the field holds (the 18 bits above [`TX_PAYLEN_SHIFT`]).
pub(crate) const TX_PAYLEN_MAX: u32 = (1 << 18) - 1;
/// Most bytes of one descriptor. The field has 16 bits, and Intel's specification update for the
/// 82599 (software clarification 1) speaks of a limit of 64 KB; the X550 datasheet (7.2.3.2.4, by
/// `nics.md`) and Linux (`IXGBE_MAX_DATA_PER_TXD`) have 16 KiB. The least of them is taken. The
/// 82599 datasheet has 15.5 KB in 7.2.3.2.2, as TinyNF quotes it: of legacy descriptors, that is of
/// a frame that is not segmented, and such a one is never so long here.
pub(crate) const TX_DTALEN_MAX: u32 = 16 * 1024;

/// Context descriptor: the packet is IPv4 (`ADVTXD_TUCMD_IPV4`).
const TX_TUCMD_IPV4: u64 = 1 << 10;
/// Context descriptor: the packet is TCP; UDP without it (`ADVTXD_TUCMD_L4T_TCP`).
const TX_TUCMD_TCP: u64 = 1 << 11;
/// Context descriptor: length of the link header, in bits 15:9 of the low word
/// (`ADVTXD_MACLEN_SHIFT`).
const TX_MACLEN_SHIFT: u32 = 9;
/// Context descriptor: length of the transport header, 8 bits (`ADVTXD_L4LEN_SHIFT`).
const TX_L4LEN_SHIFT: u32 = 40;
/// Context descriptor: payload of a segment, 16 bits (`ADVTXD_MSS_SHIFT`).
const TX_MSS_SHIFT: u32 = 48;

/// Longest link header that the context holds, in bytes (MACLEN: 14 to 127, `nics.md` of the X550
/// datasheet; 7 bits in `ADVTXD_MACLEN_MASK`).
const MACLEN_MAX: u8 = 127;
/// Longest network header that the context holds, in bytes (IPLEN: 20 to 511, `nics.md`).
const IPLEN_MAX: u16 = 511;
/// Longest transport header of a frame to be segmented, in bytes (L4LEN: 8 to 64, `nics.md`; the
/// 82598 datasheet has 12 to 255. The narrower one is taken, which holds every TCP header).
const L4LEN_MAX: u8 = 64;
/// Longest of all headers together, in bytes: "less than 512" (82598 datasheet, with the fields of
/// the context descriptor), "at most 512" (X550, `nics.md`). The less is taken.
const HEADERS_MAX: u32 = 511;

/// A transmit descriptor, of data or of context.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct TxDescriptor {
    /// Data: address of the buffer. Context: header lengths.
    low: u64,
    /// Data: length, command, status, packet options, payload length. Context: type, transport
    /// header length, segment length.
    high: u64,
}

const _: () = assert!(size_of::<TxDescriptor>() == 16);
const _: () = assert!(align_of::<TxDescriptor>() <= 16);
const _: () = assert!(core::mem::offset_of!(TxDescriptor, high) == 8);

impl TransmitDescriptor for TxDescriptor {
    #[inline(always)]
    fn is_done(self) -> bool {
        self.high & TX_DD.to_le() != 0
    }
}

impl TxDescriptor {
    /// `len` bytes at `address`; `len` has been checked against [`TX_DTALEN_MAX`].
    #[inline(always)]
    pub(crate) const fn data(address: DeviceAddress, len: u32, command: u64) -> Self {
        Self {
            low: address.0.to_le(),
            high: (TX_DEXT | TX_DTYP_DATA | command | len as u64).to_le(),
        }
    }
}

/// What one of the device's two contexts of a queue says: how long the headers are, which
/// protocols, how long a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Context {
    low: u64,
    high: u64,
}

impl Context {
    /// The context for `offload`, which asks for at least one checksum and has passed
    /// [`TxFrame::check`](pagewire_hal::TxFrame::check).
    ///
    /// The transport header's length and that of a segment are left out where nothing is
    /// segmented, as the device ignores them then: so frames of all sizes share a context. The
    /// transport is UDP where no transport checksum is asked for, which the device ignores as
    /// well (the packet option is not set; DPDK writes the reserved value there).
    ///
    /// # Errors
    /// A header is longer than its field holds, or all are longer than the device allows.
    #[inline]
    pub(crate) const fn new(offload: &Offload) -> Result<Self, FrameError> {
        let segments = offload.segment_len != 0;
        let transport = if segments { offload.l4_len } else { 0 };
        let headers = offload.l2_len as u32 + offload.l3_len as u32 + transport as u32;
        if offload.l2_len > MACLEN_MAX
            || offload.l3_len > IPLEN_MAX
            || transport > L4LEN_MAX
            || headers > HEADERS_MAX
        {
            return Err(FrameError::OffloadLayout);
        }
        let low = offload.l3_len as u64 | (offload.l2_len as u64) << TX_MACLEN_SHIFT;
        let mut high = TX_DEXT | TX_DTYP_CONTEXT;
        if offload.checksum.intersects(ChecksumOffload::OF_IPV4) {
            high |= TX_TUCMD_IPV4;
        }
        if offload.checksum.intersects(ChecksumOffload::TCP) {
            high |= TX_TUCMD_TCP;
        }
        if segments {
            high |= (offload.l4_len as u64) << TX_L4LEN_SHIFT
                | (offload.segment_len as u64) << TX_MSS_SHIFT;
        }
        Ok(Self { low, high })
    }

    /// The descriptor that writes it to slot `index`, 0 or 1.
    #[inline(always)]
    pub(crate) const fn descriptor(self, index: u8) -> TxDescriptor {
        TxDescriptor {
            low: self.low.to_le(),
            high: (self.high | (index as u64) << TX_IDX_SHIFT).to_le(),
        }
    }
}

/// Command and options of the first data descriptor of a frame of `len` bytes that uses context
/// `index`, if it asks for anything.
///
/// CC (check context, `ADVTXD_CC`) stays clear. Linux sets it for the switch between virtual
/// machines alone, and DPDK for virtual functions alone; FreeBSD always. Two drivers that use
/// contexts on the physical function without it are taken for proof that it is not needed.
#[inline(always)]
pub(crate) const fn first_command(offload: &Offload, len: u32, index: u8) -> u64 {
    let mut command = TX_IFCS;
    let mut payload = len;
    if offload.checksum.contains(ChecksumOffload::IPV4_HEADER) {
        command |= TX_POPTS_IXSM;
    }
    if offload.checksum.intersects(ChecksumOffload::TRANSPORT) {
        command |= TX_POPTS_TXSM;
    }
    if offload.segment_len != 0 {
        command |= TX_TSE;
        // Each segment gets an IPv4 header of its own, so its sum is the device's affair, asked
        // for or not.
        if offload.checksum.contains(ChecksumOffload::TCP_IPV4) {
            command |= TX_POPTS_IXSM;
        }
        payload = len.saturating_sub(header_len(offload));
    }
    with_payload(command | (index as u64) << TX_IDX_SHIFT, payload)
}

/// A command for a frame of which `len` bytes are payload: all that is not to be segmented.
#[inline(always)]
pub(crate) const fn with_payload(command: u64, len: u32) -> u64 {
    command | (len as u64) << TX_PAYLEN_SHIFT
}

/// Bytes of all headers of a frame to be segmented.
#[inline(always)]
pub(crate) const fn header_len(offload: &Offload) -> u32 {
    offload.l2_len as u32 + offload.l3_len as u32 + offload.l4_len as u32
}

/// What the hash is over, in the first word: a number of four bits (`RXDADV_RSSTYPE_MASK`).
const RX_RSS_TYPE: u64 = 0xF;
/// The hash, 32 bits in the first word (`wb.lower.hi_dword.rss`), with
/// [`Rxcsum::PCSD`](crate::bits::Rxcsum::PCSD).
const RX_HASH_SHIFT: u32 = 32;
/// The packet is IPv4, in the first word (`RXDADV_PKTTYPE_IPV4`).
const RX_TYPE_IPV4: u64 = 1 << 4;
/// The packet is UDP, in the first word (`RXDADV_PKTTYPE_UDP`).
const RX_TYPE_UDP: u64 = 1 << 9;
/// Descriptor done (`RXD_STAT_DD`).
const RX_DD: u64 = 1 << 0;
/// End of packet (`RXD_STAT_EOP`).
const RX_EOP: u64 = 1 << 1;
/// The TCP or UDP checksum was computed (`RXD_STAT_L4CS`).
const RX_L4CS: u64 = 1 << 5;
/// The IPv4 header checksum was computed (`RXD_STAT_IPCS`).
const RX_IPCS: u64 = 1 << 6;
/// Damaged on the wire: any error of the MAC (`RXDADV_ERR_RXE`).
const RX_RXE: u64 = 1 << 29;
/// The TCP or UDP checksum is wrong (`RXDADV_ERR_TCPE`).
const RX_L4E: u64 = 1 << 30;
/// The IPv4 header checksum is wrong (`RXDADV_ERR_IPE`).
const RX_IPE: u64 = 1 << 31;
/// Length of what is in the buffer, 16 bits (`union ixgbe_adv_rx_desc`: `wb.upper.length`).
const RX_LEN_SHIFT: u32 = 32;

/// An advanced receive descriptor with one buffer. The device overwrites both words.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct RxDescriptor {
    /// Address of the buffer; when it is filled, type of the packet and RSS hash.
    first: u64,
    /// Address of a header buffer, zero: its lowest bit is where the device writes DD. When it is
    /// filled status, errors, length and VLAN tag.
    second: u64,
}

const _: () = assert!(size_of::<RxDescriptor>() == 16);
const _: () = assert!(core::mem::offset_of!(RxDescriptor, second) == 8);

impl ReceiveDescriptor for RxDescriptor {
    #[inline(always)]
    fn empty(address: DeviceAddress) -> Self {
        Self {
            first: address.0.to_le(),
            second: 0,
        }
    }

    #[inline(always)]
    fn is_done(self) -> bool {
        self.has(RX_DD)
    }

    #[inline(always)]
    fn is_end(self) -> bool {
        self.has(RX_EOP)
    }

    #[inline(always)]
    fn is_damaged(self) -> bool {
        self.has(RX_RXE)
    }

    #[inline(always)]
    fn frame_len(self) -> u32 {
        u32::from((u64::from_le(self.second) >> RX_LEN_SHIFT) as u16)
    }

    /// The hash of the packet. Of what [`rss`](crate::rss) has not asked for (UDP ports, IPv6 with
    /// extension headers) nothing is said.
    #[inline]
    fn hash(self) -> Option<RxHash> {
        let first = u64::from_le(self.first);
        // TCP over IPv4, IPv4, TCP over IPv6, IPv6 (Linux ixgbe `IXGBE_RXDADV_RSSTYPE_IPV4_TCP`
        // and the following).
        let input = match first & RX_RSS_TYPE {
            1 | 3 => HashInput::AddressesAndPorts,
            2 | 5 => HashInput::Addresses,
            _ => return None,
        };
        let value = (first >> RX_HASH_SHIFT) as u32;
        Some(RxHash { value, input })
    }
}

impl RxDescriptor {
    #[inline(always)]
    const fn has(self, bits: u64) -> bool {
        self.second & bits.to_le() != 0
    }

    /// What the device says of the checksums.
    ///
    /// An 82599 may mark a UDP datagram without a checksum (0) as wrong (an erratum, by Linux
    /// `ixgbe_rx_checksum` and DPDK). Over IPv4 it may have none, so nothing is said of those that
    /// are marked.
    ///
    /// "IPv4 Checksum Error Might be Reported for a Fragmented Packet": erratum 66 of the 82599 and
    /// 42 of the X540, by the revision histories of Intel's specification updates; the text was
    /// not at hand. So an IPv4 header is called wrong only if the transport checksum was computed
    /// as well, which it is not of a fragment. Linux trusts neither mark: its stack sums again.
    #[inline]
    pub(crate) const fn checksum(self, family: Family) -> RxChecksum {
        let udp_over_ipv4 =
            self.first & RX_TYPE_UDP.to_le() != 0 && self.first & RX_TYPE_IPV4.to_le() != 0;
        let mut transport = Verdict::of(self.has(RX_L4CS), self.has(RX_L4E));
        if matches!((family, transport), (Family::I82599, Verdict::Bad)) && udp_over_ipv4 {
            transport = Verdict::Unknown;
        }
        RxChecksum {
            ipv4_header: match Verdict::of(self.has(RX_IPCS), self.has(RX_IPE)) {
                Verdict::Bad if !self.has(RX_L4CS) => Verdict::Unknown,
                verdict => verdict,
            },
            transport,
        }
    }
}

#[cfg(test)]
impl TxDescriptor {
    /// As the device would mark it.
    pub(crate) const fn marked_done(self) -> Self {
        Self {
            low: self.low,
            high: self.high | TX_DD.to_le(),
        }
    }

    /// Both words as numbers.
    pub(crate) const fn words(self) -> (u64, u64) {
        (u64::from_le(self.low), u64::from_le(self.high))
    }
}
