//! Which frames the device keeps, and what it says about their checksums.

use super::bits::{offset, rctl, rfctl, rx_status, rxcsum};
use super::checksum::sum;
use super::registers::RegisterFile;
use crate::intel::packet::{Packet, TCP, UDP};

/// Longest frame without LPE: 1522 bytes with a VLAN tag and the check sequence.
const LONGEST_SHORT: usize = 1518;
/// The bit of a VLAN tag that RCTL.CFIEN looks at.
const CFI: u16 = 1 << 12;
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

/// The type by which a frame's tag is known (VET).
fn tag_type(registers: &RegisterFile) -> u16 {
    registers.get(offset::VET) as u16
}

/// What is in a frame's tag, if it has one: priority, CFI and the identifier of its VLAN.
pub(super) fn vlan(frame: &[u8], registers: &RegisterFile) -> Option<u16> {
    let half = |at: usize| {
        let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u16::from_be_bytes(*bytes))
    };
    half(14).filter(|_| half(12) == Some(tag_type(registers)))
}

/// Whether a frame's VLAN is wanted: RCTL.VFE, and a bit of VFTA for each (as Linux e1000e has it,
/// `e1000_vlan_rx_add_vid`); RCTL.CFIEN, and CFI as it is in RCTL (82583V datasheet 7.5.1.1).
pub(super) fn wants_vlan(frame: &[u8], registers: &RegisterFile) -> bool {
    let Some(tag) = vlan(frame, registers) else {
        return true;
    };
    let control = registers.get(offset::RCTL);
    let id = u32::from(tag & 0xfff);
    let word = registers.get(offset::VFTA + (id >> 5) * 4);
    let is_known = control & rctl::VFE == 0 || word & 1 << (id & 31) != 0;
    let is_canonical = (tag & CFI != 0) == (control & rctl::CFI != 0);
    is_known && (control & rctl::CFIEN == 0 || is_canonical)
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
            status |= header_status(&packet);
        }
        let off = packet.is_ipv6 && registers.get(offset::RFCTL) & rfctl::IPV6_XSUM_DIS != 0;
        if control & rxcsum::TUOFL != 0 && !off {
            status |= transport_status(&packet);
        }
    }
    if status == 0 { rx_status::IXSM } else { status }
}

fn header_status(packet: &Packet<'_>) -> u32 {
    match (packet.is_ipv6, packet.is_header_right()) {
        (true, _) => 0,
        (false, true) => rx_status::IPCS,
        (false, false) => rx_status::IPCS | rx_status::IPE,
    }
}

fn transport_status(packet: &Packet<'_>) -> u32 {
    let checked = match packet.protocol {
        TCP if packet.is_transport(TCP) => rx_status::TCPCS,
        // A UDP checksum of zero says that there is none (RFC 768).
        UDP if packet.is_transport(UDP) && !packet.has_zero_checksum() => {
            rx_status::TCPCS | rx_status::UDPCS
        }
        _ => return 0,
    };
    if packet.is_transport_right() {
        checked
    } else {
        checked | rx_status::TCPE
    }
}

/// The IP identification of `frame`, for the extended descriptor; zero if it has none.
pub(super) fn ip_identification(frame: &[u8]) -> [u8; 2] {
    let packet = Packet::parse(frame);
    // Network order in the packet, little-endian in the descriptor.
    packet
        .map_or(0, |packet| packet.identification())
        .to_le_bytes()
}

/// Bytes of the headers that packet split stores apart, if it does with this frame.
///
/// QEMU (`e1000e_do_ps`) also cuts behind the IP header of what is neither TCP nor UDP; the
/// I210 datasheet, of a later sibling, does so with fragments alone (A.1.4.1), and so it is here.
pub(super) fn header_len(frame: &[u8], registers: &RegisterFile) -> Option<usize> {
    let packet = match vlan(frame, registers) {
        Some(_) => Packet::parse_behind(tag_type(registers), frame)?,
        None => Packet::parse(frame)?,
    };
    let whole = registers.get(offset::RFCTL) & rfctl::IPFRSP_DIS != 0;
    packet
        .headers_len()
        .filter(|_| !(packet.is_fragment() && whole))
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
    use crate::intel::packet::random_frame;

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
            let frame = random_frame(&mut random);
            let status = checksum_status(&frame, &registers);
            assert_ne!(status, 0, "seed 3, round {round}");
        }
    }
}
