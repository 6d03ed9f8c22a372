//! Headers on the wire: Ethernet II, ARP, IPv4 and TCP, parsed and emitted.
//!
//! What is parsed was written by a stranger: every parser takes any bytes, never panics, and
//! returns a [`WireError`] for what it cannot use. What is emitted goes into a buffer of the
//! caller; `emit` returns the bytes written, or `None` if the buffer is too short (nothing useful
//! is in it then).

mod arp;
mod ethernet;
mod ipv4;
mod tcp;
mod tcp_options;
#[cfg(test)]
mod tests;

pub use arp::{ArpOperation, ArpPacket};
pub use ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, EthernetHeader};
pub use ipv4::{ChecksumBy, Ipv4Header, PROTOCOL_TCP};
pub use tcp::{TcpFlags, TcpHeader, verify_tcp};
pub use tcp_options::{SackBlocks, TcpOptions, Timestamps};

use core::fmt;

/// Why a packet was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WireError {
    /// The buffer ends before the header, or before the length that the header states.
    Truncated,
    /// The IP version is not 4.
    Version,
    /// A header length that is shorter than the fixed part of the header.
    HeaderLength,
    /// An IPv4 total length that is shorter than the header.
    TotalLength,
    /// The checksum is wrong.
    Checksum,
    /// A fragment of a larger IPv4 packet: this stack does not reassemble.
    Fragment,
    /// A TCP option whose length is 0 or 1, or that reaches beyond the header.
    OptionLength,
    /// An ARP packet that is not for IPv4 over Ethernet.
    NotIpv4OverEthernet,
    /// An ARP operation other than request and reply.
    Operation(u16),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated => write!(f, "the packet is shorter than its headers say"),
            Self::Version => write!(f, "the IP version is not 4"),
            Self::HeaderLength => write!(f, "the header length is too short for a header"),
            Self::TotalLength => write!(f, "the IPv4 total length is shorter than the header"),
            Self::Checksum => write!(f, "the checksum is wrong"),
            Self::Fragment => write!(f, "the packet is a fragment of a larger one"),
            Self::OptionLength => write!(f, "a TCP option has an impossible length"),
            Self::NotIpv4OverEthernet => write!(f, "the ARP packet is not for IPv4 over Ethernet"),
            Self::Operation(n) => write!(f, "ARP operation {n} is neither request nor reply"),
        }
    }
}

impl core::error::Error for WireError {}

/// The `N` bytes at `offset`, if there are so many.
#[inline]
fn bytes_at<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk::<N>().copied()
}

/// The word in network byte order at `offset`.
#[inline]
fn u16_at(data: &[u8], offset: usize) -> Option<u16> {
    bytes_at(data, offset).map(u16::from_be_bytes)
}

/// The double word in network byte order at `offset`.
#[inline]
fn u32_at(data: &[u8], offset: usize) -> Option<u32> {
    bytes_at(data, offset).map(u32::from_be_bytes)
}

/// Writes `bytes` to the front of `rest`, which then begins behind them.
#[inline]
fn put(rest: &mut &mut [u8], bytes: &[u8]) -> Option<()> {
    let (front, back) = core::mem::take(rest).split_at_mut_checked(bytes.len())?;
    front.copy_from_slice(bytes);
    *rest = back;
    Some(())
}
