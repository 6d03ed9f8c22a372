//! Descriptor layouts, sixteen bytes each, written and read as two little-endian words of 64
//! bits.
//!
//! Sources: 8254x manual 3.3.6 (context descriptor), 3.3.7 (data descriptor) and 3.3.7.2 (its
//! status), 3.2.3 (legacy receive descriptor), of which the 82574 keeps the layouts; bits by Linux
//! e1000e (`defines.h`, `hw.h`).

use core::mem::{align_of, size_of};

use pagewire_hal::driver::{ReceiveDescriptor, TransmitDescriptor};
use pagewire_hal::{ChecksumOffload, DeviceAddress, Offload, RxChecksum, Verdict};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a ring begins: on a multiple of so many bytes, which its length is, too.
pub(crate) const RING_ALIGN: usize = 128;

/// End of packet: last descriptor of a frame.
pub(crate) const TX_EOP: u64 = 1 << 24;
/// Insert the frame check sequence. Valid in the last descriptor of a frame (8254x manual
/// 3.3.7); set in all, as for segmentation it is valid in the first.
pub(crate) const TX_IFCS: u64 = 1 << 25;
/// Report status: write DD when done.
pub(crate) const TX_RS: u64 = 1 << 27;
/// Descriptor extension: not a legacy descriptor.
pub(crate) const TX_DEXT: u64 = 1 << 29;
/// Descriptor type: data. A context descriptor has type 0.
pub(crate) const TX_DTYP_DATA: u64 = 1 << 20;
/// Packet options: insert the IPv4 header checksum.
pub(crate) const TX_POPTS_IXSM: u64 = 1 << 40;
/// Packet options: insert the TCP or UDP checksum.
pub(crate) const TX_POPTS_TXSM: u64 = 1 << 41;
/// Context descriptor: the packet is TCP.
pub(crate) const TX_TUCMD_TCP: u64 = 1 << 24;
/// Context descriptor: the packet is IPv4.
pub(crate) const TX_TUCMD_IP: u64 = 1 << 25;
/// Descriptor done, in the status field of a data descriptor.
pub(crate) const TX_DD: u64 = 1 << 32;
/// Longest data length that the field holds, in bytes (bits 19:0).
pub(crate) const TX_DTALEN_MAX: u32 = (1 << 20) - 1;

/// What all data descriptors have in common.
pub(crate) const TX_DATA: u64 = TX_DEXT | TX_DTYP_DATA | TX_IFCS;

/// A transmit descriptor, of data or of context.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct TxDescriptor {
    /// Data: address of the buffer. Context: checksum starts, offsets and ends.
    low: u64,
    /// Data: length, command, status, packet options. Context: length and command.
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
            high: (command | len as u64).to_le(),
        }
    }

    /// The same descriptor with a report of its status.
    #[inline(always)]
    pub(crate) const fn reporting(self) -> Self {
        Self {
            low: self.low,
            high: self.high | TX_RS.to_le(),
        }
    }

    /// The context for `offload`, which asks for at least one checksum. `None` if a start or a
    /// place lies beyond byte 255, which the fields do not hold.
    ///
    /// The end of the transport checksum is 0 (the end of the frame). The end of the IPv4 header
    /// is inclusive, and 0 where no IPv4 header checksum is asked for, as IPv6 demands. A start
    /// "must be defined even if checksum insertion is not desired" (8254x manual 3.3.6), so both
    /// starts always are.
    #[inline]
    pub(crate) fn context(offload: &Offload) -> Option<Self> {
        let checksum = offload.checksum;
        let network = u32::from(offload.l2_len);
        let transport = network + u32::from(offload.l3_len);
        let ipv4 = checksum.intersects(ChecksumOffload::OF_IPV4);
        let ipcso = if ipv4 { network + 10 } else { 0 };
        let ipcse = if checksum.contains(ChecksumOffload::IPV4_HEADER) {
            transport.checked_sub(1)?
        } else {
            0
        };
        let tucso = if checksum.intersects(ChecksumOffload::TRANSPORT) {
            transport + u32::from(offload.transport_checksum_offset())
        } else {
            0
        };
        if ipcso > 255 || transport > 255 || tucso > 255 {
            return None;
        }
        let mut command = TX_DEXT;
        if ipv4 {
            command |= TX_TUCMD_IP;
        }
        if checksum.intersects(ChecksumOffload::TCP) {
            command |= TX_TUCMD_TCP;
        }
        let low = u64::from(network)
            | u64::from(ipcso) << 8
            | u64::from(ipcse) << 16
            | u64::from(transport) << 32
            | u64::from(tucso) << 40;
        Some(Self {
            low: low.to_le(),
            high: command.to_le(),
        })
    }
}

/// Command and options of the data descriptors of a frame with `checksum`. The packet options
/// are valid in the first descriptor of a frame (8254x manual 3.3.7); QEMU goes by the last one.
/// In all they are right for both.
#[inline(always)]
pub(crate) const fn data_command(checksum: ChecksumOffload) -> u64 {
    let mut command = TX_DATA;
    if checksum.contains(ChecksumOffload::IPV4_HEADER) {
        command |= TX_POPTS_IXSM;
    }
    if checksum.intersects(ChecksumOffload::TRANSPORT) {
        command |= TX_POPTS_TXSM;
    }
    command
}

/// Descriptor done.
const RX_DD: u64 = 1 << 32;
/// End of packet.
const RX_EOP: u64 = 1 << 33;
/// Ignore the checksum bits.
const RX_IXSM: u64 = 1 << 34;
/// The TCP or UDP checksum was computed (8254x manual, receive descriptor status: TCPCS stands
/// for both). The 82574 has UDPCS (bit 4) beside it. No source at hand says what UDPCS without
/// TCPCS covers, a fragment perhaps; then no verdict is taken from it.
const RX_TCPCS: u64 = 1 << 37;
/// The IPv4 header checksum was computed (DPDK e1000 `e1000_defines.h`).
const RX_IPCS: u64 = 1 << 38;
/// Damaged on the wire: wrong frame check sequence, symbol, sequence, carrier extension or data
/// error.
const RX_DAMAGED: u64 = 0b1001_0111 << 40;
/// The TCP or UDP checksum is wrong.
const RX_TCPE: u64 = 1 << 45;
/// The IPv4 header checksum is wrong.
const RX_IPE: u64 = 1 << 46;

/// A legacy receive descriptor. The legacy format is chosen as its write-back leaves the
/// address in place, so that a buffer is given back by one word, and as the extended format
/// adds nothing that one queue uses.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct RxDescriptor {
    /// Address of the buffer.
    address: u64,
    /// Length, checksum, status, errors, VLAN tag: written by the device.
    write_back: u64,
}

const _: () = assert!(size_of::<RxDescriptor>() == 16);
const _: () = assert!(core::mem::offset_of!(RxDescriptor, write_back) == 8);

impl ReceiveDescriptor for RxDescriptor {
    #[inline(always)]
    fn empty(address: DeviceAddress) -> Self {
        Self {
            address: address.0.to_le(),
            write_back: 0,
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
        self.has(RX_DAMAGED)
    }

    #[inline(always)]
    fn frame_len(self) -> u32 {
        u32::from(u64::from_le(self.write_back) as u16)
    }
}

impl RxDescriptor {
    #[inline(always)]
    const fn has(self, bits: u64) -> bool {
        self.write_back & bits.to_le() != 0
    }

    /// What the device says of the checksums.
    #[inline]
    pub(crate) const fn checksum(self) -> RxChecksum {
        if self.has(RX_IXSM) {
            return RxChecksum {
                ipv4_header: Verdict::Unknown,
                transport: Verdict::Unknown,
            };
        }
        RxChecksum {
            ipv4_header: Verdict::of(self.has(RX_IPCS), self.has(RX_IPE)),
            transport: Verdict::of(self.has(RX_TCPCS), self.has(RX_TCPE)),
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
}
