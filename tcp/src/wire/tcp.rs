//! The TCP header (RFC 9293 section 3.1).

use core::net::Ipv4Addr;

use bitflags::bitflags;

use super::{PROTOCOL_TCP, TcpOptions, WireError, put, u16_at, u32_at};
use crate::checksum::pseudo_header;
use crate::seq::SeqNumber;

bitflags! {
    /// The control bits (RFC 9293 section 3.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
    pub struct TcpFlags: u8 {
        /// No more data from the sender.
        const FIN = 1 << 0;
        /// Synchronise sequence numbers.
        const SYN = 1 << 1;
        /// Reset the connection.
        const RST = 1 << 2;
        /// Push: the receiver shall not wait for more.
        const PSH = 1 << 3;
        /// The acknowledgment field is significant.
        const ACK = 1 << 4;
        /// The urgent pointer is significant.
        const URG = 1 << 5;
        /// ECN echo (RFC 3168).
        const ECE = 1 << 6;
        /// Congestion window reduced (RFC 3168).
        const CWR = 1 << 7;
    }
}

/// A TCP header. The urgent pointer is written as zero and not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpHeader {
    /// Port of the sender.
    pub source_port: u16,
    /// Port of the receiver.
    pub destination_port: u16,
    /// Number of the first payload byte (of the SYN itself, if there is one).
    pub seq: SeqNumber,
    /// Number of the byte that the sender expects next; only with [`TcpFlags::ACK`].
    pub ack: SeqNumber,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window as in the field: not scaled.
    pub window: u16,
    /// Options.
    pub options: TcpOptions,
}

impl TcpHeader {
    /// Length in bytes of a header without options.
    pub const LEN: usize = 20;
    /// Length in bytes of the longest header.
    pub const MAX_LEN: usize = 60;
    /// Where the checksum is, in bytes from the start of the header.
    pub const CHECKSUM_OFFSET: usize = 16;

    /// Length in bytes as [`emit`](Self::emit) writes it, options and their padding included: a
    /// multiple of 4 from 20 to 60.
    #[must_use]
    #[inline]
    pub fn header_len(&self) -> usize {
        Self::LEN + self.options.len()
    }

    /// Writes the header to the front of `buffer` and returns its length; `None` if `buffer` is
    /// too short. The checksum field is zero.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let len = self.header_len();
        let mut rest = buffer.get_mut(..len)?;
        put(&mut rest, &self.source_port.to_be_bytes())?;
        put(&mut rest, &self.destination_port.to_be_bytes())?;
        put(&mut rest, &self.seq.0.to_be_bytes())?;
        put(&mut rest, &self.ack.0.to_be_bytes())?;
        // The data offset counts words of 4 bytes, in the upper half of the byte: at most 15.
        put(&mut rest, &[((len / 4) << 4) as u8, self.flags.bits()])?;
        put(&mut rest, &self.window.to_be_bytes())?;
        put(&mut rest, &[0; 4])?; // checksum, urgent pointer
        self.options.emit(rest)?;
        Some(len)
    }

    /// Reads the header of `segment`, which ends where the IP packet does; returns it and the
    /// payload. The checksum is not looked at: see [`verify_tcp`]. Reserved bits are ignored.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::HeaderLength`], [`WireError::OptionLength`].
    #[inline(always)]
    pub fn parse(segment: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let fixed = segment
            .first_chunk::<{ Self::LEN }>()
            .ok_or(WireError::Truncated)?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        if header_len < Self::LEN {
            return Err(WireError::HeaderLength);
        }
        let (header, payload) = segment
            .split_at_checked(header_len)
            .ok_or(WireError::Truncated)?;
        let word = |offset| u16_at(fixed, offset).ok_or(WireError::Truncated);
        let number = |offset| u32_at(fixed, offset).ok_or(WireError::Truncated);
        let parsed = Self {
            source_port: word(0)?,
            destination_port: word(2)?,
            seq: SeqNumber(number(4)?),
            ack: SeqNumber(number(8)?),
            flags: TcpFlags::from_bits_retain(fixed[13]),
            window: word(14)?,
            options: TcpOptions::parse(header.get(Self::LEN..).unwrap_or_default())?,
        };
        Ok((parsed, payload))
    }
}

/// Whether the checksum of `segment`, header and payload, is right for a packet between these
/// two. A segment longer than any IPv4 packet is never right.
#[must_use]
pub fn verify_tcp(source: Ipv4Addr, destination: Ipv4Addr, segment: &[u8]) -> bool {
    let Ok(len) = u16::try_from(segment.len()) else {
        return false;
    };
    if segment.len() < TcpHeader::LEN {
        return false;
    }
    let mut sum = pseudo_header(source, destination, PROTOCOL_TCP, len);
    sum.add(segment);
    sum.finish() == 0
}
