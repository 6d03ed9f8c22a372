//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use pagewire_hal::MacAddress;

use super::{ETHERTYPE_IPV4, WireError, bytes_at, put, u16_at};

/// Hardware type of Ethernet (RFC 826, "ares_hrd$Ethernet").
const HARDWARE_ETHERNET: u16 = 1;

/// What an ARP packet is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArpOperation {
    /// Who has the target address?
    Request,
    /// The sender has its address.
    Reply,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArpPacket {
    /// Request or reply.
    pub operation: ArpOperation,
    /// Hardware address of the sender.
    pub sender_mac: MacAddress,
    /// IPv4 address of the sender; 0.0.0.0 in a probe (RFC 5227).
    pub sender_ip: Ipv4Addr,
    /// Hardware address of the target; without meaning in a request.
    pub target_mac: MacAddress,
    /// IPv4 address of the target.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Length in bytes, without the padding of the frame.
    pub const LEN: usize = 28;

    /// Reads a packet from what follows the Ethernet header. More bytes may follow (padding).
    ///
    /// # Errors
    /// [`WireError::Truncated`]; [`WireError::NotIpv4OverEthernet`] for other address types or
    /// lengths; [`WireError::Operation`].
    pub fn parse(packet: &[u8]) -> Result<Self, WireError> {
        let packet = packet
            .first_chunk::<{ Self::LEN }>()
            .ok_or(WireError::Truncated)?;
        let types = (u16_at(packet, 0), u16_at(packet, 2), bytes_at(packet, 4));
        if types != (Some(HARDWARE_ETHERNET), Some(ETHERTYPE_IPV4), Some([6, 4])) {
            return Err(WireError::NotIpv4OverEthernet);
        }
        let operation = match u16_at(packet, 6).ok_or(WireError::Truncated)? {
            1 => ArpOperation::Request,
            2 => ArpOperation::Reply,
            other => return Err(WireError::Operation(other)),
        };
        let mac = |offset| bytes_at(packet, offset).ok_or(WireError::Truncated);
        let ip = |offset| bytes_at::<4>(packet, offset).ok_or(WireError::Truncated);
        Ok(Self {
            operation,
            sender_mac: MacAddress(mac(8)?),
            sender_ip: Ipv4Addr::from(ip(14)?),
            target_mac: MacAddress(mac(18)?),
            target_ip: Ipv4Addr::from(ip(24)?),
        })
    }

    /// Writes the packet to the front of `buffer` and returns its length; `None` if `buffer` is
    /// too short.
    pub fn emit(&self, mut buffer: &mut [u8]) -> Option<usize> {
        let operation: u16 = match self.operation {
            ArpOperation::Request => 1,
            ArpOperation::Reply => 2,
        };
        put(&mut buffer, &HARDWARE_ETHERNET.to_be_bytes())?;
        put(&mut buffer, &ETHERTYPE_IPV4.to_be_bytes())?;
        put(&mut buffer, &[6, 4])?;
        put(&mut buffer, &operation.to_be_bytes())?;
        put(&mut buffer, &self.sender_mac.0)?;
        put(&mut buffer, &self.sender_ip.octets())?;
        put(&mut buffer, &self.target_mac.0)?;
        put(&mut buffer, &self.target_ip.octets())?;
        Some(Self::LEN)
    }
}
