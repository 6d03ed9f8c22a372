//! What a context makes of a frame: the judgement about both, and checksum insertion.

use super::bits::tucmd;
use super::checksum::{combine, sum};
use super::descriptor::Context;
use super::latitude::Rules;

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Ranges of the fields of a context. Sources differ: the 82598 datasheet has L4LEN from 12 to 255
/// and IPLEN from 6, the X550 datasheet (7.2.3.2.3) L4LEN from 8 to 64 and IPLEN from 20. Taken is
/// the X550's, the narrower one.
const MAC_LEN: core::ops::RangeInclusive<usize> = 14..=127;
const IP_LEN: core::ops::RangeInclusive<usize> = 20..=511;
const L4_LEN: core::ops::RangeInclusive<usize> = 8..=64;
/// Most bytes of all three (the 82598 datasheet: less than 512; the X550: at most).
const HEADERS: usize = 512;
/// Most bytes of the headers that segmentation repeats (X550 datasheet).
const LONGEST_HEADER: usize = 240;
/// Longest frame that the device sends: 15.5 KiB (DPDK, FreeBSD: a limit on a single send).
pub(super) const LONGEST_FRAME: usize = 15872 - 4;

/// What a frame asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// IXSM.
    pub(super) ip: bool,
    /// TXSM.
    pub(super) transport: bool,
    /// TSE.
    pub(super) segment: bool,
    /// Bytes that VLE adds: not of the frame yet, and not counted in the context or in PAYLEN.
    pub(super) tag: usize,
}

impl Request {
    /// Whether the context's lengths matter. For a tag alone its field VLAN does (X550 datasheet,
    /// table 7-38); Linux ixgbe gives a MACLEN then, and no IPLEN.
    pub(super) fn needs_headers(&self) -> bool {
        self.ip || self.transport || self.segment
    }
}

/// Bytes `at` and behind it.
fn pair(frame: &[u8], at: usize) -> Option<[u8; 2]> {
    frame.get(at..)?.first_chunk().copied()
}

/// Judges a context and the frame that uses it; false if the device can do nothing with them.
pub(super) fn judge(
    context: &Context,
    request: Request,
    frame: &[u8],
    rules: Rules,
    report: &mut dyn FnMut(&str),
) -> bool {
    if !MAC_LEN.contains(&context.mac_len) {
        report("MACLEN is not from 14 to 127");
        return false;
    }
    if !IP_LEN.contains(&context.ip_len) {
        report("IPLEN is not from 20 to 511");
        return false;
    }
    let header = frame.get(context.mac_len..context.transport());
    let Some(header) = header else {
        report("MACLEN and IPLEN go beyond the end of the frame");
        return false;
    };
    let context = &Context {
        is_ipv4: version(context, request, header),
        ..*context
    };
    if !context.is_ipv4 && context.ip_len < 40 {
        report("IPLEN is less than an IPv6 header");
        return false;
    }
    judge_ip(context, request, frame, header, report);
    if request.segment && rules.beyond_dpdk {
        judge_ip_length(context, header, report);
    }
    if request.segment && !judge_segmentation(context, request, frame, report) {
        return false;
    }
    if request.transport {
        return judge_transport(context, request, frame, header, report);
    }
    true
}

/// Whether it is IPv4. TUCMD says it where the IP header is worked on; for a transport checksum
/// alone it says nothing (a context needs only the fields that its offloads use, 82598 datasheet
/// 3.5.3.3.1.2; Linux ixgbe leaves the bit 0 then).
fn version(context: &Context, request: Request, header: &[u8]) -> bool {
    if request.ip || request.segment {
        context.is_ipv4
    } else {
        header.first().is_some_and(|first| first >> 4 == 4)
    }
}

fn judge_ip(
    context: &Context,
    request: Request,
    frame: &[u8],
    header: &[u8],
    report: &mut dyn FnMut(&str),
) {
    let expected = if context.is_ipv4 { IPV4 } else { IPV6 };
    if pair(frame, context.mac_len - 2) != Some(expected) {
        report("MACLEN does not end behind the EtherType of the IP version in TUCMD");
        return;
    }
    let first = header.first().copied().unwrap_or(0);
    if context.is_ipv4 {
        if first >> 4 != 4 || usize::from(first & 0xf) * 4 != context.ip_len {
            report("IPLEN is not the length of the IPv4 header");
        } else if request.ip && header.get(10..12) != Some(&[0, 0]) {
            report("IXSM, and the checksum in the IPv4 header is not zero: it is summed as well");
        }
    } else {
        if first >> 4 != 6 {
            report("there is no IPv6 header behind MACLEN");
        }
        if request.ip {
            report("IXSM with a context for IPv6, which has no header checksum");
        }
    }
}

/// The device puts the length of each segment into its header: software leaves zero there. DPDK
/// leaves the length of the whole.
fn judge_ip_length(context: &Context, header: &[u8], report: &mut dyn FnMut(&str)) {
    if context.is_ipv4 && header.get(2..4) != Some(&[0, 0]) {
        report("TSE, and the total length in the IPv4 header is not zero");
    } else if !context.is_ipv4 && header.get(4..6) != Some(&[0, 0]) {
        report("TSE, and the payload length in the IPv6 header is not zero");
    }
}

fn judge_segmentation(
    context: &Context,
    request: Request,
    frame: &[u8],
    report: &mut dyn FnMut(&str),
) -> bool {
    if !L4_LEN.contains(&context.l4_len) {
        report("L4LEN is not from 8 to 64");
        return false;
    }
    let header_len = context.header_len();
    if header_len > HEADERS {
        report("MACLEN, IPLEN and L4LEN make more than 512");
    }
    if header_len > LONGEST_HEADER {
        report("a header of more than 240 bytes is to be repeated");
    }
    if context.l4_type != tucmd::TCP {
        report("segmentation of anything but TCP is not modelled");
        return false;
    }
    if context.mss == 0 {
        report("MSS is zero");
        return false;
    }
    // The tag is part of the frame's length (X550 datasheet 7.2.3.2.3.1).
    if header_len + context.mss + request.tag > LONGEST_FRAME {
        report("MSS makes frames that are too long");
        return false;
    }
    if frame.len() <= header_len {
        report("TSE, and there is no payload");
        return false;
    }
    let offset = frame.get(context.transport() + 12).copied().unwrap_or(0);
    if usize::from(offset >> 4) * 4 != context.l4_len {
        report("L4LEN is not the length of the TCP header");
    }
    if !request.transport || context.is_ipv4 && !request.ip {
        report("TSE without TXSM, or without IXSM for IPv4");
    }
    true
}

fn judge_transport(
    context: &Context,
    request: Request,
    frame: &[u8],
    header: &[u8],
    report: &mut dyn FnMut(&str),
) -> bool {
    let protocol = match context.l4_type {
        tucmd::TCP => TCP,
        tucmd::UDP => UDP,
        _ => {
            report("TXSM for anything but TCP and UDP is not modelled");
            return false;
        }
    };
    let Some(seed) = pair(frame, context.checksum_at()) else {
        report("the transport checksum lies beyond the end of the frame");
        return false;
    };
    let (place, addresses) = if context.is_ipv4 {
        (9, header.get(12..20))
    } else {
        (6, header.get(8..40))
    };
    // Behind extension headers the protocol is elsewhere: not looked for.
    let plain = context.is_ipv4 || context.ip_len == 40;
    if plain && header.get(place) != Some(&protocol) {
        report("L4T is not the protocol in the IP header");
    }
    let expected = if request.segment {
        0
    } else {
        transport_len(context, header)
    };
    let rest = combine(expected, u16::from(protocol));
    let pseudo = combine(sum(addresses.unwrap_or_default()), rest);
    let given = u16::from_be_bytes(seed);
    // All ones and zero are the same number.
    if given != pseudo && (given ^ pseudo != 0xffff || given != 0 && pseudo != 0) {
        report(if request.segment {
            "the seed is not the sum of the pseudo-header without a length"
        } else {
            "the seed is not the sum of the pseudo-header"
        });
    }
    true
}

/// The length that the IP header gives to what is behind it.
fn transport_len(context: &Context, header: &[u8]) -> u16 {
    let field = |at| pair(header, at).map_or(0, u16::from_be_bytes);
    if context.is_ipv4 {
        field(2).wrapping_sub(context.ip_len as u16)
    } else {
        field(4).wrapping_sub(context.ip_len as u16 - 40)
    }
}

/// Inserts what a frame asks for that is not segmented; how many checksums that were. The
/// transport checksum covers everything to the end of the data (82598 datasheet 3.5.3.5).
pub(super) fn insert(context: &Context, request: Request, frame: &mut [u8]) -> u64 {
    let mut inserted = 0;
    if request.ip {
        inserted += u64::from(insert_ip(context, frame));
    }
    if request.transport {
        let covered = frame.get(context.transport()..).unwrap_or_default();
        let value = !sum(covered);
        inserted += u64::from(put_transport(context, value, frame));
    }
    inserted
}

/// Puts the checksum of the IPv4 header into it.
pub(super) fn insert_ip(context: &Context, frame: &mut [u8]) -> bool {
    let header = frame.get(context.mac_len..context.transport());
    let value = !sum(header.unwrap_or_default());
    put(frame, context.mac_len + 10, value)
}

/// Puts a transport checksum into its place. One that is zero means "none" in UDP and goes out as
/// all ones (RFC 768); that the device does so is assumed.
pub(super) fn put_transport(context: &Context, value: u16, frame: &mut [u8]) -> bool {
    let none = context.l4_type == tucmd::UDP && value == 0;
    put(
        frame,
        context.checksum_at(),
        if none { 0xffff } else { value },
    )
}

/// Writes two bytes at `at`; whether they are in the frame.
pub(super) fn put(frame: &mut [u8], at: usize, value: u16) -> bool {
    let target = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
    target.is_some_and(|target: &mut [u8; 2]| {
        *target = value.to_be_bytes();
        true
    })
}
