//! Which frames the device keeps, and what it says about their checksums.

use super::bits::{offset, rctl, rfctl, rx_status, rxcsum};
use super::checksum::{combine, sum};
use super::registers::RegisterFile;

/// Longest frame without LPE: 1522 bytes with a VLAN tag and the check sequence.
const LONGEST_SHORT: usize = 1518;
/// Longest frame with LPE: 16 KiB with the check sequence (QEMU `e1000x_common.c`).
const LONGEST: usize = 16 * 1024 - 4;

/// Whether a frame of `len` bytes, without check sequence, is too long.
pub(super) fn is_oversized(len: usize, rctl: u32) -> bool {
    len > LONGEST || len > LONGEST_SHORT && rctl & rctl::LPE == 0
}

/// How a frame came through the address filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passed {
    Exact,
    /// Only the hash of its multicast address did: status bit PIF.
    Inexact,
}

/// The address filter (QEMU `e1000x_rx_group_filter`).
pub(super) fn pass(destination: [u8; 6], registers: &RegisterFile) -> Option<Passed> {
    let control = registers.get(offset::RCTL);
    let is_group = destination[0] & 1 != 0;
    let promiscuous = if destination == [0xff; 6] {
        rctl::BAM
    } else if is_group {
        rctl::MPE
    } else {
        rctl::UPE
    };
    if control & promiscuous != 0 || is_station(destination, registers) {
        return Some(Passed::Exact);
    }
    if is_group && is_in_table(destination, control, registers) {
        return Some(Passed::Inexact);
    }
    None
}

/// Any of the 16 receive addresses.
fn is_station([a, b, c, d, e, f]: [u8; 6], registers: &RegisterFile) -> bool {
    let low = u32::from_le_bytes([a, b, c, d]);
    let high = u32::from(u16::from_le_bytes([e, f]));
    (0..16).any(|entry| {
        let at = offset::RAL + entry * 8;
        let upper = registers.get(at + 4);
        upper & 1 << 31 != 0 && upper & 0xffff == high && registers.get(at) == low
    })
}

/// The multicast table: 12 bits of the address, which ones RCTL.MO says.
fn is_in_table([.., e, f]: [u8; 6], control: u32, registers: &RegisterFile) -> bool {
    let shift = match control >> rctl::MO_SHIFT & 0b11 {
        0 => 4,
        1 => 3,
        2 => 2,
        _ => 0,
    };
    let hash = u32::from(u16::from_le_bytes([e, f])) >> shift & 0xfff;
    registers.get(offset::MTA + (hash >> 5) * 4) & 1 << (hash & 0x1f) != 0
}

/// Status and error bits about the checksums of `frame`, as in an extended descriptor.
///
/// IXSM ("ignore") is set when nothing was checked: both offloads off, or no packet that the
/// device knows (82575EB SDM, page 106: such packets have IXSM set or no IPCS and TCPCS).
pub(super) fn checksum_status(frame: &[u8], registers: &RegisterFile) -> u32 {
    let control = registers.get(offset::RXCSUM);
    let mut status = 0;
    if let Some(packet) = Packet::parse(frame) {
        if control & rxcsum::IPOFL != 0 {
            status |= packet.header_status();
        }
        let off = packet.is_ipv6 && registers.get(offset::RFCTL) & rfctl::IPV6_XSUM_DIS != 0;
        if control & rxcsum::TUOFL != 0 && !off {
            status |= packet.transport_status();
        }
    }
    if status == 0 { rx_status::IXSM } else { status }
}

/// The IP packet in a frame.
struct Packet<'a> {
    is_ipv6: bool,
    header: &'a [u8],
    /// Behind the header, up to the length that the header gives.
    payload: &'a [u8],
    protocol: u8,
    is_fragment: bool,
}

const TCP: u8 = 6;
const UDP: u8 = 17;

impl<'a> Packet<'a> {
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let [high, low] = *frame.get(12..)?.first_chunk::<2>()?;
        match u16::from_be_bytes([high, low]) {
            0x0800 => Self::parse_ipv4(frame.get(14..)?),
            0x86dd => Self::parse_ipv6(frame.get(14..)?),
            0x8100 => match *frame.get(16..)?.first_chunk::<2>()? {
                [0x08, 0x00] => Self::parse_ipv4(frame.get(18..)?),
                [0x86, 0xdd] => Self::parse_ipv6(frame.get(18..)?),
                _ => None,
            },
            _ => None,
        }
    }

    fn parse_ipv4(packet: &'a [u8]) -> Option<Self> {
        let [first, _, l0, l1, _, _, f0, f1, _, protocol, ..] = *packet.first_chunk::<20>()?;
        let header_len = usize::from(first & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([l0, l1]));
        if first >> 4 != 4 || header_len < 20 || total < header_len {
            return None;
        }
        let packet = packet.get(..total)?;
        let (header, payload) = packet.split_at_checked(header_len)?;
        Some(Self {
            is_ipv6: false,
            header,
            payload,
            protocol,
            // More fragments, or an offset.
            is_fragment: u16::from_be_bytes([f0, f1]) & 0x3fff != 0,
        })
    }

    /// Extension headers are not followed: such a packet has no transport checksum here.
    fn parse_ipv6(packet: &'a [u8]) -> Option<Self> {
        let [first, _, _, _, l0, l1, protocol, ..] = *packet.first_chunk::<40>()?;
        if first >> 4 != 6 {
            return None;
        }
        let (header, rest) = packet.split_at_checked(40)?;
        Some(Self {
            is_ipv6: true,
            header,
            payload: rest.get(..usize::from(u16::from_be_bytes([l0, l1])))?,
            protocol,
            is_fragment: false,
        })
    }

    fn header_status(&self) -> u32 {
        if self.is_ipv6 {
            0
        } else if sum(self.header) == 0xffff {
            rx_status::IPCS
        } else {
            rx_status::IPCS | rx_status::IPE
        }
    }

    fn transport_status(&self) -> u32 {
        if self.is_fragment {
            return 0;
        }
        let checked = match self.protocol {
            TCP if self.payload.len() >= 20 => rx_status::TCPCS,
            // A UDP checksum of zero says that there is none (RFC 768).
            UDP if self.payload.get(6..8).is_some_and(|field| field != [0, 0]) => {
                rx_status::TCPCS | rx_status::UDPCS
            }
            _ => return 0,
        };
        if combine(self.pseudo_header(), sum(self.payload)) == 0xffff {
            checked
        } else {
            checked | rx_status::TCPE
        }
    }

    fn pseudo_header(&self) -> u16 {
        let addresses = if self.is_ipv6 {
            self.header.get(8..40)
        } else {
            self.header.get(12..20)
        };
        let addresses = sum(addresses.unwrap_or_default());
        let len = self.payload.len() as u16;
        combine(addresses, combine(len, u16::from(self.protocol)))
    }

    /// The identification of an IPv4 packet.
    fn identification(&self) -> Option<[u8; 2]> {
        if self.is_ipv6 {
            None
        } else {
            self.header.get(4..)?.first_chunk().copied()
        }
    }
}

/// The IP identification of `frame`, for the extended descriptor; zero if it has none.
pub(super) fn ip_identification(frame: &[u8]) -> [u8; 2] {
    let packet = Packet::parse(frame);
    let field = packet.and_then(|packet| packet.identification());
    // Network order in the packet, little-endian in the descriptor.
    field.map_or([0, 0], |[high, low]| [low, high])
}

/// The packet checksum of a receive descriptor: the sum from RXCSUM.PCSS to the end of what was
/// stored. The 82583V datasheet 7.1.3.2 includes the check sequence and does not say what
/// becomes of it when SECRC strips it: here it is left out then.
pub(super) fn packet_checksum(stored: &[u8], registers: &RegisterFile) -> u16 {
    let start = registers.get(offset::RXCSUM) & rxcsum::PCSS;
    sum(stored.get(start as usize..).unwrap_or_default())
}

/// Bytes of a receive buffer; `None` if RCTL names no size.
pub(super) fn buffer_size(control: u32) -> Option<usize> {
    let flexible = control >> rctl::FLXBUF_SHIFT & 0xf;
    if flexible != 0 {
        return Some(flexible as usize * 1024);
    }
    let size = control >> rctl::BSIZE_SHIFT & 0b11;
    match (control & rctl::BSEX != 0, size) {
        (false, size) => Some(2048 >> size),
        (true, 0) => None,
        (true, size) => Some(32768 >> size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_sizes_are_those_of_rctl() {
        let sizes: Vec<_> = (0..8)
            .map(|bits: u32| {
                let bsex = if bits & 4 != 0 { rctl::BSEX } else { 0 };
                buffer_size(bsex | (bits & 3) << rctl::BSIZE_SHIFT)
            })
            .collect();
        let expected = [2048, 1024, 512, 256, 0, 16384, 8192, 4096];
        for (size, expected) in sizes.iter().zip(expected) {
            assert_eq!(size.unwrap_or(0), expected);
        }
        assert_eq!(buffer_size(3 << rctl::FLXBUF_SHIFT), Some(3072));
    }

    #[test]
    fn hostile_packets_do_not_panic() {
        let mut random = super::super::pace::Random::new(3);
        let registers = RegisterFile::new(None);
        for round in 0..20_000 {
            let len = random.below(120) as usize;
            let mut frame: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            if let Some(kind) = frame.get_mut(12..14) {
                let kinds = [[8, 0], [0x86, 0xdd], [0x81, 0]];
                kind.copy_from_slice(&kinds[random.below(3) as usize]);
            }
            let status = checksum_status(&frame, &registers);
            assert_ne!(status, 0, "seed 3, round {round}");
        }
    }
}
