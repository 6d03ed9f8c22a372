//! Which frames the device keeps.

use super::bits::{fctrl, hlreg0, mcstctrl, offset, vlnctrl};
use super::registers::RegisterFile;

/// Longest frame without JUMBOEN: 1518 bytes, and 1522 with a VLAN tag, with the check sequence.
const LONGEST_SHORT: usize = 1518 - 4;
/// Receive addresses.
const ADDRESSES: u32 = 128;

/// Whether a frame, without check sequence, is too long. With JUMBOEN the bound is MAXFRS.MFS,
/// which counts the check sequence and not the tag (X550 datasheet 8.2.2.16.6).
pub(super) fn is_oversized(frame: &[u8], registers: &RegisterFile) -> bool {
    let tag = vlan(frame, registers).map_or(0, |_| 4);
    let longest = if registers.get(offset::HLREG0) & hlreg0::JUMBOEN == 0 {
        LONGEST_SHORT
    } else {
        (registers.get(offset::MAXFRS) >> 16).saturating_sub(4) as usize
    };
    frame.len() > longest + tag
}

/// How a frame came through the address filter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passed {
    Exact,
    /// Only the hash of its multicast address did: status bit PIF.
    Inexact,
}

/// The address filter (82599 datasheet 7.1.1.1). That section has broadcast pass with MPE *or*
/// BAM.
pub(super) fn pass(destination: [u8; 6], registers: &RegisterFile) -> Option<Passed> {
    let control = registers.get(offset::FCTRL);
    let is_group = destination[0] & 1 != 0;
    let promiscuous = if destination == [0xff; 6] {
        fctrl::BAM | fctrl::MPE
    } else if is_group {
        fctrl::MPE
    } else {
        fctrl::UPE
    };
    if control & promiscuous != 0 || is_station(destination, registers) {
        return Some(Passed::Exact);
    }
    if is_group && is_in_table(destination, registers) {
        return Some(Passed::Inexact);
    }
    None
}

/// The type by which a frame's tag is known (VLNCTRL.VET).
pub(super) fn tag_type(registers: &RegisterFile) -> u16 {
    (registers.get(offset::VLNCTRL) & vlnctrl::VET) as u16
}

/// What is in a frame's tag, if it has one: priority and the identifier of its VLAN.
pub(super) fn vlan(frame: &[u8], registers: &RegisterFile) -> Option<u16> {
    let half = |at: usize| {
        let bytes = frame.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u16::from_be_bytes(*bytes))
    };
    half(14).filter(|_| half(12) == Some(tag_type(registers)))
}

/// Whether a frame's VLAN is wanted: VLNCTRL.VFE, and a bit of VFTA for each (as Linux ixgbe has
/// it, `ixgbe_set_vfta_generic`).
pub(super) fn wants_vlan(frame: &[u8], registers: &RegisterFile) -> bool {
    let Some(tag) = vlan(frame, registers) else {
        return true;
    };
    let id = u32::from(tag & 0xfff);
    let word = registers.get(offset::VFTA + (id >> 5) * 4);
    registers.get(offset::VLNCTRL) & vlnctrl::VFE == 0 || word & 1 << (id & 31) != 0
}

/// Any of the receive addresses.
fn is_station([a, b, c, d, e, f]: [u8; 6], registers: &RegisterFile) -> bool {
    let low = u32::from_le_bytes([a, b, c, d]);
    let high = u32::from(u16::from_le_bytes([e, f]));
    (0..ADDRESSES).any(|entry| {
        let at = offset::RAL + entry * 8;
        let upper = registers.get(at + 4);
        upper & 1 << 31 != 0 && upper & 0xffff == high && registers.get(at) == low
    })
}

/// The multicast table: 12 bits of the address, which ones MCSTCTRL.MO says (Linux ixgbe
/// `ixgbe_mta_vector`); it counts only with MFE.
fn is_in_table([.., e, f]: [u8; 6], registers: &RegisterFile) -> bool {
    let control = registers.get(offset::MCSTCTRL);
    let shift = match control & mcstctrl::MO {
        0 => 4,
        1 => 3,
        2 => 2,
        _ => 0,
    };
    let hash = u32::from(u16::from_le_bytes([e, f])) >> shift & 0xfff;
    let word = registers.get(offset::MTA + (hash >> 5) * 4);
    control & mcstctrl::MFE != 0 && word & 1 << (hash & 0x1f) != 0
}
