//! The Ethernet II header, without VLAN tag.

use pagewire_hal::MacAddress;

use super::{WireError, bytes_at, put, u16_at};

/// Type of a frame that carries IPv4 (RFC 894).
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// Type of a frame that carries ARP (RFC 826).
pub const ETHERTYPE_ARP: u16 = 0x0806;

/// An Ethernet II header (RFC 894).
///
/// A frame whose type field is below 0x0600 carries a length there instead (IEEE 802.3); it is
/// parsed alike, and no protocol of this crate has such a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EthernetHeader {
    /// Who the frame is for.
    pub destination: MacAddress,
    /// Who sent it.
    pub source: MacAddress,
    /// What it carries.
    pub ethertype: u16,
}

impl EthernetHeader {
    /// Length in bytes.
    pub const LEN: usize = 14;

    /// Reads the header of `frame`; returns it and what follows, padding of short frames
    /// included.
    ///
    /// # Errors
    /// [`WireError::Truncated`].
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (header, payload) = frame
            .split_first_chunk::<{ Self::LEN }>()
            .ok_or(WireError::Truncated)?;
        let parsed = Self {
            destination: MacAddress(bytes_at(header, 0).ok_or(WireError::Truncated)?),
            source: MacAddress(bytes_at(header, 6).ok_or(WireError::Truncated)?),
            ethertype: u16_at(header, 12).ok_or(WireError::Truncated)?,
        };
        Ok((parsed, payload))
    }

    /// Writes the header to the front of `buffer` and returns its length; `None` if `buffer` is
    /// too short.
    #[inline]
    pub fn emit(&self, mut buffer: &mut [u8]) -> Option<usize> {
        put(&mut buffer, &self.destination.0)?;
        put(&mut buffer, &self.source.0)?;
        put(&mut buffer, &self.ethertype.to_be_bytes())?;
        Some(Self::LEN)
    }
}
