//! The IPv4 header (RFC 791).

use core::net::Ipv4Addr;

use super::{WireError, bytes_at, u16_at};
use crate::checksum::Sum;

/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;

const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments" and the fragment offset: a whole packet has zero in all of them.
const FRAGMENT: u16 = 0x3fff;

/// Who computes a checksum on transmit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumBy {
    /// The CPU, while it writes the header.
    Cpu,
    /// The device; the field is left zero for it, as the HAL's `Offload` asks.
    Device,
}

/// An IPv4 header. Type of service (with ECN) is written as zero and not read; options are
/// skipped on receive and never written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ipv4Header {
    /// Who sent the packet.
    pub source: Ipv4Addr,
    /// Who it is for.
    pub destination: Ipv4Addr,
    /// What it carries: [`PROTOCOL_TCP`].
    pub protocol: u8,
    /// Bytes of header and payload. What `parse` returns as payload ends there, though the frame
    /// may go on with padding.
    pub total_len: u16,
    /// Tells the fragments of one packet from those of another.
    pub identification: u16,
    /// Hops that the packet may still make.
    pub ttl: u8,
    /// Whether routers must drop the packet instead of fragmenting it.
    pub dont_fragment: bool,
}

impl Ipv4Header {
    /// Length in bytes of a header without options, as `emit` writes it.
    pub const LEN: usize = 20;

    /// Reads the header of `packet`; returns it and its payload. `verified` says that the device
    /// has found the header checksum right, so that it is not summed again.
    ///
    /// # Errors
    /// [`Truncated`](WireError::Truncated), [`Version`](WireError::Version),
    /// [`HeaderLength`](WireError::HeaderLength), [`TotalLength`](WireError::TotalLength),
    /// [`Checksum`](WireError::Checksum); for a fragment [`Fragment`](WireError::Fragment).
    #[inline(always)]
    pub fn parse(packet: &[u8], verified: bool) -> Result<(Self, &[u8]), WireError> {
        let fixed = packet
            .first_chunk::<{ Self::LEN }>()
            .ok_or(WireError::Truncated)?;
        if fixed[0] >> 4 != 4 {
            return Err(WireError::Version);
        }
        let header_len = usize::from(fixed[0] & 0xf) * 4;
        if header_len < Self::LEN {
            return Err(WireError::HeaderLength);
        }
        let header = packet.get(..header_len).ok_or(WireError::Truncated)?;
        if !verified && !sums_to_zero(header) {
            return Err(WireError::Checksum);
        }
        let total_len = u16_at(fixed, 2).ok_or(WireError::Truncated)?;
        if usize::from(total_len) < header_len {
            return Err(WireError::TotalLength);
        }
        let payload = packet
            .get(header_len..usize::from(total_len))
            .ok_or(WireError::Truncated)?;
        let flags = u16_at(fixed, 6).ok_or(WireError::Truncated)?;
        if flags & FRAGMENT != 0 {
            return Err(WireError::Fragment);
        }
        let address = |offset| bytes_at::<4>(fixed, offset).ok_or(WireError::Truncated);
        let parsed = Self {
            source: Ipv4Addr::from(address(12)?),
            destination: Ipv4Addr::from(address(16)?),
            protocol: fixed[9],
            total_len,
            identification: u16_at(fixed, 4).ok_or(WireError::Truncated)?,
            ttl: fixed[8],
            dont_fragment: flags & DONT_FRAGMENT != 0,
        };
        Ok((parsed, payload))
    }

    /// Writes the header to the front of `buffer` and returns its length; `None` if `buffer` is
    /// too short.
    pub fn emit(&self, buffer: &mut [u8], checksum: ChecksumBy) -> Option<usize> {
        let header = buffer.first_chunk_mut::<{ Self::LEN }>()?;
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        let [len_high, len_low] = self.total_len.to_be_bytes();
        let [id_high, id_low] = self.identification.to_be_bytes();
        let [flags_high, flags_low] = flags.to_be_bytes();
        let [s0, s1, s2, s3] = self.source.octets();
        let [d0, d1, d2, d3] = self.destination.octets();
        *header = [
            0x45,
            0,
            len_high,
            len_low, // version and header length, type of service
            id_high,
            id_low,
            flags_high,
            flags_low, //
            self.ttl,
            self.protocol,
            0,
            0, // checksum
            s0,
            s1,
            s2,
            s3, //
            d0,
            d1,
            d2,
            d3,
        ];
        if checksum == ChecksumBy::Cpu {
            let mut sum = Sum::default();
            sum.add(header);
            let [high, low] = sum.finish().to_be_bytes();
            header[10] = high;
            header[11] = low;
        }
        Some(Self::LEN)
    }
}

/// Whether the header checksum, which is part of the sum, is right.
fn sums_to_zero(header: &[u8]) -> bool {
    let mut sum = Sum::default();
    sum.add(header);
    sum.finish() == 0
}
